//! A guest's cgroups: `…/narrows/GUEST/{supervisor,vcpu,device}`, with limits, made before and removed after it. The folder
//! `narrows` stays.
//!
//! On entry: the privilege to write to the cgroup file system. On exit of [`Cgroup::make`]: the given processes are in
//! `supervisor`; of [`Cgroup::close`]: they are where they were, and the folders are gone.

use std::{
    fmt, fs,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::{
    ids::Member,
    limits::{Size, settings},
    place::Place,
};
use crate::{
    error::{ErrorId, Report},
    layers::CONTROLLERS,
};

/// How long the kernel may take to empty a cgroup whose processes were killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// The cgroups of one guest.
#[derive(Debug)]
pub struct Cgroup {
    /// `…/narrows/GUEST`.
    folder: PathBuf,
    /// Locked while the guest's folder is this run's.
    _lock: File,
    /// The folders of [`Member`], to start processes in.
    members: [File; 3],
    /// The processes that were moved, and where they came from.
    moved: Vec<(u32, PathBuf)>,
    /// Whether they can go back: not into the folder that a service manager gave us, which has controllers on now.
    is_delegated: bool,
}

/// A call on the cgroup file system that failed.
#[derive(Debug)]
struct Failed {
    path: PathBuf,
    doing: String,
    error: io::Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.path.display(), self.doing, self.error)
    }
}

/// Where the cgroups of `guest` are.
pub(super) fn folder_of(place: &Place, guest: &str) -> PathBuf {
    place.base().join("narrows").join(guest)
}

impl Cgroup {
    /// Makes the cgroups of `guest` with limits for `size`, and moves `processes` into `supervisor`.
    ///
    /// # Errors
    /// `cgroup-unusable`; nothing is left behind then.
    pub fn make(
        place: &Place,
        guest: &str,
        size: &Size,
        processes: &[u32],
    ) -> Result<Self, Report> {
        let folder = folder_of(place, guest);
        let unusable = |failed: Failed| unusable(&folder, &failed);
        let lock = lock(&folder).map_err(unusable)?;
        if is_populated(&folder).map_err(unusable)? {
            return Err(taken(&folder, "it has processes"));
        }
        // Left by a run that was killed.
        remove_members(&folder).map_err(unusable)?;
        let mut made = Self {
            members: members(&folder).map_err(unusable)?,
            folder: folder.clone(),
            _lock: lock,
            moved: Vec::new(),
            is_delegated: place.is_delegated(),
        };
        let filled = made
            .enter(place, processes)
            .and_then(|()| enable(place.base(), &folder))
            .and_then(|()| made.limit(size));
        match filled {
            Ok(()) => Ok(made),
            Err(failed) => {
                let report = unusable(failed);
                Err(match made.close() {
                    Ok(()) => report,
                    Err(left) => left.why.into_iter().fold(report, Report::and),
                })
            }
        }
    }

