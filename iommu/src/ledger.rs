//! What a guest's devices can reach: every mapping of one IOMMU context, and the rules for adding one.
//!
//! Pure: `plan` fills a ledger with what it intends, [`crate::space`] fills one with what the kernel accepted, by
//! the same rules. A mapping enters once and never leaves.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use serde::Serialize;

use crate::{
    addr::{ByteLen, Iova, IovaRange},
    topology::ReservedRegion,
};

/// What a device may do with mapped memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// Read and write.
    ReadWrite,
    /// Read only.
    ReadOnly,
}

/// What the memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The guest's RAM.
    Ram,
    /// An image that the guest only reads.
    Image,
    /// A part of a device's BAR that the guest file opens to the guest's other devices by name.
    PeerBar,
}

/// One mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Entry {
    /// Its addresses.
    pub range: IovaRange,
    /// What a device may do.
    pub permission: Permission,
    /// What the memory is.
    pub kind: Kind,
}

/// Why a mapping is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmappable {
    /// Not whole pages.
    #[error("{range} is not a multiple of the page size {page}")]
    Unaligned {
        /// The addresses.
        range: IovaRange,
        /// The page size.
        page: ByteLen,
    },
    /// Mapped already.
    #[error("{range} overlaps {mapped}, which is mapped already")]
    Overlap {
        /// The addresses.
        range: IovaRange,
        /// The mapping that is there.
        mapped: IovaRange,
    },
    /// Firmware or the interrupt controller has these addresses.
    #[error("{range} overlaps the reserved region {} ({})", region.range, region.kind)]
    Reserved {
        /// The addresses.
        range: IovaRange,
        /// The region.
        region: ReservedRegion,
    },
    /// The IOMMU cannot translate these addresses for the attached devices.
    #[error("{range} is not within what the IOMMU can translate")]
    Unusable {
        /// The addresses.
        range: IovaRange,
    },
    /// An image must not be writable.
    #[error("{range} is an image and must be mapped read-only")]
    WritableImage {
        /// The addresses.
        range: IovaRange,
    },
    /// Nothing but a BAR that is opened by name may lie where a BAR is.
    #[error("{range} overlaps {bar}, where the guest has a BAR")]
    Bar {
        /// The addresses.
        range: IovaRange,
        /// The BAR.
        bar: IovaRange,
    },
    /// A BAR, or a part of one, that nobody has opened.
    #[error("{range} is not within a part of a BAR that is opened to other devices")]
    ClosedBar {
        /// The addresses.
        range: IovaRange,
    },
}

impl Unmappable {
    /// The stable name of this kind of refusal.
    #[must_use]
    pub const fn id(&self) -> &'static str {
        match self {
            Self::Unaligned { .. } => "map-unaligned",
            Self::Overlap { .. } => "map-overlap",
            Self::Reserved { .. } => "map-reserved",
            Self::Unusable { .. } => "map-unusable",
            Self::WritableImage { .. } => "map-writable-image",
            Self::Bar { .. } => "map-bar",
            Self::ClosedBar { .. } => "map-closed-bar",
        }
    }
}

/// Where the guest has the BARs of its functions, and what of them other devices may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bars {
    /// Every BAR, whole: no memory is mapped there.
    pub all: Vec<IovaRange>,
    /// The parts that may be mapped, as [`Kind::PeerBar`]; none unless the guest file says so.
    pub open: Vec<IovaRange>,
}

/// The limits within which mappings are allowed.
#[derive(Clone, Debug, Serialize)]
pub struct Limits {
    /// What start and end of a mapping must be multiples of. Zero refuses everything.
    pub page: ByteLen,
    /// Regions that must stay unmapped.
    pub reserved: Vec<ReservedRegion>,
    /// Ranges that the IOMMU translates; `None` where no IOMMU has been asked yet.
    pub usable: Option<Vec<IovaRange>>,
    /// Where BARs are.
    pub bars: Bars,
}

/// The mappings of one IOMMU context, in the order they were made.
#[derive(Clone, Debug, Serialize)]
pub struct Ledger {
    limits: Limits,
    entries: Vec<Entry>,
}

impl Bars {
    /// Whether `entry` is where it may be: memory beside every BAR, a BAR within what is open of it.
    fn check(&self, entry: &Entry) -> Result<(), Unmappable> {
        let range = entry.range;
        if entry.kind == Kind::PeerBar {
            let is_open = self.open.iter().any(|open| open.covers(&range));
            return match is_open {
                true => Ok(()),
                false => Err(Unmappable::ClosedBar { range }),
            };
        }
        match self.all.iter().find(|bar| bar.overlaps(&range)) {
            Some(bar) => Err(Unmappable::Bar { range, bar: *bar }),
            None => Ok(()),
        }
    }
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: Vec::new(),
        }
    }

    /// The ledger of `entries`, all checked.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn plan(limits: Limits, entries: &[Entry]) -> Result<Self, Unmappable> {
        let mut ledger = Self::new(limits);
        for entry in entries {
            ledger.insert(*entry)?;
        }
        Ok(ledger)
    }

    /// Whether `entry` could be added.
    ///
    /// # Errors
    /// `map-unaligned`, `map-overlap`, `map-reserved`, `map-unusable`, `map-writable-image`, `map-bar`,
    /// `map-closed-bar`.
    pub fn check(&self, entry: &Entry) -> Result<(), Unmappable> {
        let range = entry.range;
        if entry.kind == Kind::Image && entry.permission != Permission::ReadOnly {
            return Err(Unmappable::WritableImage { range });
        }
        self.limits.bars.check(entry)?;
        let page = self.limits.page;
        if [range.start(), range.end()]
            .iter()
            .any(|edge| edge.raw().checked_rem(page.raw()) != Some(0))
        {
            return Err(Unmappable::Unaligned { range, page });
        }
        if let Some(other) = self
            .entries
            .iter()
            .find(|other| other.range.overlaps(&range))
        {
            return Err(Unmappable::Overlap {
                range,
                mapped: other.range,
            });
        }
        if let Some(region) = self
            .limits
            .reserved
            .iter()
            .find(|region| region.range.overlaps(&range))
        {
            return Err(Unmappable::Reserved {
                range,
                region: region.clone(),
            });
        }
        // The kernel merges adjacent usable ranges, so a mapping never spans two.
        let is_usable = |usable: &Vec<IovaRange>| usable.iter().any(|window| window.covers(&range));
        if !self.limits.usable.as_ref().is_none_or(is_usable) {
            return Err(Unmappable::Unusable { range });
        }
        Ok(())
    }

    /// Adds `entry`.
    ///
    /// # Errors
    /// As [`Self::check`]; the ledger is then unchanged.
    pub fn insert(&mut self, entry: Entry) -> Result<(), Unmappable> {
        self.check(&entry)?;
        self.entries.push(entry);
        Ok(())
    }

    /// The mappings, in the order they were made.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The limits that every entry is within.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The mapping that translates `iova`; `None` where a device is stopped.
    #[must_use]
    pub fn translates(&self, iova: Iova) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.range.contains(iova))
    }

    /// How many bytes are mapped.
    #[must_use]
    pub fn total(&self) -> ByteLen {
        // Disjoint ranges of 64-bit addresses: the sum cannot overflow.
        ByteLen::new(self.entries.iter().fold(0, |sum: u64, entry| {
            sum.saturating_add(entry.range.len_bytes().raw())
        }))
    }
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows panics, and so fails"
)]
#[path = "ledger_test.rs"]
mod tests;
