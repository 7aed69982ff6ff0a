//! `narrows breakout`: in builds for the lab only.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use iommu::sysfs::SysRoot;

use super::{
    Done, Outcome,
    planning::replan,
    reserve::{ToRun, reserve},
};
use crate::{
    state::State,
    supervisor::{self, breakout},
};

#[derive(Debug, Args)]
pub(super) struct Breakout {
    /// The guest file, whose devices are set up once
    file: PathBuf,
    /// Only this probe (may be repeated)
    #[arg(long = "probe", value_name = "ID")]
    probes: Vec<String>,
    /// Only this environment (may be repeated): full, none, without-GROUP, only-GROUP
    #[arg(long = "environment", value_name = "NAME")]
    environments: Vec<String>,
    /// A word for V and D: what a probe may act on (may be repeated)
    #[arg(long = "word", value_name = "WORD")]
    words: Vec<String>,
    /// How long V and D are let attack each other
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    attack: u64,
    /// Write what came of it to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
}

impl Breakout {
    pub(super) fn run(&self, root: &SysRoot, state: &State) -> Outcome {
        let ToRun {
            plan,
            reserved,
            host,
        } = reserve(&self.file, root, state)?;
        let replan = replan(&self.file, root, state, host);
        let options = supervisor::Options {
            root: root.clone(),
            state: state.clone(),
            stats: None,
            is_quiet: false,
            breakout: Some(breakout::Asked {
                probes: self.probes.clone(),
                environments: self.environments.clone(),
                words: self.words.clone(),
                attack: Duration::from_secs(self.attack),
                json: self.json.clone(),
            }),
        };
        Ok(Done {
            status: match supervisor::run(&plan, reserved, &options, replan)? {
                supervisor::Outcome::Ended(end) => end.exit_status(),
                supervisor::Outcome::Told(status) => status,
            },
            data: String::new(),
            warnings: Vec::new(),
            refusals: Vec::new(),
        })
    }
}
