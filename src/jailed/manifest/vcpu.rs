//! V's calls.

use super::common::{FUTEX_WAIT, FUTEX_WAKE};
use super::table::{Row, Symbol};
use crate::handoff::VcpuFds;
use crate::sys::kvm_abi as kvm;
use crate::sys::syscall::{
    flag::{MAP_PLACED, MAP_PRESENT, MAP_RESERVED, MAP_SHARED, PROT_READ, PROT_READ_WRITE},
    number as call,
};

/// While the guest runs: three system calls.
pub(super) const RUN: &[Row] = &[
    Row::new(
        call::IOCTL,
        [
            (0, Symbol::Vcpus),
            (1, Symbol::Number(kvm::RUN)),
            (2, Symbol::Zero),
        ],
        "runs the guest",
    ),
    Row::new(
        call::IOCTL,
        [(0, Symbol::Vm), (1, Symbol::Number(kvm::SET_GSI_ROUTING))],
        "sends the guest's interrupts where it wants them",
    ),
    Row::new(
        call::FUTEX,
        [(0, Symbol::Window), (1, FUTEX_WAIT), (3, Symbol::Zero)],
        "waits for D's answer, and for the word to go",
    ),
    Row::new(
        call::FUTEX,
        [(0, Symbol::Window), (1, FUTEX_WAKE)],
        "wakes D, and the keeper that waits for this process",
    ),
    Row::new(call::EXIT_GROUP, [], "ends with the guest"),
];

/// While the guest is being built, besides what V and D have in common.
pub(super) const BUILD: &[Row] = &[
    kvm(
        kvm::GET_API_VERSION,
        "asks whether this is the KVM that it knows",
    ),
    kvm(kvm::CHECK_EXTENSION, "asks for what it needs of KVM"),
    Row::new(
        call::IOCTL,
        [
            (0, Symbol::Fd(VcpuFds::KVM)),
            (1, Symbol::Number(kvm::CREATE_VM)),
            (2, Symbol::Zero),
        ],
        "creates the VM, of the default kind",
    ),
    kvm(
        kvm::GET_VCPU_MMAP_SIZE,
        "learns how long the pages shared with KVM are",
    ),
    kvm(
        kvm::GET_SUPPORTED_CPUID,
        "learns what the guest's CPUID may say",
    ),
    vm(
        kvm::SET_IDENTITY_MAP_ADDR,
        "places what Intel processors without unrestricted guests need",
    ),
    vm(
        kvm::SET_TSS_ADDR,
        "places what Intel processors without unrestricted guests need",
    ),
    vm(
        kvm::ENABLE_CAP,
        "has local APICs in the kernel, and no other interrupt controller",
    ),
    vm(
        kvm::SET_USER_MEMORY_REGION,
        "gives RAM, images, BARs and configuration space to the guest",
    ),
    vm(kvm::CREATE_DEVICE, "makes the KVM-VFIO device"),
    vm(kvm::IRQFD, "ties each vector's eventfd to its interrupt"),
    vm(kvm::CREATE_VCPU, "creates the vCPUs"),
    vm(
        kvm::REGISTER_COALESCED,
        "has KVM keep writes to ports that nobody waits for",
    ),
    Row::new(
        call::IOCTL,
        [
            (0, Symbol::KvmVfio),
            (1, Symbol::Number(kvm::SET_DEVICE_ATTR)),
        ],
        "tells KVM of the functions",
    ),
    vcpu(kvm::SET_TSC_KHZ, "gives a vCPU the host's clock"),
    vcpu(kvm::SET_CPUID2, "says what the guest's CPUID returns"),
    vcpu(kvm::SET_MSRS, "sets registers before the first instruction"),
    vcpu(
        kvm::GET_SREGS,
        "reads registers before the first instruction",
    ),
    vcpu(
        kvm::SET_SREGS,
        "sets registers before the first instruction",
    ),
    vcpu(kvm::SET_REGS, "sets registers before the first instruction"),
    map(MAP_PLACED, Symbol::Fd(VcpuFds::RAM), "maps RAM"),
    map(MAP_PLACED, Symbol::Mapped, "maps images and BARs"),
    Row::new(
        call::MMAP,
        [
            (2, Symbol::Bits(PROT_READ)),
            (3, Symbol::Exactly(MAP_PRESENT)),
            (4, Symbol::Fd(VcpuFds::RING)),
        ],
        "maps configuration space for the guest to read",
    ),
    map(MAP_SHARED, Symbol::Vcpus, "maps the pages shared with KVM"),
    Row::new(
        call::MMAP,
        [
            (2, Symbol::Zero),
            (3, Symbol::Exactly(MAP_RESERVED)),
            (4, Symbol::NoFile),
        ],
        "reserves addresses where large pages fit",
    ),
    Row::new(
        call::MUNMAP,
        [],
        "gives back what of a reservation is not used",
    ),
    of_file(call::FSTAT, VcpuFds::KERNEL, "learns the kernel's size"),
    of_file(
        call::FSTAT,
        VcpuFds::INITRAMFS,
        "learns the initramfs's size",
    ),
    of_file(call::PREAD64, VcpuFds::KERNEL, "reads the kernel into RAM"),
    of_file(
        call::PREAD64,
        VcpuFds::INITRAMFS,
        "reads the initramfs into RAM",
    ),
];

const fn kvm(request: usize, why: &'static str) -> Row {
    on(Symbol::Fd(VcpuFds::KVM), request, why)
}

const fn vm(request: usize, why: &'static str) -> Row {
    on(Symbol::Vm, request, why)
}

const fn vcpu(request: usize, why: &'static str) -> Row {
    on(Symbol::Vcpus, request, why)
}

const fn on(fd: Symbol, request: usize, why: &'static str) -> Row {
    Row::new(call::IOCTL, [(0, fd), (1, Symbol::Number(request))], why)
}

const fn map(flags: usize, file: Symbol, why: &'static str) -> Row {
    Row::new(
        call::MMAP,
        [
            (2, Symbol::Bits(PROT_READ_WRITE)),
            (3, Symbol::Exactly(flags)),
            (4, file),
        ],
        why,
    )
}

const fn of_file(call: usize, fd: u32, why: &'static str) -> Row {
    Row::new(call, [(0, Symbol::Fd(fd))], why)
}
