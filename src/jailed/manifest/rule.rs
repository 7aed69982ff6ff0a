//! A rule: one system call, what its arguments must be, and why it is needed.

/// What the kernel shows to a filter.
///
/// *Source:* `include/uapi/linux/seccomp.h, struct seccomp_data (v6.12)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeccompData {
    /// The call's number.
    pub number: u32,
    /// The convention by which it was made: [`ARCH`] or another.
    pub arch: u32,
    /// Where it was made.
    pub instruction_pointer: u64,
    /// Its arguments, whole registers.
    pub args: [u64; 6],
}

/// `AUDIT_ARCH_X86_64`.
pub const ARCH: u32 = 0xC000_003E;
/// Set in the numbers of the x32 calls.
pub const X32: u32 = 0x4000_0000;

/// The most checks of one rule.
pub const MAX_CHECKS: usize = 4;

/// One call that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The call's number.
    pub call: u32,
    /// All of these must hold.
    pub checks: [Option<Check>; MAX_CHECKS],
    /// What needs it.
    pub why: &'static str,
}

impl Rule {
    /// Whether it allows the call.
    #[must_use]
    pub fn allows(&self, data: &SeccompData) -> bool {
        data.arch == ARCH
            && data.number == self.call
            && self.checks.iter().flatten().all(|check| check.holds(data))
    }
}

/// What one argument must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The argument, 0 to 5.
    pub argument: u8,
    /// What it is compared with.
    pub operand: Operand,
}

impl Check {
    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, data: &SeccompData) -> bool {
        let argument = data.args.get(usize::from(self.argument));
        argument.is_some_and(|value| self.operand.holds(*value))
    }
}

/// What an argument is compared with. Where the kernel takes 32 bits of a register (descriptors, requests, flags of some
/// calls), so does the comparison: the other half says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The low half is this.
    Low(u32),
    /// The low half is one of `first..first + count`.
    LowRange {
        /// The first.
        first: u32,
        /// How many, at least 1.
        count: u32,
    },
    /// The whole is one of `first..=last`.
    Wide {
        /// The first.
        first: u64,
        /// The last, at least `first`.
        last: u64,
    },
    /// The whole has no other bit than these.
    OnlyBits(u64),
}

impl Operand {
    /// Whether `value` is what is asked for.
    #[must_use]
    pub fn holds(&self, value: u64) -> bool {
        let low = value & u64::from(u32::MAX);
        match *self {
            Self::Low(number) => low == u64::from(number),
            Self::LowRange { first, count } => low
                .checked_sub(u64::from(first))
                .is_some_and(|at| at < u64::from(count)),
            Self::Wide { first, last } => (first..=last).contains(&value),
            Self::OnlyBits(bits) => value & !bits == 0,
        }
    }
}
