//! Right before a guest's first instruction, in each of its lives: its VFs are still what their leases say.
//!
//! On entry: the leases were taken, and the functions are bound and reset; in between anybody with the PF's privilege may
//! have changed them. On exit: each reads as its lease says, or the guest does not run. Nothing is changed here.

use crate::{
    error::{ErrorId, Report},
    sriov::{LeaseTerms, Observed, PfFacts, Step, to_leased},
};

/// Whether the guest has lived with its VFs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenancy {
    /// Nobody but the host has had the VFs since they were made what their leases say.
    Begins,
    /// It has rebooted: what a lease leaves to the guest is as the guest has left it.
    GoesOn,
}

/// Shows that every leased VF is as its lease says: `read` reads the machine, and is asked only where there is a lease.
///
/// # Errors
/// `step-not-done` with all that differs, of all of them; what keeps the machine from being read.
pub fn verify<'a>(
    read: impl FnOnce() -> Result<Observed, Report>,
    leases: impl IntoIterator<Item = &'a LeaseTerms>,
    tenancy: Tenancy,
) -> Result<(), Report> {
    let mut leases = leases.into_iter().peekable();
    if leases.peek().is_none() {
        return Ok(());
    }
    let observed = read()?;
    let mut changed = Vec::new();
    let mut why = Vec::new();
    for terms in leases {
        let differs = match tenancy {
            Tenancy::Begins => differing(&in_its_format(terms, &observed), &observed),
            Tenancy::GoesOn => differing(&as_left(terms, &observed), &observed),
        };
        if !differs.is_empty() {
            changed.push(terms.vf.to_string());
            why.extend(differs);
        }
    }
    if why.is_empty() {
        return Ok(());
    }
    let mut report = Report::new(
        ErrorId::StepNotDone,
        format!(
            "{} is not what its lease says any more: the guest does not run",
            changed.join(", ")
        ),
        "",
        "find out who changes VFs beside narrows (ip, nvme, another manager), then start the guest again",
    );
    report.why = why;
    Err(report)
}

/// What is not as the lease says, in words.
fn differing(terms: &LeaseTerms, observed: &Observed) -> Vec<String> {
    match to_leased(terms, observed) {
        Ok(steps) => steps
            .iter()
            .filter_map(in_words)
            .map(|step| format!("{}: {step}", terms.vf))
            .collect(),
        Err(why) => vec![format!("{}: {why}", terms.vf)],
    }
}

/// What a step that would put it right says of how it is; none where another step says it.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the others tell by themselves what is and what should be"
)]
fn in_words(step: &Step) -> Option<String> {
    match step {
        Step::Offline {
            cntlid,
            queues,
            vectors,
            ..
        } => Some(format!(
            "controller {cntlid} has {queues} queues and {vectors} vectors"
        )),
        Step::Reset { .. } => None,
        other => Some(format!("its lease wants: {other}")),
    }
}

/// The lease of a guest that has lived already, with what is the guest's to change as it is now: besides the format of its
/// namespaces its own address, where the pool trusts it or gives none.
fn as_left(terms: &LeaseTerms, observed: &Observed) -> LeaseTerms {
    let mut terms = in_its_format(terms, observed);
    if terms.leased.trust == Some(true) {
        terms.leased.mac = None;
    }
    // Where it is given no address, its driver has chosen one.
    terms.no_mac = false;
    terms
}

/// The lease with the format that the namespaces have that are the guest's alone: it may have kept them from an earlier run.
/// Whether a new one has the format that it should have is looked at before it is attached.
fn in_its_format(terms: &LeaseTerms, observed: &Observed) -> LeaseTerms {
    let mut terms = terms.clone();
    if let Some(nvme) = observed.pfs.get(&terms.pf).and_then(PfFacts::nvme) {
        for its in terms.namespaces.iter_mut().filter(|its| !its.is_shared) {
            // Another one that has its id meanwhile is not its own.
            if let Some(is) = nvme.namespaces.get(&its.nsid).filter(|is| is.id == its.id) {
                its.format = is.format();
            }
        }
    }
    terms
}

#[cfg(test)]
#[path = "verify_test.rs"]
mod tests;
