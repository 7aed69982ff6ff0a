//! `narrows host apply`, `confirm` and `release`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use clap::Args;
use iommu::sysfs::SysRoot;
use serde::Serialize;

use super::{Machine, done, teller::Teller};
use crate::{
    cli::{Done, Outcome, agree::Question, written},
    error::{Color, ErrorId, Exit, Id, Report},
    spec::host::{HostSpec, Profiles, Safety, duration},
    sriov::{self, HostPlan, Observed, Step, Undo},
    state::State,
    vf::{self, Applied, Awaited, Job, KernelHands, Progress, SavedPlan, Shown, Stop},
    view::host::plan_text,
};

/// How long `--boot` waits for PFs that are not there yet.
const PFS: Duration = Duration::from_secs(60);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// The host file (TOML, docs/host-file.md)
    #[arg(required_unless_present = "plan_file")]
    file: Option<PathBuf>,
    /// Carry out this plan, kept by `plan --out`; only if the host is still as it was
    #[arg(long, value_name = "PLAN", conflicts_with = "file")]
    plan_file: Option<PathBuf>,
    /// Undo everything unless `narrows host confirm` comes within this time: 5s to 1h
    #[arg(long, value_name = "TIME")]
    confirm_within: Option<String>,
    /// Do what cannot be undone, such as erasing, without being asked
    #[arg(long)]
    yes: bool,
    /// At boot: wait for PFs that are not there yet; nobody is logged in
    #[arg(long)]
    boot: bool,
    /// Print progress as JSON, one object a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Release {
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Undo everything unless `narrows host confirm` comes within this time: 5s to 1h
    #[arg(long, value_name = "TIME", conflicts_with = "dry_run")]
    confirm_within: Option<String>,
    /// Do what cannot be undone, such as deleting namespaces that were made, without being asked
    #[arg(long)]
    yes: bool,
    /// Print progress as JSON, one object a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    exit: u8,
    done: usize,
    awaits_confirmation: bool,
    pending: &'a [sriov::Pending],
    held: &'a [sriov::Held],
    warnings: &'a [Report],
}

impl Apply {
    /// Does it.
    pub(super) fn carry_out(&self, root: &SysRoot, state: &State, color: Color) -> Outcome {
        let saved = self.plan_file.as_deref().map(read_plan).transpose()?;
        let spec = match (&self.file, &saved) {
            (Some(file), _) => HostSpec::read(file)?,
            (None, Some(saved)) => HostSpec::parse(&saved.file, &saved.config)?,
            (None, None) => return Err(vec![no_file()]),
        };
        let within = self.within(&spec)?;
        let profiles = Profiles::load(&spec)?;
        let safety = Safety {
            // Whoever applies at boot has no connection to lose.
            protect_login: spec.safety.protect_login && !self.boot,
            ..spec.safety
        };
        if self.boot {
            await_pfs(root, state, &spec, &profiles)?;
        }
        let spec = HostSpec { safety, ..spec };
        let planner = vf::planning(&spec, &profiles);
        // Looked at first, so that what cannot be undone is agreed to before anything is locked.
        let machine = Machine::read(root, state)?;
        let shown = planner(&machine.observed, &machine.records)?.plan;
        if !shown.refusals.is_empty() {
            return Err(shown.refusals);
        }
        agree(&shown, &machine.observed, color, self.yes, self.json)?;
        let stop = Stop::heard().map_err(|error| vec![deaf(&error)])?;
        let job = Job {
            planner: &planner,
            shown: Some(match &saved {
                Some(saved) => Shown::Saved(saved),
                None => Shown::Plan(&shown),
            }),
            verb: vf::Verb::Apply,
            file: Some((&spec.file, &spec.text)),
            is_stopped: &|| stop.is_asked(),
        };
        let mut warnings = spec.warnings.clone();
        let (applied, awaits) = match carried(root, state, &job, within, self.json)? {
            Carried::Out(applied, awaits) => (applied, awaits),
            Carried::ByTheParent(ended) => return Ok(ended),
        };
        warnings.extend(applied.plan.warnings.iter().cloned());
        self.told(&applied, awaits, warnings)
    }

