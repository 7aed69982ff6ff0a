//! The command line: which verbs there are, and what each does.

mod agree;
#[cfg(feature = "breakout")]
mod breakout;
mod capture;
mod doctor;
mod explain;
mod host;
mod inspect;
mod inventory;
mod planning;
mod ps;
mod quarantine;
mod recover;
mod reserve;
mod scene;
mod service;
mod vf;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum, error::ErrorKind};
use iommu::sysfs::SysRoot;

use self::{
    planning::{plan_without, replan},
    reserve::{Lost, ToRun, reserve},
};
use crate::{
    error::{Color, ErrorId, Exit, Renderer, Report, exit_of},
    host::machine::{open_root, read_only},
    spec::{
        GuestSpec,
        host::{HostSpec, Profiles},
    },
    state::{DEFAULT_FOLDER, State},
    supervisor,
    vf::lease::Purpose,
};

/// Runs guests that have only SR-IOV virtual functions, fenced by the IOMMU.
#[derive(Debug, Parser)]
#[command(name = "narrows", version, max_term_width = 100)]
struct Cli {
    /// Look for /sys, /proc and /dev in this folder or machine file: another machine, or a made-up one
    #[arg(long, global = true, value_name = "PLACE", default_value = "/")]
    root: PathBuf,
    /// Keep in this folder what outlives a run, such as the quarantine (default: var/lib/narrows below the root)
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = When::Auto)]
    color: When,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check a guest file or a host file, and the files it names, without looking at the host
    Check(Check),
    /// Show what `run` would do on this host, or everything that stands in the way
    Plan(Show),
    /// Run the guest until it ends, and give its devices back
    Run(Run),
    /// Judge whether this host can fence devices, and which of them can be assigned
    Doctor(doctor::Doctor),
    /// Show the host's devices: ports, groups, PFs, VFs, drivers
    Inventory(inventory::Inventory),
    /// Explain a check or an error: why, what puts it right, sources
    Explain(explain::Explain),
    /// Write what Narrows sees of this host to a machine file, without what identifies it
    Capture(capture::Capture),
    /// Read from the kernel what the processes of a running guest are, and compare it with what they are meant to be
    Inspect(inspect::Inspect),
    /// Be the keeper of a guest whose supervisor is another service (docs/systemd.md)
    Keep(service::Keep),
    /// Be the supervisor of a guest whose keeper is another service (docs/systemd.md)
    Watch,
    /// Declare what this host should be: plan, apply, status, release
    Host(host::Host),
    /// List the VFs and what became of them, or end leases
    Vf(vf::Vf),
    /// List the guests of this host, with their VFs
    Ps(ps::Ps),
    /// List the functions that no guest may have, or release some by name
    Quarantine(quarantine::Quarantine),
    /// Try to break out of V and D, in the lab
    #[cfg(feature = "breakout")]
    Breakout(breakout::Breakout),
    /// Put right what runs that were killed have left behind
    Recover(recover::Recover),
    /// List the steps at which a run can be made to crash
    #[cfg(feature = "breakout")]
    CrashSteps,
}

