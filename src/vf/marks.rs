//! What each step leaves in the records of VFs and namespaces, whether it goes forward or back.
//!
//! What makes a VF unknown is written before the step, what makes it known after it: a record never says more than what
//! is so, whenever the power goes.

use std::collections::BTreeMap;

use iommu::bdf::Bdf;

use crate::{
    error::Report,
    spec::host::Eraser,
    sriov::{
        Desired, DesiredNamespace, DesiredPf, Event, Hands, Namespace, NamespaceRecord,
        NamespaceState, Observed, PfFacts, PfRecords, Seen, Step, VfState,
    },
    state::{State, now},
};

/// Writes what a step is about to take away.
///
/// # Errors
/// As `State::change_pf`.
pub(super) fn before(state: &State, observed: &Observed, step: &Step) -> Result<(), Report> {
    let Step::Destroy { pf, .. } = step else {
        return Ok(());
    };
    change(state, observed, *pf, |kept, now| all_gone(kept, 0, now))
}

/// Writes what a step has made; what the machine is now, where the step has made functions.
///
/// # Errors
/// As `State::change_pf`; those of `observe`.
pub(super) fn after(
    hands: &mut dyn Hands,
    state: &State,
    observed: &Observed,
    step: &Step,
    seen: Seen,
) -> Result<Option<Observed>, Report> {
    match (step, seen) {
        (Step::Create { pf, .. }, _) => {
            let made = hands.observe()?;
            let vfs = made.pfs.get(pf).map_or(&[][..], |facts| &facts.vfs);
            change(state, &made, *pf, |kept, now| {
                all_gone(kept, 0, now)?;
                for vf in vfs {
                    kept.step(vf.index, vf.bdf, Event::Created, now)?;
                }
                Ok(())
            })?;
            return Ok(Some(made));
        }
        (Step::Reset { pf, index, .. }, Seen::Function(bdf)) => {
            change(state, observed, *pf, |kept, now| {
                let was = kept.vfs.get(index).map_or(VfState::Absent, |vf| vf.state);
                if was == VfState::Absent {
                    kept.step(*index, bdf, Event::Created, now)?;
                }
                // The quarantine's own file is gone, or nobody would have planned this.
                if was == VfState::Quarantined {
                    kept.step(*index, bdf, Event::Freed, now)?;
                }
                // A reset alone does not clean what a guest has left.
                let is_free = matches!(
                    was,
                    VfState::Absent | VfState::Created | VfState::Clean | VfState::Quarantined
                );
                if is_free {
                    kept.step(*index, bdf, Event::ResetSeen, now)?;
                }
                Ok(())
            })?;
        }
        (Step::NamespaceCreate { pf, name, .. }, Seen::Namespace(nsid)) => {
            let made = hands.observe()?;
            let found = made.pfs.get(pf).and_then(PfFacts::nvme);
            let found = found.and_then(|nvme| nvme.namespaces.get(&nsid));
            let id = found.map_or(crate::sriov::NamespaceId::None, |found| found.id.clone());
            let format = found.map(Namespace::format);
            change(state, &made, *pf, |kept, now| {
                let record = NamespaceRecord {
                    id,
                    name: name.clone(),
                    state: NamespaceState::Clean,
                    since: now.to_owned(),
                    is_made: true,
                    erase: None,
                    is_shared: false,
                    last_guest: None,
                    format,
                };
                kept.namespaces.insert(nsid, record);
                Ok(())
            })?;
            return Ok(Some(made));
        }
        (Step::NamespaceDelete { pf, nsid, .. }, _) => {
            change(state, observed, *pf, |kept, _| {
                kept.namespaces.remove(nsid);
                Ok(())
            })?;
        }
        (Step::Erase { pf, nsid, .. }, _) => {
            change(state, observed, *pf, |kept, now| {
                if let Some(record) = kept.namespaces.get_mut(nsid) {
                    record.state = NamespaceState::Clean;
                    now.clone_into(&mut record.since);
                    record.last_guest = None;
                }
                Ok(())
            })?;
        }
        _ => {}
    }
    Ok(None)
}

