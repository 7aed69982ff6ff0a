//! What a run is about to change of the host, written down before it does: whoever comes after a run that was killed can
//! put it back.
//!
//! One file a run, locked by it as long as it lives. The file is there before the first change, and is removed after the
//! last one was undone. What is found of runs that are dead is in [`super::left`].

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use iommu::{bdf::Bdf, bind::Binding};
use serde::{Deserialize, Serialize};

use super::{Identity, ProcessId, State, clock::now, file};
use crate::{error::Report, sriov::LeaseTerms};

/// The version of the file's format: since 2, a function may have a lease.
const VERSION: u32 = 2;

/// The oldest version that is read. A file of any other is refused.
const OLDEST: u32 = 1;

/// More than any journal: sixteen functions with 4 KiB of configuration space each, in hexadecimal.
const FILE_LIMIT: u64 = 1 << 20;

/// A function that a run takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Taken {
    /// Its driver and override before.
    pub binding: Binding,
    /// What it was.
    pub device: Identity,
    /// Its configuration space after the reset before the guest, in hexadecimal, once that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// On which terms it is leased, where it is a VF of a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseTerms>,
}

/// What a run changes of the host. One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Changes {
    version: u32,
    /// The guest.
    pub guest: String,
    /// The process that makes the changes.
    pub owner: ProcessId,
    /// The host's boot that they are made in; another one has nothing of them.
    pub boot: String,
    /// Since when, in UTC.
    pub since: String,
    /// The version of Narrows that wrote it.
    pub narrows: String,
    /// The functions.
    pub functions: Vec<Taken>,
    /// The guest's folder in the cgroup tree, below the host's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// The processes beside the guest, in its present life.
    #[serde(default)]
    pub processes: Vec<ProcessId>,
}

impl Changes {
    /// The changes of a run that begins now.
    #[must_use]
    pub fn new(
        guest: &str,
        owner: ProcessId,
        boot: impl Into<String>,
        functions: Vec<Taken>,
        cgroup: Option<PathBuf>,
    ) -> Self {
        Self {
            version: VERSION,
            guest: guest.to_owned(),
            owner,
            boot: boot.into(),
            since: now(),
            narrows: env!("CARGO_PKG_VERSION").to_owned(),
            functions,
            cgroup,
            processes: Vec::new(),
        }
    }

    /// Whose they are, in words.
    #[must_use]
    pub fn whose(&self) -> String {
        format!("guest {}, {}, since {}", self.guest, self.owner, self.since)
    }

    pub(super) fn names(&self, bdf: Bdf) -> bool {
        self.functions
            .iter()
            .any(|taken| taken.binding.bdf() == bdf)
    }
}

/// The journal of a run that lives, or of a dead one that is being put right. Dropped, the file stays.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// What keeps others from taking the run for dead.
    lock: File,
    changes: Changes,
}

impl Journal {
    /// The journal of a dead run, for who has locked it.
    pub(super) const fn of(path: PathBuf, lock: File, changes: Changes) -> Self {
        Self {
            path,
            lock,
            changes,
        }
    }

    /// Writes down what is about to change: it is on the disk when this returns.
    ///
    /// # Errors
    /// `state-unwritable`.
    pub fn begin(state: &State, changes: Changes) -> Result<Self, Report> {
        let folder = state.journal();
        let ProcessId { pid, start } = changes.owner;
        let path = folder.join(format!("{}-{pid}-{start}.json", changes.guest));
        let unwritable = |error: io::Error| state.unwritable(&path, &error);
        let lock = fs::create_dir_all(&folder)
            .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)))
            .and_then(|()| text(&changes))
            .and_then(|text| file::put_locked(&path, &text))
            .and_then(|lock| file::sync_folder(&folder).map(|()| lock))
            .map_err(unwritable)?;
        Ok(Self {
            path,
            lock,
            changes,
        })
    }

    /// What it holds.
    #[must_use]
    pub const fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down what is about to change besides, or is known by now. Whichever version a loss of power leaves, both tell
    /// that the host has booted since.
    ///
    /// # Errors
    /// The errno of the step that failed.
    pub fn update(&mut self, change: impl FnOnce(&mut Changes)) -> io::Result<()> {
        let mut changes = self.changes.clone();
        change(&mut changes);
        self.lock = file::put_locked(&self.path, &text(&changes)?)?;
        self.changes = changes;
        Ok(())
    }

    /// Removes the file: everything was undone.
    ///
    /// # Errors
    /// The errno of `unlink` or `fsync`.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        self.path.parent().map_or(Ok(()), file::sync_folder)
    }
}

fn text(changes: &Changes) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(changes)?;
    text.push(b'\n');
    Ok(text)
}

/// What the file holds, or why it is no journal.
pub(super) fn parse(file: &mut File) -> Result<Changes, String> {
    let mut text = String::new();
    file.take(FILE_LIMIT)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    let changes: Changes = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if !(OLDEST..=VERSION).contains(&changes.version) {
        return Err(format!(
            "its format has version {}, this program knows {OLDEST} to {VERSION}",
            changes.version
        ));
    }
    Ok(changes)
}
