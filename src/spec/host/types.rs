//! What the host file says, once every value has been checked on its own and against the rest of the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    time::Duration,
};

use iommu::{
    addr::ByteLen,
    bdf::Bdf,
    topology::{LinkPolicy, Mac, VlanProto},
};
use serde::{Deserialize, Serialize};

use crate::error::{Location, Report};

/// A host file whose values are well-formed and do not contradict each other; whether the machine can satisfy it is not
/// known yet.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// The file, as the operator named it.
    pub file: PathBuf,
    /// Its text: what was applied is kept whole.
    pub text: String,
    /// How long `apply` waits for a confirmation where the command line does not say it.
    pub confirm_within: Option<Duration>,
    /// Which interlocks hold.
    pub safety: Safety,
    /// The pools, in the order of the file; names are unique.
    pub pools: Vec<Pool>,
    /// The PFs, in the order of the file.
    pub pfs: Vec<PfSpec>,
    /// Files of profiles besides the built-in ones.
    pub profiles: Vec<(PathBuf, Location)>,
    /// What the file wishes and should not: `pool-weak`, `safety-off`.
    pub warnings: Vec<Report>,
}

impl HostSpec {
    /// The pool of this name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }
}

/// Which interlocks hold for the whole host; all do unless the file says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "five independent switches of the file"
)]
pub struct Safety {
    /// Nothing that interrupts the PF of the default route.
    pub protect_default_route: bool,
    /// Nothing that interrupts the PF through which the operator is logged in.
    pub protect_login: bool,
    /// Nothing that takes away a mounted, swapped to, or opened namespace.
    pub protect_disks: bool,
    /// Nothing that another manager owns.
    pub forbid_other_managers: bool,
    /// A warning for each VF that shares its IOMMU group; a lease of it is refused in any case.
    pub require_singleton_group: bool,
}

impl Default for Safety {
    fn default() -> Self {
        Self {
            protect_default_route: true,
            protect_login: true,
            protect_disks: true,
            forbid_other_managers: true,
            require_singleton_group: true,
        }
    }
}

/// VFs that are handed out by one name, and the policy that they have in common.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name, as unique as a guest's.
    pub name: String,
    /// Where the file names it.
    pub place: Location,
    /// What its VFs are.
    pub policy: PoolPolicy,
    /// Findings that are accepted for guests with its VFs.
    pub accept: BTreeSet<PoolOptOut>,
    /// How many of its VFs are never handed out.
    pub reserve: u32,
}

impl Pool {
    /// What its VFs are.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.policy {
            PoolPolicy::Nic(_) => Kind::Nic,
            PoolPolicy::Nvme(_) => Kind::Nvme,
        }
    }

    /// Its policy, if its VFs are of NICs.
    #[must_use]
    pub fn nic(&self) -> Option<&NicPolicy> {
        match &self.policy {
            PoolPolicy::Nic(policy) => Some(policy),
            PoolPolicy::Nvme(_) => None,
        }
    }

    /// Its policy, if its VFs are of NVMe drives.
    #[must_use]
    pub fn nvme(&self) -> Option<&NvmePolicy> {
        match &self.policy {
            PoolPolicy::Nic(_) => None,
            PoolPolicy::Nvme(policy) => Some(policy),
        }
    }
}

/// A pool's policy, by what its VFs are.
#[derive(Clone, Debug)]
pub enum PoolPolicy {
    /// Of a NIC.
    Nic(NicPolicy),
    /// Of an NVMe subsystem.
    Nvme(NvmePolicy),
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A NIC.
    Nic,
    /// An NVMe controller.
    Nvme,
}

impl Kind {
    /// Several of them, in words.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Nic => "NICs",
            Self::Nvme => "NVMe drives",
        }
    }
}

/// When VLAN, rates and link state of a pool are in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// While a guest has the VF.
    #[default]
    Lease,
    /// As long as the VF is there.
    Always,
}

