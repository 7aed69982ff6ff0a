//! What dead runs have left behind, by the journals they wrote.
//!
//! Who only looks takes no lock: whether a run lives is told by the process that owns its journal, and a file is there whole
//! or not at all. Who puts right what a run left locks its journal first, so that nobody else does so meanwhile.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use iommu::{bdf::Bdf, sysfs::SysRoot};
use rustix::{
    fs::{FlockOperation, fcntl_lock, flock},
    io::Errno,
    process::{Flock, FlockType, fcntl_getlk},
};

use super::{
    State,
    host_journal::{self, HostChanges, HostRemains},
    journal::{Changes, Journal, parse},
    process::boot,
};
use crate::error::{ErrorId, Report};

/// What is found in the folder of journals.
#[derive(Debug)]
pub enum Left {
    /// Of a run that is dead.
    Dead(Remains),
    /// Of an apply that is dead.
    Host(HostRemains),
    /// Something that is no journal.
    Damaged {
        /// Whose it would be, by its name.
        guest: Option<String>,
        /// What is wrong with it.
        report: Report,
    },
}

/// The journal of a dead run, read and not locked.
#[derive(Clone, Debug)]
pub struct Remains {
    path: PathBuf,
    changes: Changes,
}

/// What came of locking a dead run's journal.
#[derive(Debug)]
pub enum Claim {
    /// Nobody else puts it right while this lives.
    Ours(Box<Journal>),
    /// Another process has it, with this number where that can be told.
    Held(Option<u32>),
    /// It is removed: somebody has put it right.
    Gone,
}

impl Remains {
    /// What the run had changed.
    #[must_use]
    pub const fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Locks it, unless another has.
    ///
    /// # Errors
    /// The errno of `open`, `flock` or `fcntl`; `InvalidData` for a file that is no journal any more.
    pub fn claim(&self) -> io::Result<Claim> {
        loop {
            let mut file = match File::open(&self.path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Claim::Gone),
                Err(error) => return Err(error),
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return Ok(Claim::Held(holder(&file)?)),
                Err(errno) => return Err(errno.into()),
            }
            // One that was removed or replaced meanwhile has no name: its lock says nothing.
            let is_named = match fs::symlink_metadata(&self.path) {
                Ok(named) => named.ino() == file.metadata()?.ino(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Claim::Gone),
                Err(error) => return Err(error),
            };
            if is_named {
                // The former lock decides; of this kind the kernel tells others who has it.
                fcntl_lock(&file, FlockOperation::NonBlockingLockShared)?;
                let changes = parse(&mut file)
                    .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
                let journal = Journal::of(self.path.clone(), file, changes);
                return Ok(Claim::Ours(Box::new(journal)));
            }
        }
    }
}

/// The process that has locked the file to put it right.
fn holder(file: &File) -> io::Result<Option<u32>> {
    let found = fcntl_getlk(file, &Flock::from(FlockType::WriteLock))?;
    let pid = found.and_then(|lock| lock.pid);
    Ok(pid.map(|pid| pid.as_raw_nonzero().get().unsigned_abs()))
}

impl State {
    /// What dead runs have left behind on `host`, and what is damaged; the journals of runs that live are left out. Takes
    /// no lock.
    ///
    /// # Errors
    /// `state-unreadable`.
    pub fn left_behind(&self, host: &SysRoot) -> Result<Vec<Left>, Report> {
        let unreadable = |error: io::Error| unreadable(&self.journal(), &error);
        let mut left = Vec::new();
        for path in self.journals().map_err(unreadable)? {
            if host_journal::is_host(&path) {
                left.extend(host_left(host, path));
                continue;
            }
            match read(&path) {
                None => {}
                Some(Ok(changes)) if lives(host, &changes) => {}
                // It was removed since: the run has ended well just now.
                Some(Ok(_)) if !path.exists() => {}
                Some(Ok(changes)) => left.push(Left::Dead(Remains { path, changes })),
                Some(Err(report)) => left.push(Left::Damaged {
                    guest: guest_of(&path),
                    report,
                }),
            }
        }
        Ok(left)
    }

