//! Whether this host can fence a device: pure functions from a [`Topology`] to [`Finding`]s.
//!
//! Each check is a row of a table: its id, why it exists, its sources, and whether an operator may accept what it
//! finds. A finding carries the evidence it was made from. What could not be read never passes.
#![forbid(unsafe_code)]

#[cfg(test)]
mod again_test;
#[cfg(test)]
mod any_change_test;
#[cfg(test)]
mod any_test;
mod bars;
mod boot;
mod driver;
mod express;
#[cfg(test)]
mod firing_test;
#[cfg(test)]
mod fixture_test;
mod function;
mod group;
mod host;
mod id;
#[cfg(test)]
mod isolation_test;
mod kernel;
mod memory;
mod nic;
mod path;
mod registers;
mod row;

use std::path::PathBuf;

use serde::Serialize;

pub use id::CheckId;
pub use row::NOT_READ;

use crate::{bdf::Bdf, error::Blame, topology::Topology};

/// What a finding means for whoever wants to assign a device; later ones are worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// Not as it should be; Narrows puts it right when it assigns the device.
    Fixable,
    /// Weaker than it could be, or an operator has accepted it by name.
    Warn,
    /// No device is assigned like this.
    Refuse,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(tag = "of", content = "bdf", rename_all = "kebab-case")]
pub enum Subject {
    /// The host as a whole.
    Host,
    /// A function.
    Function(Bdf),
}

/// What a check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The host as a whole, once.
    Host,
    /// Each function that is to be assigned.
    Function,
}

/// One answer of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check.
    pub check: CheckId,
    /// About what.
    pub subject: Subject,
    /// What was found, in a few words: `identity`, `8 members`, [`NOT_READ`].
    pub value: String,
    /// What that means.
    pub verdict: Verdict,
    /// Where it was read, and what was said there.
    pub evidence: Vec<Evidence>,
    /// What to do; `None` where nothing is to be done.
    pub fix: Option<String>,
}

/// A file and what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The file, or the register within it: `/sys/…/config`, `0000:00:02.0 ACS control`.
    pub source: PathBuf,
    /// What it said.
    pub said: String,
}

/// What is fixed about a check.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Its id.
    pub id: CheckId,
    /// The worst verdict it can come to.
    pub worst: Verdict,
    /// What it looks at, in a few words.
    pub title: &'static str,
    /// What goes wrong without it; completes "otherwise …".
    pub why: &'static str,
    /// What puts it right, in general; a finding says it for its case.
    pub remedy: &'static str,
    /// Specifications, kernel documents, CVEs.
    pub sources: &'static [&'static str],
    /// What an operator gives up who accepts its refusal for a device; `None` where nobody may.
    pub accepted: Option<&'static str>,
    /// Whose fault a refusal is.
    pub blame: Blame,
}

/// Judges the host as a whole: one finding for each check of [`Scope::Host`], in the order of the ids.
///
/// Passing findings are included: they are the evidence that a check was made.
#[must_use]
pub fn judge_host(topology: &Topology) -> Vec<Finding> {
    row::judge_host(topology)
}

/// Judges one function as if it were to be assigned together with `together` (itself among them) to one guest: one
/// finding for each check of [`Scope::Function`], in the order of the ids; none for a function that the host does not
/// have.
#[must_use]
pub fn judge_function(topology: &Topology, bdf: Bdf, together: &[Bdf]) -> Vec<Finding> {
    let Some(function) = topology.functions.get(&bdf) else {
        return Vec::new();
    };
    row::judge_function(&row::Case {
        topology,
        function,
        together,
    })
}

/// Words of the kernel's command line, one at least for each that a check looks for: whoever shortens a command line
/// keeps them.
#[must_use]
pub fn hazardous_words() -> Vec<String> {
    boot::hazardous_words().chain(path::acs_words()).collect()
}

/// The worst verdict; nothing found is no pass, but [`Verdict::Refuse`].
#[must_use]
pub fn worst(findings: &[Finding]) -> Verdict {
    let verdicts = findings.iter().map(|finding| finding.verdict);
    verdicts.max().unwrap_or(Verdict::Refuse)
}
