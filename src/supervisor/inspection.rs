//! The self-inventory: before the guest's first instruction, V and D are read from the kernel and held against their
//! manifest; then what `narrows inspect` has to know of them is written down.
//!
//! On entry: V and D are locked down and wait for the word to go; this process traces whom it likes and is under no
//! filter. On exit: both are as they are meant to be, or the guest does not run.

use jailed::{
    handoff::Handoff,
    manifest::{layer, start_page::Locked},
};

use super::{fault::Fault, launch::Programs, log::Log};
use crate::{
    error::{ErrorId, Report},
    inspect::{self, Inspection, Proc, Role, RunningGuest, RunningProcess, Unread, Verdict},
    jail::{Jail, Member},
    plan::Plan,
    spec::RootMode,
    state::{Running, now},
};

/// Where a cgroup's folder is; `/proc/PID/cgroup` names what is below.
const CGROUPS: &str = "/sys/fs/cgroup";
/// The host's own first process.
const INIT: u32 = 1;

/// V or D, as it waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// The process.
    pub(super) pid: u32,
    /// What it said of itself.
    pub(super) locked: Locked,
}

/// What an inspection is made with: the same in every life of the guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inspector<'a> {
    /// The guest.
    pub(super) plan: &'a Plan,
    /// S, which is in its jail by now, where this process has started it or was started by it.
    pub(super) supervisor: Option<u32>,
    /// Its users and cgroups.
    pub(super) jail: &'a Jail,
    /// Where what runs is written down.
    pub(super) running: &'a Running,
    /// Where the record goes.
    pub(super) log: &'a Log,
}

impl Inspector<'_> {
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
        let proc = Proc::new("/proc");
        let keeper = std::process::id();
        // It has answered that it is in its jail, with all layers but those that the guest does without.
        let supervisor = self.supervisor.map(|pid| {
            let locked = Locked {
                layers: layer::OWN & !self.jail.absent().bits(),
                landlock_abi: 0,
            };
            let waiting = Waiting { pid, locked };
            (Role::Supervisor, Member::Supervisor, waiting)
        });
        let both = [
            (Role::Device, Member::Device, device),
            (Role::Vcpu, Member::Vcpu, vcpu),
        ];
        let processes = supervisor
            .into_iter()
            .chain(both)
            .map(|(role, member, waiting)| {
                let place = self.place(programs, keeper, member, waiting.locked);
                RunningProcess::now(&proc, role, waiting.pid, place)
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
            Verdict::Match => Ok(self.running.record(&guest)?),
            Verdict::Mismatch => Err(self.mismatch(found.mismatches())),
        }
    }

    fn place(
        &self,
        programs: &Programs,
        parent: u32,
        member: Member,
        locked: Locked,
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
            layers_told: locked.layers,
        }
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
