//! Who has the VFs that steps touch: by their locks, whatever records say.

use std::collections::BTreeMap;

use iommu::bdf::Bdf;

use crate::{
    error::{ErrorId, Report},
    sriov::{Desired, Observed, PfFacts, Records, Step, VfState},
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
