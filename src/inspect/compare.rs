//! Live filters against the rules they are meant to be: by asking both about every number and many arguments.
//!
//! A number whose verdict does not depend on arguments is settled by one question. Of others, every argument word goes
//! through the values at which the filter or a rule changes its mind, with their neighbours, through all descriptors and
//! all requests that such descriptors know, and through the halves of registers that the kernel ignores.

use std::collections::{BTreeMap, BTreeSet};

use jailed::manifest::{ARCH, Check, Instruction, Operand, Rule, SeccompData, X32};

use super::{
    alike::Alike,
    bpf::{self, Call, Compared, FIRST_ARG, FIRST_FREE, Judged, Stand, Verdict, WORDS},
    names, paths,
};

/// Numbers that are tried; the kernel has some 470.
const NUMBERS: u32 = 1024;
/// Other conventions: i386, which a 64-bit process can use, and some that it cannot.
const OTHER_ARCHES: [u32; 5] = [0x4000_0003, 0xC000_00B7, ARCH ^ 1, 0, u32::MAX];
/// Halves of registers that say something else than zero.
const ODD: [u32; 5] = [1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, u32::MAX];
/// How many differences are told; the rest is counted.
const TOLD: usize = 16;
/// The word of the number.
const NUMBER: u16 = 1;
/// Words that tell calls of one number apart: arguments, and from where it is made, which no rule is about.
const FREE: u16 = 0xFFFC;

/// What came of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Comparison {
    /// The numbers of which some call is allowed.
    pub(super) reachable: BTreeSet<u32>,
    /// Calls on which filters and rules do not agree, the first of them.
    pub(super) differences: Vec<String>,
    /// How many there are.
    pub(super) different: usize,
    /// How many calls were tried.
    pub(super) tried: u64,
}

impl Comparison {
    const fn new() -> Self {
        Self {
            reachable: BTreeSet::new(),
            differences: Vec::new(),
            different: 0,
            tried: 0,
        }
    }

    /// There are more ways for the call `number` than were tried: nobody can say that it is forbidden.
    fn unsettled(&mut self, number: u32) {
        self.reachable.insert(number);
        self.differ(|| {
            format!(
                "{} has more ways through the filter than are tried",
                names::call(number)
            )
        });
    }

    fn differ(&mut self, told: impl FnOnce() -> String) {
        self.different += 1;
        if self.differences.len() < TOLD {
            self.differences.push(told());
        }
    }
}

/// How filters are to agree with rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreement {
    /// What the rules allow is allowed, and nothing else.
    Exact,
    /// What the rules do not allow is not allowed.
    NoMore,
}

/// Compares what `filters` do with what `rules` allow, for a process whose descriptors lie below `behind`.
#[must_use]
pub(super) fn compare(
    filters: &[Vec<Instruction>],
    rules: &[Rule],
    behind: u32,
    agreement: Agreement,
) -> Comparison {
    let mut trial = Trial::new(filters, rules, agreement);
    trial.calls(behind);
    // Last what nobody calls by mistake, so that it fills no list.
    let x32 = (0..NUMBERS).map(|number| number | X32);
    trial.without_rules(x32.chain([NUMBERS, 0x8000_0000, u32::MAX]), ARCH);
    for arch in OTHER_ARCHES {
        let (first, others) = (call(0, arch), NUMBER | FREE);
        let words = trial.without_arguments(&first).words;
        if words & others == 0 || bpf::is_ended_by_one(filters, &first, others) {
            // What decided was the convention: the same for all numbers. An argument may lead to where they differ.
            continue;
        }
        trial.without_rules((1..NUMBERS).chain([X32, u32::MAX]), arch);
    }
    trial.found
}

fn call(number: u32, arch: u32) -> Call {
    Call::of(&data(number, arch))
}

const fn data(number: u32, arch: u32) -> SeccompData {
    SeccompData {
        number,
        arch,
        instruction_pointer: 0,
        args: [0; 6],
    }
}

struct Trial<'a> {
    filters: &'a [Vec<Instruction>],
    rules: &'a [Rule],
    agreement: Agreement,
    /// What words were compared with, since the number under trial changed.
    compared: Compared,
    found: Comparison,
}

impl<'a> Trial<'a> {
    const fn new(filters: &'a [Vec<Instruction>], rules: &'a [Rule], agreement: Agreement) -> Self {
        Self {
            filters,
            rules,
            agreement,
            compared: Compared::new(),
            found: Comparison::new(),
        }
    }

    /// Tries all calls of this processor's own convention.
    fn calls(&mut self, behind: u32) {
        let has_rule: BTreeSet<u32> = self.rules.iter().map(|rule| rule.call).collect();
        let mut known = None;
        for number in 0..NUMBERS {
            if has_rule.contains(&number) {
                self.call(number, behind);
            } else {
                self.without_rule(&call(number, ARCH), &mut known);
            }
        }
    }

