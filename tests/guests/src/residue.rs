//! What one guest leaves behind and another looks for: a word all over memory and in every register that takes it.

use crate::{
    command::{Words, answer, done},
    console,
    sys::{memory, state},
};

/// `fill-words ADDRESS LENGTH VALUE`
pub fn fill(words: &mut Words<'_>) -> Option<()> {
    let (at, len) = (words.number()?, words.number()?);
    memory::fill_words(at, len, words.number()?)?;
    done()
}

/// `fill-registers ADDRESS LENGTH VALUE`: as `fill-words`, by writes of four bytes, which registers take.
pub fn fill_registers(words: &mut Words<'_>) -> Option<()> {
    let (at, len, value) = (words.number()?, words.number()?, words.number()?);
    for offset in (0..len).step_by(4) {
        memory::write(at.checked_add(offset)?, 4, value)?;
    }
    done()
}

/// `count-words START END INVERSE`: how many words are the complement of INVERSE, and where the last of them is.
pub fn count(words: &mut Words<'_>) -> Option<()> {
    let (at, end) = (words.number()?, words.number()?);
    let (hits, last) = memory::count_words(at, end, words.number()?)?;
    console::say(format_args!("GUEST hits={hits:#x} last={last:#x}"));
    Some(())
}

/// `keep VALUE MS`: puts VALUE into every register that takes it, stays there for about so long, and answers how many
/// hold it then. It has to be an address that the processor allows.
pub fn keep(words: &mut Words<'_>) -> Option<()> {
    let value = words.number()?;
    answer(state::keep(value, words.number()?))
}

/// `kept INVERSE`: how many registers held the complement of INVERSE when this guest began, of how many that were looked
/// at.
pub fn kept(words: &mut Words<'_>) -> Option<()> {
    let inverse = words.number()?;
    let (hits, of) = state::at_start(inverse);
    console::say(format_args!("GUEST hits={hits:#x} of={of:#x}"));
    Some(())
}
