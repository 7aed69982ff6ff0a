//! `narrows host`: what the host should be, and the way there.

mod apply;
mod look;
mod plan;
mod teller;

use std::path::Path;

use clap::{Args, Subcommand};
use iommu::sysfs::SysRoot;

use super::{Done, Outcome};
use crate::{
    error::{Color, Report},
    host::machine::read_only,
    spec::host::{HostSpec, Profiles},
    sriov::{self, Desired, HostPlan, Observed, Records, Sound},
    state::State,
};

/// What is asked about the host.
#[derive(Debug, Args)]
pub(super) struct Host {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the difference between this host and the host file
    Plan(plan::Plan),
    /// Make this host what the host file says, step by step, each read back
    Apply(apply::Apply),
    /// Keep what `apply --confirm-within` has done
    Confirm,
    /// Show pools, leases, and what differs from the file that was applied
    Status(look::Status),
    /// Put back what was there before the first `apply`
    Release(apply::Release),
    /// Write a host file that says what this host is now
    Import(look::Import),
    /// Print the inventory that a scheduler needs, as JSON
    Export(look::Export),
}

impl Host {
    /// Whether errors are printed as JSON.
    pub(super) fn is_json(&self) -> bool {
        match &self.verb {
            Verb::Plan(plan) => plan.json,
            Verb::Apply(apply) => apply.json,
            Verb::Status(status) => status.json,
            Verb::Release(release) => release.json,
            Verb::Export(_) => true,
            Verb::Confirm | Verb::Import(_) => false,
        }
    }

    /// Does what was asked.
    pub(super) fn run(&self, root: &SysRoot, state: &State, color: Color) -> Outcome {
        match &self.verb {
            Verb::Plan(plan) => plan.show(root, state, color),
            Verb::Status(status) => status.show(root, state, color),
            Verb::Import(import) => import.write(root, state),
            Verb::Export(export) => export.print(root, state),
            Verb::Apply(apply) => writable(root).and_then(|()| apply.carry_out(root, state, color)),
            Verb::Release(release) => {
                writable(root).and_then(|()| release.carry_out(root, state, color))
            }
            Verb::Confirm => writable(root).and_then(|()| apply::confirm(state)),
        }
    }
}

/// Shows that this host can be changed: a machine file cannot.
pub(super) fn writable(root: &SysRoot) -> Result<(), Vec<Report>> {
    match root.is_read_only() {
        true => {
            let why = "its devices are not here: nothing was touched";
            Err(vec![read_only(root, "changed", why)])
        }
        false => Ok(()),
    }
}

/// The machine and what is remembered of it.
pub(super) struct Machine {
    pub(super) observed: Observed,
    pub(super) records: Records,
}

impl Machine {
    /// Reads both.
    ///
    /// # Errors
    /// `host-unreadable`, `state-unreadable`.
    pub(super) fn read(root: &SysRoot, state: &State) -> Result<Self, Vec<Report>> {
        let observed = crate::host::sriov::read(root).map_err(|report| vec![report])?;
        let records = state.records(&observed).map_err(|report| vec![report])?;
        Ok(Self { observed, records })
    }
}

/// A host file, and what it comes to on this machine.
pub(super) struct Wanted {
    pub(super) spec: HostSpec,
    pub(super) profiles: Profiles,
    pub(super) desired: Desired,
}

impl Wanted {
    /// Reads the file and matches it with the machine.
    ///
    /// # Errors
    /// Whatever is wrong with the file, by itself or on this machine.
    pub(super) fn read(file: &Path, machine: &Machine) -> Result<Self, Vec<Report>> {
        Self::of(HostSpec::read(file)?, machine)
    }

    fn of(spec: HostSpec, machine: &Machine) -> Result<Self, Vec<Report>> {
        let profiles = Profiles::load(&spec)?;
        let desired = sriov::desired(&spec, &machine.observed, &machine.records, &profiles)?;
        Ok(Self {
            spec,
            profiles,
            desired,
        })
    }

    /// What can be so of the file, and why the rest of it cannot.
    fn sound(spec: HostSpec, machine: &Machine) -> Result<(Self, Vec<Report>), Vec<Report>> {
        let profiles = Profiles::load(&spec)?;
        let Sound { desired, broken } =
            sriov::sound(&spec, &machine.observed, &machine.records, &profiles)?;
        let wanted = Self {
            spec,
            profiles,
            desired,
        };
        Ok((
            wanted,
            broken.into_iter().flat_map(|pf| pf.reports).collect(),
        ))
    }

    /// The plan.
    pub(super) fn plan(&self, machine: &Machine) -> HostPlan {
        let Machine { observed, records } = machine;
        let mut plan = sriov::plan(
            observed,
            &self.desired,
            records,
            &self.profiles,
            self.spec.safety,
        );
        plan.warnings
            .splice(0..0, self.spec.warnings.iter().cloned());
        plan
    }
}

/// What is shown of a host: one PF that cannot be as its file says hides none of the others.
pub(super) struct Shown {
    /// What can be so of the host file; `None` where there is none.
    pub(super) wanted: Option<Wanted>,
    /// What cannot, and PFs of which nobody knows who has their VFs.
    pub(super) broken: Vec<Report>,
}

impl Shown {
    /// Of the file that was applied last.
    ///
    /// # Errors
    /// What is wrong with the file itself, or with several PFs together; `state-unreadable`.
    pub(super) fn applied(state: &State, machine: &Machine) -> Result<Self, Vec<Report>> {
        let spec = match state.applied().map_err(|report| vec![report])? {
            Some(applied) => Some(HostSpec::parse(&applied.file, &applied.text)?),
            None => None,
        };
        Self::of(spec, machine)
    }

    /// Of this file.
    ///
    /// # Errors
    /// As of [`Self::applied`].
    pub(super) fn of(spec: Option<HostSpec>, machine: &Machine) -> Result<Self, Vec<Report>> {
        let (wanted, broken) = match spec {
            Some(spec) => {
                let (wanted, broken) = Wanted::sound(spec, machine)?;
                (Some(wanted), broken)
            }
            None => (None, Vec::new()),
        };
        Ok(Self::with(wanted, broken, machine))
    }

    /// The same for who shows the machine even where the file says nothing of it.
    pub(super) fn of_machine(state: &State, machine: &Machine) -> Self {
        Self::applied(state, machine).unwrap_or_else(|reports| Self::with(None, reports, machine))
    }

    fn with(wanted: Option<Wanted>, mut broken: Vec<Report>, machine: &Machine) -> Self {
        for report in machine.records.unusable.values() {
            // Those of PFs that the file names are there already, with their place in it.
            let is_same = |one: &Report| one.id == report.id && one.what == report.what;
            if !broken.iter().any(is_same) {
                broken.push(report.clone());
            }
        }
        Self { wanted, broken }
    }
}

/// Success with data and warnings.
pub(super) fn done(status: u8, data: String, warnings: Vec<Report>) -> Done {
    Done {
        status,
        warnings,
        ..Done::with(data)
    }
}
