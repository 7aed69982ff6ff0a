//! B01 and B03: every call, and every request on descriptors. What the manifest allows is tried with what it allows.

use super::{
    attempt::{attempt, attempt_as_32_bit},
    calls,
    record::Tried,
    requests::REQUESTS,
    tries::{Tries, judge, wide},
};
use crate::{
    manifest::{ARCH, Check, Operand, Phase, Role, Rule, Rules, SeccompData, X32},
    sys::kvm_abi::RUN,
};

/// The last number that any kernel so far gives to a call, and one more.
const CALLS: u32 = 471;
const EXIT_GROUP: u32 = 231;
/// `AUDIT_ARCH_I386`.
const ARCH_32_BIT: u32 = 0x4000_0003;

/// What would end, stop or leave the process, give birth to another, or disturb the host where it is not filtered.
const DANGEROUS: [usize; 25] = [
    15,  // rt_sigreturn
    513, // the same, as x32 numbers it
    34,  // pause
    calls::FORK,
    calls::VFORK,
    calls::CLONE,
    calls::CLONE3,
    60,  // exit
    112, // setsid
    128, // rt_sigtimedwait
    130, // rt_sigsuspend
    calls::KILL,
    200, // tkill
    calls::TGKILL,
    129, // rt_sigqueueinfo
    297, // rt_tgsigqueueinfo
    152, // munlockall
    153, // vhangup
    162, // sync
    169, // reboot
    163, // acct
    167, // swapon
    168, // swapoff
    13,  // rt_sigaction
    calls::CLOSE_RANGE,
];

/// The first of the two below.
pub(super) const URETPROBE: u32 = 335;
/// The kernel lets these two past every filter: its own trampolines for probes of user space make them. For whoever is in
/// none of those, the first ends the process and the second answers `ENXIO`.
///
/// *Source:* `kernel/seccomp.c, seccomp_uprobe_exception (v6.18)`.
pub const PAST_EVERY_FILTER: [u32; 2] = [URETPROBE, 336];

/// What a call answers that the kernel knows, whatever its arguments.
fn known(answer: Result<usize, crate::sys::syscall::Errno>) -> Tried {
    match judge(answer, &[]) {
        Tried::Absent => Tried::Absent,
        // Refused for its arguments, not for its maker.
        Tried::Blocked(calls::NOT_PERMITTED) => Tried::Blocked(calls::NOT_PERMITTED),
        Tried::Blocked(_) | Tried::Reached => Tried::Reached,
    }
}

/// The way a call is made in the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Every argument is -1.
    Ones,
    /// Every argument is 0.
    Zeros,
    /// With arguments that the manifest allows.
    Allowed,
    /// As the x32 convention numbers it.
    X32,
    /// As 32-bit programs make it.
    Bits32,
}

/// What one try of the sweep makes.
#[derive(Clone, Copy, Debug)]
pub struct Swept<'a> {
    /// The call's number, as its convention has it.
    pub number: u32,
    /// How it is made.
    pub way: Way,
    rule: Option<&'a Rule>,
}

impl Swept<'_> {
    /// The call as a filter sees it, where that is told by its number and way: not for [`Way::Allowed`], which is allowed.
    #[must_use]
    pub fn data(&self) -> SeccompData {
        let (number, arch, argument) = match self.way {
            Way::Ones => (self.number, ARCH, u64::MAX),
            Way::Zeros | Way::Allowed => (self.number, ARCH, 0),
            Way::X32 => (self.number | X32, ARCH, u64::MAX),
            Way::Bits32 => (self.number, ARCH_32_BIT, u64::MAX),
        };
        SeccompData {
            number,
            arch,
            instruction_pointer: 0,
            args: [argument; 6],
        }
    }
}

