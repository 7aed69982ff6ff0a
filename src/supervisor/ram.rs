//! Guest RAM: one sealed memory file that the kernel zeroed, present before the IOMMU pins it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::{fault::Fault, log::Log};
use crate::{plan::Plan, spec::HugepageSize, sys::map::Mapping};

/// How much is made present at a time, so that the operator sees progress: 1 GiB.
const STEP_BYTES: usize = 1 << 30;

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
        let mut done = 0;
        while done < len {
            let step = STEP_BYTES.min(len - done);
            view.populate(done, step)
                .map_err(at("making RAM present"))?;
            done += step;
            if len > STEP_BYTES {
                log.say(&format!(
                    "{} of {} MiB of RAM are present",
                    done >> 20,
                    len >> 20
                ));
            }
        }
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
