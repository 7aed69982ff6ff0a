//! An interpreter of classic BPF as seccomp runs it: any program gives a verdict, whatever it is made of.
//!
//! *Source:* `kernel/seccomp.c` (`seccomp_check_filter`, `seccomp_run_filters`) and `net/core/filter.c`
//! (`bpf_check_classic`, `bpf_convert_filter`), v6.12.

use std::collections::BTreeSet;

use jailed::manifest::{Instruction, SeccompData};

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

/// Words of a call.
pub(super) const WORDS: usize = 16;
/// The word of the first argument's low half; the high half follows, then the next argument.
pub(super) const FIRST_ARG: usize = 4;

const ACTION: u32 = 0xFFFF_0000;
const ALLOW: u32 = 0x7FFF_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

/// What argument words were compared with while filters ran: where a verdict may change.
#[derive(Clone, Debug)]
pub(super) struct Compared {
    constants: BTreeSet<(usize, u32)>,
    is_open: bool,
}

impl Compared {
    /// Nothing so far.
    #[must_use]
    pub(super) const fn new() -> Self {
        Self {
            constants: BTreeSet::new(),
            is_open: true,
        }
    }

    /// For who does not ask.
    #[must_use]
    pub(super) const fn closed() -> Self {
        Self {
            constants: BTreeSet::new(),
            is_open: false,
        }
    }

    /// Forgets all, and begins to note.
    pub(super) fn clear(&mut self) {
        self.constants.clear();
        self.is_open = true;
    }

    /// Notes nothing any more.
    pub(super) const fn close(&mut self) {
        self.is_open = false;
    }

    /// The numbers that word `index` was compared with.
    #[must_use]
    pub(super) fn of(&self, index: usize) -> Vec<u32> {
        let all = self.constants.range((index, 0)..=(index, u32::MAX));
        all.map(|(_, constant)| *constant).collect()
    }
}

/// The low and the high half of a register.
#[must_use]
pub(super) fn halves(wide: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = wide.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}

/// A call as a filter loads it, by words: number, convention, both halves of where it was made, then those of each argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call([u32; WORDS]);

impl Call {
    /// The words of a call.
    #[must_use]
    pub(super) fn of(data: &SeccompData) -> Self {
        let mut words = [0; WORDS];
        let wide = std::iter::once(&data.instruction_pointer).chain(&data.args);
        let halves = wide.flat_map(|wide| <[u32; 2]>::from(halves(*wide)));
        let all = [data.number, data.arch].into_iter().chain(halves);
        for (word, value) in words.iter_mut().zip(all) {
            *word = value;
        }
        Self(words)
    }

    /// The call of these words.
    #[must_use]
    pub(super) fn data(&self) -> SeccompData {
        let [number, arch, low, high, a, b, c, d, e, f, g, h, i, j, k, l] = self.0;
        let wide = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        SeccompData {
            number,
            arch,
            instruction_pointer: wide(low, high),
            args: [
                wide(a, b),
                wide(c, d),
                wide(e, f),
                wide(g, h),
                wide(i, j),
                wide(k, l),
            ],
        }
    }

    /// Word `index` of it.
    #[must_use]
    pub(super) fn word(&self, index: usize) -> Option<u32> {
        self.0.get(index).copied()
    }

    /// Its number.
    #[must_use]
    pub(super) const fn number(&self) -> u32 {
        let [number, ..] = self.0;
        number
    }

    /// The convention by which it was made.
    #[must_use]
    pub(super) const fn arch(&self) -> u32 {
        let [_, arch, ..] = self.0;
        arch
    }

    /// The same call with word `index` being `value`; an index that is no argument's changes nothing.
    #[must_use]
    pub(super) fn with(mut self, index: usize, value: u32) -> Self {
        if let Some(word) = self.0.get_mut(index).filter(|_| index >= FIRST_ARG) {
            *word = value;
        }
        self
    }
}

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

/// The machine between two instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registers {
    /// The next instruction.
    at: usize,
    /// The argument word that A was made from.
    origin: Option<usize>,
    a: u32,
    x: u32,
    memory: [u32; 16],
    words: u16,
}

