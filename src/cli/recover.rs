//! `narrows recover`: what killed runs have left behind, put right.

use std::time::Duration;

use clap::Args;
use iommu::sysfs::SysRoot;
use serde::Serialize;

use super::{Done, Outcome, written};
use crate::{
    error::{Exit, Report, printable},
    state::State,
    supervisor::{self, Asked, Recovered},
};

#[derive(Debug, Args)]
pub(super) struct Recover {
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
    /// Only what runs of this guest have left
    #[arg(long, value_name = "NAME")]
    guest: Option<String>,
    /// Wait so long for another recovery that is at the same run
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// Print what was done, and what could not be, as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// One run, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run<'a> {
    run: &'a str,
    steps: &'a [String],
    left: &'a [Report],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    dry_run: bool,
    runs: Vec<Run<'a>>,
}

impl Recover {
    /// Does what was asked.
    pub(super) fn run(&self, root: &SysRoot, state: &State) -> Outcome {
        let asked = Asked {
            guest: self.guest.as_deref(),
            is_dry: self.dry_run,
            is_silent: self.json,
            patience: Duration::from_secs(self.wait),
        };
        let all = supervisor::recover(root, state, &asked).map_err(|report| vec![report])?;
        let left: Vec<Report> = all.iter().flat_map(|one| one.left.clone()).collect();
        Ok(Done {
            status: match left.is_empty() {
                true => Exit::Done as u8,
                false => Exit::Failed as u8,
            },
            data: match self.json {
                true => self.document(&all)?,
                false => self.text(&all),
            },
            // As JSON they are in the document.
            warnings: match self.json {
                true => Vec::new(),
                false => left,
            },
            refusals: Vec::new(),
        })
    }

    fn document(&self, all: &[Recovered]) -> Result<String, Vec<Report>> {
        let runs = all.iter().map(|one| Run {
            run: &one.whose,
            steps: &one.steps,
            left: &one.left,
        });
        written(serde_json::to_string_pretty(&Document {
            api_version: "v1alpha1",
            kind: "Recovered",
            dry_run: self.dry_run,
            runs: runs.collect(),
        }))
    }

    fn text(&self, all: &[Recovered]) -> String {
        if all.is_empty() {
            return "nothing to recover".to_owned();
        }
        let mut text = String::new();
        for one in all {
            let outcome = match (one.left.is_empty(), self.dry_run) {
                (true, true) => "to be recovered",
                (true, false) => "recovered",
                (false, _) => "not recovered",
            };
            text += &format!("{}: {outcome}\n", printable(&one.whose));
            for step in &one.steps {
                text += &format!("  {}\n", printable(step));
            }
        }
        text
    }
}
