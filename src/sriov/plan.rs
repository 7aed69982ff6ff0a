//! The plan: steps from what is to what should be, and what stands in their way.

use iommu::{bdf::Bdf, isolation::CheckId};
use serde::Serialize;

use super::{
    desired::{Desired, DesiredPf},
    diff,
    facts::{Observed, PfFacts},
    interlock,
    matching::{kind_of, profile_of},
    order,
    records::{PfRecords, Records},
    step::Step,
};
use crate::{
    error::{ErrorId, Exit, Id, Report},
    spec::host::{Kind, Origin, Profile, Profiles, Safety},
};

/// What `apply` would do. Refusals are part of it: `plan` shows all of them, `apply` goes on without any only.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HostPlan {
    /// In the order in which they are done.
    pub steps: Vec<Step>,
    /// What stands in the way.
    pub refusals: Vec<Report>,
    /// What the operator should know.
    pub warnings: Vec<Report>,
    /// What no step can do: firmware settings, a reboot.
    pub pending: Vec<Pending>,
    /// What is lost on the way.
    pub destroyed: Vec<Destroyed>,
    /// What waits until a guest has given its VF back.
    pub held: Vec<Held>,
    /// Addresses that are made at the first apply, with the host's seed: a plan with any cannot be saved.
    pub later: Vec<Later>,
}

/// A VF whose address is made at the first apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Later {
    /// The PF.
    pub pf: Bdf,
    /// The VF's index.
    pub index: u32,
}

impl HostPlan {
    /// Whether there is nothing to do now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.later.is_empty()
    }

    /// How `narrows host plan` ends on it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if !self.refusals.is_empty() {
            Exit::Refused
        } else if !self.is_empty() || !self.held.is_empty() {
            Exit::Changes
        } else if !self.pending.is_empty() {
            Exit::Needed
        } else {
            Exit::Done
        }
    }
}

/// The steps from what is to what should be, what stands in their way, and what the operator should know. It never
/// fails: what is wrong is part of the plan.
#[must_use]
pub fn plan(
    observed: &Observed,
    desired: &Desired,
    records: &Records,
    profiles: &Profiles,
    safety: Safety,
) -> HostPlan {
    let mut plan = HostPlan::default();
    let mut judged = Vec::new();
    for wanted in desired.pfs.values() {
        let Some(facts) = observed.pfs.get(&wanted.bdf) else {
            plan.refusals.push(vanished(wanted));
            continue;
        };
        let pf = Pf::new(facts, wanted, observed, records, profiles);
        let kept = records.pfs.get(&facts.bdf);
        if let Some(other) = kept.filter(|kept| kept.anchor != facts.anchor) {
            let report = exchanged(facts, other);
            plan.refusals.push(report.at(wanted.place.clone()));
        }
        diff::changes(&pf, &mut plan);
        warn(&pf, safety, &mut plan.warnings);
        warn_of_macs(&pf, &mut plan);
        judged.push(pf);
    }
    order::sort(&mut plan.steps, observed);
    for pf in &judged {
        interlock::judge(pf, observed, safety, &mut plan);
    }
    plan
}

/// A PF as it is and as it should be.
pub(super) struct Pf<'a> {
    pub(super) facts: &'a PfFacts,
    pub(super) wanted: &'a DesiredPf,
    pub(super) profile: &'a Profile,
    /// None where they are of another card.
    pub(super) kept: Option<&'a PfRecords>,
    pub(super) records: &'a Records,
    pub(super) boot: &'a str,
}

impl<'a> Pf<'a> {
    pub(super) fn new(
        facts: &'a PfFacts,
        wanted: &'a DesiredPf,
        observed: &'a Observed,
        records: &'a Records,
        profiles: &'a Profiles,
    ) -> Self {
        let kind = kind_of(facts).unwrap_or(Kind::Nic);
        let kept = records.pfs.get(&facts.bdf);
        Self {
            facts,
            wanted,
            profile: profile_of(Some(&wanted.profile), facts, kind, profiles),
            kept: kept.filter(|kept| kept.anchor == facts.anchor),
            records,
            boot: &observed.boot,
        }
    }
}

fn vanished(wanted: &DesiredPf) -> Report {
    Report::new(
        ErrorId::PfAbsent,
        format!("{} is no PF of this host any more", wanted.bdf),
        "it was there when the file was applied",
        "see whether the card is in its slot and has its driver",
    )
    .at(wanted.place.clone())
}

fn exchanged(facts: &PfFacts, other: &PfRecords) -> Report {
    Report::new(
        ErrorId::RecordMismatch,
        format!(
            "what is kept of the VFs of {} is of another card",
            facts.bdf
        ),
        format!("kept: {}; there: {}", other.anchor, facts.anchor),
        format!(
            "if the card was exchanged for good: `narrows vf forget {}`",
            facts.bdf
        ),
    )
}

