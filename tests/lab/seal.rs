//! The DMA map of a running guest cannot be changed: tried from every descriptor of every process, and from outside.
//!
//! UNSAFETY: raw ioctls, because the attack is to make calls that no library of ours offers.
#![expect(unsafe_code, reason = "an attacker makes raw ioctls")]

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::{
    guest::{Guest, GuestFile},
    host,
    small::assert_nvme,
};

/// Calls that would change what a device can reach: name, number, and an argument that asks for one page at an
/// address where the guest has nothing. *Source:* include/uapi/linux/{vfio,iommufd}.h (v6.12).
const CHANGES: [(&str, u64, [u64; 8]); 9] = [
    // argsz 32 | flags READ|WRITE, vaddr, iova, size
    (
        "VFIO_IOMMU_MAP_DMA",
        0x3B71,
        [32 | 3 << 32, 0, FREE_IOVA, 4096, 0, 0, 0, 0],
    ),
    // argsz 24, flags UNMAP_ALL
    (
        "VFIO_IOMMU_UNMAP_DMA",
        0x3B72,
        [24 | 2 << 32, 0, 0, 0, 0, 0, 0, 0],
    ),
    ("VFIO_GROUP_UNSET_CONTAINER", 0x3B69, [0; 8]),
    // size 4, id 1
    ("IOMMU_DESTROY", 0x3B80, [8 | 1 << 32, 0, 0, 0, 0, 0, 0, 0]),
    ("IOMMU_IOAS_ALLOC", 0x3B81, [12, 0, 0, 0, 0, 0, 0, 0]),
    // size 40, flags FIXED|READ|WRITE; ioas 1; user_va; length; iova
    (
        "IOMMU_IOAS_MAP",
        0x3B85,
        [40 | 7 << 32, 1, 0, 4096, FREE_IOVA, 0, 0, 0],
    ),
    // size 24, ioas 1; iova 0, all of it
    (
        "IOMMU_IOAS_UNMAP",
        0x3B86,
        [24 | 1 << 32, 0, u64::MAX, 0, 0, 0, 0, 0],
    ),
    // size 40, flags; ioas 1; fd 0; start; length; iova
    (
        "IOMMU_IOAS_MAP_FILE",
        0x3B8F,
        [40 | 7 << 32, 1, 0, 4096, FREE_IOVA, 0, 0, 0],
    ),
    // size 16, dst ioas 1, src ioas 1
    (
        "IOMMU_IOAS_COPY",
        0x3B83,
        [40 | 7 << 32, 1 | 1 << 32, 4096, FREE_IOVA, 0, 0, 0, 0],
    ),
];

/// An address where no guest of these tests has RAM.
const FREE_IOVA: u64 = 0xA000_0000;

/// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`.
const ATTACH: u64 = 0x3B77;

fn call(fd: &OwnedFd, request: u64, words: &mut [u64; 8]) -> io::Result<()> {
    // SAFETY: the argument is 64 bytes, more than any of the calls reads or writes.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, words.as_mut_ptr()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Takes a copy of every descriptor of a process: more than its owner could do from inside.
fn stolen(pid: u32) -> Vec<(PathBuf, OwnedFd)> {
    let pid_number = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let pidfd = pidfd_open(pid_number, PidfdFlags::empty()).unwrap();
    fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let number = entry.file_name().to_str().unwrap().parse().unwrap();
            let fd = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).unwrap();
            (fs::read_link(entry.path()).unwrap(), fd)
        })
        .collect()
}

/// Tries everything on every descriptor of the three processes; fails if anything works.
fn attack(guest: &Guest) {
    let mut tried = 0;
    for pid in [
        guest.pid(),
        guest.child_pid("narrows-vcpu"),
        guest.child_pid("narrows-device"),
    ] {
        for (target, fd) in stolen(pid) {
            let text = target.to_string_lossy().into_owned();
            let is_handle = text == "/dev/vfio/vfio" || text == "/dev/iommu" || is_group(&text);
            assert!(!is_handle, "process {pid} still holds {text}");
            for (name, request, argument) in CHANGES {
                let mut words = argument;
                let result = call(&fd, request, &mut words);
                assert!(result.is_err(), "{name} worked on {text} of process {pid}");
                tried += 1;
            }
        }
    }
    assert!(
        tried > 9 * 10,
        "only {tried} calls were tried: were the descriptors found?"
    );
}

fn is_group(target: &str) -> bool {
    target
        .strip_prefix("/dev/vfio/")
        .is_some_and(|rest| rest.parse::<u32>().is_ok())
}

fn start(name: &str, interface: &str) -> Guest {
    let mut guest = GuestFile::small(name, "sleep:8,nvme")
        .key(interface)
        .device(&host::nvme(0))
        .start();
    guest.wait_for("GUEST init=");
    guest
}

/// The guest's own DMA goes on undisturbed after the attack.
fn finish(guest: Guest) {
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(0), "{}", transcript.text());
    assert_nvme(&transcript, 0);
    host::assert_returned(&host::nvme(0));
}

#[test]
#[ignore = "needs a lab host"]
fn no_descriptor_of_any_process_changes_the_map_by_type1() {
    let guest = start("seal-type1", "interface = \"type1\"");
    attack(&guest);
    let link = fs::read_link(format!(
        "/sys/bus/pci/devices/{}/iommu_group",
        host::nvme(0)
    ))
    .unwrap();
    let group = PathBuf::from("/dev/vfio").join(link.file_name().unwrap());
    let open = OpenOptions::new().read(true).write(true).open(&group);
    assert_eq!(
        open.err().and_then(|e| e.raw_os_error()),
        Some(libc::EBUSY),
        "{}",
        group.display()
    );
    finish(guest);
}

#[test]
#[ignore = "needs a lab host"]
fn no_descriptor_of_any_process_changes_the_map_by_iommufd() {
    let guest = start("seal-iommufd", "interface = \"iommufd\"");
    attack(&guest);
    // A new context cannot take the device over.
    let folder = format!("/sys/bus/pci/devices/{}/vfio-dev", host::nvme(0));
    let name = fs::read_dir(folder)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name();
    let node = PathBuf::from("/dev/vfio/devices").join(name);
    let own: OwnedFd = File::options()
        .read(true)
        .write(true)
        .open("/dev/iommu")
        .unwrap()
        .into();
    let device: OwnedFd = File::options()
        .read(true)
        .write(true)
        .open(node)
        .unwrap()
        .into();
    const BIND: u64 = 0x3B76;
    let iommufd = u64::try_from(own.as_raw_fd()).unwrap();
    // argsz 16, flags 0, iommufd, out_devid
    let bound = call(&device, BIND, &mut [16, iommufd, 0, 0, 0, 0, 0, 0]);
    assert!(bound.is_err(), "a second context took the device");
    // Whoever holds the device open keeps it from being given back.
    drop((device, own));
    // The device's own descriptor can name a page table by number, but only one of its own context. That has the one
    // address space and the table made from it: to attach to either is to stay where one is.
    let pid = guest.child_pid("narrows-device");
    for (target, fd) in stolen(pid) {
        if !target.starts_with("/dev/vfio/devices") {
            continue;
        }
        let accepted = (0..4096_u64)
            .filter(|id| call(&fd, ATTACH, &mut [12, *id, 0, 0, 0, 0, 0, 0]).is_ok())
            .count();
        assert!(
            accepted <= 2,
            "the device attached to {accepted} page tables"
        );
    }
    finish(guest);
}
