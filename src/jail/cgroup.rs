//! A guest's cgroups: `…/narrows/GUEST/{supervisor,vcpu,device}`, with limits, made before and removed after it. The folder
//! `narrows` stays.
//!
//! On entry: the privilege to write to the cgroup file system. On exit of [`Cgroup::make`]: the given processes are in
//! `supervisor`; of [`Cgroup::close`]: they are where they were, and the folders are gone.

use std::{
    fs,
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use super::{
    folder::{Failed, errno, is_populated, lock, open_folder, remove, until_empty, write},
    ids::Member,
    limits::{Size, settings},
    moved::Moved,
    place::Place,
};
use crate::{
    error::{ErrorId, Report},
    layers::CONTROLLERS,
};

/// The cgroups of one guest.
#[derive(Debug)]
pub struct Cgroup {
    /// `…/narrows/GUEST`.
    folder: PathBuf,
    /// Locked while the guest's folder is this run's.
    _lock: File,
    /// The folders of [`Member`], to start processes in.
    members: [File; 3],
    /// The processes that were moved.
    moved: Vec<Moved>,
    /// Whether they can go back: not into the folder that a service manager gave us, which has controllers on now.
    is_delegated: bool,
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

    /// Has `supervisor` hold as many tasks as `pids_max` says.
    ///
    /// # Errors
    /// `cgroup-unusable`.
    pub fn limit_tasks(&self, pids_max: &str) -> Result<(), Report> {
        let folder = self.folder.join(Member::Supervisor.name());
        write(&folder.join("pids.max"), pids_max).map_err(|failed| unusable(&self.folder, &failed))
    }

    /// Takes the limits off `supervisor`.
    ///
    /// # Errors
    /// `cgroup-unusable`.
    #[cfg(feature = "breakout")]
    pub fn lift_own_limits(&self) -> Result<(), Report> {
        self.limit_tasks("max")
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
        self.moved.iter().try_for_each(Moved::go_home)?;
        let supervisor = self.folder.join(Member::Supervisor.name());
        // A thread that was waited for may count for a moment longer.
        until_empty(&supervisor)?;
        remove(&supervisor)?;
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
            let moved = Moved::new(*process, home)?;
            write(&to, &process.to_string())?;
            self.moved.push(moved);
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
#[path = "cgroup_test.rs"]
mod cgroup_test;
