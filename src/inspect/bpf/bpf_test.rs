use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use jailed::manifest::{Instruction, SeccompData};

use super::{Call, Compared, Judged, Registers, Stand, Verdict, WORDS, judge_from, run, until};
use crate::sys::filtered::kernel_answer;

const ALLOW: u32 = 0x7FFF_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const ERRNO: u32 = 0x0005_0000;
const LOG: u32 = 0x7FFC_0000;

const NOTHING: SeccompData = SeccompData {
    number: 0,
    arch: 0,
    instruction_pointer: 0,
    args: [0; 6],
};

fn judge(filters: &[Vec<Instruction>], call: &SeccompData) -> Judged {
    super::judge(filters, &Call::of(call), &mut Compared::new())
}

fn op(code: u16, k: u32) -> Instruction {
    Instruction::new(code, 0, 0, k)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction::new(code, jt, jf, k)
}

fn returns(value: u32) -> Vec<Instruction> {
    vec![op(0x06, value)]
}

fn any_instruction() -> impl Strategy<Value = Instruction> {
    let code = prop_oneof![0_u16..0x100, any::<u16>()];
    let k = prop_oneof![0_u32..80, any::<u32>()];
    let (jt, jf) = (0_u8..6, 0_u8..6);
    (code, jt, jf, k).prop_map(|(code, jt, jf, k)| Instruction::new(code, jt, jf, k))
}

fn any_call() -> impl Strategy<Value = SeccompData> {
    let number = prop_oneof![0_u32..500, any::<u32>()];
    let args = any::<[u64; 6]>();
    (number, any::<u32>(), any::<u64>(), args).prop_map(
        |(number, arch, instruction_pointer, args)| SeccompData {
            number,
            arch,
            instruction_pointer,
            args,
        },
    )
}

proptest! {
    #[test]
    fn any_program_gives_a_verdict(filter in vec(any_instruction(), 0..64), call in any_call()) {
        let first = judge(std::slice::from_ref(&filter), &call);
        prop_assert_eq!(judge(&[filter.clone(), filter], &call), first);
    }

    #[test]
    fn words_that_were_not_looked_at_change_nothing(
        filter in vec(any_instruction(), 0..64), one in any_call(), other in any_call(),
    ) {
        let Judged { verdict, words } = judge(std::slice::from_ref(&filter), &one);
        let (mut mixed, other) = (Call::of(&one), Call::of(&other));
        for index in (2..16).filter(|index| words & (1 << index) == 0) {
            mixed = mixed.with(index, other.word(index).unwrap());
        }
        prop_assert_eq!(judge(&[filter], &mixed.data()).verdict, verdict);
    }

    /// What is shared by all values of a word is run once; the verdict is that of a whole run.
    #[test]
    fn a_run_that_stops_before_a_word_goes_on_as_if_it_had_not(
        filters in vec(vec(any_instruction(), 0..64), 0..3), call in any_call(), index in 2_usize..16,
        values in vec(any::<u32>(), 1..4),
    ) {
        let (base, mut none) = (Call::of(&call), Compared::new());
        let stands = until(&filters, &base, index, &mut none);
        let is_blind = stands.iter().all(|stand| matches!(stand, Stand::Ended { .. }));
        for value in values {
            let call = base.with(index, value);
            let whole = judge(&filters, &call.data());
            prop_assert_eq!(judge_from(&filters, &stands, &call, &mut none), whole);
            prop_assert!(!is_blind || judge(&filters, &base.data()).verdict == whole.verdict);
        }
    }

    #[test]
    fn a_call_is_its_words(call in any_call(), index in 0..WORDS, value in any::<u32>()) {
        let words = Call::of(&call);
        prop_assert_eq!(words.data(), call);
        let other = words.with(index, value);
        for at in 0..WORDS {
            let is_changed = at == index && index >= super::FIRST_FREE;
            prop_assert_eq!(other.word(at), if is_changed { Some(value) } else { words.word(at) });
        }
    }
}

#[test]
fn the_most_restrictive_filter_decides() {
    for (values, verdict) in [
        (&[ALLOW] as &[u32], Verdict::Allowed),
        (&[ALLOW, KILL_PROCESS], Verdict::KillsProcess),
        (&[KILL_PROCESS, ALLOW], Verdict::KillsProcess),
        (&[KILL_THREAD, KILL_PROCESS], Verdict::KillsProcess),
        (&[KILL_THREAD, ERRNO | 1], Verdict::Other(KILL_THREAD)),
        (&[ALLOW, LOG], Verdict::Other(LOG)),
        (
            &[LOG, ERRNO | 7, ERRNO | 9, ALLOW],
            Verdict::Other(ERRNO | 7),
        ),
        (&[], Verdict::Allowed),
    ] {
        let filters: Vec<_> = values.iter().map(|value| returns(*value)).collect();
        let judged = judge(&filters, &NOTHING);
        assert_eq!(judged.verdict, verdict, "{values:x?}");
    }
}

