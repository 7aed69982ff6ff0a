//! The memory V and D share: one request slot per vCPU, the console's byte queues, the readable configuration space
//! of every function, and counters.
//!
//! Each side treats the other as hostile: it reads a word once, checks it, and never follows an offset from the
//! shared memory. Requests are synchronous: a vCPU waits for its reply. Reads of configuration space need no request:
//! D publishes what the guest may read ([`Layout::config`]), and the guest has these pages mapped ([`Layout::ecam`]).
//! The supervisor maps the counters read-only and believes nothing in them.

use crate::machine::CONFIG_BYTES;

mod device_side;
mod ecam;
mod layout;
mod queue;
#[cfg(test)]
mod ring_test;
mod vcpu_side;

pub use device_side::{DeviceSide, Next};
pub use ecam::ECAM_PIECES;
pub use layout::Layout;
pub use vcpu_side::VcpuSide;

/// The other side wrote what an honest one never writes: the process ends with [`crate::handoff::Ending::PeerBroken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerBroken;

/// What V asks of D.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Write 1, 2 or 4 aligned bytes of configuration space; `offset` below 4096. V drops what is not aligned.
    ConfigWrite = 1,
    /// Read 1, 2, 4 or 8 bytes of a BAR where it is not mapped.
    BarRead = 2,
    /// Write 1, 2, 4 or 8 bytes of a BAR where it is not mapped. V splits eight bytes into the MSI-X table into two
    /// writes of four, the lower first: so the route is in place before the vector is unmasked.
    BarWrite = 3,
}

impl RequestKind {
    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::ConfigWrite, Self::BarRead, Self::BarWrite]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
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

impl Request {
    /// Whether its fields are in range by themselves; the function's index is checked against the guest's count.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        let size_bytes = u64::try_from(self.size_bytes).unwrap_or(u64::MAX);
        let end = self.offset.checked_add(size_bytes);
        match self.kind {
            RequestKind::ConfigWrite => {
                self.bar == 0
                    && matches!(size_bytes, 1 | 2 | 4)
                    && self.offset.is_multiple_of(size_bytes)
                    && self.offset < CONFIG_BYTES as u64
            }
            RequestKind::BarRead | RequestKind::BarWrite => {
                self.bar < 6 && matches!(size_bytes, 1 | 2 | 4 | 8) && end.is_some()
            }
        }
    }
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
    /// Message address; 0 where the guest wrote one that is no interrupt, and the vectors must not be
    /// delivered; then `data` means nothing.
    pub address: u64,
    /// Message data.
    pub data: u32,
    /// Whether the vector can fire already: then V tells KVM at once; else it may wait until the next request
    /// that is not an address or data write, which V must precede with the pending updates.
    pub is_live: bool,
}

impl RouteUpdate {
    /// Whether it names a message to a local APIC, or none.
    ///
    /// *Source:* `Intel SDM volume 3, section 11.11.1 (message address register format)`.
    const fn is_deliverable(&self) -> bool {
        self.address == 0 || self.address >> 20 == 0xFEE
    }
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
    /// V: configuration space reads that KVM could not do by itself: none, as long as the host can read its own memory.
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
    /// `kvm_run.exit_reason`, or one of the three below, which no exit has: its number is of 32 bits.
    pub reason: u64,
    /// Reason's first detail: suberror, hardware entry failure reason, errno, or the word that made no sense.
    pub detail: u64,
    /// Index of the vCPU.
    pub vcpu: u64,
    /// Not used, zero.
    pub reserved: u64,
}

impl LastExit {
    /// No exit: `KVM_RUN` failed with an errno.
    pub const RUN: u64 = u64::MAX;
    /// No exit: KVM did not take the routes of interrupts, with an errno.
    pub const ROUTES: u64 = u64::MAX - 1;
    /// No exit: what KVM keeps of the guest's writes to ports contradicts itself, by a word of it.
    pub const KEPT_WRITES: u64 = u64::MAX - 2;
}

/// What ended the guest: a call on a device that failed, or an interrupt of VFIO about it.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceCall {
    /// Writing the command register.
    WriteCommand = 1,
    /// Arming, retargeting or disarming interrupts.
    SetIrqs = 2,
    /// The reset that the guest asked for.
    Reset = 3,
    /// Reading a latch or firing a vector.
    Eventfd = 4,
    /// No call: `VFIO_PCI_ERR_IRQ_INDEX` fired.
    ErrorInterrupt = 5,
    /// No call: `VFIO_PCI_REQ_IRQ_INDEX` fired.
    RequestInterrupt = 6,
}

impl DeviceCall {
    /// The call with this number.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        [
            Self::WriteCommand,
            Self::SetIrqs,
            Self::Reset,
            Self::Eventfd,
            Self::ErrorInterrupt,
            Self::RequestInterrupt,
        ]
        .into_iter()
        .find(|call| *call as u64 == number)
    }
}

/// What is behind [`crate::handoff::Ending::DeviceCallFailed`], `DeviceFailed` and `DeviceRequested`: three `u64` at [`Layout::DEVICE_FAILURE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceFailure {
    /// What failed; zero in the shared memory where nothing did.
    pub call: DeviceCall,
    /// Its errno.
    pub errno: u32,
    /// The function's index.
    pub function: usize,
}

impl DeviceFailure {
    /// Reads the three words, which D may have filled with anything; `None` where they make no sense.
    #[must_use]
    pub fn from_words([call, errno, function]: [u64; 3]) -> Option<Self> {
        Some(Self {
            call: DeviceCall::from_number(call)?,
            errno: u32::try_from(errno).ok()?,
            function: usize::try_from(function).ok()?,
        })
    }
}