/// What a VF of a NIC is set to; the words of iproute2.
#[derive(Clone, Debug)]
pub struct NicPolicy {
    /// When VLAN, rates and link state are in force.
    pub hold: Hold,
    /// Its address.
    pub mac: MacChoice,
    /// The VLAN it is put into.
    pub vlan: Vlan,
    /// Frames with a source address that is not its own are dropped.
    pub spoofchk: bool,
    /// It may do what concerns others.
    pub trust: bool,
    /// What it sees of the link.
    pub state: LinkPolicy,
    /// The rate it is promised; 0 for none.
    pub min_tx: Mbps,
    /// The rate it is held to; 0 for none.
    pub max_tx: Mbps,
    /// It may read how the PF spreads packets over queues.
    pub query_rss: bool,
    /// Where the file says it.
    pub places: NicPlaces,
}

/// Where the file sets an attribute; the pool's place where it leaves the default.
#[derive(Clone, Debug)]
pub struct NicPlaces {
    /// The pool, or the `[[pf.vf]]`.
    pub whole: Location,
    /// By key: `mac`, `vlan`, `spoofchk`, …
    pub keys: BTreeMap<&'static str, Location>,
}

impl NicPlaces {
    /// Where `key` stands, or the table it would stand in.
    #[must_use]
    pub fn of(&self, key: &str) -> &Location {
        self.keys.get(key).unwrap_or(&self.whole)
    }
}

/// How a VF comes by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacChoice {
    /// This one.
    Fixed(Mac),
    /// The lowest free one of these, kept.
    Range(MacRange),
    /// A locally administered one, made from the host's seed, kept.
    Generated,
    /// None: the guest's driver chooses.
    None,
}

/// Addresses from `first` to `last`, both included, alike in their upper 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacRange {
    /// The lowest.
    pub first: Mac,
    /// The highest.
    pub last: Mac,
}

/// A VLAN tag that the NIC gives a VF's frames, invisibly for the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// 1 to 4094; 0 for none.
    pub id: u16,
    /// 0 to 7; 0 where `id` is.
    pub qos: u8,
    /// The tag's protocol; 802.1Q where `id` is 0.
    pub proto: VlanProto,
}

impl Vlan {
    /// No VLAN.
    pub const NONE: Self = Self {
        id: 0,
        qos: 0,
        proto: VlanProto::Dot1Q,
    };
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.id, self.qos, self.proto) {
            (0, ..) => f.write_str("none"),
            (id, 0, VlanProto::Dot1Q) => write!(f, "{id}"),
            (id, qos, VlanProto::Dot1Q) => write!(f, "{id} qos {qos}"),
            (id, qos, VlanProto::Dot1Ad) => write!(f, "{id} qos {qos} 802.1ad"),
        }
    }
}

/// A rate in Mbit/s (1,000,000 bits).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Mbps(pub u32);

impl fmt::Display for Mbps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Mbit/s", self.0)
    }
}

/// What a secondary controller is given, and what becomes of its namespaces.
#[derive(Clone, Debug)]
pub struct NvmePolicy {
    /// Queue pairs with the admin queue's (VQ resources), at least 2.
    pub queues: u16,
    /// Interrupt vectors (VI resources), at least 1.
    pub vectors: u16,
    /// How a namespace is erased when its VF comes back.
    pub erase: Eraser,
    /// Where the file says it: `queues`, `vectors`, `erase`.
    pub places: NicPlaces,
}

/// How a namespace is erased between guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Eraser {
    /// Not at all.
    None,
    /// The first of the next three that the controller can do for one namespace alone.
    #[default]
    Auto,
    /// Format with cryptographic erase.
    Crypto,
    /// Format with user data erase.
    Format,
    /// Writing zeros to every block.
    Overwrite,
}

/// A finding that a pool may accept by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolOptOut {
    /// A guest with the VF can attach and detach namespaces of the whole subsystem.
    NvmeVfManages,
}

/// A PF, and what becomes of its VFs.
#[derive(Clone, Debug)]
pub struct PfSpec {
    /// Which one.
    pub match_by: PfMatch,
    /// Where the file names it.
    pub place: Location,
    /// The profile to use where the ids are not to choose it.
    pub profile: Option<(String, Location)>,
    /// How many VFs.
    pub vfs: u32,
    /// Where the file says how many.
    pub vfs_place: Location,
    /// The pool of each VF that is in one, by index; all indexes are below `vfs`, all names are of pools of the file.
    pub pools: BTreeMap<u32, PoolRef>,
    /// What single VFs have different from their pool.
    pub overrides: BTreeMap<u32, Overrides>,
    /// Namespaces, with names unique in this PF.
    pub namespaces: Vec<NamespaceSpec>,
    /// Whether VFs that another manager made are taken over.
    pub adopt: bool,
    /// The switch in the NIC.
    pub eswitch: Option<Eswitch>,
    /// Whether its link is set up first; by the profile where the file is silent.
    pub up: Option<bool>,
    /// Interlocks that do not hold for it.
    pub accept: BTreeSet<Interlock>,
}

