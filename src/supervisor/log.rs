//! What the operator is told while a guest runs: one line an event, on standard error, with the time since the start.

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::error::printable;

/// The log of one run.
#[derive(Debug)]
pub(super) struct Log {
    guest: String,
    start: Instant,
    is_quiet: bool,
    /// The lines, for who wants them at the end.
    kept: Option<Mutex<Vec<String>>>,
}

impl Log {
    /// A log whose lines carry the guest's name.
    #[must_use]
    pub(super) fn new(guest: &str, is_quiet: bool) -> Self {
        Self {
            guest: guest.to_owned(),
            start: Instant::now(),
            is_quiet,
            kept: None,
        }
    }

    /// A log that keeps its lines, and with `is_silent` writes none.
    #[must_use]
    pub(super) fn keeping(guest: &str, is_silent: bool) -> Self {
        Self {
            kept: Some(Mutex::default()),
            ..Self::new(guest, is_silent)
        }
    }

    /// The lines that were kept.
    #[must_use]
    pub(super) fn into_lines(self) -> Vec<String> {
        let lines = self.kept.map(Mutex::into_inner);
        let lines = lines.map(|lines| lines.unwrap_or_else(PoisonError::into_inner));
        lines.unwrap_or_default()
    }

    /// Writes one line that no option silences: what an operator accepted must be seen at every start.
    pub(super) fn warn(&self, line: &str) {
        if let Some(kept) = &self.kept {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push(line.to_owned());
            if self.is_quiet {
                return;
            }
        }
        self.write(line);
    }

    /// Writes one line, unless the operator wants none. Standard error that is closed is no reason to stop a guest.
    pub(super) fn say(&self, line: &str) {
        if self.kept.is_some() {
            self.warn(line);
        } else if !self.is_quiet {
            self.write(line);
        }
    }

    fn write(&self, line: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        drop(write!(
            std::io::stderr().lock(),
            "{}",
            text(&self.guest, seconds, line)
        ));
    }

    /// Time since the start.
    #[must_use]
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// One line as it is written. Parts of it are the kernel's and the device's words.
fn text(guest: &str, seconds: f64, line: &str) -> String {
    // A terminal may be raw (the guest's console): carriage return as well.
    format!("narrows[{guest}] {seconds:7.3}s {}\r\n", printable(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_steer_the_terminal() {
        assert_eq!(
            text("web", 1.5, "DMA fault (\x1b[2J\nnarrows[web] all is well)"),
            "narrows[web]   1.500s DMA fault (\\x1b[2J\\nnarrows[web] all is well)\r\n"
        );
    }
}
