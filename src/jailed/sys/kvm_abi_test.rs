//! Compares KVM's structures and request numbers with `kvm-bindings`.

use kvm_bindings as kvm;
use std::mem::{offset_of, size_of};

use super::kvm_abi::{
    self as abi, CoalescedZone, Cpuid, CpuidEntry, CreateDevice, DescriptorTable, DeviceAttr,
    EnableCap, Irqfd, MemoryRegion, MsiRoute, Msr, OneMsr, Regs, RouteList, Segment, Sregs, exit,
    kept, run,
};

type Io = kvm::kvm_run__bindgen_ty_1__bindgen_ty_4;
type Mmio = kvm::kvm_run__bindgen_ty_1__bindgen_ty_6;

/// `_IOC`: direction (1 write, 2 read), number, size.
const fn request(direction: usize, number: usize, size_bytes: usize) -> usize {
    direction << 30 | size_bytes << 16 | (kvm::KVMIO as usize) << 8 | number
}

#[test]
fn request_numbers_are_the_kernels() {
    let table = [
        (abi::GET_API_VERSION, request(0, 0x00, 0)),
        (abi::CREATE_VM, request(0, 0x01, 0)),
        (abi::CHECK_EXTENSION, request(0, 0x03, 0)),
        (abi::GET_VCPU_MMAP_SIZE, request(0, 0x04, 0)),
        (
            abi::GET_SUPPORTED_CPUID,
            request(3, 0x05, size_of::<kvm::kvm_cpuid2>()),
        ),
        (abi::CREATE_VCPU, request(0, 0x41, 0)),
        (
            abi::SET_USER_MEMORY_REGION,
            request(1, 0x46, size_of::<kvm::kvm_userspace_memory_region>()),
        ),
        (abi::SET_TSS_ADDR, request(0, 0x47, 0)),
        (abi::SET_IDENTITY_MAP_ADDR, request(1, 0x48, 8)),
        (
            abi::REGISTER_COALESCED,
            request(1, 0x67, size_of::<kvm::kvm_coalesced_mmio_zone>()),
        ),
        (
            abi::SET_GSI_ROUTING,
            request(1, 0x6A, size_of::<kvm::kvm_irq_routing>()),
        ),
        (abi::IRQFD, request(1, 0x76, size_of::<kvm::kvm_irqfd>())),
        (abi::RUN, request(0, 0x80, 0)),
        (abi::SET_TSC_KHZ, request(0, 0xA2, 0)),
        (abi::SET_REGS, request(1, 0x82, size_of::<kvm::kvm_regs>())),
        (
            abi::GET_SREGS,
            request(2, 0x83, size_of::<kvm::kvm_sregs>()),
        ),
        (
            abi::SET_SREGS,
            request(1, 0x84, size_of::<kvm::kvm_sregs>()),
        ),
        (abi::SET_MSRS, request(1, 0x89, size_of::<kvm::kvm_msrs>())),
        (
            abi::SET_CPUID2,
            request(1, 0x90, size_of::<kvm::kvm_cpuid2>()),
        ),
        (
            abi::ENABLE_CAP,
            request(1, 0xA3, size_of::<kvm::kvm_enable_cap>()),
        ),
        (
            abi::CREATE_DEVICE,
            request(3, 0xE0, size_of::<kvm::kvm_create_device>()),
        ),
        (
            abi::SET_DEVICE_ATTR,
            request(1, 0xE1, size_of::<kvm::kvm_device_attr>()),
        ),
    ];
    for (ours, theirs) in table {
        assert_eq!(ours, theirs, "{ours:#x} is not {theirs:#x}");
    }
}

#[test]
fn structures_have_the_kernels_sizes() {
    let table = [
        (size_of::<CpuidEntry>(), size_of::<kvm::kvm_cpuid_entry2>()),
        (size_of::<Msr>(), size_of::<kvm::kvm_msr_entry>()),
        (
            size_of::<MsiRoute>(),
            size_of::<kvm::kvm_irq_routing_entry>(),
        ),
        (size_of::<Regs>(), size_of::<kvm::kvm_regs>()),
        (size_of::<Segment>(), size_of::<kvm::kvm_segment>()),
        (size_of::<DescriptorTable>(), size_of::<kvm::kvm_dtable>()),
        (size_of::<Sregs>(), size_of::<kvm::kvm_sregs>()),
        (
            size_of::<MemoryRegion>(),
            size_of::<kvm::kvm_userspace_memory_region>(),
        ),
        (
            size_of::<CoalescedZone>(),
            size_of::<kvm::kvm_coalesced_mmio_zone>(),
        ),
        (size_of::<Irqfd>(), size_of::<kvm::kvm_irqfd>()),
        (
            size_of::<CreateDevice>(),
            size_of::<kvm::kvm_create_device>(),
        ),
        (size_of::<DeviceAttr>(), size_of::<kvm::kvm_device_attr>()),
        (size_of::<EnableCap>(), size_of::<kvm::kvm_enable_cap>()),
        (
            size_of::<OneMsr>(),
            size_of::<kvm::kvm_msrs>() + size_of::<kvm::kvm_msr_entry>(),
        ),
    ];
    for (ours, theirs) in table {
        assert_eq!(ours, theirs);
    }
    assert_eq!(
        size_of::<Cpuid>(),
        size_of::<kvm::kvm_cpuid2>() + abi::MAX_CPUID * size_of::<CpuidEntry>()
    );
    assert_eq!(
        size_of::<RouteList>(),
        size_of::<kvm::kvm_irq_routing>() + abi::MAX_ROUTES * size_of::<MsiRoute>()
    );
}

