//! What a process is meant to be: plain facts, filled from the tables that it was made by.

use std::path::PathBuf;

use jailed::{
    handoff::Handoff,
    manifest::{
        self, DescriptorKind, Instruction, MAX_CHECKS, Phase, Role as Jailed, Rule, Rules,
        descriptors, layer, limits, program, start_page,
    },
    ring::Layout,
};
use serde::{Deserialize, Serialize};

use crate::jail::seccomp::reasons;

/// Which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// S.
    Supervisor,
    /// D.
    Device,
    /// V.
    Vcpu,
}

/// What a descriptor leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The VM.
    KvmVm,
    /// The KVM-VFIO device.
    KvmVfio,
    /// The vCPU with this index.
    KvmVcpu(u32),
    /// A VFIO device, opened through its group or its own file.
    VfioDevice,
    /// An eventfd.
    Eventfd,
    /// The end of a pipe that is written.
    PipeIn,
    /// The end of a pipe that is read.
    PipeOut,
    /// What the kernel calls so: a path, or a word such as `anon_inode:[signalfd]`.
    Named(String),
    /// What the kernel calls so and a number: `socket:[17]`.
    Numbered(&'static str),
}

/// A descriptor that a process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedDescriptor {
    /// Its number.
    pub number: u32,
    /// What it leads to.
    pub kind: Kind,
}

/// A kind of mapping that a process may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedMap {
    /// What it is of.
    pub of: Mapped,
    /// The protections it may have: `rw-s`.
    pub protections: &'static [&'static str],
    /// Whether it is sealed.
    pub is_sealed: bool,
    /// How many bytes of it there are in all, where that is fixed.
    pub len_bytes: Option<u64>,
    /// What it is for.
    pub why: &'static str,
}

/// What is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// Memory without a name.
    Nothing,
    /// What has exactly this name.
    Named(String),
    /// What has a name that begins so.
    Like(&'static str),
    /// A VFIO device.
    VfioDevice,
}

/// What a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding<T> {
    /// These and no others.
    Exactly(Vec<T>),
    /// Whatever is not named so: S has what the operator gave it.
    NoneLike(&'static [&'static str]),
}

/// The filters of each thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Programs {
    /// These, the oldest first; what they allow is what the rules allow.
    Exactly(Vec<Vec<Instruction>>),
    /// So many; what they allow is no more than what the rules allow.
    Count(usize),
}

/// A limit that is meant to hold, soft and hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedLimit {
    /// The kernel's name: `Max open files`.
    pub name: &'static str,
    /// The value; `None` for none.
    pub value: Option<u64>,
}

/// Where and as whom a process runs, and what it may lack: what the tables do not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Place {
    /// Its user and group.
    pub uid: u32,
    /// Its parent; `None` where that is whoever started Narrows.
    pub parent: Option<u32>,
    /// Its program.
    pub program: PathBuf,
    /// Its place in the cgroup tree; `None` where it is in no cgroup of its own.
    pub cgroup: Option<String>,
    /// The guest's images that V maps, the paths that are mapped themselves.
    pub images: Vec<PathBuf>,
    /// Layers that this kernel lacks and the operator does without: bits of [`jailed::manifest::layer`].
    pub layers_absent: u32,
    /// Layers that the process itself said are on.
    pub layers_told: u32,
}

/// What one process is meant to be.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Which.
    pub role: Role,
    /// Where and as whom.
    pub place: Place,
    /// Threads that run code of ours.
    pub threads: u32,
    /// Threads of the kernel's own, at most.
    pub workers: u32,
    /// Its descriptors.
    pub descriptors: Holding<ExpectedDescriptor>,
    /// Its mappings: each must be like one of these.
    pub maps: Holding<ExpectedMap>,
    /// Its limits; of others nothing is asked.
    pub limits: Vec<ExpectedLimit>,
    /// The namespaces that are its own.
    pub namespaces: &'static [&'static str],
    /// The calls it may make.
    pub rules: Vec<Rule>,
    /// The filters that make them so.
    pub filters: Programs,
    /// The first number behind its descriptors, closed ones counted.
    pub behind: u32,
}

/// What S never has: the VM, devices, guest RAM, and the ways to map it.
const PRECIOUS: &[&str] = &[
    "anon_inode:kvm",
    "anon_inode:[vfio",
    "anon_inode:iommu",
    "/dev/kvm",
    "/dev/vfio",
    "/dev/iommu",
    "/memfd:",
    "/dev/mem",
];

/// The limits of S that do not go by its descriptors, as `jail::own` sets them.
const SUPERVISOR_LIMITS: [(&str, u64); 7] = [
    ("Max core file size", 0),
    ("Max processes", 1),
    ("Max locked memory", 0),
    ("Max file locks", 0),
    ("Max msgqueue size", 0),
    ("Max nice priority", 0),
    ("Max realtime priority", 0),
];

