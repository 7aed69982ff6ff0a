//! Work that is counted, and what takes the host's time from who works: instructions that leave the guest, without end.

use crate::{
    command::{Words, answer},
    console,
    sys::{memory, port, processor},
};

/// What one round of work is: about a millisecond on an emulated processor.
const STEPS: u64 = 20_000;
/// How many rounds go by between two looks at the console, each of which leaves the guest.
const ROUNDS: u64 = 8;
/// How many attacks go by between two looks.
const ATTACKS: u64 = 64;
const VECTOR: u8 = 0x71;
/// Where nothing is.
const PORT: u16 = 0x80;

/// A round.
fn round(seed: u64) -> u64 {
    let mut state = seed | 1;
    for _ in 0..STEPS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        core::hint::black_box(&state);
    }
    state
}

/// `work`: rounds of work until the next line is typed; answers how many.
pub fn work() -> Option<()> {
    let (mut count, mut state) = (0, 1);
    while count % ROUNDS != 0 || !console::has_input() {
        state = round(state);
        count += 1;
    }
    answer(count)
}

/// `storm KIND ...`: an attack on the host's time until the next line is typed; answers how often. KIND is `spin` (what
/// any guest may do), `identify`, `register`, `halt`, `caches`, `port`, `console`, or `write WIDTH ADDRESS VALUE EVERY`,
/// which looks at the console after EVERY attacks.
pub fn storm(words: &mut Words<'_>) -> Option<()> {
    let kind = words.word()?;
    let (write, every) = match kind {
        "write" => {
            let write = (words.number()?, words.number()?, words.number()?);
            (Some(write), words.number()?.max(1))
        }
        _ => (None, ATTACKS),
    };
    let mut count = 0;
    while count % every != 0 || !console::has_input() {
        match (kind, write) {
            ("spin", _) => {
                // As seldom as the work looks at its console.
                for seed in 0..ROUNDS {
                    core::hint::black_box(round(seed));
                }
                count += every - 1;
            }
            ("identify", _) => processor::identify(),
            ("register", _) => processor::read_register(),
            ("halt", _) => processor::halt_once(VECTOR),
            ("caches", _) => processor::empty_caches(),
            ("port", _) => port::write(PORT, 4, 0)?,
            ("console", _) => console::print(format_args!("{}", char::from(b'.'))),
            (_, Some((width, at, value))) => memory::write(at, width, value)?,
            _ => return None,
        }
        count += 1;
    }
    answer(count)
}
