//! What the machine has, as read at one moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use iommu::{
    bdf::Bdf,
    topology::{LinkPolicy, Mac},
};
use serde::{Deserialize, Serialize};

use crate::spec::host::{Eswitch, Mbps, Vlan};

/// The machine's PFs, and who uses them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Observed {
    /// All functions with an SR-IOV capability.
    pub pfs: BTreeMap<Bdf, PfFacts>,
    /// What the host does with them.
    pub uses: Uses,
    /// What other managers say that they own.
    pub managers: Vec<Managed>,
    /// The boot's id.
    pub boot: String,
    /// NUMA nodes that are online.
    pub nodes: Vec<u32>,
    /// Addresses of all the host's interfaces that are no VFs of these PFs: a VF must not get one of them.
    pub macs: BTreeSet<Mac>,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

/// A PF.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PfFacts {
    /// Its address.
    pub bdf: Bdf,
    /// What tells the same card again after its address has changed, or another card at this address.
    pub anchor: Anchor,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// Its NUMA node.
    pub numa: Option<u32>,
    /// The root it is below: `pci0000:00`.
    pub root: String,
    /// `sriov_totalvfs`.
    pub total: u32,
    /// `sriov_numvfs`.
    pub count: u32,
    /// `sriov_drivers_autoprobe`; `None` on a kernel without it.
    pub is_probed: Option<bool>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// What it is.
    pub kind: KindFacts,
    /// Its VFs, in the order of their indexes, from 0 without a gap.
    pub vfs: Vec<VfFacts>,
}

impl PfFacts {
    /// As a NIC.
    #[must_use]
    pub fn nic(&self) -> Option<&NicFacts> {
        match &self.kind {
            KindFacts::Nic(nic) => Some(nic),
            KindFacts::Nvme(_) | KindFacts::Other => None,
        }
    }

    /// As an NVMe controller.
    #[must_use]
    pub fn nvme(&self) -> Option<&NvmeFacts> {
        match &self.kind {
            KindFacts::Nvme(nvme) => Some(nvme),
            KindFacts::Nic(_) | KindFacts::Other => None,
        }
    }
}

/// What a PF is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KindFacts {
    /// A NIC: class 02.
    Nic(NicFacts),
    /// An NVMe controller: class 0108.
    Nvme(NvmeFacts),
    /// Something else, or something without its driver.
    Other,
}

/// What tells a card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anchor {
    /// The permanent address of the NIC's port.
    Mac(Mac),
    /// The controller's serial number.
    Serial(String),
    /// Nothing but its address.
    Slot(Bdf),
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => write!(f, "address {mac}"),
            Self::Serial(serial) => write!(f, "serial number {serial}"),
            Self::Slot(bdf) => write!(f, "whatever is at {bdf}"),
        }
    }
}

/// A NIC's port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NicFacts {
    /// Its network interface; `None` in another network namespace, or without its driver.
    pub interface: Option<String>,
    /// `dev_port`.
    pub port: Option<u32>,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Whether it has a link.
    pub has_carrier: bool,
    /// The link's speed; `None` where the driver does not tell.
    pub link: Option<Mbps>,
    /// The mode of its switch; `None` where it has none.
    pub eswitch: Option<Eswitch>,
    /// Its present address.
    pub address: Option<Mac>,
}

/// A VF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VfFacts {
    /// Its index: N of `virtfnN`.
    pub index: u32,
    /// Its address.
    pub bdf: Bdf,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// Its `driver_override`.
    pub driver_override: Option<String>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// How many functions the group has.
    pub group_size: u32,
    /// Its network interfaces on the host.
    pub interfaces: Vec<String>,
    /// What the PF holds it to.
    pub nic: Option<NicAttributes>,
}

/// What the PF holds a VF to; `None` for what the driver does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NicAttributes {
    /// Its address; `None` where it is of zeros, too.
    pub mac: Option<Mac>,
    /// Its VLAN.
    pub vlan: Option<Vlan>,
    /// Frames with another source address are dropped.
    pub spoofchk: Option<bool>,
    /// It may do what concerns others.
    pub trust: Option<bool>,
    /// It may read how packets are spread.
    pub query_rss: Option<bool>,
    /// What it sees of the link.
    pub state: Option<LinkPolicy>,
    /// Promised rate; 0 for none.
    pub min_tx: Option<Mbps>,
    /// Highest rate; 0 for none.
    pub max_tx: Option<Mbps>,
}

/// An NVMe subsystem, as its primary controller tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NvmeFacts {
    /// `nvme0`.
    pub controller: String,
    /// CNTLID.
    pub cntlid: u16,
    /// Serial number.
    pub serial: String,
    /// Model number.
    pub model: String,
    /// The subsystem's name.
    pub subnqn: String,
    /// TNVMCAP in bytes; 0 where it is not told.
    pub capacity: u128,
    /// UNVMCAP in bytes.
    pub unallocated: u128,
    /// What it can do.
    pub can: NvmeCan,
    /// Its flexible resources; `None` where it has none.
    pub flexible: Option<Flexible>,
    /// Its secondary controllers.
    pub secondaries: Vec<Secondary>,
    /// All allocated namespaces of the subsystem, by id.
    pub namespaces: BTreeMap<u32, Namespace>,
}