#[test]
fn what_the_kernel_takes_for_no_program_is_malformed() {
    for filter in [
        vec![],
        vec![op(0x20, 0)],
        // A load that is not aligned, or behind the end; of a byte; indirect.
        vec![op(0x20, 2), op(0x06, ALLOW)],
        vec![op(0x20, 64), op(0x06, ALLOW)],
        vec![op(0x30, 0), op(0x06, ALLOW)],
        vec![op(0x40, 0), op(0x06, ALLOW)],
        // Division by zero, shift by all bits, memory that is not there.
        vec![op(0x34, 0), op(0x06, ALLOW)],
        vec![op(0x64, 32), op(0x06, ALLOW)],
        vec![op(0x02, 16), op(0x06, ALLOW)],
        // Jumps behind the end.
        vec![op(0x05, 1), op(0x06, ALLOW)],
        vec![op(0x05, u32::MAX), op(0x06, ALLOW)],
        vec![jump(0x15, 0, 1, 1), op(0x06, ALLOW)],
    ] {
        let judged = judge(&[returns(KILL_PROCESS), filter.clone()], &NOTHING);
        assert_eq!(judged.verdict, Verdict::Malformed, "{filter:x?}");
    }
}

/// A number that no kernel has a call for.
const NUMBER: u32 = 1000;

/// A program whose answer to [`NUMBER`] is an error between 1 and 2048, made of instructions that the kernel takes.
fn sound_program() -> impl Strategy<Value = Vec<Instruction>> {
    let alu = (0_usize..8, any::<bool>(), any::<u32>()).prop_map(|(which, is_x, k)| {
        let code = [0x04, 0x14, 0x24, 0x44, 0x54, 0x64, 0x74, 0xA4][which];
        let k = if which == 5 || which == 6 { k % 32 } else { k };
        op(code | if is_x { 0x08 } else { 0 }, k)
    });
    let division = (any::<bool>(), 1_u32..).prop_map(|(is_x, k)| {
        // By X only behind an X that is not zero: the answer must be an error.
        op(if is_x { 0x87 } else { 0x34 }, if is_x { 0 } else { k })
    });
    let load = (0_u32..16).prop_map(|word| op(0x20, word * 4));
    let other = (
        prop_oneof![
            Just(0x00),
            Just(0x01),
            Just(0x80),
            Just(0x81),
            Just(0x07),
            Just(0x84)
        ],
        any::<u32>(),
    )
        .prop_map(|(code, k)| {
            op(
                code,
                if matches!(code, 0x80 | 0x81 | 0x07 | 0x84) {
                    0
                } else {
                    k
                },
            )
        });
    let memory = (
        prop_oneof![Just(0x60), Just(0x61), Just(0x02), Just(0x03)],
        0_u32..4,
    )
        .prop_map(|(code, k)| op(code, k));
    let branch = (
        0_usize..5,
        any::<bool>(),
        prop_oneof![0_u32..4, any::<u32>()],
        0_u8..4,
        0_u8..4,
    )
        .prop_map(|(which, is_x, k, jt, jf)| {
            let code = [0x05, 0x15, 0x25, 0x35, 0x45][which];
            match code {
                0x05 => op(code, k % 4),
                _ => jump(code | if is_x { 0x08 } else { 0 }, k, jt, jf),
            }
        });
    vec(
        prop_oneof![4 => alu, 1 => division, 4 => load, 1 => other, 2 => memory, 3 => branch],
        0..24,
    )
    .prop_map(|body| {
        let mut program = vec![
            op(0x20, 0),
            jump(0x15, NUMBER, 1, 0),
            op(0x06, ALLOW),
            // Every slot that is read is written first.
            op(0x02, 0),
            op(0x02, 1),
            op(0x02, 2),
            op(0x02, 3),
        ];
        program.extend(body);
        // Room for jumps out of the body.
        program.extend([op(0x04, 0); 4]);
        program.extend([op(0x54, 0x7FF), op(0x04, 1), op(0x44, ERRNO), op(0x16, 0)]);
        program
    })
}

#[test]
fn verdicts_are_the_kernels() {
    let mut runner = TestRunner::new(Config::default());
    let mut taken = 0;
    for _ in 0..150 {
        let program = sound_program().new_tree(&mut runner).unwrap().current();
        let args: [u64; 6] = any::<[u64; 6]>().new_tree(&mut runner).unwrap().current();
        let Some(errno) = kernel_answer(&program, i64::from(NUMBER), args).unwrap() else {
            continue;
        };
        taken += 1;
        let call = SeccompData {
            number: NUMBER,
            arch: 0xC000_003E,
            instruction_pointer: 0,
            args,
        };
        let call = Call::of(&call);
        let ended = run(
            &program,
            Registers::START,
            &call,
            None,
            &mut Compared::new(),
        );
        let Stand::Ended { value, words } = ended else {
            panic!("a run that was to stop nowhere has stopped: {program:x?}");
        };
        if words & 0b1100 != 0 {
            // Where the call was made from is not known here.
            continue;
        }
        let expected = ERRNO | u32::try_from(errno).unwrap();
        assert_eq!(value, Some(expected), "{args:x?} {program:x?}");
    }
    assert!(taken > 100, "the kernel took {taken} programs only");
}
