//! Puts right what an apply left that was killed, or that the power went in, and the VFs that no run gave back.
//!
//! On entry: root; journals of runs are put right before. On exit: what is not put right is reported, and its journal stays.

use iommu::{bdf::Bdf, sysfs::SysRoot};

use super::{
    boot,
    finish::removed,
    marks,
    progress::{Progress, Say},
    shows::{lasts, shows},
    undo::{carry_out, is_open, undo, unwritten},
};
use crate::{
    error::{ErrorId, Report},
    sriov::{Hands, Holder, Observed, Records, Step, VfRecord, VfState},
    state::{HostJournal, HostRemains, InUse, Phase, ProcessId, State, StepState},
};

/// What was done about one journal.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// What was done, or would be, in words.
    pub steps: Vec<String>,
    /// What could not be done.
    pub left: Vec<Report>,
}

/// Undoes what a dead apply has done; goes on with a dead release. With `is_dry` it only tells what it would do.
///
/// # Errors
/// `host-busy`; `state-unreadable`.
pub fn recover_host(
    hands: &mut dyn Hands,
    state: &State,
    remains: &HostRemains,
    is_dry: bool,
    say: &mut Say<'_>,
) -> Result<Recovered, Report> {
    let mut recovered = Recovered::default();
    if is_dry {
        recovered.steps = foretold(remains);
        return Ok(recovered);
    }
    let _lock = state.lock_host("recover")?;
    let claimed = remains.claim().map_err(|error| {
        Report::new(
            ErrorId::StateUnreadable,
            "the journal of a change of the host cannot be locked",
            format!("{}: {error}", remains.changes().whose()),
            "see that the state folder can be read",
        )
    })?;
    let Some(mut journal) = claimed else {
        let done = "another recovery has put it right, or is about to";
        recovered.steps.push(done.to_owned());
        return Ok(recovered);
    };
    let mut words = |progress: Progress| {
        match &progress {
            Progress::Undoing { step, .. } => recovered.steps.push(format!("undo: {step}")),
            Progress::Begun { step, .. } => recovered.steps.push(step.clone()),
            Progress::Percent { .. }
            | Progress::Done { .. }
            | Progress::LeftOut { .. }
            | Progress::Awaiting { .. }
            | Progress::Confirmed
            | Progress::Failed { .. } => {}
        }
        say(progress);
    };
    let left = match journal.changes().phase {
        Phase::Applying | Phase::Awaiting | Phase::Undoing => {
            undo(hands, state, &mut journal, &mut words)
        }
        Phase::Releasing => go_on(hands, state, &mut journal, &mut words),
        // It was confirmed: the next apply brings the records up to date.
        Phase::Confirmed => {
            let owner = journal.changes().owner;
            state.take_confirmation(owner).err().into_iter().collect()
        }
    };
    recovered.left = left;
    let is_finished = match journal.changes().phase {
        Phase::Confirmed | Phase::Releasing => recovered.left.is_empty(),
        Phase::Applying | Phase::Awaiting | Phase::Undoing => !is_open(&journal),
    };
    if is_finished {
        recovered.left.extend(removed(journal));
    }
    Ok(recovered)
}

/// Does what is left of a release.
fn go_on(
    hands: &mut dyn Hands,
    state: &State,
    journal: &mut HostJournal,
    say: &mut Say<'_>,
) -> Vec<Report> {
    let seen = hands.observe();
    let known = seen.and_then(|seen| boot::check(&seen.boot).map(|()| seen));
    let mut observed = match known {
        Ok(observed) => observed,
        Err(report) => return vec![report],
    };
    let is_same_boot = observed.boot == journal.changes().boot;
    let steps = journal.changes().steps.clone();
    let of = steps.len();
    for (at, entry) in steps.iter().enumerate() {
        // Another boot has no VFs by itself, and no settings of theirs.
        let is_needed = matches!(entry.state, StepState::Planned | StepState::Begun)
            && (is_same_boot || lasts(&entry.step))
            && shows(&entry.step, &observed) != Some(true);
        if !is_needed {
            continue;
        }
        say(Progress::Begun {
            at: at + 1,
            of,
            step: entry.step.to_string(),
        });
        match forward(hands, state, &observed, &entry.step) {
            Ok(now) => observed = now,
            Err(report) => return vec![report],
        }
        let noted = journal.update(|changes| {
            if let Some(entry) = changes.steps.get_mut(at) {
                entry.state = StepState::Done;
            }
        });
        if let Err(error) = noted {
            return vec![unwritten(journal, &error)];
        }
    }
    state.forget_host().err().into_iter().collect()
}