/// What refuses nothing and is to be known all the same.
fn warn(pf: &Pf<'_>, safety: Safety, warnings: &mut Vec<Report>) {
    let is_pooled = pf.wanted.vfs.iter().any(|vf| vf.pool.is_some());
    if !is_pooled {
        return;
    }
    warn_of_profile(pf, warnings);
    warn_of_shared(pf, warnings);
    let bdf = pf.facts.bdf;
    let pooled = pf.wanted.vfs.iter().filter(|vf| vf.pool.is_some());
    let grouped: Vec<String> = pooled
        .filter_map(|vf| pf.facts.vfs.iter().find(|is| is.index == vf.index))
        .filter(|vf| vf.group_size > 1)
        .map(|vf| vf.bdf.to_string())
        .collect();
    if safety.require_singleton_group && !grouped.is_empty() {
        warnings.push(Report::new(
            Id::Check(CheckId::GroupShared),
            format!("{} VFs of {bdf} share their IOMMU groups", grouped.len()),
            grouped.join(", "),
            "no guest gets them: use a slot with ACS",
        ));
    }
}

/// Namespaces that are one VF's by the file alone: the drive lets several controllers have them.
fn warn_of_shared(pf: &Pf<'_>, warnings: &mut Vec<Report>) {
    let Some(nvme) = pf.facts.nvme() else { return };
    let is_shared = |nsid: u32| nvme.namespaces.get(&nsid).is_some_and(|is| is.is_shared);
    let wanted = pf.wanted.namespaces.iter();
    let names: Vec<&str> = wanted
        .filter(|one| !one.is_shared && one.nsid.is_some_and(is_shared))
        .map(|one| one.name.as_str())
        .collect();
    if names.is_empty() {
        return;
    }
    warnings.push(Report::new(
        ErrorId::NamespaceShared,
        format!(
            "namespaces of {} can be attached to several controllers: {}",
            pf.facts.bdf,
            names.join(", ")
        ),
        "their NMIC says so; Narrows attaches each to one",
        "where the drive can, make them private",
    ));
}

/// Addresses that stay: set by this plan, or left by a release.
fn warn_of_macs(pf: &Pf<'_>, plan: &mut HostPlan) {
    if pf.profile.attributes.clear_mac {
        return;
    }
    let bdf = pf.facts.bdf;
    let stays = |step: &&Step| matches!(step, Step::Attribute { stays: true, .. });
    let steps = plan.steps.iter().filter(|step| step.pf() == bdf);
    let set: Vec<String> = steps
        .filter(stays)
        .filter_map(|step| step.vf().map(|index| index.to_string()))
        .collect();
    if !set.is_empty() {
        plan.warnings.push(Report::new(
            ErrorId::AttributeUnsupported,
            format!("VFs {} of {bdf} keep an address for good", set.join(", ")),
            format!(
                "they have none yet; by profile {} their driver clears none once it is set",
                pf.profile.name
            ),
            "nothing is needed: a change of the number of VFs takes it away, and nothing else does",
        ));
    }
    // Those that a plan makes anew start without one.
    if pf.wanted.restored.is_none() || pf.facts.count != pf.wanted.count {
        return;
    }
    let left = pf.wanted.vfs.iter().filter_map(|vf| {
        let is = pf.facts.vfs.iter().find(|is| is.index == vf.index)?;
        let mac = is.nic?.mac.filter(|_| vf.rest.mac.is_none())?;
        Some(format!("VF {}: {mac}", vf.index))
    });
    let left: Vec<String> = left.collect();
    if !left.is_empty() {
        plan.warnings.push(Report::new(
            ErrorId::UndoIncomplete,
            format!("not undone: VFs of {bdf} keep addresses that Narrows gave them"),
            format!(
                "{}; by profile {} their driver clears none",
                left.join(", "),
                pf.profile.name
            ),
            "change the number of VFs to 0 and back where they are to have none",
        ));
    }
}

fn warn_of_profile(pf: &Pf<'_>, warnings: &mut Vec<Report>) {
    let bdf = pf.facts.bdf;
    if pf.profile.origin == Origin::Assumed {
        warnings.push(Report::new(
            ErrorId::ProfileGeneric,
            format!("no profile knows {bdf}"),
            format!(
                "driver {}, ids {:04x}:{:04x}: {} is used",
                pf.facts.driver.as_deref().unwrap_or("none"),
                pf.facts.vendor,
                pf.facts.device,
                pf.profile.name
            ),
            "write a profile of its own, and name it in `profiles`",
        ));
    }
}

/// What no step can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// The PF.
    pub pf: Bdf,
    /// What is to be set, and where.
    pub what: String,
}

/// What a step takes away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Destroyed {
    /// The PF.
    pub pf: Bdf,
    /// In words.
    pub what: String,
}

/// What waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The VF.
    pub vf: Bdf,
    /// The guest that has it.
    pub guest: String,
    /// What would be changed.
    pub what: String,
}