    fn told(&self, applied: &Applied, awaits: Option<Duration>, warnings: Vec<Report>) -> Outcome {
        let status = applied.exit() as u8;
        if self.json {
            let document = Document {
                api_version: "v1alpha1",
                kind: "HostApplied",
                exit: status,
                done: applied.steps,
                awaits_confirmation: awaits.is_some(),
                pending: &applied.plan.pending,
                held: &applied.plan.held,
                warnings: &warnings,
            };
            let text = written(serde_json::to_string(&document))?;
            return Ok(done(status, text, Vec::new()));
        }
        let text = summary(applied.steps, &applied.plan) + &awaiting(awaits);
        Ok(done(status, text, warnings))
    }

    /// How long a confirmation may take.
    fn within(&self, spec: &HostSpec) -> Result<Option<Duration>, Vec<Report>> {
        match &self.confirm_within {
            // At boot nobody is there who could.
            None if self.boot => Ok(None),
            None => Ok(spec.confirm_within),
            Some(word) => read_within(word).map(Some),
        }
    }
}

impl Release {
    /// Does it.
    pub(super) fn carry_out(&self, root: &SysRoot, state: &State, color: Color) -> Outcome {
        let one = |report: Report| vec![report];
        let within = self.confirm_within.as_deref().map(read_within);
        let within = within.transpose()?;
        let Some(before) = state.baseline().map_err(one)? else {
            return Err(vec![Report::new(
                ErrorId::NeverApplied,
                "there is nothing to go back to",
                "no host file was ever applied here",
                "narrows host status shows what is there",
            )]);
        };
        let applied = match state.applied().map_err(one)? {
            Some(applied) => Some(HostSpec::parse(&applied.file, &applied.text)?),
            None => None,
        };
        let profiles = match &applied {
            Some(spec) => Profiles::load(spec)?,
            None => Profiles::built_in(),
        };
        let planner = vf::releasing(&before, &profiles, applied.as_ref());
        if self.dry_run {
            let machine = Machine::read(root, state)?;
            let plan = planner(&machine.observed, &machine.records)?.plan;
            let status = plan.exit() as u8;
            return Ok(super::plan::told(
                &plan,
                &machine.observed,
                false,
                color,
                status,
            ));
        }
        let machine = Machine::read(root, state)?;
        let shown = planner(&machine.observed, &machine.records)?.plan;
        if !shown.refusals.is_empty() {
            return Err(shown.refusals);
        }
        agree(&shown, &machine.observed, color, self.yes, self.json)?;
        let stop = Stop::heard().map_err(|error| vec![deaf(&error)])?;
        let job = Job {
            planner: &planner,
            shown: Some(Shown::Plan(&shown)),
            verb: vf::Verb::Release,
            file: None,
            is_stopped: &|| stop.is_asked(),
        };
        let (applied, awaits) = match carried(root, state, &job, within, self.json)? {
            Carried::Out(applied, awaits) => (applied, awaits),
            Carried::ByTheParent(ended) => return Ok(ended),
        };
        let text = summary(applied.steps, &applied.plan) + &awaiting(awaits);
        Ok(done(Exit::Done as u8, text, applied.plan.warnings))
    }
}

/// What came of a change.
enum Carried {
    /// It was carried out, and waits so long to be confirmed.
    Out(Applied, Option<Duration>),
    /// This process is the child of the one that tells it, and has ended its waiting.
    ByTheParent(Done),
}

