//! The protocol under load, and against peers that write anything.

use core::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::{
    handoff::{Function, Handoff},
    sys::shared::Shared,
};

fn handoff(vcpus: u32, functions: u32) -> Handoff {
    let function = Function {
        vectors: 8,
        ..Function::default()
    };
    Handoff {
        vcpu_count: vcpus,
        function_count: functions,
        functions: [function; crate::handoff::MAX_FUNCTIONS],
        ..Handoff::empty()
    }
}

fn both_sides(vcpus: u32, functions: u32) -> (Shared, VcpuSide, DeviceSide) {
    let handoff = handoff(vcpus, functions);
    let shared = Shared::anonymous(Layout::of(&handoff).size_bytes());
    let vcpu_side = VcpuSide::new(shared, &handoff).unwrap();
    (
        shared,
        vcpu_side,
        DeviceSide::new(shared, &handoff).unwrap(),
    )
}

fn write(vcpu: u64, n: u64) -> Request {
    Request {
        kind: RequestKind::BarWrite,
        function: 1,
        bar: 3,
        size_bytes: 8,
        offset: vcpu << 32 | n,
        value: n,
    }
}

/// The answer an honest D of these tests gives.
fn answer(vcpu: usize, request: &Request) -> Reply {
    let route = request.value.is_multiple_of(3).then_some(RouteUpdate {
        first_vector: 2,
        count: 6,
        address: 0xFEE0_0000 | request.offset & 0xF_FFFC,
        data: u32::try_from(vcpu).unwrap(),
        is_live: request.value.is_multiple_of(2),
    });
    Reply {
        value: request.value.wrapping_mul(3),
        route,
    }
}

#[test]
fn every_vcpu_gets_its_own_answer_under_load() {
    const ROUNDS: u64 = 4_000;
    let (shared, vcpu_side, device_side) = both_sides(4, 2);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let device = scope.spawn(|| {
            let (mut last, mut served) = (0, [0_u64; 4]);
            while !is_over.load(Ordering::SeqCst) {
                if let Next::Request { vcpu, request } =
                    device_side.next_request(last, Some(5)).unwrap()
                {
                    assert_eq!(request.offset >> 32, vcpu as u64);
                    device_side.reply(vcpu, &answer(vcpu, &request));
                    served[vcpu] += 1;
                    last = vcpu;
                }
            }
            served
        });
        let vcpus: Vec<_> = (0..4_usize)
            .map(|vcpu| {
                let side = &vcpu_side;
                scope.spawn(move || {
                    for n in 0..ROUNDS {
                        let request = write(vcpu as u64, n);
                        assert_eq!(side.call(vcpu, &request), Ok(answer(vcpu, &request)));
                        if n.is_multiple_of(64) {
                            // Long enough for D to fall asleep.
                            std::thread::sleep(core::time::Duration::from_micros(200));
                        }
                    }
                })
            })
            .collect();
        for vcpu in vcpus {
            vcpu.join().unwrap();
        }
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(device.join().unwrap(), [ROUNDS; 4]);
    });
    let requests = shared.long(Layout::counter(Counter::Requests));
    assert_eq!(requests.load(Ordering::SeqCst), 4 * ROUNDS);
}

/// A byte of the guest's console.
fn take(device_side: &DeviceSide) -> Option<u8> {
    let mut byte = [0];
    let count = device_side.console_copy(&mut byte);
    device_side.console_pass(count);
    (count == 1).then_some(byte[0])
}

#[test]
fn console_bytes_wait_until_they_are_passed_on() {
    let (shared, vcpu_side, device_side) = both_sides(1, 0);
    let left = || {
        let word = |offset| shared.word(offset).load(Ordering::Relaxed);
        Layout::console_left(
            word(Layout::CONSOLE_OUT_PUT),
            word(Layout::CONSOLE_OUT_PASSED),
        )
    };
    for round in 0..3000_u32 {
        let text = round.to_le_bytes();
        assert!(text.iter().all(|byte| vcpu_side.console_put(*byte)));
        let mut bytes = [0; 8];
        for _ in 0..2 {
            assert_eq!(device_side.console_copy(&mut bytes), 4);
            assert_eq!((&bytes[..4], left()), (&text[..], 4));
        }
        device_side.console_pass(3);
        assert_eq!(device_side.console_copy(&mut bytes[..1]), 1);
        assert_eq!((bytes[0], left()), (text[3], 1));
        device_side.console_pass(1);
        assert_eq!((device_side.console_copy(&mut bytes), left()), (0, 0));
    }
    assert_eq!(Layout::console_left(4096, 0), 4096);
    for (put, passed) in [(4097, 0), (0, 1)] {
        assert_eq!(Layout::console_left(put, passed), 0);
    }
}

