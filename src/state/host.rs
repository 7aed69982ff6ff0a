//! What is kept of the host as a whole: who changes it, what it was before, what was applied.
//!
//! Lock order: the host's lock, then `in-use/BDF`, then the lock of a PF's file; the last is held only while that file is
//! changed, or one attribute of a VF in use is set. Who changes the host has the first alone, who takes VFs for a guest
//! shares it; neither waits for the other's end. Who gives VFs back does not take it.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, fcntl_lock, flock},
    io::Errno,
    process::{Flock, FlockType, fcntl_getlk},
    rand::{GetRandomFlags, getrandom},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{State, clock::now, file};
use crate::{
    error::{ErrorId, Report},
    sriov::Observed,
};

/// A process that starts a program has for a moment a child with copies of its descriptors, until that is the program: a lock
/// that was let go meanwhile goes with the last of them.
const PATIENCE: Duration = Duration::from_millis(300);

/// The version of the files' formats.
const VERSION: u32 = 1;

/// More than the facts of any host: 256 PFs with 256 VFs each.
const BASELINE_LIMIT: u64 = 64 << 20;

/// More than any host file.
const APPLIED_LIMIT: u64 = 4 << 20;

/// More than any note.
const NOTE_LIMIT: u64 = 200;

/// The host's lock, alone or shared with others; it ends with the last process that has the file open from here.
#[derive(Debug)]
pub struct HostLock {
    file: File,
    path: PathBuf,
}

impl HostLock {
    /// Says who has it: after a fork, that it is this process.
    ///
    /// # Errors
    /// The errno of `write`.
    pub fn note(&mut self, verb: &str) -> io::Result<()> {
        let note = format!("narrows {verb}, process {}\n", std::process::id());
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(note.as_bytes())
    }

    /// Says the same of a lock that is shared.
    ///
    /// # Errors
    /// The errno of `fcntl`.
    pub fn note_sharer(&self) -> io::Result<()> {
        // Of this kind the kernel tells others who has it, and no fork passes it on; the lock itself decides.
        Ok(fcntl_lock(
            &self.file,
            FlockOperation::NonBlockingLockShared,
        )?)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What was applied last: drift is told against it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppliedFile {
    version: u32,
    /// The host file, as it was named.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// When, in UTC.
    pub at: String,
    /// The version of Narrows that applied it.
    pub narrows: String,
}

/// What the host was before the first apply.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Baseline {
    version: u32,
    at: String,
    observed: Observed,
}

impl State {
    /// The host's lock for who changes the host: nobody else does meanwhile, and no guest takes a VF.
    ///
    /// # Errors
    /// `host-busy` with who has it; `state-unwritable`.
    pub fn lock_host(&self, verb: &str) -> Result<HostLock, Report> {
        let mut lock = self.host_lock(FlockOperation::NonBlockingLockExclusive)?;
        lock.note(verb)
            .map_err(|error| self.unwritable(&lock.path, &error))?;
        Ok(lock)
    }

    /// The host's lock for who takes VFs for a guest, or looks at what must not change meanwhile.
    ///
    /// # Errors
    /// As [`Self::lock_host`].
    pub fn share_host(&self) -> Result<HostLock, Report> {
        let lock = self.host_lock(FlockOperation::NonBlockingLockShared)?;
        lock.note_sharer()
            .map_err(|error| self.unwritable(&lock.path, &error))?;
        Ok(lock)
    }

