//! Takes back what a journal says was done, last first. What cannot be taken back is said by name.
//!
//! Of a step that was begun nobody knows whether it was done: the machine is looked at. So it can be done again at any
//! moment, by whoever finds the journal.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    boot, marks,
    progress::{Progress, Say},
    shows::{is_idempotent, lasts, shows},
    users,
};
use crate::{
    error::{ErrorId, Report},
    sriov::{Hands, Observed, Percent, PfFacts, Seen, Step, StepFault, Undo},
    state::{HostJournal, JournalStep, Phase, State, StepState},
};

/// How long a device may say that it is busy.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked.
const INTERVAL: Duration = Duration::from_millis(50);
/// Steps between two writes of the journal, where one that is taken back twice does no harm.
const BATCH: usize = 64;

/// Carries out one step; again and again for a while where the device is busy.
pub(super) fn carry_out(
    hands: &mut dyn Hands,
    step: &Step,
    percent: &mut dyn FnMut(Percent),
) -> Result<Seen, StepFault> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match hands.carry_out(step, percent) {
            Err(fault) if fault.is_busy && Instant::now() < deadline => sleep(INTERVAL),
            result => return result,
        }
    }
}

/// Undoes all steps of the journal that were begun, and says what is left. The journal is removed by the caller where
/// nothing is.
pub(super) fn undo(
    hands: &mut dyn Hands,
    state: &State,
    journal: &mut HostJournal,
    say: &mut Say<'_>,
) -> Vec<Report> {
    let mut left = Vec::new();
    if let Err(error) = journal.update(|changes| changes.phase = Phase::Undoing) {
        left.push(unwritten(journal, &error));
    }
    let seen = hands.observe();
    let known = seen.and_then(|seen| boot::check(&seen.boot).map(|()| seen));
    let mut observed = match known {
        Ok(observed) => observed,
        Err(report) => {
            left.push(report);
            return left;
        }
    };
    let is_same_boot = observed.boot == journal.changes().boot;
    let mut steps = journal.changes().steps.clone();
    let mut unwritten_steps = 0;
    for at in (0..steps.len()).rev() {
        let Some(entry) = steps.get_mut(at) else {
            continue;
        };
        if matches!(entry.state, StepState::Planned | StepState::Undone) {
            continue;
        }
        say(Progress::Undoing {
            at: at + 1,
            step: entry.step.to_string(),
        });
        let is_heavy = !is_idempotent(&entry.step);
        if is_same_boot || lasts(&entry.step) {
            match back(hands, state, &mut observed, entry) {
                Ok(()) => entry.state = StepState::Undone,
                Err(Failure { why, fix, is_final }) => {
                    left.push(incomplete(&entry.step, &why, fix));
                    // What nothing can take back is said once, and not tried for ever.
                    entry.state = match is_final {
                        true => StepState::Undone,
                        false => StepState::Stuck,
                    };
                    entry.note = Some(why);
                }
            }
        } else {
            entry.state = StepState::Undone;
        }
        unwritten_steps += 1;
        if is_heavy || unwritten_steps >= BATCH {
            unwritten_steps = 0;
            if let Err(error) = journal.update(|changes| changes.steps.clone_from(&steps)) {
                left.push(unwritten(journal, &error));
                return left;
            }
        }
    }
    if let Err(error) = journal.update(|changes| changes.steps = steps) {
        left.push(unwritten(journal, &error));
    }
    left
}

/// Whether something of the journal is still to be undone.
pub(super) fn is_open(journal: &HostJournal) -> bool {
    let steps = &journal.changes().steps;
    let is_open = |entry: &JournalStep| {
        matches!(
            entry.state,
            StepState::Begun | StepState::Done | StepState::Stuck
        )
    };
    steps.iter().any(is_open)
}

/// Why a step was not taken back.
struct Failure {
    why: String,
    fix: &'static str,
    /// Whether it never can be.
    is_final: bool,
}

impl Failure {
    fn again(why: &dyn ToString) -> Self {
        Self {
            why: why.to_string(),
            fix: "put it right, then narrows recover; narrows host status shows what differs",
            is_final: false,
        }
    }

    /// Somebody has it by now: it stays as it is, and whoever wants it otherwise says so in a host file.
    fn used(users: &[String]) -> Self {
        Self {
            why: format!("left out: {}", users.join("; ")),
            fix: "nothing is needed for those guests; narrows host apply, or release, once they have ended",
            is_final: true,
        }
    }
}

