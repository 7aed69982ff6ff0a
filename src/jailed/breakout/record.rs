//! What a probe leaves behind for the harness: a fixed area of the start page, which outlives the process.
//!
//! A try is marked before it is made, so that a process which the kernel ends in the middle of one has still told which.

use core::sync::atomic::Ordering::SeqCst;

use super::attempt::{byte_at, word_at};
use crate::manifest::start_page::WINDOW;

/// Where the record begins in the start page; nothing else is there.
pub const OFFSET: usize = 0x600;
/// The most tries of one probe.
pub const MAX_TRIES: usize = 1200;
/// Bytes of the record.
pub const BYTES: usize = 0x1000 - OFFSET;

const STATE: usize = OFFSET;
const COUNT: usize = OFFSET + 4;
const TRIES: usize = OFFSET + 8;
const _: () = assert!(TRIES + 2 * MAX_TRIES <= 0x1000);

const RUNNING: u32 = 1;
const DONE: u32 = 2;

/// Begun, and so far without an answer.
const STARTED: u8 = 1;
const REACHED: u8 = 2;
const ABSENT: u8 = 3;
const BLOCKED: u8 = 4;

/// What came of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The primitive works.
    Reached,
    /// The kernel refused it, with this errno.
    Blocked(u32),
    /// This kernel does not have it.
    Absent,
}

/// The record while the probe writes it: in the start page, where both processes have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record;

impl Record {
    pub(super) fn begin(self) {
        word_at(place(STATE)).store(RUNNING, SeqCst);
    }

    pub(super) fn start(self, index: usize) {
        self.set(index, STARTED, 0);
    }

    pub(super) fn finish(self, index: usize, tried: Tried) {
        match tried {
            Tried::Reached => self.set(index, REACHED, 0),
            Tried::Absent => self.set(index, ABSENT, 0),
            // An errno of the kernel's own, beyond 255, would be a surprise worth a look: it reads as 255.
            Tried::Blocked(errno) => {
                self.set(index, BLOCKED, u8::try_from(errno).unwrap_or(u8::MAX));
            }
        }
    }

    pub(super) fn done(self) {
        word_at(place(STATE)).store(DONE, SeqCst);
    }

    fn set(self, index: usize, what: u8, errno: u8) {
        if index >= MAX_TRIES {
            return;
        }
        byte_at(place(TRIES + 2 * index + 1)).store(errno, SeqCst);
        byte_at(place(TRIES + 2 * index)).store(what, SeqCst);
        let count = u32::try_from(index + 1).unwrap_or(u32::MAX);
        word_at(place(COUNT)).fetch_max(count, SeqCst);
    }
}

fn place(offset: usize) -> usize {
    usize::try_from(WINDOW).unwrap_or(0) + offset
}

/// The record as the harness reads it when the process has gone.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    bytes: &'a [u8],
}

impl<'a> Left<'a> {
    /// Of the bytes of a start page from [`OFFSET`] on; `None` where they are too few.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= TRIES - OFFSET + 2 * MAX_TRIES).then_some(Self { bytes })
    }

    /// Whether the probe ran at all.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.word(STATE) != 0
    }

    /// Whether the probe came to its end.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.word(STATE) == DONE
    }

    /// The try that was begun and not answered.
    #[must_use]
    pub fn pending(&self) -> Option<usize> {
        (0..self.count()).find(|index| self.entry(*index).0 == STARTED)
    }

    /// What came of every try that was answered, with its index.
    pub fn answered(&self) -> impl Iterator<Item = (usize, Tried)> {
        (0..self.count()).filter_map(|index| {
            let tried = match self.entry(index) {
                (REACHED, _) => Tried::Reached,
                (ABSENT, _) => Tried::Absent,
                (BLOCKED, errno) => Tried::Blocked(u32::from(errno)),
                _ => return None,
            };
            Some((index, tried))
        })
    }

    fn count(&self) -> usize {
        usize::try_from(self.word(COUNT)).map_or(MAX_TRIES, |count| count.min(MAX_TRIES))
    }

    fn word(&self, place: usize) -> u32 {
        let at = place - OFFSET;
        let bytes = self.bytes.get(at..at + 4);
        let four = bytes.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        four.map_or(0, u32::from_ne_bytes)
    }

    fn entry(&self, index: usize) -> (u8, u8) {
        let at = TRIES - OFFSET + 2 * index;
        let byte = |at: usize| self.bytes.get(at).copied().unwrap_or(0);
        (byte(at), byte(at + 1))
    }
}
