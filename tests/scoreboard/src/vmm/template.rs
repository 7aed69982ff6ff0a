//! What a template says, `peers/NAME.toml`: how a VMM is started.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use crate::record::Guest;

/// The templates that there are, by name.
pub const TEMPLATES: &[(&str, &str)] = &[
    ("qemu", include_str!("../../peers/qemu.toml")),
    (
        "cloud-hypervisor",
        include_str!("../../peers/cloud-hypervisor.toml"),
    ),
    ("crosvm", include_str!("../../peers/crosvm.toml")),
    ("firecracker", include_str!("../../peers/firecracker.toml")),
    ("alioth", include_str!("../../peers/alioth.toml")),
    ("kvmtool", include_str!("../../peers/kvmtool.toml")),
];

/// How a VMM is started. A word of `words` that is `[initramfs]`, `[console]`, `[pages]`, `[context]` or `[devices]`
/// becomes the words of that table; placeholders are filled in everywhere.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Template {
    /// Its program, where no path is given.
    pub(super) program: String,
    /// The version that ran in the lab; empty where none did, and the template is from its documentation.
    pub(super) ran: String,
    /// The words that make it say its version.
    pub(super) version: Vec<String>,
    /// What is its standard input, where it wants a terminal there; else nothing is.
    #[serde(default)]
    pub(super) stdin: Option<PathBuf>,
    /// Kinds of devices that it cannot be given, each with the reason. Such a VMM takes part in the cases without them.
    #[serde(default)]
    pub(super) lacks: BTreeMap<Device, String>,
    /// Parts of the names that its mappings of guest RAM have.
    pub(super) ram: Vec<String>,
    /// What its guests' kernels want to hear besides.
    #[serde(default)]
    pub(super) cmdline: String,
    pub(super) words: Vec<String>,
    /// Words for the fences that it does not put up by itself; none where it has no such.
    #[serde(default)]
    pub(super) hardened: Vec<String>,
    #[serde(default)]
    pub(super) initramfs: Vec<String>,
    pub(super) console: Console,
    /// By pages; one that is not there is refused.
    pub(super) pages: BTreeMap<String, Vec<String>>,
    /// By interface, words that come once where there are devices.
    #[serde(default)]
    pub(super) context: BTreeMap<String, Vec<String>>,
    /// By interface, words for each device; an interface that is not there is refused.
    pub(super) devices: BTreeMap<String, Vec<String>>,
    /// A file that it reads, as `{scratch}/config`. A list in it is joined by commas.
    #[serde(default)]
    pub(super) config: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Console {
    pub(super) on: Vec<String>,
    pub(super) off: Vec<String>,
}

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Device {
    Nic,
    Nvme,
}

impl Device {
    /// How many of it a guest has.
    pub(super) const fn count(self, guest: &Guest) -> u32 {
        match self {
            Device::Nic => guest.nics,
            Device::Nvme => guest.nvmes,
        }
    }

    pub(super) const fn guests(self) -> &'static str {
        match self {
            Device::Nic => "guests with a VF of a NIC",
            Device::Nvme => "guests with a VF of an NVMe controller",
        }
    }
}
