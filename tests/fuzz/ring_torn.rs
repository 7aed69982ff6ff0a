//! Both sides of the ring against a peer that writes parts of words, of any width, at any time: V hostile to D, and D hostile
//! to V. The ring lies between pages that nobody may touch, so that whoever leaves it dies.
//!
//! UNSAFETY: the attacker writes sixteen bits at a time, and the naive reader of the control reads where it is told.
#![expect(unsafe_code, reason = "an attacker keeps no rules")]

use core::sync::atomic::{
    AtomicBool, AtomicU16,
    Ordering::{Relaxed, SeqCst},
};
use std::{
    os::unix::process::ExitStatusExt,
    process::Command,
    ptr,
    sync::atomic::AtomicU32,
    thread,
    time::{Duration, Instant},
};

use jailed::{
    ring::{DeviceSide, Layout, Next, Reply, Request, RequestKind, VcpuSide},
    sys::{futex, shared::Shared},
};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::{
    input::{Executions, Input, any_bytes},
    ring_device::take,
    ring_device::{
        ANSWERED, AWAITED, FUNCTIONS, POSTED, VCPUS, VECTORS, clear, handoff, shared, slot,
    },
};

const PAGE: usize = 4096;
/// The slot of the attacker where the others are honest, and that of an honest vCPU.
const HOSTILE: usize = 0;
const HONEST: usize = 2;

/// A write of a part of memory.
#[derive(Clone, Copy, Debug)]
struct Write {
    at: usize,
    width: u32,
    value: u64,
}

/// Memory as V and D share it, with a page on each side that nobody may touch.
fn guarded() -> Shared {
    for _ in 0..64 {
        // The kernel puts new mappings below old ones: mostly this page comes to lie right above.
        let above = guard(ptr::null_mut(), MapFlags::empty()).unwrap();
        let shared = shared();
        let start = ptr::from_ref(shared.byte(0)).cast_mut().cast::<u8>();
        let end = start.wrapping_add(shared.size_bytes());
        let is_above = above == end || guard(end, MapFlags::FIXED_NOREPLACE).is_some();
        let below = start.wrapping_sub(PAGE);
        if is_above && guard(below, MapFlags::FIXED_NOREPLACE).is_some() {
            return shared;
        }
    }
    panic!("no place for the ring has free pages on both sides");
}

/// A page that nobody may touch, at `hint` or anywhere; `None` where something lies there.
fn guard(hint: *mut u8, flags: MapFlags) -> Option<*mut u8> {
    let flags = flags | MapFlags::PRIVATE;
    // SAFETY: without replacing, a new mapping harms nobody.
    let at = unsafe { mmap_anonymous(hint.cast(), PAGE, ProtFlags::empty(), flags) };
    let at = at.ok()?.cast::<u8>();
    if !hint.is_null() && at != hint {
        // SAFETY: the page that was just mapped, of which nobody knows.
        unsafe { munmap(at.cast(), PAGE) }.unwrap();
        return None;
    }
    Some(at)
}

/// Writes one, two, four or eight bytes where they are aligned.
fn write(shared: Shared, write: Write) {
    let [a, b, c, d, ..] = write.value.to_le_bytes();
    match write.width {
        1 => shared.byte(write.at).store(a, Relaxed),
        2 => {
            let place = ptr::from_ref(shared.byte(write.at & !1)).cast_mut();
            assert!((write.at & !1) + 2 <= shared.size_bytes());
            // SAFETY: aligned and inside of the mapping, which is only reached by atomic access.
            let place = unsafe { AtomicU16::from_ptr(place.cast()) };
            place.store(u16::from_le_bytes([a, b]), Relaxed);
        }
        4 => shared
            .word(write.at & !3)
            .store(u32::from_le_bytes([a, b, c, d]), Relaxed),
        _ => shared.long(write.at & !7).store(write.value, Relaxed),
    }
}

/// Anywhere, or parts of what the honest side reads.
fn any_write(input: &mut Input<'_>, shared: Shared) -> Write {
    let layout = Layout::of(&handoff());
    let slot = layout.slot(input.below(3) as usize);
    let (at, value) = match input.below(4) {
        0 => (input.word() as usize % shared.size_bytes(), input.long()),
        1 => (slot + input.below(96) as usize, input.below(10).into()),
        2 => (slot + input.below(96) as usize, input.number()),
        _ => (input.below(400) as usize, input.number()),
    };
    let at = at.min(shared.size_bytes() - 8);
    let width = input.pick(&[1, 1, 2, 2, 4, 8]);
    Write { at, width, value }
}