    /// Tries the call `number` with everything that may matter to it.
    fn call(&mut self, number: u32, behind: u32) {
        let rules = self.rules.iter();
        let own: Vec<&Rule> = rules.filter(|rule| rule.call == number).collect();
        if own.is_empty() {
            self.without_arguments(&call(number, ARCH));
        } else {
            self.with_arguments(number, &own, behind);
        }
    }

    /// Tries a call that no rule is about. Of numbers that go the same way through the filters one goes it for all, where none of
    /// the filters looks at an argument on it: `known` is the last such way.
    fn without_rule(&mut self, call: &Call, known: &mut Option<(Alike, Verdict)>) {
        let is_known = |(alike, _): &&(Alike, Verdict)| alike.has(call.number());
        if let Some((_, verdict)) = known.as_ref().filter(is_known) {
            let verdict = *verdict;
            self.settle(call, verdict);
            return;
        }
        let Judged { verdict, words } = self.without_arguments(call);
        if words & FREE == 0
            && let Some(alike) = Alike::of(self.filters, call).filter(Alike::is_range)
        {
            *known = Some((alike, verdict));
        }
    }

    /// The same for many.
    fn without_rules(&mut self, numbers: impl Iterator<Item = u32>, arch: u32) {
        let mut known = None;
        for number in numbers {
            self.without_rule(&call(number, arch), &mut known);
        }
    }

    /// Tries a call that no rule is about: one question, unless the filter looks at an argument. Gives the answer to the first.
    fn without_arguments(&mut self, call: &Call) -> Judged {
        self.compared.clear();
        let judged = self.one(call);
        let words = judged.words;
        // Nothing undoes the end of a process: where one filter ends it without a look at an argument, none matters.
        if words & FREE != 0 && !bpf::is_ended_by_one(self.filters, call, FREE) {
            self.vary(call, &BTreeMap::new());
            self.ways(call);
        }
        judged
    }

    /// Takes every way through each of the filters once. Where there are more than are tried, the call counts as one that is
    /// allowed.
    fn ways(&mut self, base: &Call) {
        for filter in self.filters {
            let paths::Samples { calls, is_whole } = paths::samples(filter, base);
            for call in calls {
                self.one(&call);
            }
            if !is_whole {
                self.found.unsettled(base.number());
            }
        }
    }

    /// Tries a call that rules are about.
    fn with_arguments(&mut self, number: u32, own: &[&Rule], behind: u32) {
        self.compared.clear();
        let mut wanted = wanted(own);
        let descriptors = (0..behind.saturating_add(8)).chain([1023, 1024]);
        wanted.entry(FIRST_ARG).or_default().extend(descriptors);
        let has_requests = names::call(number) == "ioctl";
        let requests = names::REQUESTS.iter().filter(|_| has_requests);
        let requests: BTreeSet<u32> = requests.map(|(request, _)| *request).collect();
        let second = wanted.entry(FIRST_ARG + 2).or_default();
        second.extend(&requests);

        let mut bases = vec![call(number, ARCH)];
        bases.push(Call::of(&SeccompData {
            args: [u64::MAX; 6],
            ..data(number, ARCH)
        }));
        for rule in own {
            // The two are one where the rule names every argument's value.
            for base in [true, false].map(|is_first| corner(rule, is_first)) {
                if !bases.contains(&base) {
                    bases.push(base);
                }
            }
        }
        for base in &bases {
            self.one(base);
        }
        self.compared.close();
        for base in &bases {
            self.vary(base, &wanted);
        }
        self.ways(&call(number, ARCH));
        self.pairs(&bases, &wanted, &requests);
    }

    /// Every descriptor with every request.
    fn pairs(
        &mut self,
        bases: &[Call],
        wanted: &BTreeMap<usize, BTreeSet<u32>>,
        requests: &BTreeSet<u32>,
    ) {
        let Some(descriptors) = wanted.get(&FIRST_ARG) else {
            return;
        };
        // The first two bases have arguments of their own, the third is a call that is allowed.
        for base in bases.iter().skip(2).take(1) {
            for descriptor in descriptors {
                let call = base.with(FIRST_ARG, *descriptor);
                self.vary_word(&call, FIRST_ARG + 2, requests.iter().copied());
            }
        }
    }

    /// One argument word after the other, the rest as in `base`.
    fn vary(&mut self, base: &Call, wanted: &BTreeMap<usize, BTreeSet<u32>>) {
        for index in FIRST_FREE..WORDS {
            let mut values = ODD.to_vec();
            values.push(0);
            values.extend(wanted.get(&index).into_iter().flatten());
            for constant in self.compared.of(index) {
                values.extend(around(constant));
                // For comparisons of bits.
                values.extend([!constant, constant & constant.wrapping_neg()]);
            }
            values.sort_unstable();
            values.dedup();
            self.vary_word(base, index, values);
        }
    }

