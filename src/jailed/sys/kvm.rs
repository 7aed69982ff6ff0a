//! KVM's requests, one function each.
//!
//! A VM and its vCPUs work only from the address space that created them, and stay until the process ends.

use super::kvm_abi::{
    self as abi, CoalescedZone, Cpuid, CpuidEntry, CreateDevice, DeviceAttr, EnableCap, Irqfd,
    MAX_CPUID, MemoryRegion, RouteList,
};
use super::kvm_kept::KeptWrites;
use super::kvm_vcpu::Vcpu;
use super::memory::Mapping;
use super::shared::Shared;
use super::syscall::{Errno, Fd, call, number};
use crate::addr::Gpa;

/// `ioctl` with a number as its argument.
///
/// # Safety
/// 1. `argument` is what `request` takes on `fd`, and every pointer behind it is valid for what it does.
pub(super) unsafe fn ioctl(fd: Fd, request: usize, argument: usize) -> Result<usize, Errno> {
    let args = [fd.number() as usize, request, argument, 0, 0, 0];
    // SAFETY: 1. is the caller's.
    unsafe { call(number::IOCTL, args) }
}

/// `ioctl` with a structure as its argument.
///
/// # Safety
/// 1. `request` takes a `T`, reads and writes no more than that, and leaves a valid one.
pub(super) unsafe fn ioctl_with<T>(
    fd: Fd,
    request: usize,
    argument: &mut T,
) -> Result<usize, Errno> {
    let address = core::ptr::from_mut(argument).expose_provenance();
    // SAFETY: 1. is the caller's; the borrow lasts for the call.
    unsafe { ioctl(fd, request, address) }
}

/// The descriptor that `ioctl` returned.
fn new_fd(returned: usize) -> Fd {
    Fd::new(u32::try_from(returned).unwrap_or(u32::MAX))
}

/// `/dev/kvm`.
#[derive(Clone, Copy, Debug)]
pub struct Kvm(Fd);

impl Kvm {
    /// KVM behind the descriptor `fd`.
    #[must_use]
    pub const fn new(fd: Fd) -> Self {
        Self(fd)
    }

    /// The version of the interface: 12 since 2007.
    ///
    /// # Errors
    /// The errno.
    pub fn api_version(self) -> Result<usize, Errno> {
        // SAFETY: 1. no argument.
        unsafe { ioctl(self.0, abi::GET_API_VERSION, 0) }
    }

    /// What KVM says about the capability `cap`: 0 where it lacks it.
    ///
    /// # Errors
    /// The errno.
    pub fn check_extension(self, cap: u32) -> Result<usize, Errno> {
        // SAFETY: 1. a number.
        unsafe { ioctl(self.0, abi::CHECK_EXTENSION, cap as usize) }
    }

    /// The CPUID that this host's KVM can give to a guest.
    ///
    /// # Errors
    /// The errno, `E2BIG` among them.
    pub fn supported_cpuid(self) -> Result<Cpuid, Errno> {
        let mut cpuid = Cpuid::new();
        cpuid.count = MAX_CPUID_COUNT;
        // SAFETY: 1. the structure has room for as many entries as its count says.
        unsafe { ioctl_with(self.0, abi::GET_SUPPORTED_CPUID, &mut cpuid) }?;
        Ok(cpuid)
    }