fn back(
    hands: &mut dyn Hands,
    state: &State,
    observed: &mut Observed,
    entry: &JournalStep,
) -> Result<(), Failure> {
    if let Step::Erase { .. } = &entry.step {
        detach_erased(hands, observed, &entry.step)?;
    }
    let steps = match undo_of(entry, observed)? {
        Undo::Nothing => return Ok(()),
        Undo::Steps(steps) => steps,
        Undo::Impossible(_)
            if entry.state == StepState::Begun && shows(&entry.step, observed) == Some(false) =>
        {
            return Ok(());
        }
        Undo::Impossible(why) => {
            return Err(Failure {
                is_final: true,
                ..Failure::again(&why)
            });
        }
    };
    for step in &steps {
        if !is_idempotent(step) {
            *observed = hands.observe().map_err(|why| Failure::again(&why))?;
            if shows(step, observed) == Some(true) {
                continue;
            }
        }
        let users = users::of_undo(state, observed, step).map_err(|why| Failure::again(&why))?;
        if !users.is_empty() {
            return Err(Failure::used(&users));
        }
        marks::before(state, observed, step).map_err(|why| Failure::again(&why))?;
        let seen = carry_out(hands, step, &mut |_| {}).map_err(|why| Failure::again(&why))?;
        if let Some(made) =
            marks::after(hands, state, observed, step, seen).map_err(|why| Failure::again(&why))?
        {
            *observed = made;
        }
    }
    Ok(())
}

/// Takes a namespace from the primary controller, which has it while it is erased only: an erase that was cut off leaves it
/// there, and the host with what is on it.
fn detach_erased(
    hands: &mut dyn Hands,
    observed: &mut Observed,
    erase: &Step,
) -> Result<(), Failure> {
    let Step::Erase {
        pf,
        controller,
        nsid,
        ..
    } = erase
    else {
        return Ok(());
    };
    *observed = hands.observe().map_err(|why| Failure::again(&why))?;
    let nvme = observed.pfs.get(pf).and_then(PfFacts::nvme);
    let left = nvme.filter(|nvme| {
        let namespace = nvme.namespaces.get(nsid);
        namespace.is_some_and(|namespace| namespace.attached.contains(&nvme.cntlid))
    });
    let Some(cntlid) = left.map(|nvme| nvme.cntlid) else {
        return Ok(());
    };
    let detach = Step::Detach {
        pf: *pf,
        controller: controller.clone(),
        nsid: *nsid,
        cntlid,
    };
    carry_out(hands, &detach, &mut |_| {}).map_err(|why| Failure::again(&why))?;
    *observed = hands.observe().map_err(|why| Failure::again(&why))?;
    Ok(())
}

/// What takes a journalled step back.
fn undo_of(entry: &JournalStep, observed: &Observed) -> Result<Undo, Failure> {
    let Step::NamespaceCreate {
        pf, size, block, ..
    } = &entry.step
    else {
        return Ok(entry.step.undo());
    };
    if let Some(nsid) = entry.nsid {
        return Ok(entry.step.undo_of_namespace(nsid));
    }
    // Killed between the command and its note. One that is new, as large as asked for, and attached to nobody was never
    // written by anybody.
    let (Some(before), Some(nvme)) = (
        &entry.before,
        observed.pfs.get(pf).and_then(|facts| facts.nvme()),
    ) else {
        return Err(Failure::again(
            &"the controller does not tell its namespaces",
        ));
    };
    let new: Vec<u32> = nvme
        .namespaces
        .iter()
        .filter(|(nsid, found)| {
            !before.contains(*nsid)
                && found.size == *size
                && found.block == *block
                && found.attached.is_empty()
        })
        .map(|(nsid, _)| *nsid)
        .collect();
    match new.as_slice() {
        [] => Ok(Undo::Nothing),
        [nsid] => Ok(entry.step.undo_of_namespace(*nsid)),
        several => Err(Failure::again(&format!(
            "which of the new namespaces {several:?} it has made is not known: delete it by hand"
        ))),
    }
}

fn incomplete(step: &Step, why: &str, fix: &str) -> Report {
    Report::new(
        ErrorId::UndoIncomplete,
        format!("not undone: {step}"),
        why,
        fix,
    )
}

pub(super) fn unwritten(journal: &HostJournal, error: &std::io::Error) -> Report {
    Report::new(
        ErrorId::StateUnwritable,
        "the journal of a change of the host cannot be written",
        format!("{}: {error}", journal.path().display()),
        "make the state folder writable, then narrows recover",
    )
}
