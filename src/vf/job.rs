//! What is to be carried out, and what came of it.

use std::path::Path;

use super::{saved::SavedPlan, users::Live};
use crate::{
    error::{Exit, Report},
    sriov::{Desired, HostPlan, Observed, Records},
    state::HostLock,
};

/// What should be, and the steps to it.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// What should be.
    pub desired: Desired,
    /// The steps, and what stands in their way.
    pub plan: HostPlan,
}

/// Plans, from what is and what is kept: as `sriov::desired` and `sriov::plan` do.
pub type Planner<'a> = dyn Fn(&Observed, &Records) -> Result<Planned, Vec<Report>> + 'a;

/// What the operator was shown before.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'a> {
    /// This one, just now.
    Plan(&'a HostPlan),
    /// This plan, at some time.
    Saved(&'a SavedPlan),
}

/// What is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// What a host file says.
    Apply,
    /// What was before the first apply.
    Release,
}

impl Verb {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Release => "release",
        }
    }
}

/// What to carry out.
pub struct Job<'a> {
    /// Plans it.
    pub planner: &'a Planner<'a>,
    /// What the operator was shown; `None` where nobody was asked.
    pub shown: Option<Shown<'a>>,
    /// What it is.
    pub verb: Verb,
    /// The host file and its text; `None` for a release.
    pub file: Option<(&'a Path, &'a str)>,
    /// Whether a signal asks to stop: then the present step is finished, and all are undone.
    pub is_stopped: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("shown", &self.shown)
            .field("verb", &self.verb)
            .finish_non_exhaustive()
    }
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// How many steps.
    pub steps: usize,
    /// The plan, with its warnings and with what no step can do.
    pub plan: HostPlan,
}

impl Applied {
    /// How `narrows` ends on it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.plan.pending.is_empty() {
            true => Exit::Done,
            false => Exit::Needed,
        }
    }
}

/// Locked, planned again, and free to begin; nothing is touched.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) lock: HostLock,
    pub(super) observed: Observed,
    pub(super) planned: Planned,
    pub(super) live: Live,
}
