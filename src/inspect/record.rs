//! The record of an inspection: docs/schema/inspect.schema.json says what each field is.

use jailed::manifest::{Check, Operand, Rule};
use serde::Serialize;

use super::{
    judge::{self, Finding, Look, State},
    names,
};

const API_VERSION: &str = "v1alpha1";

/// Whether all is as it is meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is.
    Match,
    /// It is not.
    Mismatch,
}

/// What came of looking at the processes of a guest.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    api_version: &'static str,
    kind: &'static str,
    /// The guest.
    pub guest: String,
    /// When, in UTC.
    pub at: String,
    /// The verdict on all of them.
    pub verdict: Verdict,
    /// Each process.
    pub processes: Vec<ProcessRecord>,
}

/// What came of looking at one process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessRecord {
    /// Which.
    pub role: &'static str,
    /// Its id.
    pub pid: u32,
    /// The user it is meant to be.
    pub uid: u32,
    /// The system calls that can be made, as its live filters say.
    pub reachable: Vec<ReachableCall>,
    /// The calls that are meant to be possible, each with its reason; left out of the log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<AllowedRule>,
    /// Every topic with what was read.
    pub findings: Vec<Finding>,
}

/// A system call that can be made with some arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReachableCall {
    /// Its number on x86-64.
    pub number: u32,
    /// Its name, or the number in words.
    pub name: String,
}

/// One row of the table of calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedRule {
    /// The call's name.
    pub call: String,
    /// What its arguments have to be; others may be anything.
    pub arguments: Vec<String>,
    /// What needs it.
    pub why: &'static str,
}

impl Inspection {
    /// The record of `processes`: a match where there are some and none has a mismatch.
    #[must_use]
    pub fn new(guest: &str, at: String, processes: Vec<ProcessRecord>) -> Self {
        let mut all = processes.iter().flat_map(|process| &process.findings);
        let is_wrong = processes.is_empty() || all.any(|f| f.state == State::Mismatch);
        Self {
            api_version: API_VERSION,
            kind: "Inspection",
            guest: guest.to_owned(),
            at,
            verdict: if is_wrong {
                Verdict::Mismatch
            } else {
                Verdict::Match
            },
            processes,
        }
    }

    /// Every mismatch, with whose it is.
    #[must_use]
    pub fn mismatches(&self) -> Vec<String> {
        let of = |process: &ProcessRecord| -> Vec<String> {
            let wrong = process.findings.iter().flat_map(|finding| {
                let said = finding.mismatches.iter();
                said.map(move |said| format!("{}: {said}", finding.id))
            });
            wrong
                .map(|said| format!("{}, process {}: {said}", process.role, process.pid))
                .collect()
        };
        self.processes.iter().flat_map(of).collect()
    }

    /// The whole record as a document.
    ///
    /// # Errors
    /// None is known.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// The record as one line, without the table of what is allowed.
    ///
    /// # Errors
    /// None is known.
    pub fn to_line(&self) -> serde_json::Result<String> {
        let mut short = self.clone();
        for process in &mut short.processes {
            process.allowed.clear();
        }
        serde_json::to_string(&short)
    }
}

impl ProcessRecord {
    pub(super) fn new(look: &Look<'_>) -> Self {
        let reachable = match look.comparisons {
            Ok(comparisons) => judge::calls::reachable(comparisons),
            // Then a finding says so.
            Err(_) => Vec::new(),
        };
        Self {
            role: look.expected.role.name(),
            pid: look.facts.pid,
            uid: look.expected.place.uid,
            reachable: reachable
                .into_iter()
                .map(|number| ReachableCall {
                    number,
                    name: names::call(number),
                })
                .collect(),
            allowed: look.expected.rules.iter().map(allowed).collect(),
            findings: judge::judge(look),
        }
    }
}

fn allowed(rule: &Rule) -> AllowedRule {
    let call = names::call(rule.call);
    let of = |check: &Check| {
        let is_request = call == "ioctl" && check.argument == 1;
        let number = |n: u32| match names::request(n).filter(|_| is_request) {
            Some(name) => name.to_owned(),
            None => format!("{n:#x}"),
        };
        let range = |first: u64, last: u64| match first == last {
            true => format!("{first:#x}"),
            false => format!("{first:#x} to {last:#x}"),
        };
        let what = match check.operand {
            Operand::Low(n) => number(n),
            Operand::LowRange { first, count } => range(
                u64::from(first),
                u64::from(first.saturating_add(count.saturating_sub(1))),
            ),
            Operand::Wide { first, last } => range(first, last),
            Operand::OnlyBits(bits) => format!("no bits but {bits:#x}"),
        };
        format!("argument {}: {what}", check.argument)
    };
    AllowedRule {
        arguments: rule.checks.iter().flatten().map(of).collect(),
        call,
        why: rule.why,
    }
}
