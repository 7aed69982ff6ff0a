//! How far a change of the host is, said as it goes on.

use serde::{Deserialize, Serialize};

use crate::error::{ErrorId, Id, Report};

/// One line of progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Progress {
    /// A step begins: the `at`-th of `of`, from 1.
    Begun {
        /// Which.
        at: usize,
        /// Of how many.
        of: usize,
        /// In words.
        step: String,
    },
    /// A long step goes on.
    Percent {
        /// Which.
        at: usize,
        /// How far it is, of 100.
        percent: u8,
    },
    /// A step is done and read back.
    Done {
        /// Which.
        at: usize,
    },
    /// A step is left out.
    LeftOut {
        /// Which.
        at: usize,
        /// Why.
        why: String,
    },
    /// A step is taken back.
    Undoing {
        /// Which.
        at: usize,
        /// In words.
        step: String,
    },
    /// All steps are done; they are undone unless somebody confirms.
    Awaiting {
        /// For how long, in seconds.
        seconds: u64,
    },
    /// Somebody has confirmed.
    Confirmed,
    /// It has ended without success.
    Failed {
        /// The reports.
        reports: Vec<Told>,
    },
}

impl Progress {
    pub(super) fn failed(reports: &[Report]) -> Self {
        Self::Failed {
            reports: reports.iter().map(Told::of).collect(),
        }
    }
}

/// A report, as one process tells it another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    id: String,
    what: String,
    why: Vec<String>,
    fix: String,
}

impl Told {
    fn of(report: &Report) -> Self {
        Self {
            id: report.id.name().to_owned(),
            what: report.what.clone(),
            why: report.why.clone(),
            fix: report.fix.clone(),
        }
    }

    /// As a report again.
    pub(super) fn report(&self) -> Report {
        let id = Id::all().find(|id| id.name() == self.id);
        let mut report = Report::new(
            id.unwrap_or(Id::Tool(ErrorId::StepFailed)),
            self.what.clone(),
            String::new(),
            self.fix.clone(),
        );
        report.why.clone_from(&self.why);
        report
    }
}

/// Hears how far it is.
pub type Say<'a> = dyn FnMut(Progress) + 'a;
