//! In the lab host: every VMM starts the same guest, and what the kernel tells of it becomes records.

mod bench;
mod budget;
mod case;
mod echo;
mod instructions;
mod life;
mod mapping;
mod place;
mod session;
mod start;
mod steady;
mod surface;
mod window;

use std::{error::Error, io, path::PathBuf};

use clap::ValueEnum;

use crate::vmm::{Narrows, Peer, Vmm};
use bench::Bench;
use place::Place;

/// Which runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    /// Start, system calls, work, life, and what a running VMM may do.
    Main,
    /// The same start in a host whose clock counts instructions.
    Instructions,
    /// Guests of 1 to 16 GiB, until their first instruction.
    Mapping,
    /// What tests hold to budgets: Narrows alone, a few runs.
    Budget,
}

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which runs.
    #[arg(long)]
    phase: Phase,
    /// Fewer runs and sizes.
    #[arg(long)]
    quick: bool,
    /// Runs of each kind (default 5, or 3 if quick).
    #[arg(long)]
    runs: Option<u32>,
    /// A VMM besides Narrows, by its template, with the path of its program where that is not the usual one.
    #[arg(long = "peer", value_name = "NAME[=PATH]")]
    peers: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// The lab host lacks something, or runs failed; what was measured has been written.
pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut vmms: Vec<Box<dyn Vmm>> = vec![Box::new(Narrows::new("narrows"))];
    if arguments.phase != Phase::Budget {
        for peer in &arguments.peers {
            let (name, path) = match peer.split_once('=') {
                Some((name, path)) => (name, Some(PathBuf::from(path))),
                None => (peer.as_str(), None),
            };
            vmms.push(Box::new(Peer::load(name, path.as_deref())?));
        }
    }
    let mut absent = None;
    if arguments.phase != Phase::Budget && !vmms.iter().any(|vmm| vmm.name() == "qemu") {
        // The one that everybody can install.
        let qemu = Peer::load("qemu", None)?;
        match qemu.version() {
            Ok(_) => vmms.insert(1, Box::new(qemu)),
            Err(error) => absent = Some(format!("qemu: {error}")),
        }
    }
    let mut bench = Bench {
        place: Place::find()?,
        hardened: vmms.iter().filter_map(|vmm| vmm.hardened()).collect(),
        vmms,
        out: io::stdout(),
        is_quick: arguments.quick,
        runs: arguments
            .runs
            .unwrap_or(if arguments.quick { 3 } else { 5 }),
        failures: 0,
    };
    bench.introduce()?;
    if let Some(absent) = absent {
        bench.missing(&absent)?;
    }
    match arguments.phase {
        Phase::Main => {
            start::run(&mut bench)?;
            steady::run(&mut bench)?;
            life::run(&mut bench)?;
            surface::run(&mut bench)?;
        }
        Phase::Instructions => instructions::run(&mut bench)?,
        Phase::Mapping => mapping::run(&mut bench)?,
        Phase::Budget => budget::run(&mut bench)?,
    }
    match bench.failures {
        0 => Ok(()),
        failures => Err(format!("{failures} runs failed; their reasons are above").into()),
    }
}