/// Every namespace there is.
const ALL_NAMESPACES: &[&str] = &crate::inspect::facts::NAMESPACES;

/// The kernel's names of limits by number, as `/proc/PID/limits` has them.
///
/// *Source:* `fs/proc/base.c (v6.12)`, `lnames`; `include/uapi/asm-generic/resource.h`.
const LIMIT_NAMES: [&str; 16] = [
    "Max cpu time",
    "Max file size",
    "Max data size",
    "Max stack size",
    "Max core file size",
    "Max resident set",
    "Max processes",
    "Max open files",
    "Max locked memory",
    "Max address space",
    "Max file locks",
    "Max pending signals",
    "Max msgqueue size",
    "Max nice priority",
    "Max realtime priority",
    "Max realtime timeout",
];

impl Expected {
    /// What V or D is meant to be once it is locked down.
    #[must_use]
    pub fn jailed(role: Jailed, handoff: &Handoff, place: Place) -> Self {
        let own = |d: manifest::Descriptor| ExpectedDescriptor {
            number: d.number,
            kind: kind_of(d.kind),
        };
        let descriptors: Vec<_> = descriptors(role, handoff).map(own).collect();
        let behind = descriptors.last().map_or(0, |last| last.number + 1);
        let limits = limits(role, handoff.vcpu_count)
            .into_iter()
            .filter_map(|limit| {
                let index = usize::try_from(limit.resource).ok()?;
                Some(ExpectedLimit {
                    name: LIMIT_NAMES.get(index)?,
                    value: (limit.value != u64::MAX).then_some(limit.value),
                })
            });
        let rules = |phase| Rules::of(role, phase, handoff);
        let filter = |phase| program(&rules(phase)).instructions().to_vec();
        Self {
            role: match role {
                Jailed::Vcpu => Role::Vcpu,
                Jailed::Device => Role::Device,
            },
            threads: manifest::threads(role, handoff),
            // From 6.13 on KVM starts one in V when a vCPU first runs.
            workers: u32::from(role == Jailed::Vcpu),
            descriptors: Holding::Exactly(descriptors),
            maps: Holding::Exactly(maps(role, handoff, &place)),
            limits: limits.collect(),
            namespaces: ALL_NAMESPACES,
            rules: rules(Phase::Run).iter().copied().collect(),
            filters: Programs::Exactly(vec![filter(Phase::Build), filter(Phase::Run)]),
            behind,
            place,
        }
    }

    /// What S is meant to be once it has put itself into its jail: its descriptors are the operator's, so that the rules
    /// of its filter are compared call by call and not by argument.
    #[must_use]
    pub fn supervisor(place: Place) -> Self {
        let rule = |(call, why)| {
            Some(Rule {
                call: u32::try_from(call).ok()?,
                checks: [None; MAX_CHECKS],
                why,
            })
        };
        let limit = |(name, value): &(&'static str, u64)| ExpectedLimit {
            name,
            value: Some(*value),
        };
        let has_cgroup_namespace = place.layers_absent & layer::CGROUP_NAMESPACE == 0;
        Self {
            role: Role::Supervisor,
            threads: 1,
            workers: 0,
            descriptors: Holding::NoneLike(PRECIOUS),
            maps: Holding::NoneLike(PRECIOUS),
            limits: SUPERVISOR_LIMITS.iter().map(limit).collect(),
            namespaces: match has_cgroup_namespace {
                true => &["mnt", "net", "ipc", "uts", "cgroup"],
                false => &["mnt", "net", "ipc", "uts"],
            },
            rules: reasons().filter_map(rule).collect(),
            filters: Programs::Count(1),
            behind: 16,
            place,
        }
    }
}

const fn kind_of(kind: DescriptorKind) -> Kind {
    match kind {
        DescriptorKind::Vm => Kind::KvmVm,
        DescriptorKind::KvmVfio => Kind::KvmVfio,
        DescriptorKind::Vcpu(index) => Kind::KvmVcpu(index),
        DescriptorKind::ConsoleOut => Kind::PipeIn,
        DescriptorKind::ConsoleIn => Kind::PipeOut,
        DescriptorKind::Device(_) => Kind::VfioDevice,
        DescriptorKind::Error(_)
        | DescriptorKind::Request(_)
        | DescriptorKind::Vector(_)
        | DescriptorKind::Latch(_) => Kind::Eventfd,
    }
}

