//! What a process is meant to be: plain facts, filled from the tables that it was made by.

mod files;
mod maps;

use std::path::PathBuf;

use jailed::{
    handoff::Handoff,
    manifest::{
        self, Instruction, Limit, MAX_CHECKS, Phase, Role as Jailed, Rule, Rules, descriptors,
        layer, limits, program,
    },
};
use serde::{Deserialize, Serialize};

use self::files::kind_of;
pub use self::{
    files::{ExpectedDescriptor, FileId, GivenFile, Kind},
    maps::{ExpectedMap, Mapped, memory_file},
};
use crate::jail::{
    own,
    seccomp::{SupervisorFds, rules, supervisor_filter},
};

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

/// What a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding<T> {
    /// These and no others.
    Exactly(Vec<T>),
    /// Whatever is not named so: S maps what it was started with.
    NoneLike(&'static [&'static str]),
}

/// Which descriptors a process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// These and no others, but for those that it may give up.
    Exactly(Vec<ExpectedDescriptor>),
    /// Under numbers of its own choice: these files, its three standard ones, one for signals and one socket; and none
    /// that is named so.
    Among(Vec<FileId>, &'static [&'static str]),
}

/// The filters of each thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Programs {
    /// These, the oldest first; what they allow is what the rules allow.
    Exactly(Vec<Vec<Instruction>>),
    /// At least one, on top of those of a service manager; what all of them allow is no more than what the rules allow.
    NoMore,
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
    /// The version of Landlock that the process said it is under, 0 for none.
    pub landlock: u32,
    /// What the jail wrote into the files of its cgroup, and of the guest's around it.
    pub cgroup_limits: Vec<CgroupLimit>,
    /// The files that it was given, as the giver has them.
    pub given: Vec<GivenFile>,
    /// Memory files that it maps, by name.
    pub memory: Vec<(String, FileId)>,
    /// Of S: the descriptors that its filter is made for; `None` where a service manager put it where it is.
    pub watched: Option<SupervisorFds>,
}

/// A limit of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CgroupLimit {
    /// Whether it is one of the guest's cgroup, around the process's.
    pub is_guests: bool,
    /// The file.
    pub file: String,
    /// What was written to it.
    pub value: String,
    /// Whether a kernel may lack the file.
    pub is_optional: bool,
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
    pub descriptors: Held,
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

/// What `narrows@.service` gives S of its own.
const SERVICE_NAMESPACES: &[&str] = &["user", "mnt", "net", "ipc", "uts"];

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
    /// Whether a service manager made its surroundings, and not the jail.
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.role == Role::Supervisor && self.place.watched.is_none()
    }

    /// What V or D is meant to be once it is locked down.
    #[must_use]
    pub fn jailed(role: Jailed, handoff: &Handoff, place: Place) -> Self {
        let own = |d: manifest::Descriptor| ExpectedDescriptor {
            number: d.number,
            kind: kind_of(d.kind),
            given: given(&place, d.number),
        };
        let descriptors: Vec<_> = descriptors(role, handoff).map(own).collect();
        let behind = descriptors.last().map_or(0, |last| last.number + 1);
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
            descriptors: Held::Exactly(descriptors),
            maps: Holding::Exactly(maps::maps(role, handoff, &place)),
            limits: named(&limits(role, handoff.vcpu_count)),
            namespaces: ALL_NAMESPACES,
            rules: rules(Phase::Run).iter().copied().collect(),
            filters: Programs::Exactly(vec![filter(Phase::Build), filter(Phase::Run)]),
            behind,
            place,
        }
    }

    /// What S is meant to be once it has put itself into its jail, or a service manager has.
    #[must_use]
    pub fn supervisor(place: Place) -> Self {
        match &place.watched {
            Some(watched) => Self::in_own_jail(&watched.clone(), place),
            None => Self::service(place),
        }
    }

    fn in_own_jail(watched: &SupervisorFds, place: Place) -> Self {
        let own = |number| ExpectedDescriptor {
            number,
            kind: Kind::Given,
            given: given(&place, number),
        };
        // S made its own of the same table. One that cannot be made is empty here, and no filter that is in force equals that.
        let filter = supervisor_filter(watched).unwrap_or_default();
        let filter = filter
            .iter()
            .map(|op| Instruction::new(op.code, op.jt, op.jf, op.k));
        let behind = u32::try_from(watched.limit()).unwrap_or(u32::MAX);
        let has_cgroup_namespace = place.layers_absent & layer::CGROUP_NAMESPACE == 0;
        Self {
            role: Role::Supervisor,
            threads: 1,
            workers: 0,
            descriptors: Held::Exactly(watched.numbers().into_iter().map(own).collect()),
            maps: Holding::NoneLike(PRECIOUS),
            limits: named(&own::limits(watched.limit())),
            namespaces: match has_cgroup_namespace {
                true => &["mnt", "net", "ipc", "uts", "cgroup"],
                false => &["mnt", "net", "ipc", "uts"],
            },
            rules: rules(watched),
            // One that cannot be made is none, which no live one is.
            filters: Programs::Exactly(vec![filter.collect()]),
            behind,
            place,
        }
    }

    /// What it was started with is the service manager's: filters of its own are on top of ours, and nobody but S knows
    /// the numbers of its descriptors. So its filters are compared by call and not by argument.
    fn service(place: Place) -> Self {
        let files = place.given.iter().filter_map(|given| given.file).collect();
        let by_call = |rule: &Rule| Rule {
            checks: [None; MAX_CHECKS],
            ..*rule
        };
        // Any number will do: what is wanted is a rule of each row.
        let any = SupervisorFds {
            read: vec![0],
            write: vec![0],
            socket: vec![0],
            terminal: vec![0],
            held: Vec::new(),
        };
        let mut rules: Vec<Rule> = rules(&any).iter().map(by_call).collect();
        rules.dedup();
        Self {
            role: Role::Supervisor,
            threads: 1,
            workers: 0,
            descriptors: Held::Among(files, PRECIOUS),
            maps: Holding::NoneLike(PRECIOUS),
            limits: Vec::new(),
            namespaces: SERVICE_NAMESPACES,
            rules,
            filters: Programs::NoMore,
            behind: 16,
            place,
        }
    }
}

fn given(place: &Place, number: u32) -> Option<GivenFile> {
    let given = place
        .given
        .iter()
        .find(|given| given.number == Some(number));
    given.cloned()
}

fn named(limits: &[Limit]) -> Vec<ExpectedLimit> {
    let named = |limit: &Limit| {
        let index = usize::try_from(limit.resource).ok()?;
        Some(ExpectedLimit {
            name: LIMIT_NAMES.get(index)?,
            value: (limit.value != u64::MAX).then_some(limit.value),
        })
    };
    limits.iter().filter_map(named).collect()
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
