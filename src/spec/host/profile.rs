//! Profiles: what is particular to a family of devices, as data. `hw-configs/README.md` describes them for operators.

use std::{collections::BTreeSet, fmt};

use iommu::topology::{LinkPolicy, VlanProto};
use serde::{Deserialize, Serialize};

use super::types::{Kind, Mbps};

/// What is particular to a family of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name, as the host file names it.
    pub name: String,
    /// The devices, in words.
    pub title: String,
    /// Where its facts come from.
    pub origin: Origin,
    /// What it was run on; empty unless it was.
    pub tested: Vec<String>,
    /// What its facts were read from.
    pub sources: Vec<String>,
    /// Which PFs it is for.
    pub matches: ProfileMatch,
    /// What there is to know of the number of VFs.
    pub count: CountRules,
    /// What comes before what.
    pub order: OrderRules,
    /// What can be set on a VF.
    pub attributes: AttributeRules,
    /// What the family does that no other field tells.
    pub quirks: BTreeSet<Quirk>,
    /// What there is to know of its secondary controllers; only of `Kind::Nvme`.
    pub nvme: Option<NvmeRules>,
}

/// Where the facts of a profile come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// It was run in the lab, on what `tested` names.
    RunInTheLab,
    /// It was written from documents and sources; nothing of it was run.
    WrittenFromDocuments,
    /// Nothing is known: the worse is taken for true.
    Assumed,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RunInTheLab => "run in the lab",
            Self::WrittenFromDocuments => "written from documents",
            Self::Assumed => "assumed",
        })
    }
}

/// Which PFs a profile is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileMatch {
    /// What they are.
    pub kind: Kind,
    /// The driver of the PF; empty where ids alone decide.
    pub driver: String,
    /// Vendor and device; empty for all that the driver takes.
    pub ids: BTreeSet<(u16, u16)>,
}

/// What there is to know of the number of VFs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountRules {
    /// The most that the driver makes, besides `sriov_totalvfs`.
    pub max_vfs: Option<u32>,
    /// From one number to another it goes by 0 only.
    pub through_zero: bool,
    /// A change of the number takes all VFs away.
    pub destroys_all: bool,
    /// The PF's own traffic stops while the number changes.
    pub interrupts_pf: bool,
    /// How long the PF takes until it is again what it was.
    pub settle_ms: u32,
}

/// What comes before what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderRules {
    /// The PF's link is set up before its VFs are made.
    pub pf_up_before_vfs: bool,
    /// Drivers of the host are kept from new VFs.
    pub autoprobe_off: bool,
    /// A secondary controller has its resources before it comes online.
    pub resources_before_online: bool,
}

/// An attribute of a VF, as one message of rtnetlink sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribute {
    /// `spoofchk`.
    Spoofchk,
    /// `trust`.
    Trust,
    /// `query_rss`.
    QueryRss,
    /// `mac`.
    Mac,
    /// `vlan`, with `qos` and `vlan_proto`.
    Vlan,
    /// `min_tx_rate` and `max_tx_rate`.
    Rate,
    /// `state`.
    State,
}

impl Attribute {
    /// All of them, with the words of profiles.
    pub(super) const WORDS: [(&'static str, Self); 7] = [
        ("spoofchk", Self::Spoofchk),
        ("trust", Self::Trust),
        ("query_rss", Self::QueryRss),
        ("mac", Self::Mac),
        ("vlan", Self::Vlan),
        ("rate", Self::Rate),
        ("state", Self::State),
    ];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, which)| *which == self);
        found.map_or("", |(word, _)| word)
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What can be set on a VF; all else is left alone, and a wish for it is refused unless it is what is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of a driver"
)]
pub struct AttributeRules {
    /// An address.
    pub mac: bool,
    /// The address taken away again.
    pub clear_mac: bool,
    /// A VLAN, with tags of these protocols.
    pub vlan: Vec<VlanProto>,
    /// The spoof check.
    pub spoofchk: bool,
    /// Trust.
    pub trust: bool,
    /// Whether it may ask for the RSS key.
    pub query_rss: bool,
    /// What it sees of the link: these.
    pub state: Vec<LinkPolicy>,
    /// A promised rate.
    pub min_tx_rate: bool,
    /// A limit of its rate.
    pub max_tx_rate: Option<RateRules>,
    /// What may be set while a guest has the VF.
    pub live: BTreeSet<Attribute>,
    /// What resets the VF when it is set; never in `live`.
    pub reset_by: BTreeSet<Attribute>,
}

impl AttributeRules {
    /// Whether any value of `attribute` can be set.
    #[must_use]
    pub fn has(&self, attribute: Attribute) -> bool {
        match attribute {
            Attribute::Spoofchk => self.spoofchk,
            Attribute::Trust => self.trust,
            Attribute::QueryRss => self.query_rss,
            Attribute::Mac => self.mac,
            Attribute::Vlan => !self.vlan.is_empty(),
            Attribute::Rate => self.min_tx_rate || self.max_tx_rate.is_some(),
            Attribute::State => !self.state.is_empty(),
        }
    }
}

