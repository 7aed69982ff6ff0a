//! VFIO and iommufd as Narrows uses them: what the host's PCI topology is, and one DMA map per guest, sealed.
//!
//! Read-only facts come from a re-rootable [`sysfs::SysRoot`] into a [`topology::Topology`]; nothing there opens a
//! device. A [`space::AddressSpace`] is one guest's IOMMU context, by iommufd or by type1; devices are attached to it,
//! RAM is mapped according to the [`ledger::Ledger`], and [`space::AddressSpace::seal`] closes every handle that
//! could change the map. The order of the `mod` lines is the dependency order.

pub mod addr;
pub mod bdf;
pub mod error;
// Questions and orders to the kernel about network interfaces.
pub mod netlink;
pub mod sysfs;
pub mod topology;
// What the driver of a NIC is told to enforce on its VFs: bytes only.
pub mod set_link;
// Which driver has a function, and changing that.
pub mod bind;
// Verdicts on what the topology says. Pure.
pub mod isolation;
// What the IOMMU stopped, from the kernel log.
pub mod events;
// What a function must look like when it comes back.
pub mod clean;
// Fixtures for tests, of this package and of those above it; ordinary code never names it.
pub mod fake;
pub mod ledger;
// The kernel's ABI: ioctls, their structures, and the one mmap. All of the crate's unsafe code.
pub mod device;
mod iommufd;
pub mod space;
mod sys;
mod type1;

pub use error::{Blame, Errno, IommuError};