#[derive(Debug, Args)]
struct Check {
    /// The guest file (TOML, docs/guest-file.md) or host file (TOML, docs/host-file.md)
    file: PathBuf,
    /// Print errors as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Show {
    /// The guest file (TOML, docs/guest-file.md)
    file: PathBuf,
    /// Print the plan, or the errors, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Run {
    /// The guest file (TOML, docs/guest-file.md)
    file: PathBuf,
    /// Write figures as JSON to this file, at the end and on SIGUSR1
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// Say nothing about progress
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

/// What a verb ends with: what to print, or what is wrong.
type Outcome = Result<Done, Vec<Report>>;

/// What a verb has to say.
struct Done {
    /// Exit status; 0 but for a guest that did not power itself off.
    status: u8,
    data: String,
    warnings: Vec<Report>,
    /// What a verb that was to look has found in the way, said after the rest.
    refusals: Vec<Report>,
}

impl Done {
    /// Success with this to print.
    fn with(data: String) -> Self {
        Self {
            status: Exit::Done as u8,
            data,
            warnings: Vec::new(),
            refusals: Vec::new(),
        }
    }
}

impl Verb {
    /// Whether errors are printed as JSON, like what was asked for.
    fn is_json(&self) -> bool {
        match self {
            Self::Check(check) => check.json,
            Self::Plan(show) => show.json,
            Self::Run(_) | Self::Keep(_) | Self::Watch => false,
            Self::Doctor(doctor) => doctor.json,
            Self::Inventory(inventory) => inventory.json,
            Self::Explain(explain) => explain.json,
            Self::Capture(_) => false,
            Self::Inspect(inspect) => inspect.json,
            Self::Host(host) => host.is_json(),
            Self::Vf(vf) => vf.is_json(),
            Self::Ps(ps) => ps.json,
            Self::Quarantine(quarantine) => quarantine.json,
            #[cfg(feature = "breakout")]
            Self::Breakout(_) => false,
            Self::Recover(recover) => recover.json,
            #[cfg(feature = "breakout")]
            Self::CrashSteps => false,
        }
    }
}

/// Runs the program; `arguments` begin with its name.
pub fn main(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let renderer = Renderer {
        color: cli.color.decide(&io::stderr()),
        json: cli.verb.is_json(),
    };
    let outcome = do_verb(&cli);
    let (status, printed) = match outcome {
        Ok(done) => {
            let warned = renderer.warnings(&done.warnings);
            let printed = warned.and_then(|()| match done.data.as_str() {
                "" => Ok(()),
                data => renderer.data(data),
            });
            let printed = printed.and_then(|()| match done.refusals.as_slice() {
                [] => Ok(()),
                refusals => renderer.errors(refusals),
            });
            (done.status, printed)
        }
        Err(reports) => (exit_of(&reports) as u8, renderer.errors(&reports)),
    };
    code(status, &printed)
}

fn do_verb(cli: &Cli) -> Outcome {
    // Not opened for `check`, which has no use for a host.
    let root = || open_root(&cli.root).map_err(|report| vec![report]);
    let state = |root: &SysRoot| {
        let folder = cli.state.clone();
        let usual = root.path(DEFAULT_FOLDER);
        match folder {
            // A machine file has no folder of its own.
            Some(folder) if root.is_read_only() => State::new(folder),
            Some(folder) => State::new(folder).besides(usual),
            None => State::new(usual),
        }
    };
    // A machine file has none but one that is named.
    let known_state = |root: &SysRoot| {
        let is_known = cli.state.is_some() || !root.is_read_only();
        is_known.then(|| state(root))
    };
    let color = cli.color.decide(&io::stdout());
    match &cli.verb {
        Verb::Check(check) => check_file(check),
        Verb::Plan(show) => {
            root().and_then(|root| show_plan(show, &root, known_state(&root).as_ref()))
        }
        Verb::Run(run) => root().and_then(|root| run_guest(run, &root, &state(&root))),
        Verb::Keep(keep) => root().and_then(|root| keep.keep(&root, &state(&root))),
        Verb::Watch => service::watch_guest(),
        Verb::Host(host) => root().and_then(|root| host.run(&root, &state(&root), color)),
        Verb::Vf(vf) => root().and_then(|root| vf.run(&root, &state(&root), color)),
        Verb::Ps(ps) => root().and_then(|root| ps.list(&root, &state(&root), color)),
        Verb::Quarantine(asked) => root().and_then(|root| match known_state(&root) {
            Some(state) => asked.answer(&state),
            None => {
                let why = "a machine file tells nothing of quarantine";
                Err(vec![read_only(&root, "asked for its quarantine", why)])
            }
        }),
        Verb::Recover(asked) => root().and_then(|root| {
            if root.is_read_only() {
                let why = "its devices are not here: nothing was touched";
                return Err(vec![read_only(&root, "recovered", why)]);
            }
            asked.run(&root, &state(&root))
        }),
        #[cfg(feature = "breakout")]
        Verb::CrashSteps => Ok(Done::with(supervisor::crash_steps())),
        Verb::Capture(capture) => capture.run(&root()?),
        #[cfg(feature = "breakout")]
        Verb::Breakout(asked) => root().and_then(|root| asked.run(&root, &state(&root))),
        Verb::Doctor(doctor) => {
            root().and_then(|root| doctor.run(&root, known_state(&root).as_ref(), color))
        }
        Verb::Inspect(inspect) => root().and_then(|root| match root.is_read_only() {
            true => {
                let why = "its processes are not here";
                Err(vec![read_only(&root, "asked for a guest that runs", why)])
            }
            false => inspect.run(&root, &state(&root), color),
        }),
        Verb::Inventory(inventory) => inventory.run(&root()?, color),
        Verb::Explain(explain) => explain.run(color),
    }
}

fn check_file(check: &Check) -> Outcome {
    // A file that cannot be read is no host file; the reader of guest files says why.
    let text = std::fs::read_to_string(&check.file).unwrap_or_default();
    let (what, warnings) = match HostSpec::is_host_file(&text) {
        true => {
            let spec = HostSpec::read(&check.file)?;
            Profiles::load(&spec)?;
            let counted = |count: usize, noun: &str| match count {
                1 => format!("1 {noun}"),
                _ => format!("{count} {noun}s"),
            };
            let pfs = counted(spec.pfs.len(), "PF");
            let pools = counted(spec.pools.len(), "pool");
            (format!("host file of {pfs} and {pools}"), spec.warnings)
        }
        false => {
            let spec = GuestSpec::read(&check.file)?;
            spec.check_files()?;
            (format!("guest {}", spec.name), Vec::new())
        }
    };
    let data = match check.json {
        true => "{\"apiVersion\":\"v1alpha1\",\"kind\":\"Checked\"}".to_owned(),
        false => format!("{}: {what} is well-formed", check.file.display()),
    };
    Ok(Done {
        warnings,
        ..Done::with(data)
    })
}

fn show_plan(show: &Show, root: &SysRoot, state: Option<&State>) -> Outcome {
    let plan = plan_without(&show.file, root, state, &Lost::new(), Purpose::Show)?.plan;
    let data = match show.json {
        true => written(plan.to_json())?,
        false => plan.to_string(),
    };
    Ok(Done {
        warnings: plan.warnings.clone(),
        ..Done::with(data)
    })
}

fn run_guest(run: &Run, root: &SysRoot, state: &State) -> Outcome {
    let ToRun {
        plan,
        reserved,
        host,
    } = plan_to_run(run, root, state)?;
    // The host may change between the plan and its execution; the supervisor asks again.
    let replan = replan(&run.file, root, state, host);
    let options = options_of(run, root, state);
    Ok(Done {
        // Once in the keeper and once in the supervisor, with the same status.
        status: match supervisor::run(&plan, reserved, &options, replan)? {
            supervisor::Outcome::Ended(end) => end.exit_status(),
            supervisor::Outcome::Told(status) => status,
        },
        data: String::new(),
        // The supervisor has said them before it began.
        warnings: Vec::new(),
        refusals: Vec::new(),
    })
}

/// The plan of a guest that is to run, on a host that is this one, with what it needs for itself.
fn plan_to_run(run: &Run, root: &SysRoot, state: &State) -> Result<ToRun, Vec<Report>> {
    if root.is_read_only() {
        let why = "its devices are not here: nothing was touched";
        return Err(vec![read_only(root, "used to run a guest", why)]);
    }
    reserve(&run.file, root, state)
}

fn options_of(run: &Run, root: &SysRoot, state: &State) -> supervisor::Options {
    supervisor::Options {
        root: root.clone(),
        state: state.clone(),
        stats: run.stats.clone(),
        is_quiet: run.quiet,
        #[cfg(feature = "breakout")]
        breakout: None,
    }
}

/// A document, unless it could not be written.
fn written(document: serde_json::Result<String>) -> Result<String, Vec<Report>> {
    document.map_err(|error| {
        let what = "what was asked for cannot be written as JSON";
        let fix = "use paths that are UTF-8";
        vec![Report::new(ErrorId::Bug, what, error.to_string(), fix)]
    })
}

/// What clap has to say: help and version are data, everything else is an error of usage.
fn usage(error: &clap::Error) -> ExitCode {
    let is_asked_for = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let exit = if is_asked_for {
        Exit::Done
    } else {
        Exit::Usage
    };
    code(exit as u8, &error.print())
}

/// The exit status; a reader who has gone away is no failure, anything else that cannot be printed is one.
fn code(status: u8, printed: &io::Result<()>) -> ExitCode {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe && status == Exit::Done as u8 => {
            ExitCode::from(Exit::Failed as u8)
        }
        Ok(()) | Err(_) => ExitCode::from(status),
    }
}

impl When {
    /// `auto`: where `stream` is a terminal, unless `NO_COLOR` is set.
    fn decide(self, stream: &impl io::IsTerminal) -> Color {
        let is_wanted = match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let forbids = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                !forbids && stream.is_terminal()
            }
        };
        if is_wanted {
            Color::Always
        } else {
            Color::Never
        }
    }
}