    /// Why a guest may not have `bdf` of `host`, as far as it can be known before anything is locked: it is in quarantine,
    /// or a dead run has not given it back. Takes no lock.
    #[must_use]
    pub fn withheld(&self, host: &SysRoot, bdf: Bdf) -> Option<Report> {
        self.refusal(bdf)
            .or_else(|| self.not_recovered(host, bdf))
            .or_else(|| Self::new(self.usual.clone()?).not_recovered(host, bdf))
    }

    fn not_recovered(&self, host: &SysRoot, bdf: Bdf) -> Option<Report> {
        match self.journals() {
            // Who is not root may plan, and cannot run.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
            _ => {}
        }
        let left = match self.left_behind(host) {
            Ok(left) => left,
            Err(report) => return Some(report),
        };
        left.into_iter().find_map(|left| match left {
            Left::Dead(Remains { changes, .. }) => {
                changes.names(bdf).then(|| recover_needed(bdf, &changes))
            }
            Left::Host(HostRemains { changes, .. }) => changes
                .touches(host, bdf)
                .then(|| host_recover_needed(bdf, &changes)),
            Left::Damaged { report, .. } => Some(report),
        })
    }

    /// Shows that no dead run had `bdf`, for who has its lock: then a journal that names it is of a dead run even where its
    /// owner seems to live.
    ///
    /// # Errors
    /// `recover-needed`; `journal-damaged` and `state-unreadable`, as then it cannot be known.
    pub fn check_recovered(&self, bdf: Bdf) -> Result<(), Report> {
        let unreadable = |error: io::Error| unreadable(&self.journal(), &error);
        for path in self.journals().map_err(unreadable)? {
            if host_journal::is_host(&path) {
                // One that is alive has the host's lock, which whoever takes a VF shares.
                let host = SysRoot::default();
                match host_left(&host, path) {
                    Some(Left::Host(HostRemains { changes, .. }))
                        if changes.touches(&host, bdf) =>
                    {
                        return Err(host_recover_needed(bdf, &changes));
                    }
                    Some(Left::Damaged { report, .. }) => return Err(report),
                    _ => {}
                }
                continue;
            }
            match read(&path).transpose()? {
                Some(changes) if changes.names(bdf) => return Err(recover_needed(bdf, &changes)),
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    pub(super) fn journals(&self) -> io::Result<Vec<PathBuf>> {
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

/// Reads a journal; nothing where it was removed since: its run has ended, or somebody has put it right.
pub(super) fn read(path: &Path) -> Option<Result<Changes, Report>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(damaged(path, &error.to_string()))),
    };
    Some(parse(&mut file).map_err(|why| damaged(path, &why)))
}

/// Whether the run lives. What cannot be told counts as dead: then its functions are refused, and before anything of it is
/// put right its lock decides.
pub(super) fn lives(host: &SysRoot, changes: &Changes) -> bool {
    boot(host).is_ok_and(|boot| boot == changes.boot)
        && changes.owner.runs(host).is_ok_and(|runs| runs)
}

/// The guest in the name of a journal: `GUEST-PID-START.json`, where the guest may have dashes of its own.
fn guest_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    name.rsplitn(3, '-').nth(2).map(str::to_owned)
}

/// What a host's journal tells, unless its apply lives, or has ended well just now.
fn host_left(host: &SysRoot, path: PathBuf) -> Option<Left> {
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            let report = damaged_host(&path, &error.to_string());
            return Some(Left::Damaged {
                guest: None,
                report,
            });
        }
    };
    match host_journal::parse(&mut file) {
        Ok(changes) if changes.lives(host) || !path.exists() => None,
        Ok(changes) => Some(Left::Host(HostRemains { path, changes })),
        Err(why) => Some(Left::Damaged {
            guest: None,
            report: damaged_host(&path, &why),
        }),
    }
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

fn host_recover_needed(bdf: Bdf, changes: &HostChanges) -> Report {
    Report::new(
        ErrorId::RecoverNeeded,
        format!("cannot assign {bdf}"),
        format!(
            "a change of its PF was killed half-way: {}",
            changes.whose()
        ),
        "narrows recover",
    )
}

fn damaged_host(path: &Path, why: &str) -> Report {
    Report::new(
        ErrorId::JournalDamaged,
        "the journal of a change of the host that was killed is damaged: it does not tell what is to be undone",
        format!("{}: {why}", path.display()),
        "see with narrows host status what differs from the host file, and move the file elsewhere; then narrows host apply",
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
