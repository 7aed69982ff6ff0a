//! What a process has used while it set a guest up and does not need while the guest runs: given back to the host.
//!
//! On entry: the process goes over to its loop, in which it sleeps. On exit: it can do all that it could; what it touches
//! again of code and constants comes from the page cache, where all guests of a host have them in common.

use std::{ffi::c_int, io};

use rustix::{
    mm::{Advice, madvise},
    process::getpid,
    thread::gettid,
};

const PAGE_BYTES: usize = 4096;

/// How deep below the frame the stack is looked at. The kernel keeps 128 MiB below the first stack free of anything else.
///
/// *Source:* `arch/x86/mm/mmap.c, SIZE_128M (v6.12)`.
const STACK_BYTES: usize = 1 << 20;

/// A kind of memory.
struct Row {
    /// How it is given back; `None` for what stays.
    give_back: Option<fn(&Thrift) -> io::Result<()>>,
    #[cfg_attr(not(test), expect(dead_code, reason = "for who reads the table"))]
    what: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "for who reads the table"))]
    why: &'static str,
}

const ROWS: [Row; 5] = [
    Row {
        give_back: Some(trim_heap),
        what: "free memory of the heap",
        why: "files, sysfs and plans were read into it, and most of that is freed",
    },
    Row {
        give_back: Some(leave_stack),
        what: "the first stack below the frame in use",
        why: "parsers and filters made it deep; nothing below the frame is ever read again",
    },
    Row {
        give_back: Some(leave_image),
        what: "code and constants",
        why: "most of it is for what is done before a guest runs; nothing can have changed it, so the file has it still",
    },
    Row {
        give_back: None,
        what: "data, and what relocation has written",
        why: "the file does not have it as it is: giving it back would lose it",
    },
    Row {
        give_back: None,
        what: "mappings of files, and stacks of other threads",
        why: "who made them unmaps them",
    },
];

/// What the process has to know of itself, from before a filter takes the calls away that tell.
#[derive(Debug)]
pub struct Thrift {
    /// Whole pages of the program's segments that nobody may write to: nor did relocation.
    unwritable: Vec<(usize, usize)>,
    is_first_thread: bool,
}

impl Thrift {
    /// Of the calling thread.
    #[must_use]
    pub fn new() -> Self {
        Self {
            unwritable: unwritable(),
            is_first_thread: gettid() == getpid(),
        }
    }

    /// Gives back what the table says, by `madvise` and `brk`.
    ///
    /// # Errors
    /// The errno of `madvise`; what is given back by then is, and all else is as it was.
    pub fn settle(&self) -> io::Result<()> {
        ROWS.iter()
            .filter_map(|row| row.give_back)
            .try_for_each(|give_back| give_back(self))
    }
}

impl Default for Thrift {
    fn default() -> Self {
        Self::new()
    }
}

/// Has the allocator keep one heap for all threads: a thread's own would outlast it.
pub fn keep_one_heap() {
    // SAFETY: it sets a number of the allocator, which locks itself meanwhile; older heaps stay as they are.
    let _is_known = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

fn trim_heap(_: &Thrift) -> io::Result<()> {
    // SAFETY: the allocator gives back what it has free, and locks itself meanwhile.
    let _is_any_given = unsafe { libc::malloc_trim(0) };
    Ok(())
}

/// Only the first thread's: below another's lies what is not its own.
#[inline(never)]
fn leave_stack(thrift: &Thrift) -> io::Result<()> {
    if !thrift.is_first_thread {
        return Ok(());
    }
    let here = 0_u8;
    let frame = std::ptr::from_ref(std::hint::black_box(&here)).addr() & !(PAGE_BYTES - 1);
    // This frame is shorter than a page, and so is that of the call below.
    let end = frame - 2 * PAGE_BYTES;
    match give_back(end - STACK_BYTES, STACK_BYTES) {
        // The stack is not as deep.
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => Ok(()),
        given => given,
    }
}

fn leave_image(thrift: &Thrift) -> io::Result<()> {
    let mut segments = thrift.unwritable.iter();
    segments.try_for_each(|(start, end)| give_back(*start, end - start))
}

fn unwritable() -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    // SAFETY: `note` is called before this returns, with `found` as its last argument.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut found).cast()) };
    found
}