/// Carries it out, and undoes it unless it is confirmed where a time is given.
fn carried(
    root: &SysRoot,
    state: &State,
    job: &Job<'_>,
    within: Option<Duration>,
    is_json: bool,
) -> Result<Carried, Vec<Report>> {
    let mut hands = KernelHands::new(root.clone());
    let mut teller = Teller::new(is_json);
    let mut say = |progress: Progress| teller.tell(&progress);
    let Some(within) = within else {
        let applied = vf::run(&mut hands, state, job, &mut say)?;
        return Ok(Carried::Out(applied, None));
    };
    let awaited = vf::run_until_confirmed(&mut hands, state, job, within, &mut say)?;
    Ok(match awaited {
        Awaited::Applied(applied) => Carried::Out(applied, None),
        Awaited::Awaiting { applied, within } => Carried::Out(applied, Some(within)),
        Awaited::Child { is_kept } => {
            let status = if is_kept { Exit::Done } else { Exit::Failed };
            Carried::ByTheParent(done(status as u8, String::new(), Vec::new()))
        }
    })
}

fn awaiting(within: Option<Duration>) -> String {
    within.map_or_else(String::new, |within| {
        let seconds = within.as_secs();
        format!("undone in {seconds} s unless confirmed: narrows host confirm\n")
    })
}

fn read_within(word: &str) -> Result<Duration, Vec<Report>> {
    duration(word).map_err(|report| vec![report])
}

/// Has the operator agree to what cannot be undone.
fn agree(
    plan: &HostPlan,
    observed: &Observed,
    color: Color,
    is_agreed: bool,
    is_json: bool,
) -> Result<(), Vec<Report>> {
    let lost = |step: &&Step| matches!(step.undo(), Undo::Impossible(_));
    let steps: Vec<&Step> = plan.steps.iter().filter(lost).collect();
    if steps.is_empty() || is_agreed {
        return Ok(());
    }
    let lost: Vec<String> = steps.iter().map(ToString::to_string).collect();
    Question {
        what: "the plan has steps that cannot be undone",
        shown: plan_text(plan, observed, false, color),
        lost: &lost,
    }
    .ask(is_json)
}

/// Confirms.
pub(super) fn confirm(state: &State) -> Outcome {
    let whose = vf::confirm(state).map_err(|report| vec![report])?;
    Ok(Done::with(format!("confirmed: {whose} stays")))
}

fn summary(steps: usize, plan: &HostPlan) -> String {
    let mut text = match steps {
        0 => "nothing to do: the machine is as it should be\n".to_owned(),
        1 => "1 step done and read back\n".to_owned(),
        count => format!("{count} steps done and read back\n"),
    };
    for held in &plan.held {
        text += &format!(
            "{} waits for guest {}: {}\n",
            held.vf, held.guest, held.what
        );
    }
    for pending in &plan.pending {
        text += &format!("{} needs more: {}\n", pending.pf, pending.what);
    }
    text
}

/// Waits until each PF of the file is there, or the time is up: what is missing then is told by the plan.
fn await_pfs(
    root: &SysRoot,
    state: &State,
    spec: &HostSpec,
    profiles: &Profiles,
) -> Result<(), Vec<Report>> {
    let deadline = Instant::now() + PFS;
    loop {
        let machine = Machine::read(root, state)?;
        let absent = match sriov::desired(spec, &machine.observed, &machine.records, profiles) {
            Ok(_) => return Ok(()),
            Err(reports) => reports
                .iter()
                .any(|report| report.id == Id::from(ErrorId::PfAbsent)),
        };
        if !absent || Instant::now() >= deadline {
            return Ok(());
        }
        sleep(LOOK);
    }
}

fn read_plan(path: &Path) -> Result<SavedPlan, Vec<Report>> {
    let text = fs::read_to_string(path).map_err(|error| {
        vec![Report::new(
            ErrorId::FileUnreadable,
            format!("cannot read the plan {}", path.display()),
            error.to_string(),
            "name a file that `narrows host plan --out` wrote",
        )]
    })?;
    SavedPlan::parse(path, &text).map_err(|report| vec![report])
}

fn no_file() -> Report {
    Report::new(
        ErrorId::Usage,
        "it is not said what to apply",
        "neither a host file nor a plan was named",
        "narrows host apply FILE",
    )
}

fn deaf(error: &io::Error) -> Report {
    Report::new(
        ErrorId::StepFailed,
        "cannot begin",
        format!("signals cannot be heard: {error}"),
        "see that no limit on descriptors is reached",
    )
}
