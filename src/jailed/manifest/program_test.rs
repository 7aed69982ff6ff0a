//! The programs against the rules they are made from, and against those that `seccompiler` makes of the same rules.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::program::Instruction;
use super::sample::{guest, largest};
use super::*;
use crate::handoff::Handoff;

const ALLOW: u32 = 0x7FFF_0000;
const KILL: u32 = 0x8000_0000;
const ARCHES: [u32; 4] = [ARCH, 0x4000_0003, 0xC000_00B7, 0];

/// The kernel's machine, as far as filters of system calls use it.
///
/// *Source:* `kernel/seccomp.c` (v6.12), `seccomp_check_filter`; `net/core/filter.c`.
fn run(program: &[Instruction], data: &SeccompData) -> u32 {
    let halves = |value: u64| [value & 0xFFFF_FFFF, value >> 32].map(|h| u32::try_from(h).unwrap());
    let mut words = vec![data.number, data.arch];
    words.extend(halves(data.instruction_pointer));
    data.args.iter().for_each(|arg| words.extend(halves(*arg)));
    let (mut at, mut a) = (0, 0_u32);
    loop {
        let step = program[at];
        at += 1;
        let k = step.operand;
        let mut jump = |holds| {
            at += usize::from(if holds { step.if_true } else { step.if_false });
        };
        match step.code {
            0x20 => {
                assert_eq!(k % 4, 0);
                a = words[k as usize / 4];
            }
            0x05 => at += k as usize,
            0x15 => jump(a == k),
            0x25 => jump(a > k),
            0x35 => jump(a >= k),
            0x45 => jump(a & k != 0),
            // Only what seccompiler uses.
            0x54 => a &= k,
            0x06 => return k,
            code => panic!("instruction {code:#x}"),
        }
    }
}

fn conditions(check: &Check) -> Vec<SeccompCondition> {
    let with = |len, op, value| SeccompCondition::new(check.argument, len, op, value).unwrap();
    match check.operand {
        Operand::Low(number) => vec![with(Len::Dword, Op::Eq, number.into())],
        Operand::LowRange { first, count } => vec![
            with(Len::Dword, Op::Ge, first.into()),
            with(Len::Dword, Op::Le, (first + (count - 1)).into()),
        ],
        Operand::Wide { first, last } => vec![
            with(Len::Qword, Op::Ge, first),
            with(Len::Qword, Op::Le, last),
        ],
        Operand::OnlyBits(bits) => vec![with(Len::Qword, Op::MaskedEq(!bits), 0)],
    }
}

/// The same rules by the crate that virtual machine monitors use.
fn by_seccompiler(rules: &Rules) -> Vec<Instruction> {
    let mut table: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let free: BTreeSet<i64> = rules
        .iter()
        .filter(|rule| rule.checks.iter().flatten().next().is_none())
        .map(|rule| rule.call.into())
        .collect();
    for call in &free {
        table.insert(*call, Vec::new());
    }
    for rule in rules
        .iter()
        .filter(|rule| !free.contains(&rule.call.into()))
    {
        let conditions = rule.checks.iter().flatten().flat_map(conditions).collect();
        let rule_of = SeccompRule::new(conditions).unwrap();
        table.entry(rule.call.into()).or_default().push(rule_of);
    }
    let filter = SeccompFilter::new(
        table,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )
    .unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    program
        .iter()
        .map(|i| Instruction::new(i.code, i.jt, i.jf, i.k))
        .collect()
}

/// Values at and around every border of every check of an argument.
fn interesting(rules: &Rules, call: u32, argument: usize) -> Vec<u64> {
    let mut values = BTreeSet::from([0, 1, u64::MAX, 1 << 32, u64::from(u32::MAX)]);
    let of_call = rules.iter().filter(|rule| rule.call == call);
    for check in of_call.flat_map(|rule| rule.checks.iter().flatten()) {
        if usize::from(check.argument) != argument {
            continue;
        }
        let borders = match check.operand {
            Operand::Low(number) => vec![number.into()],
            Operand::LowRange { first, count } => {
                vec![first.into(), u64::from(first) + u64::from(count) - 1]
            }
            Operand::Wide { first, last } => vec![first, last, first ^ 1 << 32, last ^ 1 << 32],
            Operand::OnlyBits(bits) => vec![bits, !bits, bits | 4, 1 << 40 | bits],
        };
        for border in borders {
            values.extend([
                border,
                border.wrapping_sub(1),
                border.wrapping_add(1),
                border | 1 << 33,
            ]);
        }
    }
    values.into_iter().collect()
}

