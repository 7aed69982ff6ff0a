//! The memory V and D share: one request slot per vCPU, the console's byte queues, the readable configuration space
//! of every function, and counters.
//!
//! Each side treats the other as hostile: it reads a word once, checks it, and never follows an offset from the
//! shared memory. Requests are synchronous: a vCPU waits for its reply. Reads of configuration space need no request:
//! D publishes what the guest may read ([`Layout::config`]) and V reads it from there, without a system call.
//! The supervisor maps the counters read-only and believes nothing in them.

use crate::machine::CONFIG_BYTES;

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
    /// Offset of [`LastExit`] in the head page: four `u64`.
    pub const LAST_EXIT: usize = 2048;
    /// Bytes of one vCPU's slot: two cache lines, so that vCPUs do not share one.
    pub const SLOT_BYTES: usize = 128;
    /// Bytes of the console's queue from the guest.
    pub const CONSOLE_OUT_BYTES: usize = 4096;
    /// Bytes of the console's queue to the guest.
    pub const CONSOLE_IN_BYTES: usize = 4096;

    /// The layout for this many vCPUs and functions.
    #[must_use]
    pub const fn new(vcpus: usize, functions: usize) -> Self {
        Self { vcpus, functions }
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

    /// Bytes in all, a multiple of the page size.
    #[must_use]
    pub const fn size_bytes(&self) -> usize {
        self.config(self.functions)
    }
}

/// What V asks of D.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Write 1, 2 or 4 bytes of configuration space; `offset` below 4096.
    ConfigWrite = 1,
    /// Read 1, 2, 4 or 8 bytes of a BAR where it is not mapped.
    BarRead = 2,
    /// Write 1, 2, 4 or 8 bytes of a BAR where it is not mapped.
    BarWrite = 3,
}

/// A request, checked: what D acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub kind: RequestKind,
    /// The function's index, below the handoff's count.
    pub function: usize,
    /// The BAR's index, below 6; 0 for configuration space.
    pub bar: usize,
    /// 1, 2, 4 or 8.
    pub size_bytes: usize,
    /// Offset in configuration space or in the BAR, in bytes; `offset + size_bytes` does not wrap.
    pub offset: u64,
    /// The value written, in the low bytes.
    pub value: u64,
}

/// A change of where vectors go, for V to give to KVM.
///
/// The route of a vector always equals what the guest wrote into its MSI-X table entry (or MSI capability),
/// masked or not: masking is done by D, which sends a masked vector to its latch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteUpdate {
    /// First vector of the function.
    pub first_vector: u32,
    /// How many vectors: 1 for MSI-X; for MSI, vector `k` gets `data | k`.
    pub count: u32,
    /// Message address; 0 where the guest wrote one that is no interrupt, and the vector must not be delivered.
    pub address: u64,
    /// Message data.
    pub data: u32,
    /// Whether the vector can fire already: then V tells KVM at once; else it may wait until the next request
    /// that is not an address or data write, which V must precede with the pending updates.
    pub is_live: bool,
}

/// D's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The value read, in the low bytes; 0 for writes.
    pub value: u64,
    /// A change of routes, if the request brought one.
    pub route: Option<RouteUpdate>,
}

/// What is counted, for the operator: by V up to `RouteUpdates`, by D from `Requests` on.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// V: returns from `KVM_RUN`.
    Exits = 0,
    /// V: of these, port reads and writes.
    PortExits,
    /// V: of these, memory reads and writes.
    MmioExits,
    /// V: configuration space reads.
    ConfigReads,
    /// V: configuration space writes.
    ConfigWrites,
    /// V: reads of unmapped parts of BARs.
    BarReads,
    /// V: writes to unmapped parts of BARs.
    BarWrites,
    /// V: reads of and writes to addresses and ports that nothing answers.
    Unclaimed,
    /// V: bytes from the guest's console.
    ConsoleBytes,
    /// V: system calls to wait for D.
    VcpuFutexWaits,
    /// V: system calls to wake D.
    VcpuFutexWakes,
    /// V: changes of KVM's interrupt routes.
    RouteUpdates,
    /// D: requests answered.
    Requests,
    /// D: writes that reached the hardware's configuration space.
    HardwareConfigWrites,
    /// D: `VFIO_DEVICE_SET_IRQS` calls.
    SetIrqs,
    /// D: resets asked for by the guest.
    Resets,
    /// D: reads and writes of device registers outside of the mapped parts.
    RegionAccesses,
    /// D: system calls to wait for V.
    DeviceFutexWaits,
    /// D: system calls to wake a vCPU.
    DeviceFutexWakes,
    /// D: vectors that fired while masked and were delivered on unmasking.
    LatchedInterrupts,
}

impl Counter {
    /// How many there are.
    pub const COUNT: usize = Self::LatchedInterrupts as usize + 1;
}

/// The exit that ended the guest, as V saw it: four words at [`Layout::LAST_EXIT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastExit {
    /// `kvm_run.exit_reason`.
    pub reason: u64,
    /// Reason's first detail: suberror, hardware entry failure reason, or errno of `KVM_RUN`.
    pub detail: u64,
    /// Index of the vCPU.
    pub vcpu: u64,
    /// Not used, zero.
    pub reserved: u64,
}
