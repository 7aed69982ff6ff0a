//! A set of vectors of one function.

use crate::handoff::MAX_VECTORS;

const WORDS: usize = MAX_VECTORS / 64;

/// Which of a function's vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VectorSet([u64; WORDS]);

/// Neighbouring vectors with one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Whether they go to the guest, not to their latches.
    pub is_delivered: bool,
}

impl VectorSet {
    /// The vectors below `end` for which `is_in` holds.
    pub fn of(end: u32, is_in: impl Fn(u32) -> bool) -> Self {
        let mut words = [0; WORDS];
        for (vector, (word, bit)) in (0..end).zip(places()) {
            if let Some(word) = words.get_mut(word).filter(|_| is_in(vector)) {
                *word |= bit;
            }
        }
        Self(words)
    }

    /// Whether `vector` is in it.
    #[must_use]
    pub fn has(&self, vector: u32) -> bool {
        let word = usize::try_from(vector / 64)
            .ok()
            .and_then(|w| self.0.get(w));
        word.is_some_and(|word| word >> (vector % 64) & 1 == 1)
    }

    /// The vectors whose membership differs in `after`, in runs of neighbours that go the same way.
    pub fn changes(self, after: Self) -> impl Iterator<Item = Run> {
        let end = u32::try_from(MAX_VECTORS).unwrap_or(0);
        let mut next = 0;
        core::iter::from_fn(move || {
            let is_changed = |v: &u32| self.has(*v) != after.has(*v);
            let first = (next..end).find(is_changed)?;
            let is_delivered = after.has(first);
            let is_same = |v: &u32| is_changed(v) && after.has(*v) == is_delivered;
            let count = u32::try_from((first..end).take_while(is_same).count()).ok()?;
            next = first.checked_add(count)?;
            Some(Run {
                first,
                count,
                is_delivered,
            })
        })
    }
}

/// Word and bit of each vector in order.
fn places() -> impl Iterator<Item = (usize, u64)> {
    (0..WORDS).flat_map(|word| (0..64_u32).map(move |bit| (word, 1 << bit)))
}
