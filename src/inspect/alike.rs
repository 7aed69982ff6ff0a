//! Numbers of calls that go the same way through filters, and so get the same verdict.
//!
//! A filter of loads, comparisons with constants and jumps alone knows nothing but what it loaded last. Calls that differ in
//! their number alone, and of whose numbers every comparison on the way of one says the same, go one way. Of a filter that
//! does anything else, nothing is said.

use jailed::manifest::Instruction;

use super::bpf::{Call, WORDS, code};

/// A range without some numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alike {
    first: u32,
    last: u32,
    but: Vec<u32>,
    /// Bits, and whether a number has any of them.
    bits: Vec<(u32, bool)>,
}

impl Alike {
    /// The numbers that go the way of `call`; `None` where that cannot be told.
    #[must_use]
    pub(super) fn of(filters: &[Vec<Instruction>], call: &Call) -> Option<Self> {
        let mut alike = Self {
            first: 0,
            last: u32::MAX,
            but: Vec::new(),
            bits: Vec::new(),
        };
        for filter in filters {
            alike.walk(filter, call)?;
        }
        alike.but.sort_unstable();
        Some(alike)
    }

    /// Whether `number` is one of them.
    #[must_use]
    pub(super) fn has(&self, number: u32) -> bool {
        let has_bits = |(bits, any): &(u32, bool)| (number & bits != 0) == *any;
        (self.first..=self.last).contains(&number)
            && self.but.binary_search(&number).is_err()
            && self.bits.iter().all(has_bits)
    }

    /// Whether it can be more than one.
    #[must_use]
    pub(super) const fn is_range(&self) -> bool {
        self.first < self.last
    }

    /// Goes the way of `call` to its end.
    fn walk(&mut self, filter: &[Instruction], call: &Call) -> Option<()> {
        let (mut at, mut a, mut is_number) = (0_usize, 0, false);
        // Jumps lead forward only.
        loop {
            let Instruction {
                code,
                if_true,
                if_false,
                operand: k,
            } = *filter.get(at)?;
            let skip = match code {
                code::LOAD_WORD => {
                    let index = usize::try_from(k / 4).ok()?;
                    a = call
                        .word(index)
                        .filter(|_| k.is_multiple_of(4) && index < WORDS)?;
                    is_number = index == 0;
                    0
                }
                code::JUMP => k,
                code::JUMP_IF_EQUAL
                | code::JUMP_IF_ABOVE
                | code::JUMP_IF_AT_LEAST
                | code::JUMP_IF_BITS => {
                    let holds = match code {
                        code::JUMP_IF_EQUAL => a == k,
                        code::JUMP_IF_ABOVE => a > k,
                        code::JUMP_IF_AT_LEAST => a >= k,
                        _ => a & k != 0,
                    };
                    if is_number {
                        self.narrow(code, k, holds);
                    }
                    u32::from(if holds { if_true } else { if_false })
                }
                code::RETURN => return Some(()),
                _ => return None,
            };
            at = at
                .checked_add(usize::try_from(skip).ok()?)?
                .checked_add(1)?;
        }
    }

    /// Leaves the numbers of which the comparison with `k` says the same.
    fn narrow(&mut self, code: u16, k: u32, holds: bool) {
        match (code, holds) {
            (code::JUMP_IF_EQUAL, true) => (self.first, self.last) = (k, k),
            (code::JUMP_IF_EQUAL, false) => self.but.push(k),
            (code::JUMP_IF_ABOVE, true) => self.first = self.first.max(k.saturating_add(1)),
            (code::JUMP_IF_ABOVE, false) => self.last = self.last.min(k),
            (code::JUMP_IF_AT_LEAST, true) => self.first = self.first.max(k),
            (code::JUMP_IF_AT_LEAST, false) => self.last = self.last.min(k.saturating_sub(1)),
            _ => self.bits.push((k, holds)),
        }
    }
}

#[cfg(test)]
mod tests {
    use jailed::manifest::{Phase, Role, SeccompData};
    use proptest::{collection::vec, prelude::*};

