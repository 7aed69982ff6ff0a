//! `narrows host plan`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use iommu::sysfs::SysRoot;
use serde::Serialize;

use super::{Machine, Wanted, done};
use crate::{
    cli::{Outcome, written},
    error::{Color, ErrorId, Report},
    spec::host::HostSpec,
    sriov::{HostPlan, Observed},
    state::State,
    vf::SavedPlan,
    view::host::plan_text,
};

#[derive(Debug, Args)]
pub(super) struct Plan {
    /// The host file (TOML, docs/host-file.md)
    file: PathBuf,
    /// Keep the plan in this file, for `apply --plan-file`
    #[arg(long, value_name = "PLAN")]
    out: Option<PathBuf>,
    /// Print every step by itself
    #[arg(long, short)]
    verbose: bool,
    /// Print the plan as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A plan, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    file: String,
    exit: u8,
    #[serde(flatten)]
    plan: &'a HostPlan,
    /// The steps in words, in the same order.
    words: Vec<String>,
}

/// The document of a plan.
pub(super) fn document(file: &str, plan: &HostPlan) -> Result<String, Vec<Report>> {
    written(serde_json::to_string_pretty(&Document {
        api_version: "v1alpha1",
        kind: "HostPlan",
        file: file.to_owned(),
        exit: plan.exit() as u8,
        plan,
        words: plan.steps.iter().map(ToString::to_string).collect(),
    }))
}

impl Plan {
    /// Shows it.
    pub(super) fn show(&self, root: &SysRoot, state: &State, color: Color) -> Outcome {
        let machine = Machine::read(root, state)?;
        let wanted = Wanted::read(&self.file, &machine)?;
        let plan = wanted.plan(&machine);
        if let Some(path) = &self.out {
            save(path, &wanted, &machine, &plan).map_err(|report| vec![report])?;
        }
        let status = plan.exit() as u8;
        if self.json {
            // Refusals and warnings are in the document.
            let file = self.file.display().to_string();
            return Ok(done(status, document(&file, &plan)?, Vec::new()));
        }
        Ok(told(&plan, &machine.observed, self.verbose, color, status))
    }
}

/// Keeps a plan that can be carried out.
fn save(path: &Path, wanted: &Wanted, machine: &Machine, plan: &HostPlan) -> Result<(), Report> {
    if !plan.refusals.is_empty() {
        return Err(Report::new(
            ErrorId::Usage,
            format!("{} was not written", path.display()),
            "the plan is refused: it could never be applied",
            "narrows host plan without --out shows what stands in its way",
        ));
    }
    let HostSpec { file, text, .. } = &wanted.spec;
    let saved = SavedPlan::new(file, text, machine.observed.clone(), plan.steps.clone());
    fs::write(path, saved.to_text()?).map_err(|error| {
        Report::new(
            ErrorId::StateUnwritable,
            format!("cannot write the plan to {}", path.display()),
            error.to_string(),
            "name a file in a folder that can be written to",
        )
    })
}

/// A plan for people: the diff on standard output, refusals and warnings on standard error.
pub(super) fn told(
    plan: &HostPlan,
    observed: &Observed,
    is_verbose: bool,
    color: Color,
    status: u8,
) -> crate::cli::Done {
    let text = plan_text(plan, observed, is_verbose, color);
    crate::cli::Done {
        refusals: plan.refusals.clone(),
        ..done(status, text, plan.warnings.clone())
    }
}