/// Arguments that pass each rule of a call, with each argument in turn replaced by every interesting value.
fn calls(rules: &Rules, call: u32) -> Vec<[u64; 6]> {
    let mut all = vec![[0; 6], [u64::MAX; 6]];
    for rule in rules.iter().filter(|rule| rule.call == call) {
        let mut passing = [0; 6];
        for check in rule.checks.iter().flatten() {
            passing[usize::from(check.argument)] = match check.operand {
                Operand::Low(number) => number.into(),
                Operand::LowRange { first, .. } => first.into(),
                Operand::Wide { first, .. } => first,
                Operand::OnlyBits(bits) => bits,
            };
        }
        all.push(passing);
        for argument in 0..6 {
            for value in interesting(rules, call, argument) {
                let mut args = passing;
                args[argument] = value;
                all.push(args);
            }
        }
    }
    all
}

/// The same verdict three ways, for every number below `numbers` and the x32 ones, in every convention, at every border.
fn agree(rules: &Rules, numbers: u32) -> usize {
    let (ours, theirs) = (program(rules), by_seccompiler(rules));
    let mut allowed = 0;
    for number in (0..numbers)
        .chain((0..numbers).map(|n| n | X32))
        .chain([u32::MAX])
    {
        for args in calls(rules, number) {
            for arch in ARCHES {
                let data = SeccompData {
                    number,
                    arch,
                    instruction_pointer: 0x1234_5678_9ABC,
                    args,
                };
                let verdict = if rules.allows(&data) { ALLOW } else { KILL };
                assert_eq!(run(ours.instructions(), &data), verdict, "{data:x?}");
                assert_eq!(run(&theirs, &data), verdict, "{data:x?}");
                allowed += usize::from(verdict == ALLOW);
            }
        }
    }
    allowed
}

#[test]
fn programs_say_what_the_rules_say_and_what_seccompiler_makes_of_them() {
    for handoff in [guest(), Handoff::empty()] {
        for role in [Role::Vcpu, Role::Device] {
            for phase in [Phase::Build, Phase::Run] {
                let allowed = agree(&Rules::of(role, phase, &handoff), 1024);
                assert!(
                    allowed > 0,
                    "the comparison reached nothing that is allowed"
                );
            }
        }
    }
}

#[test]
fn every_jump_stays_inside_and_every_end_is_a_verdict() {
    for handoff in [guest(), largest(), Handoff::empty()] {
        for role in [Role::Vcpu, Role::Device] {
            let program = program(&Rules::of(role, Phase::Build, &handoff));
            let steps = program.instructions();
            for (at, step) in steps.iter().enumerate() {
                let furthest = match step.code {
                    0x05 => step.operand as usize,
                    _ => usize::from(step.if_true.max(step.if_false)),
                };
                assert!(step.code == 0x06 || at + 1 + furthest < steps.len());
                assert!(step.code != 0x06 || matches!(step.operand, ALLOW | KILL));
            }
            assert_eq!(steps.last().map(|step| step.operand), Some(KILL));
        }
    }
}

fn operands() -> impl Strategy<Value = Operand> {
    let near = prop_oneof![
        any::<u64>(),
        0_u64..4,
        (0_u64..4).prop_map(|n| n << 32 | n),
        Just(u64::MAX)
    ];
    prop_oneof![
        any::<u32>().prop_map(Operand::Low),
        (any::<u32>(), 1_u32..9).prop_map(|(first, count)| Operand::LowRange {
            first: first.min(u32::MAX - count),
            count,
        }),
        (near.clone(), near.clone()).prop_map(|(a, b)| Operand::Wide {
            first: a.min(b),
            last: a.max(b),
        }),
        near.prop_map(Operand::OnlyBits),
    ]
}

proptest! {
    #[test]
    fn each_kind_of_check_is_what_it_says(rule_operands in prop::collection::vec((0_u8..2, operands()), 1..4), number in 0_u32..3) {
        let mut rules = Rules::of(Role::Device, Phase::Run, &Handoff::empty());
        for (argument, operand) in rule_operands {
            let mut checks = [None; MAX_CHECKS];
            checks[0] = Some(Check { argument, operand });
            checks[1] = Some(Check { argument: 1 - argument, operand: Operand::OnlyBits(u64::MAX) });
            rules.push(Rule { call: number, checks, why: "" });
        }
        agree(&rules, 3);
    }
}
