//! What is checked before a guest may have a device: three tables, each row with its reason.
//!
//! A check gives evidence or nothing; what evidence means (a refusal, or a warning where the operator has opted out)
//! is decided here, once.

mod capacity;
mod device;
mod guest;

use iommu::topology::{Function, Group, GroupId};

use crate::{
    error::{ErrorId, Location, Report},
    host::Inventory,
    spec::{DeviceSpec, Files, GuestSpec, OptOut},
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
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) refusals: Vec<Report>,
    pub(super) warnings: Vec<Report>,
    /// The opt-outs that were needed, for each of [`Case::asked`].
    pub(super) opt_outs: Vec<Vec<OptOut>>,
}

/// A row about the guest or the host as a whole.
struct GuestCheck {
    id: ErrorId,
    /// What goes wrong without the check; completes "otherwise …".
    reason: &'static str,
    find: fn(&Case<'_>) -> Vec<Finding>,
}

/// A row about one function.
struct DeviceCheck {
    id: ErrorId,
    opt_out: Option<OptOut>,
    /// What goes wrong without the check; completes "otherwise …".
    reason: &'static str,
    find: fn(&Case<'_>, &Asked<'_>) -> Option<Evidence>,
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

    fn report(self, id: ErrorId, what: String, place: Option<Location>) -> Report {
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
    let mut verdict = Verdict::default();
    for check in guest::CHECKS.iter().chain(capacity::CHECKS) {
        for finding in (check.find)(case) {
            let evidence = finding.evidence.and(otherwise(check.reason));
            let report = evidence.report(check.id, finding.what, finding.place);
            verdict.refusals.push(report);
        }
    }
    verdict.warnings.extend(capacity::overcommitted(case));
    for asked in &case.asked {
        let mut taken = Vec::new();
        for check in device::CHECKS {
            let Some(evidence) = (check.find)(case, asked) else {
                continue;
            };
            let mut evidence = evidence.and(otherwise(check.reason));
            let place = asked.wish.place.clone();
            let name = asked.name();
            let accepts = |opt_out: &OptOut| asked.wish.accept.contains(opt_out);
            if let Some(opt_out) = check.opt_out.filter(accepts) {
                taken.push(opt_out);
                evidence.fix = format!("remove \"{}\" from `accept`", opt_out.name());
                let what = format!("assigning {name} as the guest file accepts it");
                verdict
                    .warnings
                    .push(evidence.report(check.id, what, place));
                continue;
            }
            if let Some(opt_out) = check.opt_out {
                evidence.fix += &format!(", or write `accept = [\"{}\"]`", opt_out.name());
            }
            let what = format!("cannot assign {name}");
            verdict
                .refusals
                .push(evidence.report(check.id, what, place));
        }
        verdict.opt_outs.push(taken);
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

/// All tables, as `docs/` and tests show them: id, opt-out, reason.
#[cfg(test)]
pub(super) fn table() -> Vec<(ErrorId, Option<OptOut>, &'static str)> {
    let guest = guest::CHECKS
        .iter()
        .chain(capacity::CHECKS)
        .map(|c| (c.id, None, c.reason));
    let device = device::CHECKS.iter().map(|c| (c.id, c.opt_out, c.reason));
    guest.chain(device).collect()
}
