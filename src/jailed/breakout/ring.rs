//! C20: the memory that V and D share, written by one of them as no honest one would.

use core::sync::atomic::Ordering;

use super::{
    attempt::{poke, word_at},
    record::Tried,
    tries::Tries,
};
use crate::{manifest::start_page, ring::Layout, sys::futex};

/// How often all of it is written anew; the harness ends what takes too long.
const ROUNDS: u32 = 20_000;
/// How long the other side gets between two rounds.
const PAUSE: u32 = 2000;
/// Words of one slot that hold a plausible request, so that the other side goes on to read the rest.
const SLOT_WORDS: usize = 32;

/// Writes garbage, with the right words woken. What is judged is how the other side ends, not this one.
pub(super) fn garbage(tries: &mut Tries<'_>) {
    let handoff = tries.handoff();
    let layout = Layout::of(handoff);
    let start = usize::try_from(start_page::RING).unwrap_or(0);
    tries.one(|| {
        let mut random = Random(0x9E37_79B9);
        for round in 0..ROUNDS {
            // The head without the counters, then every slot. Between them the other side gets a turn.
            for word in (0..Layout::COUNTERS).step_by(4) {
                poke(start + word, random.next());
            }
            for vcpu in 0..layout.vcpus() {
                let slot = start + layout.slot(vcpu);
                for word in 0..SLOT_WORDS {
                    poke(slot + 4 * word, random.shaped(round, word));
                }
            }
            let doorbell = word_at(start);
            doorbell.fetch_add(1, Ordering::SeqCst);
            futex::wake(doorbell);
            for vcpu in 0..layout.vcpus() {
                futex::wake(word_at(start + layout.slot(vcpu)));
            }
            pause();
        }
        Tried::Reached
    });
}

fn pause() {
    for _ in 0..PAUSE {
        core::hint::spin_loop();
    }
}

/// Numbers without a pattern, the same ones at each run.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// A word of a slot: in most rounds a state, a kind, a function, a BAR and a size as they should be, so that the
    /// offset and the value are reached; in every eighth anything.
    fn shaped(&mut self, round: u32, word: usize) -> u32 {
        let any = self.next();
        if round.is_multiple_of(8) {
            return any;
        }
        match word {
            0 => 1 + any % 3,
            1 => 1 + any % 3,
            2 => any % 3,
            3 => any % 7,
            4 => 1 << (any % 4),
            5 => 0,
            _ => any,
        }
    }
}