    /// The folder of `member`, open.
    #[must_use]
    pub fn of(&self, member: Member) -> BorrowedFd<'_> {
        let [supervisor, device, vcpu] = &self.members;
        match member {
            Member::Supervisor => supervisor.as_fd(),
            Member::Device => device.as_fd(),
            Member::Vcpu => vcpu.as_fd(),
        }
    }

    /// The guest's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Kills what is left of V and D, moves the others back to where they came from, and removes the folders.
    ///
    /// # Errors
    /// `cgroup-unusable`, with what is left.
    pub fn close(self) -> Result<(), Report> {
        self.dissolve().map_err(|failed| {
            unusable(&self.folder, &failed).and("what is left of it has no process of a guest")
        })
    }

    fn dissolve(&self) -> Result<(), Failed> {
        for member in [Member::Vcpu, Member::Device] {
            let folder = self.folder.join(member.name());
            if is_populated(&folder)? {
                write(&folder.join("cgroup.kill"), "1")?;
                until_empty(&folder)?;
            }
            remove(&folder)?;
        }
        if self.is_delegated {
            // The service manager removes the rest with the unit.
            return Ok(());
        }
        for (process, home) in &self.moved {
            match write(&home.join("cgroup.procs"), &process.to_string()) {
                Ok(()) => {}
                // It has ended.
                Err(failed) if errno(&failed) == Some(Errno::SRCH) => {}
                Err(failed) => return Err(failed),
            }
        }
        remove(&self.folder.join(Member::Supervisor.name()))?;
        // The folder above stays: other guests' are there, or will be, and nobody may write to the root without a capability
        // that is gone by now.
        remove(&self.folder)
    }

    /// Before controllers are switched on: a cgroup with controllers has no processes itself, and this process may be in
    /// the one that was given to us.
    fn enter(&mut self, place: &Place, processes: &[u32]) -> Result<(), Failed> {
        let to = self
            .folder
            .join(Member::Supervisor.name())
            .join("cgroup.procs");
        for process in processes {
            let home = place.of_process(*process).map_err(|error| Failed {
                path: PathBuf::from(format!("/proc/{process}/cgroup")),
                doing: "reading".to_owned(),
                error,
            })?;
            write(&to, &process.to_string())?;
            self.moved.push((*process, home));
        }
        Ok(())
    }

    fn limit(&self, size: &Size) -> Result<(), Failed> {
        for setting in settings(size) {
            let folder = match setting.member {
                None => self.folder.clone(),
                Some(member) => self.folder.join(member.name()),
            };
            let path = folder.join(setting.file);
            if setting.is_optional && !path.exists() {
                continue;
            }
            write(&path, &setting.value)?;
        }
        Ok(())
    }
}

/// Switches the controllers on for the children of every folder from `base` down to `folder`.
fn enable(base: &Path, folder: &Path) -> Result<(), Failed> {
    let words = CONTROLLERS.map(|name| format!("+{name}")).join(" ");
    let below = folder.ancestors().take_while(|path| path.starts_with(base));
    let mut downwards: Vec<&Path> = below.collect();
    downwards.reverse();
    for path in downwards {
        write(&path.join("cgroup.subtree_control"), &words)?;
    }
    Ok(())
}

/// Makes the guest's folder, and takes it for this run.
fn lock(folder: &Path) -> Result<File, Failed> {
    let failed = |doing: &str, error: io::Error| Failed {
        path: folder.to_owned(),
        doing: doing.to_owned(),
        error,
    };
    loop {
        fs::create_dir_all(folder).map_err(|error| failed("making it", error))?;
        let file = open_folder(folder).map_err(|error| failed("opening it", error))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            failed(
                "locking it: a guest of this name runs already",
                errno.into(),
            )
        })?;
        // The run that had it may have removed it in between.
        let ours = file
            .metadata()
            .map_err(|error| failed("reading it", error))?;
        match fs::metadata(folder) {
            Ok(now) if now.ino() == ours.ino() => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("reading it", error)),
        }
    }
}

/// Makes the folders of the members and opens them, in the order of [`Member`].
fn members(folder: &Path) -> Result<[File; 3], Failed> {
    let make = |member: Member| {
        let path = folder.join(member.name());
        fs::create_dir(&path)
            .and_then(|()| open_folder(&path))
            .map_err(|error| Failed {
                path,
                doing: "making it".to_owned(),
                error,
            })
    };
    let [supervisor, device, vcpu] = Member::ALL;
    Ok([make(supervisor)?, make(device)?, make(vcpu)?])
}

fn remove_members(folder: &Path) -> Result<(), Failed> {
    Member::ALL
        .iter()
        .try_for_each(|member| remove(&folder.join(member.name())))
}

/// Removes an empty cgroup, if it is there.
fn remove(folder: &Path) -> Result<(), Failed> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failed {
            path: folder.to_owned(),
            doing: "removing it".to_owned(),
            error,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn open_folder(folder: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(folder)
}

/// Whether the cgroup or one below it has processes. A folder that is not there has none.
fn is_populated(folder: &Path) -> Result<bool, Failed> {
    let path = folder.join("cgroup.events");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failed {
            path,
            doing: "reading".to_owned(),
            error,
        }),
    }
}

