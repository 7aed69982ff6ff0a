//! Has the operator agree to what cannot be undone.

use std::io::{self, IsTerminal, Write};

use crate::error::{ErrorId, Report};

/// What is to be agreed to.
pub(super) struct Question<'a> {
    /// What it is, without a full stop.
    pub(super) what: &'a str,
    /// What is shown before it is asked; lines.
    pub(super) shown: String,
    /// What is lost, one each.
    pub(super) lost: &'a [String],
}

impl Question<'_> {
    /// Asks at the terminal, if there is one.
    ///
    /// # Errors
    /// `usage` where nobody has agreed.
    pub(super) fn ask(&self, is_silent: bool) -> Result<(), Vec<Report>> {
        if is_silent || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(self.refused("nobody is here to agree to them".to_owned()));
        }
        match self.answer() {
            Ok(answer) if answer.trim() == "yes" => Ok(()),
            Ok(_) => Err(self.refused("they were not agreed to".to_owned())),
            Err(error) => Err(self.refused(error.to_string())),
        }
    }

    fn answer(&self) -> io::Result<String> {
        let mut terminal = io::stderr().lock();
        terminal.write_all(self.shown.as_bytes())?;
        write!(terminal, "This cannot be undone. Type yes to go on: ")?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(answer)
    }

    fn refused(&self, why: String) -> Vec<Report> {
        let fix = "read what is lost; then the same with --yes";
        let report = Report::new(ErrorId::Usage, self.what, why, fix);
        vec![self.lost.iter().cloned().fold(report, Report::and)]
    }
}
