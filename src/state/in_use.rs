//! One run at a time for each function, by a lock that ends with the process that holds it.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
};

use iommu::{bdf::Bdf, sysfs::SysRoot};
use rustix::fs::{FlockOperation, flock};

use super::{ProcessId, State, file, vf::unreadable};
use crate::error::{ErrorId, Report};

/// A function that no other run can take while this lives.
#[derive(Debug)]
pub struct InUse {
    bdf: Bdf,
    file: File,
    killed: Option<String>,
    /// Whether another process has it from here on.
    is_left: bool,
}

/// More than any name and process id.
pub(super) const NOTE_LIMIT: u64 = 200;

impl InUse {
    /// Takes the lock of `bdf` for a run of `guest`, which another run may hold.
    ///
    /// # Errors
    /// `device-in-use` with who has it; `state-unwritable`.
    pub fn take(state: &State, bdf: Bdf, guest: &str) -> Result<Self, Report> {
        let folder = state.in_use();
        let path = folder.join(bdf.to_string());
        let unwritable = |error: io::Error| state.unwritable(&path, &error);
        // Whoever can open the file can lock it, and so keep every guest from the function: root alone may.
        let own = |path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        let mut file = fs::create_dir_all(&folder)
            .and_then(|()| own(folder.as_path(), 0o700))
            .and_then(|()| {
                // The file stays for ever: who removed it would leave others with locks of a file that has no name.
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o600)
                    .custom_flags(libc::O_NOFOLLOW)
                    .open(&path)
            })
            .and_then(|file| own(path.as_path(), 0o600).map(|()| file))
            .map_err(unwritable)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::AGAIN) => return Err(held(bdf, &mut file)),
            Err(errno) => return Err(unwritable(errno.into())),
        }
        // Whoever could take its time has removed its note.
        let killed = note_of(&mut file).map_err(unwritable)?;
        write_note(&mut file, guest).map_err(unwritable)?;
        Ok(Self {
            bdf,
            file,
            killed,
            is_left: false,
        })
    }

    /// Says after a fork that this process has it, for `guest`.
    ///
    /// # Errors
    /// The errno of `write`.
    pub fn note(&mut self, guest: &str) -> io::Result<()> {
        write_note(&mut self.file, guest)
    }

    /// Leaves it to the process that was forked off: there it is locked still.
    pub fn leave(mut self) {
        self.is_left = true;
    }

    /// The function.
    #[must_use]
    pub const fn bdf(&self) -> Bdf {
        self.bdf
    }

    /// The run before this one, where it was killed and did not give the function back itself.
    #[must_use]
    pub fn killed_before(&self) -> Option<&str> {
        self.killed.as_deref()
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        // The lock ends with the file; the note means nothing without it.
        if !self.is_left {
            self.file.set_len(0).ok();
        }
    }
}

impl State {
    /// Who has the lock of `bdf` at the moment, in words, for who has the host's lock: then no run begins meanwhile, which
    /// could take this look for another run.
    ///
    /// # Errors
    /// `state-unreadable`.
    pub fn user_of(&self, bdf: Bdf) -> Result<Option<String>, Report> {
        let path = self.in_use().join(bdf.to_string());
        let unreadable = |error: io::Error| {
            Report::new(
                ErrorId::StateUnreadable,
                format!("whether a guest has {bdf} cannot be told"),
                format!("{}: {error}", path.display()),
                "run as root, and see that the state folder can be read",
            )
        };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(rustix::io::Errno::AGAIN) => {
                let note = note_of(&mut file).map_err(unreadable)?;
                Ok(Some(note.unwrap_or_else(|| "another run".to_owned())))
            }
            Err(errno) => Err(unreadable(errno.into())),
        }
    }

    /// Functions with the note of a run whose process is there: who only looks takes no lock.
    pub(super) fn running_functions(&self) -> Result<BTreeMap<Bdf, String>, Report> {
        let folder = self.in_use();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(unreadable(&folder, &error)),
        };
        let mut running = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(&folder, &error))?;
            let path = entry.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(bdf) = name.and_then(|name| name.parse().ok()) else {
                continue;
            };
            // Every function that ever had a run has a file; whose run has ended has an empty one.
            match entry.metadata() {
                Ok(found) if found.len() == 0 => continue,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(unreadable(&path, &error)),
            }
            let note =
                file::read_if_any(&path, NOTE_LIMIT).map_err(|error| unreadable(&path, &error))?;
            if let Some((guest, pid, start)) = note.as_deref().and_then(parsed)
                && let Some(found) = ProcessId::of(&SysRoot::default(), pid)
                    .map_err(|error| unreadable(&path, &error))?
                // Another process may have its number by now.
                && start.is_none_or(|start| start == found.start)
            {
                running.insert(bdf, guest.to_owned());
            }
        }
        Ok(running)
    }
}

/// Before the time of the process's start, in a note.
const STARTED: &str = ", started ";

/// Guest, process and its start in a note; earlier versions wrote none.
fn parsed(note: &str) -> Option<(&str, u32, Option<u64>)> {
    let (who, start) = match note.trim().split_once(STARTED) {
        Some((who, start)) => (who, Some(start.parse().ok()?)),
        None => (note.trim(), None),
    };
    let (guest, pid) = who.split_once(", process ")?;
    Some((guest.strip_prefix("guest ")?, pid.parse().ok()?, start))
}

fn write_note(file: &mut File, guest: &str) -> io::Result<()> {
    let own = ProcessId::of(&SysRoot::default(), std::process::id())?;
    let ProcessId { pid, start } = own.ok_or(io::ErrorKind::NotFound)?;
    let note = format!("guest {guest}, process {pid}{STARTED}{start}\n");
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(note.as_bytes())
}

/// Whom the holder wrote, if anybody.
fn note_of(file: &mut File) -> io::Result<Option<String>> {
    let mut note = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(NOTE_LIMIT).read_to_string(&mut note)?;
    let note = note.trim();
    let who = note.split_once(STARTED).map_or(note, |(who, _)| who);
    Ok((!who.is_empty()).then(|| who.to_owned()))
}

fn held(bdf: Bdf, file: &mut File) -> Report {
    // The holder writes its note right after it has the lock, so for a moment there may be none.
    let who = match note_of(file) {
        Ok(Some(who)) => who,
        Ok(None) => "another run that begins just now".to_owned(),
        Err(error) => format!("its note cannot be read: {error}"),
    };
    Report::new(
        ErrorId::DeviceInUse,
        format!("cannot assign {bdf}"),
        format!("another run of narrows has it: {who}"),
        "wait until that guest has ended, or choose another VF",
    )
}
