//! Ways to the guest's devices, to its VM and to the map of what a device reaches.

use super::{
    attempt::attempt,
    calls,
    tries::{Tries, at, judge, then},
};
use crate::manifest::Role;

/// An address where the guest of the harness has no memory.
const FREE: u64 = 0xA000_0000;
const PAGE: u64 = 4096;

/// A call's name is its number here, with the first eight words of its argument.
type Request = (usize, [u64; 8]);

/// Each request on the devices and on the parts of the VM, and the first one on every descriptor.
fn on_each(tries: &mut Tries<'_>, requests: &[Request]) {
    for fd in tries.devices().chain(tries.machine()) {
        for request in requests {
            on(tries, fd, *request);
        }
    }
    for fd in tries.descriptors() {
        for request in requests.iter().take(1) {
            on(tries, fd, *request);
        }
    }
}

fn on(tries: &mut Tries<'_>, fd: usize, (request, mut words): Request) {
    let place = words.as_mut_ptr().expose_provenance();
    tries.call(calls::IOCTL, [fd, request, place, 0, 0, 0]);
}

/// C04: the attacker's own memory put before the device. *Source:* `include/uapi/linux/{vfio,iommufd}.h` (v6.13).
pub(super) fn map_for_dma(tries: &mut Tries<'_>) {
    let own = [0_u8; 2 * 4096];
    let page = own.as_ptr().expose_provenance().next_multiple_of(4096) as u64;
    // IOMMU_IOAS_MAP: size 40 | fixed, read, write; address space 1; address; length; at
    let map = (0x3B85, [40 | 7 << 32, 1, page, PAGE, FREE, 0, 0, 0]);
    on_each(
        tries,
        &[
            // VFIO_IOMMU_MAP_DMA: argsz 32 | read and write; address; at; length
            (0x3B71, [32 | 3 << 32, page, FREE, PAGE, 0, 0, 0, 0]),
            map,
            // IOMMU_IOAS_MAP_FILE: the same, of a file
            (0x3B8F, [40 | 7 << 32, 1, 0, PAGE, FREE, 0, 0, 0]),
        ],
    );
    on_a_fresh_one(tries, &[map]);
}

/// One try with each request on a fresh context, as whoever can open one would make it.
fn on_a_fresh_one(tries: &mut Tries<'_>, requests: &[Request]) {
    const ALLOCATE: usize = 0x3B81;
    const READ_WRITE: usize = 2;
    for (request, words) in requests {
        let mut words = *words;
        tries.one(|| {
            let opened = attempt(
                calls::OPENAT,
                [calls::HERE, at("/dev/iommu\0"), READ_WRITE, 0, 0, 0],
            );
            then(opened, &[], |fd| {
                let mut new = [12_u32, 0, 0];
                let place = new.as_mut_ptr().expose_provenance();
                let made = attempt(calls::IOCTL, [fd, ALLOCATE, place, 0, 0, 0]);
                then(made, &[], |_| {
                    let place = words.as_mut_ptr().expose_provenance();
                    judge(attempt(calls::IOCTL, [fd, *request, place, 0, 0, 0]), &[])
                })
            })
        });
    }
}

/// C05: the guest's memory taken from before the device, or the device from its table.
pub(super) fn unmap(tries: &mut Tries<'_>) {
    // IOMMU_DESTROY: object 1
    let destroy = (0x3B80, [8 | 1 << 32, 0, 0, 0, 0, 0, 0, 0]);
    on_each(
        tries,
        &[
            // VFIO_IOMMU_UNMAP_DMA: all
            (0x3B72, [24 | 2 << 32, 0, 0, 0, 0, 0, 0, 0]),
            // IOMMU_IOAS_UNMAP: address space 1, all
            (0x3B86, [24 | 1 << 32, 0, u64::MAX, 0, 0, 0, 0, 0]),
            destroy,
            // VFIO_DEVICE_DETACH_IOMMUFD_PT
            (0x3B78, [8, 0, 0, 0, 0, 0, 0, 0]),
        ],
    );
    on_a_fresh_one(tries, &[destroy]);
}

/// C06: the device put before another table, by guessing.
pub(super) fn attach(tries: &mut Tries<'_>) {
    for device in tries.devices() {
        for table in 1..=16_u64 {
            let mut words = [12, table, 0, 0, 0, 0, 0, 0];
            let place = words.as_mut_ptr().expose_provenance();
            tries.call(calls::IOCTL, [device, 0x3B77, place, 0, 0, 0]);
        }
    }
}

/// C07: the attacker's own memory put into the guest.
pub(super) fn map_for_guest(tries: &mut Tries<'_>) {
    let own = [0_u8; 2 * 4096];
    let page = own.as_ptr().expose_provenance().next_multiple_of(4096) as u64;
    on_each(
        tries,
        &[
            // KVM_SET_USER_MEMORY_REGION: slot 31, at, length, address
            (0x4020_AE46, [31, FREE, PAGE, page, 0, 0, 0, 0]),
            // KVM_CREATE_GUEST_MEMFD: length
            (0xC040_AED4, [PAGE, 0, 0, 0, 0, 0, 0, 0]),
        ],
    );
}

