//! D's side: takes requests, answers, publishes what may be read without asking.

use core::sync::atomic::Ordering;

use super::{
    Counter, DeviceFailure, Layout, PeerBroken, Reply, Request, RequestKind,
    layout::{slot, state},
    queue::Queue,
};
use crate::{
    handoff::Handoff,
    machine::CONFIG_BYTES,
    sys::{futex, shared::Shared, syscall::Errno},
};

/// How often D looks for the next request before it sleeps: some tens of microseconds.
const SPINS: u32 = 512;
/// How often it looks in all: after the last of `SPINS`, it sleeps before each look.
const ROUNDS: u32 = SPINS + 16;

/// D's side of the ring: requests for one thread, the queue to the guest's console for another.
#[derive(Debug)]
pub struct DeviceSide {
    shared: Shared,
    layout: Layout,
    vcpus: usize,
    functions: usize,
    console_out: Queue,
    console_in: Queue,
}

/// What [`DeviceSide::next_request`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A request of a vCPU, which waits for [`DeviceSide::reply`].
    Request {
        /// The vCPU's index.
        vcpu: usize,
        /// What it asks, checked.
        request: Request,
    },
    /// No request; bytes from the guest's console wait.
    Console,
    /// Nothing within the time limit, or V rang several times and had nothing to say.
    Nothing,
}

impl DeviceSide {
    /// The side for a checked `handoff`; `None` where the mapping is not as long as the layout.
    #[must_use]
    pub fn new(shared: Shared, handoff: &Handoff) -> Option<Self> {
        let layout = Layout::of(handoff);
        (shared.size_bytes() == layout.size_bytes()).then(|| Self {
            shared,
            layout,
            vcpus: layout.vcpus(),
            functions: layout.functions(),
            console_out: layout.console_out_queue(shared),
            console_in: layout.console_in_queue(shared),
        })
    }

    /// Waits for the next request, looking at the slot behind `last_vcpu` first, so that every vCPU gets its turn.
    ///
    /// Without `timeout_ms`, bytes from the console end the wait, too; with it (the console's receiver is slow), only
    /// time does.
    ///
    /// # Errors
    /// [`PeerBroken`] for a request that V never makes.
    pub fn next_request(
        &self,
        last_vcpu: usize,
        timeout_ms: Option<u32>,
    ) -> Result<Next, PeerBroken> {
        let doorbell = self.shared.word(Layout::DOORBELL);
        let sleeps = self.shared.word(Layout::DEVICE_SLEEPS);
        // Bounded, so that a peer that rings without asking cannot keep the caller here.
        for round in 0..ROUNDS {
            // Before the slots: what rings after this makes the sleep below return at once.
            let rung = doorbell.load(Ordering::SeqCst);
            if let Some(found) = self.look(last_vcpu) {
                return found;
            }
            if timeout_ms.is_none() && self.console_out.has_bytes() {
                return Ok(Next::Console);
            }
            if round < SPINS {
                core::hint::spin_loop();
                continue;
            }
            sleeps.store(1, Ordering::SeqCst);
            self.count(Counter::DeviceFutexWaits, 1);
            let slept = futex::wait(doorbell, rung, timeout_ms);
            sleeps.store(0, Ordering::SeqCst);
            if slept == Err(Errno::TIMED_OUT) {
                break;
            }
        }
        Ok(Next::Nothing)
    }

    /// Lets `ms` milliseconds go by. V, which shares the word that nobody wakes, could end it sooner; a guest cannot.
    pub fn pause(&self, ms: u32) {
        let word = self.shared.word(Layout::DEVICE_FAILURE);
        // However it returns: there is nothing to wait for.
        core::hint::black_box(futex::wait(word, word.load(Ordering::Relaxed), Some(ms)).is_ok());
    }

