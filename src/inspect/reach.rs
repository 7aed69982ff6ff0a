//! Which calls filters may let through, whatever their arguments are: never too few.
//!
//! [`super::compare`] asks about many arguments, one filter's ways at a time: of two filters, one of which allows a call for some
//! first argument and the other for some second, it may try no call that both allow. Here nothing is tried. Each filter runs
//! once for a number, with all that is not its number or convention unknown, and takes both ways where an unknown decides. A
//! call is made only where every filter lets it through, so a number of which one of them never does is out of reach. Too many
//! may be told: filters that let it through for arguments that exclude each other.
//!
//! *Source:* `kernel/seccomp.c` (`__seccomp_filter`), v6.12.

use std::collections::BTreeSet;

use jailed::manifest::{ARCH, Instruction};

use super::bpf::{self, WORDS, code};

/// Numbers that are looked at; the kernel has some 470.
const NUMBERS: u32 = 1024;
const ACTION: u32 = 0xFFFF_0000;
/// The actions after which the kernel may make the call. *Source:* `include/uapi/linux/seccomp.h` (v6.12).
const LETS_THROUGH: [u32; 4] = [
    libc::SECCOMP_RET_ALLOW,
    // Makes it, and writes it down.
    libc::SECCOMP_RET_LOG,
    // Whoever traces the thread, or listens, may have it made.
    libc::SECCOMP_RET_TRACE,
    libc::SECCOMP_RET_USER_NOTIF,
];

/// The numbers of this processor's own convention of which all of `filters` may let a call through.
#[must_use]
pub(super) fn reachable(filters: &[Vec<Instruction>]) -> BTreeSet<u32> {
    let may_pass = |number: &u32| {
        filters
            .iter()
            .all(|filter| may_let_through(filter, *number, ARCH))
    };
    (0..NUMBERS).filter(may_pass).collect()
}

/// What is known of the machine before an instruction; `None` is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    a: Option<u32>,
    x: Option<u32>,
    memory: [Option<u32>; 16],
}

impl Known {
    /// What holds of both.
    fn or(self, other: Self) -> Self {
        let same = |one: Option<u32>, other| one.filter(|_| one == other);
        let mut memory = self.memory;
        for (slot, other) in memory.iter_mut().zip(other.memory) {
            *slot = same(*slot, other);
        }
        Self {
            a: same(self.a, other.a),
            x: same(self.x, other.x),
            memory,
        }
    }
}

/// Where an instruction leads.
enum Next {
    /// To the one behind it, with this known.
    On(Known),
    /// That many further, to one or the other.
    Skip([u32; 2]),
    /// To the end, with this answer.
    Return(Option<u32>),
}

/// Whether `filter` may let a call `number` of convention `arch` through. Of what the kernel would not have taken nothing is
/// known, so it may.
fn may_let_through(filter: &[Instruction], number: u32, arch: u32) -> bool {
    let start = Known {
        a: Some(0),
        x: Some(0),
        memory: [Some(0); 16],
    };
    // Jumps lead forward only: when it is an instruction's turn, all ways to it have been gone.
    let mut before: Vec<Option<Known>> = vec![None; filter.len()];
    let Some(first) = before.first_mut() else {
        return true;
    };
    *first = Some(start);
    for (at, instruction) in filter.iter().enumerate() {
        let Some(known) = before.get(at).copied().flatten() else {
            continue;
        };
        let (known, skips) = match step(*instruction, known, number, arch) {
            None | Some(Next::Return(None)) => return true,
            Some(Next::Return(Some(value))) => {
                if LETS_THROUGH.contains(&(value & ACTION)) {
                    return true;
                }
                continue;
            }
            Some(Next::On(known)) => (known, [0; 2]),
            Some(Next::Skip(skips)) => (known, skips),
        };
        for skip in skips {
            let target = usize::try_from(skip)
                .ok()
                .and_then(|skip| at.checked_add(skip)?.checked_add(1));
            let Some(place) = target.and_then(|target| before.get_mut(target)) else {
                return true;
            };
            *place = Some(place.map_or(known, |other| other.or(known)));
        }
    }
    false
}

/// One instruction; `None` for one that seccomp does not take.
fn step(instruction: Instruction, mut known: Known, number: u32, arch: u32) -> Option<Next> {
    let Instruction {
        code,
        if_true,
        if_false,
        operand: k,
    } = instruction;
    let slot = usize::try_from(k).ok();
    match code {
        code::LOAD_WORD => {
            let index = usize::try_from(k / 4).ok()?;
            if !k.is_multiple_of(4) || index >= WORDS {
                return None;
            }
            known.a = match index {
                0 => Some(number),
                1 => Some(arch),
                _ => None,
            };
        }
        code::LOAD_CONSTANT => known.a = Some(k),
        code::LOAD_LENGTH => known.a = Some(bpf::DATA_BYTES),
        code::LOAD_MEMORY => known.a = *known.memory.get(slot?)?,
        code::LOAD_X_CONSTANT => known.x = Some(k),
        code::LOAD_X_LENGTH => known.x = Some(bpf::DATA_BYTES),
        code::LOAD_X_MEMORY => known.x = *known.memory.get(slot?)?,
        code::STORE => *known.memory.get_mut(slot?)? = known.a,
        code::STORE_X => *known.memory.get_mut(slot?)? = known.x,
        code::A_TO_X => known.x = known.a,
        code::X_TO_A => known.a = known.x,
        code::RETURN => return Some(Next::Return(Some(k))),
        code::RETURN_A => return Some(Next::Return(known.a)),
        code::JUMP => return Some(Next::Skip([k; 2])),
        _ if code::is_jump(code) => {
            let is_x = code::has_x(code);
            let with = if is_x { known.x } else { Some(k) };
            let (a, b) = (known.a.unwrap_or(0), with.unwrap_or(0));
            // Also where it is not known, so that what is no jump is none.
            let holds = bpf::compares(code, a, b)?;
            let [yes, no] = [if_true, if_false].map(u32::from);
            return Some(Next::Skip(match known.a.and(with) {
                None => [yes, no],
                Some(_) if holds => [yes; 2],
                Some(_) => [no; 2],
            }));
        }
        _ if code::is_calculation(code) => {
            // A divisor that is not known may be none or one; where it is zero the filter ends the thread, which lets nothing
            // through.
            let x = known.x.unwrap_or(1);
            let result = bpf::calculate(code, k, known.a.unwrap_or(0), x)?;
            let needs_x = code::has_x(code);
            if known.x.is_none() && needs_x {
                known.a = None;
            } else {
                match result {
                    None => return Some(Next::Return(Some(0))),
                    Some(result) => known.a = known.a.map(|_| result),
                }
            }
        }
        _ => return None,
    }
    Some(Next::On(known))
}

#[cfg(test)]
#[path = "reach_test.rs"]
mod reach_test;
