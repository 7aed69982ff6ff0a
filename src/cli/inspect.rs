//! `narrows inspect`: whether the processes of a running guest are what they are meant to be.

use clap::Args;
use iommu::sysfs::SysRoot;

use super::{Done, Outcome, written};
use crate::{
    error::{Color, ErrorId, Exit, Report},
    inspect::{Proc, RunningGuest, Verdict, inspect},
    spec::check_name,
    state::{State, now},
    view,
};

/// The host's own first process.
const INIT: u32 = 1;

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// The guest, by the `name` of its file
    guest: String,
    /// Print the record as JSON (docs/schema/inspect.schema.json)
    #[arg(long)]
    pub(super) json: bool,
    /// Show what each process may call, too, and why
    #[arg(long, short)]
    verbose: bool,
}

impl Inspect {
    /// Looks at the guest's processes as they are now.
    pub(super) fn run(&self, root: &SysRoot, state: &State, color: Color) -> Outcome {
        let what = format!("cannot inspect guest {}", self.guest);
        // It becomes part of a path.
        check_name(&self.guest).map_err(|report| vec![report])?;
        if !rustix::process::geteuid().is_root() {
            let why = "processes of another user are read, and their filters through ptrace";
            let fix = "run narrows as root";
            return Err(vec![Report::new(ErrorId::NotPermitted, what, why, fix)]);
        }
        let guest: RunningGuest = state.running_guest(&self.guest).map_err(|r| vec![r])?;
        let proc = Proc::new(root.path("proc"), root.path("sys/fs/cgroup"));
        if let Err(stale) = guest.check_alive(&proc) {
            return Err(vec![Report::new(
                ErrorId::GuestNotRunning,
                what,
                format!(
                    "its run was killed and left its record: {}: {}",
                    stale.source, stale.why
                ),
                "start the guest again; the next run of this name removes the record",
            )]);
        }
        let Some(handoff) = guest.handoff() else {
            return Err(vec![Report::new(
                ErrorId::StateDamaged,
                what,
                "its record was written by another version of Narrows",
                "inspect it with the version that runs it",
            )]);
        };
        let hosts = [("the host", INIT), ("the keeper", guest.keeper)];
        let subjects = guest.subjects(&handoff);
        let record = inspect(&proc, &guest.guest, now(), &subjects, &hosts);
        Ok(Done {
            status: match record.verdict {
                Verdict::Match => Exit::Done as u8,
                Verdict::Mismatch => Exit::Refused as u8,
            },
            ..Done::with(match self.json {
                true => written(record.to_json())?,
                false => view::inspection_text(&record, self.verbose, color),
            })
        })
    }
}
