//! The limits of a cgroup, as the kernel gives them back.

use std::{io, path::Path};

use super::{FILE_BYTES, Known, read_bounded, unread};

/// The files that a jail writes limits to.
const FILES: [&str; 5] = [
    "memory.max",
    "memory.swap.max",
    "memory.oom.group",
    "pids.max",
    "cpu.max",
];

/// A file of a process's cgroup, or of the one around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupFile {
    /// Whether it is of the one around.
    pub is_guests: bool,
    /// Its name.
    pub file: &'static str,
    /// What it says; `None` where the kernel has no such file.
    pub content: Known<Option<String>>,
}

/// Reads them for the place `cgroup` in the tree at `mount`.
pub(super) fn read(mount: &Path, cgroup: &Known<String>) -> Vec<CgroupFile> {
    let read = |is_guests: bool, file: &'static str| CgroupFile {
        is_guests,
        file,
        content: cgroup.as_ref().map_err(Clone::clone).and_then(|cgroup| {
            let own = mount.join(cgroup.trim_start_matches('/'));
            let folder = match is_guests {
                true => own.parent().unwrap_or(&own),
                false => &own,
            };
            content(&folder.join(file), folder)
        }),
    };
    [false, true]
        .into_iter()
        .flat_map(|is_guests| FILES.map(|file| read(is_guests, file)))
        .collect()
}

fn content(path: &Path, folder: &Path) -> Known<Option<String>> {
    match read_bounded(path, FILE_BYTES) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
        // The cgroup is there, the file is not.
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder.is_dir() => Ok(None),
        Err(error) => Err(unread(path, &error)),
    }
}