/// All tries of B01, in order.
pub fn swept(rules: &Rules) -> impl Iterator<Item = Swept<'_>> {
    const FIRST_OF_X32: u32 = 512;
    const X32_CALLS: u32 = 36;
    // read, write, getpid, ioctl, futex, epoll_create, ppoll, as 32-bit programs number them.
    const BITS_32: [u32; 7] = [3, 4, 20, 54, 240, 254, 309];
    let by = |way| {
        move |number| Swept {
            number,
            way,
            rule: None,
        }
    };
    let own = || rules.iter().map(|rule| rule.call);
    let allowed = rules.iter().map(|rule| Swept {
        number: rule.call,
        way: Way::Allowed,
        rule: Some(rule),
    });
    let x32 = own().chain(FIRST_OF_X32..FIRST_OF_X32 + X32_CALLS);
    (0..CALLS)
        .map(by(Way::Ones))
        .chain(own().map(by(Way::Zeros)))
        .chain(allowed)
        .chain(x32.map(by(Way::X32)))
        .chain(BITS_32.map(by(Way::Bits32)))
}

/// B01.
pub(super) fn calls(tries: &mut Tries<'_>) {
    let is_unfiltered = tries.is_unfiltered();
    let rules = Rules::of(tries.role(), Phase::Run, tries.handoff());
    for swept in swept(&rules) {
        let number = wide(swept.number);
        let is_skipped = is_unfiltered && DANGEROUS.contains(&number);
        tries.one(|| match (swept.way, swept.rule) {
            // The probe's own end, which is what shows it to work.
            (Way::Ones | Way::Zeros, _) if swept.number == EXIT_GROUP => Tried::Blocked(0),
            (Way::Ones | Way::Zeros | Way::X32, _) if is_skipped => Tried::Blocked(0),
            (Way::Ones, _) => known(attempt(number, [calls::NONE; 6])),
            (Way::Allowed, Some(rule)) => allowed(rule),
            (Way::Zeros | Way::Allowed, _) => known(attempt(number, [0; 6])),
            (Way::X32, _) => known(attempt(number | wide(X32), [calls::NONE; 6])),
            (Way::Bits32, _) => known(attempt_as_32_bit(number, [calls::NONE; 3])),
        });
    }
}

/// The call that a rule allows, with arguments that it allows and that the kernel refuses or does nothing for.
fn allowed(rule: &Rule) -> Tried {
    let mut args = [0_usize; 6];
    for check in rule.checks.iter().flatten() {
        if let Some(argument) = args.get_mut(usize::from(check.argument)) {
            *argument = satisfying(check);
        }
    }
    // The guest's first instruction is the real run's; the end is the probe's own.
    let is_run = rule.call == 16 && args.get(1) == Some(&RUN);
    if is_run || rule.call == EXIT_GROUP {
        return Tried::Reached;
    }
    known(attempt(wide(rule.call), args))
}

fn satisfying(check: &Check) -> usize {
    let value = match check.operand {
        Operand::Low(number) | Operand::LowRange { first: number, .. } => u64::from(number),
        Operand::Wide { first, .. } => first,
        Operand::OnlyBits(_) => 0,
    };
    usize::try_from(value).unwrap_or(calls::NONE)
}

/// B03: each known request on the descriptor that it is for, and one request on each descriptor.
pub(super) fn requests(tries: &mut Tries<'_>) {
    const CLOSE_ON_EXEC: usize = 0x5451;
    let role = tries.role();
    let rules = Rules::of(role, Phase::Run, tries.handoff());
    let (first, second) = match role {
        // A VM's, a vCPU's.
        Role::Vcpu => (tries.machine().next(), tries.machine().last()),
        Role::Device => (tries.devices().next(), tries.devices().last()),
    };
    for request in REQUESTS {
        // What a vCPU knows, its VM does not; devices are all of a kind.
        let is_of_kvm = role == Role::Vcpu && request >> 8 & 0xFF == 0xAE;
        for fd in first.into_iter().chain(second.filter(|_| is_of_kvm)) {
            let data = SeccompData {
                number: 16,
                arch: ARCH,
                instruction_pointer: 0,
                args: [fd as u64, *request as u64, 0, 0, 0, 0],
            };
            if rules.allows(&data) {
                continue;
            }
            tries.call_or(calls::IOCTL, [fd, *request, 0, 0, 0, 0], &[calls::FAULT]);
        }
    }
    for fd in tries.descriptors() {
        tries.call(calls::IOCTL, [fd, CLOSE_ON_EXEC, 0, 0, 0, 0]);
    }
}
