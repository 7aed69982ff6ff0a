//! A change that undoes itself unless somebody confirms it: for the case that it has cut off who made it.
//!
//! On entry: root, one thread. Then there are two processes: a child in a session of its own, which no hang-up ends, carries
//! out the steps and waits, and holds the host's lock until then; its parent tells how far it is, and ends when the
//! waiting begins. On exit of the child: the change is confirmed, or undone; if it is killed, its journal is found by
//! `narrows recover`.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    thread::sleep,
    time::Duration,
};

use iommu::sysfs::SysRoot;
use rustix::{
    fs::OFlags,
    process::setsid,
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
    time::{ClockId, clock_gettime},
};

use super::{
    apply::prepare,
    carry::carry,
    finish::{finish, removed},
    job::{Applied, Job, Ready},
    progress::{Progress, Say},
    undo::{is_open, undo, unwritten},
};
use crate::{
    error::{ErrorId, Report},
    sriov::Hands,
    state::{HostChanges, HostJournal, Left, Phase, ProcessId, State},
    sys::{
        fork::{Child, Ended, Side, fork},
        signals::ignore_hang_up,
    },
};

/// How often the child looks whether it is confirmed.
const INTERVAL: Duration = Duration::from_millis(200);
/// How often the parent looks at the child's log, and who confirms at its journal.
const LOOK: Duration = Duration::from_millis(50);
/// How long who confirms waits for the child: it writes some records.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of an apply that is to be confirmed.
#[derive(Debug)]
pub enum Awaited {
    /// There was nothing to do, so there is nothing to confirm.
    Applied(Applied),
    /// All steps are done, and undone after this time unless somebody confirms.
    Awaiting {
        /// What was done.
        applied: Applied,
        /// For how long.
        within: Duration,
    },
    /// This process is the child, and has waited: it says nothing and ends.
    Child {
        /// Whether the change is confirmed.
        is_kept: bool,
    },
}

/// Applies as [`super::run`] does, in a child that undoes all of it after `within` unless [`confirm`] is called. Comes back
/// twice: once in each process.
///
/// # Errors
/// As [`super::run`]; `recover-needed` where the child was killed.
pub fn run_until_confirmed(
    hands: &mut dyn Hands,
    state: &State,
    job: &Job<'_>,
    within: Duration,
    say: &mut Say<'_>,
) -> Result<Awaited, Vec<Report>> {
    let one = |report: Report| vec![report];
    let mut ready = prepare(hands, state, job)?;
    let steps = ready.planned.plan.steps.len();
    if steps == 0 {
        finish(hands, state, &ready, job, None)?;
        return Ok(Awaited::Applied(Applied {
            steps,
            plan: ready.planned.plan,
        }));
    }
    let path = state.host_folder().join("apply.log");
    let open = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path);
    let mut log = open.map_err(|error| one(state.unwritable(&path, &error)))?;
    match fork().map_err(|error| one(not_started(&error)))? {
        Side::Child => {
            let told = |progress: &Progress, log: &mut File| {
                let mut line = serde_json::to_vec(progress).unwrap_or_default();
                line.push(b'\n');
                // Nobody may be there any more to read it.
                log.write_all(&line).ok();
            };
            let kept = detach()
                .map_err(|error| one(not_started(&error)))
                .and_then(|()| {
                    let mut say = |progress| told(&progress, &mut log);
                    keep_if_confirmed(hands, state, &mut ready, job, within, &mut say)
                });
            if let Err(reports) = &kept {
                told(&Progress::failed(reports), &mut log);
            }
            Ok(Awaited::Child {
                is_kept: kept.is_ok(),
            })
        }
        Side::Parent(child) => {
            // The child has the lock as long as it lives: this closes one descriptor of two.
            drop(ready.lock);
            let log = File::open(&path).map_err(|error| one(state.unwritable(&path, &error)))?;
            follow(log, child, say)?;
            let plan = ready.planned.plan;
            let applied = Applied { steps, plan };
            Ok(Awaited::Awaiting { applied, within })
        }
    }
}

