//! The DMA map of a running guest cannot be changed: tried from every descriptor of every process, and from outside.
//!
//! UNSAFETY: raw ioctls, because the attack is to make calls that no library of ours offers.
#![expect(unsafe_code, reason = "an attacker makes raw ioctls")]

use std::{
    fs::{self, OpenOptions},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use iommu::{
    bind::{Binding, VFIO_PCI},
    sysfs::SysRoot,
};
use rustix::{
    fs::MemfdFlags,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

use crate::{
    attack::{Attacker, Canary, GuestRam, TARGET, with_edu},
    guest::{Guest, GuestFile},
    host,
    small::assert_nvme,
};

/// An address where no guest of these tests has RAM, and the pages after it.
const FREE_IOVA: u64 = 0xA000_0000;
const PAGE: u64 = 4096;

/// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`.
const ATTACH: u64 = 0x3B77;
/// `VFIO_DEVICE_DETACH_IOMMUFD_PT`.
const DETACH: u64 = 0x3B78;

/// A call: name, number, argument.
type Call = (&'static str, u64, [u64; 8]);

/// A page and a file of the attacker's own, which is what an attacker would map.
struct Own {
    page: Canary,
    file: OwnedFd,
}

impl Own {
    fn new() -> Self {
        let file = rustix::fs::memfd_create("seal", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, PAGE).unwrap();
        Self {
            page: Canary::new(1, 0x5E),
            file,
        }
    }

    /// Calls on a container of type 1 that would change what a device can reach.
    /// *Source:* include/uapi/linux/vfio.h (v6.12).
    fn type1_changes(&self) -> [Call; 2] {
        [
            // argsz 32 | flags READ|WRITE, vaddr, iova, size
            (
                "VFIO_IOMMU_MAP_DMA",
                0x3B71,
                [
                    32 | 3 << 32,
                    self.page.address(),
                    FREE_IOVA,
                    PAGE,
                    0,
                    0,
                    0,
                    0,
                ],
            ),
            // argsz 24 | flags UNMAP_ALL
            (
                "VFIO_IOMMU_UNMAP_DMA",
                0x3B72,
                [24 | 2 << 32, 0, 0, 0, 0, 0, 0, 0],
            ),
        ]
    }

    /// Those on a context of iommufd, whose first object is 1. *Source:* include/uapi/linux/iommufd.h (v6.13).
    fn iommufd_changes(&self) -> [Call; 6] {
        let file = u64::try_from(self.file.as_raw_fd()).unwrap();
        [
            // size 12, flags, out id
            ("IOMMU_IOAS_ALLOC", 0x3B81, [12, 0, 0, 0, 0, 0, 0, 0]),
            // size 40 | flags FIXED|READ|WRITE; ioas 1; user_va; length; iova
            (
                "IOMMU_IOAS_MAP",
                0x3B85,
                [
                    40 | 7 << 32,
                    1,
                    self.page.address(),
                    PAGE,
                    FREE_IOVA,
                    0,
                    0,
                    0,
                ],
            ),
            // size 40 | flags; ioas 1 | fd; start; length; iova
            (
                "IOMMU_IOAS_MAP_FILE",
                0x3B8F,
                [
                    40 | 7 << 32,
                    1 | file << 32,
                    0,
                    PAGE,
                    FREE_IOVA + PAGE,
                    0,
                    0,
                    0,
                ],
            ),
            // size 40 | flags; dst ioas 1 | src ioas 1; length; dst iova; src iova
            (
                "IOMMU_IOAS_COPY",
                0x3B83,
                [
                    40 | 7 << 32,
                    1 | 1 << 32,
                    PAGE,
                    FREE_IOVA + 2 * PAGE,
                    FREE_IOVA,
                    0,
                    0,
                    0,
                ],
            ),
            // size 24 | ioas 1; iova 0, all of it
            (
                "IOMMU_IOAS_UNMAP",
                0x3B86,
                [24 | 1 << 32, 0, u64::MAX, 0, 0, 0, 0, 0],
            ),
            // size 8 | id 1
            ("IOMMU_DESTROY", 0x3B80, [8 | 1 << 32, 0, 0, 0, 0, 0, 0, 0]),
        ]
    }
}

/// On a group.
const UNSET_CONTAINER: Call = ("VFIO_GROUP_UNSET_CONTAINER", 0x3B69, [0; 8]);
/// argsz 8, flags
const DETACH_CALL: Call = (
    "VFIO_DEVICE_DETACH_IOMMUFD_PT",
    DETACH,
    [8, 0, 0, 0, 0, 0, 0, 0],
);

fn call(fd: &OwnedFd, request: u64, words: &mut [u64; 8]) -> io::Result<()> {
    // SAFETY: the argument is 64 bytes, more than any of the calls reads or writes.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, words.as_mut_ptr()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Takes a copy of every descriptor of a process, with its number and what it is of: more than its owner could do from
/// inside.
pub(crate) fn stolen(pid: u32) -> Vec<(u64, PathBuf, OwnedFd)> {
    let pid_number = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let pidfd = pidfd_open(pid_number, PidfdFlags::empty()).unwrap();
    fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
            let foreign = i32::try_from(number).unwrap();
            let fd = pidfd_getfd(&pidfd, foreign, PidfdGetfdFlags::empty()).unwrap();
            (number.into(), fs::read_link(entry.path()).unwrap(), fd)
        })
        .collect()
}

/// Tries everything on every descriptor of the three processes; fails if anything works. Not to detach the device by its
/// own descriptor, which works: see `device_that_is_detached_reaches_nothing`.
fn attack(guest: &Guest) {
    let own = Own::new();
    let mut changes = vec![UNSET_CONTAINER];
    changes.extend(own.type1_changes());
    changes.extend(own.iommufd_changes());
    let mut tried = 0;
    for pid in [
        guest.pid(),
        guest.keeper_pid(),
        guest.child_pid("narrows-vcpu"),
        guest.child_pid("narrows-device"),
    ] {
        for (_, target, fd) in stolen(pid) {
            let text = target.to_string_lossy().into_owned();
            let is_handle = text == "/dev/vfio/vfio" || text == "/dev/iommu" || is_group(&text);
            assert!(!is_handle, "process {pid} still holds {text}");
            let is_device = text.starts_with(DEVICES);
            for (name, request, argument) in
                changes.iter().chain((!is_device).then_some(&DETACH_CALL))
            {
                let (request, mut words) = (*request, *argument);
                let result = call(&fd, request, &mut words);
                assert!(result.is_err(), "{name} worked on {text} of process {pid}");
                tried += 1;
            }
        }
    }
    assert!(
        tried > 10 * changes.len(),
        "only {tried} calls were tried: were the descriptors found?"
    );
}

/// Where the devices of iommufd are.
const DEVICES: &str = "/dev/vfio/devices";

/// Fails unless these calls work on this descriptor, in this order.
fn assert_work(fd: &OwnedFd, calls: &[Call]) {
    for (name, request, argument) in calls {
        let mut words = *argument;
        let result = call(fd, *request, &mut words);
        assert!(result.is_ok(), "the control failed: {name}: {result:?}");
    }
}

fn open(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    Ok(file.into())
}

fn group_of(bdf: &str) -> PathBuf {
    let link = fs::read_link(format!("/sys/bus/pci/devices/{bdf}/iommu_group")).unwrap();
    PathBuf::from("/dev/vfio").join(link.file_name().unwrap())
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
    let group = group_of(&host::nvme(0));
    assert_eq!(
        open(&group).err().and_then(|e| e.raw_os_error()),
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
    let own = open("/dev/iommu").unwrap();
    let device = open(node).unwrap();
    const BIND: u64 = 0x3B76;
    let iommufd = u64::try_from(own.as_raw_fd()).unwrap();
    // argsz 16, flags 0, iommufd, out_devid
    let bound = call(&device, BIND, &mut [16, iommufd, 0, 0, 0, 0, 0, 0]);
    assert!(bound.is_err(), "a second context took the device");
    // Whoever holds the device open keeps it from being given back.
    drop((device, own));
    // The device's own descriptor can name a page table by number, but only one of its own context. That has the one
    // address space and the table made from it: to attach to either is to stay where one is.
    for fd in device_descriptors(&guest) {
        let accepted = attach_to_anything(&fd);
        assert!(
            accepted <= 2,
            "the device attached to {accepted} page tables"
        );
    }
    finish(guest);
}

/// Copies of D's descriptors of devices of iommufd.
fn device_descriptors(guest: &Guest) -> Vec<OwnedFd> {
    let all = stolen(guest.child_pid("narrows-device")).into_iter();
    let devices: Vec<OwnedFd> = all
        .filter(|(_, target, _)| target.starts_with(DEVICES))
        .map(|(.., fd)| fd)
        .collect();
    assert!(!devices.is_empty(), "D holds no device");
    devices
}

/// To how many page tables the device attaches, of all that may be.
fn attach_to_anything(device: &OwnedFd) -> usize {
    (0..4096_u64)
        .filter(|id| call(device, ATTACH, &mut [12, *id, 0, 0, 0, 0, 0, 0]).is_ok())
        .count()
}

/// Claim: who holds a device's descriptor can detach it from its page table (the kernel lets it), and wins nothing: it
/// then reaches no memory at all, and attached again the guest's only. Control: before, and attached again, its DMA
/// arrives.
#[test]
#[ignore = "needs a lab host"]
fn device_that_is_detached_reaches_nothing() {
    let mut guest = Attacker::start(&with_edu("seal-detach").key("interface = \"iommufd\""));
    let ram = GuestRam::of(&guest.guest);
    guest.enable(1);
    let write = |guest: &mut Attacker, byte: u8| {
        guest.edu_load(byte);
        guest.fill(TARGET, 0x44);
        guest.edu_out(TARGET, 0, 4096);
        ram.bytes(TARGET, 4096)
    };
    assert_eq!(write(&mut guest, 0x31), [0x31; 4096], "the control failed");
    let devices = device_descriptors(&guest.guest);
    for device in &devices {
        assert_work(device, &[DETACH_CALL]);
    }
    let outside = Canary::new(1, 0x77);
    assert_eq!(
        write(&mut guest, 0x32),
        [0x44; 4096],
        "detached, it writes RAM"
    );
    guest.edu_out(outside.physical(0), 0, 4096);
    assert!(
        outside.holds(0x77),
        "LEAK: detached, it writes the host's memory"
    );
    for device in &devices {
        let accepted = attach_to_anything(device);
        assert!((1..=2).contains(&accepted), "attached to {accepted}");
    }
    assert_eq!(write(&mut guest, 0x33), [0x33; 4096], "the control failed");
    guest.edu_out(outside.physical(0), 0, 4096);
    assert!(
        outside.holds(0x77),
        "LEAK: attached again, it writes the host's memory"
    );
    // Whoever holds the device open keeps it from being given back.
    drop(devices);
    guest.off();
}

/// Claim of the control alone: the calls that fail on a guest's descriptors work on a container that is open and not
/// sealed away, so they are the right ones.
#[test]
#[ignore = "needs a lab host"]
fn the_same_calls_work_on_an_open_container() {
    // VFIO_SET_IOMMU to type 1 version 2; VFIO_GROUP_SET_CONTAINER.
    const SET_IOMMU: u64 = 0x3B66;
    const TYPE1V2: libc::c_ulong = 3;
    const SET_CONTAINER: u64 = 0x3B68;
    let bdf = host::nvme(0);
    let root = SysRoot::default();
    let binding = Binding::bind(&root, bdf.parse().unwrap(), VFIO_PCI).unwrap();
    let container = open("/dev/vfio/vfio").unwrap();
    let group = open(group_of(&bdf)).unwrap();
    let number = u64::try_from(container.as_raw_fd()).unwrap();
    call(&group, SET_CONTAINER, &mut [number, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    // SAFETY: the argument is a number.
    let set = unsafe { libc::ioctl(container.as_raw_fd(), SET_IOMMU, TYPE1V2) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
    assert_work(&container, &Own::new().type1_changes());
    assert_work(&group, &[UNSET_CONTAINER]);
    drop((group, container));
    binding.restore(&root).unwrap();
    host::assert_returned(&bdf);
}

/// The same of iommufd. Detaching has its own test.
#[test]
#[ignore = "needs a lab host"]
fn the_same_calls_work_on_an_open_iommufd() {
    assert_work(&open("/dev/iommu").unwrap(), &Own::new().iommufd_changes());
}
