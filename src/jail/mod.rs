//! The jail that the processes of a guest are put into: users, cgroups, namespaces, an empty root, no capability, limits.
//!
//! On entry: root, one thread. On exit of [`Jail::make`]: the guest has cgroups of its own; of
//! [`Jail::spawn`]: V or D runs with nothing but what it was given; of [`Jail::close`]: users and cgroups are given back.
//! What V and D do to themselves afterwards (filters, Landlock, seals) is in `jailed`; [`own`] is for a process that is not
//! replaced by another program.

mod cgroup;
pub mod core_scheduling;
mod folder;
mod ids;
mod limits;
mod moved;
pub mod own;
mod place;
mod program;
pub mod seccomp;

use std::{os::fd::BorrowedFd, path::PathBuf};

use jailed::manifest::Role;

pub use self::{
    cgroup::Cgroup,
    ids::{Ids, Member},
    limits::{Setting, Size, settings},
    place::Place,
    program::Program,
};
use crate::{
    error::{ErrorId, Report},
    layers::{Layer, LayerSet},
    sys::{
        child::Child,
        spawn::{self, Failed, Order, Step},
    },
};

/// What a guest's jail is made from.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The guest's name.
    pub guest: &'a str,
    /// Its size.
    pub size: Size,
    /// The layers that this kernel lacks and the guest file does without.
    pub absent: LayerSet,
    /// The processes of the supervisor's side, to be moved into its cgroup.
    pub processes: &'a [u32],
}

/// What a guest's processes have of the host while it runs, and nobody else: made once a run, for all of its lives.
#[derive(Debug)]
pub struct Jail {
    ids: Ids,
    cgroup: Option<Cgroup>,
    absent: LayerSet,
    size: Size,
}

/// The descriptors of a process to be spawned.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors<'a> {
    /// The number of the first.
    pub first: i32,
    /// All of them, in the order of their numbers.
    pub fds: &'a [BorrowedFd<'a>],
    /// `/dev/null`, which becomes 0, 1 and 2.
    pub null: BorrowedFd<'a>,
    /// How many more it may make.
    pub more: u64,
    /// Layers that the lab leaves away, bits of `jailed::manifest::layer`.
    #[cfg(feature = "breakout")]
    pub left_away: u32,
}

impl Jail {
    /// Where the cgroups of `guest` will be, before they are made; `None` for a guest that does without.
    ///
    /// # Errors
    /// `cgroup-unusable`.
    pub fn cgroup_of(guest: &str, absent: LayerSet) -> Result<Option<PathBuf>, Report> {
        if absent.contains(Layer::Cgroup) {
            return Ok(None);
        }
        let place = Place::find().map_err(|error| no_place(&error))?;
        Ok(Some(cgroup::folder_of(&place, guest)))
    }

    /// Makes cgroups for a guest whose processes have the users of `ids`.
    ///
    /// # Errors
    /// `cgroup-unusable`; nothing is left behind then.
    pub fn make(ids: Ids, wish: &Wish<'_>) -> Result<Self, Report> {
        let cgroup = if wish.absent.contains(Layer::Cgroup) {
            None
        } else {
            let place = Place::find().map_err(|error| no_place(&error))?;
            Some(Cgroup::make(
                &place,
                wish.guest,
                &wish.size,
                wish.processes,
            )?)
        };
        Ok(Self {
            ids,
            cgroup,
            absent: wish.absent,
            size: wish.size,
        })
    }

    /// Starts V or D in its jail. The calling thread is the only one.
    ///
    /// # Errors
    /// `jail-failed` with the step and its errno; then there is no process.
    pub fn spawn(
        &self,
        member: Member,
        program: &Program,
        descriptors: &Descriptors<'_>,
    ) -> Result<Child, Report> {
        let count = u64::try_from(descriptors.fds.len()).unwrap_or(u64::MAX);
        let first = u64::from(descriptors.first.unsigned_abs());
        // What exec closes stands behind the list for a moment.
        let most = first + count + descriptors.more.max(2);
        let role = match member {
            Member::Vcpu => Role::Vcpu,
            Member::Device | Member::Supervisor => Role::Device,
        };
        let limits: Vec<(u32, u64)> = jailed::manifest::limits(role, self.size.vcpus)
            .iter()
            .filter_map(|limit| Some((limit.resource, limit.at_start(most)?)))
            .collect();
        let order = Order {
            program: program.fd(),
            name: program.name(),
            first: descriptors.first,
            fds: descriptors.fds,
            null: descriptors.null,
            id: self.ids.id(member),
            cgroup: self.cgroup.as_ref().map(|cgroup| cgroup.of(member)),
            has_time_namespace: !self.absent.contains(Layer::TimeNamespace),
            has_cgroup_namespace: !self.absent.contains(Layer::CgroupNamespace),
            limits: &limits,
            #[cfg(feature = "breakout")]
            left_away: descriptors.left_away,
        };
        spawn::spawn(&order).map_err(|failed| not_jailed(program, failed))
    }

