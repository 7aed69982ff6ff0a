//! The machine that runs a filter, from its begin or from where it stood.

use jailed::manifest::Instruction;

use super::{
    Stand,
    call::{Call, Compared, FIRST_FREE},
};

/// The machine between two instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inspect) struct Registers {
    /// The next instruction.
    at: usize,
    /// The free word that A was made from.
    origin: Option<usize>,
    a: u32,
    x: u32,
    memory: [u32; 16],
    /// The words that were looked at.
    pub(super) words: u16,
}

impl Registers {
    pub(super) const START: Self = Self {
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
pub(super) fn run(
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
pub(in crate::inspect) mod code {
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
    /// The same with A.
    pub(crate) const RETURN_A: u16 = super::RET | super::RET_A;
    /// A from the constant, from the length of the call, from memory; X likewise.
    pub(crate) const LOAD_CONSTANT: u16 = super::LD | super::IMM;
    pub(crate) const LOAD_LENGTH: u16 = super::LD | super::LEN;
    pub(crate) const LOAD_MEMORY: u16 = super::LD | super::MEM;
    pub(crate) const LOAD_X_CONSTANT: u16 = super::LDX | super::IMM;
    pub(crate) const LOAD_X_LENGTH: u16 = super::LDX | super::LEN;
    pub(crate) const LOAD_X_MEMORY: u16 = super::LDX | super::MEM;
    /// A, or X, to memory.
    pub(crate) const STORE: u16 = super::ST;
    pub(crate) const STORE_X: u16 = super::STX;
    /// From one register to the other.
    pub(crate) const A_TO_X: u16 = super::MISC;
    pub(crate) const X_TO_A: u16 = super::MISC | super::TXA;

    /// Whether it is a jump, if it is anything.
    pub(crate) const fn is_jump(code: u16) -> bool {
        code & 0x07 == super::JMP
    }

    /// Whether it calculates, if it is anything.
    pub(crate) const fn is_calculation(code: u16) -> bool {
        code & 0x07 == super::ALU
    }

    /// Whether a jump or a calculation takes X in place of its constant.
    pub(crate) const fn has_x(code: u16) -> bool {
        code & super::X != 0
    }
}
/// The size of what seccomp shows a filter.
pub(in crate::inspect) const DATA_BYTES: u32 = 64;

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
            ALU => match calculate(code, k, self.a, self.x)? {
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
        self.origin = (index >= FIRST_FREE).then_some(index);
        self.call.word(index)
    }

    /// Notes what A is compared with.
    fn note(&mut self, constant: u32) {
        if let Some(origin) = self.origin {
            self.compared.note(origin, constant);
        }
    }

    fn jump(&mut self, code: u16, k: u32, if_true: u8, if_false: u8) -> Option<Next> {
        if code == code::JUMP {
            return Some(Next::Skip(k));
        }
        let b = if code & X != 0 { self.x } else { k };
        self.note(b);
        let holds = compares(code, self.a, b)?;
        Some(Next::Skip(u32::from(if holds {
            if_true
        } else {
            if_false
        })))
    }
}

/// What A becomes; `None` for what is no instruction, `Some(None)` for a division by zero.
pub(in crate::inspect) fn calculate(code: u16, k: u32, a: u32, x: u32) -> Option<Option<u32>> {
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
    let b = if is_x { x } else { k };
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

/// What a conditional jump says of A and what it is compared with; `None` for what is no such jump.
pub(in crate::inspect) const fn compares(code: u16, a: u32, b: u32) -> Option<bool> {
    const JEQ: u16 = 0x10;
    const JGT: u16 = 0x20;
    const JGE: u16 = 0x30;
    const JSET: u16 = 0x40;
    Some(match code & !(X | 0x07) {
        JEQ => a == b,
        JGT => a > b,
        JGE => a >= b,
        JSET => a & b != 0,
        _ => return None,
    })
}
