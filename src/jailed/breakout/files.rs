//! Ways to the host's files: paths, handles, device nodes, mounts.

use super::{
    attempt::{attempt, peek},
    calls,
    record::Tried,
    tries::{Tries, at, judge, then},
    words::FILE,
};

const READ_ONLY: usize = 0;
const WRITE_ONLY: usize = 1;
const READ_WRITE: usize = 2;
const DIRECTORY: usize = 0x1_0000;

fn open(path: &str, flags: usize) -> Result<usize, crate::sys::syscall::Errno> {
    attempt(calls::OPENAT, [calls::HERE, at(path), flags, 0, 0, 0])
}

/// One try a path.
fn open_each(tries: &mut Tries<'_>, flags: usize, paths: &[&str]) {
    for path in paths {
        tries.call(calls::OPENAT, [calls::HERE, at(path), flags, 0, 0, 0]);
    }
}

/// A01: writing to the program that runs.
pub(super) fn own_program(tries: &mut Tries<'_>) {
    const WRITABLE: usize = 2;
    for path in ["/proc/self/exe\0", "/proc/1/exe\0"] {
        tries.call(calls::FACCESSAT, [calls::HERE, at(path), WRITABLE, 0, 0, 0]);
    }
}

/// A02: a folder left open, or the current one, as the way out.
pub(super) fn leaked_folder(tries: &mut Tries<'_>) {
    const UP: &str = "../../../../../../../../breakout-canary\0";
    for folder in core::iter::once(calls::HERE).chain(tries.descriptors()) {
        tries.call(calls::OPENAT, [folder, at(UP), READ_ONLY, 0, 0, 0]);
    }
}

/// A08: a file by its handle, without a path.
pub(super) fn by_handle(tries: &mut Tries<'_>) {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: u32,
        handle: [u8; 128],
    }
    let mut handle = Handle {
        bytes: 128,
        kind: 0,
        handle: [0; 128],
    };
    let place = core::ptr::from_mut(&mut handle).expose_provenance();
    let mut mount = 0_u32;
    let mount_place = core::ptr::from_mut(&mut mount).expose_provenance();
    tries.call(
        calls::NAME_TO_HANDLE_AT,
        [calls::HERE, at(FILE), place, mount_place, 0, 0],
    );
    let Some((kind, text)) = tries.canaries().handle else {
        return;
    };
    let mut given = Handle {
        bytes: 0,
        kind: u32::try_from(kind).unwrap_or(0),
        handle: [0; 128],
    };
    for (pair, byte) in text.as_bytes().chunks(2).zip(&mut given.handle) {
        let text = core::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(text, 16).unwrap_or(0);
        given.bytes += 1;
    }
    let place = core::ptr::from_mut(&mut given).expose_provenance();
    tries.call(
        calls::OPEN_BY_HANDLE_AT,
        [calls::HERE, place, READ_ONLY, 0, 0, 0],
    );
}

/// A09: a node of the host's disk.
pub(super) fn device_node(tries: &mut Tries<'_>) {
    const BLOCK_DEVICE: usize = 0o6_0600;
    const CHARACTER_DEVICE: usize = 0o2_0600;
    const LOOP_0: usize = 7 << 8;
    const MEMORY: usize = 1 << 8 | 1;
    for (path, kind, number) in [
        ("/tmp/breakout-disk\0", BLOCK_DEVICE, LOOP_0),
        ("/breakout-memory\0", CHARACTER_DEVICE, MEMORY),
    ] {
        tries.one(|| {
            let made = attempt(calls::MKNODAT, [calls::HERE, at(path), kind, number, 0, 0]);
            then(made, &[], |_| {
                judge(
                    attempt(calls::UNLINKAT, [calls::HERE, at(path), 0, 0, 0, 0]),
                    &[],
                )
            })
        });
    }
}

/// A11: the host's memory as a file.
pub(super) fn raw_memory(tries: &mut Tries<'_>) {
    open_each(
        tries,
        READ_ONLY,
        &[
            "/dev/mem\0",
            "/dev/port\0",
            "/proc/kcore\0",
            "/dev/cpu/0/msr\0",
        ],
    );
}

/// A12: where the kernel lies, and what it says.
pub(super) fn kernel_addresses(tries: &mut Tries<'_>) {
    const SIZE_BUFFER: usize = 10;
    for path in ["/proc/kallsyms\0", "/proc/modules\0"] {
        tries.one(|| {
            let mut text = [0_u8; 256];
            let place = text.as_mut_ptr().expose_provenance();
            then(open(path, READ_ONLY), &[], |fd| {
                then(
                    attempt(calls::READ, [fd, place, text.len(), 0, 0, 0]),
                    &[],
                    |have| {
                        let is_address = |c: u8| matches!(c, b'1'..=b'9' | b'a'..=b'f');
                        let digits = (0..have.min(16)).filter(|n| is_address(peek(place + n)));
                        if digits.count() == 0 {
                            Tried::Blocked(0)
                        } else {
                            Tried::Reached
                        }
                    },
                )
            })
        });
    }
    tries.call(calls::SYSLOG, [SIZE_BUFFER, 0, 0, 0, 0, 0]);
}

