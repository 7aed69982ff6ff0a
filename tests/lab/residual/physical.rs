//! All of the host's memory, searched for a word.
//!
//! UNSAFETY: memory is mapped from `/dev/mem` and read while anybody writes it.
#![expect(unsafe_code, reason = "the host's memory is reached by raw pointers")]

use std::{
    arch::asm,
    fs::{self, File},
    os::fd::AsRawFd,
    ptr,
};

use super::INVERSE;

const PAGE: usize = 4096;
/// A page with fewer copies than these may be the stack of who fills or searches.
const TRACE_WORDS: u64 = 8;

/// Where the word was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Pages that hold more of it than a stack does.
    pub(super) pages: Vec<u64>,
    /// Copies in these.
    pub(super) words: u64,
    /// How much was searched.
    pub(super) searched_bytes: u64,
}

/// Searches all of the host's memory: what is free, what processes and files have (the lab host's files are memory), and
/// the kernel's own.
pub(super) fn search() -> Found {
    let memory = File::open("/dev/mem").unwrap();
    let mut found = Found::default();
    for (start, end) in system_ram() {
        let piece = Piece::map(&memory, start, end);
        for page in 0..piece.len / PAGE {
            let words = count(piece.start.wrapping_add(page * PAGE));
            if words >= TRACE_WORDS {
                found.pages.push(start + (page * PAGE) as u64);
                found.words += words;
            }
        }
        found.searched_bytes += piece.len as u64;
    }
    found
}

/// The ranges of RAM, in whole pages. *Source:* `/proc/iomem`.
fn system_ram() -> Vec<(u64, u64)> {
    let text = fs::read_to_string("/proc/iomem").unwrap();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let ranges: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_suffix(" : System RAM"))
        .map(|range| range.split_once('-').unwrap())
        .map(|(start, last)| {
            let page = PAGE as u64;
            (
                number(start).next_multiple_of(page),
                (number(last) + 1) / page * page,
            )
        })
        .filter(|(start, end)| start < end)
        .collect();
    assert!(!ranges.is_empty(), "{text}");
    ranges
}

/// A piece of physical memory, mapped for reading.
struct Piece {
    start: *const u8,
    len: usize,
}

impl Piece {
    fn map(memory: &File, start: u64, end: u64) -> Self {
        let len = usize::try_from(end - start).unwrap();
        let offset = i64::try_from(start).unwrap();
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_SHARED,
                memory.as_raw_fd(),
                offset,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self {
            start: at.cast(),
            len,
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: nobody keeps a pointer into it.
        unsafe { libc::munmap(self.start.cast_mut().cast(), self.len) };
    }
}

/// How often the word is in a page. The loop is written out: the tests are built without optimization, and the host is
/// emulated.
fn count(page: *const u8) -> u64 {
    let mut hits = 0_u64;
    // SAFETY: the page is mapped, and is only read.
    unsafe {
        asm!(
            "not {word}",
            "2:",
            "cmp qword ptr [{at}], {word}",
            "jne 3f",
            "inc {hits}",
            "3:",
            "add {at}, 8",
            "cmp {at}, {end}",
            "jb 2b",
            "xor {word:e}, {word:e}",
            at = inout(reg) page => _,
            end = in(reg) page.wrapping_add(PAGE),
            word = inout(reg) INVERSE => _,
            hits = inout(reg) hits,
            options(nostack, readonly)
        );
    };
    hits
}