    /// Lets V and D share processor cores with each other and with nobody else, unless the guest does without that.
    ///
    /// # Errors
    /// `jail-failed`.
    pub fn share_cores(&self, device: u32, vcpu: u32) -> Result<(), Report> {
        if self.absent.contains(Layer::CoreScheduling) {
            return Ok(());
        }
        core_scheduling::share(device, vcpu)
    }

    /// The users of the guest's processes.
    #[must_use]
    pub const fn ids(&self) -> &Ids {
        &self.ids
    }

    /// The guest's cgroups, unless the guest does without.
    #[must_use]
    pub const fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// What is written into the files of the guest's cgroups.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        settings(&self.size)
    }

    /// Does `work` with room for the keeper's threads, which make RAM and wait for devices; before and after it S and K may have
    /// none. Nothing hostile runs meanwhile: V and D are not started yet, or their last life is over. S cannot start a thread, and
    /// the inspection of the next life reads that the limit is back.
    ///
    /// # Errors
    /// Those of `work`; `cgroup-unusable`.
    pub fn with_threads<T, E: From<Report>>(
        &self,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(cgroup) = &self.cgroup else {
            return work();
        };
        cgroup.limit_tasks(limits::WITH_THREADS)?;
        let done = work();
        let limited = cgroup.limit_tasks(limits::BOTH);
        let done = done?;
        limited?;
        Ok(done)
    }

    /// Room for the keeper's threads from here to [`Self::close`]: no guest follows.
    ///
    /// # Errors
    /// `cgroup-unusable`: what threads would do beside each other is done one after the other.
    pub fn make_room(&self) -> Result<(), Report> {
        let room = |cgroup: &Cgroup| cgroup.limit_tasks(limits::WITH_THREADS);
        self.cgroup.as_ref().map_or(Ok(()), room)
    }

    /// Takes the limits off the keeper's own cgroup: processes that are started without a cgroup of their own are in it.
    ///
    /// # Errors
    /// `cgroup-unusable`.
    #[cfg(feature = "breakout")]
    pub fn lift_own_limits(&self) -> Result<(), Report> {
        self.cgroup.as_ref().map_or(Ok(()), Cgroup::lift_own_limits)
    }

    /// The layers that the guest does without.
    #[must_use]
    pub const fn absent(&self) -> LayerSet {
        self.absent
    }

    /// Gives users and cgroups back. V and D have ended.
    ///
    /// # Errors
    /// `cgroup-unusable`, with what is left.
    pub fn close(self) -> Result<(), Report> {
        match self.cgroup {
            Some(cgroup) => cgroup.close(),
            None => Ok(()),
        }
    }
}

fn no_place(error: &std::io::Error) -> Report {
    Report::new(
        ErrorId::CgroupUnusable,
        "this process's cgroup cannot be found",
        format!("/proc/self/cgroup: {error}"),
        "boot with cgroup version 2 alone (systemd.unified_cgroup_hierarchy=1)",
    )
}

fn not_jailed(program: &Program, Failed { step, errno }: Failed) -> Report {
    let fix = match step {
        Step::Clone | Step::MountNamespace | Step::NetNamespace | Step::UserNamespace => {
            "see whether /proc/sys/user/max_*_namespaces or the memory of the host is used up"
        }
        Step::UserMap => "run narrows as root of the host, and not in a user namespace",
        Step::EmptyRoot => {
            "give the host a root that can be exchanged, as doctor says of the layer mount-namespace; else run narrows as \
             root of the host, with all capabilities"
        }
        Step::Exec => "see that the program's file system is not mounted with noexec",
        Step::Prepare
        | Step::Descriptors
        | Step::Signals
        | Step::Session
        | Step::CgroupNamespace
        | Step::IpcNamespace
        | Step::UtsNamespace
        | Step::HostName
        | Step::Groups
        | Step::User
        | Step::Keyring
        | Step::Personality
        | Step::BoundingSet
        | Step::SecureBits
        | Step::Capabilities
        | Step::NoNewPrivileges
        | Step::Limits
        | Step::DeathSignal
        | Step::ParentGone => "run narrows as root of the host, with all capabilities",
    };
    Report::new(
        ErrorId::JailFailed,
        format!("{} cannot be put into its jail", program.path().display()),
        format!("{}: {}", step.words(), std::io::Error::from(errno)),
        fix,
    )
}
