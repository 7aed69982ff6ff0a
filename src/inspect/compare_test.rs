use std::collections::BTreeSet;

use jailed::{
    handoff::{Function, Handoff},
    manifest::{Check, Instruction, Phase, Role, Rule, Rules, program},
};
use proptest::prelude::*;

use super::{Agreement, Comparison};
use crate::{
    inspect::expected::{Expected, Place},
    jail::seccomp::{self, SupervisorFds, supervisor_filter},
    sys::filtered::sleeper,
};

const ALLOW: u32 = 0x7FFF_0000;

/// A guest with `vcpus` vCPUs and `functions` functions of four vectors, each with a BAR of which the guest maps one page.
pub(in crate::inspect) fn guest(vcpus: u32, functions: u32) -> Handoff {
    let mut handoff = Handoff::empty();
    handoff.vcpu_count = vcpus;
    handoff.has_console = 1;
    handoff.ram_count = 1;
    handoff.ram[0].len_bytes = 64 << 20;
    handoff.function_count = functions;
    for (index, function) in (0_u64..).zip(handoff.functions.iter_mut().take(functions as usize)) {
        *function = Function {
            vectors: 4,
            config_offset: 7 << 40,
            config_bytes: 4096,
            ..Function::default()
        };
        let bar = &mut function.bars[0];
        bar.gpa = 0x4000_0000 + (index << 20);
        bar.len_bytes = 0x4000;
        bar.span_count = 1;
        bar.spans[0].offset = 0x1000;
        bar.spans[0].len_bytes = 0x1000;
    }
    handoff
}

pub(in crate::inspect) fn rules(role: Role, phase: Phase, handoff: &Handoff) -> Vec<Rule> {
    Rules::of(role, phase, handoff).iter().copied().collect()
}

/// The filters as a locked process has them.
pub(in crate::inspect) fn filters(role: Role, handoff: &Handoff) -> Vec<Vec<Instruction>> {
    [Phase::Build, Phase::Run]
        .map(|phase| {
            program(&Rules::of(role, phase, handoff))
                .instructions()
                .to_vec()
        })
        .to_vec()
}

fn compare(filters: &[Vec<Instruction>], rules: &[Rule], behind: u32) -> Comparison {
    super::compare(filters, rules, behind, Agreement::Exact)
}

/// The same for one call: where a rule of one call is changed, no other call is decided otherwise.
fn of_call(filters: &[Vec<Instruction>], rules: &[Rule], behind: u32, call: u32) -> Comparison {
    let mut trial = super::Trial::new(filters, rules, Agreement::Exact);
    trial.call(call, behind);
    trial.found
}

fn compared(filters: &[Vec<Instruction>], role: Role, handoff: &Handoff) -> Comparison {
    compare(filters, &rules(role, Phase::Run, handoff), 40)
}

#[test]
fn filters_do_what_the_rules_say() {
    for role in [Role::Vcpu, Role::Device] {
        for (vcpus, functions) in [(1, 0), (1, 1), (4, 3)] {
            let handoff = guest(vcpus, functions);
            let found = compared(&filters(role, &handoff), role, &handoff);
            assert_eq!(found.different, 0, "{role:?}: {:#?}", found.differences);
            let meant: BTreeSet<u32> = rules(role, Phase::Run, &handoff)
                .iter()
                .map(|rule| rule.call)
                .collect();
            assert_eq!(found.reachable, meant, "{role:?}");
        }
    }
}

pub(in crate::inspect) fn watched() -> SupervisorFds {
    SupervisorFds {
        read: vec![0, 5],
        write: vec![1, 2],
        socket: vec![7],
        terminal: vec![0],
        held: vec![9],
    }
}

/// S's filter as it has it.
pub(in crate::inspect) fn supervisors() -> Vec<Vec<Instruction>> {
    let filter = supervisor_filter(&watched()).unwrap();
    let filter = filter
        .iter()
        .map(|i| Instruction::new(i.code, i.jt, i.jf, i.k));
    vec![filter.collect()]
}

#[test]
fn the_supervisors_filter_does_what_its_table_says() {
    let (live, meant) = (supervisors(), seccomp::rules(&watched()));
    let found = compare(&live, &meant, 8);
    assert_eq!(found.different, 0, "{:#?}", found.differences);
    let calls: BTreeSet<u32> = meant.iter().map(|rule| rule.call).collect();
    assert_eq!(found.reachable, calls);
}