/// A pool, by the name that one place of the file gives it.
#[derive(Clone, Debug)]
pub struct PoolRef {
    /// Its name.
    pub name: String,
    /// The place.
    pub place: Location,
}

/// How the file names a PF.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PfMatch {
    /// By address.
    Bdf(Bdf),
    /// By the name of its network interface.
    Interface(String),
    /// By NIC profile and the number of its port, from 0: `dev_port`, or the function's number.
    Port {
        /// The profile.
        profile: String,
        /// The port.
        port: u32,
    },
    /// By the serial number of its NVMe controller.
    Serial(String),
}

impl fmt::Display for PfMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bdf(bdf) => write!(f, "bdf {bdf}"),
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Port { profile, port } => write!(f, "port {port} of a {profile}"),
            Self::Serial(serial) => write!(f, "serial {serial}"),
        }
    }
}

/// What one VF has different from its pool: `None` leaves the pool's.
#[derive(Clone, Debug)]
pub struct Overrides {
    /// Its address.
    pub mac: Option<Mac>,
    /// VLAN, priority and protocol.
    pub vlan: Option<Vlan>,
    /// As in the pool.
    pub spoofchk: Option<bool>,
    /// As in the pool.
    pub trust: Option<bool>,
    /// As in the pool.
    pub state: Option<LinkPolicy>,
    /// As in the pool.
    pub min_tx: Option<Mbps>,
    /// As in the pool.
    pub max_tx: Option<Mbps>,
    /// As in the pool.
    pub query_rss: Option<bool>,
    /// As in the pool.
    pub queues: Option<u16>,
    /// As in the pool.
    pub vectors: Option<u16>,
    /// Where the file says it.
    pub places: NicPlaces,
}

/// A namespace of a PF's NVMe subsystem, and who sees it.
#[derive(Clone, Debug)]
pub struct NamespaceSpec {
    /// Its name in this file.
    pub name: String,
    /// Where the file names it.
    pub place: Location,
    /// Where it comes from.
    pub from: NamespaceFrom,
    /// Which VFs see it.
    pub to: NamespaceFor,
    /// Whether several controllers may see it.
    pub shared: bool,
}

/// Where a namespace comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceFrom {
    /// It is there.
    Existing {
        /// Its id, from 1.
        nsid: u32,
    },
    /// It is made.
    Created {
        /// Its size in bytes.
        size: ByteLen,
        /// Its block size; the controller's present format where the file is silent.
        block: Option<BlockSize>,
    },
}

/// The size of a logical block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockSize {
    /// 512 bytes.
    #[serde(rename = "512")]
    B512,
    /// 4096 bytes.
    #[serde(rename = "4096")]
    B4096,
}

/// Which VFs see a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceFor {
    /// These, by index; one unless it is shared.
    Vfs(BTreeSet<u32>),
    /// One for each VF of the pool, made with the name `NAME-INDEX`.
    Pool(String),
}

/// The mode of the switch in a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Eswitch {
    /// The words of iproute2 hold.
    Legacy,
    /// Ports have representors.
    Switchdev,
}

/// What stands in the way of a step on a device that the host itself, or somebody else, uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interlock {
    /// The PF carries a default route.
    PfDefaultRoute,
    /// The PF carries the host's only default route.
    PfOnlyRoute,
    /// The operator is logged in through the PF.
    PfLogin,
    /// The root disk, or swap, is on the controller.
    PfRootDisk,
    /// A namespace is mounted.
    PfMounted,
    /// A namespace is open, or held by another block device.
    NamespaceOpen,
    /// The host uses the VF.
    VfHostUsed,
    /// A guest has the VF.
    VfInUse,
    /// The PF itself is assigned to user space.
    PfAssigned,
    /// Another manager owns the device.
    ManagedElsewhere,
    /// What the check needs could not be read.
    FactsUnread,
}
