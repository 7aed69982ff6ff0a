//! A vCPU: its registers before it runs, its exits while it does.

use core::sync::atomic::{AtomicU8, Ordering};

use super::kvm::{ioctl, ioctl_with};
use super::kvm_abi::{self as abi, Cpuid, Msr, OneMsr, Regs, Sregs, exit, run};
use super::shared::Shared;
use super::syscall::{Errno, Fd};
use crate::addr::Gpa;

/// Why a vCPU stopped running the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing: run it again.
    Interrupted,
    /// `count` reads of a port; each wants [`Vcpu::set_port_value`].
    PortRead(PortAccess),
    /// `count` writes of a port; [`Vcpu::port_value`] gives each.
    PortWrite(PortAccess),
    /// A read of memory that is not mapped; it wants [`Vcpu::set_mmio_value`].
    MmioRead {
        /// The address.
        at: Gpa,
        /// 1 to 8.
        size_bytes: usize,
    },
    /// A write to memory that is not mapped, or is read-only.
    MmioWrite {
        /// The address.
        at: Gpa,
        /// 1 to 8.
        size_bytes: usize,
        /// What was written, in the low bytes.
        value: u64,
    },
    /// A triple fault.
    Shutdown,
    /// A request of the guest to the hypervisor, by number.
    SystemEvent(u32),
    /// KVM cannot go on.
    Failed {
        /// `kvm_run.exit_reason`.
        reason: u32,
        /// The reason's first detail.
        detail: u64,
    },
    /// `KVM_RUN` failed.
    CallFailed(Errno),
}

/// An access to an I/O port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// The port.
    pub port: u16,
    /// 1, 2 or 4.
    pub size_bytes: usize,
    /// How many accesses: more than 1 for a repeated string instruction.
    pub count: usize,
    /// Where KVM keeps the values.
    data_offset: usize,
}

/// A vCPU. Only the thread that runs it uses what is shared with KVM about its exits.
#[derive(Clone, Copy, Debug)]
pub struct Vcpu {
    fd: Fd,
    run: Shared,
}

impl Vcpu {
    /// The vCPU behind the descriptor `fd`, with the page that it shares with KVM.
    pub(super) const fn new(fd: Fd, run: Shared) -> Self {
        Self { fd, run }
    }

    /// Its descriptor, to be kept open.
    #[must_use]
    pub const fn fd(self) -> Fd {
        self.fd
    }

    /// The pages that it shares with KVM.
    pub(super) const fn shared(self) -> Shared {
        self.run
    }

    /// Sets what the CPUID instruction returns.
    ///
    /// # Errors
    /// The errno.
    pub fn set_cpuid(self, cpuid: &mut Cpuid) -> Result<(), Errno> {
        // SAFETY: 1. the structure has as many entries as its count says.
        unsafe { ioctl_with(self.fd, abi::SET_CPUID2, cpuid) }.map(drop)
    }

    /// Gives the vCPU the rate at which the host's time stamp counter runs now.
    ///
    /// A new vCPU has the rate that the host had measured when KVM was loaded. Where the host has measured again since,
    /// and the processor cannot scale, the kernel refuses its own old value but lets the vCPU be: then its timers never
    /// fire. Zero stands for the present rate. *Source:* `arch/x86/kvm/x86.c` (v6.12), `kvm_set_tsc_khz` and
    /// `KVM_SET_TSC_KHZ`.
    ///
    /// # Errors
    /// The errno.
    pub fn use_host_clock(self) -> Result<(), Errno> {
        const PRESENT_RATE: usize = 0;
        // SAFETY: 1. the request takes a number.
        unsafe { ioctl(self.fd, abi::SET_TSC_KHZ, PRESENT_RATE) }.map(drop)
    }

    /// Sets a model specific register; false where KVM does not take it.
    ///
    /// # Errors
    /// The errno.
    pub fn set_msr(self, index: u32, value: u64) -> Result<bool, Errno> {
        let mut msrs = OneMsr {
            count: 1,
            padding: 0,
            entry: Msr {
                index,
                reserved: 0,
                value,
            },
        };
        // SAFETY: 1. the structure has as many entries as its count says.
        Ok(unsafe { ioctl_with(self.fd, abi::SET_MSRS, &mut msrs) }? == 1)
    }

    /// Sets the general registers.
    ///
    /// # Errors
    /// The errno.
    pub fn set_regs(self, regs: &mut Regs) -> Result<(), Errno> {
        // SAFETY: 1. the structure that the request takes.
        unsafe { ioctl_with(self.fd, abi::SET_REGS, regs) }.map(drop)
    }

