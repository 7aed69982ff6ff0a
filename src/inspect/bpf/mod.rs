//! An interpreter of classic BPF as seccomp runs it: any program gives a verdict, whatever it is made of.
//!
//! *Source:* `kernel/seccomp.c` (`seccomp_check_filter`, `seccomp_run_filters`) and `net/core/filter.c`
//! (`bpf_check_classic`, `bpf_convert_filter`), v6.12.

mod call;
mod machine;

use jailed::manifest::Instruction;

pub(super) use call::{Call, Compared, FIRST_ARG, FIRST_FREE, WORDS, halves};
pub(super) use machine::{DATA_BYTES, calculate, code, compares};
use machine::{Registers, run};

/// What the kernel does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Makes it.
    Allowed,
    /// Ends the process.
    KillsProcess,
    /// Anything else: the filter's return value.
    Other(u32),
    /// Not to be told: the kernel takes no such program.
    Malformed,
}

/// The verdict of one call, and which words of it decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// The verdict.
    pub(super) verdict: Verdict,
    /// A bit for each 32-bit word of the call that was looked at: the verdict is the same for all calls that agree in
    /// these.
    pub(super) words: u16,
}

const ACTION: u32 = 0xFFFF_0000;
const ALLOW: u32 = 0x7FFF_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

/// What the kernel does with `call` under all of `filters`: the most restrictive of their answers.
#[must_use]
pub(super) fn judge(filters: &[Vec<Instruction>], call: &Call, compared: &mut Compared) -> Judged {
    let answers = filters
        .iter()
        .map(|filter| run(filter, Registers::START, call, None, compared));
    worst(answers)
}

/// Whether one of `filters`, all of which the kernel takes, ends the process at `call` without a look at any of `words`.
#[must_use]
pub(super) fn is_ended_by_one(filters: &[Vec<Instruction>], call: &Call, words: u16) -> bool {
    let answers = filters.iter().map(|filter| {
        run(
            filter,
            Registers::START,
            call,
            None,
            &mut Compared::closed(),
        )
    });
    let mut has_end = false;
    for answer in answers {
        match answer {
            Stand::Ended {
                value: Some(value),
                words: looked_at,
            } => has_end |= value & ACTION == KILL_PROCESS && looked_at & words == 0,
            // No answer for this call: what it says of others is not known.
            Stand::Ended { value: None, .. } | Stand::At(_) => return false,
        }
    }
    has_end
}

/// Where each of `filters` stands with `call` before it first looks at word `index`: that far, all calls go that differ from
/// it in this word alone.
#[must_use]
pub(super) fn until(
    filters: &[Vec<Instruction>],
    call: &Call,
    index: usize,
    compared: &mut Compared,
) -> Vec<Stand> {
    let stands = filters
        .iter()
        .map(|filter| run(filter, Registers::START, call, Some(index), compared));
    stands.collect()
}

/// What [`judge`] says of `call`, for filters that stand so.
#[must_use]
pub(super) fn judge_from(
    filters: &[Vec<Instruction>],
    stands: &[Stand],
    call: &Call,
    compared: &mut Compared,
) -> Judged {
    let answers = filters
        .iter()
        .zip(stands)
        .map(|(filter, stand)| match stand {
            Stand::At(registers) => run(filter, *registers, call, None, compared),
            Stand::Ended { .. } => *stand,
        });
    worst(answers)
}

fn worst(answers: impl Iterator<Item = Stand>) -> Judged {
    let mut words = 0;
    let mut worst = ALLOW;
    for answer in answers {
        let (value, looked_at) = match answer {
            Stand::Ended { value, words } => (value, words),
            // One that has no answer yet has none at all.
            Stand::At(registers) => (None, registers.words),
        };
        words |= looked_at;
        let Some(value) = value else {
            return Judged {
                verdict: Verdict::Malformed,
                words,
            };
        };
        // Signed: what kills the process is below zero.
        let rank = |value: u32| (value & ACTION).cast_signed();
        if rank(value) < rank(worst) {
            worst = value;
        }
    }
    let verdict = match worst & ACTION {
        ALLOW => Verdict::Allowed,
        KILL_PROCESS => Verdict::KillsProcess,
        _ => Verdict::Other(worst),
    };
    Judged { verdict, words }
}

/// Where a filter stands with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// On its way.
    At(Registers),
    /// At its end.
    Ended {
        /// What it returns; `None` where the kernel would not have taken it.
        value: Option<u32>,
        /// The words it looked at.
        words: u16,
    },
}

#[cfg(test)]
mod bpf_test;
