//! A signal that asks a change of the host to stop.

use std::io;

use crate::sys::signals::{Asked, Signals};

/// Hears `SIGINT`, `SIGTERM`, `SIGHUP` and `SIGQUIT`, instead of being ended by them: the present step is finished, and all
/// are undone.
#[derive(Debug)]
pub struct Stop(Signals);

impl Stop {
    /// From now on.
    ///
    /// # Errors
    /// The errno of `sigprocmask` or `signalfd`.
    pub fn heard() -> io::Result<Self> {
        Signals::take().map(Self)
    }

    /// Whether one has come since the last question. That it cannot be read counts as one: better stopped than deaf.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        !matches!(self.0.next(), Ok(None | Some(Asked::Statistics)))
    }
}