/// C08: other parts of the VM. Routes of the VM's own interrupts are V's work, and not tried on the VM.
pub(super) fn machine_parts(tries: &mut Tries<'_>) {
    for fd in tries.machine() {
        for (request, words) in [
            // KVM_CREATE_DEVICE: kind 4, only a question
            (0xC00C_AEE0, [4, 1 << 32, 0, 0, 0, 0, 0, 0]),
            // KVM_CREATE_VCPU: number 63
            (0xAE41, [63, 0, 0, 0, 0, 0, 0, 0]),
            // KVM_IRQFD: descriptor none
            (0x4020_AE76, [0xFFFF_FFFF, 0, 0, 0, 0, 0, 0, 0]),
            // KVM_IOEVENTFD: any value, at, 4 bytes, descriptor none
            (0x4040_AE79, [0, FREE, 4 | 0xFFFF_FFFF << 32, 0, 0, 0, 0, 0]),
            // KVM_GET_MP_STATE
            (0x8004_AE98, [0; 8]),
        ] {
            let mut words: [u64; 8] = words;
            let is_number = request == 0xAE41;
            let place = if is_number {
                63
            } else {
                words.as_mut_ptr().expose_provenance()
            };
            tries.call_or(
                calls::IOCTL,
                [fd, request, place, 0, 0, 0],
                &[calls::BAD_FD],
            );
        }
    }
}

/// C14: other numbers for descriptors, which a filter that goes by numbers would let through.
pub(super) fn renumbered(tries: &mut Tries<'_>) {
    const TO: usize = 900;
    const DUPLICATE: usize = 0;
    let fd = match tries.role() {
        Role::Vcpu => tries.machine().next(),
        Role::Device => tries.devices().next(),
    };
    let fd = fd.unwrap_or(Tries::first_descriptor());
    tries.call(calls::DUP, [fd, 0, 0, 0, 0, 0]);
    tries.call(calls::DUP2, [fd, TO, 0, 0, 0, 0]);
    tries.call(calls::DUP3, [fd, TO, 0, 0, 0, 0]);
    tries.call(calls::FCNTL, [fd, DUPLICATE, 0, 0, 0, 0]);
    tries.call(calls::CLOSE, [fd, 0, 0, 0, 0, 0]);
    tries.call(calls::CLOSE_RANGE, [fd, fd, 0, 0, 0, 0]);
}

/// C21: registers of the device beyond those that D has to reach. Where the kernel would go on to the device, it finds
/// that there is nothing to write, or no place for what it read.
pub(super) fn other_registers(tries: &mut Tries<'_>) {
    let handoff = tries.handoff();
    let offset = |value: u64| usize::try_from(value).unwrap_or(calls::NONE);
    for (device, facts) in tries.devices().zip(handoff.functions()) {
        let mut access = |call, length, at| {
            tries.call_or(call, [device, 0, length, offset(at), 0, 0], &[calls::FAULT]);
        };
        let config = facts.config_offset;
        // Status and BARs, capabilities, behind the end.
        for at in [0, 6, 0x10, 0x34, 0x40, 0x100, facts.config_bytes] {
            for length in [1, 2, 4] {
                access(calls::PWRITE64, length, config + at);
            }
        }
        // The command register by another width, and its second byte alone.
        access(calls::PWRITE64, 4, config + 4);
        access(calls::PWRITE64, 1, config + 5);
        for bar in facts.bars.iter().filter(|bar| bar.span_count > 0) {
            access(calls::PREAD64, 4, bar.region_offset + bar.spans[0].offset);
        }
        // ROM, VGA and the first region that a driver adds, by VFIO's numbering of 2^40 bytes each.
        for region in [6_u64, 8, 9] {
            access(calls::PREAD64, 4, region << 40);
        }
    }
}

/// C22: interrupts beyond the vectors: other kinds, too many, fired by hand.
pub(super) fn other_interrupts(tries: &mut Tries<'_>) {
    const SET_IRQS: usize = 0x3B6E;
    const NO_DATA_TRIGGER: u32 = 1 | 1 << 5;
    const NO_DATA_MASK: u32 = 1 | 1 << 3;
    #[repr(C)]
    struct Set {
        words: [u32; 5],
    }
    for device in tries.devices() {
        for words in [
            [20, NO_DATA_TRIGGER, 0, 0, 1],
            [20, NO_DATA_MASK, 0, 0, 1],
            [20, NO_DATA_TRIGGER, 2, 0, 4096],
            [20, NO_DATA_TRIGGER, 2, u32::MAX, 2],
            [20, NO_DATA_TRIGGER, 77, 0, 1],
        ] {
            let set = Set { words };
            let place = core::ptr::from_ref(&set).expose_provenance();
            tries.one(|| {
                judge(
                    attempt(calls::IOCTL, [device, SET_IRQS, place, 0, 0, 0]),
                    &[],
                )
            });
        }
    }
}
