//! The descriptors that a process has once it is locked down: exactly these, by number.

use super::Role;
use crate::handoff::{DeviceFds, Handoff, VcpuFds};

/// One descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number.
    pub number: u32,
    /// What it is.
    pub kind: DescriptorKind,
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DescriptorKind {
    /// V: the VM.
    Vm,
    /// V: the KVM-VFIO device.
    KvmVfio,
    /// V: the vCPU with this index.
    Vcpu(u32),
    /// D: the pipe where the console's bytes go.
    ConsoleOut,
    /// D: the pipe where the console's bytes come from.
    ConsoleIn,
    /// D: the VFIO device of the function with this index.
    Device(u32),
    /// D: the eventfd by which the function with this index says that it fails.
    Error(u32),
    /// D: the eventfd by which the function with this index is asked back.
    Request(u32),
    /// D: the eventfd that KVM turns into the vector with this index, in the count over all functions.
    Vector(u32),
    /// D: the eventfd that takes this vector while it is masked.
    Latch(u32),
}

/// The descriptors of `role` once it is locked down, ascending by number; none else is open then.
pub fn descriptors(role: Role, handoff: &Handoff) -> impl Iterator<Item = Descriptor> {
    let (is_vcpu, is_device) = (role == Role::Vcpu, role == Role::Device);
    let with = |number: u32, kind| Descriptor { number, kind };
    let has_functions = is_vcpu && handoff.function_count > 0;
    let has_console = is_device && handoff.has_console != 0;
    let vcpus = if is_vcpu { handoff.vcpu_count } else { 0 };
    let (functions, vectors) = if is_device {
        (handoff.function_count, handoff.vector_count())
    } else {
        (0, 0)
    };

    let fds = VcpuFds::of(handoff);
    let vm = is_vcpu.then(|| with(fds.vm(), DescriptorKind::Vm));
    let kvm_vfio = fds.kvm_vfio().filter(|_| has_functions);
    let kvm_vfio = kvm_vfio.map(|number| with(number, DescriptorKind::KvmVfio));
    let of_vcpus = (0..vcpus).map(move |i| with(fds.vcpu(i), DescriptorKind::Vcpu(i)));

    let fds = DeviceFds::of(handoff);
    let console = [
        with(DeviceFds::CONSOLE_OUT, DescriptorKind::ConsoleOut),
        with(DeviceFds::CONSOLE_IN, DescriptorKind::ConsoleIn),
    ];
    let console = console.into_iter().filter(move |_| has_console);
    let of_functions = (0..functions)
        .map(move |i| with(fds.device(i), DescriptorKind::Device(i)))
        .chain((0..functions).map(move |i| with(fds.error(i), DescriptorKind::Error(i))))
        .chain((0..functions).map(move |i| with(fds.request(i), DescriptorKind::Request(i))));
    let of_vectors = (0..vectors)
        .map(move |i| with(fds.vector(i), DescriptorKind::Vector(i)))
        .chain((0..vectors).map(move |i| with(fds.latch(i), DescriptorKind::Latch(i))));

    vm.into_iter()
        .chain(kvm_vfio)
        .chain(of_vcpus)
        .chain(console)
        .chain(of_functions)
        .chain(of_vectors)
}
