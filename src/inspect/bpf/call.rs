//! A call as a filter sees it: sixteen words, and what they were compared with.

use std::collections::BTreeSet;

use jailed::manifest::SeccompData;

/// Words of a call.
pub(in crate::inspect) const WORDS: usize = 16;
/// The first of the words that tell calls of one number apart: the low half of where the call was made.
pub(in crate::inspect) const FIRST_FREE: usize = 2;
/// The word of the first argument's low half; the high half follows, then the next argument.
pub(in crate::inspect) const FIRST_ARG: usize = 4;

/// The low and the high half of a register.
#[must_use]
pub(in crate::inspect) fn halves(wide: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = wide.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}

/// A call as a filter loads it, by words: number, convention, both halves of where it was made, then those of each argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inspect) struct Call([u32; WORDS]);

impl Call {
    /// The words of a call.
    #[must_use]
    pub(in crate::inspect) fn of(data: &SeccompData) -> Self {
        let mut words = [0; WORDS];
        let wide = std::iter::once(&data.instruction_pointer).chain(&data.args);
        let halves = wide.flat_map(|wide| <[u32; 2]>::from(halves(*wide)));
        let all = [data.number, data.arch].into_iter().chain(halves);
        for (word, value) in words.iter_mut().zip(all) {
            *word = value;
        }
        Self(words)
    }

    /// The call of these words.
    #[must_use]
    pub(in crate::inspect) fn data(&self) -> SeccompData {
        let [number, arch, low, high, a, b, c, d, e, f, g, h, i, j, k, l] = self.0;
        let wide = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        SeccompData {
            number,
            arch,
            instruction_pointer: wide(low, high),
            args: [
                wide(a, b),
                wide(c, d),
                wide(e, f),
                wide(g, h),
                wide(i, j),
                wide(k, l),
            ],
        }
    }

    /// Word `index` of it.
    #[must_use]
    pub(in crate::inspect) fn word(&self, index: usize) -> Option<u32> {
        self.0.get(index).copied()
    }

    /// Its number.
    #[must_use]
    pub(in crate::inspect) const fn number(&self) -> u32 {
        let [number, ..] = self.0;
        number
    }

    /// The convention by which it was made.
    #[must_use]
    pub(in crate::inspect) const fn arch(&self) -> u32 {
        let [_, arch, ..] = self.0;
        arch
    }

    /// The same call with word `index` being `value`; number and convention stay.
    #[must_use]
    pub(in crate::inspect) fn with(mut self, index: usize, value: u32) -> Self {
        if let Some(word) = self.0.get_mut(index).filter(|_| index >= FIRST_FREE) {
            *word = value;
        }
        self
    }
}

/// What free words were compared with while filters ran: where a verdict may change.
#[derive(Clone, Debug)]
pub(in crate::inspect) struct Compared {
    constants: BTreeSet<(usize, u32)>,
    is_open: bool,
}

impl Compared {
    /// Nothing so far.
    #[must_use]
    pub(in crate::inspect) const fn new() -> Self {
        Self {
            constants: BTreeSet::new(),
            is_open: true,
        }
    }

    /// For who does not ask.
    #[must_use]
    pub(in crate::inspect) const fn closed() -> Self {
        Self {
            constants: BTreeSet::new(),
            is_open: false,
        }
    }

    /// Forgets all, and begins to note.
    pub(in crate::inspect) fn clear(&mut self) {
        self.constants.clear();
        self.is_open = true;
    }

    /// Notes nothing any more.
    pub(in crate::inspect) const fn close(&mut self) {
        self.is_open = false;
    }

    /// Word `index` was compared with `constant`.
    pub(super) fn note(&mut self, index: usize, constant: u32) {
        if self.is_open {
            self.constants.insert((index, constant));
        }
    }

    /// The numbers that word `index` was compared with.
    #[must_use]
    pub(in crate::inspect) fn of(&self, index: usize) -> Vec<u32> {
        let all = self.constants.range((index, 0)..=(index, u32::MAX));
        all.map(|(_, constant)| *constant).collect()
    }
}
