//! What an apply changes of the host, written down before it does: whoever comes after one that was killed can take it
//! back, or finish it.
//!
//! One file an apply, in the folder of the runs' journals and locked like those. Its name begins with `@`, which is in no
//! guest's name.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use iommu::{bdf::Bdf, sysfs::SysRoot};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{ProcessId, State, clock::now, file, process::boot};
use crate::{
    error::{ErrorId, Report},
    sriov::Step,
};

/// The version of the file's format. A file of another one is refused.
const VERSION: u32 = 1;

/// More than any journal: 2,048 VFs with seven attributes each.
const FILE_LIMIT: u64 = 32 << 20;

/// What a host journal's name begins with.
pub(super) const PREFIX: &str = "@host-";

/// How far an apply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its steps are carried out. Who finds it dead undoes it.
    Applying,
    /// They are done, and undone unless somebody confirms. Who finds it dead undoes it.
    Awaiting,
    /// Somebody has confirmed. Who finds it dead leaves the machine as it is.
    Confirmed,
    /// They are undone.
    Undoing,
    /// The host goes back to what it was before the first apply. Who finds it dead goes on with it.
    Releasing,
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Nothing of it was done.
    Planned,
    /// It may be done, or half done.
    Begun,
    /// It is done, and was read back.
    Done,
    /// It is undone, or was not done.
    Undone,
    /// It could not be undone: the note says why.
    Stuck,
}

/// A step with how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JournalStep {
    /// The step.
    pub step: Step,
    /// How far it is.
    pub state: StepState,
    /// Why it is stuck, or was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The namespace that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nsid: Option<u32>,
    /// The namespaces that were there before it, for a step that makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<BTreeSet<u32>>,
}

impl JournalStep {
    /// Nothing of it was done.
    #[must_use]
    pub const fn planned(step: Step) -> Self {
        Self {
            step,
            state: StepState::Planned,
            note: None,
            nsid: None,
            before: None,
        }
    }
}

/// What an apply changes. One file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HostChanges {
    version: u32,
    kind: String,
    /// `apply`, `release`.
    pub verb: String,
    /// How far it is.
    pub phase: Phase,
    /// The process that makes the changes.
    pub owner: ProcessId,
    /// The host's boot that they are made in.
    pub boot: String,
    /// Since when, in UTC.
    pub since: String,
    /// The version of Narrows that wrote it.
    pub narrows: String,
    /// Until when it waits to be confirmed, in seconds after the boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<u64>,
    /// What of it could not be written down once it was confirmed: who confirms is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
    /// The VFs of the PFs that are changed, as far as they are known: no guest is given one before this is put right.
    pub functions: BTreeSet<Bdf>,
    /// The steps.
    pub steps: Vec<JournalStep>,
}

impl HostChanges {
    /// The changes that this process begins now.
    #[must_use]
    pub fn new(
        verb: &str,
        phase: Phase,
        owner: ProcessId,
        boot: impl Into<String>,
        steps: &[Step],
    ) -> Self {
        Self {
            version: VERSION,
            kind: "host".to_owned(),
            verb: verb.to_owned(),
            phase,
            owner,
            boot: boot.into(),
            since: now(),
            narrows: env!("CARGO_PKG_VERSION").to_owned(),
            confirm_by: None,
            failed: Vec::new(),
            functions: BTreeSet::new(),
            steps: steps.iter().cloned().map(JournalStep::planned).collect(),
        }
    }

    /// Whose they are, in words.
    #[must_use]
    pub fn whose(&self) -> String {
        let Self {
            verb, owner, since, ..
        } = self;
        format!("host {verb}, {owner}, since {since}")
    }

    /// Whether `pf` is changed.
    #[must_use]
    pub fn names(&self, pf: Bdf) -> bool {
        self.steps.iter().any(|entry| entry.step.pf() == pf)
    }

    /// Whether `bdf` is changed, or is a VF of a PF that is.
    pub(super) fn touches(&self, host: &SysRoot, bdf: Bdf) -> bool {
        let physfn = || {
            let link = host.read_link_name(format!("sys/bus/pci/devices/{bdf}/physfn"));
            link.ok().flatten()?.parse().ok()
        };
        self.names(bdf)
            || self.functions.contains(&bdf)
            || physfn().is_some_and(|pf| self.names(pf))
    }

    /// Whether the process that makes them lives. What cannot be told counts as dead: the lock decides.
    pub(super) fn lives(&self, host: &SysRoot) -> bool {
        boot(host).is_ok_and(|boot| boot == self.boot)
            && self.owner.runs(host).is_ok_and(|runs| runs)
    }
}

/// The journal of an apply that goes on, or of a dead one that is put right. Dropped, the file stays.
#[derive(Debug)]
pub struct HostJournal {
    path: PathBuf,
    /// What keeps others from putting it right as well.
    lock: File,
    changes: HostChanges,
}

/// The journal of a dead apply, read and not locked.
#[derive(Clone, Debug)]
pub struct HostRemains {
    pub(super) path: PathBuf,
    pub(super) changes: HostChanges,
}

