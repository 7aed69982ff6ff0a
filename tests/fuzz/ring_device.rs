//! D's side of the ring against a V that writes anything anywhere, one step after the other.

use core::sync::atomic::Ordering::Relaxed;

use jailed::{
    handoff::{Function, Handoff},
    ring::{DeviceSide, Layout, Next, PeerBroken, Reply, Request, RequestKind, RouteUpdate},
    sys::{shared::Shared, syscall::Fd},
};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::fd::{AsRawFd, IntoRawFd};

use crate::input::{Executions, Input, any_bytes};

pub(crate) const VCPUS: usize = 3;
pub(crate) const FUNCTIONS: usize = 2;
pub(crate) const VECTORS: u32 = 8;

/// A slot's words, as `ring/layout.rs` places them.
pub(crate) mod slot {
    pub(crate) const STATE: usize = 0;
    pub(crate) const KIND: usize = 4;
    pub(crate) const FUNCTION: usize = 8;
    pub(crate) const BAR: usize = 12;
    pub(crate) const SIZE: usize = 16;
    pub(crate) const OFFSET: usize = 24;
    pub(crate) const VALUE: usize = 32;
    pub(crate) const READ: usize = 64;
    pub(crate) const ROUTE_ADDRESS: usize = 72;
    pub(crate) const ROUTE_DATA: usize = 80;
    pub(crate) const ROUTE_FIRST: usize = 84;
    pub(crate) const ROUTE_COUNT: usize = 88;
    pub(crate) const ROUTE_LIVE: usize = 92;
}

pub(crate) const POSTED: u32 = 1;
pub(crate) const AWAITED: u32 = 2;
pub(crate) const ANSWERED: u32 = 3;

pub(crate) fn handoff() -> Handoff {
    let mut handoff = Handoff::empty();
    handoff.vcpu_count = u32::try_from(VCPUS).unwrap();
    handoff.function_count = u32::try_from(FUNCTIONS).unwrap();
    handoff.functions = [Function {
        vectors: VECTORS,
        ..Function::default()
    }; 16];
    handoff
}

/// Memory as V and D share it, zeroed.
pub(crate) fn shared() -> Shared {
    let size = Layout::of(&handoff()).size_bytes();
    let file = memfd_create("narrows-fuzz-ring", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, size as u64).unwrap();
    let fd = Fd::new(u32::try_from(file.as_raw_fd()).unwrap());
    let shared = Shared::map(fd, size).unwrap();
    // The mapping stays for as long as the process; the descriptor may, too.
    std::hint::black_box(file.into_raw_fd());
    shared
}

#[test]
fn requests_are_taken_whole_or_break_the_ring() {
    let (shared, handoff) = (shared(), handoff());
    let executions = Executions::of("ring_device");
    bolero::check!()
        .with_generator(any_bytes())
        .with_iterations(usize::MAX)
        .with_test_time(executions.time())
        .for_each(|bytes| {
            executions.one();
            clear(shared);
            let side = DeviceSide::new(shared, &handoff).unwrap();
            let mut input = Input::new(bytes);
            let mut last = 0;
            while !input.is_over() {
                step(&mut input, shared, &side, &mut last);
            }
        });
    executions.say();
}

/// The requirement of a million steps, at one time and from a fixed start.
#[test]
fn a_million_hostile_steps_break_nothing() {
    const STEPS: u32 = 1_000_000;
    let shared = shared();
    let side = DeviceSide::new(shared, &handoff()).unwrap();
    let mut state = 0x1234_5678_9ABC_DEF1_u64;
    let mut last = 0;
    for _ in 0..STEPS {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        step(&mut Input::new(&bytes), shared, &side, &mut last);
    }
    println!("fuzz ring_device: {STEPS} steps in one go");
}

pub(crate) fn clear(shared: Shared) {
    for at in (0..shared.size_bytes()).step_by(8) {
        shared.long(at).store(0, Relaxed);
    }
}

/// What V does, or D; D's answers are compared with a reading of the slots of our own.
fn step(input: &mut Input<'_>, shared: Shared, side: &DeviceSide, last: &mut usize) {
    match input.below(8) {
        0..4 => write(input, shared),
        4 | 5 => {
            let expected = expected(shared, *last);
            let waits = Layout::counter(jailed::ring::Counter::DeviceFutexWaits);
            let waited = shared.long(waits).load(Relaxed);
            let found = side.next_request(*last, Some(0));
            let more = shared.long(waits).load(Relaxed).wrapping_sub(waited);
            assert!(more <= 16, "D slept {more} times for one look");
            assert_eq!(found, expected);
            if let Ok(Next::Request { vcpu, request }) = found {
                let reply = reply(input, &request);
                side.reply(vcpu, &reply);
                let state = shared.word(Layout::of(&handoff()).slot(vcpu) + slot::STATE);
                assert_eq!(state.load(Relaxed), ANSWERED);
                *last = vcpu;
            }
        }
        6 => {
            // However the positions lie, no more bytes are there than the queue holds.
            let taken: usize = (0..5000).map(|_| take(side)).sum();
            assert!(taken <= 4096, "{taken} bytes from a queue of 4096");
            let has_room = side.console_has_room();
            assert_eq!(side.console_give(input.byte()), has_room);
        }
        _ => side.publish_config(input.below(2) as usize, &[input.word(); 64]),
    }
}

