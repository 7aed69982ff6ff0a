//! What a run that was killed has left behind, put right.
//!
//! On entry: journals whose runs are dead. On exit, for each: its processes are gone, its functions are silent, reset,
//! compared with what they were, and bound as before or in quarantine, its cgroups are removed, and so is the journal; or
//! the journal is there still, with a report of what stands in the way. Done twice, the second time does nothing.

mod cgroups;
mod foretell;
mod functions;
mod host;

use std::{
    io, thread,
    time::{Duration, Instant},
};

use iommu::{bdf::Bdf, sysfs::SysRoot};

use self::{cgroups::remove_cgroups, foretell::foretell, functions::take_over};
use super::{assign::Taken, log::Log, processes, release::ended_with_vf};
use crate::{
    error::{ErrorId, Report},
    state::{Changes, Claim, InUse, Journal, Left, Remains, Running, State, boot},
    vf::KernelHands,
};

/// How long the kernel may take to close what a process had that was killed.
const CLOSING: Duration = Duration::from_secs(10);
const CLOSING_POLL: Duration = Duration::from_millis(10);

/// How often a journal is tried that another recovery has.
const HELD_POLL: Duration = Duration::from_millis(100);

/// What is asked of a recovery.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Only what this guest's runs have left; of all guests where there is none.
    pub guest: Option<&'a str>,
    /// Only to tell what would be done.
    pub is_dry: bool,
    /// To tell nothing on the way.
    pub is_silent: bool,
    /// How long to wait for another recovery that has a journal.
    pub patience: Duration,
}

/// What was done about one journal.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The guest, its process and since when; less where the file is damaged.
    pub whose: String,
    /// What was done, or would be.
    pub steps: Vec<String>,
    /// What could not be done.
    pub left: Vec<Report>,
}

/// Puts right what dead runs have left behind, and touches nothing of one that lives.
///
/// # Errors
/// `state-unreadable`.
pub fn recover(root: &SysRoot, state: &State, asked: &Asked<'_>) -> Result<Vec<Recovered>, Report> {
    let is_asked = |guest: Option<&str>| asked.guest.is_none() || asked.guest == guest;
    let (mut all, mut hosts) = (Vec::new(), Vec::new());
    for left in state.left_behind(root)? {
        match left {
            Left::Damaged { guest, report } if is_asked(guest.as_deref()) => all.push(Recovered {
                whose: "a run that is not known".to_owned(),
                steps: Vec::new(),
                left: vec![report],
            }),
            Left::Dead(remains) if is_asked(Some(&remains.changes().guest)) => {
                let changes = remains.changes();
                let log = Log::keeping(&changes.guest, asked.is_silent || asked.is_dry);
                let left = match asked.is_dry {
                    true => foretell(root, changes, &log),
                    false => one(root, state, &remains, asked.patience, &log),
                };
                all.push(Recovered {
                    whose: changes.whose(),
                    steps: log.into_lines(),
                    left,
                });
            }
            Left::Host(remains) if asked.guest.is_none() => hosts.push(remains),
            Left::Damaged { .. } | Left::Dead(_) | Left::Host(_) => {}
        }
    }
    // After the runs: what an apply changed was there before them, or is not what they had.
    all.extend(
        hosts
            .iter()
            .map(|remains| host::change(root, state, remains, asked)),
    );
    if asked.guest.is_none() {
        match host::leases(root, state, asked) {
            Ok(found) => all.extend(found),
            // What was done until now is told all the same.
            Err(report) => all.push(Recovered {
                whose: "VFs and namespaces that no run gave back".to_owned(),
                steps: Vec::new(),
                left: vec![report],
            }),
        }
    }
    Ok(all)
}

/// Puts right what one run has left behind, or sees that another recovery does; what could not be.
fn one(
    root: &SysRoot,
    state: &State,
    remains: &Remains,
    patience: Duration,
    log: &Log,
) -> Vec<Report> {
    let deadline = Instant::now() + patience;
    let mut is_told = false;
    loop {
        let by = match remains.claim() {
            Ok(Claim::Ours(journal)) => return put_right(root, state, *journal, log),
            Ok(Claim::Gone) => {
                log.say("another recovery has put it right");
                return Vec::new();
            }
            Ok(Claim::Held(by)) => by,
            Err(error) => return vec![not_locked(remains.changes(), &error)],
        };
        if Instant::now() >= deadline {
            return vec![held(remains.changes(), by, patience)];
        }
        if !is_told {
            is_told = true;
            log.say(&match by {
                Some(_) => format!("{} puts it right already: waiting for that", who(by)),
                None => format!("{} has its journal: waiting for that", who(by)),
            });
        }
        thread::sleep(HELD_POLL);
    }
}