/// What the child does: all steps, then it waits.
///
/// # Errors
/// `not-confirmed`, with `undo-incomplete` where something of it is left; as [`super::run`].
pub(super) fn keep_if_confirmed(
    hands: &mut dyn Hands,
    state: &State,
    ready: &mut Ready,
    job: &Job<'_>,
    within: Duration,
    say: &mut Say<'_>,
) -> Result<(), Vec<Report>> {
    let one = |report: Report| vec![report];
    let verb = job.verb.word();
    let noted = ready
        .lock
        .note(&format!("host {verb} that is to be confirmed"));
    noted.map_err(|error| one(state.unwritable(ready.lock.path(), &error)))?;
    let mut journal = carry(hands, state, ready, job, Phase::Applying, say)?;
    let deadline = since_boot() + within;
    let waiting = journal.update(|changes| {
        changes.phase = Phase::Awaiting;
        changes.confirm_by = Some(deadline.as_secs());
    });
    if let Err(error) = waiting {
        let why = unwritten(&journal, &error);
        return Err(taken_back(hands, state, journal, why, say));
    }
    say(Progress::Awaiting {
        seconds: within.as_secs(),
    });
    let owner = journal.changes().owner;
    loop {
        if state.is_confirmed(owner) {
            break;
        }
        if (job.is_stopped)() || since_boot() >= deadline {
            let why = not_confirmed(within);
            return Err(taken_back(hands, state, journal, why, say));
        }
        sleep(INTERVAL.min(deadline.saturating_sub(since_boot())));
    }
    // From here on whoever finds the journal leaves the machine as it is.
    let kept = journal.update(|changes| changes.phase = Phase::Confirmed);
    if let Err(error) = kept {
        let why = unwritten(&journal, &error);
        return Err(taken_back(hands, state, journal, why, say));
    }
    say(Progress::Confirmed);
    if let Err(mut reports) = finish(hands, state, ready, job, None) {
        // The journal stays, so that who confirms and who recovers find it.
        let failed: Vec<String> = reports.iter().map(in_words).collect();
        if let Err(error) = journal.update(|changes| changes.failed = failed) {
            reports.push(unwritten(&journal, &error));
        }
        return Err(reports);
    }
    // Before the journal: as long as the word is there without a journal, the change was undone.
    state.take_confirmation(owner).map_err(one)?;
    removed(journal).map_or(Ok(()), |report| Err(one(report)))
}

fn in_words(report: &Report) -> String {
    format!("{}: {}; {}", report.what, report.why.join("; "), report.fix)
}

fn taken_back(
    hands: &mut dyn Hands,
    state: &State,
    mut journal: HostJournal,
    why: Report,
    say: &mut Say<'_>,
) -> Vec<Report> {
    let mut reports = vec![why];
    reports.extend(undo(hands, state, &mut journal, say));
    if !is_open(&journal) {
        reports.extend(removed(journal));
    }
    reports
}

/// Confirms the change that waits for it; in words, which one that was.
///
/// # Errors
/// `nothing-to-confirm`; `not-confirmed` where it is too late; `step-failed` where it stays, and not all of it could be written
/// down; `host-busy` where the process that waits does not answer; `state-unreadable`, `state-unwritable`.
pub fn confirm(state: &State) -> Result<String, Report> {
    let host = SysRoot::default();
    let all = state.host_changes(&host)?;
    let Some(changes) = all.iter().find(|one| one.phase == Phase::Awaiting) else {
        let why = match all.first() {
            None => "no apply is under way".to_owned(),
            Some(other) => format!("one is under way that does not wait: {}", other.whose()),
        };
        return Err(Report::new(
            ErrorId::NothingToConfirm,
            "nothing waits to be confirmed",
            why,
            "narrows host status shows what is applied",
        ));
    };
    let owner = changes.owner;
    state.confirm(owner)?;
    let deadline = since_boot() + PATIENCE;
    loop {
        let now = state.host_changes(&host)?;
        let journal = now.iter().find(|one| one.owner == owner);
        if let Some(failed) = journal.filter(|one| !one.failed.is_empty()) {
            state.take_confirmation(owner)?;
            return Err(unfinished(failed));
        }
        match journal.map(|one| one.phase) {
            // The word is taken before the journal goes.
            None if !state.is_confirmed(owner) => return Ok(changes.whose()),
            None if let Some(left) = left_confirmed(state, owner)? => {
                state.take_confirmation(owner)?;
                return Err(unfinished(&left));
            }
            None | Some(Phase::Undoing) => {
                state.take_confirmation(owner)?;
                return Err(Report::new(
                    ErrorId::NotConfirmed,
                    "it is too late: the change was undone",
                    changes.whose(),
                    "narrows host apply again, with a longer --confirm-within",
                ));
            }
            Some(_) if since_boot() < deadline => sleep(LOOK),
            Some(_) => {
                return Err(Report::new(
                    ErrorId::HostBusy,
                    "the process that waits to be confirmed does not answer",
                    changes.whose(),
                    "end it, then narrows recover undoes what it has done",
                ));
            }
        }
    }
}

