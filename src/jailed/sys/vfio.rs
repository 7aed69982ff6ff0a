//! VFIO devices: interrupts and reset.
//!
//! *Source:* `include/uapi/linux/vfio.h, struct vfio_irq_set and vfio_irq_info (v6.12)`.

use super::poll;
use super::syscall::{Errno, Fd, call, number};
use crate::handoff::MAX_VECTORS;

/// How many interrupts of a kind.
pub const VFIO_DEVICE_GET_IRQ_INFO: usize = 0x3B6D;
/// Where interrupts go.
pub const VFIO_DEVICE_SET_IRQS: usize = 0x3B6E;
/// Function-level reset.
pub const VFIO_DEVICE_RESET: usize = 0x3B6F;

const DATA_NONE: u32 = 1;
const DATA_EVENTFD: u32 = 1 << 2;
const ACTION_TRIGGER: u32 = 1 << 5;

/// The interrupts of a device.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irq {
    /// `VFIO_PCI_MSI_IRQ_INDEX`
    Msi = 1,
    /// `VFIO_PCI_MSIX_IRQ_INDEX`
    Msix = 2,
    /// `VFIO_PCI_ERR_IRQ_INDEX`
    Error = 3,
    /// `VFIO_PCI_REQ_IRQ_INDEX`
    Request = 4,
}

#[repr(C)]
struct IrqSet {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    eventfds: [u32; MAX_VECTORS],
}

/// Bytes of the fixed part of `IrqSet`.
const HEAD_BYTES: u32 = 20;
/// Bytes of the whole `IrqSet`.
const SET_BYTES: u32 = 1044;
/// Bytes of an `IrqInfo`.
const INFO_BYTES: u32 = 16;
const _: () = assert!(size_of::<IrqSet>() == SET_BYTES as usize);
const _: () = assert!(SET_BYTES as usize == HEAD_BYTES as usize + 4 * MAX_VECTORS);

#[repr(C)]
struct IrqInfo {
    argsz: u32,
    flags: u32,
    index: u32,
    count: u32,
}

const _: () = assert!(size_of::<IrqInfo>() == INFO_BYTES as usize);

/// Sends the interrupts from `start` on to the eventfds, one each; the first call arms those that are not yet.
///
/// # Errors
/// The errno; `EINVAL` for more eventfds than a function has vectors.
pub fn send_to(
    device: Fd,
    irq: Irq,
    start: u32,
    eventfds: impl ExactSizeIterator<Item = Fd>,
) -> Result<(), Errno> {
    let count = u32::try_from(eventfds.len()).unwrap_or(u32::MAX);
    if count as usize > MAX_VECTORS {
        return Err(Errno(22));
    }
    let mut set = IrqSet {
        argsz: SET_BYTES,
        flags: DATA_EVENTFD | ACTION_TRIGGER,
        index: irq as u32,
        start,
        count,
        eventfds: [0; MAX_VECTORS],
    };
    for (to, fd) in set.eventfds.iter_mut().zip(eventfds) {
        *to = fd.number();
    }
    set_irqs(device, &set)
}

/// Disarms all vectors of `irq`.
///
/// # Errors
/// The errno.
pub fn disarm(device: Fd, irq: Irq) -> Result<(), Errno> {
    let set = IrqSet {
        argsz: HEAD_BYTES,
        flags: DATA_NONE | ACTION_TRIGGER,
        index: irq as u32,
        start: 0,
        count: 0,
        eventfds: [0; MAX_VECTORS],
    };
    set_irqs(device, &set)
}

fn set_irqs(device: Fd, set: &IrqSet) -> Result<(), Errno> {
    let args = [
        device.number() as usize,
        VFIO_DEVICE_SET_IRQS,
        core::ptr::from_ref(set).addr(),
        0,
        0,
        0,
    ];
    // SAFETY: 1. the structure is as long as its `argsz` and holds at least `count` eventfds; the kernel reads it.
    match unsafe { call(number::IOCTL, args) }? {
        0 => Ok(()),
        // So many vectors are left on the host, fewer than asked for: none is armed.
        _ => Err(Errno::NO_SPACE),
    }
}

