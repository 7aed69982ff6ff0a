//! Both sides of the ring while another thread writes over all of it.

use core::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
};
use std::thread;

use jailed::{
    ring::{DeviceSide, Layout, Next, Reply, Request, RequestKind, VcpuSide},
    sys::{futex, shared::Shared},
};

use crate::{
    input::{Executions, Input, any_bytes},
    ring_device::take,
    ring_device::{ANSWERED, AWAITED, FUNCTIONS, VCPUS, VECTORS, handoff, shared, slot},
};

#[test]
fn a_racing_peer_gets_nothing_out_of_range() {
    let shared = shared();
    let handoff = handoff();
    let device = DeviceSide::new(shared, &handoff).unwrap();
    let vcpu = VcpuSide::new(shared, &handoff).unwrap();
    let executions = Executions::of("ring_race");
    bolero::check!()
        .with_generator(any_bytes())
        .with_iterations(usize::MAX)
        .with_test_time(executions.time())
        .for_each(|bytes| {
            executions.one();
            one(&mut Input::new(bytes), shared, &device, &vcpu);
        });
    executions.say();
}

fn one(input: &mut Input<'_>, shared: Shared, device: &DeviceSide, vcpu: &VcpuSide) {
    let words: Vec<(usize, u32)> = (0..16).map(|_| word(input, shared)).collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Also where an assertion fails, or the other thread would never end.
        let _end = End(&is_over);
        scope.spawn(|| scribble(shared, &words, &is_over));
        for _ in 0..20 {
            if let Ok(Next::Request { vcpu, request }) = device.next_request(0, Some(0)) {
                assert!(vcpu < VCPUS && request.function < FUNCTIONS && request.is_sane());
                device.reply(vcpu, &Reply::default());
            }
            assert!((0..5000).map(|_| take(device)).sum::<usize>() <= 15_000);
            let request = Request {
                kind: RequestKind::BarRead,
                function: 1,
                bar: 0,
                size_bytes: 4,
                offset: 0,
                value: 0,
            };
            if let Ok(Reply {
                route: Some(route), ..
            }) = vcpu.call(1, &request)
            {
                assert!(route.first_vector.checked_add(route.count).unwrap() <= VECTORS);
                assert!(route.address == 0 || route.address >> 20 == 0xFEE);
            }
        }
    });
}

/// Tells the other thread to stop.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Anywhere, or near-sense where it hurts.
fn word(input: &mut Input<'_>, shared: Shared) -> (usize, u32) {
    let layout = Layout::of(&handoff());
    let slot = layout.slot(input.below(3) as usize);
    let (at, value) = match input.below(3) {
        0 => (
            4 * (input.word() as usize % (shared.size_bytes() / 4)),
            input.word(),
        ),
        1 => (slot + 4 * input.below(24) as usize, input.below(10)),
        _ => (4 * input.below(100) as usize, input.word()),
    };
    // Who says forever that the answer is still awaited keeps a vCPU waiting, and may.
    let is_wait = at == layout.slot(1) + slot::STATE && value == AWAITED;
    (at, if is_wait { ANSWERED } else { value })
}

/// Writes until told to stop, and ends every wait: a peer that never answers stops the guest, as a dead one does.
fn scribble(shared: Shared, words: &[(usize, u32)], is_over: &AtomicBool) {
    let state = shared.word(Layout::of(&handoff()).slot(1) + slot::STATE);
    while !is_over.load(SeqCst) {
        for (at, value) in words {
            shared.word(*at).store(*value, Relaxed);
        }
        state.store(ANSWERED, SeqCst);
        futex::wake(state);
    }
}
