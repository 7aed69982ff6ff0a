//! What the operator is told while a guest runs: one line an event, on standard error, with the time since the start.

use std::{
    io::Write,
    time::{Duration, Instant},
};

/// The log of one run.
#[derive(Debug)]
pub(super) struct Log {
    guest: String,
    start: Instant,
    is_quiet: bool,
}

impl Log {
    /// A log whose lines carry the guest's name.
    #[must_use]
    pub(super) fn new(guest: &str, is_quiet: bool) -> Self {
        Self {
            guest: guest.to_owned(),
            start: Instant::now(),
            is_quiet,
        }
    }

    /// Writes one line that no option silences: what an operator accepted must be seen at every start.
    pub(super) fn warn(&self, line: &str) {
        self.write(line);
    }

    /// Writes one line, unless the operator wants none. Standard error that is closed is no reason to stop a guest.
    pub(super) fn say(&self, line: &str) {
        if !self.is_quiet {
            self.write(line);
        }
    }

    fn write(&self, line: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        // A terminal may be raw (the guest's console): carriage return as well.
        drop(write!(
            std::io::stderr().lock(),
            "narrows[{}] {seconds:7.3}s {line}\r\n",
            self.guest
        ));
    }

    /// Time since the start.
    #[must_use]
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