fn until_empty(folder: &Path) -> Result<(), Failed> {
    let deadline = Instant::now() + PATIENCE;
    while is_populated(folder)? {
        if Instant::now() > deadline {
            return Err(Failed {
                path: folder.to_owned(),
                doing: "waiting for its processes, which were killed".to_owned(),
                error: io::Error::from(io::ErrorKind::TimedOut),
            });
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failed {
            path: path.to_owned(),
            doing: format!("writing {text:?}"),
            error,
        })
}

fn errno(failed: &Failed) -> Option<Errno> {
    Errno::from_io_error(&failed.error)
}

fn unusable(folder: &Path, failed: &Failed) -> Report {
    let fix = match errno(failed) {
        Some(Errno::AGAIN) => "give this guest another name, or wait until the other has ended",
        Some(Errno::BUSY) => {
            "start narrows in a unit of its own with Delegate=yes, so that no other process is in its cgroup"
        }
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            "run narrows as root, where /sys/fs/cgroup can be written"
        }
        _ => {
            "boot with cgroup version 2 alone and its controllers cpu, memory and pids, or write `without = [\"cgroup\"]` \
             in [sandbox]"
        }
    };
    let what = format!("the guest's cgroup {} cannot be used", folder.display());
    Report::new(ErrorId::CgroupUnusable, what, failed.to_string(), fix)
}

fn taken(folder: &Path, why: &str) -> Report {
    Report::new(
        ErrorId::CgroupUnusable,
        format!("the guest's cgroup {} cannot be used", folder.display()),
        format!("{why}: a guest of this name runs, or was killed and is not gone yet"),
        "give this guest another name, or wait until the other has ended",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with the files that the kernel would make.
    fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("narrows-cgroup-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in files {
            fs::write(folder.join(file), text).unwrap();
        }
        folder
    }

    #[test]
    fn controllers_are_switched_on_from_the_base_down_to_the_guest_and_no_further() {
        let above = folder("enable", &[("cgroup.subtree_control", "")]);
        let base = above.join("unit");
        let guest = base.join("narrows/web");
        fs::create_dir_all(guest.join("vcpu")).unwrap();
        for path in [&base, &base.join("narrows"), &guest, &guest.join("vcpu")] {
            fs::write(path.join("cgroup.subtree_control"), "").unwrap();
        }
        enable(&base, &guest).unwrap();
        let read = |path: &Path| fs::read_to_string(path.join("cgroup.subtree_control")).unwrap();
        assert_eq!(read(&above), "");
        for path in [&base, &base.join("narrows"), &guest] {
            assert_eq!(read(path), "+cpu +memory +pids");
        }
        assert_eq!(read(&guest.join("vcpu")), "");
    }

    #[test]
    fn only_one_run_has_a_guests_folder() {
        let guest = folder("lock", &[]).join("web");
        let held = lock(&guest).unwrap();
        let failed = lock(&guest).unwrap_err();
        assert_eq!(errno(&failed), Some(Errno::AGAIN));
        let report = unusable(&guest, &failed);
        assert!(report.fix.contains("another name"), "{report}");
        drop(held);
        assert!(lock(&guest).is_ok());
    }

    #[test]
    fn a_cgroup_is_empty_when_the_kernel_says_so() {
        let full = folder("full", &[("cgroup.events", "populated 1\nfrozen 0\n")]);
        assert!(is_populated(&full).unwrap());
        let empty = folder("empty", &[("cgroup.events", "populated 0\nfrozen 0\n")]);
        assert!(!is_populated(&empty).unwrap());
        assert!(until_empty(&empty).is_ok());
        assert!(!is_populated(Path::new("/nowhere")).unwrap());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_with_what_was_written() {
        let folder = folder("file", &[]);
        let failed = write(&folder.join("pids.max"), "2").unwrap_err();
        let report = unusable(&folder, &failed);
        assert_eq!(report.id, ErrorId::CgroupUnusable);
        assert!(
            report.why[0].contains("pids.max: writing \"2\": "),
            "{report}"
        );
        assert!(
            !folder.join("pids.max").exists(),
            "a file was made that the kernel lacks"
        );
    }

    #[test]
    fn what_is_not_there_needs_no_removal() {
        let folder = folder("gone", &[]);
        assert!(remove_members(&folder).is_ok());
        fs::create_dir(folder.join("vcpu")).unwrap();
        assert!(remove_members(&folder).is_ok());
        assert!(!folder.join("vcpu").exists());
    }
}
