//! Guest RAM: one sealed memory file that the kernel zeroed, present before the IOMMU pins it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::{
    fault::Fault,
    log::Log,
    parallel::{self, Progress},
};
use crate::{plan::Plan, spec::HugepageSize, sys::map::Mapping};

/// What is not in huge pages.
const PAGE_BYTES: usize = 4096;

/// The file of guest RAM and the supervisor's view of it, which exists until the IOMMU map is complete.
#[derive(Debug)]
pub(super) struct Ram {
    file: OwnedFd,
    view: Option<Mapping>,
}

impl Ram {
    /// Makes the plan's RAM: zeroed, of a size that can neither grow nor shrink, all of it present.
    ///
    /// # Errors
    /// [`Fault::Memory`]; `ENOMEM` where the host has not that much memory or huge pages.
    pub(super) fn create(plan: &Plan, log: &Log) -> Result<Self, Fault> {
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
        if memory.hugepages.is_none() && !view.prefer_large_pages() {
            log.say("the kernel has no transparent large pages: RAM is in pages of 4 KiB");
        }
        let page_bytes = memory.hugepages.map_or(Ok(PAGE_BYTES), |pages| {
            usize::try_from(pages.len().raw()).map_err(io::Error::other)
        });
        let page_bytes = page_bytes.map_err(at("mapping RAM"))?;
        populate(&view, page_bytes, parallel::processors(), log)
            .map_err(at("making RAM present"))?;
        Ok(Self {
            file,
            view: Some(view),
        })
    }

    /// Unmaps the supervisor's view: from here on it cannot read guest RAM.
    pub(super) fn forget_view(&mut self) {
        self.view = None;
    }

    /// The file, for V.
    #[must_use]
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Makes all of a mapping present, in pages of `page_bytes`, on up to `threads` threads. Memory is written once, by the kernel,
/// which zeroes each page; pages of a NUMA node stay there, whichever processor asks for them.
fn populate(view: &Mapping, page_bytes: usize, threads: usize, log: &Log) -> io::Result<()> {
    let (start, all) = (Instant::now(), view.len_bytes());
    let mut progress = Progress::new("present");
    let told = |done| {
        if let Some(line) = progress.line(start.elapsed(), done, all) {
            log.say(&line);
        }
    };
    let work = |from, len| view.populate(from, len);
    parallel::in_steps(all, page_bytes, threads, work, told).map(drop)
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
mod tests {
    use std::io::Write;

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

    #[test]
    fn all_of_ram_is_present_and_zeroed_by_any_number_of_threads() {
        let len = (192 << 20) + PAGE_BYTES;
        for threads in [1, 2, 5] {
            let (file, view) = view(len);
            assert_eq!(present(&file), 0);
            let log = Log::keeping("test", true);
            populate(&view, PAGE_BYTES, threads, &log).unwrap();
            assert_eq!(present(&file), len as u64);
            let mut last = [1; PAGE_BYTES];
            rustix::io::pread(&file, &mut last, (len - PAGE_BYTES) as u64).unwrap();
            assert_eq!(last, [0; PAGE_BYTES]);
        }
    }

    /// Zeroes a gibibyte that is there, which is the least that RAM can cost, and makes one present: on as many threads. Where
    /// free memory is in pieces, most of what large pages cost is that the kernel makes room for them.
    #[test]
    #[ignore = "needs 3 GiB of memory and a quiet machine; it prints figures"]
    fn ram_is_made_present_at_this_multiple_of_zeroing_it() {
        const LEN: usize = 1 << 30;
        let quiet = Log::keeping("test", true);
        let seconds = |act: &mut dyn FnMut()| {
            let start = Instant::now();
            act();
            start.elapsed().as_secs_f64()
        };
        let zeroed = |threads: usize| {
            let mut there = vec![1_u8; LEN];
            let took = seconds(&mut || {
                std::thread::scope(|scope| {
                    for part in there.chunks_mut(LEN / threads) {
                        scope.spawn(|| part.fill(0));
                    }
                });
            });
            std::hint::black_box(&there);
            took
        };
        for round in 0..5 {
            for threads in [1, 2] {
                let least = zeroed(threads);
                let large = Mapping::anonymous(LEN).unwrap();
                let has_large = large.prefer_large_pages();
                let in_large = seconds(&mut || populate(&large, 2 << 20, threads, &quiet).unwrap());
                drop(large);
                let (_file, view) = view(LEN);
                let in_small =
                    seconds(&mut || populate(&view, PAGE_BYTES, threads, &quiet).unwrap());
                writeln!(
                    io::stderr(),
                    "round {round}, {threads} threads: zeroing {least:.3} s, pages of 2 MiB ({has_large}) {in_large:.3} s, \
                     {:.2} of it; of 4 KiB {in_small:.3} s, {:.2} of it",
                    in_large / least,
                    in_small / least,
                )
                .unwrap();
            }
        }
    }
}
