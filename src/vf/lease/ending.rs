//! Leases that no run ends: of guests that keep a VF and are to keep it no more, and of runs that are dead.

use iommu::bdf::Bdf;

use super::returning::{give_back, give_back_gone, is_leased, of};
use crate::vf::Unfinished;
use crate::{
    error::{ErrorId, Report},
    sriov::{Hands, LeaseTerms, Records, Step, VfState},
    state::{InUse, State},
};

/// Ends the lease of a VF whose guest does not run: the way of `narrows vf return`. The guest that had it.
///
/// # Errors
/// `not-leased`, `device-in-use`; `device-not-clean` with what was found.
pub fn return_lease(
    hands: &mut dyn Hands,
    state: &State,
    bdf: Bdf,
    say: &mut dyn FnMut(&str),
) -> Result<String, Vec<Report>> {
    let one = |report: Report| vec![report];
    let observed = hands.observe().map_err(one)?;
    let (guest, terms, was) = held(bdf, &state.records(&observed).map_err(one)?).map_err(one)?;
    let _lock = InUse::take(state, bdf, &format!("{guest} (returned)")).map_err(one)?;
    state.check_recovered(bdf).map_err(one)?;
    end_keeping(state, &guest, &terms).map_err(one)?;
    let is_there = observed
        .pfs
        .get(&terms.pf)
        .is_some_and(|pf| pf.vfs.iter().any(|vf| vf.bdf == bdf));
    let evidence = match is_there {
        false => give_back_gone(hands, state, &guest, &observed.boot, &terms, say),
        // It was made again since its guest had it.
        true if !matches!(was, VfState::Leased) => {
            reset_and_give_back(hands, state, &guest, &terms, say)
        }
        true => give_back(hands, state, &guest, &terms, say),
    };
    if evidence.is_empty() {
        return Ok(guest);
    }
    let mut report = Report::new(
        ErrorId::DeviceNotClean,
        format!("{bdf} could not be given back"),
        "",
        "put that right, then: narrows vf return",
    );
    report.why = evidence;
    Err(vec![report])
}

/// Gives back a VF that a dead run had and that no journal tells of, by the lease on record; who calls has its lock. What
/// keeps it from counting as clean. A kept lease stays its guest's.
///
/// # Errors
/// `not-leased`; what keeps the machine from being read.
pub fn finish(
    hands: &mut dyn Hands,
    state: &State,
    one: &Unfinished,
    is_there: bool,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<String>, Report> {
    let lease = one
        .record
        .lease
        .as_ref()
        .ok_or_else(|| not_leased(one.record.bdf))?;
    let (guest, terms) = (lease.guest.as_str(), of(&lease.terms, lease.keep));
    if is_there {
        return Ok(reset_and_give_back(hands, state, guest, &terms, say));
    }
    let boot = hands.observe()?.boot;
    Ok(give_back_gone(hands, state, guest, &boot, &terms, say))
}

/// Resets the function first: nobody has since its guest had it.
fn reset_and_give_back(
    hands: &mut dyn Hands,
    state: &State,
    guest: &str,
    terms: &LeaseTerms,
    say: &mut dyn FnMut(&str),
) -> Vec<String> {
    let reset = Step::Reset {
        pf: terms.pf,
        index: terms.index,
        vf: Some(terms.vf),
    };
    match hands.carry_out(&reset, &mut |_| {}) {
        Ok(_) => give_back(hands, state, guest, terms, say),
        Err(fault) => vec![format!("{reset}: {fault}")],
    }
}

/// Writes down that the lease ends, before anything is done for that: what is cut off then is finished.
fn end_keeping(state: &State, guest: &str, terms: &LeaseTerms) -> Result<(), Report> {
    state.change_pf(terms.pf, &terms.anchor, |pf| {
        if !is_leased(pf, guest, terms) {
            return Err(not_leased(terms.vf));
        }
        let record = pf.vfs.get_mut(&terms.index);
        if let Some(lease) = record.and_then(|vf| vf.lease.as_mut()) {
            (lease.keep, lease.terms.keep) = (false, false);
        }
        Ok(())
    })
}

/// The guest with a lease, its terms for its end, and where the VF is in its life.
fn held(bdf: Bdf, records: &Records) -> Result<(String, LeaseTerms, VfState), Report> {
    let mut all = records.pfs.values().flat_map(|pf| pf.vfs.values());
    let found = all.find_map(|record| {
        let lease = record.lease.as_ref().filter(|_| record.bdf == bdf)?;
        Some((lease.guest.clone(), of(&lease.terms, false), record.state))
    });
    found.ok_or_else(|| not_leased(bdf))
}

fn not_leased(bdf: Bdf) -> Report {
    Report::new(
        ErrorId::NotLeased,
        format!("{bdf} is not leased"),
        "no guest has a lease of it",
        "narrows vf ls lists the leases",
    )
}