impl Registers {
    const START: Self = Self {
        at: 0,
        origin: None,
        a: 0,
        x: 0,
        memory: [0; 16],
        words: 0,
    };
}

/// The registers of the machine, with what it works on.
struct Machine<'a> {
    call: &'a Call,
    compared: &'a mut Compared,
    origin: Option<usize>,
    a: u32,
    x: u32,
    memory: [u32; 16],
    words: u16,
}

/// What an instruction does next.
enum Next {
    Skip(u32),
    Return(u32),
}

/// Runs one filter from `registers` on, to its end or to where it looks at word `until`.
fn run(
    filter: &[Instruction],
    registers: Registers,
    call: &Call,
    until: Option<usize>,
    compared: &mut Compared,
) -> Stand {
    let mut machine = Machine {
        call,
        compared,
        origin: registers.origin,
        a: registers.a,
        x: registers.x,
        memory: registers.memory,
        words: registers.words,
    };
    let mut at = registers.at;
    let stop = until.map(|index| index * 4);
    // Jumps lead forward only: no more steps than instructions.
    let value = loop {
        let Some(instruction) = filter.get(at) else {
            break None;
        };
        // What filters are made of, by the shortest way; `step` would do the same.
        let skip = match instruction.code {
            code::LOAD_WORD => {
                if stop.is_some_and(|stop| usize::try_from(instruction.operand) == Ok(stop)) {
                    return Stand::At(machine.registers(at));
                }
                match machine.load(instruction.operand) {
                    Some(value) => machine.a = value,
                    None => break None,
                }
                0
            }
            code::JUMP_IF_EQUAL => {
                machine.note(instruction.operand);
                let holds = machine.a == instruction.operand;
                u32::from(if holds {
                    instruction.if_true
                } else {
                    instruction.if_false
                })
            }
            code::JUMP => instruction.operand,
            code::RETURN => break Some(instruction.operand),
            _ => match machine.step(*instruction) {
                None => break None,
                Some(Next::Return(value)) => break Some(value),
                Some(Next::Skip(count)) => count,
            },
        };
        let next = usize::try_from(skip).ok().and_then(|c| at.checked_add(c));
        match next.and_then(|next| next.checked_add(1)) {
            Some(next) => at = next,
            None => break None,
        }
    };
    Stand::Ended {
        value,
        words: machine.words,
    }
}

// The fields of an instruction's code. *Source:* include/uapi/linux/bpf_common.h (v6.12).
const LD: u16 = 0x00;
const LDX: u16 = 0x01;
const ST: u16 = 0x02;
const STX: u16 = 0x03;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const RET: u16 = 0x06;
const MISC: u16 = 0x07;
const IMM: u16 = 0x00;
const ABS: u16 = 0x20;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
const X: u16 = 0x08;
const RET_A: u16 = 0x10;
const TXA: u16 = 0x80;
/// What most filters are made of: whole codes, all with a constant.
pub(super) mod code {
    /// A word of the call.
    pub(crate) const LOAD_WORD: u16 = super::LD | super::ABS;
    /// To the instruction that many behind the next.
    pub(crate) const JUMP: u16 = super::JMP;
    /// A jump where A is the constant.
    pub(crate) const JUMP_IF_EQUAL: u16 = super::JMP | 0x10;
    /// A jump where A is more.
    pub(crate) const JUMP_IF_ABOVE: u16 = super::JMP | 0x20;
    /// A jump where A is not less.
    pub(crate) const JUMP_IF_AT_LEAST: u16 = super::JMP | 0x30;
    /// A jump where A has one of the bits.
    pub(crate) const JUMP_IF_BITS: u16 = super::JMP | 0x40;
    /// The end, with the constant as the answer.
    pub(crate) const RETURN: u16 = super::RET;
}
/// The size of what seccomp shows a filter.
const DATA_BYTES: u32 = 64;

