//! VFIO: containers, groups, devices.
//!
//! UNSAFETY: see the folder's `mod.rs`; here only the promise that the ABI's structures are what they seem.
//!
//! *Source:* `include/uapi/linux/vfio.h` (v6.12); members behind those of v6.12 are zero, which older kernels ignore.

use std::{
    ffi::CStr,
    io,
    mem::offset_of,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use vfio_bindings::bindings::vfio as abi;

use super::{
    ioctl::{self, Argument, io, size_u32, u32_at, u64_at},
    view::View,
};

const fn request(number: u32) -> libc::Ioctl {
    io(abi::VFIO_TYPE, abi::VFIO_BASE + number)
}

const GET_API_VERSION: libc::Ioctl = request(0);
const CHECK_EXTENSION: libc::Ioctl = request(1);
const SET_IOMMU: libc::Ioctl = request(2);
const GROUP_GET_STATUS: libc::Ioctl = request(3);
const GROUP_SET_CONTAINER: libc::Ioctl = request(4);
const GROUP_GET_DEVICE_FD: libc::Ioctl = request(6);
const DEVICE_GET_INFO: libc::Ioctl = request(7);
const DEVICE_GET_REGION_INFO: libc::Ioctl = request(8);
const DEVICE_GET_IRQ_INFO: libc::Ioctl = request(9);
const DEVICE_SET_IRQS: libc::Ioctl = request(10);
const DEVICE_RESET: libc::Ioctl = request(11);
// Numbers are shared between fds of different kinds.
const IOMMU_GET_INFO: libc::Ioctl = request(12);
const IOMMU_MAP_DMA: libc::Ioctl = request(13);
const DEVICE_BIND_IOMMUFD: libc::Ioctl = request(18);
const DEVICE_ATTACH_IOMMUFD_PT: libc::Ioctl = request(19);

// vfio.h: sizes of the fixed parts.
const _: () = {
    assert!(size_of::<abi::vfio_group_status>() == 8);
    assert!(size_of::<abi::vfio_device_info>() == 24);
    assert!(size_of::<abi::vfio_region_info>() == 32);
    assert!(size_of::<abi::vfio_region_sparse_mmap_area>() == 16);
    assert!(size_of::<abi::vfio_irq_info>() == 16);
    assert!(size_of::<abi::vfio_irq_set>() == 20);
    assert!(size_of::<abi::vfio_iommu_type1_info>() == 24);
    assert!(size_of::<abi::vfio_iova_range>() == 16);
    assert!(size_of::<abi::vfio_iommu_type1_dma_map>() == 32);
    assert!(size_of::<abi::vfio_info_cap_header>() == 8);
    // 16 in v6.12; `token_uuid_ptr` came in v6.18.
    assert!(size_of::<abi::vfio_device_bind_iommufd>() == 24);
    // 12 in v6.12; `pasid` came in v6.15.
    assert!(size_of::<abi::vfio_device_attach_iommufd_pt>() == 16);
};

// SAFETY: repr(C), integers only.
unsafe impl Argument for abi::vfio_group_status {}
// SAFETY: repr(C), integers only.
unsafe impl Argument for abi::vfio_device_info {}
// SAFETY: repr(C), integers only.
unsafe impl Argument for abi::vfio_irq_info {}
// SAFETY: repr(C), integers only; the array behind it is empty in every use here.
unsafe impl Argument for abi::vfio_irq_set {}
// SAFETY: repr(C), integers only; `vaddr` is filled from a live View.
unsafe impl Argument for abi::vfio_iommu_type1_dma_map {}
// SAFETY: repr(C), integers only; `token_uuid_ptr` points to an array that outlives the call.
unsafe impl Argument for abi::vfio_device_bind_iommufd {}
// SAFETY: repr(C), integers only.
unsafe impl Argument for abi::vfio_device_attach_iommufd_pt {}

/// The names of the calls as errors print them.
pub(crate) mod name {
    pub(crate) const GET_API_VERSION: &str = "VFIO_GET_API_VERSION";
    pub(crate) const CHECK_EXTENSION: &str = "VFIO_CHECK_EXTENSION";
    pub(crate) const SET_IOMMU: &str = "VFIO_SET_IOMMU";
    pub(crate) const GROUP_GET_STATUS: &str = "VFIO_GROUP_GET_STATUS";
    pub(crate) const GROUP_SET_CONTAINER: &str = "VFIO_GROUP_SET_CONTAINER";
    pub(crate) const GROUP_GET_DEVICE_FD: &str = "VFIO_GROUP_GET_DEVICE_FD";
    pub(crate) const DEVICE_GET_INFO: &str = "VFIO_DEVICE_GET_INFO";
    pub(crate) const DEVICE_GET_REGION_INFO: &str = "VFIO_DEVICE_GET_REGION_INFO";
    pub(crate) const DEVICE_GET_IRQ_INFO: &str = "VFIO_DEVICE_GET_IRQ_INFO";
    pub(crate) const DEVICE_SET_IRQS: &str = "VFIO_DEVICE_SET_IRQS";
    pub(crate) const DEVICE_RESET: &str = "VFIO_DEVICE_RESET";
    pub(crate) const IOMMU_GET_INFO: &str = "VFIO_IOMMU_GET_INFO";
    pub(crate) const IOMMU_MAP_DMA: &str = "VFIO_IOMMU_MAP_DMA";
    pub(crate) const DEVICE_BIND_IOMMUFD: &str = "VFIO_DEVICE_BIND_IOMMUFD";
    pub(crate) const DEVICE_ATTACH_IOMMUFD_PT: &str = "VFIO_DEVICE_ATTACH_IOMMUFD_PT";
}

pub(crate) fn get_api_version(container: BorrowedFd<'_>) -> io::Result<u32> {
    ioctl::with_number(container, GET_API_VERSION, 0)
}

pub(crate) fn has_type1v2(container: BorrowedFd<'_>) -> io::Result<bool> {
    let answer = ioctl::with_number(container, CHECK_EXTENSION, abi::VFIO_TYPE1v2_IOMMU)?;
    Ok(answer == 1)
}

pub(crate) fn set_iommu_type1v2(container: BorrowedFd<'_>) -> io::Result<()> {
    ioctl::with_number(container, SET_IOMMU, abi::VFIO_TYPE1v2_IOMMU).map(drop)
}

pub(crate) fn group_is_viable(group: BorrowedFd<'_>) -> io::Result<bool> {
    let mut status = abi::vfio_group_status {
        argsz: size_u32::<abi::vfio_group_status>(),
        flags: 0,
    };
    ioctl::with(group, GROUP_GET_STATUS, &mut status)?;
    Ok(status.flags & abi::VFIO_GROUP_FLAGS_VIABLE != 0)
}

pub(crate) fn group_set_container(
    group: BorrowedFd<'_>,
    container: BorrowedFd<'_>,
) -> io::Result<()> {
    ioctl::with_fd(group, GROUP_SET_CONTAINER, container).map(drop)
}

pub(crate) fn group_get_device(group: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    ioctl::with_name(group, GROUP_GET_DEVICE_FD, name)
}

/// Page sizes and capability bytes of a container; the bytes are for [`iova_windows`].
pub(crate) fn iommu_get_info(container: BorrowedFd<'_>) -> io::Result<Type1Info> {
    let head = [0; size_of::<abi::vfio_iommu_type1_info>()];
    let bytes = ioctl::with_growing(container, IOMMU_GET_INFO, &head)?;
    let flags = u32_at(&bytes, offset_of!(abi::vfio_iommu_type1_info, flags)).unwrap_or(0);
    let sizes = u64_at(&bytes, offset_of!(abi::vfio_iommu_type1_info, iova_pgsizes));
    let chain = u32_at(&bytes, offset_of!(abi::vfio_iommu_type1_info, cap_offset));
    Ok(Type1Info {
        page_sizes: sizes.filter(|_| flags & abi::VFIO_IOMMU_INFO_PGSIZES != 0),
        windows: chain
            .filter(|_| flags & abi::VFIO_IOMMU_INFO_CAPS != 0)
            .and_then(|first| iova_windows(&bytes, first)),
    })
}

/// What a container says of its IOMMU.
#[derive(Debug)]
pub(crate) struct Type1Info {
    /// One bit for each page size.
    pub(crate) page_sizes: Option<u64>,
    /// Usable addresses, first and last; `None` where the kernel does not tell or the answer is malformed.
    pub(crate) windows: Option<Vec<(u64, u64)>>,
}

fn iova_windows(bytes: &[u8], first: u32) -> Option<Vec<(u64, u64)>> {
    let at = find_capability(bytes, first, abi::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)?;
    let count = u32_at(bytes, at.checked_add(8)?)?;
    pairs(bytes, at.checked_add(16)?, count)
}

pub(crate) fn iommu_map(
    container: BorrowedFd<'_>,
    view: &View,
    iova: u64,
    writable: bool,
) -> io::Result<()> {
    let write = if writable {
        abi::VFIO_DMA_MAP_FLAG_WRITE
    } else {
        0
    };
    let mut map = abi::vfio_iommu_type1_dma_map {
        argsz: size_u32::<abi::vfio_iommu_type1_dma_map>(),
        flags: abi::VFIO_DMA_MAP_FLAG_READ | write,
        vaddr: view.address(),
        iova,
        size: view.len(),
    };
    ioctl::with(container, IOMMU_MAP_DMA, &mut map).map(drop)
}

pub(crate) fn device_bind(
    device: BorrowedFd<'_>,
    iommufd: BorrowedFd<'_>,
    token: Option<&[u8; 16]>,
) -> io::Result<()> {
    let mut bind = abi::vfio_device_bind_iommufd {
        argsz: size_u32::<abi::vfio_device_bind_iommufd>(),
        flags: 0,
        iommufd: iommufd.as_raw_fd(),
        out_devid: 0,
        token_uuid_ptr: 0,
    };
    if let Some(token) = token {
        bind.flags = abi::VFIO_DEVICE_BIND_FLAG_TOKEN;
        bind.token_uuid_ptr = address_of(token);
    }
    ioctl::with(device, DEVICE_BIND_IOMMUFD, &mut bind).map(drop)
}

pub(crate) fn device_attach(device: BorrowedFd<'_>, ioas: u32) -> io::Result<()> {
    let mut attach = abi::vfio_device_attach_iommufd_pt {
        argsz: size_u32::<abi::vfio_device_attach_iommufd_pt>(),
        flags: 0,
        pt_id: ioas,
        pasid: 0,
    };
    ioctl::with(device, DEVICE_ATTACH_IOMMUFD_PT, &mut attach).map(drop)
}

/// Flags, number of regions, number of interrupt kinds.
pub(crate) fn device_get_info(device: BorrowedFd<'_>) -> io::Result<abi::vfio_device_info> {
    let mut info = abi::vfio_device_info {
        argsz: size_u32::<abi::vfio_device_info>(),
        ..Default::default()
    };
    ioctl::with(device, DEVICE_GET_INFO, &mut info)?;
    Ok(info)
}

/// A region, with the bytes of its capabilities.
pub(crate) fn device_get_region(device: BorrowedFd<'_>, index: u32) -> io::Result<Vec<u8>> {
    let mut head = [0; size_of::<abi::vfio_region_info>()];
    let at = offset_of!(abi::vfio_region_info, index);
    for (byte, from) in head.iter_mut().skip(at).zip(index.to_ne_bytes()) {
        *byte = from;
    }
    ioctl::with_growing(device, DEVICE_GET_REGION_INFO, &head)
}

/// Flags and count of one kind of interrupt.
pub(crate) fn device_get_irq(device: BorrowedFd<'_>, index: u32) -> io::Result<(u32, u32)> {
    let mut info = abi::vfio_irq_info {
        argsz: size_u32::<abi::vfio_irq_info>(),
        index,
        ..Default::default()
    };
    ioctl::with(device, DEVICE_GET_IRQ_INFO, &mut info)?;
    Ok((info.flags, info.count))
}

pub(crate) fn device_disable_irqs(device: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let mut set = abi::vfio_irq_set {
        argsz: size_u32::<abi::vfio_irq_set>(),
        flags: abi::VFIO_IRQ_SET_DATA_NONE | abi::VFIO_IRQ_SET_ACTION_TRIGGER,
        index,
        ..Default::default()
    };
    ioctl::with(device, DEVICE_SET_IRQS, &mut set).map(drop)
}

pub(crate) fn device_reset(device: BorrowedFd<'_>) -> io::Result<()> {
    ioctl::with_number(device, DEVICE_RESET, 0).map(drop)
}

/// Where the capability `id` starts in a chain that starts at `first`.
///
/// The chain comes from the kernel; still, it is walked as if it were hostile: only forwards, only within `bytes`.
pub(crate) fn find_capability(bytes: &[u8], first: u32, id: u32) -> Option<usize> {
    let mut at = usize::try_from(first).ok()?;
    while at >= size_of::<abi::vfio_info_cap_header>() {
        let header = u32_at(bytes, at)?;
        if header & 0xffff == id {
            return Some(at);
        }
        let next = usize::try_from(u32_at(bytes, at.checked_add(4)?)?).ok()?;
        if next <= at {
            return None;
        }
        at = next;
    }
    None
}

/// `count` pairs of 64-bit numbers from `at`.
pub(crate) fn pairs(bytes: &[u8], at: usize, count: u32) -> Option<Vec<(u64, u64)>> {
    let mut pairs = Vec::new();
    let mut at = at;
    for _ in 0..count {
        let second = at.checked_add(8)?;
        pairs.push((u64_at(bytes, at)?, u64_at(bytes, second)?));
        at = second.checked_add(8)?;
    }
    Some(pairs)
}

fn address_of(token: &[u8; 16]) -> u64 {
    let address: *const [u8; 16] = token;
    // The kernel's ABI has 64-bit addresses on every machine.
    u64::try_from(address.addr()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "vfio_test.rs"]
mod tests;
