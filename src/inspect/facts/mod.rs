//! What the kernel tells of a process below `/proc`: read with bounds, into types; what cannot be read is said, too.

mod cgroup;
mod maps;
mod places;
mod status;

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::expected::FileId;

pub(super) use self::{
    cgroup::CgroupFile,
    maps::Map,
    places::{IdRange, Limit, Mount, NAMESPACES},
    status::Status,
};

/// More than any file below `/proc/PID` but the list of mappings.
const FILE_BYTES: u64 = 256 << 10;
/// More than the list of mappings of any guest.
const MAPS_BYTES: u64 = 32 << 20;
/// More than a process of ours has of anything that is listed.
const MAX_ENTRIES: usize = 65_536;

/// A fact that could not be read, which is never passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The file, or the call.
    pub source: String,
    /// The errno, or what is wrong with it.
    pub why: String,
}

/// A fact, or why it is not known.
pub(super) type Known<T> = Result<T, Unread>;

/// Folders like `/proc` and `/sys/fs/cgroup`.
#[derive(Clone, Debug)]
pub struct Proc {
    processes: PathBuf,
    cgroups: PathBuf,
}

/// One thread.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Its id, the process's for the first.
    pub tid: u32,
    /// Credentials and filter mode are a thread's own.
    pub status: Known<Status>,
    /// Whether it never leaves the kernel: KVM's worker, which the kernel starts on behalf of V.
    pub is_worker: Known<bool>,
}

/// An open descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number.
    pub number: u32,
    /// What it leads to, as the kernel names it: `anon_inode:kvm-vm`, `pipe:[17]`, a path.
    pub target: String,
    /// The flags of `open`, of which the lowest two bits say reading and writing.
    pub flags: u32,
    /// The file by its device and inode.
    pub file: Known<FileId>,
}

/// All that is read of one process.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The process.
    pub pid: u32,
    /// Its first thread's status.
    pub status: Known<Status>,
    /// Its threads, by id.
    pub threads: Known<Vec<Thread>>,
    /// Its descriptors, by number.
    pub descriptors: Known<Vec<Descriptor>>,
    /// Its mappings, by address.
    pub maps: Known<Vec<Map>>,
    /// Its limits.
    pub limits: Known<Vec<Limit>>,
    /// The inode of each namespace, in the order of [`NAMESPACES`].
    pub namespaces: Vec<Known<u64>>,
    /// Its place in the cgroup tree of version 2.
    pub cgroup: Known<String>,
    /// Limits there, and in the cgroup around it.
    pub cgroup_files: Vec<CgroupFile>,
    /// What its root folder holds.
    pub root: Known<Vec<String>>,
    /// What is mounted there.
    pub mounts: Known<Vec<Mount>>,
    /// The users of its user namespace.
    pub uid_map: Known<Vec<IdRange>>,
    /// The groups.
    pub gid_map: Known<Vec<IdRange>>,
    /// Who owns its files below `/proc`: root where it leaves no core and nobody but root may trace it.
    pub owner: Known<u32>,
    /// Which mappings a core would hold; `None` on a kernel that writes no cores.
    pub coredump_filter: Known<Option<u32>>,
}

impl Proc {
    /// Those of a host: processes below `processes`, cgroups of version 2 below `cgroups`.
    #[must_use]
    pub fn new(processes: impl Into<PathBuf>, cgroups: impl Into<PathBuf>) -> Self {
        Self {
            processes: processes.into(),
            cgroups: cgroups.into(),
        }
    }

    /// Which mappings of `pid` are sealed. It takes long where there is much memory, and is read while the process runs:
    /// what is sealed stays so, at its place, until the process ends.
    ///
    /// # Errors
    /// The file that could not be read.
    pub fn seals(&self, pid: u32) -> Known<Vec<Map>> {
        self.folder(pid)
            .parse("smaps", MAPS_BYTES, maps::with_flags)
    }

    /// Reads everything of `pid`, with what [`Self::seals`] said of it before.
    #[must_use]
    pub fn read(&self, pid: u32, seals: &Known<Vec<Map>>) -> Facts {
        let folder = self.folder(pid);
        let cgroup = folder.parse("cgroup", FILE_BYTES, places::cgroup);
        let maps = folder.parse("maps", MAPS_BYTES, maps::parse);
        Facts {
            pid,
            status: folder.parse("status", FILE_BYTES, Status::parse),
            threads: folder.threads(),
            descriptors: folder.descriptors(),
            maps: seals
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|seals| Ok(maps::sealed(maps?, seals))),
            limits: folder.parse("limits", FILE_BYTES, places::limits),
            namespaces: NAMESPACES.map(|name| folder.namespace(name)).to_vec(),
            cgroup_files: cgroup::read(&self.cgroups, &cgroup),
            cgroup,
            root: folder.list("root"),
            mounts: folder.parse("mountinfo", FILE_BYTES, places::mounts),
            uid_map: folder.parse("uid_map", FILE_BYTES, places::id_ranges),
            gid_map: folder.parse("gid_map", FILE_BYTES, places::id_ranges),
            owner: folder.owner("status"),
            coredump_filter: folder.coredump_filter(),
        }
    }

    /// When `pid` started, in clock ticks since boot.
    ///
    /// # Errors
    /// The file that could not be read.
    pub fn started(&self, pid: u32) -> Known<u64> {
        self.folder(pid).parse("stat", FILE_BYTES, status::started)
    }

    /// The namespaces of `pid`, in the order of `NAMESPACES`.
    #[must_use]
    pub fn namespaces(&self, pid: u32) -> Vec<Known<u64>> {
        let folder = self.folder(pid);
        NAMESPACES.map(|name| folder.namespace(name)).to_vec()
    }

    /// The threads of `pid` that run code of its program, by id.
    pub(super) fn stoppable(&self, pid: u32) -> Known<Vec<u32>> {
        let threads = self.folder(pid).threads()?.into_iter();
        // The kernel's workers never come to user space: they can neither make a call nor be stopped before one.
        let own = threads.filter(|thread| thread.is_worker != Ok(true));
        Ok(own.map(|thread| thread.tid).collect())
    }

    fn folder(&self, pid: u32) -> Folder {
        Folder(self.processes.join(pid.to_string()))
    }
}