/// What limits a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRules {
    /// It is a multiple of this; at least 1.
    pub granularity: Mbps,
    /// The PF's link has to be up while it is set.
    pub needs_link: bool,
    /// It is not above the link's.
    pub at_most_link: bool,
}

/// What there is to know of secondary controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NvmeRules {
    /// Whether they attach and detach namespaces themselves.
    pub secondary_manages: Manages,
}

/// Whether a secondary controller's Namespace Attachment is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manages {
    /// It is not: a guest keeps to what it was given.
    Refused,
    /// It is: a guest reaches every namespace of the subsystem.
    Accepted,
    /// Nobody has looked.
    Unknown,
}

/// What a family does that no other field tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quirk {
    /// A rate is lost when the PF's link changes its speed.
    RateLostOnLinkChange,
    /// VFs stay in reset until the PF is up.
    SilentUntilUp,
    /// An address that the host has not set is lost when the VF is reset.
    ResetClearsUnsetMac,
    /// A rate is taken only on a link of 10 Gbit/s, and above 10 Mbit/s.
    RateNeedsTenGigabit,
    /// Link state `enable` is taken and not carried out.
    StateEnableIgnored,
    /// Orders are refused for a while after the VF was reset.
    BusyWhileInReset,
    /// An address is not taken away while the spoof check is on.
    ClearMacNeedsSpoofchkOff,
    /// Attributes can be set while the eswitch is in legacy mode only.
    LegacyEswitchOnly,
    /// A promised rate cannot be set while DCB is on.
    MinRateNotWithDcb,
    /// The firmware has the limit of VFs, and a change of it needs a reboot.
    VfsByFirmware,
    /// A reset of the primary controller takes all secondaries offline, and their resources.
    PrimaryResetTakesAll,
    /// The VF's MSI-X table has its new size after a reset of its function only.
    VectorsFollowFunctionReset,
    /// Namespaces stay attached to a controller whose VF is gone.
    AttachmentsOutliveVfs,
    /// Format erases all the same whatever secure erase is asked for.
    FormatIgnoresErase,
    /// The total and free capacity are told as 0, which means nothing.
    CapacityUntold,
}

impl Quirk {
    /// All of them, with the words of profiles and what they mean.
    pub const TABLE: [(&'static str, Self, &'static str); 15] = [
        (
            "rate-lost-on-link-change",
            Self::RateLostOnLinkChange,
            "a rate is lost when the PF's link changes its speed",
        ),
        (
            "silent-until-up",
            Self::SilentUntilUp,
            "VFs stay in reset until the PF is up",
        ),
        (
            "reset-clears-unset-mac",
            Self::ResetClearsUnsetMac,
            "an address that the host has not set is lost when the VF is reset",
        ),
        (
            "rate-needs-ten-gigabit",
            Self::RateNeedsTenGigabit,
            "a rate is taken only on a link of 10 Gbit/s, and above 10 Mbit/s",
        ),
        (
            "state-enable-ignored",
            Self::StateEnableIgnored,
            "link state `enable` is taken and not carried out",
        ),
        (
            "busy-while-in-reset",
            Self::BusyWhileInReset,
            "orders are refused for a while after the VF was reset",
        ),
        (
            "clear-mac-needs-spoofchk-off",
            Self::ClearMacNeedsSpoofchkOff,
            "an address is not taken away while the spoof check is on",
        ),
        (
            "legacy-eswitch-only",
            Self::LegacyEswitchOnly,
            "attributes can be set while the eswitch is in legacy mode only",
        ),
        (
            "min-rate-not-with-dcb",
            Self::MinRateNotWithDcb,
            "a promised rate cannot be set while DCB is on",
        ),
        (
            "vfs-by-firmware",
            Self::VfsByFirmware,
            "the firmware has the limit of VFs, and a change of it needs a reboot",
        ),
        (
            "primary-reset-takes-all",
            Self::PrimaryResetTakesAll,
            "a reset of the primary controller takes all secondaries offline, and their resources",
        ),
        (
            "vectors-follow-function-reset",
            Self::VectorsFollowFunctionReset,
            "the VF's MSI-X table has its new size after a reset of its function only",
        ),
        (
            "attachments-outlive-vfs",
            Self::AttachmentsOutliveVfs,
            "namespaces stay attached to a controller whose VF is gone",
        ),
        (
            "format-ignores-erase",
            Self::FormatIgnoresErase,
            "Format erases all the same whatever secure erase is asked for",
        ),
        (
            "capacity-untold",
            Self::CapacityUntold,
            "the total and free capacity are told as 0, which means nothing",
        ),
    ];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        let found = Self::TABLE.iter().find(|(_, which, _)| *which == self);
        found.map_or("", |(word, ..)| word)
    }
}
