//! A plan in a file: honoured only on the machine, and for the host file, that it was made for.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    error::{ErrorId, Report},
    sriov::{AttributeValue, HostPlan, KindFacts, Observed, PfFacts, Step},
};

/// The version of the file's format. A file of another one is refused.
const VERSION: u32 = 1;

/// A plan as `host plan --out` saves it. It holds the host file's whole text: another text is another plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SavedPlan {
    version: u32,
    kind: String,
    narrows: String,
    /// The host file, as it was named.
    pub file: PathBuf,
    /// Its text.
    pub config: String,
    /// The machine that it was planned for.
    pub observed: Observed,
    /// The steps.
    pub steps: Vec<Step>,
}

impl SavedPlan {
    /// A plan to save.
    #[must_use]
    pub fn new(file: &Path, text: &str, observed: Observed, steps: Vec<Step>) -> Self {
        Self {
            version: VERSION,
            kind: "host-plan".to_owned(),
            narrows: env!("CARGO_PKG_VERSION").to_owned(),
            file: file.to_owned(),
            config: text.to_owned(),
            observed,
            steps,
        }
    }

    /// As text.
    ///
    /// # Errors
    /// `bug`: a number that JSON cannot hold.
    pub fn to_text(&self) -> Result<String, Report> {
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .map_err(|error| {
                Report::new(
                    ErrorId::Bug,
                    "a plan cannot be written as text",
                    error.to_string(),
                    "report it, with the host file",
                )
            })
    }

    /// From the text of the file at `path`.
    ///
    /// # Errors
    /// `plan-stale` for what is no plan of this version.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Report> {
        let why = match serde_json::from_str::<Self>(text) {
            Ok(plan) if plan.version == VERSION && plan.kind == "host-plan" => return Ok(plan),
            Ok(plan) => format!(
                "it is of kind {} and version {}, this program knows host-plan and {VERSION}",
                plan.kind, plan.version
            ),
            Err(error) => error.to_string(),
        };
        let why = format!("{}: {why}", path.display());
        Err(stale("the plan file is none of this program's", vec![why]))
    }

    /// Shows that the machine is as it was, where steps touch it, and that these are the steps.
    ///
    /// # Errors
    /// `plan-stale` with what differs.
    pub(super) fn check(
        &self,
        text: Option<&str>,
        observed: &Observed,
        steps: &[Step],
    ) -> Result<(), Report> {
        let mut differs = Vec::new();
        if text.is_some_and(|text| text != self.config) {
            let file = self.file.display();
            differs.push(format!("{file}: the host file was changed since"));
        }
        for step in &self.steps {
            let pf = step.pf();
            let place = format!("{pf}: ");
            if differs.iter().any(|line| line.starts_with(&place)) {
                continue;
            }
            let facts = |of: &Observed| of.pfs.get(&pf).map(without_link);
            if facts(&self.observed) != facts(observed) {
                differs.push(format!("{pf}: it is not as it was when the plan was made"));
            }
        }
        check_steps(&self.steps, steps, &mut differs);
        match differs.is_empty() {
            true => Ok(()),
            false => Err(stale("the host is not as it was planned for", differs)),
        }
    }
}

/// Shows that what was shown is what would be done. Addresses that were to be made at the first apply are made by now.
///
/// # Errors
/// `plan-stale` with what differs.
pub(super) fn check_shown(shown: &HostPlan, steps: &[Step]) -> Result<(), Report> {
    let mut differs = Vec::new();
    let was_later = |step: &Step| {
        matches!(step, Step::Attribute { pf, index, to: AttributeValue::Mac(_), .. }
            if shown.later.iter().any(|later| (later.pf, later.index) == (*pf, *index)))
    };
    let steps: Vec<Step> = steps
        .iter()
        .filter(|step| !was_later(step))
        .cloned()
        .collect();
    check_steps(&shown.steps, &steps, &mut differs);
    match differs.is_empty() {
        true => Ok(()),
        false => Err(stale(
            "the host has changed since the plan was shown",
            differs,
        )),
    }
}

fn check_steps(shown: &[Step], steps: &[Step], differs: &mut Vec<String>) {
    let lacks = |of: &[Step], step: &Step| !of.contains(step);
    let told = |verb: &str, step: &Step| format!("{verb}: {step}");
    let mut found: Vec<String> = shown
        .iter()
        .filter(|step| lacks(steps, step))
        .map(|step| told("not needed any more", step))
        .collect();
    found.extend(
        steps
            .iter()
            .filter(|step| lacks(shown, step))
            .map(|step| told("needed now", step)),
    );
    if found.is_empty() && shown != steps {
        found.push("the order of the steps is another".to_owned());
    }
    // A page of them tells nothing more.
    const MOST: usize = 8;
    let more = found.len().saturating_sub(MOST);
    found.truncate(MOST);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    differs.append(&mut found);
}

/// Speed and carrier come and go by themselves.
fn without_link(facts: &PfFacts) -> PfFacts {
    let mut facts = facts.clone();
    if let KindFacts::Nic(nic) = &mut facts.kind {
        nic.has_carrier = false;
        nic.link = None;
    }
    facts
}

fn stale(what: &str, differs: Vec<String>) -> Report {
    let mut differs = differs.into_iter();
    let first = differs.next().unwrap_or_default();
    let report = Report::new(
        ErrorId::PlanStale,
        what,
        first,
        "plan again, read it, apply that; nothing was touched",
    );
    differs.fold(report, Report::and)
}
