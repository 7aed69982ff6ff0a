//! One budget: what it is about, and whether records keep it.

use std::fmt::Write;

use serde::Deserialize;

use crate::{
    figure::figure,
    record::{Case, Guest, Interface, Record},
    report,
};

/// One budget.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// A figure's name, or a count's as `kind/name`.
    pub figure: String,
    /// The case whose records have it.
    pub case: Case,
    /// The most that any run may have.
    pub at_most: f64,
    /// Why that much.
    pub why: String,
    /// The figure by which it is divided, such as `units`.
    #[serde(default)]
    pub per: Option<String>,
    /// Of a guest at work, its work.
    #[serde(default)]
    pub work: Option<String>,
    /// Only by this interface.
    #[serde(default)]
    pub interface: Option<Interface>,
    /// Only with a console, or only without.
    #[serde(default)]
    pub console: Option<bool>,
    /// Only with so many vCPUs.
    #[serde(default)]
    pub vcpus: Option<u32>,
    /// Only with so many VFs of NICs.
    #[serde(default)]
    pub nics: Option<u32>,
    /// Only with so many VFs of NVMe controllers.
    #[serde(default)]
    pub nvmes: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    budget: Vec<Budget>,
}

/// Why a file of budgets is refused.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// It is not what [`Budget`] wants.
    #[error("it is no list of budgets")]
    Format(#[from] toml::de::Error),
    /// No figure has this name.
    #[error("budget {0}: there is no such figure of this case")]
    Figure(String),
    /// Times depend on the machine.
    #[error("budget {0}: times are no budgets, as they depend on the machine: hold a count")]
    Time(String),
    /// More is better there.
    #[error("budget {0}: a rate of which more is better has no upper limit")]
    Rate(String),
    /// No reason.
    #[error("budget {0}: say why it is that much")]
    Why(String),
}

/// What came of a budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The most of all runs.
    Kept(f64),
    /// Likewise, and it is too much.
    Exceeded(f64),
    /// No record has it: what is not measured is not kept.
    NotMeasured,
}

/// Parses budgets.
///
/// # Errors
/// [`BudgetError`].
pub fn parse(text: &str) -> Result<Vec<Budget>, BudgetError> {
    let File { budget } = toml::from_str(text)?;
    for one in &budget {
        let name = || one.figure.clone();
        if one.why.trim().is_empty() {
            return Err(BudgetError::Why(name()));
        }
        // A count has a kind and no row; it is a count by its type.
        if one.figure.contains('/') {
            continue;
        }
        match figure(&one.figure) {
            Some(row) if !row.cases.contains(&one.case) => return Err(BudgetError::Figure(name())),
            Some(row) if row.unit == "ns" => return Err(BudgetError::Time(name())),
            Some(row) if row.unit == "1/min" => return Err(BudgetError::Rate(name())),
            Some(_) => {}
            None => return Err(BudgetError::Figure(name())),
        }
    }
    Ok(budget)
}

impl Budget {
    /// Judges it by the worst of Narrows' records that it is about.
    #[must_use]
    pub fn judge(&self, records: &[Record]) -> Verdict {
        let of_this = records.iter().filter(|record| self.is_about(record));
        // One record that lacks the figure is as bad as none.
        let values: Option<Vec<_>> = of_this.map(|record| self.value(record)).collect();
        let worst = values.and_then(|values| values.into_iter().reduce(f64::max));
        match worst {
            None => Verdict::NotMeasured,
            Some(worst) if worst <= self.at_most => Verdict::Kept(worst),
            Some(worst) => Verdict::Exceeded(worst),
        }
    }

    fn is_about(&self, record: &Record) -> bool {
        let guest = |wanted: Option<u32>, pick: fn(&Guest) -> u32| {
            wanted.is_none() || wanted == record.guest.as_ref().map(pick)
        };
        record.vmm == report::pick::OURS
            && record.case == self.case
            && self.work.as_ref().is_none_or(|work| *work == record.work)
            && (self.interface.is_none() || self.interface == record.interface)
            && (self.console.is_none() || self.console == record.guest.map(|guest| guest.console))
            && guest(self.vcpus, |guest| guest.vcpus)
            && guest(self.nics, |guest| guest.nics)
            && guest(self.nvmes, |guest| guest.nvmes)
    }

    fn value(&self, record: &Record) -> Option<f64> {
        let value = match self.figure.split_once('/') {
            Some((kind, name)) => {
                let count = record.counts.get(kind)?.get(name)?;
                u32::try_from(*count).ok().map(f64::from)?
            }
            None => *record.figures.get(&self.figure)?,
        };
        match &self.per {
            None => Some(value),
            Some(per) => {
                let by = record.figures.get(per).filter(|by| **by > 0.0)?;
                Some(value / by)
            }
        }
    }

    /// Figure and what it is about, as in the name of a test.
    #[must_use]
    pub fn title(&self) -> String {
        let mut title = format!("{:?}::{}", self.case, self.figure).to_lowercase();
        // Writing into a string cannot fail.
        let mut more = |text: std::fmt::Arguments<'_>| {
            let _infallible = write!(title, "{text}");
        };
        if let Some(per) = &self.per {
            more(format_args!("_per_{per}"));
        }
        if let Some(work) = &self.work {
            more(format_args!("::{work}"));
        }
        if let Some(interface) = self.interface {
            let name = format!("{interface:?}").to_lowercase();
            more(format_args!("::{name}"));
        }
        match self.console {
            Some(true) => more(format_args!("::console")),
            Some(false) => more(format_args!("::no_console")),
            None => {}
        }
        for (number, name) in [
            (self.vcpus, "vcpus"),
            (self.nics, "nics"),
            (self.nvmes, "nvmes"),
        ] {
            if let Some(number) = number {
                more(format_args!("::{number}_{name}"));
            }
        }
        title
    }
}
