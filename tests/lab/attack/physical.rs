//! Physical memory as the host knows it: where a page lies, and a page to be attacked.
//!
//! UNSAFETY: pages are mapped and read while a device may write them, which is the attack.
#![expect(
    unsafe_code,
    reason = "pages that devices write are reached by raw pointers"
)]

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::FileExt},
    ptr::{self, NonNull},
};

use crate::guest::Guest;

pub(crate) const PAGE: usize = 4096;

/// The physical addresses of `count` pages of a process from address `at` on; `None` where it has none present.
///
/// *Source:* `Documentation/admin-guide/mm/pagemap.rst (v6.12)`.
fn frames_in(process: &str, at: u64, count: usize) -> Vec<Option<u64>> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    let map = File::open(format!("/proc/{process}/pagemap")).unwrap();
    let mut entries = vec![0; count * 8];
    map.read_exact_at(&mut entries, at / PAGE as u64 * 8)
        .unwrap();
    entries
        .chunks_exact(8)
        .map(|entry| u64::from_le_bytes(entry.try_into().unwrap()))
        .map(|entry| (entry & PRESENT != 0).then_some((entry & FRAME) * PAGE as u64))
        .collect()
}

/// The physical address of a page that a process has present; `None` where it has none there.
pub(crate) fn address_in(process: &str, at: u64) -> Option<u64> {
    frames_in(process, at, 1)[0]
}

/// A mapping of this process, unmapped when dropped.
#[derive(Debug)]
struct Mapped {
    start: NonNull<u8>,
    len: usize,
}

impl Mapped {
    fn new(len: usize, protection: i32, flags: i32, fd: i32) -> Self {
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, 0) };
        assert_ne!(
            start,
            libc::MAP_FAILED,
            "{}",
            std::io::Error::last_os_error()
        );
        let start = NonNull::new(start.cast()).unwrap();
        Self { start, len }
    }

    fn address(&self, offset: usize) -> u64 {
        assert!(offset < self.len);
        (self.start.addr().get() + offset) as u64
    }

    fn physical(&self, offset: usize) -> u64 {
        address_in("self", self.address(offset)).expect("the page is present")
    }

    fn frames(&self) -> Vec<u64> {
        let frames = frames_in("self", self.address(0), self.len / PAGE);
        let frames: Option<Vec<u64>> = frames.into_iter().collect();
        frames.expect("every page is present")
    }

    fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len);
        let mut bytes = vec![0; len];
        let from = self.start.as_ptr().wrapping_add(offset);
        // SAFETY: both are valid for so many bytes; of what a device writes meanwhile, any part may be copied.
        unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len) };
        bytes
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: nobody keeps a pointer into it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Memory of this process that is present and stays where it is: canaries.
#[derive(Debug)]
pub(crate) struct Canary(Mapped);

impl Canary {
    /// `pages` pages filled with `byte`.
    pub(crate) fn new(pages: usize, byte: u8) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_LOCKED | libc::MAP_POPULATE;
        let canary = Self(Mapped::new(pages * PAGE, protection, flags, -1));
        canary.fill(byte);
        canary
    }

    pub(crate) fn fill(&self, byte: u8) {
        // SAFETY: inside of the mapping.
        unsafe { self.0.start.as_ptr().write_bytes(byte, self.0.len) };
    }

    /// Where it is in this process.
    pub(crate) fn address(&self) -> u64 {
        self.0.address(0)
    }

    /// The physical address of page `index`.
    pub(crate) fn physical(&self, index: usize) -> u64 {
        self.0.physical(index * PAGE)
    }

    /// The bytes of page `index`.
    pub(crate) fn page(&self, index: usize) -> Vec<u8> {
        self.0.bytes(index * PAGE, PAGE)
    }

    /// The physical addresses of all pages.
    pub(crate) fn frames(&self) -> Vec<u64> {
        self.0.frames()
    }

    /// Whether every byte is still `byte`.
    pub(crate) fn holds(&self, byte: u8) -> bool {
        let start = self.0.start.as_ptr();
        // SAFETY: the first byte of the mapping.
        let first = unsafe { start.read_volatile() };
        // All are the same if each is what the one before it is. SAFETY: inside of the mapping.
        let order =
            unsafe { libc::memcmp(start.cast(), start.wrapping_add(1).cast(), self.0.len - 1) };
        first == byte && order == 0
    }
}

/// A guest's RAM as its keeper's file shows it: read-only, all of it present.
#[derive(Debug)]
pub(crate) struct GuestRam(Mapped);

impl GuestRam {
    /// Where RAM goes on above the hole. *Source:* `src/jailed/machine.rs`.
    const LOW_END: u64 = 0xC000_0000;
    const HIGH_START: u64 = 0x1_0000_0000;

    /// The RAM of a running guest.
    pub(crate) fn of(guest: &Guest) -> Self {
        Self::map(&Self::file_of(guest))
    }

    /// Its file, to be read and written.
    pub(crate) fn file_of(guest: &Guest) -> File {
        let folder = format!("/proc/{}/fd", guest.keeper_pid());
        let is_ram = |path: &std::path::PathBuf| {
            fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("memfd:narrows-ram"))
        };
        let path = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(is_ram)
            .expect("the keeper has the RAM file");
        File::options().read(true).write(true).open(path).unwrap()
    }

    /// A file that a guest's device reaches, an image for instance.
    pub(crate) fn map(file: &File) -> Self {
        let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        Self(Mapped::new(len, libc::PROT_READ, flags, file.as_raw_fd()))
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len as u64
    }

    /// The offset in the file of an address of the guest.
    pub(crate) fn offset(at: u64) -> u64 {
        if at < Self::LOW_END {
            at
        } else {
            at - Self::HIGH_START + Self::LOW_END
        }
    }

    fn index(at: u64) -> usize {
        usize::try_from(Self::offset(at)).unwrap()
    }

    /// The physical address of the guest's page at `gpa`.
    pub(crate) fn physical(&self, gpa: u64) -> u64 {
        self.0.physical(Self::index(gpa))
    }

    /// `len` bytes at `gpa`.
    pub(crate) fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        self.0.bytes(Self::index(gpa), len)
    }

    /// The physical addresses of all pages, in the order of the file.
    pub(crate) fn frames(&self) -> Vec<u64> {
        self.0.frames()
    }
}
