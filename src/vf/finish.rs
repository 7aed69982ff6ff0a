//! What is written down once all steps are done, and that no journal is left.

use std::collections::BTreeMap;

use super::{
    job::{Job, Ready, Verb},
    marks,
};
use crate::{
    error::{ErrorId, Report},
    sriov::{Hands, Observed},
    state::{HostJournal, State},
    sys::crash,
};

/// Step 8: what is known now is kept, and nothing is left to be undone.
pub(super) fn finish(
    hands: &mut dyn Hands,
    state: &State,
    ready: &Ready,
    job: &Job<'_>,
    journal: Option<HostJournal>,
) -> Result<(), Vec<Report>> {
    let one = |report: Report| vec![report];
    // Whatever was planned before the steps is there by now: namespaces have ids.
    let observed = hands.observe().map_err(one)?;
    if job.verb == Verb::Apply {
        // Where there was no step, too: what is applied can be released.
        keep_baseline(state, ready).map_err(one)?;
        marks::settle(state, &observed, &ready.planned.desired).map_err(one)?;
        if let Some((file, text)) = job.file {
            state.set_applied(file, text).map_err(one)?;
        }
    } else {
        state.forget_host().map_err(one)?;
    }
    crash::point(crash::Step::HostSettled);
    match journal.and_then(removed) {
        None => Ok(()),
        Some(report) => Err(one(report)),
    }
}

pub(super) fn removed(journal: HostJournal) -> Option<Report> {
    let path = journal.path().to_owned();
    let error = journal.remove().err()?;
    Some(Report::new(
        ErrorId::StateUnwritable,
        "the journal of a change of the host cannot be removed",
        format!("{}: {error}", path.display()),
        "remove it: nothing is left to be undone",
    ))
}

pub(super) fn keep_baseline(state: &State, ready: &Ready) -> Result<(), Report> {
    let kept = state.baseline()?;
    let is_new = kept.is_none();
    let mut baseline = kept.unwrap_or_else(|| Observed {
        pfs: BTreeMap::new(),
        ..ready.observed.clone()
    });
    let before = baseline.pfs.len();
    for pf in ready.planned.desired.pfs.keys() {
        if let Some(facts) = ready.observed.pfs.get(pf) {
            baseline.pfs.entry(*pf).or_insert_with(|| facts.clone());
        }
    }
    if is_new || baseline.pfs.len() != before {
        state.set_baseline(&baseline)?;
    }
    Ok(())
}