/// A descriptor, a request or a flag more or less than the table has, and a row: each is found, also what is forbidden
/// though it is meant to be allowed.
#[test]
fn the_supervisors_filter_is_compared_by_argument() {
    use jailed::manifest::Operand::{Low, LowRange, OnlyBits, Wide};
    let (live, table) = (supervisors(), seccomp::rules(&watched()));
    for (at, rule) in table.iter().enumerate() {
        for (place, check) in rule.checks.iter().enumerate() {
            let Some(check) = check else {
                continue;
            };
            let operand = match check.operand {
                Low(number) => Low(number + 100),
                LowRange { first, count } => LowRange {
                    first,
                    count: count + 1,
                },
                Wide { first, last } => Wide {
                    first,
                    last: last + 1,
                },
                OnlyBits(bits) => OnlyBits(bits | 4),
            };
            let mut meant = table.clone();
            meant[at].checks[place] = Some(Check { operand, ..*check });
            let found = of_call(&live, &meant, 8, rule.call);
            assert!(found.different > 0, "{rule:?}: {operand:?}");
        }
        let mut meant = table.clone();
        meant.remove(at);
        let found = of_call(&live, &meant, 8, rule.call);
        assert!(found.different > 0, "{rule:?}");
    }
}

/// Of a service only more is a difference: what its manager forbids, too, is not.
#[test]
fn a_service_may_be_forbidden_more_and_not_less() {
    let meant = Expected::supervisor(Place::default()).rules;
    let no_more = |filters: &[Vec<Instruction>], rules: &[Rule]| {
        super::compare(filters, rules, 16, Agreement::NoMore)
    };
    let found = no_more(&supervisors(), &meant);
    assert_eq!(found.different, 0, "{:#?}", found.differences);
    let fewer: Vec<Rule> = meant
        .iter()
        .filter(|rule| rule.call != 0)
        .copied()
        .collect();
    let found = no_more(&supervisors(), &fewer);
    let is_read = |said: &String| said.starts_with("read(");
    assert!(
        found.differences.iter().any(is_read),
        "{:#?}",
        found.differences
    );
}

/// No rule asks from where a call is made, so a filter that does allows something else.
#[test]
fn a_filter_that_asks_from_where_a_call_is_made_is_found() {
    let meant = seccomp::rules(&watched());
    let (load, is_equal, answer) = (0x20, 0x15, 0x06);
    let mut live = vec![
        Instruction::new(load, 0, 0, 12),
        Instruction::new(is_equal, 0, 3, 0x7F12),
        Instruction::new(load, 0, 0, 0),
        Instruction::new(is_equal, 0, 1, 59),
        Instruction::new(answer, 0, 0, ALLOW),
    ];
    live.extend(supervisors().concat());
    let found = compare(&[live], &meant, 8);
    assert!(found.reachable.contains(&59));
    let told = found.differences.concat();
    assert!(told.contains("made at 0x7f1200000000"), "{told}");
}

