//! What stands in the way of a guest: the verdicts of [`iommu::isolation`] on its host and its devices, and two tables of
//! what the guest itself asks for, each row with its reason.
//!
//! A check gives evidence or nothing; what evidence means (a refusal, or a warning where the guest file accepts it) is
//! decided here, once.

mod capacity;
mod device;
mod guest;
mod layers;

use iommu::{
    isolation::{self, CheckId},
    topology::{Function, Group, GroupId},
};

use crate::{
    error::{ErrorId, Id, Location, Report},
    host::Inventory,
    spec::{DeviceSpec, Files, GuestSpec},
};

/// What is judged.
#[derive(Debug)]
pub(super) struct Case<'a> {
    pub(super) host: &'a Inventory,
    pub(super) spec: &'a GuestSpec,
    pub(super) files: &'a Files,
    /// The asked-for functions that the host has, in the order of the guest file.
    pub(super) asked: Vec<Asked<'a>>,
}

/// A function that was asked for and exists.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) wish: &'a DeviceSpec,
    pub(super) function: &'a Function,
    pub(super) group: Option<(GroupId, &'a Group)>,
}

/// What the checks have found.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) refusals: Vec<Report>,
    pub(super) warnings: Vec<Report>,
    /// The refusals that were accepted, for each of [`Case::asked`].
    pub(super) accepted: Vec<Vec<CheckId>>,
    /// The worst that was found of the devices, as it counts once something is accepted.
    pub(super) isolation: isolation::Verdict,
}

/// A row about what the guest asks for.
struct GuestCheck {
    id: ErrorId,
    /// What goes wrong without the check; completes "otherwise …".
    reason: &'static str,
    find: fn(&Case<'_>) -> Vec<Finding>,
}

/// What a guest check has found: a complete message but for its id.
struct Finding {
    what: String,
    evidence: Evidence,
    place: Option<Location>,
}

/// Why something is refused, and what to do.
struct Evidence {
    why: Vec<String>,
    fix: String,
}

impl Evidence {
    fn new(why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            why: vec![why.into()],
            fix: fix.into(),
        }
    }

    fn and(mut self, why: impl Into<String>) -> Self {
        self.why.push(why.into());
        self
    }

    fn report(self, id: impl Into<Id>, what: String, place: Option<Location>) -> Report {
        let mut report = Report::new(id, what, "", self.fix).at(place);
        report.why = self.why;
        report
    }
}

impl<'a> Case<'a> {
    pub(super) fn of(host: &'a Inventory, spec: &'a GuestSpec, files: &'a Files) -> Self {
        let topology = &host.topology;
        let asked = spec
            .devices
            .iter()
            .filter_map(|wish| {
                Some(Asked {
                    wish,
                    function: topology.functions.get(&wish.bdf)?,
                    group: topology.group_of(wish.bdf),
                })
            })
            .collect();
        Self {
            host,
            spec,
            files,
            asked,
        }
    }
}

/// Applies all tables.
pub(super) fn judge(case: &Case<'_>) -> Verdict {
    let host = isolation::judge_host(&case.host.topology);
    let mut verdict = Verdict {
        refusals: device::refusals_of_host(case, &host),
        warnings: Vec::new(),
        accepted: Vec::new(),
        isolation: isolation::Verdict::Pass,
    };
    layers::judge(case, &mut verdict);
    for check in guest::CHECKS.iter().chain(capacity::CHECKS) {
        for finding in (check.find)(case) {
            let evidence = finding.evidence.and(otherwise(check.reason));
            let report = evidence.report(check.id, finding.what, finding.place);
            verdict.refusals.push(report);
        }
    }
    verdict.warnings.extend(capacity::overcommitted(case));
    if !case.spec.peers.is_empty() {
        verdict.isolation = isolation::Verdict::Warn;
        verdict.warnings.extend(guest::peers(case));
    }
    for asked in &case.asked {
        device::judge(case, asked, &host, &mut verdict);
    }
    verdict
}

/// What the operator is spared.
fn otherwise(reason: &str) -> String {
    format!("otherwise {reason}")
}

impl Asked<'_> {
    /// `VF 0000:3b:02.1` or `device 0000:3b:00.0`.
    fn name(&self) -> String {
        let kind = match self.function.physfn {
            Some(_) => "VF",
            None => "device",
        };
        format!("{kind} {}", self.function.bdf)
    }
}

/// The tables of the guest, as tests show them: id and reason.
#[cfg(test)]
pub(super) fn table() -> Vec<(ErrorId, &'static str)> {
    let rows = guest::CHECKS.iter().chain(capacity::CHECKS);
    rows.map(|check| (check.id, check.reason)).collect()
}
