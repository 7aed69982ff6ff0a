//! The ways through a filter: for each one a call that takes it, so that no rule of it stays unasked.
//!
//! Exact for programs that load a word, compare it with constants or test its bits, and return: what filters are made
//! of. A way through anything else ends where that begins.

use std::ops::ControlFlow;

use jailed::manifest::Instruction;

use super::bpf::{Call, FIRST_FREE, WORDS};

/// More ways than any filter of ours has for one number.
const MOST: usize = 20_000;

/// What is known of a word.
#[derive(Clone, Copy, Debug)]
struct Fact {
    index: usize,
    test: Test,
    holds: bool,
}

#[derive(Clone, Copy, Debug)]
enum Test {
    Equal(u32),
    Above(u32),
    AtLeast(u32),
    AnyOf(u32),
}

impl Test {
    const fn of(self, value: u32) -> bool {
        match self {
            Self::Equal(k) => value == k,
            Self::Above(k) => value > k,
            Self::AtLeast(k) => value >= k,
            Self::AnyOf(mask) => value & mask != 0,
        }
    }
}

/// Calls that take the ways through a filter.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    /// The calls.
    pub(super) calls: Vec<Call>,
    /// Whether each way has some; where there are too many, the rest is left out.
    pub(super) is_whole: bool,
}

/// Calls like `base` but for their free words: the least and the greatest for each way through `filter`.
#[must_use]
pub(super) fn samples(filter: &[Instruction], base: &Call) -> Samples {
    let mut walk = Walk {
        filter,
        base,
        ways: 0,
        samples: Vec::new(),
    };
    let ended = walk.from(0, None, &mut Vec::new());
    Samples {
        calls: walk.samples,
        is_whole: ended.is_continue(),
    }
}

struct Walk<'a> {
    filter: &'a [Instruction],
    base: &'a Call,
    ways: usize,
    samples: Vec<Call>,
}

impl Walk<'_> {
    /// Goes on at `at` with word `loaded` in A.
    fn from(
        &mut self,
        mut at: usize,
        mut loaded: Option<usize>,
        facts: &mut Vec<Fact>,
    ) -> ControlFlow<()> {
        loop {
            let Some(instruction) = self.filter.get(at) else {
                return ControlFlow::Continue(());
            };
            let k = instruction.operand;
            at += 1;
            let test = match instruction.code {
                0x20 => {
                    loaded = usize::try_from(k / 4).ok();
                    continue;
                }
                0x05 => {
                    at = at.saturating_add(usize::try_from(k).unwrap_or(usize::MAX));
                    continue;
                }
                0x15 => Test::Equal(k),
                0x25 => Test::Above(k),
                0x35 => Test::AtLeast(k),
                0x45 => Test::AnyOf(k),
                _ => return self.end(facts),
            };
            let Some(index) = loaded else {
                return self.end(facts);
            };
            let target = |holds| {
                let skipped = if holds {
                    instruction.if_true
                } else {
                    instruction.if_false
                };
                at + usize::from(skipped)
            };
            let known = |holds| match head(self.base, index) {
                Some(value) => test.of(value) == holds,
                None => {
                    let fact = Fact { index, test, holds };
                    value(facts, Some(&fact), index, false).is_some()
                }
            };
            match (known(true), known(false)) {
                (true, true) => {
                    facts.push(Fact {
                        index,
                        test,
                        holds: true,
                    });
                    self.from(target(true), loaded, facts)?;
                    facts.pop();
                    facts.push(Fact {
                        index,
                        test,
                        holds: false,
                    });
                    let ended = self.from(target(false), loaded, facts);
                    facts.pop();
                    return ended;
                }
                (true, false) => at = target(true),
                (false, true) => at = target(false),
                (false, false) => return ControlFlow::Continue(()),
            }
        }
    }

    /// Notes the calls that come here.
    fn end(&mut self, facts: &[Fact]) -> ControlFlow<()> {
        for is_greatest in [false, true] {
            let mut call = *self.base;
            for index in FIRST_FREE..WORDS {
                if let Some(value) = value(facts, None, index, is_greatest) {
                    call = call.with(index, value);
                }
            }
            self.samples.push(call);
        }
        self.ways += 1;
        if self.ways < MOST {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

/// Number and convention are given.
const fn head(base: &Call, index: usize) -> Option<u32> {
    match index {
        0 => Some(base.number()),
        1 => Some(base.arch()),
        _ => None,
    }
}

/// The least or greatest value of word `index` of which all of `facts` and `one` more hold, among those at which one of them
/// changes. Asked for each branch of each way, so it takes no memory.
fn value(facts: &[Fact], one: Option<&Fact>, index: usize, is_greatest: bool) -> Option<u32> {
    let own = || facts.iter().chain(one).filter(|fact| fact.index == index);
    let ends = [0, u32::MAX];
    if own().next().is_none() {
        return Some(if is_greatest { u32::MAX } else { 0 });
    }
    let forbidden = own().fold(0, |bits, fact| match fact.test {
        Test::AnyOf(mask) if !fact.holds => bits | mask,
        Test::AnyOf(_) | Test::Equal(_) | Test::Above(_) | Test::AtLeast(_) => bits,
    });
    let fits = |value: u32| own().all(|fact| fact.test.of(value) == fact.holds);
    let mut best = None;
    let mut add = |candidate: u32| {
        let is_better = best.is_none_or(|best| match is_greatest {
            true => candidate > best,
            false => candidate < best,
        });
        if is_better && fits(candidate) {
            best = Some(candidate);
        }
    };
    // What is left of each where bits must not be set, too.
    let mut both = |candidate: u32| {
        add(candidate);
        add(candidate & !forbidden);
    };
    ends.into_iter().for_each(&mut both);
    for fact in own() {
        match fact.test {
            Test::Equal(k) | Test::Above(k) | Test::AtLeast(k) => {
                [k.wrapping_sub(1), k, k.wrapping_add(1)]
                    .into_iter()
                    .for_each(&mut both);
            }
            Test::AnyOf(mask) => {
                [mask, !mask, mask & mask.wrapping_neg()]
                    .into_iter()
                    .for_each(&mut both);
            }
        }
    }
    best
}
