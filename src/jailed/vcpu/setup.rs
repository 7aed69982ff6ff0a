//! The steps that build the guest, in order; `bin/vcpu.rs` tells them.

use super::boot::Entry;
use super::cpuid::guest_cpuid;
use super::failure::Failure;
use super::irq::Routes;
use super::ports::KEPT;
use super::registers::{MSRS, regs, sregs};
use super::run::{Guest, run_vcpu};
use super::uart::Uart;
use crate::addr::Gpa;
use crate::handoff::{Handoff, MAX_VCPUS, Report, SEARCHED_BEHIND, Stage, VcpuFds};
use crate::lock::StartPage;
use crate::machine;
use crate::ring::{Layout, VcpuSide};
use crate::sys::file::{close_from, is_open, read_handoff, report_bytes};
use crate::sys::kvm::{Kvm, KvmVfio, Vm};
use crate::sys::kvm_kept::KeptWrites;
use crate::sys::kvm_vcpu::Vcpu;
use crate::sys::memory::{Access, GuestRam, Mapping};
use crate::sys::spin::Spin;
use crate::sys::syscall::{Errno, Fd, write};
use crate::sys::thread::{forever, spawn};

/// Four pages for Intel processors without unrestricted guests, where no RAM, BAR, ECAM or APIC lies.
const IDENTITY_MAP: Gpa = Gpa::new(0xFEFF_C000);
const TSS: Gpa = Gpa::new(0xFEFF_D000);

/// What V needs of KVM, by number.
///
/// *Source:* `include/uapi/linux/kvm.h (v6.12)`.
const CAPABILITIES: [u32; 10] = [
    3, // USER_MEMORY: memory slots
    7, // EXT_CPUID
    COALESCED_MMIO,
    25, // IRQ_ROUTING: routes for vectors
    32, // IRQFD: vectors without V
    72, // TSC_DEADLINE_TIMER: the guest's timer
    81, // READONLY_MEM: images and configuration space
    89, // DEVICE_CTRL: the KVM-VFIO device
    SPLIT_IRQCHIP,
    162, // COALESCED_PIO: writes to ports that wait
];
/// What KVM says about it is the index of the ring's page among those that a vCPU shares with it.
const COALESCED_MMIO: u32 = 15;
const SPLIT_IRQCHIP: u32 = 121;

const THREAD_STACK_BYTES: usize = 64 << 10;

/// Copies the handoff and checks its counts.
///
/// # Errors
/// [`Stage::Handoff`].
pub fn take_handoff() -> Result<&'static Handoff, Failure> {
    let number = VcpuFds::HANDOFF;
    let fault = || Failure::at(Stage::Handoff, u64::from(number));
    let handoff = read_handoff(Fd::new(number)).map_err(fault())?;
    handoff
        .filter(|handoff| handoff.check())
        .ok_or(fault()(Errno::NONE))
}

/// Checks that every descriptor of the list is there, and closes what is not on it.
///
/// # Errors
/// [`Stage::Handoff`].
pub fn check_descriptors(handoff: &Handoff) -> Result<VcpuFds, Failure> {
    let fds = VcpuFds::of(handoff);
    if let Some(absent) = (0..fds.end()).find(|fd| !is_open(Fd::new(*fd))) {
        return Err(Failure::new(Stage::Handoff, u64::from(absent)));
    }
    let behind = fds.end()..fds.end().saturating_add(SEARCHED_BEHIND);
    if let Some(surplus) = behind.into_iter().find(|fd| is_open(Fd::new(*fd))) {
        return Err(Failure::new(Stage::Handoff, u64::from(surplus)));
    }
    // Nobody gives numbers as high as these; should one be open all the same, it is not any more.
    close_from(Fd::new(fds.end())).map_err(Failure::at(Stage::Handoff, u64::from(fds.end())))?;
    Ok(fds)
}