    /// The segment and control registers.
    ///
    /// # Errors
    /// The errno.
    pub fn sregs(self) -> Result<Sregs, Errno> {
        let mut sregs = Sregs::default();
        // SAFETY: 1. the structure that the request takes, of plain numbers.
        unsafe { ioctl_with(self.fd, abi::GET_SREGS, &mut sregs) }?;
        Ok(sregs)
    }

    /// Sets the segment and control registers.
    ///
    /// # Errors
    /// The errno.
    pub fn set_sregs(self, sregs: &mut Sregs) -> Result<(), Errno> {
        // SAFETY: 1. the structure that the request takes.
        unsafe { ioctl_with(self.fd, abi::SET_SREGS, sregs) }.map(drop)
    }

    /// Runs the guest on this thread until it needs V.
    #[must_use]
    pub fn run(self) -> Exit {
        // SAFETY: 1. no argument.
        match unsafe { ioctl(self.fd, abi::RUN, 0) } {
            Ok(_) => self.exit(),
            Err(Errno::INTERRUPTED | Errno::AGAIN) => Exit::Interrupted,
            Err(errno) => Exit::CallFailed(errno),
        }
    }

    /// What KVM left in the page it shares with this thread.
    fn exit(self) -> Exit {
        let reason = self.word(run::EXIT_REASON);
        match reason {
            exit::IO => {
                let [direction, size_bytes, low, high] = self.word(run::IO_DIRECTION).to_le_bytes();
                let access = PortAccess {
                    port: u16::from_le_bytes([low, high]),
                    size_bytes: usize::from(size_bytes),
                    count: self.word(run::IO_COUNT) as usize,
                    data_offset: usize::try_from(self.long(run::IO_DATA_OFFSET))
                        .unwrap_or(usize::MAX),
                };
                if direction == 1 {
                    Exit::PortWrite(access)
                } else {
                    Exit::PortRead(access)
                }
            }
            exit::MMIO => {
                let at = Gpa::new(self.long(run::MMIO_ADDRESS));
                let size_bytes = self.word(run::MMIO_LEN) as usize;
                let [is_write, ..] = self.word(run::MMIO_IS_WRITE).to_le_bytes();
                if is_write == 0 {
                    return Exit::MmioRead { at, size_bytes };
                }
                let unused_bits = 64_u32.saturating_sub(8 * self.word(run::MMIO_LEN));
                let value = self.long(run::MMIO_DATA) & u64::MAX.unbounded_shr(unused_bits);
                Exit::MmioWrite {
                    at,
                    size_bytes,
                    value,
                }
            }
            exit::SHUTDOWN => Exit::Shutdown,
            exit::INTR => Exit::Interrupted,
            exit::SYSTEM_EVENT => Exit::SystemEvent(self.word(run::EXIT)),
            exit::INTERNAL_ERROR => Exit::Failed {
                reason,
                detail: u64::from(self.word(run::EXIT)),
            },
            // For a failed entry the hardware's reason; of others whatever comes first.
            _ => Exit::Failed {
                reason,
                detail: self.long(run::EXIT),
            },
        }
    }

    /// The value of write `nth` of `access`.
    #[must_use]
    pub fn port_value(self, access: PortAccess, nth: usize) -> u32 {
        let mut value = [0; 4];
        for (byte, at) in value.iter_mut().zip(0..access.size_bytes) {
            *byte = self.port_byte(access, nth, at).load(Ordering::Relaxed);
        }
        u32::from_le_bytes(value)
    }

    /// Answers read `nth` of `access`.
    pub fn set_port_value(self, access: PortAccess, nth: usize, value: u32) {
        for (byte, at) in value.to_le_bytes().into_iter().zip(0..access.size_bytes) {
            self.port_byte(access, nth, at)
                .store(byte, Ordering::Relaxed);
        }
    }

    /// Answers a read of memory.
    pub fn set_mmio_value(self, value: u64) {
        self.run
            .long(run::MMIO_DATA)
            .store(value, Ordering::Relaxed);
    }

    fn port_byte(&self, access: PortAccess, nth: usize, at: usize) -> &AtomicU8 {
        let offset = access.data_offset + nth * access.size_bytes + at;
        self.run.byte(offset)
    }

    fn word(self, offset: usize) -> u32 {
        self.run.word(offset).load(Ordering::Relaxed)
    }

    fn long(self, offset: usize) -> u64 {
        self.run.long(offset).load(Ordering::Relaxed)
    }
}