    /// Creates a VM.
    ///
    /// # Errors
    /// The errno.
    pub fn create_vm(self) -> Result<Vm, Errno> {
        // SAFETY: 1. the number of the default kind.
        let fd = unsafe { ioctl(self.0, abi::CREATE_VM, 0) }?;
        // SAFETY: 1. no argument.
        let run_bytes = unsafe { ioctl(self.0, abi::GET_VCPU_MMAP_SIZE, 0) }?;
        Ok(Vm {
            fd: new_fd(fd),
            run_bytes,
        })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const MAX_CPUID_COUNT: u32 = MAX_CPUID as u32;

impl Cpuid {
    /// No entries.
    #[must_use]
    pub fn new() -> Self {
        Self {
            count: 0,
            padding: 0,
            entries: [CpuidEntry::default(); MAX_CPUID],
        }
    }

    /// The entries.
    #[must_use]
    pub fn entries(&self) -> &[CpuidEntry] {
        self.entries.get(..self.count as usize).unwrap_or_default()
    }

    /// Adds an entry; false where there is no room.
    #[must_use]
    pub fn push(&mut self, entry: CpuidEntry) -> bool {
        match self.entries.get_mut(self.count as usize) {
            Some(place) => {
                *place = entry;
                self.count += 1;
                true
            }
            None => false,
        }
    }
}

impl Default for Cpuid {
    fn default() -> Self {
        Self::new()
    }
}

/// A VM.
#[derive(Clone, Copy, Debug)]
pub struct Vm {
    fd: Fd,
    run_bytes: usize,
}

impl Vm {
    /// Its descriptor, to be kept open.
    #[must_use]
    pub const fn fd(self) -> Fd {
        self.fd
    }

    /// Enables the capability `cap` with one argument.
    ///
    /// # Errors
    /// The errno.
    pub fn enable_cap(self, cap: u32, argument: u64) -> Result<(), Errno> {
        let mut enable = EnableCap {
            cap,
            flags: 0,
            args: [argument, 0, 0, 0],
            padding: [0; 64],
        };
        // SAFETY: 1. the structure that the request takes; no capability of V's takes a pointer.
        unsafe { ioctl_with(self.fd, abi::ENABLE_CAP, &mut enable) }.map(drop)
    }

    /// Places the three pages that Intel processors without unrestricted guests need.
    ///
    /// # Errors
    /// The errno.
    pub fn set_tss_address(self, at: Gpa) -> Result<(), Errno> {
        let at = usize::try_from(at.raw()).unwrap_or(usize::MAX);
        // SAFETY: 1. a number.
        unsafe { ioctl(self.fd, abi::SET_TSS_ADDR, at) }.map(drop)
    }

    /// Places the one page more that they need.
    ///
    /// # Errors
    /// The errno.
    pub fn set_identity_map_address(self, at: Gpa) -> Result<(), Errno> {
        // SAFETY: 1. the request reads one number.
        unsafe { ioctl_with(self.fd, abi::SET_IDENTITY_MAP_ADDR, &mut at.raw()) }.map(drop)
    }

    /// Shows `mapping` to the guest at `at`, as slot `slot`.
    ///
    /// # Errors
    /// The errno.
    pub fn set_memory(
        self,
        slot: u32,
        at: Gpa,
        mapping: &Mapping,
        is_read_only: bool,
    ) -> Result<(), Errno> {
        const KVM_MEM_READONLY: u32 = 2;
        let mut region = MemoryRegion {
            slot,
            flags: if is_read_only { KVM_MEM_READONLY } else { 0 },
            guest_address: at.raw(),
            len_bytes: mapping.len_bytes() as u64,
            host_address: mapping.host().expose_provenance() as u64,
        };
        // SAFETY: 1. the structure that the request takes; the guest writes to the mapping, which no reference
        // points into and which is never unmapped.
        unsafe { ioctl_with(self.fd, abi::SET_USER_MEMORY_REGION, &mut region) }.map(drop)
    }

    /// Makes the eventfd `event` raise interrupt `gsi`.
    ///
    /// # Errors
    /// The errno.
    pub fn set_irqfd(self, event: Fd, gsi: u32) -> Result<(), Errno> {
        let mut irqfd = Irqfd {
            fd: event.number(),
            gsi,
            flags: 0,
            resample_fd: 0,
            padding: [0; 16],
        };
        // SAFETY: 1. the structure that the request takes.
        unsafe { ioctl_with(self.fd, abi::IRQFD, &mut irqfd) }.map(drop)
    }

    /// Has KVM keep what the guest writes to the ports from `first` to `last`, as long as its ring has room: no exit. An
    /// access that goes over the last of them is not kept.
    ///
    /// # Errors
    /// The errno.
    pub fn keep_port_writes(self, first: u16, last: u16) -> Result<(), Errno> {
        let ports = u32::from(last).checked_sub(u32::from(first));
        let mut zone = CoalescedZone {
            address: u64::from(first),
            len_bytes: ports.ok_or(Errno::INVALID)? + 1,
            is_port: 1,
        };
        // SAFETY: 1. the structure that the request takes.
        unsafe { ioctl_with(self.fd, abi::REGISTER_COALESCED, &mut zone) }.map(drop)
    }

    /// What KVM keeps, in the page `page_index` of what it shares with any of the VM's vCPUs.
    #[must_use]
    pub fn kept_writes(vcpu: Vcpu, page_index: usize) -> Option<KeptWrites> {
        KeptWrites::new(vcpu.shared(), page_index)
    }

    /// Replaces all interrupt routes.
    ///
    /// # Errors
    /// The errno.
    pub fn set_routes(self, routes: &mut RouteList) -> Result<(), Errno> {
        // SAFETY: 1. the structure has as many entries as its count says.
        unsafe { ioctl_with(self.fd, abi::SET_GSI_ROUTING, routes) }.map(drop)
    }

    /// Creates the device through which KVM learns of VFIO devices. Its descriptor is to be kept open.
    ///
    /// # Errors
    /// The errno.
    pub fn create_kvm_vfio(self) -> Result<KvmVfio, Errno> {
        const KVM_DEV_TYPE_VFIO: u32 = 4;
        let mut create = CreateDevice {
            kind: KVM_DEV_TYPE_VFIO,
            fd: 0,
            flags: 0,
        };
        // SAFETY: 1. the structure that the request takes.
        unsafe { ioctl_with(self.fd, abi::CREATE_DEVICE, &mut create) }?;
        Ok(KvmVfio(Fd::new(create.fd)))
    }

    /// Creates the vCPU with this index, which is its APIC id: its descriptor.
    ///
    /// # Errors
    /// The errno.
    pub fn create_vcpu(self, index: u32) -> Result<Fd, Errno> {
        // SAFETY: 1. a number.
        Ok(new_fd(unsafe {
            ioctl(self.fd, abi::CREATE_VCPU, index as usize)
        }?))
    }

    /// Maps what the vCPU behind `fd` shares with KVM.
    ///
    /// # Errors
    /// The errno of `mmap` or `mseal`.
    pub fn vcpu(self, fd: Fd) -> Result<Vcpu, Errno> {
        Ok(Vcpu::new(fd, Shared::map(fd, self.run_bytes)?))
    }
}

/// The KVM-VFIO device of a VM.
#[derive(Clone, Copy, Debug)]
pub struct KvmVfio(Fd);

impl KvmVfio {
    /// Its descriptor.
    #[must_use]
    pub const fn fd(self) -> Fd {
        self.0
    }

    /// Tells KVM of the VFIO device `device`.
    ///
    /// # Errors
    /// The errno.
    pub fn add_device(self, device: Fd) -> Result<(), Errno> {
        const KVM_DEV_VFIO_FILE: u32 = 1;
        const KVM_DEV_VFIO_FILE_ADD: u64 = 1;
        let number = device.number();
        let mut attr = DeviceAttr {
            flags: 0,
            group: KVM_DEV_VFIO_FILE,
            attr: KVM_DEV_VFIO_FILE_ADD,
            address: (&raw const number).expose_provenance() as u64,
        };
        // SAFETY: 1. the structure that the request takes; its address is that of a number, which outlives the call.
        unsafe { ioctl_with(self.0, abi::SET_DEVICE_ATTR, &mut attr) }.map(drop)
    }
}
