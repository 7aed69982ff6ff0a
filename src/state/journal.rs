//! What a run is about to change of the host, written down before it does: whoever comes after a run that was killed can
//! put it back.
//!
//! One file a run, locked by it as long as it lives. The file is there before the first change, and is removed after the
//! last one was undone. A file that nobody has locked belongs to a run that is dead.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use iommu::{bdf::Bdf, bind::Binding};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{Identity, State, clock::now, file};
use crate::error::{ErrorId, Report};

/// The version of the file's format. A file of another one is refused.
const VERSION: u32 = 1;

/// More than any journal: sixteen functions with 4 KiB of configuration space each, in hexadecimal.
const FILE_LIMIT: u64 = 1 << 20;

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it was started, in ticks since the boot.
    pub start: u64,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)
    }
}

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

    fn names(&self, bdf: Bdf) -> bool {
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

/// What is found in the folder of journals.
#[derive(Debug)]
pub enum Left {
    /// Of a run that is dead. Nobody else puts it right while this lives.
    Dead(Journal),
    /// Something that is no journal.
    Damaged(Report),
}

impl Journal {
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

impl State {
    /// The journals of runs that are dead, and what is damaged; those of runs that live are left out.
    ///
    /// # Errors
    /// `state-unreadable`.
    pub fn left_behind(&self) -> Result<Vec<Left>, Report> {
        let unreadable = |error: io::Error| unreadable(&self.journal(), &error);
        let mut left = Vec::new();
        for path in self.journals().map_err(unreadable)? {
            match lock_of_dead(&path) {
                Ok(None) => {}
                Ok(Some(mut lock)) => left.push(match parse(&mut lock) {
                    Ok(changes) => Left::Dead(Journal {
                        path,
                        lock,
                        changes,
                    }),
                    Err(why) => Left::Damaged(damaged(&path, &why)),
                }),
                Err(error) => left.push(Left::Damaged(damaged(&path, &error.to_string()))),
            }
        }
        Ok(left)
    }

    /// Why a guest may not have `bdf`, as far as it can be known before anything is locked: it is in quarantine, or a dead
    /// run has not given it back.
    #[must_use]
    pub fn withheld(&self, bdf: Bdf) -> Option<Report> {
        self.refusal(bdf)
            .or_else(|| self.not_recovered(bdf))
            .or_else(|| Self::new(self.usual.clone()?).not_recovered(bdf))
    }

    fn not_recovered(&self, bdf: Bdf) -> Option<Report> {
        match self.journals() {
            // Who is not root may plan, and cannot run.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
            _ => {}
        }
        let left = match self.left_behind() {
            Ok(left) => left,
            Err(report) => return Some(report),
        };
        left.into_iter().find_map(|left| match left {
            Left::Dead(journal) => journal
                .changes
                .names(bdf)
                .then(|| recover_needed(bdf, &journal.changes)),
            Left::Damaged(report) => Some(report),
        })
    }

    /// Shows that no dead run had `bdf`, for who has its lock: then a journal that names it is of a dead run even where
    /// somebody has locked it, to read it or to put it right.
    ///
    /// # Errors
    /// `recover-needed`; `journal-damaged` and `state-unreadable`, as then it cannot be known.
    pub fn check_recovered(&self, bdf: Bdf) -> Result<(), Report> {
        let unreadable = |error: io::Error| unreadable(&self.journal(), &error);
        for path in self.journals().map_err(unreadable)? {
            let read = File::open(&path).map_err(|error| error.to_string());
            match read.and_then(|mut file| parse(&mut file)) {
                Ok(changes) if changes.names(bdf) => return Err(recover_needed(bdf, &changes)),
                Ok(_) => {}
                // It was removed since: its run has ended, or somebody has put it right.
                Err(_) if !path.exists() => {}
                Err(why) => return Err(damaged(&path, &why)),
            }
        }
        Ok(())
    }

    fn journals(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.journal()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut paths = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()?;
        // Files that were never finished: their runs had changed nothing.
        paths.retain(|path| {
            !path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'))
        });
        paths.sort_unstable();
        Ok(paths)
    }
}

/// The file with its lock, if its run is dead; `None` for one that lives, or that was removed just now.
fn lock_of_dead(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        // A run that writes anew replaces the file: the lock of the old one says nothing.
        let is_named = match fs::symlink_metadata(path) {
            Ok(named) => named.ino() == file.metadata()?.ino(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if is_named {
            return Ok(Some(file));
        }
    }
}

fn text(changes: &Changes) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(changes)?;
    text.push(b'\n');
    Ok(text)
}

fn parse(file: &mut File) -> Result<Changes, String> {
    let mut text = String::new();
    file.take(FILE_LIMIT)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    let changes: Changes = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if changes.version != VERSION {
        return Err(format!(
            "its format has version {}, this program knows {VERSION}",
            changes.version
        ));
    }
    Ok(changes)
}

fn recover_needed(bdf: Bdf, changes: &Changes) -> Report {
    Report::new(
        ErrorId::RecoverNeeded,
        format!("cannot assign {bdf}"),
        format!(
            "a run that had it was killed and did not give it back: {}",
            changes.whose()
        ),
        "narrows recover",
    )
}

fn damaged(path: &Path, why: &str) -> Report {
    Report::new(
        ErrorId::JournalDamaged,
        "the journal of a run that was killed is damaged: it does not tell what is to be put back",
        format!("{}: {why}", path.display()),
        "unbind by hand what is bound to vfio-pci and is no guest's (narrows inventory), clear its driver_override, then \
         move the file elsewhere; until then no guest is given a device",
    )
}

fn unreadable(path: &Path, error: &io::Error) -> Report {
    Report::new(
        ErrorId::StateUnreadable,
        "the journals of runs cannot be read",
        format!("{}: {error}", path.display()),
        "make them readable; until then no function counts as free",
    )
}
