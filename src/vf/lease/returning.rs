//! A VF is taken back from its guest, on the terms on which it was given.

use super::{
    erasing::{erase, mark},
    in_a_line, patiently,
};
use crate::{
    error::Report,
    spec::host::Eraser,
    sriov::{
        Dirt, Event, Hands, Lease, LeaseTerms, LeasedNamespace, NamespaceState, PfRecords, VfState,
        changed_formats, check_format, to_rest,
    },
    state::{State, now},
    sys::crash::{self, Step as Point},
};

/// Takes a VF back from `guest`, which does not run any more; the function was reset already. What keeps it from counting
/// as clean: none where it is, or is not the guest's any more.
#[must_use]
pub fn give_back(
    hands: &mut dyn Hands,
    state: &State,
    guest: &str,
    terms: &LeaseTerms,
    say: &mut dyn FnMut(&str),
) -> Vec<String> {
    let mut evidence = match on_record(state, guest, terms) {
        Ok(None) => Vec::new(),
        Ok(Some(terms)) => returned(hands, state, guest, &terms, say),
        Err(report) => vec![in_a_line(&report)],
    };
    // One whose reset has failed is in quarantine before it is at rest: then at rest is not clean.
    if state.refusal(terms.vf).is_some() {
        let marked = state.mark_quarantined(terms.vf);
        evidence.extend(marked.err().iter().map(in_a_line));
    }
    evidence
}

/// Takes it back as if it were not in quarantine.
fn returned(
    hands: &mut dyn Hands,
    state: &State,
    guest: &str,
    terms: &LeaseTerms,
    say: &mut dyn FnMut(&str),
) -> Vec<String> {
    match ended(state, guest, terms) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(report) => return vec![in_a_line(&report)],
    }
    crash::point(Point::Dirty);
    let evidence = rest(hands, terms);
    if !evidence.is_empty() {
        return evidence;
    }
    if terms.keep {
        let kept = event(state, terms, Event::RestedKept);
        crash::point(Point::Rested);
        return kept.err().iter().map(in_a_line).collect();
    }
    let changed = match reformatted(hands, terms) {
        Ok(changed) => changed,
        Err(evidence) => return evidence,
    };
    match rested(state, guest, terms, &changed) {
        Ok(dirty) if dirty.is_empty() => Vec::new(),
        Ok(dirty) => {
            crash::point(Point::Rested);
            crash::point(Point::Sanitising);
            erase(hands, state, terms, &dirty, Event::Erased, say)
        }
        Err(report) => vec![in_a_line(&report)],
    }
}

/// The same for a VF that is gone, with the boot or because the host has removed it: namespaces are there still. What could
/// not be done.
#[must_use]
pub fn give_back_gone(
    hands: &mut dyn Hands,
    state: &State,
    guest: &str,
    boot: &str,
    terms: &LeaseTerms,
    say: &mut dyn FnMut(&str),
) -> Vec<String> {
    let terms = &match on_record(state, guest, terms) {
        Ok(None) => return Vec::new(),
        Ok(Some(terms)) => terms,
        Err(report) => return vec![in_a_line(&report)],
    };
    let changed = match reformatted(hands, terms) {
        Ok(changed) => changed,
        Err(evidence) => return evidence,
    };
    let dirty = state.change_pf(terms.pf, &terms.anchor, |pf| {
        pf.enter(boot, terms.controller.is_some(), &now());
        if !is_leased(pf, guest, terms) {
            return Ok(None);
        }
        let record = pf.vfs.get_mut(&terms.index);
        match record.and_then(|vf| vf.lease.as_mut()) {
            Some(lease) if terms.keep => {
                lease.run = None;
                Ok(Some(Vec::new()))
            }
            _ => Ok(Some(to_sanitise(pf, guest, terms, &changed))),
        }
    });
    match dirty {
        Ok(None) => Vec::new(),
        Ok(Some(dirty)) => erase(hands, state, terms, &dirty, Event::Gone, say),
        Err(report) => vec![in_a_line(&report)],
    }
}

/// The terms of a lease for its end, kept or not as the record says; `None` where it has ended.
fn on_record(state: &State, guest: &str, terms: &LeaseTerms) -> Result<Option<LeaseTerms>, Report> {
    state.change_pf(terms.pf, &terms.anchor, |pf| {
        let record = pf.vfs.get(&terms.index);
        let lease = record.and_then(|record| record.lease.as_ref());
        Ok(lease
            .filter(|lease| lease.guest == guest)
            .map(|lease| of(&lease.terms, lease.keep)))
    })
}

pub(super) fn of(terms: &LeaseTerms, keep: bool) -> LeaseTerms {
    LeaseTerms {
        keep,
        ..terms.clone()
    }
}