    /// Asks both about `base` with each of `values` as word `index`. Until they look at this word, the filters go the same
    /// way with all of them: they go it once. Where they never look, their verdict is the same, too.
    fn vary_word(&mut self, base: &Call, index: usize, values: impl IntoIterator<Item = u32>) {
        let stands = bpf::until(self.filters, base, index, &mut self.compared);
        let is_blind = stands
            .iter()
            .all(|stand| matches!(stand, Stand::Ended { .. }));
        let known = is_blind
            .then(|| bpf::judge_from(self.filters, &stands, base, &mut self.compared).verdict);
        for value in values {
            let call = base.with(index, value);
            let verdict = known.unwrap_or_else(|| {
                bpf::judge_from(self.filters, &stands, &call, &mut self.compared).verdict
            });
            self.settle(&call, verdict);
        }
    }

    /// Asks both about one call; the filters' answer.
    fn one(&mut self, call: &Call) -> Judged {
        let judged = bpf::judge(self.filters, call, &mut self.compared);
        self.settle(call, judged.verdict);
        judged
    }

    /// Holds the filters' verdict on one call against the rules.
    fn settle(&mut self, call: &Call, verdict: Verdict) {
        let number = call.number();
        // A rule allows no call but its own.
        let mut own = self
            .rules
            .iter()
            .filter(|rule| rule.call == number)
            .peekable();
        let is_meant = own.peek().is_some() && {
            let data = call.data();
            own.any(|rule| rule.allows(&data))
        };
        let expected = match is_meant {
            true => Verdict::Allowed,
            false => Verdict::KillsProcess,
        };
        self.found.tried += 1;
        if verdict == Verdict::Allowed {
            self.found.reachable.insert(number);
        }
        let is_less = verdict == Verdict::KillsProcess && self.agreement == Agreement::NoMore;
        if verdict != expected && !is_less {
            self.found.differ(|| told(&call.data(), verdict, is_meant));
        }
    }
}

fn told(call: &SeccompData, verdict: Verdict, is_meant: bool) -> String {
    let SeccompData {
        number,
        arch,
        instruction_pointer,
        args,
    } = call;
    let [a, b, c, d, e, f] = args;
    let name = match *arch {
        ARCH => names::call(*number),
        other => format!("call {number} of convention {other:#x}"),
    };
    let meant = if is_meant { "allowed" } else { "forbidden" };
    let from = match instruction_pointer {
        0 => String::new(),
        place => format!(" made at {place:#x}"),
    };
    format!(
        "{name}({a:#x}, {b:#x}, {c:#x}, {d:#x}, {e:#x}, {f:#x}){from} is meant to be {meant}; the filter {}",
        match verdict {
            Verdict::Allowed => "allows it".to_owned(),
            Verdict::KillsProcess => "ends the process".to_owned(),
            Verdict::Other(value) => format!("answers {value:#x}"),
            Verdict::Malformed => "is none".to_owned(),
        }
    )
}

/// For each word the values at which a rule changes its mind.
fn wanted(own: &[&Rule]) -> BTreeMap<usize, BTreeSet<u32>> {
    let mut wanted: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
    for Check { argument, operand } in own.iter().flat_map(|rule| rule.checks.iter().flatten()) {
        let low = FIRST_ARG + 2 * usize::from(*argument);
        let ends = match *operand {
            Operand::Low(number) => [u64::from(number); 2],
            Operand::LowRange { first, count } => {
                let last = first.saturating_add(count.saturating_sub(1));
                [u64::from(first), u64::from(last)]
            }
            Operand::Wide { first, last } => [first, last],
            Operand::OnlyBits(bits) => [bits, !bits],
        };
        for end in ends {
            let (low_half, high_half) = bpf::halves(end);
            wanted.entry(low).or_default().extend(around(low_half));
            wanted.entry(low + 1).or_default().extend(around(high_half));
        }
        if let Operand::OnlyBits(bits) = *operand {
            let (low_half, high_half) = bpf::halves(!bits);
            for bit in (0..32).map(|bit| 1_u32 << bit) {
                let other = |half: u32| (half & bit != 0).then_some(bit);
                wanted.entry(low).or_default().extend(other(low_half));
                wanted.entry(low + 1).or_default().extend(other(high_half));
            }
        }
    }
    wanted
}

fn around(value: u32) -> [u32; 3] {
    [value.wrapping_sub(1), value, value.wrapping_add(1)]
}

/// The call with the least, or the greatest, arguments that `rule` allows.
fn corner(rule: &Rule, is_first: bool) -> Call {
    let mut call = data(rule.call, ARCH);
    for Check { argument, operand } in rule.checks.iter().flatten() {
        let Some(arg) = call.args.get_mut(usize::from(*argument)) else {
            continue;
        };
        let (first, last) = match *operand {
            Operand::Low(number) => (u64::from(number), u64::from(number)),
            Operand::LowRange { first, count } => {
                let last = first.saturating_add(count.saturating_sub(1));
                (u64::from(first), u64::from(last))
            }
            Operand::Wide { first, last } => (first, last),
            Operand::OnlyBits(bits) => (0, bits),
        };
        *arg = if is_first { first } else { last };
    }
    Call::of(&call)
}

#[cfg(test)]
#[path = "compare_test.rs"]
pub(super) mod compare_test;
