//! What a measurement leaves: one record for each run of one VMM, and a board of all of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of the format of [`Board`].
pub const SCHEMA: u32 = 1;

/// Everything that one call of `scripts/bench` found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The day, as `YYYY-MM-DD`.
    pub date: String,
    /// The commit of Narrows, short, with `+` behind it where the tree had changes.
    pub commit: String,
    /// Whether it was a quick run: fewer runs and sizes.
    pub quick: bool,
    /// Where it was measured.
    pub machine: Machine,
    /// Who was measured, Narrows first.
    pub vmms: Vec<Vmm>,
    /// What was not measured, each with its reason.
    pub missing: Vec<String>,
    /// The runs.
    pub records: Vec<Record>,
}

/// The machine that emulated the lab host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its processor.
    pub processor: String,
    /// How many.
    pub cpus: u32,
    /// What emulates the lab host, with its version.
    pub emulator: String,
    /// The lab host's kernel, which is the guest's too.
    pub kernel: String,
}

/// A VMM that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vmm {
    /// As in [`Record::vmm`].
    pub name: String,
    /// What it says of its version, in one line.
    pub version: String,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// From power-on to the guest's first instruction in user space: memory, exits.
    Start,
    /// The same with every system call of the VMM traced.
    Calls,
    /// The same in a host whose clock counts instructions.
    Instructions,
    /// To the guest's first instruction, by size and pages of its memory.
    Mapping,
    /// A guest that is at work: one kind of work a window.
    Steady,
    /// Start and stop of a tiny guest, over and over.
    Life,
    /// What the running VMM may do.
    Surface,
    /// What it consists of. No run.
    Code,
}

/// A kernel interface to devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interface {
    /// `/dev/iommu` and a device's own node.
    Iommufd,
    /// A container and a group.
    Type1,
}

/// The pages of guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Pages {
    /// A shared memory file, with large pages where the kernel gives them.
    #[serde(rename = "default")]
    Default,
    /// A shared memory file on a host that gives no large pages.
    #[serde(rename = "4k")]
    Small,
    /// Reserved huge pages of 2 MiB.
    #[serde(rename = "2m")]
    TwoMib,
}

/// The guest that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// vCPUs.
    pub vcpus: u32,
    /// RAM in MiB.
    pub memory_mib: u32,
    /// Its pages.
    pub pages: Pages,
    /// VFs of the NIC.
    pub nics: u32,
    /// VFs of the NVMe controller.
    pub nvmes: u32,
    /// Whether it has a serial console, and the kernel writes there.
    pub console: bool,
}

/// One run of one VMM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What was measured.
    pub case: Case,
    /// The VMM's name, such as `narrows` or `qemu`.
    pub vmm: String,
    /// How it reached the devices; `None` where none was started.
    pub interface: Option<Interface>,
    /// The guest; `None` where none was started.
    pub guest: Option<Guest>,
    /// The run's number, from 1.
    pub run: u32,
    /// For [`Case::Steady`] the window's work, such as `nvme-read`; else empty.
    pub work: String,
    /// Figures by name: [`crate::figure::FIGURES`] has them all.
    pub figures: BTreeMap<String, f64>,
    /// Counts by kind and name: `exits` by reason, `user-exits` by reason, `calls` by system call.
    pub counts: BTreeMap<String, BTreeMap<String, u64>>,
}

/// A line of a file of records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// A run.
    Record(Record),
    /// Something that was not measured.
    Missing(Missing),
    /// A VMM that was measured.
    Vmm(Vmm),
}

/// What was not measured, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Missing {
    /// Both, in one sentence without a full stop.
    pub missing: String,
}
