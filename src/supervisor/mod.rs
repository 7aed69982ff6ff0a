//! The supervisor S and the keeper K of one guest: who watches what hostile hands can write to, and who touches the host.
//!
//! On entry: a [`Plan`], which passed every check, what is [`Reserved`] for it, and the privilege to carry it out. [`run`] splits the process: K, the
//! child, builds the guest and takes it apart (`keeper`); S, whom the operator started, copies the console and reads the
//! kernel log (`watch`), and gives everything else up before it reads a line of that. What S says to K are the few
//! words of `link`. On exit: both are gone, the devices are as they were before, the RAM is gone, V and D are gone.

mod apart;
mod assign;
#[cfg(feature = "breakout")]
pub mod breakout;
mod calls;
mod console;
mod dma_faults;
mod drain;
mod ending;
#[cfg(test)]
mod ending_test;
mod fault;
mod files;
mod given;
mod inspection;
mod keeper;
mod launch;
mod link;
mod log;
mod noting;
mod pace;
mod pages;
mod parallel;
mod process;
mod processes;
mod quiet;
mod ram;
mod recover;
mod refusal;
mod release;
mod reserved;
mod sandbox;
mod set_up;
mod space;
mod stats;
mod violation;
mod watch;
mod wipe;

use std::{io, os::fd::AsRawFd, path::PathBuf};

use iommu::sysfs::SysRoot;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[cfg(feature = "breakout")]
pub use crate::sys::crash::steps as crash_steps;

pub use self::{
    apart::{KeeperEnd, watch},
    ending::{Role, RunEnd},
    recover::{Asked, Recovered, recover},
    reserved::{Refused, Reserved},
    violation::Call,
};
use self::{
    console::{Console, pipes},
    dma_faults::DmaFaults,
    fault::Fault,
    files::Files,
    inspection::Watched,
    keeper::Keeper,
    link::Link,
    log::Log,
    violation::Violations,
    watch::Watch,
};
use crate::{
    error::{ErrorId, Report},
    host::Anew,
    jail::{
        Ids,
        own::{self, Own},
        seccomp::{install, supervisor_filter},
    },
    plan::Plan,
    state::State,
    sys::{
        crash,
        fork::{Child, Ended, Side, fork},
        signals::Signals,
        thrift::Thrift,
    },
};

/// What the operator asks of `narrows run` besides the guest file.
#[derive(Clone, Debug)]
pub struct Options {
    /// The host's file system.
    pub root: SysRoot,
    /// What outlives a run: the quarantine, and which functions are in use.
    pub state: State,
    /// Where the figures go, at the end and on SIGUSR1.
    pub stats: Option<PathBuf>,
    /// No progress on standard error.
    pub is_quiet: bool,
    /// In place of the guest's lives, attackers' ones.
    #[cfg(feature = "breakout")]
    pub breakout: Option<breakout::Asked>,
}

/// Makes the plan again from the host as it is now. It holds an earlier reading of the host, so it is dropped when nobody
/// asks any more: S and K live as long as the guest.
pub type Replan<'a> = Box<dyn Fn(Anew) -> Result<Plan, Vec<Report>> + 'a>;

/// What a run ends with, in each of the two processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// In the keeper: how the guest ended.
    Ended(RunEnd),
    /// In the supervisor: the keeper's status. It has said all there is to say.
    Told(u8),
}