/// Notes that the guest has ended; whether there is anything to give back.
fn ended(state: &State, guest: &str, terms: &LeaseTerms) -> Result<bool, Report> {
    state.change_pf(terms.pf, &terms.anchor, |pf| {
        if !is_leased(pf, guest, terms) {
            return Ok(false);
        }
        let is_kept = |lease: &Lease| lease.keep && lease.run.is_none();
        let record = pf.vfs.get(&terms.index);
        let is_rested =
            record.is_some_and(|record| record.lease.as_ref().is_some_and(is_kept)) && terms.keep;
        if is_rested {
            return Ok(false);
        }
        // A kept lease, or one that was never given back, outlives the VF: another boot has made it again, and it was reset.
        let state = pf
            .vfs
            .get(&terms.index)
            .map_or(VfState::Absent, |vf| vf.state);
        let before: &[Event] = match state {
            VfState::Absent => &[Event::Created, Event::ResetSeen, Event::Leased],
            VfState::Created => &[Event::ResetSeen, Event::Leased],
            VfState::Clean => &[Event::Leased],
            VfState::Quarantined => &[Event::Freed, Event::ResetSeen, Event::Leased],
            VfState::Leased | VfState::InUse | VfState::Dirty | VfState::Sanitising => &[],
        };
        for event in before.iter().chain(&[Event::Ended]) {
            pf.step(terms.index, terms.vf, *event, &now())?;
        }
        Ok(true)
    })
}

/// Sets the VF to rest, all of it that can be, and reads it back; what is not so.
fn rest(hands: &mut dyn Hands, terms: &LeaseTerms) -> Vec<String> {
    let observed = match hands.observe() {
        Ok(observed) => observed,
        Err(report) => return vec![in_a_line(&report)],
    };
    let mut evidence = Vec::new();
    match to_rest(terms, &observed) {
        Ok(steps) => {
            for step in steps {
                if let Err(fault) = patiently(hands, &step, &mut |_| {}) {
                    evidence.push(format!("not at rest: {step}: {fault}"));
                }
            }
        }
        Err(why) => evidence.push(format!("not at rest: {why}")),
    }
    if !evidence.is_empty() {
        return evidence;
    }
    match hands.observe() {
        Ok(observed) => match to_rest(terms, &observed) {
            Ok(left) => evidence.extend(
                left.iter()
                    .map(|step| format!("not at rest after it was set; still to be done: {step}")),
            ),
            Err(why) => evidence.push(format!("not at rest: {why}")),
        },
        Err(report) => evidence.push(in_a_line(&report)),
    }
    evidence
}

/// The namespaces that the guest has given another format, which the next one would find: a format gives back the one that
/// they should have, whatever the pool says of erasing. One that keeps them may do so.
fn reformatted(
    hands: &mut dyn Hands,
    terms: &LeaseTerms,
) -> Result<Vec<LeasedNamespace>, Vec<String>> {
    if terms.keep || terms.controller.is_none() {
        return Ok(Vec::new());
    }
    let observed = hands.observe().map_err(|report| vec![in_a_line(&report)])?;
    let (shared, own): (Vec<_>, Vec<_>) = changed_formats(terms, &observed)
        .map_err(|why| vec![why])?
        .into_iter()
        .partition(|changed| changed.is_shared);
    match shared.is_empty() {
        true => Ok(own),
        // Other guests have it too: nothing here may format it.
        false => Err(shared
            .iter()
            .filter_map(|changed| check_format(&Dirt::of(terms, changed), &observed).err())
            .collect()),
    }
}

/// Notes that the VF is at rest; the namespaces that are to be erased now.
fn rested(
    state: &State,
    guest: &str,
    terms: &LeaseTerms,
    changed: &[LeasedNamespace],
) -> Result<Vec<LeasedNamespace>, Report> {
    let dirty = state.change_pf(terms.pf, &terms.anchor, |pf| {
        let dirty = to_sanitise(pf, guest, terms, changed);
        let was = pf.vfs.get(&terms.index).map(|record| record.state);
        let event = match (dirty.is_empty(), was) {
            (false, _) => Event::RestedDirty,
            // It was cut off between the last erase and the word of it.
            (true, Some(VfState::Sanitising)) => Event::Erased,
            (true, _) => Event::Rested,
        };
        pf.step(terms.index, terms.vf, event, &now())?;
        Ok(dirty)
    })?;
    if dirty.is_empty() {
        crash::point(Point::Rested);
    }
    Ok(dirty)
}

/// Whether the record says that the guest has the VF.
pub(super) fn is_leased(pf: &PfRecords, guest: &str, terms: &LeaseTerms) -> bool {
    let record = pf.vfs.get(&terms.index);
    let lease = record.and_then(|record| record.lease.as_ref());
    lease.is_some_and(|lease| lease.guest == guest)
}

/// The namespaces of the lease that are to be erased, noted as such: those that the guest may have written to, where the pool
/// says so, and those in another format. On the others the pool lets stay what is there.
fn to_sanitise(
    pf: &mut PfRecords,
    guest: &str,
    terms: &LeaseTerms,
    changed: &[LeasedNamespace],
) -> Vec<LeasedNamespace> {
    let mut dirty = Vec::new();
    for its in terms.own_namespaces() {
        let is_written = pf.namespaces.get(&its.nsid).is_some_and(|record| {
            record.state != NamespaceState::Clean && record.last_guest.as_deref() == Some(guest)
        });
        if (is_written && terms.erase != Eraser::None) || changed.contains(its) {
            mark(pf, its, NamespaceState::Sanitising, None);
            dirty.push(its.clone());
        } else if is_written {
            mark(pf, its, NamespaceState::Clean, None);
        }
    }
    dirty
}

fn event(state: &State, terms: &LeaseTerms, event: Event) -> Result<(), Report> {
    state.change_pf(terms.pf, &terms.anchor, |pf| {
        pf.step(terms.index, terms.vf, event, &now()).map(drop)
    })
}
