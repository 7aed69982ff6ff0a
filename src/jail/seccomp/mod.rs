//! The filter of the supervisor S: what it may still call once a guest runs, by the table of [`rules`].
//!
//! V and D make theirs themselves, in `jailed`. An inspection compares the live one with the same table.
//!
//! On entry of [`install`]: `no_new_privs` is set. On exit: the calling thread makes the calls of the table and no other, for
//! good.

mod table;

use std::{collections::BTreeMap, os::fd::RawFd};

use jailed::manifest::{Check, Operand, Rule};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};
use serde::{Deserialize, Serialize};

pub use self::table::rules;
use crate::error::{ErrorId, Report};

/// The descriptors of S, by what it does with them. One may be in several lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupervisorFds {
    /// Signals, the kernel log, the console's and the operator's input.
    pub read: Vec<RawFd>,
    /// Standard error, the console's and the operator's output.
    pub write: Vec<RawFd>,
    /// The socket to the keeper.
    pub socket: Vec<RawFd>,
    /// The terminal whose settings are put back.
    pub terminal: Vec<RawFd>,
    /// What is held and never used: the lock of the guest's users.
    pub held: Vec<RawFd>,
}

impl SupervisorFds {
    /// How many descriptors the process may have: one more than its highest number, and not less than the lists that it
    /// waits for are long.
    #[must_use]
    pub fn limit(&self) -> u64 {
        const WAITED: u64 = 8;
        let highest = self.numbers().pop();
        highest.map_or(WAITED, |fd| (u64::from(fd) + 1).max(WAITED))
    }

    /// All of them, each once, ascending.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        let all = [
            &self.read,
            &self.write,
            &self.socket,
            &self.terminal,
            &self.held,
        ];
        let all = all.into_iter().flatten();
        let mut numbers: Vec<u32> = all.map(|fd| fd.unsigned_abs()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

/// Makes the filter of S for its descriptors. Whatever else it calls ends it with `SIGSYS`.
///
/// # Errors
/// `bug`: the table does not make a filter.
pub fn supervisor_filter(fds: &SupervisorFds) -> Result<BpfProgram, Report> {
    compiled(&rules(fds)).map_err(|error| {
        Report::new(
            ErrorId::Bug,
            "the supervisor's filter cannot be made",
            error.to_string(),
            "report this with the version of narrows",
        )
    })
}

/// Puts the filter on the calling thread, for good. It has set `no_new_privs`.
///
/// # Errors
/// `jail-failed`.
pub fn install(filter: &BpfProgram) -> Result<(), Report> {
    apply_filter(filter).map_err(|error| {
        Report::new(
            ErrorId::JailFailed,
            "the supervisor cannot put itself into its jail",
            format!("seccomp: {error}"),
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        )
    })
}

fn compiled(rules: &[Rule]) -> Result<BpfProgram, BackendError> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
        let own = calls.entry(i64::from(rule.call)).or_default();
        let conditions = conditions(rule)?;
        // A call without a condition is one without a rule here: any argument will do. The table has one row a call.
        if !conditions.is_empty() {
            own.push(SeccompRule::new(conditions)?);
        }
    }
    SeccompFilter::new(
        calls,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?
    .try_into()
}

fn conditions(rule: &Rule) -> Result<Vec<SeccompCondition>, BackendError> {
    let mut conditions = Vec::new();
    for Check { argument, operand } in rule.checks.iter().flatten() {
        use SeccompCmpArgLen::{Dword, Qword};
        use SeccompCmpOp::{Eq, Ge, Le, MaskedEq};
        let mut add = |len, op, value| {
            SeccompCondition::new(*argument, len, op, value).map(|one| conditions.push(one))
        };
        match *operand {
            Operand::Low(number) => add(Dword, Eq, u64::from(number))?,
            Operand::LowRange { first, count } => {
                let last = first.saturating_add(count.saturating_sub(1));
                add(Dword, Ge, u64::from(first))?;
                add(Dword, Le, u64::from(last))?;
            }
            Operand::Wide { first, last } if first == last => add(Qword, Eq, first)?,
            Operand::Wide { first, last } => {
                add(Qword, Ge, first)?;
                add(Qword, Le, last)?;
            }
            Operand::OnlyBits(bits) => add(Qword, MaskedEq(!bits), 0)?,
        }
    }
    Ok(conditions)
}

#[cfg(test)]
#[path = "seccomp_test.rs"]
mod seccomp_test;