#[test]
fn kept_writes_lie_where_the_kernel_puts_them() {
    type Entry = kvm::kvm_coalesced_mmio;
    type Ring = kvm::kvm_coalesced_mmio_ring;
    assert_eq!(kept::ENTRY_BYTES, size_of::<Entry>());
    assert_eq!(kept::HEAD_BYTES, size_of::<Ring>());
    assert_eq!(kept::FIRST, offset_of!(Ring, first));
    assert_eq!(kept::LAST, offset_of!(Ring, last));
    assert_eq!(0, offset_of!(Entry, phys_addr));
    assert_eq!(kept::LEN, offset_of!(Entry, len));
    assert_eq!(kept::IS_PORT, offset_of!(Entry, __bindgen_anon_1));
    assert_eq!(kept::DATA, offset_of!(Entry, data));
    // `KVM_COALESCED_MMIO_MAX`
    let entries = (4096 - size_of::<Ring>()) / size_of::<Entry>();
    assert_eq!(kept::ENTRIES as usize, entries);
    let theirs = [
        offset_of!(kvm::kvm_coalesced_mmio_zone, addr),
        offset_of!(kvm::kvm_coalesced_mmio_zone, size),
        offset_of!(kvm::kvm_coalesced_mmio_zone, __bindgen_anon_1),
    ];
    let ours = [
        offset_of!(CoalescedZone, address),
        offset_of!(CoalescedZone, len_bytes),
        offset_of!(CoalescedZone, is_port),
    ];
    assert_eq!(ours, theirs);
}

#[test]
fn fields_lie_where_the_kernel_looks() {
    assert_eq!(offset_of!(Regs, r8_to_r15), offset_of!(kvm::kvm_regs, r8));
    assert_eq!(offset_of!(Regs, rsp), offset_of!(kvm::kvm_regs, rsp));
    assert_eq!(offset_of!(Regs, rip), offset_of!(kvm::kvm_regs, rip));
    assert_eq!(
        offset_of!(Segment, kind),
        offset_of!(kvm::kvm_segment, type_)
    );
    assert_eq!(offset_of!(Segment, l), offset_of!(kvm::kvm_segment, l));
    assert_eq!(
        offset_of!(Segment, unusable),
        offset_of!(kvm::kvm_segment, unusable)
    );
    assert_eq!(offset_of!(Sregs, tr), offset_of!(kvm::kvm_sregs, tr));
    assert_eq!(offset_of!(Sregs, gdt), offset_of!(kvm::kvm_sregs, gdt));
    assert_eq!(offset_of!(Sregs, cr0), offset_of!(kvm::kvm_sregs, cr0));
    assert_eq!(offset_of!(Sregs, efer), offset_of!(kvm::kvm_sregs, efer));
    assert_eq!(
        offset_of!(CpuidEntry, edx),
        offset_of!(kvm::kvm_cpuid_entry2, edx)
    );
    let union = offset_of!(kvm::kvm_run, __bindgen_anon_1);
    let table = [
        (run::EXIT_REASON, offset_of!(kvm::kvm_run, exit_reason)),
        (run::EXIT, union),
        (run::IO_DIRECTION, union + offset_of!(Io, direction)),
        (run::IO_COUNT, union + offset_of!(Io, count)),
        (run::IO_DATA_OFFSET, union + offset_of!(Io, data_offset)),
        (run::MMIO_ADDRESS, union + offset_of!(Mmio, phys_addr)),
        (run::MMIO_DATA, union + offset_of!(Mmio, data)),
        (run::MMIO_LEN, union + offset_of!(Mmio, len)),
        (run::MMIO_IS_WRITE, union + offset_of!(Mmio, is_write)),
    ];
    for (ours, theirs) in table {
        assert_eq!(ours, theirs);
    }
}

#[test]
fn exits_have_the_kernels_numbers() {
    let table = [
        (exit::IO, kvm::KVM_EXIT_IO),
        (exit::MMIO, kvm::KVM_EXIT_MMIO),
        (exit::SHUTDOWN, kvm::KVM_EXIT_SHUTDOWN),
        (exit::INTR, kvm::KVM_EXIT_INTR),
        (exit::INTERNAL_ERROR, kvm::KVM_EXIT_INTERNAL_ERROR),
        (exit::SYSTEM_EVENT, kvm::KVM_EXIT_SYSTEM_EVENT),
    ];
    for (ours, theirs) in table {
        assert_eq!(ours, theirs);
    }
}

#[test]
fn a_route_is_a_message_of_its_interrupt() {
    let route = MsiRoute::new(7, 0x1_FEE0_3000, 0x41);
    assert_eq!(kvm::KVM_IRQ_ROUTING_MSI, 2);
    assert_eq!(offset_of!(kvm::kvm_irq_routing_entry, u), 16);
    // SAFETY: both are twelve 32-bit words.
    let words: [u32; 12] = unsafe { std::mem::transmute(route) };
    assert_eq!(words, [7, 2, 0, 0, 0xFEE0_3000, 1, 0x41, 0, 0, 0, 0, 0]);
}