/// Maps the start page.
///
/// # Errors
/// [`Stage::Ring`].
pub fn map_start() -> Result<StartPage, Failure> {
    StartPage::map(Fd::new(VcpuFds::START)).map_err(Failure::at(Stage::Ring, 0))
}

/// Maps the memory shared with D.
///
/// # Errors
/// [`Stage::Ring`].
pub fn map_ring(handoff: &Handoff) -> Result<VcpuSide, Failure> {
    let size_bytes = Layout::of(handoff).size_bytes();
    let shared = StartPage::map_ring(Fd::new(VcpuFds::RING), size_bytes)
        .map_err(Failure::at(Stage::Ring, size_bytes as u64))?;
    VcpuSide::new(shared, handoff).ok_or(Failure::new(Stage::Ring, size_bytes as u64))
}

/// Creates the VM: local APICs in the kernel, and no other interrupt controller at all.
///
/// # Errors
/// [`Stage::CreateVm`], [`Stage::Capability`].
pub fn create_vm(fds: VcpuFds) -> Result<(Kvm, Vm), Failure> {
    const API_VERSION: usize = 12;
    let kvm = Kvm::new(Fd::new(VcpuFds::KVM));
    let fault = || Failure::at(Stage::CreateVm, 0);
    if kvm.api_version().map_err(fault())? != API_VERSION {
        return Err(Failure::new(Stage::CreateVm, 0));
    }
    for cap in CAPABILITIES {
        let at = Failure::at(Stage::Capability, u64::from(cap));
        if kvm.check_extension(cap).map_err(at)? == 0 {
            return Err(Failure::new(Stage::Capability, u64::from(cap)));
        }
    }
    let vm = kvm.create_vm().map_err(fault())?;
    // The filters name what is created here by the number that it must get.
    if vm.fd() != Fd::new(fds.vm()) {
        return Err(Failure::new(Stage::CreateVm, u64::from(vm.fd().number())));
    }
    vm.set_identity_map_address(IDENTITY_MAP).map_err(fault())?;
    vm.set_tss_address(TSS).map_err(fault())?;
    // Its argument is the number of IOAPIC pins to keep room for: none.
    vm.enable_cap(SPLIT_IRQCHIP, 0)
        .map_err(Failure::at(Stage::Capability, u64::from(SPLIT_IRQCHIP)))?;
    Ok((kvm, vm))
}

/// Gives mappings to KVM, each as the next slot.
#[derive(Debug)]
pub struct Slots {
    vm: Vm,
    next: u32,
}

impl Slots {
    /// None so far.
    #[must_use]
    pub const fn new(vm: Vm) -> Self {
        Self { vm, next: 0 }
    }

    /// Maps all of RAM.
    ///
    /// # Errors
    /// [`Stage::MemorySlot`].
    pub fn map_ram(&mut self, handoff: &Handoff) -> Result<GuestRam, Failure> {
        let ram = GuestRam::map(Fd::new(VcpuFds::RAM), handoff.ram())
            .map_err(|(gpa, errno)| Failure::at(Stage::MemorySlot, gpa)(errno))?;
        for (range, mapping) in ram.ranges() {
            self.give(range.start(), mapping, Access::ReadWrite)?;
        }
        Ok(ram)
    }

    /// Maps the images.
    ///
    /// # Errors
    /// [`Stage::MemorySlot`].
    pub fn map_images(&mut self, handoff: &Handoff, fds: VcpuFds) -> Result<(), Failure> {
        for (index, image) in (0..).zip(handoff.images()) {
            let access = if image.writable == 0 {
                Access::ReadOnly
            } else {
                Access::ReadWrite
            };
            let file = Fd::new(fds.image(index));
            self.map(file, 0, Gpa::new(image.gpa), image.len_bytes, access)?;
        }
        Ok(())
    }

