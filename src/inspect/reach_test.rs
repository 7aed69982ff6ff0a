use std::collections::BTreeSet;

use jailed::{
    handoff::Handoff,
    manifest::{ARCH, Instruction, Phase, Role, SeccompData},
};
use proptest::{collection::vec, prelude::*};

use super::{
    super::{
        bpf::{Call, Compared, Verdict, code, judge},
        compare::compare_test::{filters, guest, rules, supervisors, watched},
    },
    LETS_THROUGH, may_let_through, reachable,
};
use crate::jail::seccomp;

/// The first argument's low half, and the second's.
const FIRST: u32 = 16;
const SECOND: u32 = 24;

fn op(code: u16, k: u32) -> Instruction {
    Instruction::new(code, 0, 0, k)
}

fn is_equal(k: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction::new(code::JUMP_IF_EQUAL, if_true, if_false, k)
}

/// Lets call 7 through where the word at `offset` is `value`, and no other call; `answer` is how.
fn only_with(offset: u32, value: u32, answer: u32) -> Vec<Instruction> {
    vec![
        op(code::LOAD_WORD, 0),
        is_equal(7, 0, 2),
        op(code::LOAD_WORD, offset),
        is_equal(value, 1, 0),
        op(code::RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        op(code::RETURN, answer),
    ]
}

fn numbers(filters: &[Vec<Instruction>]) -> Vec<u32> {
    reachable(filters).into_iter().collect()
}

/// Each of the two looks at an argument of its own: only a call with both is made.
#[test]
fn a_call_that_two_filters_allow_for_different_arguments_is_reached() {
    let allow = libc::SECCOMP_RET_ALLOW;
    let both = [only_with(FIRST, 5, allow), only_with(SECOND, 9, allow)];
    let call = Call::of(&SeccompData {
        number: 7,
        arch: ARCH,
        instruction_pointer: 0,
        args: [5, 9, 0, 0, 0, 0],
    });
    let judged = judge(&both, &call, &mut Compared::closed());
    assert_eq!(judged.verdict, Verdict::Allowed);
    assert_eq!(numbers(&both), [7]);
    // And of three, of which the third wants the upper half of what the first looks at.
    let [one, other] = both;
    assert_eq!(numbers(&[one, only_with(FIRST + 4, 1, allow), other]), [7]);
}

/// Nothing but the place that a call is made from decides: no argument would have found it.
#[test]
fn a_call_that_is_allowed_from_one_place_is_reached() {
    assert_eq!(
        numbers(&[only_with(8, 0x1234, libc::SECCOMP_RET_ALLOW)]),
        [7]
    );
}

#[test]
fn what_is_made_and_written_down_is_reached_and_what_fails_is_not() {
    for answer in LETS_THROUGH {
        assert_eq!(numbers(&[only_with(FIRST, 5, answer | 3)]), [7]);
    }
    for answer in [
        libc::SECCOMP_RET_ERRNO,
        libc::SECCOMP_RET_TRAP,
        libc::SECCOMP_RET_KILL_THREAD,
        libc::SECCOMP_RET_KILL_PROCESS,
        // No action that the kernel knows: it ends the process.
        0x1234_0000,
    ] {
        assert!(numbers(&[only_with(FIRST, 5, answer)]).is_empty());
    }
}

#[test]
fn one_filter_that_never_lets_it_through_is_enough() {
    let allow = vec![op(code::RETURN, libc::SECCOMP_RET_ALLOW)];
    assert_eq!(reachable(&[]).len(), 1024);
    assert_eq!(reachable(std::slice::from_ref(&allow)).len(), 1024);
    let one = only_with(FIRST, 5, libc::SECCOMP_RET_ALLOW);
    assert_eq!(numbers(&[allow.clone(), one]), [7]);
    let none = vec![op(code::RETURN, libc::SECCOMP_RET_ERRNO)];
    assert!(numbers(&[allow, none]).is_empty());
}

/// What is no program may do anything.
#[test]
fn of_what_the_kernel_does_not_take_everything_is_reached() {
    for filter in [vec![], vec![op(0x30, 0)], vec![op(code::JUMP, u32::MAX)]] {
        assert_eq!(reachable(&[filter]).len(), 1024);
    }
}

/// Not one too many: no rule of ours forbids what another one of the same call allows.
#[test]
fn of_our_own_filters_exactly_the_calls_of_the_rules_are_reached() {
    let calls = |rules: Vec<jailed::manifest::Rule>| -> BTreeSet<u32> {
        rules.iter().map(|rule| rule.call).collect()
    };
    let of = |role, handoff: &Handoff| calls(rules(role, Phase::Run, handoff));
    for role in [Role::Vcpu, Role::Device] {
        for handoff in [guest(1, 0), guest(4, 3)] {
            assert_eq!(reachable(&filters(role, &handoff)), of(role, &handoff));
        }
    }
    let meant = calls(seccomp::rules(&watched()));
    assert_eq!(reachable(&supervisors()), meant);
}

/// Few constants, so that comparisons hold now and then, and every kind of instruction.
fn any_instruction() -> impl Strategy<Value = Instruction> {
    let alu = prop_oneof![
        Just(0x04_u16),
        Just(0x14),
        Just(0x24),
        Just(0x34),
        Just(0x44),
        Just(0x54),
        Just(0x64),
        Just(0x74),
        Just(0x84),
        Just(0xA4),
        Just(0x0C),
        Just(0x3C),
        Just(0x5C),
        Just(0x6C)
    ];
    let other = prop_oneof![
        Just(0x00_u16),
        Just(0x01),
        Just(0x02),
        Just(0x03),
        Just(0x07),
        Just(0x60),
        Just(0x61),
        Just(0x80),
        Just(0x81),
        Just(0x87)
    ];
    let jump = prop_oneof![
        4 => Just(0x15_u16), 1 => Just(0x25), 1 => Just(0x35), 1 => Just(0x45), 1 => Just(0x1D), 1 => Just(0x2D), 1 => Just(0x05)
    ];
    let word = (0_u32..16).prop_map(|word| op(code::LOAD_WORD, word * 4));
    let small = || 0_u32..4;
    let answers = prop_oneof![
        Just(libc::SECCOMP_RET_ALLOW),
        Just(libc::SECCOMP_RET_LOG),
        Just(libc::SECCOMP_RET_ERRNO),
        Just(libc::SECCOMP_RET_KILL_PROCESS)
    ];
    prop_oneof![
        4 => word,
        4 => (jump, small(), 0_u8..4, 0_u8..4).prop_map(|(code, k, t, f)| Instruction::new(code, t, f, k)),
        2 => (alu, small()).prop_map(|(code, k)| op(code, k)),
        2 => (other, small()).prop_map(|(code, k)| op(code, k)),
        1 => answers.prop_map(|answer| op(code::RETURN, answer)),
        1 => Just(op(code::RETURN_A, 0)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever a call is, one that the filters let through is told of.
    #[test]
    fn no_call_that_is_let_through_is_missing(
        filters in vec(
            vec(any_instruction(), 1..24).prop_map(|mut body| {
                body.extend([op(code::RETURN, libc::SECCOMP_RET_ALLOW), op(code::RETURN, libc::SECCOMP_RET_ERRNO)]);
                body.extend([op(code::RETURN, libc::SECCOMP_RET_LOG); 2]);
                body
            }),
            1..3,
        ),
        number in 0_u32..5, place in 0_u64..4, args in vec(0_u64..4, 6),
    ) {
        let args = <[u64; 6]>::try_from(args).unwrap();
        let call = Call::of(&SeccompData { number, arch: ARCH, instruction_pointer: place, args });
        let is_made = match judge(&filters, &call, &mut Compared::closed()).verdict {
            Verdict::Allowed => true,
            Verdict::Other(value) => LETS_THROUGH.contains(&(value & 0xFFFF_0000)),
            Verdict::KillsProcess | Verdict::Malformed => false,
        };
        if is_made {
            prop_assert!(filters.iter().all(|filter| may_let_through(filter, number, ARCH)));
        }
    }
}
