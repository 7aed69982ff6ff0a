//! What the host's sysfs says of its PCI functions and IOMMU groups. Facts only, with the file each came from.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use crate::{
    addr::{ByteLen, IovaRange},
    bdf::Bdf,
};

/// A host as sysfs shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Topology {
    /// Every PCI function by address.
    pub functions: BTreeMap<Bdf, Function>,
    /// Every IOMMU group by number.
    pub groups: BTreeMap<GroupId, Group>,
    /// The names in `/sys/class/iommu`; empty where no IOMMU is in use.
    pub iommus: Vec<String>,
    /// Whether `/dev/iommu` exists (iommufd).
    pub has_iommufd: bool,
    /// `allow_unsafe_interrupts` of `vfio_iommu_type1` and of `iommufd`; `None` where the module is not loaded.
    pub unsafe_interrupts: Vec<(PathBuf, bool)>,
    /// `enable_unsafe_noiommu_mode` of `vfio`; `None` where there is no such parameter.
    pub unsafe_noiommu: Option<(PathBuf, bool)>,
}

/// The number of an IOMMU group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct GroupId(pub u32);

/// An IOMMU group: the smallest set of functions that the IOMMU can tell from others.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Its members.
    pub members: Vec<Bdf>,
    /// `type`: `DMA`, `DMA-FQ`, `identity`, `blocked`, …
    pub domain_type: String,
    /// The windows of addresses that must not be mapped.
    pub reserved: Vec<ReservedRegion>,
}

/// One line of `reserved_regions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReservedRegion {
    /// Its addresses.
    pub range: IovaRange,
    /// `msi`, `reserved`, `direct`, `direct-relaxable`, …
    pub kind: String,
}

/// A PCI function.
#[derive(Clone, Debug, Serialize)]
pub struct Function {
    /// Its address.
    pub bdf: Bdf,
    /// Its folder in sysfs.
    pub path: PathBuf,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Class code, 24 bits.
    pub class: u32,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// `driver_override`, where set.
    pub driver_override: Option<String>,
    /// The PF whose VF it is.
    pub physfn: Option<Bdf>,
    /// Its IOMMU group.
    pub group: Option<GroupId>,
    /// The NUMA node; `None` where the host knows none (-1).
    pub numa_node: Option<u32>,
    /// BARs 0 to 5 as `resource` shows them.
    pub bars: [Option<HostBar>; 6],
    /// The words of `reset_method`, in order; empty where the kernel cannot reset it.
    pub reset_methods: Vec<String>,
    /// The name under `vfio-dev`, e.g. `vfio3`, where the function is bound to a VFIO driver.
    pub vfio_cdev: Option<String>,
    /// The interrupts it offers, read from configuration space.
    pub interrupts: Interrupts,
}

/// A BAR as the host has placed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HostBar {
    /// Host-physical address.
    pub start: u64,
    /// Size.
    pub len: ByteLen,
    /// Memory space; else I/O space.
    pub is_memory: bool,
    /// 64-bit.
    pub is_64bit: bool,
    /// Prefetchable.
    pub is_prefetchable: bool,
}

/// The message interrupts of a function, from its capability list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Interrupts {
    /// Neither MSI nor MSI-X.
    None,
    /// MSI with this many vectors (a power of two, 1 to 32).
    Msi {
        /// Vectors the function can send.
        vectors: u32,
    },
    /// MSI-X; preferred where a function has both.
    Msix {
        /// Entries of the table, 1 to 2048.
        vectors: u32,
        /// BAR of the table, 0 to 5.
        table_bar: u8,
        /// Offset of the table in its BAR, in bytes.
        table_offset: u32,
        /// BAR of the pending bits, 0 to 5.
        pba_bar: u8,
        /// Offset of the pending bits in their BAR, in bytes.
        pba_offset: u32,
    },
    /// Configuration space could not be read that far (only root may), or it is malformed: the reason.
    Unknown {
        /// Why.
        reason: &'static str,
    },
}
