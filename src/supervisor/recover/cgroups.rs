//! The cgroups of a dead run: emptied and removed.
//!
//! On entry: the guest's name is ours, so that no new run has them. On exit: nothing that was in them lives.

use std::{
    fs,
    io::{self, Write},
    path::{Component, Path, PathBuf},
    thread,
    time::Instant,
};

use iommu::sysfs::SysRoot;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::{CLOSING, CLOSING_POLL, not_put_right};
use crate::{error::Report, supervisor::log::Log};

/// Kills all that is in the guest's cgroups, and removes them.
pub(super) fn remove_cgroups(
    root: &SysRoot,
    cgroup: &Path,
    guest: &str,
    log: &Log,
) -> Result<(), Report> {
    let failed = |error: io::Error| {
        not_put_right(
            format!("the cgroup {} is not removed", cgroup.display()),
            &error,
            "see what is in it (cgroup.procs), end that, then: narrows recover",
        )
    };
    // All in it is killed: nothing else than a guest's own folder may be meant.
    if !is_folder_of(cgroup, guest) {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let folder = root.path(cgroup.strip_prefix("/").unwrap_or(cgroup));
    if !folder.exists() {
        return Ok(());
    }
    // A run holds this lock as long as it has the cgroups, in whichever state folder it has its name.
    let lock = fs::File::open(&folder).map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::AGAIN) => {
            log.say(&format!(
                "guest {guest} runs again: {} is its own",
                cgroup.display()
            ));
            return Ok(());
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    kill_cgroup(&folder)
        .and_then(|()| remove_emptied(&folder))
        .map_err(failed)?;
    log.say(&format!("{} is removed", cgroup.display()));
    // The folder above stays: other guests' are there, or will be.
    Ok(())
}

/// Whether `cgroup` is what a run makes for `guest`: `/sys/fs/cgroup/…/narrows/GUEST`.
fn is_folder_of(cgroup: &Path, guest: &str) -> bool {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
    cgroup.components().all(is_plain)
        && cgroup.starts_with("/sys/fs/cgroup")
        && cgroup.ends_with(Path::new("narrows").join(guest))
        && Path::new(guest).components().count() == 1
}

fn kill_cgroup(folder: &Path) -> io::Result<()> {
    let kill = fs::OpenOptions::new()
        .write(true)
        .open(folder.join("cgroup.kill"));
    match kill {
        Ok(mut file) => file.write_all(b"1"),
        // A kernel before 5.14: the processes that are known were killed one by one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a cgroup with those below it, each as soon as the kernel has emptied it.
fn remove_emptied(folder: &Path) -> io::Result<()> {
    let mut below: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            below.push(entry.path());
        }
    }
    for folder in below {
        remove_emptied(&folder)?;
    }
    let deadline = Instant::now() + CLOSING;
    loop {
        match fs::remove_dir(folder) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                thread::sleep(CLOSING_POLL);
            }
            done => return done,
        }
    }
}