#[test]
fn console_bytes_arrive_in_order_in_both_directions() {
    const BYTES: u32 = 100_000;
    let (_, vcpu_side, device_side) = both_sides(1, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..BYTES {
                while !vcpu_side.console_put(n.to_le_bytes()[0]) {
                    std::thread::yield_now();
                }
            }
        });
        scope.spawn(|| {
            for n in 0..BYTES {
                while !device_side.console_give(n.to_le_bytes()[0]) {
                    std::thread::yield_now();
                }
            }
        });
        scope.spawn(|| {
            for n in 0..BYTES {
                let byte = loop {
                    match vcpu_side.console_get() {
                        Some(byte) => break byte,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(byte, n.to_le_bytes()[0]);
            }
        });
        let mut n = 0_u32;
        while n < BYTES {
            let next = device_side.next_request(0, None);
            assert!(matches!(next, Ok(Next::Console | Next::Nothing)));
            while let Some(byte) = take(&device_side) {
                assert_eq!(byte, n.to_le_bytes()[0]);
                n += 1;
            }
        }
    });
}

#[test]
fn console_waits_for_time_only_where_its_receiver_is_slow() {
    let (_, vcpu_side, device_side) = both_sides(1, 0);
    assert!(vcpu_side.console_put(b'x'));
    assert_eq!(device_side.next_request(0, None), Ok(Next::Console));
    assert_eq!(device_side.next_request(0, Some(1)), Ok(Next::Nothing));
}

#[test]
fn full_queue_takes_nothing() {
    let (_, vcpu_side, device_side) = both_sides(1, 0);
    let put = (0..5000).filter(|_| vcpu_side.console_put(1)).count();
    assert_eq!(put, 4096);
    assert!(!vcpu_side.console_has_room());
    assert_eq!(take(&device_side), Some(1));
    assert!(vcpu_side.console_has_room());
    assert!(!vcpu_side.console_has_room_for(2));
    assert_eq!(take(&device_side), Some(1));
    assert!(vcpu_side.console_has_room_for(2));
    assert!(!vcpu_side.console_has_room_for(u32::MAX));
}

#[test]
fn published_dwords_lie_where_the_guest_reads_them() {
    let (shared, _, device_side) = both_sides(1, 2);
    device_side.publish_config(1, &[0x4433_2211, 0x8877_6655]);
    let layout = Layout::new(1, 2);
    let read = |function, offset| {
        let at = layout.config(function) + offset;
        shared.word(at).load(Ordering::Relaxed)
    };
    assert_eq!((read(1, 0), read(1, 4)), (0x4433_2211, 0x8877_6655));
    assert_eq!((read(1, 4092), read(0, 0)), (0, 0));
    let [low, ..] = read(1, 0).to_le_bytes();
    assert_eq!(low, shared.byte(layout.config(1)).load(Ordering::Relaxed));
}

#[test]
fn requests_out_of_range_break_the_ring() {
    let good = Request {
        kind: RequestKind::BarRead,
        function: 1,
        bar: 5,
        size_bytes: 8,
        offset: u64::MAX - 8,
        value: 0,
    };
    let config = Request {
        kind: RequestKind::ConfigWrite,
        bar: 0,
        size_bytes: 4,
        offset: 4092,
        ..good
    };
    for (request, is_taken) in [
        (good, true),
        (
            Request {
                function: 2,
                ..good
            },
            false,
        ),
        (Request { bar: 6, ..good }, false),
        (
            Request {
                size_bytes: 3,
                ..good
            },
            false,
        ),
        (
            Request {
                size_bytes: 0,
                ..good
            },
            false,
        ),
        (
            Request {
                offset: u64::MAX - 7,
                ..good
            },
            false,
        ),
        (config, true),
        (Request { bar: 1, ..config }, false),
        (
            Request {
                size_bytes: 8,
                offset: 0,
                ..config
            },
            false,
        ),
        (
            Request {
                offset: 4096,
                ..config
            },
            false,
        ),
        (
            Request {
                offset: 2,
                ..config
            },
            false,
        ),
    ] {
        let (_, vcpu_side, device_side) = both_sides(1, 2);
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| vcpu_side.call(0, &request));
            let taken = loop {
                match device_side.next_request(0, Some(5)) {
                    Ok(Next::Nothing) => {}
                    other => break other,
                }
            };
            let expected = is_taken
                .then_some(Next::Request { vcpu: 0, request })
                .ok_or(PeerBroken);
            assert_eq!(taken, expected);
            device_side.reply(0, &Reply::default());
            assert_eq!(caller.join().unwrap(), Ok(Reply::default()));
        });
    }
}

