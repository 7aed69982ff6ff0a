//! The moments of V's and D's set-up. Each is told to the keeper by its place in [`POINTS`], for the case that the next one
//! does not come; and the lab's tests hold a process at one of them, to kill it there.
//!
//! Without the feature `breakout` [`at`] is empty. With it, `narrows.stall=v:ram` among the words of the guest's command
//! line has V spin for ever once RAM is mapped. It spins, since that needs no system call that a filter would have to allow.

use crate::handoff::Handoff;

/// A moment of the set-up. The name says what was done last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// V has its facts, and its descriptors are those of its list.
    VcpuHandoff,
    /// V has mapped the ring.
    VcpuRing,
    /// V has created the VM.
    VcpuVm,
    /// V has mapped RAM.
    VcpuRam,
    /// V has loaded the kernel and mapped images and BARs.
    VcpuLoaded,
    /// V has hooked devices and interrupts.
    VcpuHooked,
    /// V has created the vCPUs and their threads.
    VcpuThreads,
    /// V has its last filter and waits for the word to go.
    VcpuLocked,
    /// D has its facts, and its descriptors are those of its list.
    DeviceHandoff,
    /// D has mapped the ring.
    DeviceRing,
    /// D has built a function's model.
    DeviceFunction,
    /// D's watcher runs.
    DeviceWatcher,
    /// D has its last filter and waits for the word to go.
    DeviceLocked,
}

/// Every point with its name: the process, and the moment.
pub const POINTS: [(Point, &str); 13] = [
    (Point::VcpuHandoff, "v:handoff"),
    (Point::VcpuRing, "v:ring"),
    (Point::VcpuVm, "v:vm"),
    (Point::VcpuRam, "v:ram"),
    (Point::VcpuLoaded, "v:loaded"),
    (Point::VcpuHooked, "v:hooked"),
    (Point::VcpuThreads, "v:threads"),
    (Point::VcpuLocked, "v:locked"),
    (Point::DeviceHandoff, "d:handoff"),
    (Point::DeviceRing, "d:ring"),
    (Point::DeviceFunction, "d:function"),
    (Point::DeviceWatcher, "d:watcher"),
    (Point::DeviceLocked, "d:locked"),
];

// Every point has a row, at its own place.
const _: () = {
    let mut at = 0;
    while at < POINTS.len() {
        assert!(POINTS[at].0 as usize == at);
        at += 1;
    }
    assert!(POINTS.len() == Point::DeviceLocked as usize + 1);
};

/// Nothing.
#[cfg(not(feature = "breakout"))]
#[inline(always)]
pub const fn at(_: &Handoff, _: Point) {}

/// Spins for ever, if `point` is the one that the guest's command line names.
#[cfg(feature = "breakout")]
pub fn at(handoff: &Handoff, point: Point) {
    let words = handoff.cmdline.get(..handoff.cmdline_len as usize);
    let asked = words
        .unwrap_or_default()
        .split(|byte| *byte == b' ')
        .find_map(|word| word.strip_prefix(b"narrows.stall="));
    if let Some((_, name)) = POINTS.get(point as usize)
        && asked == Some(name.as_bytes())
    {
        loop {
            core::hint::spin_loop();
        }
    }
}
