//! The ids of checks: stable, for guest files, scripts and documents.

use std::fmt;

use serde::{Serialize, Serializer};

use super::Check;
use crate::error::Blame;

/// A check. Its name is the variant's in kebab-case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the row of the check says what each is")]
pub enum CheckId {
    NoIommu = 0,
}

impl CheckId {
    /// All checks, in the order in which an operator reads them.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::NoIommu].into_iter()
    }

    /// The id as the operator reads it, e.g. `group-shared`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoIommu => "no-iommu",
        }
    }

    /// What is fixed about it.
    #[must_use]
    pub const fn check(self) -> &'static Check {
        &Check {
            id: Self::NoIommu,
            title: "an IOMMU is in use",
            why: "a device could read and write all of the host's memory",
            remedy: "enable VT-d or AMD-Vi in the firmware",
            sources: &[],
            accepted: None,
            blame: Blame::Host,
        }
    }

    /// The check of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|id| id.name() == name)
    }
}

impl fmt::Display for CheckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for CheckId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
