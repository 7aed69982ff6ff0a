//! Guest RAM: one sealed memory file that the kernel zeroed, present before the IOMMU pins it.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use iommu::sysfs::SysRoot;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    io::{Errno, pwrite, pwritev},
};

use super::{
    fault::Fault,
    log::Log,
    pages::Pages,
    parallel::{self, Hand, Progress},
};
use crate::{
    plan::Plan,
    spec::HugepageSize,
    sys::{map::Mapping, thrift},
};

/// What one call writes: this often the same zeroes, which stay in the processor's cache.
static ZEROES: [u8; 16 << 10] = [0; 16 << 10];
const TIMES: usize = 64;

/// The file of guest RAM and the supervisor's view of it, which exists until the IOMMU map is complete.
#[derive(Debug)]
pub(super) struct Ram {
    file: OwnedFd,
    view: Option<Mapping>,
    pages: Pages,
}

/// The stack of the thread that makes RAM beside the work of another.
const STACK_BYTES: usize = 128 << 10;
/// How often it is asked whether RAM is still wanted.
const ASKING: Duration = Duration::from_millis(100);

impl Ram {
    /// Makes the plan's RAM on a thread of its own, while this one does `meanwhile`: a device that is opened sleeps a tenth of a
    /// second in the kernel, and needs no RAM before it is mapped. Then `is_wanted` is asked, every tenth of a second, until RAM is
    /// there, which can take a minute. Where one of the two fails, its error is the one that is told, and RAM is not made to
    /// its end.
    ///
    /// On entry: one thread. On exit: one thread, whatever came of it.
    ///
    /// # Errors
    /// Those of `meanwhile` and `is_wanted`; [`Fault::Memory`], with `ENOMEM` where the host has not that much memory or huge pages.
    pub(super) fn create_beside<T>(
        plan: &Plan,
        root: &SysRoot,
        log: &Log,
        meanwhile: impl FnOnce() -> Result<T, Fault>,
        mut is_wanted: impl FnMut() -> Result<(), Fault>,
    ) -> Result<(T, Self), Fault> {
        // The thread has no heap of its own, which would stay behind.
        thrift::keep_one_heap();
        let goes_on = AtomicBool::new(true);
        let make = || Self::create(plan, root, log, &goes_on);
        let (end, ended) = mpsc::channel();
        thread::scope(|scope| {
            let builder = thread::Builder::new().stack_size(STACK_BYTES);
            // Its end is heard when it drops its end of the channel. Where no thread is to be had, it is made afterwards.
            let own = move || {
                let _end: mpsc::Sender<()> = end;
                make()
            };
            let making = builder.spawn_scoped(scope, own).ok();
            let done = meanwhile().and_then(|done| {
                while ended.recv_timeout(ASKING) == Err(RecvTimeoutError::Timeout) {
                    is_wanted()?;
                }
                Ok(done)
            });
            goes_on.store(done.is_ok(), Ordering::Relaxed);
            // Also where something has failed: the end of the scope does not wait until the thread itself is gone.
            let made = making.map(|making| {
                let ended = making.join();
                ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            let done = done?;
            Ok((done, made.unwrap_or_else(make)?))
        })
    }

    /// Makes the plan's RAM: zeroed, of a size that can neither grow nor shrink, all of it present.
    ///
    /// # Errors
    /// [`Fault::Memory`]; `ENOMEM` where the host has not that much memory or huge pages; `EINTR` once it is not wanted.
    fn create(
        plan: &Plan,
        root: &SysRoot,
        log: &Log,
        is_wanted: &AtomicBool,
    ) -> Result<Self, Fault> {
        let memory = &plan.memory;
        let at = |doing: &'static str| move |error: io::Error| Fault::Memory { doing, error };
        let file =
            sized_file(memory.size.raw(), memory.hugepages).map_err(at("making the RAM file"))?;
        let len = usize::try_from(memory.size.raw())
            .map_err(io::Error::other)
            .map_err(at("mapping RAM"))?;
        let view = Mapping::read_write(&file, len).map_err(at("mapping RAM"))?;
        if let Some(node) = memory.numa_node {
            view.bind_to_node(node)
                .map_err(at("binding RAM to its NUMA node"))?;
        }
        let mut pages = Pages::of(root, memory.hugepages);
        if pages == Pages::Large && !view.prefer_large_pages() {
            let why = "the kernel gives no large pages to a mapping that asks".to_owned();
            pages = Pages::Small { why };
        }
        if let Pages::Small { why } = &pages {
            log.say(&format!("RAM is in pages of 4 KiB: {why}"));
        }
        let threads = parallel::processors();
        populate(&file, &view, &pages, threads, log, is_wanted)
            .map_err(at("making RAM present"))?;
        Ok(Self {
            file,
            view: Some(view),
            pages,
        })
    }

    /// Unmaps the supervisor's view: from here on it cannot read guest RAM.
    ///
    /// # Errors
    /// [`Fault::Memory`].
    pub(super) fn forget_view(&mut self) -> Result<(), Fault> {
        let Some(view) = self.view.take() else {
            return Ok(());
        };
        let at = |error| Fault::Memory {
            doing: "unmapping RAM",
            error,
        };
        // Large pages are few.
        if matches!(self.pages, Pages::Small { .. }) {
            let work = |_, from, len| view.leave(from, len);
            let (len, threads) = (view.len_bytes(), parallel::processors());
            parallel::in_steps(len, 1, threads, work, |_| {}).map_err(at)?;
        }
        Ok(())
    }

    /// The file, for V.
    #[must_use]
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Makes all of RAM present, in `pages`, on up to `threads` threads; pages of a NUMA node stay there, whichever processor asks
/// for them.
///
/// The kernel zeroes a huge or large page as it is touched. A page of 4 KiB costs less than half as much when zeroes are written
/// through the file, as no page table is made that is undone later, but one thread at a time can do that (`inode_lock`): the first
/// does, and the others touch.
fn populate(
    file: &OwnedFd,
    view: &Mapping,
    pages: &Pages,
    threads: usize,
    log: &Log,
    is_wanted: &AtomicBool,
) -> io::Result<()> {
    let page_bytes = usize::try_from(pages.len_bytes()).map_err(io::Error::other)?;
    let (start, all) = (Instant::now(), view.len_bytes());
    let mut progress = Progress::new("present");
    let told = |done| {
        if let Some(line) = progress.line(start.elapsed(), done, all) {
            log.say(&line);
        }
    };
    let is_small = matches!(pages, Pages::Small { .. });
    if is_small {
        view.forget_use()?;
    }
    let work = |hand, from, len| match hand {
        _ if !is_wanted.load(Ordering::Relaxed) => Err(io::ErrorKind::Interrupted.into()),
        Hand::Own if is_small => write_zeroes(file, from, len),
        Hand::Own | Hand::Helper => view.populate(from, len),
    };
    parallel::in_steps(all, page_bytes, threads, work, told).map(drop)
}

/// Writes zeroes to `[from, from + len)` of a memory file.
fn write_zeroes(file: &OwnedFd, from: usize, len: usize) -> io::Result<()> {
    let pieces = [IoSlice::new(&ZEROES); TIMES];
    let end = from.saturating_add(len);
    let mut at = from;
    while at < end {
        let left = end - at;
        let written = match pieces.get(..left / ZEROES.len()).unwrap_or(&pieces) {
            [] => pwrite(file, ZEROES.get(..left).unwrap_or(&ZEROES), at as u64),
            whole => pwritev(file, whole, at as u64),
        };
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => at += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn sized_file(len_bytes: u64, pages: Option<HugepageSize>) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let flags = match pages {
        None => flags,
        Some(HugepageSize::TwoMib) => flags | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        Some(HugepageSize::OneGib) => flags | MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
    };
    let file = memfd_create("narrows-ram", flags)?;
    ftruncate(&file, len_bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

#[cfg(test)]
#[path = "ram_bench.rs"]
mod bench;

#[cfg(test)]
mod tests {
    use super::*;

    fn view(len_bytes: usize) -> (OwnedFd, Mapping) {
        let file = sized_file(len_bytes as u64, None).unwrap();
        let view = Mapping::read_write(&file, len_bytes).unwrap();
        (file, view)
    }

    /// Bytes of a memory file that are there.
    fn present(file: &OwnedFd) -> u64 {
        let blocks = rustix::fs::fstat(file).unwrap().st_blocks;
        u64::try_from(blocks).unwrap() * 512
    }

    fn small() -> Pages {
        let why = "the test says so".to_owned();
        Pages::Small { why }
    }

    #[test]
    fn all_of_ram_is_present_and_zeroed_by_any_number_of_threads() {
        let len = (192 << 20) + 4096;
        for (pages, threads) in [
            (Pages::Large, 1),
            (Pages::Large, 2),
            (small(), 1),
            (small(), 2),
            (small(), 5),
        ] {
            let (file, view) = view(len);
            assert_eq!(present(&file), 0);
            let log = Log::keeping("test", true);
            populate(&file, &view, &pages, threads, &log, &AtomicBool::new(true)).unwrap();
            assert_eq!(present(&file), len as u64, "{pages:?} {threads}");
            let mut last = [1; 4096];
            rustix::io::pread(&file, &mut last, (len - 4096) as u64).unwrap();
            assert_eq!(last, [0; 4096]);
            // What leaves the view stays in the file.
            let view = Some(view);
            let mut ram = Ram { file, view, pages };
            ram.forget_view().unwrap();
            assert_eq!(present(&ram.file), len as u64);
        }
    }

    #[test]
    fn what_is_not_wanted_any_more_is_not_made_present() {
        let log = Log::keeping("test", true);
        let unwanted = AtomicBool::new(false);
        for pages in [Pages::Large, small()] {
            let (file, view) = view(192 << 20);
            let error = populate(&file, &view, &pages, 2, &log, &unwanted).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted);
            assert_eq!(present(&file), 0);
        }
    }

    #[test]
    fn zeroes_end_where_they_are_to_end() {
        let piece = ZEROES.len();
        for (from, len) in [
            (0, 1),
            (3, piece),
            (4096, TIMES * piece),
            (1, 2 * TIMES * piece + piece + 7),
        ] {
            let (file, _view) = view(4 << 20);
            pwrite(&file, &vec![0x5A; 4 << 20], 0).unwrap();
            write_zeroes(&file, from, len).unwrap();
            let mut bytes = vec![0; 4 << 20];
            rustix::io::pread(&file, &mut bytes, 0).unwrap();
            let is_right = |(at, byte): (usize, &u8)| {
                let is_zero = at >= from && at < from + len;
                *byte == if is_zero { 0 } else { 0x5A }
            };
            assert!(bytes.iter().enumerate().all(is_right), "{from} {len}");
        }
    }

    #[test]
    fn a_file_that_takes_no_zeroes_is_an_error() {
        let zero = OwnedFd::from(std::fs::File::open("/dev/zero").unwrap());
        assert!(write_zeroes(&zero, 0, 1).is_err());
    }
}
