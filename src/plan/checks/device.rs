//! What [`iommu::isolation`] finds of the host and of the devices, in the words of a report.

use iommu::{
    bdf::Bdf,
    bind::VFIO_PCI,
    isolation::{CheckId, Finding, NOT_READ, Verdict, judge_function},
};

use super::{Asked, Case, Evidence, otherwise};
use crate::error::{ErrorId, Report};

/// The checks of the host that count for a guest without devices, too.
const OF_EVERY_GUEST: [CheckId; 2] = [CheckId::KvmAbsent, CheckId::NoiommuMode];

/// Refusals that another one says already, with the value that says no more: the cause, then what follows from it.
const IMPLIED: &[(CheckId, CheckId, &str)] = &[
    (CheckId::NoIommu, CheckId::NoInterruptRemapping, "off"),
    (CheckId::NoIommu, CheckId::DeviceNoGroup, "no group"),
    (CheckId::NoIommu, CheckId::PfIdentity, "no group"),
    // The kernel switches ACS on for the sake of an IOMMU.
    (CheckId::NoIommu, CheckId::AcsMissing, "ACS off"),
    (CheckId::DeviceNoGroup, CheckId::PfIdentity, "no group"),
    (CheckId::ConfigUnreadable, CheckId::AtsEnabled, NOT_READ),
    (CheckId::ConfigUnreadable, CheckId::PriEnabled, NOT_READ),
    (CheckId::ConfigUnreadable, CheckId::PasidEnabled, NOT_READ),
    (
        CheckId::ConfigUnreadable,
        CheckId::PhantomFunctions,
        NOT_READ,
    ),
];

/// What the host as a whole refuses, of all that was found of it. Its warnings are not repeated for each guest.
pub(super) fn refusals_of_host(case: &Case<'_>, host: &[Finding]) -> Vec<Report> {
    let refused = refused(host);
    host.iter()
        .filter(|finding| finding.verdict == Verdict::Refuse)
        .filter(|finding| {
            let is_of_every_guest = OF_EVERY_GUEST.contains(&finding.check);
            is_of_every_guest || !case.spec.devices.is_empty()
        })
        .filter(|finding| !is_implied(finding, &refused))
        .map(|finding| {
            let what = match OF_EVERY_GUEST.contains(&finding.check) {
                true => "cannot run a guest on this host",
                false => "cannot assign devices on this host",
            };
            evidence(finding).report(finding.check, what.to_owned(), None)
        })
        .collect()
}

/// Judges a function together with all others of its guest, on a host of which this was found.
pub(super) fn judge(
    case: &Case<'_>,
    asked: &Asked<'_>,
    host: &[Finding],
    verdict: &mut super::Verdict,
) {
    let together: Vec<Bdf> = case.spec.devices.iter().map(|wish| wish.bdf).collect();
    let mut findings = judge_function(&case.host.topology, asked.function.bdf, &together);
    let mut known = refused(host);
    known.extend(refused(&findings));
    findings.retain(|finding| !is_implied(finding, &known));

    let name = asked.name();
    let place = || asked.wish.place.clone();
    let mut accepted = Vec::new();
    for finding in &findings {
        let id = finding.check;
        let mut evidence = evidence(finding);
        match finding.verdict {
            Verdict::Pass | Verdict::Fixable => {}
            Verdict::Warn => {
                let what = format!("{name} is isolated less well than it could be");
                verdict.warnings.push(evidence.report(id, what, place()));
                verdict.isolation = verdict.isolation.max(Verdict::Warn);
            }
            Verdict::Refuse if id.check().accepted.is_some() && asked.wish.accept.contains(&id) => {
                accepted.push(id);
                evidence.fix = format!("{}; then remove \"{id}\" from `accept`", evidence.fix);
                let what = format!("assigning {name} as the guest file accepts it");
                verdict.warnings.push(evidence.report(id, what, place()));
                verdict.isolation = verdict.isolation.max(Verdict::Warn);
            }
            Verdict::Refuse => {
                if id.check().accepted.is_some() {
                    evidence.fix += &format!(", or write `accept = [\"{id}\"]`");
                }
                let what = format!("cannot assign {name}");
                verdict.refusals.push(evidence.report(id, what, place()));
            }
        }
    }
    let unused = asked.wish.accept.iter().filter(|id| !accepted.contains(id));
    let unused = unused.map(|id| accept_unused(*id, &findings, &name).at(place()));
    verdict.warnings.extend(unused);
    verdict.accepted.push(accepted);
}

/// What is accepted without need hides what comes later.
fn accept_unused(id: CheckId, findings: &[Finding], name: &str) -> Report {
    let found = findings.iter().find(|finding| finding.check == id);
    let why = match found {
        Some(finding) => format!("the check does not refuse it: {}", finding.value),
        None => "the check does not refuse it".to_owned(),
    };
    Report::new(
        ErrorId::AcceptUnused,
        format!("the guest file accepts {id} for {name}, which does not apply"),
        why,
        format!("remove \"{id}\" from `accept`"),
    )
}

fn evidence(finding: &Finding) -> Evidence {
    let check = finding.check.check();
    let why = finding.evidence.iter();
    let why = why.map(|evidence| format!("{}: {}", evidence.source.display(), evidence.said));
    Evidence {
        why: why.collect(),
        fix: finding
            .fix
            .clone()
            .unwrap_or_else(|| check.remedy.to_owned()),
    }
    .and(otherwise(check.why))
}

fn refused(findings: &[Finding]) -> Vec<CheckId> {
    let refused = findings.iter().filter(|f| f.verdict == Verdict::Refuse);
    refused.map(|finding| finding.check).collect()
}

fn is_implied(finding: &Finding, refused: &[CheckId]) -> bool {
    IMPLIED.iter().any(|(cause, implied, value)| {
        refused.contains(cause) && *implied == finding.check && *value == finding.value
    })
}

impl Asked<'_> {
    /// Whether it is bound to vfio-pci by a kernel without device files.
    pub(in crate::plan) fn lacks_cdev(&self) -> bool {
        self.function.driver.as_deref() == Some(VFIO_PCI) && self.function.vfio_cdev.is_none()
    }
}