fn forward(
    hands: &mut dyn Hands,
    state: &State,
    observed: &Observed,
    step: &Step,
) -> Result<Observed, Report> {
    marks::before(state, observed, step)?;
    let seen = carry_out(hands, step, &mut |_| {}).map_err(|fault| {
        Report::new(
            ErrorId::StepFailed,
            format!("cannot {step}"),
            fault.to_string(),
            "see the kernel log, then narrows recover again",
        )
    })?;
    match marks::after(hands, state, observed, step, seen)? {
        Some(made) => Ok(made),
        None => hands.observe(),
    }
}

fn foretold(remains: &HostRemains) -> Vec<String> {
    let changes = remains.changes();
    let is_to_go = |state: StepState| match changes.phase {
        Phase::Confirmed => false,
        Phase::Releasing => matches!(state, StepState::Planned | StepState::Begun),
        Phase::Applying | Phase::Awaiting | Phase::Undoing => {
            !matches!(state, StepState::Planned | StepState::Undone)
        }
    };
    let steps = changes.steps.iter().filter(|entry| is_to_go(entry.state));
    if changes.phase == Phase::Releasing {
        return steps.map(|entry| entry.step.to_string()).collect();
    }
    steps
        .rev()
        .map(|entry| format!("undo: {}", entry.step))
        .collect()
}

/// A VF that no run gave back, and that no journal tells of.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfinished {
    /// Its PF.
    pub pf: Bdf,
    /// Its index.
    pub index: u32,
    /// What is kept of it.
    pub record: VfRecord,
}

/// The VFs whose guests are gone and that did not come back, by their records; kept leases that no run has are as they
/// should be.
#[must_use]
pub fn unfinished(records: &Records, is_alive: &dyn Fn(&Holder) -> bool) -> Vec<Unfinished> {
    let mut all = Vec::new();
    for (pf, kept) in &records.pfs {
        for (index, record) in &kept.vfs {
            let holder = record.lease.as_ref().and_then(|lease| lease.run.as_ref());
            let is_to_end = record.lease.as_ref().is_some_and(|lease| !lease.keep);
            let is_left = match record.state {
                VfState::Dirty | VfState::Sanitising | VfState::InUse => true,
                VfState::Leased => holder.is_some() || is_to_end,
                // Made again, by another boot or another apply: what the guest had on namespaces is there still.
                VfState::Absent | VfState::Created | VfState::Clean => is_to_end,
                VfState::Quarantined => false,
            };
            if is_left
                && !holder.is_some_and(is_alive)
                && !records.running.contains_key(&record.bdf)
            {
                all.push(Unfinished {
                    pf: *pf,
                    index: *index,
                    record: record.clone(),
                });
            }
        }
    }
    all
}

/// Gives back by `finish` what no run gave back, one VF at a time and with its lock. A VF that a run has by now, or that a
/// journal tells of, is left alone.
///
/// # Errors
/// What cannot be read at all. What one VF's end failed with is in what is given back.
pub fn finish_leases(
    hands: &mut dyn Hands,
    state: &State,
    is_dry: bool,
    finish: &mut dyn FnMut(&mut dyn Hands, &Unfinished) -> Vec<Report>,
) -> Result<Recovered, Report> {
    let mut recovered = Recovered::default();
    let observed = hands.observe()?;
    boot::check(&observed.boot)?;
    let host = SysRoot::default();
    let is_alive = |holder: &Holder| {
        let Holder { pid, start, .. } = *holder;
        // What cannot be told counts as alive: its lock will decide another time.
        holder.boot == observed.boot && ProcessId { pid, start }.runs(&host).unwrap_or(true)
    };
    let records = state.records(&observed)?;
    // Nobody knows what is unfinished there.
    recovered.left.extend(records.unusable.values().cloned());
    for one in unfinished(&records, &is_alive) {
        let guest = one
            .record
            .lease
            .as_ref()
            .map_or("none", |lease| &lease.guest);
        let words = format!(
            "give back VF {} of {} ({}, {}) of guest {guest}",
            one.index, one.pf, one.record.bdf, one.record.state
        );
        if is_dry {
            recovered.steps.push(words);
            continue;
        }
        let Ok(_lock) = InUse::take(state, one.record.bdf, guest) else {
            continue;
        };
        if let Err(report) = state.check_recovered(one.record.bdf) {
            recovered.left.push(report);
            continue;
        }
        // Another recovery may have finished it meanwhile, and a guest may have had it since.
        let now = hands
            .observe()
            .and_then(|observed| state.records(&observed))?;
        if now.vf(one.pf, one.index) != Some(&one.record) {
            continue;
        }
        recovered.steps.push(words);
        recovered.left.extend(finish(hands, &one));
    }
    Ok(recovered)
}
