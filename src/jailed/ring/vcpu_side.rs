//! V's side: asks, waits, moves the console's bytes.

use core::sync::atomic::{AtomicU32, Ordering};

use super::{
    Counter, LastExit, Layout, PeerBroken, Reply, Request, RouteUpdate,
    layout::{slot, state},
    queue::Queue,
};
use crate::{
    handoff::{Handoff, MAX_FUNCTIONS},
    sys::{futex, shared::Shared},
};

/// How often a vCPU looks for its answer before it sleeps: some ten microseconds.
const SPINS: u32 = 256;

/// V's side of the ring, shared by all vCPU threads.
#[derive(Debug)]
pub struct VcpuSide {
    shared: Shared,
    layout: Layout,
    vcpus: usize,
    vectors: [u32; MAX_FUNCTIONS],
    console_out: Queue,
    console_in: Queue,
}

impl VcpuSide {
    /// The side for a checked `handoff`; `None` where the mapping is not as long as the layout.
    #[must_use]
    pub fn new(shared: Shared, handoff: &Handoff) -> Option<Self> {
        let layout = Layout::of(handoff);
        if shared.size_bytes() != layout.size_bytes() {
            return None;
        }
        let mut vectors = [0; MAX_FUNCTIONS];
        for (to, function) in vectors.iter_mut().zip(handoff.functions()) {
            *to = function.vectors;
        }
        Some(Self {
            shared,
            layout,
            vcpus: layout.vcpus(),
            vectors,
            console_out: layout.console_out_queue(shared),
            console_in: layout.console_in_queue(shared),
        })
    }

    /// Asks D and waits for its answer. Each vCPU thread uses its own slot.
    ///
    /// # Errors
    /// [`PeerBroken`] where the answer is none that D gives.
    ///
    /// # Panics
    /// If `vcpu` is not one of the guest's.
    pub fn call(&self, vcpu: usize, request: &Request) -> Result<Reply, PeerBroken> {
        assert!(vcpu < self.vcpus);
        let slot = self.layout.slot(vcpu);
        let word = |offset| self.shared.word(slot + offset);
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        word(slot::KIND).store(request.kind as u32, Ordering::Relaxed);
        word(slot::FUNCTION).store(narrow(request.function), Ordering::Relaxed);
        word(slot::BAR).store(narrow(request.bar), Ordering::Relaxed);
        word(slot::SIZE).store(narrow(request.size_bytes), Ordering::Relaxed);
        self.shared
            .long(slot + slot::OFFSET)
            .store(request.offset, Ordering::Relaxed);
        self.shared
            .long(slot + slot::VALUE)
            .store(request.value, Ordering::Relaxed);
        word(slot::STATE).store(state::POSTED, Ordering::Release);
        self.ring_doorbell();
        self.wait_for_answer(word(slot::STATE))?;
        self.read_reply(slot, request.function)
    }

    /// Gives D a byte that the guest wrote to its console; false where the queue is full. One thread at a time.
    #[must_use]
    pub fn console_put(&self, byte: u8) -> bool {
        let has_put = self.console_out.put(byte);
        if has_put {
            self.ring_doorbell();
        }
        has_put
    }

    /// Takes a byte for the guest's console. One thread at a time.
    #[must_use]
    pub fn console_get(&self) -> Option<u8> {
        self.console_in.take()
    }

    /// Whether a byte waits for the guest.
    #[must_use]
    pub fn console_has_input(&self) -> bool {
        self.console_in.has_bytes()
    }

    /// Whether [`Self::console_put`] would take a byte.
    #[must_use]
    pub fn console_has_room(&self) -> bool {
        self.console_out.has_room()
    }

    /// Whether [`Self::console_put`] would take so many bytes.
    #[must_use]
    pub fn console_has_room_for(&self, bytes: u32) -> bool {
        self.console_out.has_room_for(bytes)
    }

    /// Counts `n` more of `counter`.
    pub fn count(&self, counter: Counter, n: u64) {
        self.shared
            .long(Layout::counter(counter))
            .fetch_add(n, Ordering::Relaxed);
    }

    /// Leaves the exit that ends the guest for the supervisor to read.
    pub fn set_last_exit(&self, last: LastExit) {
        let words = [last.reason, last.detail, last.vcpu, last.reserved];
        for (word, value) in words.into_iter().enumerate() {
            self.shared
                .long(Layout::LAST_EXIT + 8 * word)
                .store(value, Ordering::Relaxed);
        }
    }

    /// Tells D that there is something to do; a system call only where D sleeps.
    fn ring_doorbell(&self) {
        let doorbell = self.shared.word(Layout::DOORBELL);
        // Before the look at the sleeper: D writes that word before it looks at the doorbell for the last time.
        doorbell.fetch_add(1, Ordering::SeqCst);
        let sleeps = self.shared.word(Layout::DEVICE_SLEEPS);
        if sleeps.load(Ordering::SeqCst) != 0 && sleeps.swap(0, Ordering::SeqCst) != 0 {
            self.count(Counter::VcpuFutexWakes, 1);
            futex::wake(doorbell);
        }
    }

    /// Returns when the slot is answered: looks for a while, then sleeps.
    fn wait_for_answer(&self, word: &AtomicU32) -> Result<(), PeerBroken> {
        for _ in 0..SPINS {
            match word.load(Ordering::Acquire) {
                state::ANSWERED => return Ok(()),
                state::POSTED => core::hint::spin_loop(),
                _ => return Err(PeerBroken),
            }
        }
        // It fails where D answered just now, or wrote nonsense: the loop tells.
        let (posted, awaited) = (state::POSTED, state::AWAITED);
        let seen = word.compare_exchange(posted, awaited, Ordering::AcqRel, Ordering::Acquire);
        let mut seen = seen.map_or_else(|other| other, |_| awaited);
        while seen == awaited {
            self.count(Counter::VcpuFutexWaits, 1);
            // However it returns: the word decides.
            core::hint::black_box(futex::wait(word, awaited, None).is_ok());
            seen = word.load(Ordering::Acquire);
        }
        if seen == state::ANSWERED {
            Ok(())
        } else {
            Err(PeerBroken)
        }
    }

    /// Reads each word of the answer once and checks it.
    fn read_reply(&self, slot: usize, function: usize) -> Result<Reply, PeerBroken> {
        let word = |offset| self.shared.word(slot + offset).load(Ordering::Relaxed);
        let long = |offset| self.shared.long(slot + offset).load(Ordering::Relaxed);
        let value = long(slot::READ);
        let count = word(slot::ROUTE_COUNT);
        if count == 0 {
            return Ok(Reply { value, route: None });
        }
        let live = word(slot::ROUTE_LIVE);
        let route = RouteUpdate {
            first_vector: word(slot::ROUTE_FIRST),
            count,
            address: long(slot::ROUTE_ADDRESS),
            data: word(slot::ROUTE_DATA),
            is_live: live == 1,
        };
        if live > 1 || !route.is_deliverable() {
            return Err(PeerBroken);
        }
        let vectors = self.vectors.get(function).copied().unwrap_or(0);
        let end = route.first_vector.checked_add(count);
        if end.is_none_or(|end| end > vectors) {
            return Err(PeerBroken);
        }
        Ok(Reply {
            value,
            route: Some(route),
        })
    }
}
