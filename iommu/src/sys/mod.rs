//! The kernel's side of VFIO and iommufd: numbers, structures, and one safe function for each ioctl.
//!
//! UNSAFETY: `ioctl` takes a pointer whose meaning depends on the request number, and `mmap` and `munmap` change the
//! address space. Every wrapper here fixes the request together with the type it points to, so nothing outside this
//! folder can get the pair wrong.
#![expect(
    unsafe_code,
    reason = "ioctl, mmap and munmap are the kernel's only interface here"
)]

pub(crate) mod ioctl;
pub(crate) mod iommufd;
pub(crate) mod vfio;
pub(crate) mod view;