/// The change of a process that has ended after it was confirmed and before all was written down.
fn left_confirmed(state: &State, owner: ProcessId) -> Result<Option<HostChanges>, Report> {
    let left = state.left_behind(&SysRoot::default())?;
    let mut changes = left.iter().filter_map(|left| match left {
        Left::Host(remains) => Some(remains.changes()),
        Left::Dead(_) | Left::Damaged { .. } => None,
    });
    let its = changes.find(|one| one.owner == owner && one.phase == Phase::Confirmed);
    Ok(its.cloned())
}

fn unfinished(changes: &HostChanges) -> Report {
    let report = Report::new(
        ErrorId::StepFailed,
        "the change is confirmed and stays, but not all of it is written down",
        changes.whose(),
        format!(
            "put that right, then narrows recover, then narrows host {} again",
            changes.verb
        ),
    );
    match changes.failed.as_slice() {
        [] => report.and("its process has ended without a word"),
        failed => failed.iter().cloned().fold(report, Report::and),
    }
}

/// Tells what the child's log has, until the child waits or has ended.
fn follow(log: File, child: Child, say: &mut Say<'_>) -> Result<(), Vec<Report>> {
    let mut log = BufReader::new(log);
    let mut line = String::new();
    loop {
        let has_ended = !child.runs().unwrap_or(false);
        // What it wrote before its end is there by now.
        while log.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if !line.ends_with('\n') {
                break;
            }
            let progress = serde_json::from_str(&line);
            line.clear();
            match progress {
                Ok(Progress::Failed { reports }) => {
                    return Err(reports.iter().map(super::progress::Told::report).collect());
                }
                Ok(progress) => {
                    let is_waiting = matches!(progress, Progress::Awaiting { .. });
                    say(progress);
                    if is_waiting {
                        return Ok(());
                    }
                }
                Err(_) => {}
            }
        }
        if has_ended {
            return Err(vec![lost(&child.wait())]);
        }
        sleep(LOOK);
    }
}

/// Away from the terminal, the session and its hang-up.
fn detach() -> io::Result<()> {
    setsid()?;
    ignore_hang_up()?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}

/// Time since the boot, that while the machine sleeps included.
pub(super) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

fn not_confirmed(within: Duration) -> Report {
    Report::new(
        ErrorId::NotConfirmed,
        "the change was undone: nobody has confirmed it",
        format!(
            "{} s have gone by, or a signal has ended the waiting",
            within.as_secs()
        ),
        "narrows host apply again, and narrows host confirm in time",
    )
}

fn not_started(error: &io::Error) -> Report {
    Report::new(
        ErrorId::StepFailed,
        "the process that waits to be confirmed cannot be started; nothing was touched",
        error.to_string(),
        "see what limits processes here (ulimit -u, the cgroup's pids.max)",
    )
}

fn lost(ended: &io::Result<Ended>) -> Report {
    let why = match ended {
        Ok(Ended::Status(status)) => format!("it ended with status {status} and without a word"),
        Ok(Ended::Signal(signal)) => format!("it was ended by signal {signal}"),
        Err(error) => format!("it cannot be waited for: {error}"),
    };
    Report::new(
        ErrorId::RecoverNeeded,
        "the process that changed the host is gone",
        why,
        "narrows recover undoes what it has done",
    )
}