    /// Maps what the guest reaches of the BARs without leaving the guest.
    ///
    /// # Errors
    /// [`Stage::MemorySlot`].
    pub fn map_bars(&mut self, handoff: &Handoff, fds: VcpuFds) -> Result<(), Failure> {
        for (index, function) in (0..).zip(handoff.functions()) {
            let device = Fd::new(fds.device(index));
            for bar in &function.bars {
                for (span, _) in bar.spans.iter().zip(0..bar.span_count) {
                    let out_of_range = Failure::new(Stage::MemorySlot, bar.gpa);
                    let is_inside = span
                        .offset
                        .checked_add(span.len_bytes)
                        .is_some_and(|end| end <= bar.len_bytes);
                    let at = Gpa::new(bar.gpa).checked_add(span.offset);
                    let offset = bar.region_offset.checked_add(span.offset);
                    let (Some(at), Some(offset), true) = (at, offset, is_inside) else {
                        return Err(out_of_range);
                    };
                    self.map(device, offset, at, span.len_bytes, Access::ReadWrite)?;
                }
            }
        }
        Ok(())
    }

    /// Maps configuration space of the bus, to be read: what D publishes, and ones where no function is. A write goes to
    /// [`super::mmio`].
    ///
    /// # Errors
    /// [`Stage::MemorySlot`].
    pub fn map_ecam(&mut self, handoff: &Handoff) -> Result<(), Failure> {
        let at = machine::ECAM_START;
        let pieces = Layout::of(handoff).ecam();
        let mapping = Mapping::of_pieces(Fd::new(VcpuFds::RING), at, &pieces)
            .map_err(Failure::at(Stage::MemorySlot, at.raw()))?;
        self.give(at, &mapping, Access::ReadOnly)
    }

    fn map(
        &mut self,
        file: Fd,
        offset: u64,
        at: Gpa,
        len_bytes: u64,
        access: Access,
    ) -> Result<(), Failure> {
        let mapping = Mapping::new(file, offset, at, len_bytes, access)
            .map_err(Failure::at(Stage::MemorySlot, at.raw()))?;
        self.give(at, &mapping, access)
    }

    fn give(&mut self, at: Gpa, mapping: &Mapping, access: Access) -> Result<(), Failure> {
        let is_read_only = access == Access::ReadOnly;
        self.vm
            .set_memory(self.next, at, mapping, is_read_only)
            .map_err(Failure::at(Stage::MemorySlot, at.raw()))?;
        self.next += 1;
        Ok(())
    }
}

/// Tells KVM of every VFIO device: the device's descriptor is to be kept open.
///
/// # Errors
/// [`Stage::KvmVfio`].
pub fn add_devices(vm: Vm, handoff: &Handoff, fds: VcpuFds) -> Result<Option<KvmVfio>, Failure> {
    if handoff.function_count == 0 {
        return Ok(None);
    }
    let kvm_vfio = vm
        .create_kvm_vfio()
        .map_err(Failure::at(Stage::KvmVfio, 0))?;
    if Some(kvm_vfio.fd().number()) != fds.kvm_vfio() {
        return Err(Failure::new(
            Stage::KvmVfio,
            u64::from(kvm_vfio.fd().number()),
        ));
    }
    for index in 0..handoff.function_count {
        kvm_vfio
            .add_device(Fd::new(fds.device(index)))
            .map_err(Failure::at(Stage::KvmVfio, u64::from(index)))?;
    }
    Ok(Some(kvm_vfio))
}

/// Ties every vector's eventfd to its interrupt; no interrupt has a route yet.
///
/// # Errors
/// [`Stage::Irqfd`].
pub fn add_vectors(vm: Vm, handoff: &Handoff, fds: VcpuFds) -> Result<(), Failure> {
    for vector in 0..handoff.vector_count() {
        vm.set_irqfd(Fd::new(fds.vector(vector)), vector)
            .map_err(Failure::at(Stage::Irqfd, u64::from(vector)))?;
    }
    Ok(())
}

