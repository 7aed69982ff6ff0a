//! What the operator is told when something is wrong: what, why, what to do, and whose fault it is.

#[cfg(test)]
mod error_test;
mod host_rows;
mod id;
mod ids;
mod render;
mod rows;

use std::{fmt, path::PathBuf};

use serde::Serialize;

pub use self::{
    id::Id,
    ids::{Blame, ErrorId, Exit},
    render::{Color, Renderer, printable},
};

/// A place in a file that the operator wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The file, as the operator named it.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// How many characters of the line are meant, at least 1.
    pub width: usize,
    /// The line itself.
    pub text: String,
}

/// An error for the operator; the only one that leaves this library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Its stable name.
    pub id: Id,
    /// What failed: lower case, subject first, no full stop.
    pub what: String,
    /// The evidence, one fact each, with the file it was read from or the errno.
    pub why: Vec<String>,
    /// What to do.
    pub fix: String,
    /// Whose fault it is.
    pub blame: Blame,
    /// Where the operator asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Box<Location>>,
}

impl Report {
    /// A report without a place in a file, blamed as the table of ids says.
    #[must_use]
    pub fn new(
        id: impl Into<Id>,
        what: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let id = id.into();
        Self {
            id,
            what: what.into(),
            why: vec![why.into()],
            fix: fix.into(),
            blame: id.blame(),
            location: None,
        }
    }

    /// The same with one more piece of evidence.
    #[must_use]
    pub fn and(mut self, why: impl Into<String>) -> Self {
        self.why.push(why.into());
        self
    }

    /// The same, pointing at `location`.
    #[must_use]
    pub fn at(mut self, location: Option<Location>) -> Self {
        self.location = location.map(Box::new);
        self
    }

    /// The same, blamed on `blame`.
    #[must_use]
    pub fn blamed_on(mut self, blame: Blame) -> Self {
        self.blame = blame;
        self
    }
}

/// How `narrows` ends on these reports: [`Exit::Refused`] only where nothing but safety checks stood in the way.
#[must_use]
pub fn exit_of(reports: &[Report]) -> Exit {
    reports
        .iter()
        .map(|report| report.id.exit())
        .reduce(|one, other| if one == other { one } else { Exit::Failed })
        .unwrap_or(Exit::Done)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render::text(self, "error", Color::Never))
    }
}

impl std::error::Error for Report {}
