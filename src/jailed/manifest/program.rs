//! Rules as a program of the kernel's packet filter machine, made without memory of its own.
//!
//! The wrong convention and the x32 calls come first, then the rules, then the end of the process. Rules of one call that
//! stand together share the test of its number, and those with equal first checks share these. Whatever fails falls
//! through to what stands next: a jump over more than 255 instructions is one of its own.
//!
//! *Source:* `Documentation/networking/filter.rst`, `include/uapi/linux/seccomp.h (v6.12)`.

use core::fmt;

use super::rule::{ARCH, Check, Operand, Rule, X32};
use super::rules::Rules;
pub use crate::sys::lock::Instruction;

/// The most instructions the kernel takes.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// A filter's program.
#[derive(Clone, Copy)]
pub struct Program {
    instructions: [Instruction; MAX_INSTRUCTIONS],
    used: usize,
    is_whole: bool,
}

/// Makes the program that allows what `rules` allow and ends the process at anything else.
#[must_use]
pub fn program(rules: &Rules) -> Program {
    let mut program = Program::empty();
    program.is_whole = rules.is_whole();
    program.prologue();
    let mut rest = rules.as_slice();
    while let Some(first) = rest.first() {
        let (same, others) = front(rest, |rule| rule.call == first.call);
        program.load(NUMBER);
        let skip = program.unless_equal(first.call);
        program.alternatives(same, 0);
        program.land(skip);
        rest = others;
    }
    program.push(RETURN, 0, 0, KILL_PROCESS);
    program
}

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_ABOVE: u16 = 0x25;
const JUMP_UNLESS_BELOW: u16 = 0x35;
const JUMP_IF_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7FFF_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

/// Offsets in [`super::SeccompData`].
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// A jump whose target is not known yet.
#[derive(Clone, Copy)]
struct Skip(usize);

impl Program {
    const fn empty() -> Self {
        Self {
            instructions: [Instruction::NOTHING; MAX_INSTRUCTIONS],
            used: 0,
            is_whole: true,
        }
    }

    /// Whether all rules are in it: one that is not whole must not be used.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The instructions.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        self.instructions.get(..self.used).unwrap_or_default()
    }

    fn prologue(&mut self) {
        self.load(ARCHITECTURE);
        self.push(JUMP_IF_EQUAL, 1, 0, ARCH);
        self.push(RETURN, 0, 0, KILL_PROCESS);
        self.load(NUMBER);
        self.push(JUMP_IF_BITS, 0, 1, X32);
        self.push(RETURN, 0, 0, KILL_PROCESS);
    }

    /// Allows what one of `rules` allows, from its check `depth` on; else the next instruction is reached.
    fn alternatives(&mut self, rules: &[Rule], depth: usize) {
        let check_of = |rule: &Rule| rule.checks.get(depth).copied().flatten();
        let mut rest = rules;
        while let Some(first) = rest.first() {
            let check = check_of(first);
            let (same, others) = front(rest, |rule| check_of(rule) == check);
            match check {
                None => self.push(RETURN, 0, 0, ALLOW),
                Some(check) => {
                    let skip = self.unless(check);
                    self.alternatives(same, depth + 1);
                    self.land(skip);
                }
            }
            rest = others;
        }
    }

    /// Goes on with the next instruction where `check` holds, else jumps.
    fn unless(&mut self, check: Check) -> Skip {
        let low = ARGUMENTS + 8 * u32::from(check.argument);
        let high = low + 4;
        match check.operand {
            Operand::Low(number) => {
                self.load(low);
                self.unless_equal(number)
            }
            Operand::LowRange { first, count } => {
                self.load(low);
                self.push(JUMP_UNLESS_BELOW, 0, 1, first);
                self.push(JUMP_IF_ABOVE, 0, 1, first.saturating_add(count - 1));
                self.skip()
            }
            Operand::OnlyBits(bits) => {
                let (low_bits, high_bits) = halves(!bits);
                self.load(low);
                self.push(JUMP_IF_BITS, 2, 0, low_bits);
                self.load(high);
                self.push(JUMP_IF_BITS, 0, 1, high_bits);
                self.skip()
            }
            Operand::Wide { first, last } => {
                let ((first_low, first_high), (last_low, last_high)) =
                    (halves(first), halves(last));
                self.load(high);
                if first_high == last_high {
                    self.push(JUMP_IF_EQUAL, 0, 3, first_high);
                    self.load(low);
                    self.push(JUMP_UNLESS_BELOW, 0, 1, first_low);
                    self.push(JUMP_IF_ABOVE, 0, 1, last_low);
                } else {
                    self.push(JUMP_UNLESS_BELOW, 0, 7, first_high);
                    self.push(JUMP_IF_ABOVE, 6, 0, last_high);
                    self.push(JUMP_IF_EQUAL, 0, 2, first_high);
                    self.load(low);
                    self.push(JUMP_UNLESS_BELOW, 4, 3, first_low);
                    self.push(JUMP_IF_EQUAL, 0, 3, last_high);
                    self.load(low);
                    self.push(JUMP_IF_ABOVE, 0, 1, last_low);
                }
                self.skip()
            }
        }
    }

    fn unless_equal(&mut self, number: u32) -> Skip {
        self.push(JUMP_IF_EQUAL, 1, 0, number);
        self.skip()
    }

    fn skip(&mut self) -> Skip {
        let at = self.used;
        self.push(JUMP, 0, 0, 0);
        Skip(at)
    }

    /// Lets a jump end here.
    fn land(&mut self, skip: Skip) {
        let over = u32::try_from(self.used.saturating_sub(skip.0 + 1)).unwrap_or(u32::MAX);
        if let Some(jump) = self.instructions.get_mut(skip.0) {
            *jump = Instruction::new(JUMP, 0, 0, over);
        }
    }

    fn load(&mut self, offset: u32) {
        self.push(LOAD, 0, 0, offset);
    }

    fn push(&mut self, code: u16, if_true: u8, if_false: u8, operand: u32) {
        match self.instructions.get_mut(self.used) {
            Some(place) => {
                *place = Instruction::new(code, if_true, if_false, operand);
                self.used += 1;
            }
            None => self.is_whole = false,
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.instructions()).finish()
    }
}

/// The rules at the front for which `is_same` holds, and the others.
fn front(rules: &[Rule], is_same: impl Fn(&Rule) -> bool) -> (&[Rule], &[Rule]) {
    let count = rules.iter().take_while(|rule| is_same(rule)).count();
    rules.split_at(count)
}

/// The low and the high half.
fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}
