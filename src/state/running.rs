//! The guests that run: a name for one at a time, and what `narrows inspect` has to know of it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::PathBuf,
};

use rustix::fs::{FlockOperation, flock};
use serde::{Serialize, de::DeserializeOwned};

use super::{State, file};
use crate::error::{ErrorId, Report};

/// More than any record: the facts of sixteen functions in hexadecimal, and then some.
const FILE_LIMIT: u64 = 1 << 20;

/// A guest's name that no other run can take while this lives.
#[derive(Debug)]
pub struct Running {
    state: State,
    name: String,
    _lock: File,
    /// Whether another process has it from here on.
    is_left: bool,
}

impl Running {
    /// Takes `name` for this run. A record that a killed run has left is removed.
    ///
    /// # Errors
    /// `guest-name-taken`; `state-unwritable`.
    pub fn take(state: &State, name: &str) -> Result<Self, Report> {
        let folder = state.running();
        let path = folder.join(format!("{name}.lock"));
        let unwritable = |error: io::Error| state.unwritable(&path, &error);
        let own = |path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        let lock = fs::create_dir_all(&folder)
            // Whoever could open the lock could keep the name, and a record tells addresses.
            .and_then(|()| own(folder.as_path(), 0o700))
            .and_then(|()| {
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o600)
                    .custom_flags(libc::O_NOFOLLOW)
                    .open(&path)
            })
            .map_err(unwritable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::AGAIN) => return Err(taken(name)),
            Err(errno) => return Err(unwritable(errno.into())),
        }
        let running = Self {
            state: state.clone(),
            name: name.to_owned(),
            _lock: lock,
            is_left: false,
        };
        running.remove().map_err(unwritable)?;
        Ok(running)
    }

    /// Leaves the name to the process that was forked off.
    pub fn leave(mut self) {
        self.is_left = true;
    }

    /// Writes what is to be known of the guest as it runs now.
    ///
    /// # Errors
    /// `state-unwritable`.
    pub fn record(&self, record: &impl Serialize) -> Result<(), Report> {
        let path = self.path();
        let written = serde_json::to_vec_pretty(record)
            .map_err(io::Error::from)
            .and_then(|text| file::write_whole(&path, &text));
        written.map_err(|error| self.state.unwritable(&path, &error))
    }

    /// Removes the record, as long as none of it is true any more.
    ///
    /// # Errors
    /// The errno of `unlink`.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn path(&self) -> PathBuf {
        self.state.record_of(&self.name)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that stays is told from a guest that runs by its processes' start times.
        if !self.is_left {
            self.remove().ok();
        }
    }
}

impl State {
    /// What was written of the guest `name` when it began to run.
    ///
    /// # Errors
    /// `guest-not-running`; `not-permitted`; `state-damaged`.
    pub fn running_guest<T: DeserializeOwned>(&self, name: &str) -> Result<T, Report> {
        let path = self.record_of(name);
        let what = format!("cannot inspect guest {name}");
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut bytes));
        if let Err(error) = read {
            let why = format!("{}: {error}", path.display());
            let kind = error.kind();
            return Err(if kind == io::ErrorKind::NotFound {
                Report::new(
                    ErrorId::GuestNotRunning,
                    what,
                    format!("no guest of this name runs: {why}"),
                    "give the `name` of the guest file, and the --state of its run if it had one",
                )
            } else if kind == io::ErrorKind::PermissionDenied {
                Report::new(ErrorId::NotPermitted, what, why, "run narrows as root")
            } else {
                Report::new(
                    ErrorId::StateUnreadable,
                    what,
                    why,
                    "see that the state folder can be read",
                )
            });
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            Report::new(
                ErrorId::StateDamaged,
                what,
                format!("{}: {error}", path.display()),
                "it is written by the version of Narrows that runs the guest: inspect it with that one",
            )
        })
    }

    pub(super) fn running(&self) -> PathBuf {
        self.folder.join("running")
    }

    fn record_of(&self, name: &str) -> PathBuf {
        self.running().join(format!("{name}.json"))
    }
}

fn taken(name: &str) -> Report {
    Report::new(
        ErrorId::GuestNameTaken,
        format!("cannot start guest {name}"),
        "another run of narrows has a guest of this name",
        "give the guest another `name`, or wait until that one has ended",
    )
}