    use super::{
        super::{
            bpf::{Compared, judge},
            compare::compare_test::{filters, guest, rules, supervisors},
        },
        *,
    };

    fn call(number: u32, arch: u32, args: [u64; 6]) -> Call {
        Call::of(&SeccompData {
            number,
            arch,
            instruction_pointer: 0,
            args,
        })
    }

    fn verdict(filters: &[Vec<Instruction>], call: &Call) -> super::super::bpf::Judged {
        judge(filters, call, &mut Compared::new())
    }

    /// Few constants and short jumps, so that the ways meet them; now and then an instruction of which nothing is said.
    fn any_instruction() -> impl Strategy<Value = Instruction> {
        let code = prop_oneof![
            4 => Just(code::LOAD_WORD), 4 => Just(code::JUMP_IF_EQUAL), 3 => Just(code::JUMP_IF_ABOVE),
            3 => Just(code::JUMP_IF_AT_LEAST), 2 => Just(code::JUMP_IF_BITS), 1 => Just(code::JUMP), 2 => Just(code::RETURN), 1 => 0_u16..0x100
        ];
        let k = prop_oneof![
            Just(0_u32),
            Just(4),
            0_u32..12,
            Just(u32::MAX),
            Just(0x7FFF_0000)
        ];
        (code, 0_u8..4, 0_u8..4, k).prop_map(|(code, jt, jf, k)| Instruction::new(code, jt, jf, k))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn numbers_that_are_alike_get_the_same_verdict(
            filters in vec(vec(any_instruction(), 1..24), 1..3),
            number in 0_u32..14, arch in 0_u32..4, args in any::<[u64; 6]>(),
        ) {
            let base = call(number, arch, args);
            if let Some(alike) = Alike::of(&filters, &base) {
                prop_assert!(alike.has(number));
                let expected = verdict(&filters, &base);
                let far = [u32::MAX, u32::MAX - 1, 0x4000_0000, 0x8000_0000];
                for other in (0..16).chain(far).filter(|other| alike.has(*other)) {
                    prop_assert_eq!(verdict(&filters, &call(other, arch, args)), expected);
                }
            }
        }
    }

    /// The filters of this build say of few numbers that they are like no other.
    #[test]
    fn numbers_that_our_filters_do_not_name_are_alike() {
        let handoff = guest(2, 1);
        for (filters, named) in [
            (
                filters(Role::Device, &handoff),
                rules(Role::Device, Phase::Build, &handoff),
            ),
            (
                filters(Role::Vcpu, &handoff),
                rules(Role::Vcpu, Phase::Build, &handoff),
            ),
            (
                supervisors(),
                crate::jail::seccomp::rules(&super::super::compare::compare_test::watched()),
            ),
        ] {
            let alike = Alike::of(&filters, &call(1000, jailed::manifest::ARCH, [0; 6])).unwrap();
            assert!(alike.is_range());
            let others = (0..1024).filter(|number| !alike.has(*number)).count();
            let named: std::collections::BTreeSet<u32> =
                named.iter().map(|rule| rule.call).collect();
            assert!(others <= named.len(), "{others} of {}", named.len());
        }
    }

    #[test]
    fn what_counts_is_never_said_to_be_alike() {
        let op = |code, k| Instruction::new(code, 0, 0, k);
        let base = call(1, 0, [0; 6]);
        // ALU, a comparison with X, what A is returned, an end that is missing, a load from between words.
        for odd in [
            op(0x54, 1),
            op(0x4D, 1),
            op(0x16, 0),
            op(0x20, 2),
            op(0x20, 64),
        ] {
            let filter = vec![op(code::LOAD_WORD, 0), odd, op(code::RETURN, 0)];
            assert_eq!(Alike::of(&[filter], &base), None, "{odd:?}");
        }
        assert_eq!(Alike::of(&[vec![op(code::LOAD_WORD, 0)]], &base), None);
    }
}