/// Writes what is known of the VFs and namespaces that the file names, once the machine is as it says.
///
/// # Errors
/// As `State::change_pf`.
pub(super) fn settle(state: &State, observed: &Observed, desired: &Desired) -> Result<(), Report> {
    for (pf, wanted) in &desired.pfs {
        let Some(facts) = observed.pfs.get(pf) else {
            continue;
        };
        let is_forgotten = state.is_forgotten(*pf, &facts.anchor);
        change(state, observed, *pf, |kept, now| {
            all_gone(kept, facts.count, now)?;
            for vf in &facts.vfs {
                let was = kept.vfs.get(&vf.index);
                if was.is_none_or(|record| record.state == VfState::Absent) {
                    kept.step(vf.index, vf.bdf, Event::Created, now)?;
                }
            }
            for vf in &wanted.vfs {
                let Some(record) = kept.vfs.get_mut(&vf.index) else {
                    continue;
                };
                // Whoever has it has it on the terms of the pool that it was in.
                if record.lease.is_none() {
                    record.pool.clone_from(&vf.pool);
                    record.mac = vf.leased.mac.or(vf.rest.mac).or(record.mac);
                }
            }
            if let Some(nvme) = facts.nvme() {
                for one in &wanted.namespaces {
                    let found = one
                        .nsid
                        .and_then(|nsid| Some((nsid, nvme.namespaces.get(&nsid)?)));
                    if let Some((nsid, found)) = found {
                        let erases = erases(wanted, one);
                        declared(kept, nsid, found, one, erases, is_forgotten, now);
                    }
                }
                if is_forgotten {
                    others_of_forgotten(kept, &nvme.namespaces, now);
                }
            }
            Ok(())
        })?;
        if is_forgotten {
            // All that it has now is known to be dirty.
            state.recall(*pf, &facts.anchor)?;
        }
    }
    Ok(())
}

/// Whether a pool erases the namespace.
fn erases(pf: &DesiredPf, namespace: &DesiredNamespace) -> bool {
    let mut vfs = pf.vfs.iter().filter(|vf| namespace.vfs.contains(&vf.index));
    vfs.any(|vf| vf.erase != Eraser::None)
}

/// Notes a namespace that the file names.
fn declared(
    kept: &mut PfRecords,
    nsid: u32,
    found: &Namespace,
    wanted: &DesiredNamespace,
    erases: bool,
    is_forgotten: bool,
    now: &str,
) {
    match kept.namespaces.get_mut(&nsid) {
        Some(record) if record.id == found.id => {
            record.name.clone_from(&wanted.name);
            if record.is_shared && !wanted.is_shared {
                // What those who shared it have left is for one alone now.
                record.is_shared = false;
                if !erases {
                    record.state = NamespaceState::Clean;
                }
            }
            // While a guest's data is on it, its format may be the guest's too.
            if record.format.is_none() && record.state == NamespaceState::Clean {
                record.format = Some(found.format());
            }
        }
        was => {
            // Another namespace is at this id, or the same with another name: whose data it has, nobody knows.
            let was_dirty = was.is_some_and(|record| record.state != NamespaceState::Clean);
            // What a pool lets stay, and what guests share, is nobody's secret.
            let may_stay = wanted.is_shared || !erases;
            let state = match (is_forgotten && !may_stay) || was_dirty {
                true => NamespaceState::Dirty,
                false => NamespaceState::Clean,
            };
            let format = (state == NamespaceState::Clean).then(|| found.format());
            let record = NamespaceRecord {
                id: found.id.clone(),
                name: wanted.name.clone(),
                state,
                since: now.to_owned(),
                is_made: false,
                erase: None,
                is_shared: false,
                last_guest: None,
                format,
            };
            kept.namespaces.insert(nsid, record);
        }
    }
}

/// What the file does not name was perhaps a guest's before all was forgotten: it is dirty for who is given it later.
fn others_of_forgotten(kept: &mut PfRecords, all: &BTreeMap<u32, Namespace>, now: &str) {
    for (nsid, found) in all {
        kept.namespaces
            .entry(*nsid)
            .or_insert_with(|| NamespaceRecord {
                id: found.id.clone(),
                name: String::new(),
                state: NamespaceState::Dirty,
                since: now.to_owned(),
                is_made: false,
                erase: None,
                is_shared: false,
                last_guest: None,
                format: None,
            });
    }
}

/// VFs from index `from` on are not there.
pub(super) fn all_gone(kept: &mut PfRecords, from: u32, now: &str) -> Result<(), Report> {
    let there: Vec<(u32, Bdf)> = kept
        .vfs
        .range(from..)
        .filter(|(_, record)| record.state != VfState::Absent)
        .map(|(index, record)| (*index, record.bdf))
        .collect();
    for (index, bdf) in there {
        kept.step(index, bdf, Event::Gone, now)?;
    }
    Ok(())
}

pub(super) fn change(
    state: &State,
    observed: &Observed,
    pf: Bdf,
    f: impl FnOnce(&mut PfRecords, &str) -> Result<(), Report>,
) -> Result<(), Report> {
    let Some(facts) = observed.pfs.get(&pf) else {
        return Ok(());
    };
    let now = now();
    state.change_pf(pf, &facts.anchor, |kept| {
        enter(kept, facts, &observed.boot, &now);
        f(kept, &now)
    })
}

fn enter(kept: &mut PfRecords, facts: &PfFacts, boot: &str, now: &str) {
    kept.enter(boot, facts.nvme().is_some(), now);
}
