//! Arbitrary bytes, taken as what a target needs next; and the count of executions.

use bolero::{ValueGenerator, generator::produce};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// What targets are given: random bytes left to their own length are mostly none at all.
pub(crate) fn any_bytes() -> impl ValueGenerator<Output = Vec<u8>> {
    produce::<Vec<u8>>().with().len(64_usize..768)
}

/// Bytes that are used up from the front; behind them come zeros.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (front, rest) = self.bytes.split_at(N.min(self.bytes.len()));
        let mut bytes = [0; N];
        bytes[..front.len()].copy_from_slice(front);
        self.bytes = rest;
        bytes
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    pub(crate) fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    pub(crate) fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        u32::from(u16::from_le_bytes(self.bytes())) % end
    }

    /// True once in `n` times, and never at the end.
    pub(crate) fn once_in(&mut self, n: u32) -> bool {
        self.below(n) == n - 1
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(u32::try_from(from.len()).unwrap()) as usize]
    }

    /// A number that is small, near a power of two, or anything.
    pub(crate) fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => u64::from(self.byte()),
            1 => (1_u64 << self.below(64))
                .wrapping_add(self.byte().into())
                .wrapping_sub(128),
            2 => u64::from(self.word()),
            _ => self.long(),
        }
    }
}

/// How often a target ran.
#[derive(Debug)]
pub(crate) struct Executions {
    target: &'static str,
    count: AtomicU64,
    start: Instant,
}

impl Executions {
    pub(crate) fn of(target: &'static str) -> Self {
        Self {
            target,
            count: AtomicU64::new(0),
            start: Instant::now(),
        }
    }

    /// How long to run on random bytes: `NARROWS_FUZZ_SECONDS`, or a second.
    pub(crate) fn time(&self) -> Duration {
        let seconds = std::env::var("NARROWS_FUZZ_SECONDS").ok();
        Duration::from_secs(seconds.and_then(|s| s.parse().ok()).unwrap_or(1))
    }

    pub(crate) fn one(&self) {
        self.count.fetch_add(1, Relaxed);
    }

    /// The line that `scripts/test` shows.
    pub(crate) fn say(&self) {
        println!(
            "fuzz {}: {} executions in {:.1} s",
            self.target,
            self.count.load(Relaxed),
            self.start.elapsed().as_secs_f64()
        );
    }
}
