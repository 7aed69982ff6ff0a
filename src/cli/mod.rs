//! The command line: which verbs there are, and what each does.

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum, error::ErrorKind};
use iommu::sysfs::SysRoot;

use crate::{
    error::{Color, ErrorId, Exit, Renderer, Report, exit_of},
    host::Inventory,
    plan::{Plan, plan},
    spec::{Files, GuestSpec},
    supervisor,
};

/// Runs guests that have only SR-IOV virtual functions, fenced by the IOMMU.
#[derive(Debug, Parser)]
#[command(name = "narrows", version, max_term_width = 100)]
struct Cli {
    /// Look for /sys, /proc and /dev in this folder: another machine's, or a made-up one
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = When::Auto)]
    color: When,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check a guest file and the files it names, without looking at the host
    Check(Check),
    /// Show what `run` would do on this host, or everything that stands in the way
    Plan(Show),
    /// Run the guest until it ends, and give its devices back
    Run(Run),
}

#[derive(Debug, Args)]
struct Check {
    /// The guest file (TOML, docs/guest-file.md)
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
}

/// Runs the program; `arguments` begin with its name.
pub fn main(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let renderer = Renderer {
        color: cli.color.decide(),
        json: matches!(
            &cli.verb,
            Verb::Check(Check { json: true, .. }) | Verb::Plan(Show { json: true, .. })
        ),
    };
    let root = SysRoot::new(&cli.root);
    let outcome = match &cli.verb {
        Verb::Run(run) => run_guest(run, &root),
        Verb::Check(check) => check_file(check),
        Verb::Plan(show) => show_plan(show, &root),
    };
    let (status, printed) = match outcome {
        Ok(done) => {
            let warned = renderer.warnings(&done.warnings);
            let printed = warned.and_then(|()| match done.data.as_str() {
                "" => Ok(()),
                data => renderer.data(data),
            });
            (done.status, printed)
        }
        Err(reports) => (exit_of(&reports) as u8, renderer.errors(&reports)),
    };
    code(status, &printed)
}

fn check_file(check: &Check) -> Outcome {
    let spec = GuestSpec::read(&check.file)?;
    spec.check_files()?;
    Ok(Done {
        status: Exit::Done as u8,
        data: match check.json {
            true => "{\"apiVersion\":\"v1alpha1\",\"kind\":\"Checked\"}".to_owned(),
            false => format!(
                "{}: guest {} is well-formed",
                check.file.display(),
                spec.name
            ),
        },
        warnings: Vec::new(),
    })
}

fn show_plan(show: &Show, root: &SysRoot) -> Outcome {
    let plan = make_plan(&show.file, root)?;
    let data = match show.json {
        true => plan.to_json().map_err(|error| {
            let what = "the plan cannot be written as JSON";
            let fix = "use paths that are UTF-8";
            vec![Report::new(ErrorId::Bug, what, error.to_string(), fix)]
        })?,
        false => plan.to_string(),
    };
    Ok(Done {
        status: Exit::Done as u8,
        data,
        warnings: plan.warnings.clone(),
    })
}

fn run_guest(run: &Run, root: &SysRoot) -> Outcome {
    let plan = make_plan(&run.file, root)?;
    // The host may change between the plan and its execution; the supervisor asks again.
    let replan = || make_plan(&run.file, root);
    let options = supervisor::Options {
        root: root.clone(),
        stats: run.stats.clone(),
        is_quiet: run.quiet,
    };
    Ok(Done {
        status: supervisor::run(&plan, &options, &replan)?.exit_status(),
        data: String::new(),
        // The supervisor has said them before it began.
        warnings: Vec::new(),
    })
}

/// From the guest file and the host to the plan: the way that every verb which touches the host goes.
fn make_plan(file: &std::path::Path, root: &SysRoot) -> Result<Plan, Vec<Report>> {
    let spec = GuestSpec::read(file)?;
    let files: Files = spec.check_files()?;
    let host = Inventory::read(root).map_err(|report| vec![report])?;
    plan(&host, &spec, &files)
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
    /// `auto`: on a terminal, unless `NO_COLOR` is set.
    fn decide(self) -> Color {
        let is_wanted = match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let forbids = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                !forbids && io::IsTerminal::is_terminal(&io::stderr())
            }
        };
        if is_wanted {
            Color::Always
        } else {
            Color::Never
        }
    }
}
