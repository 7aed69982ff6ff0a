use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::gaps::gaps;
use super::sample::{guest, largest};
use super::*;
use crate::handoff::{Bar, Function, Handoff, Span};
use crate::sys::syscall::number;

const ROLES: [Role; 2] = [Role::Vcpu, Role::Device];
const PHASES: [Phase; 2] = [Phase::Build, Phase::Run];

fn name(call: u32) -> &'static str {
    let names = [
        (number::READ, "read"),
        (number::WRITE, "write"),
        (number::FSTAT, "fstat"),
        (number::MMAP, "mmap"),
        (number::MADVISE, "madvise"),
        (number::MPROTECT, "mprotect"),
        (number::MUNMAP, "munmap"),
        (number::IOCTL, "ioctl"),
        (number::PREAD64, "pread64"),
        (number::PWRITE64, "pwrite64"),
        (number::CLONE, "clone"),
        (number::SETRLIMIT, "setrlimit"),
        (number::FUTEX, "futex"),
        (number::EXIT_GROUP, "exit_group"),
        (number::PPOLL, "ppoll"),
        (number::RESTART_SYSCALL, "restart_syscall"),
        (number::SECCOMP, "seccomp"),
        (number::CLOSE_RANGE, "close_range"),
        (number::MSEAL, "mseal"),
    ];
    let found = names.iter().find(|(number, _)| *number == call as usize);
    found
        .unwrap_or_else(|| panic!("call {call} has no name here"))
        .1
}

fn operand(operand: Operand) -> String {
    match operand {
        Operand::Low(number) if number < 64 => format!("low = {number}"),
        Operand::Low(number) => format!("low = {number:#x}"),
        Operand::LowRange { first, count } => format!("low {first}..{}", first + count),
        Operand::Wide { first, last } if first == last => format!("= {first:#x}"),
        Operand::Wide { first, last } => format!("{first:#x}..={last:#x}"),
        Operand::OnlyBits(bits) => format!("only bits {bits:#x}"),
    }
}

fn line(rule: &Rule) -> String {
    let checks = rule.checks.iter().flatten();
    let checks: Vec<String> = checks
        .map(|check| format!("{} {}", check.argument, operand(check.operand)))
        .collect();
    format!("{}({}): {}", name(rule.call), checks.join(", "), rule.why)
}

#[test]
fn the_manifest_is_the_golden_one() {
    let handoff = guest();
    let mut text = String::new();
    for role in ROLES {
        let run = Rules::of(role, Phase::Run, &handoff);
        let build = Rules::of(role, Phase::Build, &handoff);
        writeln!(text, "{role:?}, run").unwrap();
        run.iter()
            .for_each(|rule| writeln!(text, "  {}", line(rule)).unwrap());
        writeln!(text, "{role:?}, build: these and").unwrap();
        let more = &build.as_slice()[run.as_slice().len()..];
        more.iter()
            .for_each(|rule| writeln!(text, "  {}", line(rule)).unwrap());
        writeln!(text, "{role:?}, descriptors").unwrap();
        descriptors(role, &handoff)
            .for_each(|d| writeln!(text, "  {} {:?}", d.number, d.kind).unwrap());
        writeln!(text, "{role:?}, limits").unwrap();
        for limit in limits(role, handoff.vcpu_count) {
            writeln!(text, "  {} {}: {}", limit.resource, limit.value, limit.why).unwrap();
        }
    }
    assert_eq!(text, include_str!("manifest.golden.txt"), "\n{text}");
}

#[test]
fn v_makes_three_calls_and_d_nine() {
    let calls = |role| -> BTreeSet<u32> {
        let rules = Rules::of(role, Phase::Run, &guest());
        rules.iter().map(|rule| rule.call).collect()
    };
    let numbers = |list: &[usize]| list.iter().map(|n| u32::try_from(*n).unwrap()).collect();
    let shared = [number::IOCTL, number::FUTEX, number::EXIT_GROUP];
    let more = [
        number::READ,
        number::WRITE,
        number::PREAD64,
        number::PWRITE64,
        number::PPOLL,
        number::RESTART_SYSCALL,
    ];
    assert_eq!(calls(Role::Vcpu), numbers(&shared));
    assert_eq!(
        calls(Role::Device),
        numbers(&[&shared[..], &more[..]].concat())
    );
}

/// Filters add up: a call that the run needs and the build forbade would end the process.
#[test]
fn building_allows_what_running_does() {
    for handoff in [guest(), largest(), Handoff::empty()] {
        for role in ROLES {
            let run = Rules::of(role, Phase::Run, &handoff);
            let build = Rules::of(role, Phase::Build, &handoff);
            assert_eq!(run.as_slice(), &build.as_slice()[..run.as_slice().len()]);
        }
    }
}

