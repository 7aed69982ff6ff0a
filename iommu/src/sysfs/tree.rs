//! A host's files in memory: what a captured machine is made of. Behaves like a file system that nobody can write.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use super::Owner;
use crate::error::Errno;

/// Folders, files and links by their path below the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Who may open it; `None` where nobody asked.
    pub owner: Option<Owner>,
}

/// The kinds of [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A symbolic link with its target as it stands.
    Link(PathBuf),
    /// A file with its contents.
    File(Vec<u8>),
    /// A file that could not be read, and why.
    Failing(Errno),
    /// A file or device node whose contents are not known; reading it fails with ENODATA.
    Unread,
}

/// Why an entry cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The path is empty, absolute, or has a component `.` or `..`.
    #[error("is no plain path below the root")]
    BadPath,
    /// A part of the path is a file or a link, or something else stands there already.
    #[error("is in the way of another entry")]
    InTheWay,
}

impl Tree {
    /// Adds an entry and the folders above it. A folder that is there already stays.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn insert(&mut self, path: &Path, entry: Entry) -> Result<(), TreeError> {
        let is_plain = path.components().all(|c| matches!(c, Component::Normal(_)));
        if !is_plain || path.as_os_str().is_empty() {
            return Err(TreeError::BadPath);
        }
        let path: PathBuf = path.components().collect();
        for above in path
            .ancestors()
            .skip(1)
            .filter(|p| !p.as_os_str().is_empty())
        {
            let folder = self.entries.entry(above.to_owned()).or_insert(Entry {
                kind: Kind::Folder,
                owner: None,
            });
            if folder.kind != Kind::Folder {
                return Err(TreeError::InTheWay);
            }
        }
        match self.entries.get_mut(&path) {
            None => {
                self.entries.insert(path, entry);
            }
            Some(there) if there.kind == Kind::Folder && entry.kind == Kind::Folder => {
                there.owner = there.owner.or(entry.owner);
            }
            Some(_) => return Err(TreeError::InTheWay),
        }
        Ok(())
    }

    /// Every entry, folders before what is in them.
    pub fn entries(&self) -> impl Iterator<Item = (&Path, &Entry)> {
        self.entries
            .iter()
            .map(|(path, entry)| (path.as_path(), entry))
    }

    /// Every file's contents, to be changed in place.
    pub fn files_mut(&mut self) -> impl Iterator<Item = (&Path, &mut Vec<u8>)> {
        self.entries
            .iter_mut()
            .filter_map(|(path, entry)| match &mut entry.kind {
                Kind::File(bytes) => Some((path.as_path(), bytes)),
                Kind::Folder | Kind::Link(_) | Kind::Failing(_) | Kind::Unread => None,
            })
    }

    /// The entry at `path`, through links.
    pub(super) fn at(&self, path: &Path) -> Result<&Entry, Errno> {
        let place = self.resolve(path, true)?;
        self.entries.get(&place).ok_or(ENOENT)
    }

    pub(super) fn read(&self, path: &Path, limit: usize) -> Result<Vec<u8>, Errno> {
        match &self.at(path)?.kind {
            Kind::File(bytes) => Ok(bytes.iter().take(limit).copied().collect()),
            Kind::Failing(errno) => Err(*errno),
            Kind::Folder => Err(Errno::new(libc::EISDIR)),
            Kind::Unread => Err(ENODATA),
            // Links have been followed.
            Kind::Link(_) => Err(Errno::new(libc::ELOOP)),
        }
    }

    pub(super) fn read_link(&self, path: &Path) -> Result<PathBuf, Errno> {
        let place = self.resolve(path, false)?;
        match self.entries.get(&place).map(|entry| &entry.kind) {
            Some(Kind::Link(target)) => Ok(target.clone()),
            Some(Kind::Folder | Kind::File(_) | Kind::Failing(_) | Kind::Unread) => {
                Err(Errno::new(libc::EINVAL))
            }
            None => Err(ENOENT),
        }
    }

    pub(super) fn owner(&self, path: &Path) -> Result<Owner, Errno> {
        self.at(path)?.owner.ok_or(ENODATA)
    }

    pub(super) fn list(&self, path: &Path) -> Result<Vec<String>, Errno> {
        let place = self.resolve(path, true)?;
        let is_folder = place.as_os_str().is_empty()
            || self
                .entries
                .get(&place)
                .is_some_and(|entry| entry.kind == Kind::Folder);
        if !is_folder {
            return Err(ENOTDIR);
        }
        let below = self
            .entries
            .range(place.clone()..)
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&place));
        let names: BTreeSet<String> = below
            .filter(|path| path.parent() == Some(&place))
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        Ok(names.into_iter().collect())
    }

    /// Notes what was found at a path: what is known of it already, and more exactly, stays.
    pub(super) fn note(&mut self, path: &Path, kind: Kind, owner: Option<Owner>) {
        if path.as_os_str().is_empty() {
            return;
        }
        for above in path
            .ancestors()
            .skip(1)
            .filter(|p| !p.as_os_str().is_empty())
        {
            self.entries.entry(above.to_owned()).or_insert(Entry {
                kind: Kind::Folder,
                owner: None,
            });
        }
        let there = self.entries.entry(path.to_owned()).or_insert(Entry {
            kind: Kind::Unread,
            owner: None,
        });
        there.owner = there.owner.or(owner);
        let is_more = match (&there.kind, &kind) {
            // A second look at a longer piece of the same file.
            (Kind::File(old), Kind::File(new)) => new.len() > old.len(),
            (Kind::Unread, _) => true,
            _ => false,
        };
        if is_more {
            there.kind = kind;
        }
    }

    fn resolve(&self, path: &Path, follows_last: bool) -> Result<PathBuf, Errno> {
        resolve(path, follows_last, |at| {
            match self.entries.get(at).map(|entry| &entry.kind) {
                None => Err(ENOENT),
                Some(Kind::Folder) => Ok(Step::Folder),
                Some(Kind::Link(target)) => Ok(Step::Link(target.clone())),
                Some(Kind::File(_) | Kind::Failing(_) | Kind::Unread) => Ok(Step::File),
            }
        })
    }
}