/// A30: what the host keeps in its own folders.
pub(super) fn host_files(tries: &mut Tries<'_>) {
    open_each(
        tries,
        READ_ONLY,
        &[
            FILE,
            "/etc/breakout-canary\0",
            "/var/log/breakout-canary\0",
            "/proc/self/mountinfo\0",
        ],
    );
}

/// A32: switches of the host's.
pub(super) fn writable_sys(tries: &mut Tries<'_>) {
    open_each(
        tries,
        WRITE_ONLY,
        &[
            "/sys/bus/pci/rescan\0",
            "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts\0",
            "/sys/kernel/mm/ksm/run\0",
            "/sys/power/state\0",
            "/sys/bus/pci/drivers_probe\0",
            "/sys/fs/cgroup/cgroup.procs\0",
            "/proc/sys/kernel/core_pattern\0",
            "/proc/sysrq-trigger\0",
        ],
    );
}

/// A34: mounts of one's own.
pub(super) fn mounts(tries: &mut Tries<'_>) {
    const CLONE: usize = 1;
    const DETACH: usize = 2;
    let kind = "tmpfs\0";
    let target = "/tmp/breakout\0";
    tries.one(|| {
        let mounted = attempt(calls::MOUNT, [at(kind), at(target), at(kind), 0, 0, 0]);
        then(mounted, &[], |_| {
            judge(
                attempt(calls::UMOUNT2, [at(target), DETACH, 0, 0, 0, 0]),
                &[],
            )
        })
    });
    tries.call(calls::FSOPEN, [at(kind), 0, 0, 0, 0, 0]);
    tries.call(calls::OPEN_TREE, [calls::HERE, at("/\0"), CLONE, 0, 0, 0]);
}

/// A36: a root of one's own, the first step out of one.
pub(super) fn change_root(tries: &mut Tries<'_>) {
    tries.call(calls::CHROOT, [at("/\0"), 0, 0, 0, 0, 0]);
}

/// A37: another process's root as the way out, by the name that the kernel gives it in every `/proc` (proc(5)).
pub(super) fn through_proc(tries: &mut Tries<'_>) {
    open_each(
        tries,
        READ_ONLY,
        &[
            "/proc/1/root/breakout-canary\0",
            "/proc/1/cwd/../breakout-canary\0",
            "/proc/self/root/breakout-canary\0",
        ],
    );
}

/// A45: which device nodes there are.
pub(super) fn device_inventory(tries: &mut Tries<'_>) {
    tries.one(|| {
        let mut names = [0_u8; 1024];
        let place = names.as_mut_ptr().expose_provenance();
        then(open("/dev\0", DIRECTORY), &[], |fd| {
            let listed = attempt(calls::GETDENTS64, [fd, place, names.len(), 0, 0, 0]);
            then(listed, &[], |have| match have {
                // Two entries of 24 bytes: an empty folder.
                0..=48 => Tried::Blocked(0),
                _ => Tried::Reached,
            })
        })
    });
    open_each(
        tries,
        READ_WRITE,
        &[
            "/dev/null\0",
            "/dev/ttyS0\0",
            "/dev/nvme0\0",
            "/dev/loop0\0",
        ],
    );
}

/// C01: any file.
pub(super) fn any_file(tries: &mut Tries<'_>) {
    open_each(
        tries,
        READ_ONLY,
        &["/etc/hostname\0", "/etc/profile\0", "/\0", ".\0"],
    );
}

/// C02: a VM of one's own.
pub(super) fn new_vm(tries: &mut Tries<'_>) {
    const CREATE_VM: usize = 0xAE01;
    tries.one(|| {
        then(open("/dev/kvm\0", READ_WRITE), &[], |fd| {
            judge(attempt(calls::IOCTL, [fd, CREATE_VM, 0, 0, 0, 0]), &[])
        })
    });
    for fd in tries.descriptors() {
        tries.call(calls::IOCTL, [fd, CREATE_VM, 0, 0, 0, 0]);
    }
}

/// C03: devices of one's own, and contexts for them.
pub(super) fn new_devices(tries: &mut Tries<'_>) {
    open_each(
        tries,
        READ_WRITE,
        &[
            "/dev/vfio/vfio\0",
            "/dev/iommu\0",
            "/dev/vfio/devices/vfio0\0",
            "/dev/vfio/devices/vfio1\0",
            "/dev/vfio/devices/vfio2\0",
        ],
    );
}