/// Of another convention, too, where a number counts only behind an argument.
#[test]
fn a_filter_that_allows_a_call_of_another_convention_for_an_argument_is_found() {
    let meant = seccomp::rules(&watched());
    let (load, is_equal, answer) = (0x20, 0x15, 0x06);
    let mut live = vec![
        Instruction::new(load, 0, 0, 4),
        Instruction::new(is_equal, 6, 0, jailed::manifest::ARCH),
        Instruction::new(load, 0, 0, 16),
        Instruction::new(is_equal, 0, 3, 5),
        Instruction::new(load, 0, 0, 0),
        Instruction::new(is_equal, 0, 1, 11),
        Instruction::new(answer, 0, 0, ALLOW),
        Instruction::new(answer, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    live.extend(supervisors().concat());
    let found = compare(&[live], &meant, 8);
    let told = found.differences.concat();
    assert!(told.contains("call 11 of convention"), "{told}");
}

/// What has more ways than are tried may allow anything.
#[test]
fn a_call_with_more_ways_than_are_tried_is_a_difference() {
    let (load, is_equal, answer) = (0x20, 0x15, 0x06);
    let mut filter = vec![
        Instruction::new(load, 0, 0, 0),
        Instruction::new(is_equal, 1, 0, 59),
        Instruction::new(answer, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    // Two comparisons of a word triple the ways; none of them ends well.
    for argument in 0..12 {
        filter.push(Instruction::new(load, 0, 0, 16 + 4 * argument));
        filter.push(Instruction::new(is_equal, 0, 0, 1));
        filter.push(Instruction::new(is_equal, 0, 0, 2));
    }
    filter.push(Instruction::new(
        answer,
        0,
        0,
        libc::SECCOMP_RET_KILL_PROCESS,
    ));
    let found = compare(&[filter], &[], 8);
    assert_eq!(found.reachable, [59].into(), "{:#?}", found.differences);
    let told = found.differences.concat();
    assert!(told.contains("execve has more ways"), "{told}");
}

#[test]
fn no_filter_at_all_is_all_different() {
    let handoff = guest(1, 1);
    let found = compared(&[], Role::Vcpu, &handoff);
    assert!(found.different > 1000, "{}", found.different);
    assert!(found.differences.len() <= super::TOLD);
}

/// A filter with a rule more than it should have allows a call that no rule is about: the comparison finds it.
#[test]
fn one_rule_too_many_or_too_few_is_found() {
    for role in [Role::Vcpu, Role::Device] {
        let handoff = guest(1, 1);
        let run = rules(role, Phase::Run, &handoff);
        let build = rules(role, Phase::Build, &handoff);
        let live = filters(role, &handoff);
        let build_filters = live[0].clone();
        // What is allowed while the guest is built is more than what is allowed later, one rule after the other.
        let alone = [build_filters];
        for extra in build.iter().filter(|rule| !run.contains(rule)) {
            let meant: Vec<Rule> = build
                .iter()
                .filter(|rule| *rule != extra)
                .copied()
                .collect();
            let is_covered = meant
                .iter()
                .any(|rule| rule.call == extra.call && rule.checks == extra.checks);
            let found = of_call(&alone, &meant, 40, extra.call);
            assert!(found.different > 0 || is_covered, "{role:?}: {extra:?}");
        }
        for missing in &run {
            let mut more = run.clone();
            let mut wanted = *missing;
            wanted.call = 999;
            more.push(wanted);
            let found = of_call(&live, &more, 40, wanted.call);
            assert!(found.different > 0, "{role:?}: {missing:?}");
        }
    }
}

/// Single descriptors, requests, lengths and bits: each wrong by one.
#[test]
fn a_check_that_is_off_by_one_is_found() {
    use jailed::manifest::Operand::{Low, LowRange, OnlyBits, Wide};
    for role in [Role::Vcpu, Role::Device] {
        let handoff = guest(1, 1);
        let live = filters(role, &handoff);
        let run = rules(role, Phase::Run, &handoff);
        for (at, rule) in run.iter().enumerate() {
            for place in 0..rule.checks.len() {
                let Some(check) = rule.checks[place] else {
                    continue;
                };
                let others = match check.operand {
                    Low(number) => vec![Low(number + 1), Low(number ^ 0x8000_0000)],
                    LowRange { first, count } => vec![
                        LowRange {
                            first,
                            count: count + 1,
                        },
                        LowRange {
                            first: first - 1,
                            count: count + 1,
                        },
                        LowRange {
                            first: first + 1,
                            count,
                        },
                    ],
                    Wide { first, last } => vec![
                        Wide {
                            first,
                            last: last + 1,
                        },
                        Wide {
                            first,
                            last: last | 1 << 63,
                        },
                        Wide {
                            first: first + 1,
                            last: last + 1,
                        },
                    ],
                    OnlyBits(bits) => [0, 1, 31, 32, 63]
                        .map(|bit| OnlyBits(bits ^ 1 << bit))
                        .to_vec(),
                };
                for operand in others {
                    let mut meant = run.clone();
                    let mut changed = check;
                    changed.operand = operand;
                    meant[at].checks[place] = Some(changed);
                    // Two rules may allow the same; then nothing has changed.
                    let found = of_call(&live, &meant, 40, rule.call);
                    assert!(found.different > 0, "{role:?}: {rule:?}: {operand:?}");
                }
            }
        }
    }
}

#[test]
fn other_conventions_and_odd_answers_are_found() {
    let handoff = guest(1, 1);
    let good = filters(Role::Vcpu, &handoff);
    let only = |value| vec![Instruction::new(0x06, 0, 0, value)];
    let meant = &rules(Role::Vcpu, Phase::Run, &handoff);
    // An error in place of the end, a log, a trap, the end of a thread alone: none is what is meant.
    for value in [0x0005_0001, 0x7FFC_0000, 0x0003_0000, 0] {
        let mut odd = good[1].clone();
        let end = odd.len() - 1;
        odd[end] = Instruction::new(0x06, 0, 0, value);
        let said = compare(&[odd], meant, 40).differences.join("\n");
        assert!(said.contains("read("), "{value:x}: {said}");
    }
    // Without the test of the convention.
    let mut loose = good[1].clone();
    assert_eq!(loose[2], Instruction::new(0x06, 0, 0, 0x8000_0000));
    loose[2] = Instruction::new(0x05, 0, 0, 0);
    let found = compare(&[loose], meant, 40);
    assert!(
        found
            .differences
            .iter()
            .any(|said| said.contains("of convention 0x40000003"))
    );
    assert!(compare(&[only(ALLOW)], meant, 40).different > 1000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Programs with a random change: where a random call shows that it matters, the comparison shows it, too.
    #[test]
    fn damage_that_matters_is_found(
        at in any::<prop::sample::Index>(), change in 0_usize..5, bit in 0_u32..32,
        calls in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 0_usize..12, any::<u32>()), 400),
    ) {
        let handoff = guest(2, 1);
        let meant = rules(Role::Vcpu, Phase::Run, &handoff);
        let mut live = filters(Role::Vcpu, &handoff).pop().unwrap();
        let index = at.index(live.len());
        let instruction = &mut live[index];
        match change {
            0 => instruction.operand ^= 1 << bit,
            1 => instruction.operand = instruction.operand.wrapping_add(1),
            2 => instruction.if_true ^= 1,
            3 => instruction.if_false ^= 1,
            _ => instruction.code ^= 0x30,
        }
        let live = [live];
        let matters = calls.iter().any(|(rule, is_first, word, value)| {
            let base = super::corner(&meant[rule.index(meant.len())], *is_first);
            let call = base.with(4 + word, *value);
            let verdict = super::bpf::judge(&live, &call, &mut super::Compared::new()).verdict;
            let is_meant = meant.iter().any(|rule| rule.allows(&call.data()));
            (verdict == super::Verdict::Allowed) != is_meant
        });
        prop_assert!(!matters || compare(&live, &meant, 40).different > 0);
    }
}

/// Reads filters back from a child and compares them: needs what the supervisor has.
#[test]
fn filters_that_the_kernel_gives_back_are_those_that_were_put_on() {
    let killing = vec![
        Instruction::new(0x20, 0, 0, 0),
        Instruction::new(0x15, 0, 1, 1000),
        Instruction::new(0x06, 0, 0, 0x8000_0000),
        Instruction::new(0x06, 0, 0, ALLOW),
    ];
    let second = vec![Instruction::new(0x06, 0, 0, ALLOW)];
    let mut child = sleeper(&[killing.clone(), second.clone()]).unwrap();
    let read = || {
        let tracee = crate::sys::ptrace::Tracee::stop(child.id(), child.id())?;
        let filters = tracee.filters();
        tracee.release()?;
        filters
    };
    let (first, again) = (read(), read());
    child.kill().unwrap();
    child.wait().unwrap();
    match first {
        Ok(filters) => assert_eq!(filters, [killing, second]),
        // Not as root, or where this test itself runs under a filter.
        Err(error) => assert!(
            matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)),
            "{error}"
        ),
    }
    drop(again);
}

/// A word at which no filter looked is held against the rules all the same: they may want it looked at.
#[test]
fn a_check_that_the_filter_leaves_out_is_found_though_it_never_looks() {
    let handoff = guest(1, 1);
    let meant = rules(Role::Device, Phase::Run, &handoff);
    let checked = meant
        .iter()
        .find(|rule| rule.checks.iter().flatten().count() > 1);
    let number = checked.expect("D's rules check arguments").call;
    let allows_all = [
        (0x20, 0, 0),
        (0x15, 1, number),
        (0x06, 0, 0x8000_0000),
        (0x06, 0, ALLOW),
    ];
    let filter = allows_all.map(|(code, if_true, k)| Instruction::new(code, if_true, 0, k));
    let found = of_call(&[filter.to_vec()], &meant, 40, number);
    assert!(found.different > 100, "{}", found.different);
}

/// A second filter that ends the process at a call, whatever its arguments are, leaves nothing of the first one to be tried;
/// one that looks at an argument does.
#[test]
fn what_one_filter_ends_whatever_its_arguments_are_is_not_tried_with_more() {
    let number = u32::try_from(libc::SYS_mprotect).unwrap();
    let op = |code, if_true, if_false, k| Instruction::new(code, if_true, if_false, k);
    let allows_by_argument = vec![
        op(0x20, 0, 0, 32),
        op(0x15, 0, 1, 7),
        op(0x06, 0, 0, ALLOW),
        op(0x06, 0, 0, 0x8000_0000),
    ];
    let ends = vec![op(0x06, 0, 0, 0x8000_0000)];
    let all_but_one = vec![
        op(0x20, 0, 0, 16),
        op(0x15, 1, 0, 1),
        op(0x06, 0, 0, ALLOW),
        op(0x06, 0, 0, 0x8000_0000),
    ];
    let of = |filters: &[Vec<Instruction>]| of_call(filters, &[], 8, number);
    let ended = of(&[allows_by_argument.clone(), ends]);
    assert_eq!((ended.different, ended.tried), (0, 1));
    let found = of(&[allows_by_argument.clone(), all_but_one]);
    assert!(found.different > 0 && found.tried > 1, "{found:?}");
    assert!(of(&[allows_by_argument]).different > 0);
}