/// Creates the vCPUs; the first one stands at `entry`, the others wait for it.
///
/// # Errors
/// [`Stage::Vcpu`].
pub fn create_vcpus(
    kvm: Kvm,
    vm: Vm,
    handoff: &Handoff,
    fds: VcpuFds,
    entry: Entry,
) -> Result<[Option<Vcpu>; MAX_VCPUS], Failure> {
    let supported = kvm.supported_cpuid().map_err(Failure::at(Stage::Vcpu, 0))?;
    let mut vcpus = [None; MAX_VCPUS];
    for (place, index) in vcpus.iter_mut().zip(0..handoff.vcpu_count) {
        let fault = || Failure::at(Stage::Vcpu, u64::from(index));
        let fd = vm.create_vcpu(index).map_err(fault())?;
        if fd != Fd::new(fds.vcpu(index)) {
            return Err(Failure::new(Stage::Vcpu, u64::from(index)));
        }
        let vcpu = vm.vcpu(fd).map_err(fault())?;
        vcpu.use_host_clock().map_err(fault())?;
        let mut cpuid = guest_cpuid(supported.entries(), index, handoff.vcpu_count)
            .ok_or(Failure::new(Stage::Vcpu, u64::from(index)))?;
        vcpu.set_cpuid(&mut cpuid).map_err(fault())?;
        for (msr, value) in MSRS {
            if !vcpu.set_msr(msr, value).map_err(fault())? {
                return Err(Failure::new(Stage::Vcpu, u64::from(index)));
            }
        }
        if index == 0 {
            let reset = vcpu.sregs().map_err(fault())?;
            vcpu.set_sregs(&mut sregs(entry, &reset)).map_err(fault())?;
            vcpu.set_regs(&mut regs(entry)).map_err(fault())?;
        }
        *place = Some(vcpu);
    }
    Ok(vcpus)
}

/// Has KVM keep what the guest writes to ports that nobody waits for.
///
/// # Errors
/// [`Stage::Capability`].
pub fn keep_port_writes(
    kvm: Kvm,
    vm: Vm,
    vcpus: &[Option<Vcpu>; MAX_VCPUS],
) -> Result<KeptWrites, Failure> {
    let fault = || Failure::at(Stage::Capability, u64::from(COALESCED_MMIO));
    let page = kvm.check_extension(COALESCED_MMIO).map_err(fault())?;
    let [Some(first), ..] = vcpus else {
        return Err(fault()(Errno::NONE));
    };
    let kept = Vm::kept_writes(*first, page).ok_or(fault()(Errno::NONE))?;
    for (first, last) in KEPT {
        vm.keep_port_writes(first, last).map_err(fault())?;
    }
    Ok(kept)
}

/// Puts together what the vCPU threads share, and starts all but the first: they wait.
///
/// # Errors
/// [`Stage::Thread`].
pub fn start_threads(
    handoff: &'static Handoff,
    ring: VcpuSide,
    vm: Vm,
    vcpus: [Option<Vcpu>; MAX_VCPUS],
    kept: KeptWrites,
    start: StartPage,
) -> Result<&'static Guest, Failure> {
    let routes = Routes::new().map_err(Failure::at(Stage::Thread, 0))?;
    let guest = forever(Guest {
        handoff,
        ring,
        vm,
        vcpus,
        routes: Spin::new(routes),
        kept,
        uart: Spin::new(Uart::default()),
        start,
    });
    let guest: &'static Guest = guest.map_err(Failure::at(Stage::Thread, 0))?;
    for index in 1..handoff.vcpu_count {
        spawn(run_vcpu, guest, index as usize, THREAD_STACK_BYTES)
            .map_err(Failure::at(Stage::Thread, u64::from(index)))?;
    }
    Ok(guest)
}

/// Sends `report` to the supervisor: whether it was taken.
#[must_use]
pub fn send(report: &Report) -> bool {
    let bytes = report_bytes(*report);
    write(Fd::new(VcpuFds::CONTROL), &bytes) == Ok(bytes.len())
}