/// Runs a guest from its plan to its end, and gives its devices back. Returns twice, once in each process.
///
/// # Errors
/// What kept it from starting, or from being taken apart: then the report says what is left to do by hand.
pub fn run(
    plan: &Plan,
    mut reserved: Reserved,
    options: &Options,
    replan: Replan<'_>,
) -> Result<Outcome, Vec<Report>> {
    crash::is_running(crash::Who::Supervisor, std::process::id());
    let log = Log::new(&plan.name, options.is_quiet);
    for warning in &plan.warnings {
        log.warn(&format!("warning[{}]: {}", warning.id, warning.what));
    }
    let reported = |fault: Fault| fault.into_reports(plan);
    let io = |doing: &'static str| move |error| Fault::io(doing)(error);
    let signals = Signals::take()
        .map_err(io("blocking signals"))
        .map_err(reported)?;
    raise_descriptor_limit()
        .map_err(io("raising the limit of descriptors"))
        .map_err(reported)?;
    forbid_core_dumps()
        .map_err(io("forbidding core dumps"))
        .map_err(reported)?;
    let target = Files::console_target(plan).map_err(reported)?;
    let (host_ends, guest_ends) = pipes()
        .map_err(io("making the console's pipes"))
        .map_err(reported)?;
    // Before a device is touched, so that nothing is missed.
    let mut faults = DmaFaults::none(plan);
    faults.arm(&options.root, &log).map_err(reported)?;
    let violations = Violations::open();
    // Before the fork, so that no other guest has them as long as either process lives.
    let ids = Ids::take(&options.state).map_err(|report| vec![report])?;
    let (keepers, supervisors) = Link::pair()
        .map_err(io("making the keeper's sockets"))
        .map_err(reported)?;
    let supervisor = std::process::id();

    match fork()
        .map_err(io("starting the keeper"))
        .map_err(reported)?
    {
        Side::Child => {
            let console = console::descriptors(&target, host_ends.both().0, host_ends.both().1);
            let mut fds = watch::descriptors(console, &signals, &faults, &violations, &supervisors);
            fds.held.push(ids.lock().as_raw_fd());
            let watched = Watched::inherited(fds, &target, &faults)
                .map_err(io("listing the files that the supervisor has"))
                .map_err(reported)?;
            // The supervisor's: what hostile hands can write to is not the keeper's to read.
            drop((signals, target, host_ends, faults, violations, supervisors));
            let keeper = Keeper {
                plan,
                options,
                log: &log,
                link: keepers,
                console: guest_ends,
                supervisor: Some(supervisor),
                watched,
            };
            reserved
                .note(plan)
                .map_err(io("noting who has the functions"))
                .map_err(reported)?;
            keeper.keep(reserved, ids, replan).map(Outcome::Ended)
        }
        Side::Parent(keeper) => {
            drop((keepers, guest_ends, replan));
            reserved.leave();
            let watched = Console::new(target, host_ends).and_then(|console| {
                let watch = Watch {
                    console,
                    faults,
                    violations,
                    signals,
                    link: supervisors,
                    log: &log,
                    thrift: Thrift::new(),
                    done: watch::Done::default(),
                };
                watch
                    .until_keeper_is_gone(|watch, id| guard(plan, watch, &ids, id))
                    .map(drop)
            });
            let told = told(plan, keeper, watched).map_err(|report| vec![report]);
            // One of them is who this process is by now.
            drop(ids);
            told
        }
    }
}

/// Gives up everything but the descriptors that are watched: the guest is about to run.
fn guard(plan: &Plan, watch: &Watch<'_>, ids: &Ids, id: u32) -> Result<u32, Report> {
    let mut fds = watch.descriptors();
    fds.held.push(ids.lock().as_raw_fd());
    let filter = supervisor_filter(&fds)?;
    // What the operator's shell had open, and what nothing goes to or comes from.
    own::keep_descriptors(&fds.numbers())?;
    let own = Own {
        id,
        descriptors: fds.limit(),
        absent: plan.sandbox.absent,
    };
    let entered = own::enter(&own)?;
    install(&filter)?;
    Ok(entered.landlock)
}

/// The keeper's status, once it is gone.
fn told(plan: &Plan, keeper: Child, watched: io::Result<()>) -> Result<Outcome, Report> {
    let report = |why: String| {
        Report::new(
            ErrorId::KeeperLost,
            format!("guest {} is not supervised any more", plan.name),
            why,
            "see the kernel log for a kill or a lack of memory, then put its devices right: narrows recover",
        )
    };
    let ended = keeper
        .wait()
        .map_err(|error| report(format!("waiting for the keeper: {error}")))?;
    match (watched, ended) {
        (Ok(()), Ended::Status(status)) => Ok(Outcome::Told(status)),
        (Ok(()), Ended::Signal(signal)) => Err(report(format!(
            "the keeper was killed by signal {signal}: nobody gave the devices back"
        ))),
        (Err(error), ended) => Err(report(format!(
            "the supervisor could not watch: {error}; the keeper then ended: {ended:?}"
        ))),
    }
}

/// A core of V would hold guest RAM. V and D inherit both: the limit keeps files away, the filter leaves nothing for a
/// program in `core_pattern`, which the limit does not bind.
///
/// *Source:* core(5).
fn forbid_core_dumps() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    match std::fs::write("/proc/self/coredump_filter", "0") {
        // A kernel that writes no cores.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written,
    }
}

/// Interrupt eventfds are many; the hard limit is what the operator meant to allow.
fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, all)?)
}