/// Puts right what one run has left behind; what could not be.
fn put_right(root: &SysRoot, state: &State, journal: Journal, log: &Log) -> Vec<Report> {
    let changes = journal.changes().clone();
    match is_of_this_boot(root, &changes) {
        Ok(true) => {}
        Ok(false) => {
            log.say("the host has booted since: nothing of it is left");
            return after_boot(root, state, journal, log);
        }
        Err(report) => return vec![report],
    }
    let bdfs = changes.functions.iter().map(|taken| taken.binding.bdf());
    let mut taken = Taken::none(&changes.guest, bdfs.collect(), root);
    // Before anything else: no run may begin with one of the functions now.
    for &bdf in &taken.functions {
        match InUse::take(state, bdf, &format!("{} (recovered)", changes.guest)) {
            Ok(lock) => taken.reserved.push(lock),
            Err(report) => return vec![report],
        }
    }
    let mut left = end_processes(root, &changes, log);
    match (&changes.cgroup, Running::take(state, &changes.guest)) {
        // The name goes with the cgroups, and keeps a new run from them meanwhile.
        (Some(cgroup), Ok(_name)) => {
            left.extend(remove_cgroups(root, cgroup, &changes.guest, log).err());
        }
        (Some(_), Err(report)) if report.id == ErrorId::GuestNameTaken => log.say(&format!(
            "guest {} runs again: its cgroups are its own",
            changes.guest
        )),
        (Some(_), Err(report)) => left.push(report),
        (None, _) => {}
    }
    left.extend(take_over(&mut taken, &changes.functions, log));
    // A VF that somebody may still drive is not given back: it is done the next time, with what stands in the way.
    if left.is_empty() {
        let functions = changes.functions.iter();
        taken.leases = functions.filter_map(|f| f.lease.clone()).collect();
    }
    taken.journal = Some(journal);
    // What stands in the way keeps the journal, for the next time.
    taken.release(state, log).end(state, left, log)
}

/// Ends the leases of a run of another boot: namespaces outlive it. What could not be done keeps the journal.
fn after_boot(root: &SysRoot, state: &State, journal: Journal, log: &Log) -> Vec<Report> {
    let changes = journal.changes().clone();
    let mut hands = KernelHands::new(root.clone());
    let mut left = Vec::new();
    for terms in changes.functions.iter().filter_map(|f| f.lease.as_ref()) {
        let _lock = match InUse::take(state, terms.vf, &format!("{} (recovered)", changes.guest)) {
            Ok(lock) => lock,
            Err(report) => {
                left.push(report);
                continue;
            }
        };
        let mut say = |line: &str| log.say(&format!("{}: {line}", terms.vf));
        let guest = &changes.guest;
        left.extend(ended_with_vf(
            &mut hands, state, root, guest, terms, &mut say,
        ));
    }
    match left.is_empty() {
        true => removed(state, journal),
        false => left,
    }
}

/// Whether the host has not booted since; what another boot had is gone.
fn is_of_this_boot(root: &SysRoot, changes: &Changes) -> Result<bool, Report> {
    let boot = boot(root).map_err(|error| {
        Report::new(
            ErrorId::HostUnreadable,
            "it cannot be told whether the host has booted since",
            error.to_string(),
            "mount /proc",
        )
    })?;
    Ok(boot == changes.boot)
}

fn removed(state: &State, journal: Journal) -> Vec<Report> {
    let path = journal.path().to_owned();
    match journal.remove() {
        Ok(()) => Vec::new(),
        Err(error) => vec![state.unwritable(&path, &error)],
    }
}

fn end_processes(root: &SysRoot, changes: &Changes, log: &Log) -> Vec<Report> {
    let mut left = Vec::new();
    for process in &changes.processes {
        match processes::end(root, *process) {
            Ok(false) => {}
            Ok(true) => log.say(&format!("{process} was there still: it was killed")),
            Err(error) => left.push(not_put_right(
                format!("{process} of guest {} is not gone", changes.guest),
                &error,
                "see the kernel log: a process that cannot be killed waits for a device",
            )),
        }
    }
    left
}

fn not_recovered(bdf: Bdf, why: &str) -> Report {
    Report::new(
        ErrorId::HostNotRestored,
        format!("{bdf} is not recovered"),
        why,
        "put right what is said above, then: narrows recover",
    )
}

fn who(by: Option<u32>) -> String {
    by.map_or_else(
        || "a process that cannot be told".to_owned(),
        |pid| format!("process {pid}"),
    )
}

fn held(changes: &Changes, by: Option<u32>, patience: Duration) -> Report {
    Report::new(
        ErrorId::RecoveryHeld,
        format!("what guest {} left is not put right", changes.guest),
        format!(
            "{} has its journal locked, for longer than {} seconds",
            who(by),
            patience.as_secs()
        ),
        match by {
            Some(_) => {
                "see what keeps that recovery, end it if it does not go on, then: narrows recover"
            }
            None => {
                "it is in another PID namespace or a container, and may be the run itself: look there (fuser JOURNAL on the host), \
                 and leave a run that lives alone"
            }
        },
    )
}

fn not_locked(changes: &Changes, error: &io::Error) -> Report {
    not_put_right(
        format!("what guest {} left is not put right", changes.guest),
        error,
        "see that the folder of journals can be read, then: narrows recover",
    )
}

fn not_put_right(what: String, error: &io::Error, fix: &str) -> Report {
    Report::new(ErrorId::HostNotRestored, what, error.to_string(), fix)
}

#[cfg(test)]
#[path = "recover_test.rs"]
mod tests;
