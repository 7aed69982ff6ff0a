//! The words of a line, and what all commands share.

use crate::console;

/// The words of a command that are left.
#[derive(Debug)]
pub struct Words<'a>(core::str::SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    /// The words of `line`.
    #[must_use]
    pub fn of(line: &'a str) -> Self {
        Self(line.split_ascii_whitespace())
    }

    /// The next word.
    pub fn word(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    /// The next word as a number, decimal or with `0x`.
    pub fn number(&mut self) -> Option<u64> {
        let word = self.word()?;
        match word.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => word.parse().ok(),
        }
    }
}

/// Answers `value`, in the form that the test reads.
pub fn answer(value: u64) -> Option<()> {
    console::say(format_args!("GUEST value={value:#x}"));
    Some(())
}

/// Answers that it is done.
pub fn done() -> Option<()> {
    console::say(format_args!("GUEST done=yes"));
    Some(())
}
