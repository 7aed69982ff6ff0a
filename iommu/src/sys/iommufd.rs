//! iommufd: I/O address spaces and what is mapped in them.
//!
//! UNSAFETY: see the folder's `mod.rs`; here only the promise that the ABI's structures are what they seem.
//!
//! *Source:* `include/uapi/linux/iommufd.h` (v6.12; `IOMMU_IOAS_MAP_FILE` v6.13).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use iommufd_bindings::iommufd as abi;

use super::{
    ioctl::{self, Argument, io, size_u32},
    view::View,
};

const fn request(number: u32) -> libc::Ioctl {
    io(abi::IOMMUFD_TYPE, number)
}

const IOAS_ALLOC: libc::Ioctl = request(abi::IOMMUFD_CMD_IOAS_ALLOC);
const IOAS_IOVA_RANGES: libc::Ioctl = request(abi::IOMMUFD_CMD_IOAS_IOVA_RANGES);
const IOAS_MAP: libc::Ioctl = request(abi::IOMMUFD_CMD_IOAS_MAP);
const IOAS_MAP_FILE: libc::Ioctl = request(abi::IOMMUFD_CMD_IOAS_MAP_FILE);

const _: () = {
    assert!(size_of::<abi::iommu_ioas_alloc>() == 12);
    assert!(size_of::<abi::iommu_iova_range>() == 16);
    assert!(size_of::<abi::iommu_ioas_iova_ranges>() == 32);
    assert!(size_of::<abi::iommu_ioas_map>() == 40);
    assert!(size_of::<abi::iommu_ioas_map_file>() == 40);
};

// SAFETY: repr(C), integers only.
unsafe impl Argument for abi::iommu_ioas_alloc {}
// SAFETY: repr(C), integers only; `allowed_iovas` points to an array that outlives the call and has `num_iovas` places.
unsafe impl Argument for abi::iommu_ioas_iova_ranges {}
// SAFETY: repr(C), integers only; `user_va` is filled from a live View.
unsafe impl Argument for abi::iommu_ioas_map {}
// SAFETY: repr(C), integers only.
unsafe impl Argument for abi::iommu_ioas_map_file {}

/// The names of the calls as errors print them.
pub(crate) mod name {
    pub(crate) const IOAS_ALLOC: &str = "IOMMU_IOAS_ALLOC";
    pub(crate) const IOAS_IOVA_RANGES: &str = "IOMMU_IOAS_IOVA_RANGES";
    pub(crate) const IOAS_MAP: &str = "IOMMU_IOAS_MAP";
    pub(crate) const IOAS_MAP_FILE: &str = "IOMMU_IOAS_MAP_FILE";
}

/// Makes an I/O address space and returns its id.
pub(crate) fn ioas_alloc(iommufd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut alloc = abi::iommu_ioas_alloc {
        size: size_u32::<abi::iommu_ioas_alloc>(),
        ..Default::default()
    };
    ioctl::with(iommufd, IOAS_ALLOC, &mut alloc)?;
    Ok(alloc.out_ioas_id)
}

/// Usable addresses, first and last, and the alignment that mappings need.
pub(crate) fn ioas_iova_ranges(
    iommufd: BorrowedFd<'_>,
    ioas: u32,
) -> io::Result<(Vec<(u64, u64)>, u64)> {
    let mut room = FEW;
    for _ in 0..2 {
        let mut ranges = vec![abi::iommu_iova_range::default(); room];
        let mut query = abi::iommu_ioas_iova_ranges {
            size: size_u32::<abi::iommu_ioas_iova_ranges>(),
            ioas_id: ioas,
            num_iovas: u32::try_from(room).map_err(io::Error::other)?,
            allowed_iovas: u64::try_from(ranges.as_mut_ptr().expose_provenance())
                .map_err(io::Error::other)?,
            ..Default::default()
        };
        let result = ioctl::with(iommufd, IOAS_IOVA_RANGES, &mut query);
        let told = usize::try_from(query.num_iovas).map_err(io::Error::other)?;
        match result {
            Ok(_) => {
                let ranges = ranges
                    .iter()
                    .take(told)
                    .map(|range| (range.start, range.last));
                return Ok((ranges.collect(), query.out_iova_alignment));
            }
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && told <= MANY => {
                room = told
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EMSGSIZE))
}

/// Room that nearly always suffices for the usable ranges.
const FEW: usize = 32;

/// Far more ranges than any IOMMU has holes.
const MANY: usize = 4096;

pub(crate) fn ioas_map(
    iommufd: BorrowedFd<'_>,
    ioas: u32,
    view: &View,
    iova: u64,
    writable: bool,
) -> io::Result<()> {
    let mut map = abi::iommu_ioas_map {
        size: size_u32::<abi::iommu_ioas_map>(),
        flags: flags(writable),
        ioas_id: ioas,
        user_va: view.address(),
        length: view.len(),
        iova,
        ..Default::default()
    };
    ioctl::with(iommufd, IOAS_MAP, &mut map).map(drop)
}

/// Maps `[start, start + len)` of a memory file: nothing of it need be in this process's address space.
pub(crate) fn ioas_map_file(
    iommufd: BorrowedFd<'_>,
    ioas: u32,
    (file, start, len): (BorrowedFd<'_>, u64, u64),
    iova: u64,
    writable: bool,
) -> io::Result<()> {
    let mut map = abi::iommu_ioas_map_file {
        size: size_u32::<abi::iommu_ioas_map_file>(),
        flags: flags(writable),
        ioas_id: ioas,
        fd: file.as_raw_fd(),
        start,
        length: len,
        iova,
    };
    ioctl::with(iommufd, IOAS_MAP_FILE, &mut map).map(drop)
}

const fn flags(writable: bool) -> u32 {
    let write = if writable {
        abi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE
    } else {
        0
    };
    abi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
        | abi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE
        | write
}

#[cfg(test)]
#[path = "iommufd_test.rs"]
mod tests;
