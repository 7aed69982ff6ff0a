//! The self-inventory: before the guest's first instruction, V and D are read from the kernel and held against their
//! manifest; then what `narrows inspect` has to know of them is written down.
//!
//! On entry: V and D are locked down and wait for the word to go; this process traces whom it likes and is under no
//! filter. On exit: both are as they are meant to be, or the guest does not run.

use std::os::fd::AsRawFd;

use iommu::sysfs::SysRoot;
use jailed::{
    handoff::Handoff,
    manifest::{layer, start_page::Locked},
};

use super::{
    console::Target, dma_faults::DmaFaults, fault::Fault, given::inherited, launch::Programs,
    link::Speaker, log::Log,
};
use crate::{
    error::{ErrorId, Report},
    host,
    inspect::{
        self, CgroupLimit, FileId, GivenFile, Inspection, Proc, Role, RunningGuest, RunningProcess,
        Unread, Verdict,
    },
    jail::{Jail, Member, Setting, seccomp::SupervisorFds},
    plan::Plan,
    spec::RootMode,
    state::{Running, now},
    vf::{Tenancy, verify},
};

/// Where a cgroup's folder is; `/proc/PID/cgroup` names what is below.
const CGROUPS: &str = "/sys/fs/cgroup";
/// The host's own first process.
const INIT: u32 = 1;

/// V or D, as it waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// The process.
    pub(super) pid: u32,
    /// What it said of itself.
    pub(super) locked: Locked,
    /// The files that it was given and still has.
    pub(super) given: Vec<GivenFile>,
    /// The memory files that it maps.
    pub(super) memory: Vec<(String, FileId)>,
}

/// What S said when it was in its jail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guarded {
    /// The version of Landlock that it is under, 0 for none.
    pub(super) landlock: u32,
    /// Who said so, where S is a service of its own.
    pub(super) speaker: Option<Speaker>,
}

/// What S has, as the keeper knows it: not from S.
#[derive(Debug)]
pub(super) struct Watched {
    fds: Option<SupervisorFds>,
    given: Vec<GivenFile>,
}

impl Watched {
    /// S was this process before they were split: it has these by the numbers that they have here.
    ///
    /// # Errors
    /// The errno of reading `/proc/self/fd`.
    pub(super) fn inherited(
        fds: SupervisorFds,
        target: &Target,
        faults: &DmaFaults,
    ) -> std::io::Result<Self> {
        // A console that takes nothing any more, and a kernel log that cannot be read.
        let console = match target {
            Target::File(file) => Some(file.as_raw_fd()),
            Target::Off | Target::Stdio => None,
        };
        let kernel_log = faults.fd().map(|fd| fd.as_raw_fd());
        let may_be_closed = console.into_iter().chain(kernel_log);
        let may_be_closed: Vec<u32> = may_be_closed.map(i32::unsigned_abs).collect();
        Ok(Self {
            given: inherited(&fds.numbers(), &may_be_closed)?,
            fds: Some(fds),
        })
    }

    /// S is a service of its own, and was handed these.
    pub(super) const fn handed_over(given: Vec<GivenFile>) -> Self {
        Self { fds: None, given }
    }
}

/// What an inspection is made with: the same in every life of the guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inspector<'a> {
    /// The guest.
    pub(super) plan: &'a Plan,
    /// The host.
    pub(super) root: &'a SysRoot,
    /// S, which is in its jail by now, where it has started this process.
    pub(super) supervisor: Option<u32>,
    /// What S has.
    pub(super) watched: &'a Watched,
    /// What S said.
    pub(super) guarded: Guarded,
    /// Its users and cgroups.
    pub(super) jail: &'a Jail,
    /// Where what runs is written down.
    pub(super) running: &'a Running,
    /// Where the record goes.
    pub(super) log: &'a Log,
}

