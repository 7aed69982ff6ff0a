//! Tells how far a change of the host is.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use crate::vf::Progress;

/// Tells progress: a line for each step on standard error, or JSON on standard output.
pub(super) struct Teller {
    json: bool,
    is_terminal: bool,
    said: Option<Instant>,
}

impl Teller {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            is_terminal: io::stderr().is_terminal(),
            said: None,
        }
    }

    pub(super) fn tell(&mut self, progress: &Progress) {
        // Who does not listen any more stops nothing.
        self.say(progress).ok();
    }

    fn say(&mut self, progress: &Progress) -> io::Result<()> {
        const OFTEN: Duration = Duration::from_secs(10);
        if self.json {
            let line = serde_json::to_string(progress).map_err(io::Error::from)?;
            return writeln!(io::stdout().lock(), "{line}");
        }
        let mut to = io::stderr().lock();
        match progress {
            Progress::Begun { at, of, step } => writeln!(to, "[{at}/{of}] {step}"),
            Progress::Percent { percent, .. } => {
                // A line of its own now and then where it cannot be written over.
                let is_due = self.said.is_none_or(|said| said.elapsed() >= OFTEN);
                match (self.is_terminal, is_due) {
                    (true, _) => write!(to, "\r  {percent} %").and_then(|()| to.flush()),
                    (false, true) => {
                        self.said = Some(Instant::now());
                        writeln!(to, "  {percent} %")
                    }
                    (false, false) => Ok(()),
                }
            }
            Progress::Done { .. } => Ok(()),
            Progress::LeftOut { at, why } => writeln!(to, "[{at}] left out: {why}"),
            Progress::Undoing { at, step } => writeln!(to, "undoing [{at}] {step}"),
            Progress::Awaiting { seconds } => {
                writeln!(to, "all is done; {seconds} s to confirm it")
            }
            Progress::Confirmed => writeln!(to, "confirmed"),
            // The reports follow.
            Progress::Failed { .. } => Ok(()),
        }
    }
}
