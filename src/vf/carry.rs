//! The steps of a plan, each with its records and its place in the journal: all are done, or all are undone.

use std::{collections::BTreeSet, io, path::Path};

use iommu::{bdf::Bdf, sysfs::SysRoot};

use super::{
    finish::{keep_baseline, removed},
    job::{Job, Ready, Verb},
    marks,
    progress::{Progress, Say},
    undo::{carry_out, is_open, undo, unwritten},
};
use crate::{
    error::{ErrorId, Report},
    sriov::{Hands, Observed, Percent, Seen, Step, StepFault, VfState},
    state::{HostChanges, HostJournal, Phase, ProcessId, State, StepState},
    sys::crash,
};

/// Attributes of one PF that are written down as begun together.
const BATCH: usize = 64;

/// Steps 4 to 7: all steps are done, or all are undone.
pub(super) fn carry(
    hands: &mut dyn Hands,
    state: &State,
    ready: &Ready,
    job: &Job<'_>,
    phase: Phase,
    say: &mut Say<'_>,
) -> Result<HostJournal, Vec<Report>> {
    let one = |report: Report| vec![report];
    if job.verb == Verb::Apply {
        keep_baseline(state, ready).map_err(one)?;
    }
    let steps = &ready.planned.plan.steps;
    let owner = own_id(state).map_err(one)?;
    let boot = ready.observed.boot.clone();
    let mut changes = HostChanges::new(job.verb.word(), phase, owner, boot, steps);
    changes.functions = functions(&ready.observed, steps);
    let mut journal = HostJournal::begin(state, changes).map_err(one)?;
    crash::point(crash::Step::HostJournalWritten);
    match all(hands, state, ready, job, &mut journal, say) {
        Ok(()) => Ok(journal),
        Err(report) => {
            let mut reports = vec![report];
            reports.extend(undo(hands, state, &mut journal, say));
            if !is_open(&journal) {
                reports.extend(removed(journal));
            }
            Err(reports)
        }
    }
}

fn all(
    hands: &mut dyn Hands,
    state: &State,
    ready: &Ready,
    job: &Job<'_>,
    journal: &mut HostJournal,
    say: &mut Say<'_>,
) -> Result<(), Report> {
    let steps = &ready.planned.plan.steps;
    let mut observed = ready.observed.clone();
    let mut at = 0;
    while at < steps.len() {
        let end = batch_end(steps, at);
        let before = steps.get(at).and_then(|step| namespaces(step, &observed));
        let begun = journal.update(|changes| {
            for (index, entry) in changes.steps.iter_mut().enumerate() {
                match entry.state {
                    StepState::Begun => entry.state = StepState::Done,
                    StepState::Planned if index < end => entry.state = StepState::Begun,
                    StepState::Planned | StepState::Done | StepState::Undone | StepState::Stuck => {
                    }
                }
            }
            if let Some(entry) = changes.steps.get_mut(at) {
                entry.before = before;
            }
        });
        begun.map_err(|error| unwritten(journal, &error))?;
        for (at, step) in steps.iter().enumerate().take(end).skip(at) {
            if (job.is_stopped)() {
                return Err(stopped(step));
            }
            crash::point(crash::Step::HostStepBegun);
            let (of, words) = (steps.len(), step.to_string());
            say(Progress::Begun {
                at: at + 1,
                of,
                step: words,
            });
            match step_once(hands, state, ready, &mut observed, journal, at, step, say)? {
                None => say(Progress::Done { at: at + 1 }),
                Some(why) => say(Progress::LeftOut { at: at + 1, why }),
            }
            crash::point(crash::Step::HostStepDone);
        }
        at = end;
    }
    let done = journal.update(|changes| {
        for entry in &mut changes.steps {
            if entry.state == StepState::Begun {
                entry.state = StepState::Done;
            }
        }
    });
    done.map_err(|error| unwritten(journal, &error))
}