impl Inspector<'_> {
    /// Reads once more that the guest's VFs are what their leases say. Reading needs none of the capabilities that are gone.
    ///
    /// # Errors
    /// `step-not-done` with what differs; `host-unreadable`.
    pub(super) fn verify_leases(&self, tenancy: Tenancy) -> Result<(), Fault> {
        let read = || host::sriov::read_devices(self.root);
        Ok(verify(read, self.plan.leases(), tenancy)?)
    }

    /// Compares both with their manifest, says what was found, and writes down that they run.
    ///
    /// # Errors
    /// `inspection-mismatch` with every difference; `state-unwritable`.
    pub(super) fn admit(
        &self,
        programs: &Programs,
        handoff: &Handoff,
        device: Waiting,
        vcpu: Waiting,
    ) -> Result<(), Fault> {
        let proc = Proc::new("/proc", CGROUPS);
        let keeper = std::process::id();
        let supervisor = self.supervisor()?;
        let supervisor = (Role::Supervisor, Member::Supervisor, supervisor);
        let both = [
            (Role::Device, Member::Device, device),
            (Role::Vcpu, Member::Vcpu, vcpu),
        ];
        let service = self.guarded.speaker.filter(|_| self.watched.fds.is_none());
        let processes = std::iter::once(supervisor)
            .chain(both)
            .map(|(role, member, waiting)| {
                let pid = waiting.pid;
                let mut place = self.place(programs, keeper, member, waiting);
                if let Some(speaker) = service.filter(|_| role == Role::Supervisor) {
                    place.uid = speaker.uid;
                }
                RunningProcess::now(&proc, role, pid, place)
            })
            .collect::<Result<Vec<_>, Unread>>()
            .map_err(|fact| self.mismatch(vec![format!("{}: {}", fact.source, fact.why)]))?;
        let functions = self.plan.functions.iter().map(|d| d.bdf.to_string());
        let guest = RunningGuest::new(
            &self.plan.name,
            keeper,
            functions.collect(),
            processes,
            handoff,
        );
        let hosts = [("the host", INIT), ("the keeper", keeper)];
        let subjects = guest.subjects(handoff);
        let found = inspect::inspect(&proc, &self.plan.name, now(), &subjects, &hosts);
        self.say(&found)?;
        match found.verdict {
            Verdict::Match => Ok(self.running.record(&guest.kept())?),
            Verdict::Mismatch => Err(self.mismatch(found.mismatches())),
        }
    }

    /// S as it is by now: it has answered that it is in its jail, with all layers but those that the guest does without.
    fn supervisor(&self) -> Result<Waiting, Fault> {
        let pid = self
            .supervisor
            .or(self.guarded.speaker.map(|speaker| speaker.pid));
        let unknown = || self.mismatch(vec!["the kernel does not tell who supervises".to_owned()]);
        Ok(Waiting {
            pid: pid.ok_or_else(unknown)?,
            locked: Locked {
                // A service puts on nothing but its filter; the rest is its manager's, which says nothing.
                layers: match self.watched.fds {
                    Some(_) => layer::OWN & !self.jail.absent().bits(),
                    None => 0,
                },
                landlock_abi: self.guarded.landlock,
            },
            given: self.watched.given.clone(),
            memory: Vec::new(),
        })
    }

    fn place(
        &self,
        programs: &Programs,
        parent: u32,
        member: Member,
        waiting: Waiting,
    ) -> inspect::Place {
        let cgroup = self.jail.cgroup().and_then(|cgroup| {
            let below = cgroup.folder().strip_prefix(CGROUPS).ok()?;
            Some(format!("/{}/{}", below.display(), member.name()))
        });
        let images = self.plan.images.iter();
        let images = images.filter(|image| image.mode == RootMode::ReadOnly);
        inspect::Place {
            uid: self.jail.ids().id(member),
            parent: (member != Member::Supervisor).then_some(parent),
            program: programs.of(member).path().to_owned(),
            cgroup,
            images: images.map(|image| image.path.clone()).collect(),
            layers_absent: self.jail.absent().bits(),
            layers_told: waiting.locked.layers,
            landlock: waiting.locked.landlock_abi,
            cgroup_limits: self.cgroup_limits(member),
            given: waiting.given,
            memory: waiting.memory,
            watched: match member {
                Member::Supervisor => self.watched.fds.clone(),
                Member::Vcpu | Member::Device => None,
            },
        }
    }

    /// What the jail has written for the cgroup of `member`, and for the guest's.
    fn cgroup_limits(&self, member: Member) -> Vec<CgroupLimit> {
        let settings = self.jail.settings().into_iter();
        let own = settings.filter(|s| s.member.is_none_or(|own| own == member));
        let limit = |setting: Setting| CgroupLimit {
            is_guests: setting.member.is_none(),
            file: setting.file.to_owned(),
            value: setting.value,
            is_optional: setting.is_optional,
        };
        own.map(limit).collect()
    }

    /// The record is a line of the log, which no option silences where it tells of a mismatch.
    fn say(&self, found: &Inspection) -> Result<(), Fault> {
        let line = found.to_line().map_err(std::io::Error::from);
        let line = line.map_err(Fault::io("writing the record of the inspection"))?;
        let line = format!("inspection {line}");
        match found.verdict {
            Verdict::Match => self.log.say(&line),
            Verdict::Mismatch => self.log.warn(&line),
        }
        Ok(())
    }

    fn mismatch(&self, differences: Vec<String>) -> Fault {
        let what = format!(
            "cannot start guest {}: its processes are not what they are meant to be",
            self.plan.name
        );
        let fix = "see what else acts on processes of this host; where nothing does, report this as a bug";
        let mut differences = differences.into_iter();
        let first = differences
            .next()
            .unwrap_or_else(|| "no process was found".to_owned());
        let report = Report::new(ErrorId::InspectionMismatch, what, first, fix);
        differences.fold(report, Report::and).into()
    }
}
