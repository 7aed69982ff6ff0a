//! Break-outs, tried: once a guest's devices are set up, V and D are launched again for each probe, each time with an
//! attacker in place of their loops, and how they ended is collected. In builds with the feature `breakout` only.
//!
//! Part of the keeper, where otherwise the lives of the guest would be; it has no brake on reboots.

mod environment;
mod needs;
mod outcome;
mod queue;

use std::{
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use jailed::{
    breakout::table::{PROBES, Probe},
    manifest::Role,
};
use serde::Serialize;

pub(super) use self::queue::Harness;
use self::{environment::Environment, outcome::Outcome, queue::Queue};
use super::{fault::Fault, log::Log};

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Only these probes; all where there is none.
    pub probes: Vec<String>,
    /// Only these environments; all where there is none.
    pub environments: Vec<String>,
    /// Words for the guest's command line: the canaries.
    pub words: Vec<String>,
    /// How long one process is let attack the other.
    pub attack: Duration,
    /// Where what came of them goes.
    pub json: PathBuf,
}

impl Asked {
    /// Whether processes are wanted with a layer less. To make one the keeper needs what it gives up before other guests:
    /// capabilities to hand on, a bounding set to empty outside of a user namespace.
    #[must_use]
    pub(super) fn leaves_layers_away(&self) -> bool {
        let mut all = Environment::all().into_iter();
        all.any(|one| !one.is_full() && is_asked(&self.environments, &one.name))
    }
}

/// An environment, and what it took.
#[derive(Clone, Debug, Serialize)]
struct Done {
    #[serde(flatten)]
    environment: Environment,
    launches: usize,
    milliseconds: u128,
}

/// What came of everything.
#[derive(Clone, Debug, Default, Serialize)]
struct Figures {
    environments: Vec<Done>,
    /// How often V and D were launched.
    launches: usize,
    /// How long that took, all of it.
    milliseconds: u128,
    /// One for each probe, process and environment.
    outcomes: Vec<Outcome>,
}

/// Runs the probes that are asked for, and writes down what came of them.
///
/// # Errors
/// A guest that could not be launched, or a device that could not be reset.
pub(super) fn run(harness: &mut Harness<'_, '_>, asked: &Asked, log: &Log) -> Result<(), Fault> {
    let begin = Instant::now();
    let mut figures = Figures::default();
    for environment in Environment::all() {
        if !is_asked(&asked.environments, &environment.name) {
            continue;
        }
        log.say(&format!("environment {}", environment.name));
        let (started, before) = (Instant::now(), harness.launches);
        let is_wanted = |probe: &Probe| {
            is_asked(&asked.probes, probe.id) && needs::is_tried_in(&environment, probe)
        };
        let queue = |role| Queue::new(PROBES, role, is_wanted);
        let queues = [queue(Role::Vcpu), queue(Role::Device)];
        let outcomes = harness.run(&environment, &asked.words, queues)?;
        figures.outcomes.extend(outcomes);
        figures.environments.push(Done {
            environment,
            launches: harness.launches - before,
            milliseconds: started.elapsed().as_millis(),
        });
    }
    figures.launches = harness.launches;
    figures.milliseconds = begin.elapsed().as_millis();
    let written = serde_json::to_string_pretty(&figures)
        .map_err(io::Error::from)
        .and_then(|text| std::fs::write(&asked.json, text));
    written.map_err(Fault::io(format!("writing {}", asked.json.display())))
}

fn is_asked(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|wanted| wanted == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keeper_keeps_what_it_leaves_layers_away_with_only_where_it_does() {
        let asked = |environments: &[&str]| Asked {
            environments: environments.iter().map(|name| (*name).to_owned()).collect(),
            ..Asked::default()
        };
        assert!(!asked(&["full"]).leaves_layers_away());
        for environments in [&[][..], &["none"], &["full", "without-landlock"]] {
            assert!(asked(environments).leaves_layers_away(), "{environments:?}");
        }
    }
}