/// What a controller can do: by the log of supported commands where it keeps one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "seven independent abilities of a controller"
)]
pub struct NvmeCan {
    /// Create and delete namespaces (0Dh).
    pub manage: bool,
    /// Attach and detach them (15h).
    pub attach: bool,
    /// Manage secondary controllers (1Ch).
    pub virt: bool,
    /// Format NVM (80h).
    pub format: bool,
    /// Format with cryptographic erase (FNA bit 2).
    pub crypto: bool,
    /// A format concerns all namespaces (FNA bit 0).
    pub format_all: bool,
    /// An erase concerns all namespaces (FNA bit 1).
    pub erase_all: bool,
}

/// Resources that can be moved between primary and secondary controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flexible {
    /// Queues.
    pub vq: Resource,
    /// Interrupts.
    pub vi: Resource,
}

/// One kind of flexible resource; of the primary controller capabilities structure (CNS 14h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resource {
    /// `VxFRT`: all.
    pub total: u32,
    /// `VxRFA`: assigned to secondary controllers.
    pub assigned: u32,
    /// `VxRFAP`: given to the primary controller.
    pub to_primary: u16,
    /// `VxPRT`: the primary's own.
    pub private: u16,
    /// `VxFRSM`: at most for one secondary controller.
    pub most: u16,
    /// `VxGRAN`: how many at a time.
    pub granularity: u16,
}

/// A secondary controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secondary {
    /// SCID.
    pub cntlid: u16,
    /// VFN, from 1; 0 where it has no function. The VF's index is one less.
    pub vf: u16,
    /// Whether it is online.
    pub is_online: bool,
    /// Its VQ resources.
    pub queues: u16,
    /// Its VI resources.
    pub vectors: u16,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespace {
    /// Size in bytes.
    pub size: u64,
    /// Block size in bytes.
    pub block: u32,
    /// Bytes of metadata of each block.
    #[serde(default)]
    pub metadata: u16,
    /// DPS bits 2:0: how it is protected end to end; 0 for not at all.
    #[serde(default)]
    pub protection: u8,
    /// NMIC bit 0: several controllers may have it.
    pub is_shared: bool,
    /// Its identity.
    pub id: NamespaceId,
    /// CNTLIDs of the controllers that it is attached to.
    pub attached: BTreeSet<u16>,
    /// The host's block device of it, seen through the primary controller.
    pub block_device: Option<String>,
}

impl Namespace {
    /// The format that it has now.
    #[must_use]
    pub const fn format(&self) -> NamespaceFormat {
        NamespaceFormat {
            size: self.size,
            block: self.block,
            metadata: self.metadata,
            protection: self.protection,
        }
    }
}

/// How a namespace is laid out. Whoever has it can change that, and no reset and no detaching changes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespaceFormat {
    /// Size in bytes.
    pub size: u64,
    /// Block size in bytes.
    pub block: u32,
    /// Bytes of metadata of each block.
    #[serde(default)]
    pub metadata: u16,
    /// DPS bits 2:0: how it is protected end to end; 0 for not at all.
    #[serde(default)]
    pub protection: u8,
}

impl fmt::Display for NamespaceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in blocks of {}", self.size, self.block)?;
        if (self.metadata, self.protection) == (0, 0) {
            return Ok(());
        }
        write!(
            f,
            " with {} bytes of metadata, protection {}",
            self.metadata, self.protection
        )
    }
}

/// What tells a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamespaceId {
    /// NGUID, 32 hexadecimal digits.
    Nguid(String),
    /// EUI64, 16 hexadecimal digits.
    Eui64(String),
    /// It has neither.
    None,
}

/// What the host does with devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Uses {
    /// Interfaces with a default route, those below bonds, bridges and VLANs included.
    pub default_routes: Vec<Use>,
    /// Interfaces with another route.
    pub routes: Vec<Use>,
    /// Interfaces with an address.
    pub addresses: Vec<Use>,
    /// Interfaces through which the operator is logged in.
    pub logins: Vec<Use>,
    /// Namespaces under `/`, `/boot` or swap.
    pub roots: Vec<Use>,
    /// Namespaces that are mounted elsewhere.
    pub mounts: Vec<Use>,
    /// Namespaces that a process or another block device holds.
    pub open: Vec<Use>,
    /// Interfaces that are part of a bond, a bridge, or carry a VLAN.
    pub uppers: Vec<Use>,
}

/// One use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// Of what.
    pub of: Used,
    /// By whom: `default via 10.0.0.1`, `mounted at /srv`, `process 812 (dd)`.
    pub who: String,
    /// Where that was read.
    pub source: String,
}

/// What is used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Used {
    /// A network interface.
    Interface(String),
    /// A namespace as a block device of the host.
    Namespace {
        /// The controller, `nvme0`.
        controller: String,
        /// The id.
        nsid: u32,
    },
    /// A whole controller: which namespace is not known.
    Controller(String),
}

/// What another manager says that it owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Managed {
    /// The PF or VF; with a file that names what is ambiguous, one entry for each that it may mean.
    pub bdf: Bdf,
    /// `NetworkManager`, `netplan`, …
    pub manager: String,
    /// Which of its files says so.
    pub source: String,
    /// How many VFs it wants there.
    pub count: Option<u32>,
}

/// What could not be read: every check that needs it refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// The place.
    pub place: String,
    /// Why.
    pub reason: String,
    /// Of which PF; `None` where it concerns all.
    pub bdf: Option<Bdf>,
}
