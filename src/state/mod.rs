//! What outlives a run, in files of one folder: which functions are quarantined, which are in use, and
//! which guests run.
//!
//! ```text
//! quarantine/BDF.json   one file for each function that no guest may have
//! released/BDF-TIME.json   what was in quarantine, with when and why it was released
//! in-use/BDF   locked by the run that has the function; says which
//! running/GUEST.lock, running/GUEST.json   locked by the run that has the name; what inspection has to know
//! journal/GUEST-PID-START.json   what a run changes of the host, locked by it
//! journal/@host-PID-START.json   what an apply changes of the host, locked by it
//! host/lock   locked by who changes the host, shared by who takes VFs; seed, baseline.json, applied.json
//! host/confirm-PID-START   there once somebody has confirmed what that process did
//! vfs/PF.json, vfs/PF.lock   what is kept of a PF's VFs: states, leases, addresses, namespaces; vfs/PF.forgotten
//! uids/NUMBER  locked by the run whose processes have the users of this number
//! ```

mod clock;
mod file;
mod forget;
#[cfg(test)]
mod forget_test;
mod guests;
mod host;
mod host_journal;
mod in_use;
mod journal;
#[cfg(test)]
mod journal_test;
mod left;
mod process;
mod quarantine;
mod running;
#[cfg(test)]
mod state_test;
mod uid_slot;
mod vf;
#[cfg(test)]
mod vf_test;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use iommu::bdf::Bdf;

pub use self::{
    clock::now,
    guests::{Guest, GuestState},
    host::{AppliedFile, HostLock},
    host_journal::{HostChanges, HostJournal, HostRemains, JournalStep, Phase, StepState},
    in_use::InUse,
    journal::{Changes, Journal, Taken},
    left::{Claim, Left, Remains},
    process::{ProcessId, boot},
    quarantine::{Entry, Identity, Record},
    running::Running,
    uid_slot::UidSlot,
};
use crate::error::{ErrorId, Report};

/// The folder, below the host's root.
pub const DEFAULT_FOLDER: &str = "var/lib/narrows";

/// The folder of what outlives a run. It need not exist: then nothing is in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    folder: PathBuf,
    /// The host's own folder, where another one is used: what is in quarantine there stays there.
    usual: Option<PathBuf>,
}

impl State {
    /// The state in `folder`.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            usual: None,
        }
    }

    /// The same, on a host whose own folder is `usual`: naming another folder frees nothing.
    #[must_use]
    pub fn besides(mut self, usual: impl Into<PathBuf>) -> Self {
        self.usual = Some(usual.into()).filter(|usual| *usual != self.folder);
        self
    }

    /// The host's own folder, where this is another one.
    #[must_use]
    pub fn usual(&self) -> Option<&Path> {
        self.usual.as_deref()
    }

    /// Shows that a function could be quarantined: makes the folders and writes a file, which it removes.
    ///
    /// # Errors
    /// `state-unwritable`.
    pub fn check_writable(&self) -> Result<(), Report> {
        let folder = self.quarantine();
        static PROBES: AtomicU32 = AtomicU32::new(0);
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let probe = folder.join(format!(".probe-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder)
            .and_then(|()| file::write_whole(&probe, b"probe\n"))
            .and_then(|()| fs::remove_file(&probe))
            .map_err(|error| self.unwritable(&folder, &error))
    }

    fn quarantine(&self) -> PathBuf {
        self.folder.join("quarantine")
    }

    fn released(&self) -> PathBuf {
        self.folder.join("released")
    }

    fn in_use(&self) -> PathBuf {
        self.folder.join("in-use")
    }

    fn journal(&self) -> PathBuf {
        self.folder.join("journal")
    }

    /// Always the host's own where there is one: two runs must not have the same users because their folders differ.
    fn uids(&self) -> PathBuf {
        self.usual.as_ref().unwrap_or(&self.folder).join("uids")
    }

    fn file_of(&self, bdf: Bdf) -> PathBuf {
        self.quarantine().join(format!("{bdf}.json"))
    }

    pub(crate) fn unwritable(&self, path: &Path, error: &io::Error) -> Report {
        Report::new(
            ErrorId::StateUnwritable,
            format!(
                "the state folder {} cannot be written",
                self.folder.display()
            ),
            format!("{}: {error}", path.display()),
            "make it writable, or name another with --state; without it a device that must not be used again could not \
             be kept from the next guest",
        )
    }
}