/// Runs `honest` while another thread makes these writes again and again, and `after` each turn.
fn under_attack(shared: Shared, writes: &[Write], after: impl Fn() + Sync, honest: impl FnOnce()) {
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Also where an assertion fails, or the other thread would never end.
        let _end = End(&is_over);
        scope.spawn(|| {
            while !is_over.load(SeqCst) {
                writes.iter().for_each(|one| write(shared, *one));
                after();
            }
        });
        honest();
    });
}

#[test]
fn torn_requests_are_sane_or_break_the_ring() {
    let shared = guarded();
    let side = DeviceSide::new(shared, &handoff()).unwrap();
    let executions = Executions::of("ring_torn_requests");
    bolero::check!()
        .with_generator(any_bytes())
        .with_iterations(usize::MAX)
        .with_test_time(executions.time())
        .for_each(|bytes| {
            executions.one();
            let mut input = Input::new(bytes);
            let writes: Vec<Write> = (0..24).map(|_| any_write(&mut input, shared)).collect();
            under_attack(
                shared,
                &writes,
                || {},
                || {
                    for round in 0..40 {
                        if let Ok(Next::Request { vcpu, request }) =
                            side.next_request(round, Some(0))
                        {
                            assert!(
                                vcpu < VCPUS && request.function < FUNCTIONS && request.is_sane()
                            );
                            side.reply(vcpu, &Reply::default());
                        }
                        assert!((0..300).map(|_| take(&side)).sum::<usize>() <= 900);
                        let _has_given: bool = side.console_give(input.byte());
                        side.publish_config(round % FUNCTIONS, &[input.word(); 16]);
                    }
                },
            );
        });
    executions.say();
}

#[test]
fn torn_answers_are_sane_or_break_the_ring() {
    let shared = guarded();
    let side = VcpuSide::new(shared, &handoff()).unwrap();
    let state = shared.word(Layout::of(&handoff()).slot(1) + slot::STATE);
    let executions = Executions::of("ring_torn_answers");
    bolero::check!()
        .with_generator(any_bytes())
        .with_iterations(usize::MAX)
        .with_test_time(executions.time())
        .for_each(|bytes| {
            executions.one();
            let mut input = Input::new(bytes);
            let writes: Vec<Write> = (0..24).map(|_| any_write(&mut input, shared)).collect();
            // A peer that never answers stops the guest, as a dead one does: this one ends every wait.
            let end_wait = || {
                state.store(ANSWERED, SeqCst);
                futex::wake(state);
            };
            under_attack(shared, &writes, end_wait, || {
                for round in 0..20 {
                    let request = bar_read(1, round);
                    if let Ok(Reply {
                        route: Some(route), ..
                    }) = side.call(1, &request)
                    {
                        assert!(route.first_vector.checked_add(route.count).unwrap() <= VECTORS);
                        assert!(route.address == 0 || route.address >> 20 == 0xFEE);
                    }
                    let taken = (0..300).take_while(|_| side.console_get().is_some());
                    assert!(taken.count() <= 300);
                    let _has_put: bool = side.console_put(input.byte());
                }
            });
        });
    executions.say();
}

fn bar_read(function: usize, offset: u64) -> Request {
    Request {
        kind: RequestKind::BarRead,
        function,
        bar: 0,
        size_bytes: 4,
        offset,
        value: 0,
    }
}

/// Requests that D takes, torn or not: whatever part of them comes from which, each is one that V may make.
fn busy_write(input: &mut Input<'_>) -> Write {
    let slot = Layout::of(&handoff()).slot(HOSTILE);
    let (at, width, value) = match input.below(8) {
        0 => (
            slot + slot::STATE,
            4,
            input.pick(&[POSTED, AWAITED, ANSWERED, 0]).into(),
        ),
        1 => (slot + slot::KIND, 4, input.pick(&[2, 3])),
        2 => (slot + slot::BAR, 4, input.below(6).into()),
        3 => (slot + slot::SIZE, 4, input.pick(&[1, 2, 4, 8])),
        // Any part of the offset but the last, so that it does not wrap.
        4 => (
            slot + slot::OFFSET + input.below(6) as usize,
            input.pick(&[1, 2]),
            input.long(),
        ),
        5 => (
            slot + slot::VALUE + input.below(7) as usize,
            input.pick(&[1, 2]),
            input.long(),
        ),
        // What D writes, and never reads.
        6 => (
            slot + slot::READ + input.below(30) as usize,
            input.pick(&[1, 2]),
            input.long(),
        ),
        // The doorbell, and whether D sleeps.
        _ => (input.pick(&[0, 64]), input.pick(&[1, 2, 4]), input.long()),
    };
    Write { at, width, value }
}

