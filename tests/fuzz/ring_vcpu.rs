//! V's side of the ring against a D that answers anything.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::{
    sync::{Mutex, OnceLock, mpsc},
    thread,
};

use jailed::{
    ring::{Layout, PeerBroken, Reply, Request, RequestKind, RouteUpdate, VcpuSide},
    sys::{futex, shared::Shared},
};

use crate::{
    input::{Executions, Input, any_bytes},
    ring_device::{ANSWERED, AWAITED, FUNCTIONS, POSTED, VCPUS, VECTORS, handoff, shared, slot},
};

/// What D writes into the slot of vCPU 0, the state at the end.
#[derive(Clone, Copy, Debug)]
struct Answer {
    value: u64,
    address: u64,
    data: u32,
    first: u32,
    count: u32,
    live: u32,
    state: u32,
}

/// Writes answers, one for each request.
fn hostile_device(shared: Shared, answers: &mpsc::Receiver<Answer>) {
    let slot = Layout::of(&handoff()).slot(0);
    let state = shared.word(slot + slot::STATE);
    for answer in answers {
        while !matches!(state.load(Acquire), POSTED | AWAITED) {
            std::hint::spin_loop();
        }
        let word = |at: usize, value| shared.word(slot + at).store(value, Relaxed);
        shared.long(slot + slot::READ).store(answer.value, Relaxed);
        shared
            .long(slot + slot::ROUTE_ADDRESS)
            .store(answer.address, Relaxed);
        word(slot::ROUTE_DATA, answer.data);
        word(slot::ROUTE_FIRST, answer.first);
        word(slot::ROUTE_COUNT, answer.count);
        word(slot::ROUTE_LIVE, answer.live);
        state.store(answer.state, Release);
        futex::wake(state);
    }
}

#[test]
fn replies_are_taken_whole_or_break_the_ring() {
    static DEVICE: OnceLock<Mutex<mpsc::Sender<Answer>>> = OnceLock::new();
    let shared = shared();
    let side = VcpuSide::new(shared, &handoff()).unwrap();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || hostile_device(shared, &receiver));
    DEVICE.set(Mutex::new(sender)).unwrap();
    let executions = Executions::of("ring_vcpu");
    bolero::check!()
        .with_generator(any_bytes())
        .with_iterations(usize::MAX)
        .with_test_time(executions.time())
        .for_each(|bytes| {
            executions.one();
            let mut input = Input::new(bytes);
            for _ in 0..32 {
                let answer = answer(&mut input);
                DEVICE.get().unwrap().lock().unwrap().send(answer).unwrap();
                assert_eq!(side.call(0, &request(&mut input)), expected(&answer));
                check_reads(&mut input, shared, &side);
                if input.is_over() {
                    break;
                }
            }
        });
    executions.say();
}

fn answer(input: &mut Input<'_>) -> Answer {
    let address = input.pick(&[0, 0xFEE0_0000, 0xFEEF_FFFC, 0xFED0_0000, 0x1_FEE0_0000, 1]);
    Answer {
        value: input.long(),
        address: if input.once_in(4) {
            input.number()
        } else {
            address
        },
        data: input.word(),
        first: if input.once_in(4) {
            input.word()
        } else {
            input.below(10)
        },
        count: if input.once_in(4) {
            input.word()
        } else {
            input.below(10)
        },
        live: input.pick(&[0, 1, 0, 1, 2, u32::MAX]),
        state: input.pick(&[ANSWERED, ANSWERED, ANSWERED, 0, 4, u32::MAX]),
    }
}

fn request(input: &mut Input<'_>) -> Request {
    Request {
        kind: RequestKind::BarWrite,
        function: input.below(u32::try_from(FUNCTIONS).unwrap()) as usize,
        bar: 0,
        size_bytes: 4,
        offset: 0,
        value: 0,
    }
}

fn expected(answer: &Answer) -> Result<Reply, PeerBroken> {
    if answer.state != ANSWERED {
        return Err(PeerBroken);
    }
    let value = answer.value;
    if answer.count == 0 {
        return Ok(Reply { value, route: None });
    }
    let is_interrupt = answer.address == 0 || answer.address >> 20 == 0xFEE;
    let is_its_own = u64::from(answer.first) + u64::from(answer.count) <= u64::from(VECTORS);
    if !is_interrupt || !is_its_own || answer.live > 1 {
        return Err(PeerBroken);
    }
    Ok(Reply {
        value,
        route: Some(RouteUpdate {
            first_vector: answer.first,
            count: answer.count,
            address: answer.address,
            data: answer.data,
            is_live: answer.live == 1,
        }),
    })
}

/// The console never gives more than its queue holds, whatever the peer writes.
fn check_reads(input: &mut Input<'_>, shared: Shared, side: &VcpuSide) {
    let layout = Layout::of(&handoff());
    let at = input.word() as usize % (shared.size_bytes() / 4) * 4;
    // Not into a slot: that is the other thread's.
    if !(layout.slot(0)..layout.slot(VCPUS)).contains(&at) {
        shared.word(at).store(input.word(), Relaxed);
    }
    let taken = (0..5000)
        .take_while(|_| side.console_get().is_some())
        .count();
    assert!(taken <= 4096, "{taken} bytes from a queue of 4096");
    let has_room = side.console_has_room();
    assert_eq!(side.console_put(input.byte()), has_room);
}
