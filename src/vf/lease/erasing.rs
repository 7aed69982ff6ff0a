//! Erasing what a guest has left on its namespaces.

use super::{in_a_line, patiently};
use crate::{
    sriov::{
        Dirt, Event, Hands, LeaseTerms, LeasedNamespace, NamespaceRecord, NamespaceState, Percent,
        PfRecords, Step, check_format, is_gone, to_erase,
    },
    state::{State, now},
    sys::crash::{self, Step as Point},
};

/// Erases namespaces of a lease, each noted as soon as it is; then `last` happens to the VF. What could not be erased.
pub(super) fn erase(
    hands: &mut dyn Hands,
    state: &State,
    terms: &LeaseTerms,
    dirty: &[LeasedNamespace],
    last: Event,
    say: &mut dyn FnMut(&str),
) -> Vec<String> {
    let mut evidence = Vec::new();
    for wanted in dirty {
        let done = erase_one(hands, state, &Dirt::of(terms, wanted), say);
        if let Err(why) = done {
            evidence.push(format!("namespace {} is not erased: {why}", wanted.nsid));
        }
    }
    if !evidence.is_empty() {
        return evidence;
    }
    let noted = state.change_pf(terms.pf, &terms.anchor, |pf| {
        pf.step(terms.index, terms.vf, last, &now()).map(drop)
    });
    crash::point(Point::Erased);
    noted.err().iter().map(in_a_line).collect()
}

/// Erases one namespace, looks whether it is as it should be, and notes it.
pub(super) fn erase_one(
    hands: &mut dyn Hands,
    state: &State,
    dirt: &Dirt,
    say: &mut dyn FnMut(&str),
) -> Result<(), String> {
    let noted = |state: &State, f: &dyn Fn(&mut PfRecords)| {
        let changed = state.change_pf(dirt.pf, &dirt.anchor, |pf| {
            f(pf);
            Ok(())
        });
        changed.map_err(|report| in_a_line(&report))
    };
    let wanted = &dirt.namespace;
    let observed = hands.observe().map_err(|report| in_a_line(&report))?;
    if is_gone(dirt, &observed)? {
        say(&format!(
            "namespace {} is gone, and what was on it was not erased",
            wanted.nsid
        ));
        return noted(state, &|pf| {
            pf.namespaces.remove(&wanted.nsid);
        });
    }
    let nsid = wanted.nsid;
    let mut failed = Vec::new();
    for step in to_erase(dirt, &observed)? {
        let is_erase = matches!(step, Step::Erase { .. });
        // Nothing is erased where nothing can be; the last step, which takes it from the primary again, is always tried.
        if !failed.is_empty() && !matches!(step, Step::Detach { .. }) {
            continue;
        }
        if is_erase {
            say(&format!("namespace {nsid} is erased now"));
        }
        let mut told = 0;
        let mut progress = |percent: Percent| {
            // A line for each tenth: it may take hours.
            let tenths = percent.0 / 10;
            if tenths > told && tenths < 10 {
                told = tenths;
                say(&format!("namespace {nsid}: {tenths}0 percent erased"));
            }
        };
        match patiently(hands, &step, &mut progress) {
            Err(fault) => failed.push(format!("{step}: {fault}")),
            Ok(()) if is_erase => say(&format!("namespace {nsid} is erased")),
            Ok(()) => {}
        }
    }
    if !failed.is_empty() {
        return Err(failed.join("; "));
    }
    let observed = hands.observe().map_err(|report| in_a_line(&report))?;
    check_format(dirt, &observed)?;
    noted(state, &|pf| mark(pf, wanted, NamespaceState::Clean, None))
}

/// Writes down what is known of a namespace now.
pub(super) fn mark(
    pf: &mut PfRecords,
    of: &LeasedNamespace,
    state: NamespaceState,
    guest: Option<&str>,
) {
    let record = pf
        .namespaces
        .entry(of.nsid)
        .or_insert_with(|| NamespaceRecord {
            id: of.id.clone(),
            name: format!("nsid-{}", of.nsid),
            state,
            since: now(),
            is_made: false,
            erase: None,
            is_shared: false,
            last_guest: None,
            format: None,
        });
    record.id = of.id.clone();
    record.format = Some(of.format);
    if record.state != state {
        record.state = state;
        record.since = now();
    }
    if let Some(guest) = guest {
        record.last_guest = Some(guest.to_owned());
    }
}
