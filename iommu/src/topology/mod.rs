//! What the host's sysfs says of its PCI functions and IOMMU groups. Facts only, with the file each came from.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::Serialize;

use crate::{
    addr::{ByteLen, IovaRange},
    bdf::Bdf,
    error::{IommuError, Result},
    sysfs::SysRoot,
};

mod again;
mod caps;
mod config;
mod file;
mod firmware;
mod function;
mod group;
mod host;
mod interrupts;
mod kernel;
mod policy;
mod remapping;
mod resource;
mod state;
mod words;

pub use config::{
    Acs, Bridge, ConfigFacts, Express, Extended, ExtendedCaps, PortType, parse_config,
};
pub use host::{HostState, IommuKind, IommuUnit, Remapping, SETTINGS, Setting, VfioNode};
pub use interrupts::parse_interrupts;
pub use words::{BadLinkPolicy, BadMac, BadVlanProto, LinkPolicy, Mac, VlanProto};

impl Topology {
    /// Reads everything under `root`. Needs no privilege; without it some facts stay unknown.
    ///
    /// # Errors
    /// `sysfs-io`, `sysfs-malformed`.
    pub fn read(root: &SysRoot) -> Result<Self> {
        Ok(Self {
            host: host::read(root)?,
            ..Self::read_to_assign(root)?
        })
    }

    /// Reads what decides whether functions can be assigned: all but those facts of the host as a whole that can only warn.
    /// Warnings of the host are for who asks about the host, and unpacking the kernel's configuration takes longer than
    /// reading twenty functions.
    ///
    /// # Errors
    /// As [`Topology::read`].
    pub fn read_to_assign(root: &SysRoot) -> Result<Self> {
        let mut functions = function::read_all(root)?;
        let all = functions.keys().copied().collect();
        policy::read_of(root, &mut functions, &all)?;
        Ok(Self {
            functions,
            groups: group::read_all(root)?,
            iommus: host::read_iommus(root)?,
            has_iommufd: root.exists("dev/iommu"),
            host: host::read_to_assign(root)?,
        })
    }

    /// The group of a function.
    #[must_use]
    pub fn group_of(&self, bdf: Bdf) -> Option<(GroupId, &Group)> {
        let id = self.functions.get(&bdf)?.group?;
        Some((id, self.groups.get(&id)?))
    }

    /// The bridges above a function, the nearest first; empty where it sits on a root bus.
    pub fn path_above(&self, bdf: Bdf) -> impl Iterator<Item = &Function> {
        let above = |function: &&Function| self.functions.get(&function.parent?);
        // A made-up tree may have a loop; a bus has 256 numbers, so no path is longer.
        std::iter::successors(self.functions.get(&bdf), above)
            .skip(1)
            .take(256)
    }

    /// The VFs of a PF, by address.
    pub fn vfs_of(&self, pf: Bdf) -> impl Iterator<Item = &Function> {
        self.functions
            .values()
            .filter(move |function| function.physfn == Some(pf))
    }
}

/// Reads the members of a group and their drivers, as they are now.
///
/// # Errors
/// `sysfs-io`.
pub fn read_members(root: &SysRoot, group: GroupId) -> Result<Vec<Member>> {
    group::read_members(root, group)
}

/// Reads what one function is opened by: the name of its device node, where it has one, its group's number, and the group.
///
/// # Errors
/// `no-such-function`, `no-iommu-group`, `sysfs-io`, `sysfs-malformed`.
pub fn read_node(root: &SysRoot, bdf: Bdf) -> Result<(Option<String>, GroupId, Group)> {
    if !root.exists(function_path(bdf)) {
        return Err(IommuError::NoFunction { bdf });
    }
    let id = function::read_group(root, bdf)?.ok_or(IommuError::NoGroup { bdf })?;
    let node = function::read_cdev(root, bdf)?;
    Ok((node, id, group::read(root, id)?))
}

/// Reads the driver that a function is bound to now; `None` where it is bound to none.
///
/// # Errors
/// `sysfs-io`, `no-such-function`.
pub fn read_driver(root: &SysRoot, bdf: Bdf) -> Result<Option<String>> {
    function::read_driver(root, bdf)
}

/// Reads what a function's `driver_override` says now; `None` where it is not set.
///
/// # Errors
/// `sysfs-io`.
pub fn read_driver_override(root: &SysRoot, bdf: Bdf) -> Result<Option<String>> {
    function::read_driver_override(root, bdf)
}

/// Reads what the interface of the PF `pf` tells of its VFs now, by index; `None` where it tells of none.
///
/// # Errors
/// Why that is not known, in words: the kernel's answer, or another function's interface of that name.
pub fn read_vf_policies(
    root: &SysRoot,
    interface: &str,
    pf: Bdf,
) -> std::result::Result<Option<BTreeMap<u32, VfPolicy>>, String> {
    policy::read_table(root, interface, pf).transpose()
}

/// The folder of a function, below the root.
#[must_use]
pub fn function_path(bdf: Bdf) -> PathBuf {
    PathBuf::from(format!("sys/bus/pci/devices/{bdf}"))
}

/// A member of a group with its driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its name: the address, for a PCI function.
    pub name: String,
    /// The driver it is bound to.
    pub driver: Option<String>,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.driver {
            Some(driver) => write!(f, "{} (driver {driver})", self.name),
            None => write!(f, "{} (no driver)", self.name),
        }
    }
}

/// A host as sysfs shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Topology {
    /// Every PCI function by address.
    pub functions: BTreeMap<Bdf, Function>,
    /// Every IOMMU group by number.
    pub groups: BTreeMap<GroupId, Group>,
    /// The IOMMUs of `/sys/class/iommu`; empty where none is in use.
    pub iommus: Vec<IommuUnit>,
    /// Whether `/dev/iommu` exists (iommufd).
    pub has_iommufd: bool,
    /// What the kernel and the firmware say of the host as a whole.
    pub host: HostState,
}

