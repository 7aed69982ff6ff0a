//! `narrows keep` and `narrows watch`: the two halves of `narrows run`, for a service manager that starts each with just
//! the privilege that it needs. docs/systemd.md has the units.

use std::path::PathBuf;

use clap::Args;
use iommu::sysfs::SysRoot;

use super::{Done, Outcome, Run, options_of, plan_to_run, planning::replan, reserve::ToRun};
use crate::{
    state::State,
    supervisor::{KeeperEnd, watch},
};

/// The keeper as a process of its own.
#[derive(Debug, Args)]
pub(super) struct Keep {
    #[command(flatten)]
    run: Run,
    /// The socket at which the guest's supervisor listens
    #[arg(long, value_name = "SOCKET")]
    supervisor: PathBuf,
}

impl Keep {
    /// Keeps the guest until it ends.
    pub(super) fn keep(&self, root: &SysRoot, state: &State) -> Outcome {
        // First of all: whatever goes wrong from here on, the supervisor ends with our status.
        let supervisor = KeeperEnd::connect(&self.supervisor).map_err(|report| vec![report])?;
        let planned = plan_to_run(&self.run, root, state).map(|planned| {
            let ToRun {
                plan,
                reserved,
                host,
            } = planned;
            (plan, reserved, replan(&self.run.file, root, state, host))
        });
        let end = supervisor.keep(planned, &options_of(&self.run, root, state))?;
        Ok(Done {
            status: end.exit_status(),
            ..Done::with(String::new())
        })
    }
}

/// The supervisor as a process of its own.
pub(super) fn watch_guest() -> Outcome {
    let status = watch().map_err(|report| vec![report])?;
    Ok(Done {
        status,
        ..Done::with(String::new())
    })
}
