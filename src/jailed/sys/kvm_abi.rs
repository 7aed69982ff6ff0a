//! KVM's structures and request numbers, as V needs them; a test compares each with `kvm-bindings`.
//!
//! *Source:* `include/uapi/linux/kvm.h` and `arch/x86/include/uapi/asm/kvm.h` (v6.12).

use super::thread::Zeroed;

/// `KVM_GET_API_VERSION`
pub const GET_API_VERSION: usize = 0xAE00;
/// `KVM_CREATE_VM`
pub const CREATE_VM: usize = 0xAE01;
/// `KVM_CHECK_EXTENSION`
pub const CHECK_EXTENSION: usize = 0xAE03;
/// `KVM_GET_VCPU_MMAP_SIZE`
pub const GET_VCPU_MMAP_SIZE: usize = 0xAE04;
/// `KVM_GET_SUPPORTED_CPUID`
pub const GET_SUPPORTED_CPUID: usize = 0xC008_AE05;
/// `KVM_CREATE_VCPU`
pub const CREATE_VCPU: usize = 0xAE41;
/// `KVM_SET_USER_MEMORY_REGION`
pub const SET_USER_MEMORY_REGION: usize = 0x4020_AE46;
/// `KVM_SET_TSS_ADDR`
pub const SET_TSS_ADDR: usize = 0xAE47;
/// `KVM_SET_IDENTITY_MAP_ADDR`
pub const SET_IDENTITY_MAP_ADDR: usize = 0x4008_AE48;
/// `KVM_REGISTER_COALESCED_MMIO`
pub const REGISTER_COALESCED: usize = 0x4010_AE67;
/// `KVM_SET_GSI_ROUTING`
pub const SET_GSI_ROUTING: usize = 0x4008_AE6A;
/// `KVM_IRQFD`
pub const IRQFD: usize = 0x4020_AE76;
/// `KVM_RUN`
pub const RUN: usize = 0xAE80;
/// `KVM_SET_REGS`
pub const SET_REGS: usize = 0x4090_AE82;
/// `KVM_GET_SREGS`
pub const GET_SREGS: usize = 0x8138_AE83;
/// `KVM_SET_SREGS`
pub const SET_SREGS: usize = 0x4138_AE84;
/// `KVM_SET_MSRS`
pub const SET_MSRS: usize = 0x4008_AE89;
/// `KVM_SET_TSC_KHZ`
pub const SET_TSC_KHZ: usize = 0xAEA2;
/// `KVM_SET_CPUID2`
pub const SET_CPUID2: usize = 0x4008_AE90;
/// `KVM_ENABLE_CAP`
pub const ENABLE_CAP: usize = 0x4068_AEA3;
/// `KVM_CREATE_DEVICE`
pub const CREATE_DEVICE: usize = 0xC00C_AEE0;
/// `KVM_SET_DEVICE_ATTR`
pub const SET_DEVICE_ATTR: usize = 0x4018_AEE1;

/// A row of CPUID.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuidEntry {
    /// The leaf.
    pub function: u32,
    /// The subleaf.
    pub index: u32,
    /// 1: the subleaf counts.
    pub flags: u32,
    /// Result.
    pub eax: u32,
    /// Result.
    pub ebx: u32,
    /// Result.
    pub ecx: u32,
    /// Result.
    pub edx: u32,
    /// Zero.
    pub padding: [u32; 3],
}

/// The most rows of CPUID this program takes from KVM and gives to it.
pub const MAX_CPUID: usize = 160;

/// `struct kvm_cpuid2` with room for [`MAX_CPUID`] rows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Cpuid {
    pub(super) count: u32,
    pub(super) padding: u32,
    pub(super) entries: [CpuidEntry; MAX_CPUID],
}

/// `struct kvm_userspace_memory_region`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryRegion {
    pub slot: u32,
    pub flags: u32,
    pub guest_address: u64,
    pub len_bytes: u64,
    pub host_address: u64,
}

/// `struct kvm_coalesced_mmio_zone`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct CoalescedZone {
    pub address: u64,
    pub len_bytes: u32,
    pub is_port: u32,
}

/// `struct kvm_irqfd`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Irqfd {
    pub fd: u32,
    pub gsi: u32,
    pub flags: u32,
    pub resample_fd: u32,
    pub padding: [u8; 16],
}

/// `struct kvm_irq_routing_entry` for a message interrupt.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiRoute {
    gsi: u32,
    kind: u32,
    flags: u32,
    padding: u32,
    address_low: u32,
    address_high: u32,
    data: u32,
    unused: [u32; 5],
}

impl MsiRoute {
    /// The route of interrupt `gsi` to this message.
    #[must_use]
    pub fn new(gsi: u32, address: u64, data: u32) -> Self {
        const KVM_IRQ_ROUTING_MSI: u32 = 2;
        let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
        Self {
            gsi,
            kind: KVM_IRQ_ROUTING_MSI,
            address_low: u32::from_le_bytes([a, b, c, d]),
            address_high: u32::from_le_bytes([e, f, g, h]),
            data,
            ..Self::default()
        }
    }
}