    fn host_lock(&self, how: FlockOperation) -> Result<HostLock, Report> {
        let path = self.host_folder().join("lock");
        let unwritable = |error: io::Error| self.unwritable(&path, &error);
        let mut file = file::private_folder(&self.host_folder())
            .and_then(|()| file::open_lock(&path))
            .map_err(unwritable)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(HostLock { file, path }),
                Err(Errno::AGAIN | Errno::INTR) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(2));
                }
                Err(Errno::AGAIN | Errno::INTR) => return Err(busy(&mut file)),
                Err(errno) => return Err(unwritable(errno.into())),
            }
        }
    }

    /// Of what generated addresses are made: the same for ever, made where there is none. For who has the host's lock alone.
    ///
    /// # Errors
    /// `state-damaged`, `state-unreadable`, `state-unwritable`.
    pub fn seed(&self) -> Result<[u8; 16], Report> {
        if let Some(seed) = self.seed_if_any()? {
            return Ok(seed);
        }
        let path = self.host_folder().join("seed");
        let unwritable = |error: io::Error| self.unwritable(&path, &error);
        let mut seed = [0; 16];
        let filled = getrandom(&mut seed, GetRandomFlags::empty())
            .map_err(io::Error::from)
            .map_err(unwritable)?;
        if filled != seed.len() {
            return Err(unwritable(io::ErrorKind::UnexpectedEof.into()));
        }
        let text = format!("{:032x}\n", u128::from_be_bytes(seed));
        file::private_folder(&self.host_folder())
            .and_then(|()| file::write_private(&path, text.as_bytes()))
            .map_err(unwritable)?;
        Ok(seed)
    }

    pub(super) fn seed_if_any(&self) -> Result<Option<[u8; 16]>, Report> {
        let path = self.host_folder().join("seed");
        let Some(text) = read(&path, NOTE_LIMIT)? else {
            return Ok(None);
        };
        let text = text.trim_end();
        match u128::from_str_radix(text, 16) {
            Ok(seed) if text.len() == 32 => Ok(Some(seed.to_be_bytes())),
            _ => Err(damaged(&path, "it is not of 32 hexadecimal digits")),
        }
    }

    /// What the host was before the first apply; `None` where there was none.
    ///
    /// # Errors
    /// `state-damaged`, `state-unreadable`.
    pub fn baseline(&self) -> Result<Option<Observed>, Report> {
        let path = self.host_folder().join("baseline.json");
        let baseline: Option<Baseline> = parsed(&path, BASELINE_LIMIT)?;
        baseline
            .map(|baseline| versioned(&path, baseline.version, baseline.observed))
            .transpose()
    }

    /// Keeps what the host was before the first apply.
    ///
    /// # Errors
    /// `state-unwritable`.
    pub fn set_baseline(&self, observed: &Observed) -> Result<(), Report> {
        let baseline = Baseline {
            version: VERSION,
            at: now(),
            observed: observed.clone(),
        };
        self.keep("baseline.json", &baseline)
    }

    /// What was applied last; `None` where nothing was.
    ///
    /// # Errors
    /// `state-damaged`, `state-unreadable`.
    pub fn applied(&self) -> Result<Option<AppliedFile>, Report> {
        let path = self.host_folder().join("applied.json");
        let applied: Option<AppliedFile> = parsed(&path, APPLIED_LIMIT)?;
        applied
            .map(|applied| versioned(&path, applied.version, applied))
            .transpose()
    }

    /// Whether what was applied is kept where this process may not read it: then it knows nothing of pools.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let opened = File::open(self.host_folder().join("applied.json"));
        opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Keeps what was applied.
    ///
    /// # Errors
    /// `state-unwritable`.
    pub fn set_applied(&self, file: &Path, text: &str) -> Result<(), Report> {
        let applied = AppliedFile {
            version: VERSION,
            file: file.to_owned(),
            text: text.to_owned(),
            at: now(),
            narrows: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.keep("applied.json", &applied)
    }

    /// Forgets the baseline, what was applied, the seed, and what is kept of VFs that nobody has: the host is as it was
    /// before the first apply. What is still to be erased stays known.
    ///
    /// # Errors
    /// `vf-in-use`; `state-unwritable`.
    pub fn forget_host(&self) -> Result<(), Report> {
        for pf in self.recorded_pfs()? {
            self.forget_free(pf)?;
        }
        // The baseline last: who is interrupted finds that there is something to release.
        for name in ["applied.json", "seed", "baseline.json"] {
            let path = self.host_folder().join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.unwritable(&path, &error));
                }
                _ => {}
            }
        }
        match file::sync_folder(&self.host_folder()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.unwritable(&self.host_folder(), &error))
            }
            _ => Ok(()),
        }
    }

    fn keep(&self, name: &str, what: &impl Serialize) -> Result<(), Report> {
        let path = self.host_folder().join(name);
        file::private_folder(&self.host_folder())
            .and_then(|()| Ok(serde_json::to_vec(what)?))
            .and_then(|text| file::write_private(&path, &text))
            .map_err(|error| self.unwritable(&path, &error))
    }

    /// The folder of what is kept of the host as a whole.
    #[must_use]
    pub fn host_folder(&self) -> PathBuf {
        self.folder.join("host")
    }
}

fn busy(file: &mut File) -> Report {
    let mut note = String::new();
    let noted = file
        .seek(SeekFrom::Start(0))
        .and_then(|_| file.take(NOTE_LIMIT).read_to_string(&mut note));
    // One that has it alone has said so; of those that share it, one is told by the kernel.
    let sharer = fcntl_getlk(&*file, &Flock::from(FlockType::WriteLock));
    let who = match (sharer, noted) {
        (Ok(Some(Flock { pid: Some(pid), .. })), _) => {
            let pid = pid.as_raw_nonzero();
            format!("a run of narrows that takes or gives back VFs, process {pid}")
        }
        (_, Ok(_)) if !note.trim().is_empty() => note.trim().to_owned(),
        (_, Ok(_)) => "a narrows that begins just now".to_owned(),
        (_, Err(error)) => format!("its note cannot be read: {error}"),
    };
    Report::new(
        ErrorId::HostBusy,
        "another process changes the host's VFs, or takes some",
        who,
        "wait until it has ended; one that waits to be confirmed: narrows host confirm",
    )
}

fn read(path: &Path, limit: u64) -> Result<Option<String>, Report> {
    file::read_if_any(path, limit).map_err(|error| {
        if error.kind() == io::ErrorKind::InvalidData {
            return damaged(path, &error.to_string());
        }
        Report::new(
            ErrorId::StateUnreadable,
            "what is kept of the host cannot be read",
            format!("{}: {error}", path.display()),
            "run as root, and see that the state folder can be read",
        )
    })
}

fn parsed<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<Option<T>, Report> {
    let parse = |text: String| {
        serde_json::from_str(&text).map_err(|error| damaged(path, &error.to_string()))
    };
    read(path, limit)?.map(parse).transpose()
}

fn versioned<T>(path: &Path, version: u32, what: T) -> Result<T, Report> {
    if version == VERSION {
        return Ok(what);
    }
    let why = format!("its format has version {version}, this program knows {VERSION}");
    Err(damaged(path, &why))
}

fn damaged(path: &Path, why: &str) -> Report {
    Report::new(
        ErrorId::StateDamaged,
        "what is kept of the host is damaged",
        format!("{}: {why}", path.display()),
        "read it with the version of Narrows that wrote it; else move the file elsewhere, and apply the host file again",
    )
}

#[cfg(test)]
#[path = "host_test.rs"]
mod tests;