/// Notes the segments of the first object, which is the program, and ends the walk.
///
/// # Safety
/// 1. `object` is what `dl_iterate_phdr` passes, `found` a `Vec<(usize, usize)>` that nobody else uses.
unsafe extern "C" fn note(
    object: *mut libc::dl_phdr_info,
    _size_bytes: usize,
    found: *mut libc::c_void,
) -> c_int {
    // SAFETY: 1. is the caller's.
    let object = unsafe { object.read() };
    // SAFETY: 1. is the caller's.
    let found = unsafe { &mut *found.cast::<Vec<(usize, usize)>>() };
    let wide = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    for index in 0..usize::from(object.dlpi_phnum) {
        // SAFETY: 1. the table has so many entries.
        let segment = unsafe { object.dlpi_phdr.wrapping_add(index).read() };
        if segment.p_type != libc::PT_LOAD || segment.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = wide(object.dlpi_addr).wrapping_add(wide(segment.p_vaddr));
        // The last page might hold the beginning of another segment.
        let end = start.wrapping_add(wide(segment.p_filesz)) & !(PAGE_BYTES - 1);
        let start = start & !(PAGE_BYTES - 1);
        if start < end {
            found.push((start, end));
        }
    }
    1
}

fn give_back(start: usize, len_bytes: usize) -> io::Result<()> {
    let at = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: the callers name only pages that nobody reads again, or that the file has as they are.
    unsafe { madvise(at, len_bytes, Advice::LinuxDontNeed)? };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::process::{WaitOptions, waitpid};

    use super::*;

    /// Resident bytes of a mapping of this process by its line in smaps.
    fn resident(is_it: impl Fn(&str) -> bool) -> usize {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut all_kib, mut is_in) = (0, false);
        for line in smaps.lines() {
            let first = line.split(' ').next().unwrap();
            if !first.ends_with(':') {
                is_in = is_it(line);
            } else if let Some(kib) = line.strip_prefix("Rss:").filter(|_| is_in) {
                all_kib += kib.trim().trim_end_matches(" kB").parse::<usize>().unwrap();
            }
        }
        all_kib << 10
    }

    #[test]
    fn every_kind_of_memory_has_its_reason() {
        assert!(
            ROWS.iter()
                .all(|row| !row.what.is_empty() && !row.why.is_empty())
        );
    }

    #[test]
    fn only_what_nobody_writes_to_is_taken_for_code_and_constants() {
        static mut DATA: u64 = 7;
        let found = unwritable();
        let lies_in = |at: usize| {
            found
                .iter()
                .any(|(start, end)| (*start..*end).contains(&at))
        };
        assert!(lies_in((Thrift::new as fn() -> Thrift as *const ()).addr()));
        assert!(!lies_in((&raw const DATA).addr()));
        // A table of functions is written by relocation.
        assert!(!lies_in((&raw const ROWS_IN_PLACE).addr()));
        static ROWS_IN_PLACE: [Row; 5] = ROWS;
    }

    #[test]
    fn a_process_goes_on_with_less() {
        let program = fs::read_link("/proc/self/exe").unwrap();
        let program = program.to_str().unwrap().to_owned();
        let is_code = |line: &str| line.contains("r-xp") && line.ends_with(&program);
        let is_heap =
            |line: &str| line.ends_with("[heap]") || line.contains("rw-p 00000000 00:00 0");
        // Touched from end to end.
        let mut sum = 0_u64;
        for (start, end) in unwritable() {
            for at in (start..end).step_by(PAGE_BYTES) {
                let byte: *const u8 = std::ptr::with_exposed_provenance(at);
                // SAFETY: it lies in a segment that may be read.
                sum += u64::from(unsafe { byte.read_volatile() });
            }
        }
        let pieces: Vec<Vec<u8>> = (0..4096).map(|n| vec![1; 1000 + n % 7]).collect();
        let last = pieces.last().cloned();
        drop(pieces);
        let before = (resident(is_code), resident(is_heap));
        Thrift::new().settle().unwrap();
        let after = (resident(is_code), resident(is_heap));
        assert!(sum > 0 && last.is_some());
        assert!(after.0 * 2 < before.0, "{before:?}, {after:?}");
        assert!(after.1 < before.1, "{before:?}, {after:?}");
    }

    /// In a copy of this process, whose only thread is the first one.
    #[test]
    fn the_first_stack_is_left_and_its_frames_are_not() {
        // SAFETY: the copy calls nothing that another thread might have locked: it writes to its stack and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let kept = std::hint::black_box([0x77_u8; 3 * PAGE_BYTES]);
            let marked = mark_deep_stack();
            let is_left = leave_stack(&Thrift::new()).is_ok();
            let byte: *const u8 = std::ptr::with_exposed_provenance(marked);
            // SAFETY: it lies in this thread's stack, which is mapped, below every frame in use.
            let is_gone = unsafe { byte.read_volatile() } == 0;
            let is_kept = std::hint::black_box(&kept).iter().all(|byte| *byte == 0x77);
            // SAFETY: it ends the copy, without what a process does at its end.
            unsafe { libc::_exit(i32::from(!(is_left && is_gone && is_kept))) };
        }
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0));
    }

    #[inline(never)]
    fn mark_deep_stack() -> usize {
        let deep = [0x5A_u8; 64 << 10];
        std::hint::black_box(&deep).as_ptr().addr()
    }
}
