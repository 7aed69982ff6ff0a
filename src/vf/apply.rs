//! Carries out the plan that was shown, step by step, each read back; what cannot be finished is undone.
//!
//! On entry: root, and no lock. On exit: the machine is as the plan says, or as it was before, or a journal says what is
//! left; no lock.

use std::{collections::BTreeSet, io, path::Path};

use iommu::{bdf::Bdf, sysfs::SysRoot};

use super::{
    boot, marks,
    progress::{Progress, Say},
    saved::{SavedPlan, check_shown},
    undo::{carry_out, is_open, undo, unwritten},
    users::{self, Live},
};
use crate::{
    error::{ErrorId, Exit, Report},
    sriov::{Desired, Hands, HostPlan, Observed, Percent, Records, Seen, Step, StepFault, VfState},
    state::{HostChanges, HostJournal, HostLock, Left, Phase, ProcessId, State, StepState},
    sys::crash,
};

/// Attributes of one PF that are written down as begun together.
const BATCH: usize = 64;

/// What should be, and the steps to it.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// What should be.
    pub desired: Desired,
    /// The steps, and what stands in their way.
    pub plan: HostPlan,
}

/// Plans, from what is and what is kept: as `sriov::desired` and `sriov::plan` do.
pub type Planner<'a> = dyn Fn(&Observed, &Records) -> Result<Planned, Vec<Report>> + 'a;

/// What the operator was shown before.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'a> {
    /// This one, just now.
    Plan(&'a HostPlan),
    /// This plan, at some time.
    Saved(&'a SavedPlan),
}

/// What is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// What a host file says.
    Apply,
    /// What was before the first apply.
    Release,
}

impl Verb {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Release => "release",
        }
    }
}

/// What to carry out.
pub struct Job<'a> {
    /// Plans it.
    pub planner: &'a Planner<'a>,
    /// What the operator was shown; `None` where nobody was asked.
    pub shown: Option<Shown<'a>>,
    /// What it is.
    pub verb: Verb,
    /// The host file and its text; `None` for a release.
    pub file: Option<(&'a Path, &'a str)>,
    /// Whether a signal asks to stop: then the present step is finished, and all are undone.
    pub is_stopped: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("shown", &self.shown)
            .field("verb", &self.verb)
            .finish_non_exhaustive()
    }
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// How many steps.
    pub steps: usize,
    /// The plan, with its warnings and with what no step can do.
    pub plan: HostPlan,
}

impl Applied {
    /// How `narrows` ends on it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.plan.pending.is_empty() {
            true => Exit::Done,
            false => Exit::Needed,
        }
    }
}

/// Locked, planned again, and free to begin; nothing is touched.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) lock: HostLock,
    pub(super) observed: Observed,
    pub(super) planned: Planned,
    live: Live,
}

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
    match refusals.is_empty() {
        true => Ok(()),
        false => Err(refusals),
    }
}

fn keep_baseline(state: &State, ready: &Ready) -> Result<(), Report> {
    let kept = state.baseline()?;
    let is_new = kept.is_none();
    let mut baseline = kept.unwrap_or_else(|| Observed {
        pfs: std::collections::BTreeMap::new(),
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

pub(super) fn own_id(state: &State) -> Result<ProcessId, Report> {
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

fn half_done(changes: &HostChanges) -> Report {
    Report::new(
        ErrorId::RecoverNeeded,
        "a change of this host was killed half-way",
        changes.whose(),
        "narrows recover",
    )
}
