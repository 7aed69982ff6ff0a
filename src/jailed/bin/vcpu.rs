//! V: builds the guest, locks itself down, waits for the word to go, runs its vCPUs.
//!
//! UNSAFETY: `freestanding` holds symbols with fixed names and what runs before relocation.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "without libc, entry point and memory functions are ours"
)]

use jailed::handoff::{Ending, VcpuFds};
use jailed::lock::Lock;
use jailed::manifest::Role;
use jailed::stall::{self, Point};
use jailed::sys::syscall::{Fd, exit_group};
use jailed::vcpu::failure::Failure;
use jailed::vcpu::run::{Guest, run_vcpu};
use jailed::vcpu::{boot, registers, setup};

mod freestanding;

/// Runs after relocation; never returns.
///
/// On entry: the descriptors of [`jailed::handoff::VcpuFds`], no privilege. On exit of `build`: a guest that stands
/// before its first instruction, and a process that can do nothing but run it.
#[unsafe(no_mangle)]
extern "C" fn narrows_main() -> ! {
    match build() {
        Ok(guest) => {
            #[cfg(feature = "breakout")]
            {
                guest.start.wait_for_go();
                jailed::breakout::run_if_asked(Role::Vcpu, guest.handoff);
            }
            run_vcpu(guest, 0)
        }
        Err(failure) => {
            // Where the supervisor does not listen, the exit status must do.
            core::hint::black_box(setup::send(&failure.report()));
            exit_group(Ending::SetupFailed as u8)
        }
    }
}

/// Builds the guest.
fn build() -> Result<&'static Guest, Failure> {
    let handoff = setup::take_handoff()?;
    let fds = setup::check_descriptors(handoff)?;
    stall::at(handoff, Point::VcpuHandoff);
    let lock = Lock::begin(Role::Vcpu, handoff)?;
    let start = setup::map_start()?;
    let ring = setup::map_ring(handoff)?;
    start.reached(handoff, Point::VcpuRing);

    let (kvm, vm) = setup::create_vm(fds)?;
    start.reached(handoff, Point::VcpuVm);
    let mut slots = setup::Slots::new(vm);
    let mut ram = slots.map_ram(handoff)?;
    start.reached(handoff, Point::VcpuRam);
    let images = boot::Images {
        kernel: Fd::new(VcpuFds::KERNEL),
        initramfs: Fd::new(VcpuFds::INITRAMFS),
    };
    let entry = boot::load(&mut ram, handoff, images)?;
    registers::write_gdt(&mut ram, entry).map_err(boot::fill_failure)?;
    slots.map_images(handoff, fds)?;
    slots.map_bars(handoff, fds)?;
    slots.map_ecam(handoff)?;
    start.reached(handoff, Point::VcpuLoaded);

    setup::add_devices(vm, handoff, fds)?;
    setup::add_vectors(vm, handoff, fds)?;
    start.reached(handoff, Point::VcpuHooked);
    let vcpus = setup::create_vcpus(kvm, vm, handoff, fds, entry)?;

    let kept = setup::keep_port_writes(kvm, vm, &vcpus)?;

    let guest = setup::start_threads(handoff, ring, vm, vcpus, kept, start)?;
    start.reached(handoff, Point::VcpuThreads);
    lock.finish(handoff, start)?;
    start.reached(handoff, Point::VcpuLocked);
    Ok(guest)
}