/// The number of an IOMMU group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct GroupId(pub u32);

/// An IOMMU group: the smallest set of functions that the IOMMU can tell from others.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Its members that are PCI functions of the domains 0000 to ffff.
    pub members: Vec<Bdf>,
    /// The names of all other members. Whoever counts members counts these too.
    pub other_members: Vec<String>,
    /// `type`: `DMA`, `DMA-FQ`, `identity`, `blocked`, …; `unknown` where the kernel does not tell.
    pub domain_type: String,
    /// The windows of addresses that must not be mapped.
    pub reserved: Vec<ReservedRegion>,
    /// There is no `reserved_regions`, so that nobody knows the windows.
    pub is_reserved_unread: bool,
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
    /// `driver_override`, where set; not read of a function that a driver of the host has.
    pub driver_override: Option<String>,
    /// The PF whose VF it is.
    pub physfn: Option<Bdf>,
    /// Its IOMMU group.
    pub group: Option<GroupId>,
    /// The NUMA node; `None` where the host knows none (-1).
    pub numa_node: Option<u32>,
    /// BARs 0 to 5 as `resource` shows them.
    pub bars: [Option<HostBar>; 6],
    /// There is no `resource`, or it is empty, so that nobody knows the BARs and the ROM.
    pub is_resource_unread: bool,
    /// The words of `reset_method`, in order; empty where the kernel cannot reset it, or does not tell.
    pub reset_methods: Vec<String>,
    /// Whether there is a `reset_method`.
    pub has_reset_method: bool,
    /// The name of its device node, e.g. `vfio3`, where the function is bound to a VFIO driver and
    /// `/dev/vfio/devices/vfio3` exists. (A kernel without device nodes shows the name under `vfio-dev` all the same.)
    pub vfio_cdev: Option<String>,
    /// The interrupts it offers, read from configuration space.
    pub interrupts: Interrupts,
    /// The bridge right above it; `None` on a root bus.
    pub parent: Option<Bdf>,
    /// The rest of what configuration space tells.
    pub config: ConfigFacts,
    /// Its VFs; `None` where it cannot have any.
    pub sriov: Option<Sriov>,
    /// The expansion ROM.
    pub rom: Option<HostBar>,
    /// The version that the module of its driver states, where it states one.
    pub driver_version: Option<String>,
    /// Names of the host's network interfaces that it carries.
    pub interfaces: Vec<String>,
    /// Names of the host's NVMe controllers that it carries.
    pub controllers: Vec<String>,
    /// Errors that the kernel has counted; `None` where it does not count for this function.
    pub errors: Option<ErrorCounts>,
    /// The link in the kernel's words, such as `8.0 GT/s PCIe` and `8`.
    pub link: Option<Link>,
    /// Of a VF of a NIC, what its PF's driver enforces on it: one for each interface of the PF that tells of VFs.
    pub policies: Vec<InterfacePolicy>,
}

/// What an interface of a PF says of one of the VFs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfacePolicy {
    /// The interface.
    pub interface: String,
    /// What it says.
    pub enforced: Enforced,
}

/// What is known of a VF's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Enforced {
    /// The driver told it.
    Told(VfPolicy),
    /// It could not be read, or is malformed: the reason.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// What a NIC's driver lets a VF do, as `ip link show` prints it; `None` for what the driver does not tell.
///
/// *Source:* `include/uapi/linux/if_link.h`, `IFLA_VF_*` (v6.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct VfPolicy {
    /// The number of the VF, from 0: that of the PF's link `virtfnN`.
    pub index: u32,
    /// Its address; `None` where it is of zeros: the VF's own driver chooses one. With some drivers, one that an earlier
    /// guest chose looks the same as one that the host has set.
    pub mac: Option<Mac>,
    /// The VLAN it is put into; 0 for none.
    pub vlan: Option<u32>,
    /// The priority that its VLAN tag gets.
    pub qos: Option<u32>,
    /// Of what protocol the tag is; `None` where the VLAN is not told.
    pub vlan_proto: Option<VlanProto>,
    /// Frames with a source address that is not its own are dropped.
    pub spoof_check: Option<bool>,
    /// It may do what concerns others: receive everything, change its address.
    pub trusted: Option<bool>,
    /// It may read how the PF spreads packets over queues, with the key.
    pub rss_query: Option<bool>,
    /// What it sees of the link.
    pub link: Option<LinkPolicy>,
    /// The rate it is promised, in Mbit/s; 0 for none.
    pub min_tx_mbps: Option<u32>,
    /// The rate it is held to, in Mbit/s; 0 for none.
    pub max_tx_mbps: Option<u32>,
}

/// Single Root I/O Virtualization, from sysfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sriov {
    /// `sriov_totalvfs`.
    pub total: u32,
    /// `sriov_numvfs`.
    pub enabled: u32,
    /// `sriov_drivers_autoprobe`: the host's drivers take new VFs.
    pub is_probed: bool,
}

/// Totals of `aer_dev_correctable`, `aer_dev_nonfatal` and `aer_dev_fatal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ErrorCounts {
    /// Corrected by hardware.
    pub correctable: u64,
    /// Uncorrectable; the link still works.
    pub nonfatal: u64,
    /// Uncorrectable; the link does not work.
    pub fatal: u64,
}

/// `current_link_speed` and `current_link_width`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// As the kernel words it.
    pub speed: String,
    /// Lanes.
    pub width: String,
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

#[cfg(test)]
#[path = "topology_test.rs"]
mod tests;