/// Whether the device has this interrupt.
#[must_use]
pub fn has(device: Fd, irq: Irq) -> bool {
    let mut info = IrqInfo {
        argsz: INFO_BYTES,
        flags: 0,
        index: irq as u32,
        count: 0,
    };
    let address = core::ptr::from_mut(&mut info).addr();
    let args = [
        device.number() as usize,
        VFIO_DEVICE_GET_IRQ_INFO,
        address,
        0,
        0,
        0,
    ];
    // SAFETY: 1. the structure is as long as its `argsz` and borrowed for the length of the call, which writes it.
    let is_known = unsafe { call(number::IOCTL, args) }.is_ok();
    is_known && info.count > 0
}

/// Resets the function; its configuration space is restored by the kernel.
///
/// The kernel only tries to lock the function, and somebody who reads its files in sysfs may hold that lock for a
/// moment: so it is asked again for a while.
///
/// # Errors
/// The errno.
pub fn reset(device: Fd) -> Result<(), Errno> {
    const TRIES: u32 = 100;
    const PAUSE_MS: u32 = 5;
    let args = [device.number() as usize, VFIO_DEVICE_RESET, 0, 0, 0, 0];
    for _ in 1..TRIES {
        // SAFETY: 1. the call takes no argument.
        match unsafe { call(number::IOCTL, args) } {
            Err(Errno::AGAIN) => {}
            other => return other.map(drop),
        }
        // The time limit is the point; how the sleep ends says nothing.
        core::hint::black_box(poll::wait(&mut [], Some(PAUSE_MS)).is_err());
    }
    // SAFETY: 1. the call takes no argument.
    unsafe { call(number::IOCTL, args) }.map(drop)
}

#[cfg(test)]
mod vfio_test {
    use core::mem::offset_of;

    use vfio_bindings::bindings::vfio as abi;

    use super::*;

    #[test]
    fn structures_and_numbers_are_the_kernels() {
        assert_eq!(
            offset_of!(IrqSet, argsz),
            offset_of!(abi::vfio_irq_set, argsz)
        );
        assert_eq!(
            offset_of!(IrqSet, flags),
            offset_of!(abi::vfio_irq_set, flags)
        );
        assert_eq!(
            offset_of!(IrqSet, index),
            offset_of!(abi::vfio_irq_set, index)
        );
        assert_eq!(
            offset_of!(IrqSet, start),
            offset_of!(abi::vfio_irq_set, start)
        );
        assert_eq!(
            offset_of!(IrqSet, count),
            offset_of!(abi::vfio_irq_set, count)
        );
        assert_eq!(
            offset_of!(IrqSet, eventfds),
            offset_of!(abi::vfio_irq_set, data)
        );
        assert_eq!(size_of::<abi::vfio_irq_set>(), HEAD_BYTES as usize);
        assert_eq!(
            offset_of!(IrqInfo, flags),
            offset_of!(abi::vfio_irq_info, flags)
        );
        assert_eq!(
            offset_of!(IrqInfo, index),
            offset_of!(abi::vfio_irq_info, index)
        );
        assert_eq!(
            offset_of!(IrqInfo, count),
            offset_of!(abi::vfio_irq_info, count)
        );
        assert_eq!(size_of::<abi::vfio_irq_info>(), INFO_BYTES as usize);
        assert_eq!(DATA_NONE, abi::VFIO_IRQ_SET_DATA_NONE);
        assert_eq!(DATA_EVENTFD, abi::VFIO_IRQ_SET_DATA_EVENTFD);
        assert_eq!(ACTION_TRIGGER, abi::VFIO_IRQ_SET_ACTION_TRIGGER);
        assert_eq!(Irq::Msi as u32, abi::VFIO_PCI_MSI_IRQ_INDEX);
        assert_eq!(Irq::Msix as u32, abi::VFIO_PCI_MSIX_IRQ_INDEX);
        assert_eq!(Irq::Error as u32, abi::VFIO_PCI_ERR_IRQ_INDEX);
        assert_eq!(Irq::Request as u32, abi::VFIO_PCI_REQ_IRQ_INDEX);
        let number = |nr: u32| usize::from(abi::VFIO_TYPE) << 8 | (abi::VFIO_BASE + nr) as usize;
        assert_eq!(number(9), VFIO_DEVICE_GET_IRQ_INFO);
        assert_eq!(number(10), VFIO_DEVICE_SET_IRQS);
        assert_eq!(number(11), VFIO_DEVICE_RESET);
    }
}