/// However fast one vCPU asks, and whatever it tears, the others get their answers, and the right ones.
#[test]
fn a_hostile_slot_keeps_no_other_vcpu_from_its_answer() {
    const CALLS: u64 = 20;
    let shared = guarded();
    let handoff = handoff();
    let (device, vcpu) = (
        DeviceSide::new(shared, &handoff).unwrap(),
        VcpuSide::new(shared, &handoff).unwrap(),
    );
    let executions = Executions::of("ring_torn_slot");
    let (hostile, honest) = (AtomicU32::new(0), AtomicU32::new(0));
    bolero::check!()
        .with_generator(any_bytes())
        .with_iterations(usize::MAX)
        .with_test_time(executions.time())
        .for_each(|bytes| {
            executions.one();
            clear(shared);
            let state = shared.word(Layout::of(&handoff).slot(HOSTILE) + slot::KIND);
            state.store(2, Relaxed);
            shared
                .word(Layout::of(&handoff).slot(HOSTILE) + slot::SIZE)
                .store(4, Relaxed);
            let mut input = Input::new(bytes);
            let writes: Vec<Write> = (0..24).map(|_| busy_write(&mut input)).collect();
            let is_done = AtomicBool::new(false);
            under_attack(
                shared,
                &writes,
                || {},
                || {
                    thread::scope(|scope| {
                        scope.spawn(|| {
                            for call in 0..CALLS {
                                let reply = vcpu.call(HONEST, &bar_read(1, call)).unwrap();
                                assert_eq!(reply.value, call ^ 0xA5A5, "another's answer");
                            }
                            is_done.store(true, SeqCst);
                        });
                        let mut last = 0;
                        let mut others_in_a_row = 0;
                        while !is_done.load(SeqCst) {
                            let Next::Request { vcpu, request } =
                                device.next_request(last, Some(0)).unwrap()
                            else {
                                continue;
                            };
                            let is_honest = vcpu == HONEST;
                            let counter = if is_honest { &honest } else { &hostile };
                            counter.fetch_add(1, Relaxed);
                            let asks = shared.word(Layout::of(&handoff).slot(HONEST) + slot::STATE);
                            let waits = matches!(asks.load(SeqCst), POSTED | AWAITED);
                            others_in_a_row = if is_honest || !waits {
                                0
                            } else {
                                others_in_a_row + 1
                            };
                            assert!(
                                others_in_a_row <= VCPUS,
                                "a vCPU waits for {others_in_a_row} others"
                            );
                            device.reply(
                                vcpu,
                                &Reply {
                                    value: request.offset ^ 0xA5A5,
                                    route: None,
                                },
                            );
                            last = vcpu;
                        }
                    });
                },
            );
        });
    executions.say();
    let counts = (hostile.into_inner(), honest.into_inner());
    println!(
        "fuzz ring_torn_slot: {} requests of the hostile slot, {} of the honest one",
        counts.0, counts.1
    );
    assert!(counts.0 > 0 && counts.1 > 0, "nobody asked: {counts:?}");
}

/// What D must not be: it checks an offset, and reads it again to use it.
#[test]
#[ignore = "leaves the ring by design: a_reader_that_looks_twice_dies runs it"]
fn naive_reader() {
    let shared = guarded();
    let layout = Layout::of(&handoff());
    let at = layout.slot(0) + slot::OFFSET;
    let inside = Write {
        at,
        width: 8,
        value: 8,
    };
    // Parts of a word: no whole word that was ever written is out of range.
    let torn = [
        inside,
        Write {
            at: at + 2,
            width: 1,
            value: 1,
        },
        Write {
            at: at + 3,
            width: 1,
            value: 0,
        },
    ];
    let base = ptr::from_ref(shared.byte(0)).cast::<u8>();
    under_attack(
        shared,
        &torn,
        || {},
        || {
            // On one processor the attacker has its turn a few hundred times a second.
            let end = Instant::now() + Duration::from_secs(60);
            while Instant::now() < end {
                for _ in 0..1_000_000 {
                    let checked = shared.long(at).load(Relaxed);
                    if checked < 4096 {
                        let again = usize::try_from(shared.long(at).load(Relaxed)).unwrap();
                        // SAFETY: none: this is the mistake. What lies so far behind is the page that nobody may touch, or less.
                        let value = unsafe {
                            base.wrapping_add(again.min(shared.size_bytes()))
                                .read_volatile()
                        };
                        std::hint::black_box(value);
                    }
                }
            }
        },
    );
}

/// The control of this file: a reader that looks twice is torn apart by the same attacker, on the page behind the ring.
#[test]
fn a_reader_that_looks_twice_dies() {
    const SEGMENTATION_FAULT: i32 = 11;
    let own = std::env::current_exe().unwrap();
    let words = [
        "--exact",
        "ring_torn::naive_reader",
        "--ignored",
        "--nocapture",
    ];
    let output = Command::new(own).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "{text}");
    assert_eq!(
        output.status.signal(),
        Some(SEGMENTATION_FAULT),
        "the control failed: {} {text}",
        output.status
    );
}
