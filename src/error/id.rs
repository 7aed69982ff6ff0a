//! The name of a report: an error of the tool, or a check of the host that refused or warned.

use std::fmt;

use iommu::isolation::CheckId;
use serde::{Serialize, Serializer};

use super::{Blame, ErrorId, Exit};

/// The stable name of a report. The names of both kinds are one space: none is in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// Something that the tool could not do.
    Tool(ErrorId),
    /// What a check found.
    Check(CheckId),
}

impl Id {
    /// All of them: errors, then checks, in the order of their tables.
    pub fn all() -> impl Iterator<Item = Self> {
        let errors = ErrorId::all().map(Self::Tool);
        errors.chain(CheckId::all().map(Self::Check))
    }

    /// As the operator reads it, e.g. `group-shared`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tool(id) => id.name(),
            Self::Check(id) => id.name(),
        }
    }

    /// Whose fault it is unless the report says otherwise.
    #[must_use]
    pub fn blame(self) -> Blame {
        match self {
            Self::Tool(id) => id.blame(),
            Self::Check(id) => id.check().blame.into(),
        }
    }

    /// How `narrows` ends on it, unless it is a warning.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            Self::Tool(id) => id.exit(),
            // What is missing is not unsafe.
            Self::Check(CheckId::KvmAbsent) => Exit::Failed,
            Self::Check(_) => Exit::Refused,
        }
    }
}

impl From<ErrorId> for Id {
    fn from(id: ErrorId) -> Self {
        Self::Tool(id)
    }
}

impl From<CheckId> for Id {
    fn from(id: CheckId) -> Self {
        Self::Check(id)
    }
}

impl PartialEq<ErrorId> for Id {
    fn eq(&self, other: &ErrorId) -> bool {
        *self == Self::Tool(*other)
    }
}

impl PartialEq<CheckId> for Id {
    fn eq(&self, other: &CheckId) -> bool {
        *self == Self::Check(*other)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