    /// Answers the request of `vcpu` and wakes it if it sleeps.
    pub fn reply(&self, vcpu: usize, reply: &Reply) {
        let slot = self.layout.slot(vcpu);
        let word = |offset, value| {
            self.shared
                .word(slot + offset)
                .store(value, Ordering::Relaxed)
        };
        self.shared
            .long(slot + slot::READ)
            .store(reply.value, Ordering::Relaxed);
        word(
            slot::ROUTE_COUNT,
            reply.route.map_or(0, |route| route.count),
        );
        if let Some(route) = reply.route {
            self.shared
                .long(slot + slot::ROUTE_ADDRESS)
                .store(route.address, Ordering::Relaxed);
            word(slot::ROUTE_DATA, route.data);
            word(slot::ROUTE_FIRST, route.first_vector);
            word(slot::ROUTE_LIVE, u32::from(route.is_live));
        }
        self.count(Counter::Requests, 1);
        let state = self.shared.word(slot + slot::STATE);
        if state.swap(state::ANSWERED, Ordering::AcqRel) == state::AWAITED {
            self.count(Counter::DeviceFutexWakes, 1);
            futex::wake(state);
        }
    }

    /// Makes `dwords` readable at the start of the configuration space of `function`; behind them it reads zero.
    ///
    /// # Panics
    /// If `function` is not one of the guest's or `dwords` are more than configuration space holds.
    pub fn publish_config(&self, function: usize, dwords: &[u32]) {
        assert!(function < self.functions && dwords.len() <= CONFIG_BYTES / 4);
        let config = self.layout.config(function);
        for (index, dword) in dwords.iter().enumerate() {
            self.shared
                .word(config + 4 * index)
                .store(*dword, Ordering::Release);
        }
    }

    /// Copies what the guest wrote to its console, as much of it as `to` has room for: how many bytes. They stay in the
    /// queue until [`Self::console_pass`], so that who looks at its positions knows what has not been passed on.
    #[must_use]
    pub fn console_copy(&self, to: &mut [u8]) -> usize {
        self.console_out.copy(to)
    }

    /// So many of the bytes that [`Self::console_copy`] gave have been passed on.
    pub fn console_pass(&self, count: usize) {
        self.console_out.pass(count);
    }

    /// Gives the guest's console a byte; false where the queue is full.
    #[must_use]
    pub fn console_give(&self, byte: u8) -> bool {
        self.console_in.put(byte)
    }

    /// Whether [`Self::console_give`] would take a byte.
    #[must_use]
    pub fn console_has_room(&self) -> bool {
        self.console_in.has_room()
    }

    /// Counts `n` more of `counter`.
    pub fn count(&self, counter: Counter, n: u64) {
        self.shared
            .long(Layout::counter(counter))
            .fetch_add(n, Ordering::Relaxed);
    }

    /// Leaves the failure that ends the guest for the supervisor to read.
    pub fn set_failure(&self, failure: DeviceFailure) {
        let function = u64::try_from(failure.function).unwrap_or(u64::MAX);
        let words = [failure.call as u64, u64::from(failure.errno), function];
        for (word, value) in words.into_iter().enumerate() {
            let place = self.shared.long(Layout::DEVICE_FAILURE + 8 * word);
            place.store(value, Ordering::Relaxed);
        }
    }

    /// The first slot with a request, from the one behind `last_vcpu` on.
    fn look(&self, last_vcpu: usize) -> Option<Result<Next, PeerBroken>> {
        (1..=self.vcpus).find_map(|step| {
            let vcpu = last_vcpu.wrapping_add(step) % self.vcpus;
            let state = self.shared.word(self.layout.slot(vcpu) + slot::STATE);
            match state.load(Ordering::Acquire) {
                0 | state::ANSWERED => None,
                state::POSTED | state::AWAITED => Some(self.read_request(vcpu)),
                _ => Some(Err(PeerBroken)),
            }
        })
    }

    /// Reads each word of a request once and checks it.
    fn read_request(&self, vcpu: usize) -> Result<Next, PeerBroken> {
        let slot = self.layout.slot(vcpu);
        let word = |offset| self.shared.word(slot + offset).load(Ordering::Relaxed);
        let long = |offset| self.shared.long(slot + offset).load(Ordering::Relaxed);
        let kind = RequestKind::from_number(word(slot::KIND)).ok_or(PeerBroken)?;
        let index = |offset| usize::try_from(word(offset)).unwrap_or(usize::MAX);
        let request = Request {
            kind,
            function: index(slot::FUNCTION),
            bar: index(slot::BAR),
            size_bytes: index(slot::SIZE),
            offset: long(slot::OFFSET),
            value: long(slot::VALUE),
        };
        let is_sane = request.function < self.functions && request.is_sane();
        if is_sane {
            Ok(Next::Request { vcpu, request })
        } else {
            Err(PeerBroken)
        }
    }
}
