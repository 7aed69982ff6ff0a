//! VFIO and iommufd as Narrows uses them: what the host's PCI topology is, and one DMA map per guest, sealed.
//!
//! Read-only facts come from a re-rootable [`sysfs::SysRoot`] into a [`topology::Topology`]; nothing there opens a
//! device. A [`space::AddressSpace`] is one guest's IOMMU context, by iommufd or by type1; devices are attached to it,
//! RAM is mapped according to the [`ledger::Ledger`], and [`space::AddressSpace::seal`] closes every handle that
//! could change the map. The order of the `pub mod` lines is the dependency order.

pub mod addr;
pub mod bdf;
pub mod topology;