#[test]
fn routes_of_other_vectors_break_the_ring() {
    for (first_vector, count, is_taken) in [
        (0, 8, true),
        (7, 1, true),
        (8, 1, false),
        (0, 9, false),
        (u32::MAX, 1, false),
    ] {
        let (_, vcpu_side, device_side) = both_sides(1, 2);
        let route = RouteUpdate {
            first_vector,
            count,
            address: 0,
            data: 0,
            is_live: false,
        };
        let reply = Reply {
            value: 0,
            route: Some(route),
        };
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| vcpu_side.call(0, &write(0, 1)));
            while !matches!(
                device_side.next_request(0, Some(5)),
                Ok(Next::Request { .. })
            ) {}
            device_side.reply(0, &reply);
            assert_eq!(
                caller.join().unwrap(),
                is_taken.then_some(reply).ok_or(PeerBroken)
            );
        });
    }
}

#[test]
fn routes_that_are_no_interrupts_break_the_ring() {
    for (address, is_taken) in [
        (0, true),
        (0xFEE0_0000, true),
        (0xFEEF_FFFC, true),
        (0xFEF0_0000, false),
        (0xFED0_0000, false),
        (0x1_FEE0_0000, false),
    ] {
        let (_, vcpu_side, device_side) = both_sides(1, 2);
        let route = RouteUpdate {
            first_vector: 0,
            count: 1,
            address,
            data: 0x31,
            is_live: true,
        };
        let reply = Reply {
            value: 0,
            route: Some(route),
        };
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| vcpu_side.call(0, &write(0, 1)));
            while !matches!(
                device_side.next_request(0, Some(5)),
                Ok(Next::Request { .. })
            ) {}
            device_side.reply(0, &reply);
            assert_eq!(
                caller.join().unwrap(),
                is_taken.then_some(reply).ok_or(PeerBroken)
            );
        });
    }
}

/// A peer that scribbles over the whole memory, or puts near-sense where it hurts, while the honest side works.
fn scribble(shared: Shared, words: &[(usize, u32)], is_over: &AtomicBool) {
    while !is_over.load(Ordering::SeqCst) {
        for (at, value) in words {
            let at = at % (shared.size_bytes() / 4);
            shared.word(4 * at).store(*value, Ordering::Relaxed);
        }
        std::thread::yield_now();
    }
}

fn words() -> impl Strategy<Value = Vec<(usize, u32)>> {
    let anywhere = (0_usize..1 << 16, any::<u32>());
    // The head's words and the first slot, with small numbers: what passes the first check and fails a later one.
    let slot = (
        Layout::HEAD_BYTES / 4..Layout::HEAD_BYTES / 4 + 64,
        0_u32..10,
    );
    let head = (0_usize..100, prop_oneof![any::<u32>(), 0_u32..3]);
    prop::collection::vec(prop_oneof![anywhere, slot, head], 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn device_side_survives_any_peer(words in words()) {
        let (shared, _, device_side) = both_sides(2, 2);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| scribble(shared, &words, &is_over));
            let mut last = 0;
            for _ in 0..100 {
                if let Ok(Next::Request { vcpu, request }) = device_side.next_request(last, Some(1)) {
                    assert!(vcpu < 2 && request.function < 2 && request.bar < 6 && request.size_bytes <= 8);
                    device_side.reply(vcpu, &answer(vcpu, &request));
                    last = vcpu;
                }
                let taken = (0..5000).filter_map(|_| take(&device_side)).count();
                assert!(taken <= 5000);
                device_side.publish_config(1, &[1; 64]);
                let given = device_side.console_give(1);
                assert!(!given || shared.size_bytes() > 0);
            }
            is_over.store(true, Ordering::SeqCst);
        });
    }

    #[test]
    fn vcpu_side_survives_any_peer(words in words()) {
        let (shared, vcpu_side, device_side) = both_sides(2, 2);
        let (is_over, is_done) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| scribble(shared, &words, &is_over));
            // A peer that never answers stops the guest, as a dead one does: something answers in the end.
            scope.spawn(|| while !is_done.load(Ordering::SeqCst) {
                std::thread::sleep(core::time::Duration::from_micros(100));
                device_side.reply(0, &Reply::default());
                crate::sys::futex::wake(shared.word(Layout::new(2, 2).slot(0)));
            });
            for n in 0..100 {
                if let Ok(Reply { route: Some(route), .. }) = vcpu_side.call(0, &write(0, n)) {
                    assert!(route.count >= 1 && route.first_vector + route.count <= 8);
                }
                let moved = (vcpu_side.console_put(1), vcpu_side.console_get());
                assert!(moved.1.is_none() || moved.1.is_some());
                vcpu_side.count(Counter::Exits, u64::MAX);
                vcpu_side.set_last_exit(LastExit::default());
            }
            is_over.store(true, Ordering::SeqCst);
            is_done.store(true, Ordering::SeqCst);
        });
    }
}