/// Takes some bytes of the console, which may be fewer than three: how many.
pub(crate) fn take(side: &DeviceSide) -> usize {
    let count = side.console_copy(&mut [0; 3]);
    side.console_pass(count);
    count
}

/// V writes: anything anywhere, or a request that is nearly right.
fn write(input: &mut Input<'_>, shared: Shared) {
    let layout = Layout::of(&handoff());
    let slot = layout.slot(input.below(u32::try_from(VCPUS).unwrap()) as usize);
    match input.below(5) {
        // Positions of a console's queue that agree with each other, wherever they are.
        4 => {
            let (positions, taken) = (input.pick(&[128, 256]), input.word());
            let put = taken.wrapping_add(input.below(4098));
            shared.word(positions).store(put, Relaxed);
            shared.word(positions + 64).store(taken, Relaxed);
        }
        0 => {
            let at = input.word() as usize % (shared.size_bytes() / 4);
            shared.word(4 * at).store(input.word(), Relaxed);
        }
        // The head: doorbell, sleep flag and positions.
        1 => shared
            .word(4 * input.below(100) as usize)
            .store(input.word(), Relaxed),
        2 => {
            let place = input.pick(&[
                slot::STATE,
                slot::KIND,
                slot::FUNCTION,
                slot::BAR,
                slot::SIZE,
            ]);
            shared.word(slot + place).store(input.below(10), Relaxed);
        }
        _ => {
            shared
                .word(slot + slot::KIND)
                .store(input.below(4), Relaxed);
            shared
                .word(slot + slot::FUNCTION)
                .store(input.below(3), Relaxed);
            shared
                .word(slot + slot::BAR)
                .store(input.pick(&[0, 0, 1, 5, 6]), Relaxed);
            shared
                .word(slot + slot::SIZE)
                .store(input.pick(&[1, 2, 4, 8, 3, 0]), Relaxed);
            shared
                .long(slot + slot::OFFSET)
                .store(input.number(), Relaxed);
            shared.long(slot + slot::VALUE).store(input.long(), Relaxed);
            shared
                .word(slot + slot::STATE)
                .store(input.pick(&[POSTED, AWAITED, POSTED, 9]), Relaxed);
        }
    }
}

/// What D has to find, slot by slot from the one behind the last.
fn expected(shared: Shared, last: usize) -> Result<Next, PeerBroken> {
    let layout = Layout::of(&handoff());
    for vcpu in (1..=VCPUS).map(|n| (last + n) % VCPUS) {
        let slot = layout.slot(vcpu);
        match shared.word(slot + slot::STATE).load(Relaxed) {
            0 | ANSWERED => {}
            POSTED | AWAITED => {
                return decode(shared, slot)
                    .map(|request| Next::Request { vcpu, request })
                    .ok_or(PeerBroken);
            }
            _ => return Err(PeerBroken),
        }
    }
    Ok(Next::Nothing)
}

fn decode(shared: Shared, slot: usize) -> Option<Request> {
    let word = |at: usize| shared.word(slot + at).load(Relaxed);
    let (offset, value) = (
        shared.long(slot + slot::OFFSET).load(Relaxed),
        shared.long(slot + slot::VALUE).load(Relaxed),
    );
    let (kind, bar, size) = (word(slot::KIND), word(slot::BAR), word(slot::SIZE));
    let is_good = match kind {
        1 => {
            bar == 0
                && [1, 2, 4].contains(&size)
                && offset < 4096
                && offset.is_multiple_of(size.into())
        }
        2 | 3 => bar < 6 && [1, 2, 4, 8].contains(&size) && u64::MAX - offset >= u64::from(size),
        _ => false,
    };
    let function = word(slot::FUNCTION) as usize;
    (is_good && function < FUNCTIONS).then(|| Request {
        kind: [
            RequestKind::ConfigWrite,
            RequestKind::BarRead,
            RequestKind::BarWrite,
        ][kind as usize - 1],
        function,
        bar: bar as usize,
        size_bytes: size as usize,
        offset,
        value,
    })
}

fn reply(input: &mut Input<'_>, request: &Request) -> Reply {
    Reply {
        value: request.value.wrapping_mul(3),
        route: input.once_in(2).then_some(RouteUpdate {
            first_vector: 2,
            count: 3,
            address: 0xFEE0_1000,
            data: input.word(),
            is_live: true,
        }),
    }
}