/// The folder of one process, or of one thread.
struct Folder(PathBuf);

impl Folder {
    /// The file `name` in `reading`'s words, `None` of which means that it reads otherwise than it should.
    fn parse<T>(
        &self,
        name: &str,
        limit: u64,
        reading: impl FnOnce(&str) -> Option<T>,
    ) -> Known<T> {
        let path = self.0.join(name);
        let bytes = read_bounded(&path, limit).map_err(|error| unread(&path, &error))?;
        let text = String::from_utf8_lossy(&bytes);
        reading(&text).ok_or_else(|| Unread {
            source: path.display().to_string(),
            why: "it does not read as this file should".to_owned(),
        })
    }

    fn namespace(&self, name: &str) -> Known<u64> {
        let path = self.0.join("ns").join(name);
        let target = link(&path)?;
        places::namespace(name, &target).ok_or_else(|| Unread {
            source: path.display().to_string(),
            why: format!("{target:?} is no namespace of this kind"),
        })
    }

    /// The names in a folder, sorted.
    fn list(&self, name: &str) -> Known<Vec<String>> {
        let path = self.0.join(name);
        let fault = |error: io::Error| unread(&path, &error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(fault)? {
            if names.len() == MAX_ENTRIES {
                return Err(fault(io::Error::other("too many entries")));
            }
            let entry = entry.map_err(fault)?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// The numbers that name the entries of a folder, sorted.
    fn numbers(&self, name: &str) -> Known<Vec<u32>> {
        let path = self.0.join(name);
        let numbers = self.list(name)?.into_iter().map(|name| {
            name.parse().map_err(|_no_number| Unread {
                source: path.display().to_string(),
                why: format!("{name:?} is no number"),
            })
        });
        let mut numbers: Vec<u32> = numbers.collect::<Known<_>>()?;
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn threads(&self) -> Known<Vec<Thread>> {
        let threads = self.numbers("task")?.into_iter().map(|tid| {
            let folder = Self(self.0.join("task").join(tid.to_string()));
            Thread {
                tid,
                status: folder.parse("status", FILE_BYTES, Status::parse),
                is_worker: folder.parse("stat", FILE_BYTES, status::is_worker),
            }
        });
        Ok(threads.collect())
    }

    fn descriptors(&self) -> Known<Vec<Descriptor>> {
        let descriptors = self.numbers("fd")?.into_iter().map(|number| {
            let name = format!("fdinfo/{number}");
            let path = self.0.join("fd").join(number.to_string());
            Ok(Descriptor {
                number,
                target: link(&path)?,
                flags: self.parse(&name, FILE_BYTES, places::descriptor_flags)?,
                file: FileId::of(&path).map_err(|error| unread(&path, &error)),
            })
        });
        descriptors.collect()
    }

    fn coredump_filter(&self) -> Known<Option<u32>> {
        const NAME: &str = "coredump_filter";
        let path = self.0.join(NAME);
        match fs::symlink_metadata(&path) {
            // The process is there, its folder lacks the file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.0.is_dir() => Ok(None),
            Err(error) => Err(unread(&path, &error)),
            Ok(_) => self
                .parse(NAME, FILE_BYTES, |text| {
                    u32::from_str_radix(text.trim(), 16).ok()
                })
                .map(Some),
        }
    }

    fn owner(&self, name: &str) -> Known<u32> {
        let path = self.0.join(name);
        let found = fs::symlink_metadata(&path).map_err(|error| unread(&path, &error))?;
        Ok(found.uid())
    }
}

fn link(path: &Path) -> Known<String> {
    let target = fs::read_link(path).map_err(|error| unread(path, &error))?;
    Ok(target.to_string_lossy().into_owned())
}

fn unread(path: &Path, error: &io::Error) -> Unread {
    Unread {
        source: path.display().to_string(),
        why: error.to_string(),
    }
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read < limit) {
        Ok(bytes)
    } else {
        Err(io::Error::other(format!("longer than {limit} bytes")))
    }
}

#[cfg(test)]
#[path = "facts_test.rs"]
pub(super) mod facts_test;
