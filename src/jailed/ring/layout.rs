//! Where things lie in the shared memory.

use super::{Counter, queue::Queue};
use crate::{
    handoff::{Handoff, MAX_VCPUS},
    machine::CONFIG_BYTES,
    sys::shared::Shared,
};

const _: () = assert!(Layout::COUNTERS + 8 * Counter::COUNT <= Layout::LAST_EXIT);

/// Where things lie in the shared memory; both sides and the supervisor compute it from the same two counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    vcpus: usize,
    functions: usize,
}

impl Layout {
    /// Bytes of the head page: doorbell, console positions, counters.
    pub const HEAD_BYTES: usize = 4096;
    /// Offset of the counters in the head page: [`Counter`] many `u64`.
    pub const COUNTERS: usize = 1024;
    /// Offset of [`super::LastExit`] in the head page: four `u64`.
    pub const LAST_EXIT: usize = 2048;
    /// Offset of [`super::DeviceFailure`] in the head page: call, errno and function as `u64`.
    pub const DEVICE_FAILURE: usize = 2080;
    /// Bytes of one vCPU's slot: two cache lines, so that vCPUs do not share one.
    pub const SLOT_BYTES: usize = 128;
    /// Bytes of the console's queue from the guest.
    pub const CONSOLE_OUT_BYTES: usize = 4096;
    /// Bytes of the console's queue to the guest.
    pub const CONSOLE_IN_BYTES: usize = 4096;
    /// Offset in the head page of how many bytes V has put into the console's queue, 32 bits that wrap.
    pub const CONSOLE_OUT_PUT: usize = Self::CONSOLE_OUT_POSITIONS;
    /// Offset in the head page of how many of them D has passed on, 32 bits that wrap.
    pub const CONSOLE_OUT_PASSED: usize = Self::CONSOLE_OUT_POSITIONS + Queue::TAKEN;

    /// Offset of the word that V counts up whenever there is something to do; D sleeps on it.
    pub(super) const DOORBELL: usize = 0;
    /// Offset of the word that D sets while it sleeps.
    pub(super) const DEVICE_SLEEPS: usize = 64;
    /// Offset of the positions of the queue from the guest's console.
    pub(super) const CONSOLE_OUT_POSITIONS: usize = 128;
    /// Offset of the positions of the queue to the guest's console.
    pub(super) const CONSOLE_IN_POSITIONS: usize = 256;

    /// The layout for this many vCPUs and functions.
    #[must_use]
    pub const fn new(vcpus: usize, functions: usize) -> Self {
        Self { vcpus, functions }
    }

    /// The layout for a checked `handoff`.
    #[must_use]
    pub fn of(handoff: &Handoff) -> Self {
        let vcpus = usize::try_from(handoff.vcpu_count).unwrap_or(MAX_VCPUS);
        Self::new(vcpus.clamp(1, MAX_VCPUS), handoff.functions().len())
    }

    /// How many slots there are.
    #[must_use]
    pub const fn vcpus(&self) -> usize {
        self.vcpus
    }

    /// How many functions there are.
    #[must_use]
    pub const fn functions(&self) -> usize {
        self.functions
    }

    /// Offset of `counter`.
    #[must_use]
    pub const fn counter(counter: Counter) -> usize {
        Self::COUNTERS + 8 * counter as usize
    }

    /// How many bytes of the console wait for D, by what stands at [`Self::CONSOLE_OUT_PUT`] and
    /// [`Self::CONSOLE_OUT_PASSED`]; none where the two contradict each other.
    #[must_use]
    pub fn console_left(put: u32, passed: u32) -> u32 {
        Queue::waiting(put, passed)
    }

    /// The queue from the guest's console.
    pub(super) const fn console_out_queue(&self, shared: Shared) -> Queue {
        Queue::new(shared, Self::CONSOLE_OUT_POSITIONS, self.console_out())
    }

    /// The queue to the guest's console.
    pub(super) const fn console_in_queue(&self, shared: Shared) -> Queue {
        Queue::new(shared, Self::CONSOLE_IN_POSITIONS, self.console_in())
    }

    /// Offset of the slot of `vcpu`.
    #[must_use]
    pub const fn slot(&self, vcpu: usize) -> usize {
        Self::HEAD_BYTES + vcpu * Self::SLOT_BYTES
    }

    /// Offset of the queue of bytes that the guest wrote to its console.
    #[must_use]
    pub const fn console_out(&self) -> usize {
        self.slot(self.vcpus).next_multiple_of(4096)
    }

    /// Offset of the queue of bytes for the guest to read from its console.
    #[must_use]
    pub const fn console_in(&self) -> usize {
        self.console_out() + Self::CONSOLE_OUT_BYTES
    }

    /// Offset of the readable configuration space of `function`.
    #[must_use]
    pub const fn config(&self, function: usize) -> usize {
        self.console_in() + Self::CONSOLE_IN_BYTES + function * CONFIG_BYTES
    }

    /// Bytes that V and D share, a multiple of the page size. The file is longer: [`Self::file_bytes`].
    #[must_use]
    pub const fn size_bytes(&self) -> usize {
        self.config(self.functions)
    }
}

/// One vCPU's slot: V writes the first cache line, D the second; both change `STATE`.
pub(super) mod slot {
    /// Offset of the state, one of [`super::state`].
    pub(in crate::ring) const STATE: usize = 0;
    /// Offset of the kind.
    pub(in crate::ring) const KIND: usize = 4;
    /// Offset of the function's index.
    pub(in crate::ring) const FUNCTION: usize = 8;
    /// Offset of the BAR's index.
    pub(in crate::ring) const BAR: usize = 12;
    /// Offset of the size in bytes.
    pub(in crate::ring) const SIZE: usize = 16;
    /// Offset of the offset, 64 bits.
    pub(in crate::ring) const OFFSET: usize = 24;
    /// Offset of the value written, 64 bits.
    pub(in crate::ring) const VALUE: usize = 32;

    /// Offset of the value read, 64 bits.
    pub(in crate::ring) const READ: usize = 64;
    /// Offset of the route's address, 64 bits.
    pub(in crate::ring) const ROUTE_ADDRESS: usize = 72;
    /// Offset of the route's data.
    pub(in crate::ring) const ROUTE_DATA: usize = 80;
    /// Offset of the route's first vector.
    pub(in crate::ring) const ROUTE_FIRST: usize = 84;
    /// Offset of the route's count of vectors, 0 where there is no route.
    pub(in crate::ring) const ROUTE_COUNT: usize = 88;
    /// Offset of the route's liveness, 0 or 1.
    pub(in crate::ring) const ROUTE_LIVE: usize = 92;
}

/// The states of a slot.
pub(super) mod state {
    /// V wrote a request and looks for the answer without sleeping.
    pub(in crate::ring) const POSTED: u32 = 1;
    /// As `POSTED`, and the vCPU sleeps on the state.
    pub(in crate::ring) const AWAITED: u32 = 2;
    /// D answered. Also zero: what a slot is before its first request.
    pub(in crate::ring) const ANSWERED: u32 = 3;
}