impl HostRemains {
    /// What was to be changed, and how far that is.
    #[must_use]
    pub const fn changes(&self) -> &HostChanges {
        &self.changes
    }

    /// Locks it; `None` where another process has, or has put it right.
    ///
    /// # Errors
    /// The errno of `open` or `flock`; `InvalidData` for a file that is no journal any more.
    pub fn claim(&self) -> io::Result<Option<HostJournal>> {
        loop {
            let mut file = match File::open(&self.path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
            // One that was removed or replaced meanwhile has no name: its lock says nothing.
            match fs::symlink_metadata(&self.path) {
                Ok(named) if named.ino() == file.metadata()?.ino() => {
                    let changes = parse(&mut file)
                        .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
                    return Ok(Some(HostJournal {
                        path: self.path.clone(),
                        lock: file,
                        changes,
                    }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

impl HostJournal {
    /// Writes down what is about to change: it is on the disk when this returns.
    ///
    /// # Errors
    /// `state-unwritable`.
    pub fn begin(state: &State, changes: HostChanges) -> Result<Self, Report> {
        let folder = state.journal();
        let ProcessId { pid, start } = changes.owner;
        let path = folder.join(format!("{PREFIX}{pid}-{start}.json"));
        let lock = file::private_folder(&folder)
            .and_then(|()| Ok(serde_json::to_vec(&changes)?))
            .and_then(|text| file::put_locked(&path, &text))
            .and_then(|lock| file::sync_folder(&folder).map(|()| lock))
            .map_err(|error| state.unwritable(&path, &error))?;
        Ok(Self {
            path,
            lock,
            changes,
        })
    }

    /// What it holds.
    #[must_use]
    pub const fn changes(&self) -> &HostChanges {
        &self.changes
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down what has changed or is about to: it is on the disk when this returns.
    ///
    /// # Errors
    /// The errno of the step that failed; the file is then as it was.
    pub fn update(&mut self, change: impl FnOnce(&mut HostChanges)) -> io::Result<()> {
        let mut changes = self.changes.clone();
        change(&mut changes);
        self.lock = file::put_locked(&self.path, &serde_json::to_vec(&changes)?)?;
        self.changes = changes;
        self.path.parent().map_or(Ok(()), file::sync_folder)
    }

    /// Removes the file: there is nothing to put right.
    ///
    /// # Errors
    /// The errno of `unlink` or `fsync`.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        self.path.parent().map_or(Ok(()), file::sync_folder)
    }
}

impl State {
    /// What is changed of the host right now, by processes that live. Takes no lock.
    ///
    /// # Errors
    /// `state-unreadable`.
    pub fn host_changes(&self, host: &SysRoot) -> Result<Vec<HostChanges>, Report> {
        let paths = self
            .journals()
            .map_err(|error| unreadable(&self.journal(), &error))?;
        let mut all = Vec::new();
        for path in paths.iter().filter(|path| is_host(path)) {
            match File::open(path) {
                // What is damaged is told by who recovers.
                Ok(mut file) => all.extend(parse(&mut file).ok().filter(|one| one.lives(host))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(path, &error)),
            }
        }
        Ok(all)
    }

    /// Says that the change of `owner` is confirmed.
    ///
    /// # Errors
    /// `state-unwritable`.
    pub fn confirm(&self, owner: ProcessId) -> Result<(), Report> {
        let path = self.confirmation(owner);
        file::write_private(&path, b"").map_err(|error| self.unwritable(&path, &error))
    }

    /// Whether somebody has said so.
    #[must_use]
    pub fn is_confirmed(&self, owner: ProcessId) -> bool {
        self.confirmation(owner).exists()
    }

    /// Removes the word that it is confirmed, if it is there.
    ///
    /// # Errors
    /// `state-unwritable`.
    pub fn take_confirmation(&self, owner: ProcessId) -> Result<(), Report> {
        let path = self.confirmation(owner);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.unwritable(&path, &error))
            }
            _ => Ok(()),
        }
    }

    fn confirmation(&self, ProcessId { pid, start }: ProcessId) -> PathBuf {
        self.host_folder().join(format!("confirm-{pid}-{start}"))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Report {
    Report::new(
        ErrorId::StateUnreadable,
        "the journals of changes of the host cannot be read",
        format!("{}: {error}", path.display()),
        "run as root",
    )
}

/// What the file holds, or why it is no host journal.
pub(super) fn parse(file: &mut File) -> Result<HostChanges, String> {
    let mut text = String::new();
    file.take(FILE_LIMIT)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    let changes: HostChanges = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if changes.version != VERSION || changes.kind != "host" {
        return Err(format!(
            "it is of kind {} and version {}, this program knows host and {VERSION}",
            changes.kind, changes.version
        ));
    }
    Ok(changes)
}

/// Whether a file of the folder of journals is a host's.
pub(super) fn is_host(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with(PREFIX))
}