#[test]
fn the_largest_guest_has_room() {
    const SIZES: [(Role, Phase, usize); 4] = [
        (Role::Vcpu, Phase::Build, 381),
        (Role::Vcpu, Phase::Run, 58),
        (Role::Device, Phase::Build, 2860),
        (Role::Device, Phase::Run, 2465),
    ];
    let handoff = largest();
    assert!(handoff.check());
    for (role, phase, expected) in SIZES {
        let rules = Rules::of(role, phase, &handoff);
        let program = program(&rules);
        let count = program.instructions().len();
        assert!(rules.is_whole() && program.is_whole());
        assert!(count < MAX_INSTRUCTIONS, "{role:?} {phase:?}: {count}");
        assert_eq!(count, expected, "{role:?} {phase:?}");
    }
}

#[test]
fn nothing_executable_is_mapped_and_no_file_opened() {
    const PROT_EXEC: u64 = 4;
    const OPENERS: [u32; 12] = [2, 41, 42, 43, 53, 85, 257, 288, 304, 319, 425, 437];
    for role in ROLES {
        for phase in PHASES {
            let rules = Rules::of(role, phase, &guest());
            assert!(rules.iter().all(|rule| !OPENERS.contains(&rule.call)));
            for call in [number::MMAP, number::MPROTECT, 329] {
                for others in 0..PROT_EXEC {
                    for rule in rules.iter().filter(|rule| rule.call as usize == call) {
                        let protection = rule.checks.iter().flatten().find(|c| c.argument == 2);
                        assert!(!protection.unwrap().operand.holds(PROT_EXEC | others));
                    }
                }
            }
        }
    }
}

#[test]
fn descriptors_ascend_and_stand_behind_the_list_or_in_it() {
    for handoff in [guest(), largest(), Handoff::empty()] {
        for role in ROLES {
            let numbers: Vec<u32> = descriptors(role, &handoff).map(|d| d.number).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b));
        }
        let v: Vec<u32> = descriptors(Role::Vcpu, &handoff)
            .map(|d| d.number)
            .collect();
        let end = crate::handoff::VcpuFds::of(&handoff).end();
        let behind: Vec<u32> = (end..).take(v.len()).collect();
        assert_eq!(v, behind, "the kernel gives the lowest free number");
    }
}

#[test]
fn descriptors_are_compared_by_the_half_that_the_kernel_reads() {
    let rules = Rules::of(Role::Vcpu, Phase::Run, &guest());
    let vcpu = u64::from(crate::handoff::VcpuFds::of(&guest()).vcpu(1));
    let run = |fd| SeccompData {
        number: 16,
        arch: ARCH,
        instruction_pointer: 0,
        args: [fd, 0xAE80, 0, 0, 0, 0],
    };
    assert!(rules.allows(&run(vcpu)));
    assert!(rules.allows(&run(1 << 40 | vcpu)));
    assert!(!rules.allows(&run(vcpu + 1)));
}

#[test]
fn a_guest_without_console_or_functions_leaves_d_nothing_of_them() {
    let rules = Rules::of(Role::Device, Phase::Run, &Handoff::empty());
    let calls: BTreeSet<_> = rules.iter().map(|rule| name(rule.call)).collect();
    let left = ["exit_group", "futex", "ppoll", "restart_syscall"];
    assert_eq!(calls, BTreeSet::from(left));
    assert_eq!(descriptors(Role::Device, &Handoff::empty()).count(), 0);
}

fn bars() -> impl Strategy<Value = Function> {
    let span = (0_u64..20, 0_u64..6);
    let bar = (0_u64..16, prop::array::uniform4(span), 0_u64..5);
    prop::array::uniform6(bar).prop_map(|bars| {
        let mut function = Function::default();
        for ((to, (pages, spans, span_count)), index) in
            function.bars.iter_mut().zip(bars).zip(0_u64..)
        {
            *to = Bar {
                len_bytes: pages << 12,
                region_offset: index << 40,
                span_count,
                spans: spans.map(|(offset, pages)| Span {
                    offset: offset << 12,
                    len_bytes: pages << 12,
                }),
                ..Bar::default()
            };
        }
        function
    })
}

proptest! {
    #[test]
    fn a_page_of_a_bar_is_mapped_or_in_a_gap(function in bars(), bar in 0_usize..6, page in 0_u64..24) {
        let facts = &function.bars[bar];
        let at = facts.region_offset + (page << 12);
        let used = usize::try_from(facts.span_count).unwrap();
        let is_mapped = facts.spans[..used]
            .iter()
            .any(|span| (span.offset..span.offset + span.len_bytes).contains(&(page << 12)));
        let is_in_bar = page << 12 < facts.len_bytes;
        let is_in_gap = gaps(&function).any(|(first, last)| first <= at && at + 0xFFF <= last);
        let touches_gap = gaps(&function).any(|(first, last)| first <= at + 0xFFF && at <= last);
        prop_assert_eq!(is_in_gap, is_in_bar && !is_mapped);
        prop_assert_eq!(touches_gap, is_in_gap);
    }
}
