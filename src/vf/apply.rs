//! Carries out the plan that was shown, step by step, each read back; what cannot be finished is undone.
//!
//! On entry: root, and no lock. On exit: the machine is as the plan says, or as it was before, or a journal says what is
//! left; no lock.

use iommu::sysfs::SysRoot;

use super::{
    boot,
    carry::carry,
    finish::finish,
    job::{Applied, Job, Ready, Shown, Verb},
    progress::Say,
    saved::check_shown,
    users,
};
use crate::{
    error::{ErrorId, Report},
    sriov::{Hands, Records},
    state::{HostChanges, Left, Phase, State},
};

/// Applies. Idempotent: on a machine that is as it should be, only records are brought up to date.
///
/// # Errors
/// The refusals of the plan; `host-busy`, `plan-stale`, `vf-in-use`, `recover-needed`: nothing was touched. `step-failed`,
/// `step-not-done`: all was undone, unless `undo-incomplete` follows.
pub fn run(
    hands: &mut dyn Hands,
    state: &State,
    job: &Job<'_>,
    say: &mut Say<'_>,
) -> Result<Applied, Vec<Report>> {
    let ready = prepare(hands, state, job)?;
    let steps = ready.planned.plan.steps.len();
    if steps > 0 {
        let phase = match job.verb {
            Verb::Apply => Phase::Applying,
            Verb::Release => Phase::Releasing,
        };
        let journal = carry(hands, state, &ready, job, phase, say)?;
        finish(hands, state, &ready, job, Some(journal))?;
    } else {
        finish(hands, state, &ready, job, None)?;
    }
    Ok(Applied {
        steps,
        plan: ready.planned.plan,
    })
}

/// Steps 1 to 3: the lock, the plan of now compared with the one that was shown, nobody in the way.
pub(super) fn prepare(
    hands: &mut dyn Hands,
    state: &State,
    job: &Job<'_>,
) -> Result<Ready, Vec<Report>> {
    let one = |report: Report| vec![report];
    let lock = state.lock_host(job.verb.word()).map_err(one)?;
    for left in state.left_behind(&SysRoot::default()).map_err(one)? {
        match left {
            Left::Host(remains) => return Err(one(half_done(remains.changes()))),
            Left::Damaged { report, .. } => return Err(one(report)),
            // Its VFs are refused one by one.
            Left::Dead(_) => {}
        }
    }
    if job.verb == Verb::Apply {
        state.seed().map_err(one)?;
    }
    let observed = hands.observe().map_err(one)?;
    boot::check(&observed.boot).map_err(one)?;
    let records = state.records(&observed).map_err(one)?;
    if job.verb == Verb::Release {
        check_no_lease(&records)?;
    }
    let planned = (job.planner)(&observed, &records)?;
    if !planned.plan.refusals.is_empty() {
        return Err(planned.plan.refusals);
    }
    let steps = &planned.plan.steps;
    match job.shown {
        None => Ok(()),
        Some(Shown::Plan(shown)) => check_shown(shown, steps),
        Some(Shown::Saved(plan)) => plan.check(job.file.map(|(_, text)| text), &observed, steps),
    }
    .map_err(one)?;
    let live = users::check(state, &observed, &records, &planned.desired, steps)?;
    Ok(Ready {
        lock,
        observed,
        planned,
        live,
    })
}

/// What was before the first apply has no leases.
fn check_no_lease(records: &Records) -> Result<(), Vec<Report>> {
    // Nobody knows who has their VFs.
    let mut refusals: Vec<Report> = records.unusable.values().cloned().collect();
    for (pf, kept) in &records.pfs {
        for (index, record) in &kept.vfs {
            if let Some(lease) = &record.lease {
                refusals.push(Report::new(
                    ErrorId::VfInUse,
                    "the host cannot be released",
                    format!(
                        "guest {} has VF {index} of {pf} ({}, {})",
                        lease.guest, record.bdf, record.state
                    ),
                    "stop that guest; narrows recover where it was killed, narrows vf return where it keeps its VF",
                ));
            }
        }
    }
    for (pf, kept) in &records.pfs {
        refusals.extend(kept.ownerless().into_iter().map(|nsid| {
            Report::new(
                ErrorId::RecoverNeeded,
                "the host cannot be released",
                format!("namespace {nsid} of {pf} may have somebody's data, and is not erased yet"),
                "narrows recover",
            )
        }));
    }
    match refusals.is_empty() {
        true => Ok(()),
        false => Err(refusals),
    }
}

fn half_done(changes: &HostChanges) -> Report {
    Report::new(
        ErrorId::RecoverNeeded,
        "a change of this host was killed half-way",
        changes.whose(),
        "narrows recover",
    )
}