/// One step, with its records; why it was left out, where it was.
#[expect(
    clippy::too_many_arguments,
    reason = "what a step needs, once, in one place"
)]
fn step_once(
    hands: &mut dyn Hands,
    state: &State,
    ready: &Ready,
    observed: &mut Observed,
    journal: &mut HostJournal,
    at: usize,
    step: &Step,
    say: &mut Say<'_>,
) -> Result<Option<String>, Report> {
    marks::before(state, observed, step)?;
    let mut told = 0;
    let mut percent = |Percent(percent)| {
        if percent > told {
            told = percent;
            say(Progress::Percent {
                at: at + 1,
                percent,
            });
        }
    };
    let live = step.vf().and_then(|index| {
        let guest = ready.live.get(&(step.pf(), index))?;
        Some((index, guest))
    });
    let seen = match live {
        None => carry_out(hands, step, &mut percent).map_err(|fault| failed(step, &fault))?,
        Some((index, guest)) => {
            match while_in_use(hands, state, observed, step, index, &mut percent)? {
                Some(seen) => seen,
                None => {
                    let why = format!("{guest} has ended meanwhile and gives the VF back");
                    let note = why.clone();
                    journal
                        .update(|changes| {
                            if let Some(entry) = changes.steps.get_mut(at) {
                                entry.state = StepState::Undone;
                                entry.note = Some(note);
                            }
                        })
                        .map_err(|error| unwritten(journal, &error))?;
                    return Ok(Some(why));
                }
            }
        }
    };
    if let Seen::Namespace(nsid) = seen {
        let noted = journal.update(|changes| {
            if let Some(entry) = changes.steps.get_mut(at) {
                entry.nsid = Some(nsid);
            }
        });
        noted.map_err(|error| unwritten(journal, &error))?;
    }
    if let Some(made) = marks::after(hands, state, observed, step, seen)? {
        *observed = made;
        let functions = functions(observed, std::slice::from_ref(step));
        if !functions.is_subset(&journal.changes().functions) {
            let noted = journal.update(|changes| changes.functions.extend(functions));
            noted.map_err(|error| unwritten(journal, &error))?;
        }
    }
    Ok(None)
}

/// Sets an attribute of a VF as long as its guest runs: its keeper writes that it has ended under the same lock, before it
/// puts the VF to rest.
fn while_in_use(
    hands: &mut dyn Hands,
    state: &State,
    observed: &Observed,
    step: &Step,
    index: u32,
    percent: &mut dyn FnMut(Percent),
) -> Result<Option<Seen>, Report> {
    let Some(facts) = observed.pfs.get(&step.pf()) else {
        return Ok(None);
    };
    state.change_pf(step.pf(), &facts.anchor, |kept| {
        let is_in_use = kept
            .vfs
            .get(&index)
            .is_some_and(|record| record.state == VfState::InUse);
        if !is_in_use {
            return Ok(None);
        }
        let seen = carry_out(hands, step, percent).map_err(|fault| failed(step, &fault))?;
        Ok(Some(seen))
    })
}

/// Where the batch that begins with `at` ends: attributes go together, since one that is set or put back twice does no
/// harm.
fn batch_end(steps: &[Step], at: usize) -> usize {
    let is_like = |step: &&Step| {
        matches!(step, Step::Attribute { .. }) && steps.get(at).map(Step::pf) == Some(step.pf())
    };
    let like = steps.iter().skip(at).take(BATCH).take_while(is_like);
    at + like.count().max(1)
}

fn namespaces(step: &Step, observed: &Observed) -> Option<BTreeSet<u32>> {
    let Step::NamespaceCreate { pf, .. } = step else {
        return None;
    };
    let nvme = observed.pfs.get(pf)?.nvme()?;
    Some(nvme.namespaces.keys().copied().collect())
}

fn functions(observed: &Observed, steps: &[Step]) -> BTreeSet<Bdf> {
    let pfs: BTreeSet<Bdf> = steps.iter().map(Step::pf).collect();
    let facts = pfs.iter().filter_map(|pf| observed.pfs.get(pf));
    facts
        .flat_map(|facts| facts.vfs.iter().map(|vf| vf.bdf))
        .collect()
}

fn own_id(state: &State) -> Result<ProcessId, Report> {
    ProcessId::of(&SysRoot::default(), std::process::id())
        .and_then(|id| id.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)))
        .map_err(|error| state.unwritable(Path::new("/proc/self/stat"), &error))
}

fn failed(step: &Step, fault: &StepFault) -> Report {
    let (id, fix) = match fault.is_ignored {
        true => (
            ErrorId::StepNotDone,
            "the driver took the wish and ignored it: leave that key out, or see the card's profile",
        ),
        false => (
            ErrorId::StepFailed,
            "see the kernel log (dmesg) for what the driver says, then narrows host plan",
        ),
    };
    Report::new(id, format!("cannot {step}"), fault.to_string(), fix)
}

fn stopped(step: &Step) -> Report {
    Report::new(
        ErrorId::StepFailed,
        format!("stopped before: {step}"),
        "a signal asked for it",
        "narrows host apply again",
    )
}