pub(super) const ENOENT: Errno = Errno::new(libc::ENOENT);
const ENOTDIR: Errno = Errno::new(libc::ENOTDIR);
const ENODATA: Errno = Errno::new(libc::ENODATA);

/// As many links as Linux follows in one path.
const HOPS: usize = 40;

/// What one component of a path is.
pub(super) enum Step {
    Folder,
    File,
    Link(PathBuf),
}

/// Follows the links of `path` one component at a time, as the kernel does, without ever leaving the root.
pub(super) fn resolve(
    path: &Path,
    follows_last: bool,
    mut look: impl FnMut(&Path) -> Result<Step, Errno>,
) -> Result<PathBuf, Errno> {
    let mut todo: Vec<PathBuf> = reversed(path);
    let mut at = PathBuf::new();
    let mut hops = 0;
    while let Some(part) = todo.pop() {
        if part.as_os_str() == ".." {
            at.pop();
            continue;
        }
        at.push(part);
        match look(&at)? {
            Step::Link(target) if follows_last || !todo.is_empty() => {
                hops += 1;
                if hops > HOPS {
                    return Err(Errno::new(libc::ELOOP));
                }
                if target.is_absolute() {
                    at = PathBuf::new();
                } else {
                    at.pop();
                }
                todo.extend(reversed(&target));
            }
            Step::File if !todo.is_empty() => return Err(ENOTDIR),
            Step::Link(_) | Step::Folder | Step::File => {}
        }
    }
    Ok(at)
}

/// The components that lead somewhere, last first.
fn reversed(path: &Path) -> Vec<PathBuf> {
    path.components()
        .rev()
        .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
        .map(|c| PathBuf::from(c.as_os_str()))
        .collect()
}

#[cfg(test)]
#[path = "tree_test.rs"]
mod tests;