/// What V or D has mapped.
fn maps(role: Jailed, handoff: &Handoff, place: &Place) -> Vec<ExpectedMap> {
    let row = |of, protections, is_sealed, why| ExpectedMap {
        of,
        protections,
        is_sealed,
        len_bytes: None,
        why,
    };
    let named = |name: &str| Mapped::Named(name.to_owned());
    let memory_file = |name: &str| Mapped::Named(format!("/memfd:{name} (deleted)"));
    let program = || Mapped::Named(place.program.display().to_string());
    let exactly = |row: ExpectedMap, len_bytes: u64| ExpectedMap {
        len_bytes: Some(len_bytes),
        ..row
    };
    let mut maps = vec![
        row(program(), &["r-xp", "r--p"], true, "code and constants"),
        row(program(), &["rw-p"], false, "variables"),
        row(
            Mapped::Nothing,
            &["rw-p", "---p"],
            false,
            "stacks and state",
        ),
        row(named("[stack]"), &["rw-p"], false, "the first stack"),
        row(named("[vdso]"), &["r-xp"], false, "the kernel's own page"),
        row(
            Mapped::Like("[vvar"),
            &["r--p"],
            false,
            "the kernel's own page",
        ),
        row(
            named("[vsyscall]"),
            &["--xp"],
            false,
            "the kernel's own page",
        ),
        exactly(
            row(memory_file("narrows-start"), &["rw-s"], true, "start page"),
            start_page::BYTES as u64,
        ),
        exactly(
            row(
                memory_file("narrows-ring"),
                &["rw-s"],
                true,
                "shared with the other",
            ),
            pages(Layout::of(handoff).size_bytes() as u64),
        ),
    ];
    if role == Jailed::Device {
        return maps;
    }
    let spans = handoff.functions().iter().flat_map(|f| f.bars.iter());
    let spans = spans.flat_map(|bar| {
        let used = usize::try_from(bar.span_count).unwrap_or(usize::MAX);
        bar.spans.iter().take(used)
    });
    let bar_bytes: u64 = spans.map(|span| span.len_bytes).sum();
    let ram_bytes = handoff.ram().iter().map(|range| range.len_bytes).sum();
    maps.push(exactly(
        row(memory_file("narrows-ram"), &["rw-s"], true, "guest RAM"),
        ram_bytes,
    ));
    maps.push(row(
        memory_file("narrows-image"),
        &["rw-s"],
        true,
        "a guest's own copy of an image",
    ));
    for image in &place.images {
        let of = Mapped::Named(image.display().to_string());
        maps.push(row(of, &["r--s"], true, "an image"));
    }
    let bars = row(Mapped::VfioDevice, &["rw-s"], true, "BARs");
    maps.push(exactly(bars, bar_bytes));
    maps.push(row(
        Mapped::Like("anon_inode:kvm-vcpu:"),
        &["rw-s"],
        true,
        "pages shared with KVM",
    ));
    maps
}

/// Whether a name is that of a VFIO device, opened through its group or its own file.
fn is_vfio_device(name: &str) -> bool {
    let index = name.strip_prefix("/dev/vfio/devices/vfio");
    name == "anon_inode:[vfio-device]"
        || index.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
}

/// Whole pages.
fn pages(len_bytes: u64) -> u64 {
    len_bytes.next_multiple_of(4096)
}

impl Kind {
    /// Whether the kernel's name of a descriptor's target and its flags are of this kind.
    #[must_use]
    pub fn fits(&self, target: &str, flags: u32) -> bool {
        const ACCESS: u32 = 3;
        const READ: u32 = 0;
        const WRITE: u32 = 1;
        let numbered = |word: &str| {
            let rest = target.strip_prefix(word);
            let digits = rest.and_then(|r| r.strip_prefix(":[")?.strip_suffix(']'));
            digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
        };
        match self {
            Self::KvmVm => target == "anon_inode:kvm-vm",
            Self::KvmVfio => target == "anon_inode:kvm-vfio",
            Self::KvmVcpu(index) => target == format!("anon_inode:kvm-vcpu:{index}"),
            Self::VfioDevice => is_vfio_device(target),
            Self::Eventfd => target == "anon_inode:[eventfd]",
            Self::PipeIn => numbered("pipe") && flags & ACCESS == WRITE,
            Self::PipeOut => numbered("pipe") && flags & ACCESS == READ,
            Self::Named(name) => target == name,
            Self::Numbered(word) => numbered(word),
        }
    }

    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::KvmVm => "the VM".to_owned(),
            Self::KvmVfio => "the KVM-VFIO device".to_owned(),
            Self::KvmVcpu(index) => format!("vCPU {index}"),
            Self::VfioDevice => "a VFIO device".to_owned(),
            Self::Eventfd => "an eventfd".to_owned(),
            Self::PipeIn => "a pipe, for writing".to_owned(),
            Self::PipeOut => "a pipe, for reading".to_owned(),
            Self::Named(name) => name.clone(),
            Self::Numbered(word) => format!("a {word}"),
        }
    }
}

impl Role {
    /// As reports name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Device => "device",
            Self::Vcpu => "vcpu",
        }
    }
}

impl Mapped {
    /// Whether a mapping of this name is meant.
    #[must_use]
    pub fn fits(&self, path: &str) -> bool {
        match self {
            Self::Nothing => path.is_empty(),
            Self::Named(name) => path == name,
            Self::Like(start) => path.starts_with(start),
            Self::VfioDevice => is_vfio_device(path),
        }
    }
}
