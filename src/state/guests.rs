//! The guests of this host: those that run, and those whose run was killed.

use std::{collections::BTreeSet, fs, io};

use iommu::{bdf::Bdf, sysfs::SysRoot};
use serde::Serialize;

use super::{State, journal::Changes, left};
use crate::error::{ErrorId, Report};

/// A guest, as its run's journal tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// How far its run is.
    pub state: GuestState,
    /// The keeper of its run.
    pub pid: u32,
    /// Since when: RFC 3339.
    pub since: String,
    /// The same as an age; `None` where the run is dead.
    pub age_seconds: Option<u64>,
    /// Its functions.
    pub vfs: Vec<Bdf>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestState {
    /// Its devices are being prepared, or given back.
    Preparing,
    /// It runs.
    Running,
    /// Its run was killed, and is not recovered.
    Dead,
}

impl GuestState {
    /// The word for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Dead => "dead",
        }
    }
}

/// Ticks of a start time in a second: `USER_HZ` (x86, `include/asm-generic/param.h`, v6.12).
const TICKS: u64 = 100;

impl State {
    /// All guests whose runs have a journal, by name. Takes no lock. Journals that cannot be read are reports.
    ///
    /// # Errors
    /// `state-unreadable`.
    pub fn guests(&self, host: &SysRoot) -> Result<(Vec<Guest>, Vec<Report>), Report> {
        let unreadable = |error: io::Error| {
            Report::new(
                ErrorId::StateUnreadable,
                "the guests of this host cannot be listed",
                format!("{}: {error}", self.journal().display()),
                "see that the state folder can be read: run narrows as root",
            )
        };
        let running = self.named_running().map_err(unreadable)?;
        let (mut guests, mut damaged) = (Vec::new(), Vec::new());
        for path in self.journals().map_err(unreadable)? {
            match left::read(&path) {
                None => {}
                Some(Ok(changes)) => {
                    let is_alive = left::lives(host, &changes);
                    // One that was removed meanwhile has ended well.
                    if is_alive || path.exists() {
                        guests.push(guest(host, changes, is_alive, &running));
                    }
                }
                Some(Err(report)) => damaged.push(report),
            }
        }
        guests.sort_by(|a, b| (&a.name, a.pid).cmp(&(&b.name, b.pid)));
        Ok((guests, damaged))
    }

    /// The guests of which there is something to inspect.
    fn named_running(&self) -> io::Result<BTreeSet<String>> {
        let entries = match fs::read_dir(self.running()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(error),
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry?.file_name();
            if let Some(guest) = name.to_str().and_then(|name| name.strip_suffix(".json")) {
                names.insert(guest.to_owned());
            }
        }
        Ok(names)
    }
}

fn guest(host: &SysRoot, changes: Changes, is_alive: bool, running: &BTreeSet<String>) -> Guest {
    Guest {
        state: match is_alive {
            false => GuestState::Dead,
            true if running.contains(&changes.guest) => GuestState::Running,
            true => GuestState::Preparing,
        },
        pid: changes.owner.pid,
        age_seconds: is_alive.then(|| age(host, changes.owner.start)).flatten(),
        vfs: changes
            .functions
            .iter()
            .map(|taken| taken.binding.bdf())
            .collect(),
        name: changes.guest,
        since: changes.since,
    }
}

/// How long ago a process was started; `None` where the kernel does not tell how long it is up.
fn age(host: &SysRoot, start: u64) -> Option<u64> {
    let uptime = host.read_text("proc/uptime").ok()?;
    let seconds: u64 = uptime.split('.').next()?.parse().ok()?;
    Some(seconds.saturating_sub(start / TICKS))
}