impl Machine<'_> {
    const fn registers(&self, at: usize) -> Registers {
        Registers {
            at,
            origin: self.origin,
            a: self.a,
            x: self.x,
            memory: self.memory,
            words: self.words,
        }
    }

    /// Carries out one instruction; `None` for one that seccomp does not take.
    fn step(&mut self, instruction: Instruction) -> Option<Next> {
        let Instruction {
            code,
            if_true,
            if_false,
            operand: k,
        } = instruction;
        let slot = usize::try_from(k).ok();
        match code & 0x07 {
            LD => {
                self.a = match code & !0x07 {
                    ABS => self.load(k)?,
                    LEN => DATA_BYTES,
                    IMM => k,
                    MEM => *self.memory.get(slot?)?,
                    _ => return None,
                }
            }
            LDX => {
                self.x = match code & !0x07 {
                    LEN => DATA_BYTES,
                    IMM => k,
                    MEM => *self.memory.get(slot?)?,
                    _ => return None,
                }
            }
            ST if code == ST => *self.memory.get_mut(slot?)? = self.a,
            STX if code == STX => *self.memory.get_mut(slot?)? = self.x,
            ALU => match self.calculate(code, k)? {
                Some(a) => self.a = a,
                // A division by an X of zero ends the program.
                None => return Some(Next::Return(0)),
            },
            JMP => return self.jump(code, k, if_true, if_false),
            RET if code == RET => return Some(Next::Return(k)),
            RET if code == RET | RET_A => return Some(Next::Return(self.a)),
            MISC if code == MISC => self.x = self.a,
            MISC if code == MISC | TXA => self.a = self.x,
            _ => return None,
        }
        Some(Next::Skip(0))
    }

    fn load(&mut self, offset: u32) -> Option<u32> {
        if !offset.is_multiple_of(4) || offset >= DATA_BYTES {
            return None;
        }
        let index = usize::try_from(offset / 4).ok()?;
        self.words |= 1 << index;
        self.origin = (index >= FIRST_ARG).then_some(index);
        self.call.0.get(index).copied()
    }

    /// Notes what A is compared with.
    fn note(&mut self, constant: u32) {
        if let Some(origin) = self.origin.filter(|_| self.compared.is_open) {
            self.compared.constants.insert((origin, constant));
        }
    }

    /// `None` for what is no instruction, `Some(None)` for a division by zero.
    fn calculate(&self, code: u16, k: u32) -> Option<Option<u32>> {
        const ADD: u16 = 0x00;
        const SUB: u16 = 0x10;
        const MUL: u16 = 0x20;
        const DIV: u16 = 0x30;
        const OR: u16 = 0x40;
        const AND: u16 = 0x50;
        const LSH: u16 = 0x60;
        const RSH: u16 = 0x70;
        const NEG: u16 = 0x80;
        const XOR: u16 = 0xA0;
        let is_x = code & X != 0;
        let (a, b) = (self.a, if is_x { self.x } else { k });
        Some(Some(match code & !(X | 0x07) {
            ADD => a.wrapping_add(b),
            SUB => a.wrapping_sub(b),
            MUL => a.wrapping_mul(b),
            DIV if !is_x && b == 0 => return None,
            DIV => return Some(a.checked_div(b)),
            OR => a | b,
            AND => a & b,
            XOR => a ^ b,
            LSH | RSH if !is_x && b >= 32 => return None,
            LSH => a.wrapping_shl(b),
            RSH => a.wrapping_shr(b),
            NEG if !is_x => a.wrapping_neg(),
            _ => return None,
        }))
    }

    fn jump(&mut self, code: u16, k: u32, if_true: u8, if_false: u8) -> Option<Next> {
        const JA: u16 = 0x00;
        const JEQ: u16 = 0x10;
        const JGT: u16 = 0x20;
        const JGE: u16 = 0x30;
        const JSET: u16 = 0x40;
        if code == JMP | JA {
            return Some(Next::Skip(k));
        }
        let b = if code & X != 0 { self.x } else { k };
        self.note(b);
        let holds = match code & !(X | 0x07) {
            JEQ => self.a == b,
            JGT => self.a > b,
            JGE => self.a >= b,
            JSET => self.a & b != 0,
            _ => return None,
        };
        Some(Next::Skip(u32::from(if holds {
            if_true
        } else {
            if_false
        })))
    }
}

#[cfg(test)]
#[path = "bpf_test.rs"]
mod bpf_test;
