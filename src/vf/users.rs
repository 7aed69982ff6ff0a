//! Who has the VFs that steps touch: by their locks, whatever records say.

use std::collections::BTreeMap;

use iommu::bdf::Bdf;

use super::marks;
use crate::{
    error::{ErrorId, Report},
    sriov::{
        Desired, NamespaceState, Observed, PfFacts, PfRecords, Records, Step, VfRecord, VfState,
    },
    state::State,
};

/// VFs that a guest runs with while one attribute of theirs is set: PF and index.
pub(super) type Live = BTreeMap<(Bdf, u32), String>;

/// Shows that no run has a VF that is touched, but for attributes of VFs that are known to be in use: of those the plan has
/// only what may be changed under a guest. For who has the host's lock alone.
///
/// # Errors
/// `vf-in-use` for each that is; `state-unreadable`.
pub(super) fn check(
    state: &State,
    observed: &Observed,
    records: &Records,
    desired: &Desired,
    steps: &[Step],
) -> Result<Live, Vec<Report>> {
    let mut users: BTreeMap<Bdf, Option<String>> = BTreeMap::new();
    let (mut live, mut refusals) = (Live::new(), Vec::new());
    for step in steps {
        let Some(facts) = observed.pfs.get(&step.pf()) else {
            continue;
        };
        for (index, bdf) in touched(step, facts) {
            let user = match users.get(&bdf) {
                Some(user) => user.clone(),
                None => {
                    let user = state.user_of(bdf).map_err(|report| vec![report])?;
                    users.insert(bdf, user.clone());
                    user
                }
            };
            let Some(user) = user else { continue };
            let is_known = records
                .vf(step.pf(), index)
                .is_some_and(|record| record.state == VfState::InUse);
            if is_known && matches!(step, Step::Attribute { .. }) {
                live.insert((step.pf(), index), user);
            } else {
                let named = desired.pfs.get(&step.pf());
                let place = named.and_then(|pf| pf.place.clone());
                refusals.push(in_use(step, bdf, &user).at(place));
            }
        }
    }
    match refusals.is_empty() {
        true => Ok(live),
        false => Err(refusals),
    }
}

/// Who has what a step back would take away: VFs, their controllers, namespaces, the link. Looked at under the PF's lock, by
/// which a guest takes a VF; where nobody has any of it, VFs that are about to be destroyed are gone for every guest once this
/// returns. For who has the host's lock alone.
///
/// # Errors
/// As `State::change_pf`; `state-unreadable`.
pub(super) fn of_undo(
    state: &State,
    observed: &Observed,
    step: &Step,
) -> Result<Vec<String>, Report> {
    let Some(facts) = observed.pfs.get(&step.pf()) else {
        return Ok(Vec::new());
    };
    let mut users = Vec::new();
    marks::change(state, observed, facts.bdf, |kept, now| {
        for (index, bdf) in taken_away(step, facts) {
            let by_lock = state.user_of(bdf)?;
            let by_record = || held(kept.vfs.get(&index).filter(|record| record.bdf == bdf)?);
            users.extend(
                by_lock
                    .or_else(by_record)
                    .map(|who| format!("{who} has {bdf}")),
            );
        }
        if let Step::NamespaceDelete { nsid, .. } = step {
            users.extend(owner(kept, *nsid));
        }
        match matches!(step, Step::Destroy { .. }) && users.is_empty() {
            true => marks::all_gone(kept, 0, now),
            false => Ok(()),
        }
    })?;
    Ok(users)
}

/// The VFs of which a step back takes something away.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the others set what the next lease sets anew"
)]
fn taken_away(step: &Step, facts: &PfFacts) -> Vec<(u32, Bdf)> {
    let all = || facts.vfs.iter().map(|vf| (vf.index, vf.bdf)).collect();
    match step {
        Step::Link { up: false, .. } => all(),
        Step::NamespaceDelete { nsid, .. } => {
            let nvme = facts.nvme();
            let namespace = nvme.and_then(|nvme| nvme.namespaces.get(nsid));
            let secondaries = nvme.into_iter().flat_map(|nvme| &nvme.secondaries);
            let attached: Vec<u32> = secondaries
                .filter(|one| namespace.is_some_and(|is| is.attached.contains(&one.cntlid)))
                .filter_map(|one| u32::from(one.vf).checked_sub(1))
                .collect();
            let vfs = facts.vfs.iter();
            vfs.filter(|vf| attached.contains(&vf.index))
                .map(|vf| (vf.index, vf.bdf))
                .collect()
        }
        Step::Destroy { .. }
        | Step::Unbind { .. }
        | Step::Offline { .. }
        | Step::Assign { .. }
        | Step::Detach { .. } => touched(step, facts),
        _ => Vec::new(),
    }
}

/// Whose a VF is by its record. One that is kept for a guest and was made anew is nobody's yet: with the next one the guest
/// has what it has with this.
fn held(record: &VfRecord) -> Option<String> {
    let lease = record.lease.as_ref();
    let is_held = lease.is_some_and(|lease| lease.run.is_some())
        || matches!(
            record.state,
            VfState::Leased | VfState::InUse | VfState::Dirty | VfState::Sanitising
        );
    let guest = lease.map_or("one that is gone", |lease| &lease.guest);
    is_held.then(|| format!("guest {guest}"))
}

/// Whose data is on a namespace, where that guest has a lease.
fn owner(kept: &PfRecords, nsid: u32) -> Option<String> {
    let record = kept.namespaces.get(&nsid)?;
    let guest = record.last_guest.as_deref()?;
    let mut leases = kept.vfs.values().filter_map(|vf| vf.lease.as_ref());
    let is_its = record.state != NamespaceState::Clean && leases.any(|lease| lease.guest == guest);
    is_its.then(|| format!("namespace {nsid} has data of guest {guest}"))
}

/// The VFs that a step touches, of those that are there.
fn touched(step: &Step, facts: &PfFacts) -> Vec<(u32, Bdf)> {
    let is_touched = |index: u32| match step {
        Step::Destroy { .. } => true,
        Step::Unbind { index: one, .. }
        | Step::Bind { index: one, .. }
        | Step::Attribute { index: one, .. }
        | Step::Reset { index: one, .. } => *one == index,
        Step::Offline { cntlid, .. }
        | Step::Assign { cntlid, .. }
        | Step::Online { cntlid, .. }
        | Step::Detach { cntlid, .. }
        | Step::Attach { cntlid, .. } => facts.nvme().is_some_and(|nvme| {
            nvme.secondaries
                .iter()
                .any(|one| one.cntlid == *cntlid && u32::from(one.vf) == index + 1)
        }),
        Step::Link { .. }
        | Step::Autoprobe { .. }
        | Step::Create { .. }
        | Step::NamespaceCreate { .. }
        | Step::Erase { .. }
        | Step::NamespaceDelete { .. } => false,
    };
    facts
        .vfs
        .iter()
        .filter(|vf| is_touched(vf.index))
        .map(|vf| (vf.index, vf.bdf))
        .collect()
}

fn in_use(step: &Step, bdf: Bdf, user: &str) -> Report {
    Report::new(
        ErrorId::VfInUse,
        format!("cannot {step}"),
        format!("{bdf} is in use: {user}"),
        "stop that guest",
    )
}
