//! What the tables are made of: rows, what a row's function sees, and what it answers.

use std::path::{Path, PathBuf};

use super::{
    Check, CheckId, Evidence, Finding, Scope, Subject, Verdict, bars, boot, driver, express,
    function, group, host, kernel, memory, nic, path, registers,
};
use crate::{
    bdf::Bdf,
    topology::{Function, Group, GroupId, Topology},
};

/// A check and the function that makes it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) check: Check,
    pub(super) find: Find,
}

/// Looks at a host, or at a function of one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Find {
    Host(fn(&Topology) -> Found),
    Function(fn(&Case<'_>) -> Found),
}

impl Find {
    pub(super) const fn scope(self) -> Scope {
        match self {
            Self::Host(_) => Scope::Host,
            Self::Function(_) => Scope::Function,
        }
    }
}

/// A function that is to be assigned.
#[derive(Debug)]
pub(super) struct Case<'a> {
    pub(super) topology: &'a Topology,
    pub(super) function: &'a Function,
    /// All functions that the same guest gets, this one among them.
    pub(super) together: &'a [Bdf],
}

impl<'a> Case<'a> {
    pub(super) fn group(&self) -> Option<(GroupId, &'a Group)> {
        self.topology.group_of(self.function.bdf)
    }

    /// Its physical function; `None` for what is no VF, or whose PF the host does not have.
    pub(super) fn pf(&self) -> Option<&'a Function> {
        self.topology.functions.get(&self.function.physfn?)
    }

    /// All functions whose requester ids one firmware can use.
    pub(super) fn of_one_device(&self) -> impl Iterator<Item = &'a Function> + use<'a> {
        self.topology.of_one_device(self.function)
    }
}

/// What a check has found, but for its id and subject.
#[derive(Debug)]
pub(super) struct Found {
    value: String,
    verdict: Verdict,
    evidence: Vec<Evidence>,
    fix: Option<String>,
}

/// The value of a finding whose evidence could not be had.
pub const NOT_READ: &str = "not read";

impl Found {
    pub(super) fn pass(value: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            verdict: Verdict::Pass,
            evidence: Vec::new(),
            fix: None,
        }
    }

    pub(super) fn fixable(value: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fixable,
            ..Self::pass(value)
        }
    }

    pub(super) fn warn(value: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warn,
            fix: Some(fix.into()),
            ..Self::pass(value)
        }
    }

    pub(super) fn refuse(value: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Refuse,
            ..Self::warn(value, fix)
        }
    }

    /// The same, with where it was read and what was said there.
    pub(super) fn saw(mut self, source: impl Into<PathBuf>, said: impl Into<String>) -> Self {
        self.evidence.push(evidence(source, said));
        self
    }

    /// The same, with more of it.
    pub(super) fn saw_all(mut self, evidence: impl IntoIterator<Item = Evidence>) -> Self {
        self.evidence.extend(evidence);
        self
    }

    fn finding(self, check: CheckId, subject: Subject) -> Finding {
        Finding {
            check,
            subject,
            value: self.value,
            verdict: self.verdict,
            evidence: self.evidence,
            fix: self.fix,
        }
    }
}

pub(super) fn evidence(source: impl Into<PathBuf>, said: impl Into<String>) -> Evidence {
    Evidence {
        source: source.into(),
        said: said.into(),
    }
}

/// An attribute of a function, as the host itself calls it, wherever the tree was read from.
pub(super) fn attribute(bdf: Bdf, name: &str) -> PathBuf {
    PathBuf::from(format!("/sys/bus/pci/devices/{bdf}/{name}"))
}

/// An attribute of a group, likewise.
pub(super) fn group_file(group: GroupId, name: &str) -> PathBuf {
    PathBuf::from(format!("/sys/kernel/iommu_groups/{}/{name}", group.0))
}

/// A path below a root that was read, as the host itself calls it.
pub(super) fn on_host(path: &Path) -> PathBuf {
    const TOPS: [&str; 4] = ["boot", "dev", "proc", "sys"];
    let parts: Vec<_> = path.iter().collect();
    let is_top = |part: &&std::ffi::OsStr| TOPS.iter().any(|top| *part == *top);
    match parts.iter().rposition(is_top) {
        Some(at) => Path::new("/").join(parts.iter().skip(at).collect::<PathBuf>()),
        None => path.to_owned(),
    }
}

/// `0000:3b:02.1 (driver ixgbevf)`.
pub(super) fn with_driver(topology: &Topology, bdf: Bdf) -> String {
    let function = topology.functions.get(&bdf);
    match function.and_then(|function| function.driver.as_deref()) {
        Some(driver) => format!("{bdf} (driver {driver})"),
        None => format!("{bdf} (no driver)"),
    }
}

/// Applies the rows of a host.
pub(super) fn judge_host(topology: &Topology) -> Vec<Finding> {
    all()
        .filter_map(|row| match row.find {
            Find::Host(find) => Some(find(topology).finding(row.check.id, Subject::Host)),
            Find::Function(_) => None,
        })
        .collect()
}

/// Applies the rows of a function.
pub(super) fn judge_function(case: &Case<'_>) -> Vec<Finding> {
    let subject = Subject::Function(case.function.bdf);
    all()
        .filter_map(|row| match row.find {
            Find::Host(_) => None,
            Find::Function(find) => Some(find(case).finding(row.check.id, subject)),
        })
        .collect()
}

/// The row of an id.
pub(super) const fn of(id: CheckId) -> &'static Row {
    ALL[id as usize]
}

/// All rows, in the order of the ids.
pub(super) fn all() -> impl Iterator<Item = &'static Row> {
    ALL.into_iter()
}

/// The tables, in the order of the ids.
const TABLES: [&[Row]; 12] = [
    host::ROWS,
    boot::ROWS,
    kernel::ROWS,
    memory::ROWS,
    function::ROWS,
    driver::ROWS,
    nic::ROWS,
    group::ROWS,
    path::ROWS,
    express::ROWS,
    registers::ROWS,
    bars::ROWS,
];

// Every row stands at its id's place, so that a lookup is an index.
const ALL: [&Row; CheckId::COUNT] = {
    let mut rows = [&host::ROWS[0]; CheckId::COUNT];
    let mut count = 0;
    let mut table = 0;
    while table < TABLES.len() {
        let mut index = 0;
        while index < TABLES[table].len() {
            assert!(TABLES[table][index].check.id as usize == count);
            rows[count] = &TABLES[table][index];
            count += 1;
            index += 1;
        }
        table += 1;
    }
    assert!(count == CheckId::COUNT);
    rows
};