/// The most routes of a guest: every vector of every function.
pub const MAX_ROUTES: usize = crate::handoff::MAX_FUNCTIONS * crate::handoff::MAX_VECTORS;

/// `struct kvm_irq_routing` with room for [`MAX_ROUTES`] routes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RouteList {
    pub(super) count: u32,
    pub(super) flags: u32,
    pub(super) entries: [MsiRoute; MAX_ROUTES],
}

// SAFETY: 1. integers, and a count of zero: no routes.
unsafe impl Zeroed for RouteList {}

/// Address and data of each route's message.
pub type Messages = [(u64, u32); MAX_ROUTES];

// SAFETY: 1. integers.
unsafe impl Zeroed for Messages {}

impl RouteList {
    /// Replaces the routes by `routes`, as many as there is room for.
    pub fn replace(&mut self, routes: impl Iterator<Item = MsiRoute>) {
        self.count = 0;
        for (place, route) in self.entries.iter_mut().zip(routes) {
            *place = route;
            self.count += 1;
        }
    }

    /// The routes.
    #[must_use]
    pub fn as_slice(&self) -> &[MsiRoute] {
        self.entries.get(..self.count as usize).unwrap_or_default()
    }
}

/// `struct kvm_create_device`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct CreateDevice {
    pub kind: u32,
    pub fd: u32,
    pub flags: u32,
}

/// `struct kvm_device_attr`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceAttr {
    pub flags: u32,
    pub group: u32,
    pub attr: u64,
    pub address: u64,
}

/// `struct kvm_enable_cap`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct EnableCap {
    pub cap: u32,
    pub flags: u32,
    pub args: [u64; 4],
    pub padding: [u8; 64],
}

/// `struct kvm_msr_entry`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Msr {
    /// Its number.
    pub index: u32,
    /// Zero.
    pub reserved: u32,
    /// Its value.
    pub value: u64,
}

/// `struct kvm_msrs` with one entry: a failure names its register.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct OneMsr {
    pub count: u32,
    pub padding: u32,
    pub entry: Msr,
}

/// `struct kvm_regs`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct Regs {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8_to_r15: [u64; 8],
    pub rip: u64,
    pub rflags: u64,
}

/// `struct kvm_segment`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the descriptor's own fields")]
pub struct Segment {
    pub base: u64,
    pub limit: u32,
    pub selector: u16,
    pub kind: u8,
    pub present: u8,
    pub dpl: u8,
    pub db: u8,
    pub s: u8,
    pub l: u8,
    pub g: u8,
    pub avl: u8,
    pub unusable: u8,
    pub padding: u8,
}

/// `struct kvm_dtable`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the register's own fields")]
pub struct DescriptorTable {
    pub base: u64,
    pub limit: u16,
    pub padding: [u16; 3],
}

/// `struct kvm_sregs`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct Sregs {
    pub cs: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ss: Segment,
    pub tr: Segment,
    pub ldt: Segment,
    pub gdt: DescriptorTable,
    pub idt: DescriptorTable,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub efer: u64,
    pub apic_base: u64,
    pub interrupt_bitmap: [u64; 4],
}

/// Offsets in `struct kvm_run`.
pub(super) mod run {
    pub(crate) const EXIT_REASON: usize = 8;
    /// Where the part begins that depends on the exit.
    pub(crate) const EXIT: usize = 32;
    pub(crate) const IO_DIRECTION: usize = EXIT;
    pub(crate) const IO_COUNT: usize = EXIT + 4;
    pub(crate) const IO_DATA_OFFSET: usize = EXIT + 8;
    pub(crate) const MMIO_ADDRESS: usize = EXIT;
    pub(crate) const MMIO_DATA: usize = EXIT + 8;
    pub(crate) const MMIO_LEN: usize = EXIT + 16;
    pub(crate) const MMIO_IS_WRITE: usize = EXIT + 20;
}

/// Offsets in `struct kvm_coalesced_mmio_ring`, which takes a page, and in its entries, `struct kvm_coalesced_mmio`.
pub(super) mod kept {
    pub(crate) const FIRST: usize = 0;
    pub(crate) const LAST: usize = 4;
    pub(crate) const HEAD_BYTES: usize = 8;
    pub(crate) const ENTRY_BYTES: usize = 24;
    pub(crate) const LEN: usize = 8;
    pub(crate) const IS_PORT: usize = 12;
    pub(crate) const DATA: usize = 16;
    /// As many as a page of 4 KiB has room for.
    pub(crate) const ENTRIES: u32 = 170;
}

/// Numbers of exits.
pub(super) mod exit {
    pub(crate) const IO: u32 = 2;
    pub(crate) const MMIO: u32 = 6;
    pub(crate) const SHUTDOWN: u32 = 8;
    pub(crate) const INTR: u32 = 10;
    pub(crate) const INTERNAL_ERROR: u32 = 17;
    pub(crate) const SYSTEM_EVENT: u32 = 24;
}
