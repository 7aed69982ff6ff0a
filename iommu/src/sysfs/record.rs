//! Reading a host and keeping what was read: every file, link, listing and owner that is asked for goes into a
//! [`Tree`]. What was not there is not in it. So a capture holds what the readers look at, and nothing else.

use std::{
    fs, io,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    Owner,
    tree::{Kind, Step, Tree, resolve},
};
use crate::error::Errno;

/// A folder that is read, and what was read so far. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    folder: PathBuf,
    tree: Arc<Mutex<Tree>>,
    questions: Arc<AtomicUsize>,
}

impl Recorder {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            tree: Arc::default(),
            questions: Arc::default(),
        }
    }

    pub(super) fn tree(&self) -> Tree {
        self.lock().clone()
    }

    /// How many files, links, folders, owners and answers have been asked for, repetitions included.
    pub(super) fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.questions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.count();
        self.resolve(path, true)
            .is_ok_and(|place| self.note(&place, None).is_ok())
    }

    pub(super) fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, Errno> {
        self.count();
        let place = self.resolve(path, true)?;
        let mut bytes = Vec::new();
        let read = fs::File::open(self.folder.join(&place))
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .map_err(|error| Errno::of(&error));
        let kind = match read {
            Ok(_) => Kind::File(bytes.clone()),
            Err(errno) if errno.raw() == libc::EISDIR => Kind::Folder,
            // It vanished just now.
            Err(errno) if errno.raw() == libc::ENOENT => return Err(errno),
            Err(errno) => Kind::Failing(errno),
        };
        self.lock().note(&place, kind, None);
        read.map(|_| bytes)
    }

    pub(super) fn read_link(&self, path: &Path) -> Result<PathBuf, Errno> {
        self.count();
        // Looking at a link notes it.
        let place = self.resolve(path, false)?;
        fs::read_link(self.folder.join(&place)).map_err(|error| {
            let errno = Errno::of(&error);
            match self.note(&place, None) {
                Ok(()) => errno,
                Err(gone) => gone,
            }
        })
    }

    pub(super) fn owner(&self, path: &Path) -> Result<Owner, Errno> {
        self.count();
        let place = self.resolve(path, true)?;
        let found = fs::metadata(self.folder.join(&place)).map_err(|error| Errno::of(&error))?;
        let owner = Owner::of(&found);
        self.note(&place, Some(owner))?;
        Ok(owner)
    }

    /// Keeps an answer of the kernel that is no file as if it were the file at `place`.
    pub(super) fn keep(&self, place: &Path, answer: &Result<Option<String>, Errno>) {
        self.count();
        let kind = match answer {
            Ok(Some(text)) => Kind::File(text.as_bytes().to_vec()),
            Ok(None) => return,
            Err(errno) => Kind::Failing(*errno),
        };
        self.lock().note(place, kind, None);
    }

    pub(super) fn list(&self, path: &Path) -> Result<Vec<String>, Errno> {
        self.count();
        let place = self.resolve(path, true)?;
        let entries = fs::read_dir(self.folder.join(&place))
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(|error| Errno::of(&error))?;
        self.note(&place, None)?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.file_name();
            match self.look(&place.join(&name)) {
                Ok(Step::Link(_)) => {}
                Ok(Step::Folder | Step::File) => self.note(&place.join(&name), None)?,
                // It vanished just now; the tree must say the same as the answer.
                Err(errno) if errno.raw() == libc::ENOENT => continue,
                Err(errno) => return Err(errno),
            }
            names.push(name.to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn resolve(&self, path: &Path, follows_last: bool) -> Result<PathBuf, Errno> {
        resolve(path, follows_last, |at| self.look(at))
    }

    /// What stands at `at`; a link is noted with its target.
    fn look(&self, at: &Path) -> Result<Step, Errno> {
        let place = self.folder.join(at);
        let failed = |error: io::Error| Errno::of(&error);
        let found = fs::symlink_metadata(&place).map_err(failed)?;
        if found.is_symlink() {
            let target = fs::read_link(&place).map_err(failed)?;
            self.lock().note(at, Kind::Link(target.clone()), None);
            return Ok(Step::Link(target));
        }
        Ok(if found.is_dir() {
            Step::Folder
        } else {
            Step::File
        })
    }

    /// Notes that there is a folder or a file, without reading it.
    fn note(&self, place: &Path, owner: Option<Owner>) -> Result<(), Errno> {
        let kind = match self.look(place) {
            Ok(Step::Folder) => Kind::Folder,
            Ok(Step::File) => Kind::Unread,
            Ok(Step::Link(target)) => Kind::Link(target),
            // The root itself.
            Err(errno) => return Err(errno),
        };
        self.lock().note(place, kind, owner);
        Ok(())
    }

    /// A reader that panicked leaves a tree that is whole: each note is one insertion.
    fn lock(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owner {
    /// The owner in a file's metadata.
    pub(super) fn of(found: &fs::Metadata) -> Self {
        Self {
            mode: found.mode() & 0o7777,
            uid: found.uid(),
            gid: found.gid(),
        }
    }
}

#[cfg(test)]
#[path = "record_test.rs"]
mod tests;
