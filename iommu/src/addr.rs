//! Addresses as a device emits them.

use std::fmt;

use serde::Serialize;

/// An I/O virtual address: what the device puts on the bus and the IOMMU translates.
///
/// There is no `+`: an address that wraps is an isolation bug, so every sum is spelled with [`Iova::checked_add`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Iova(u64);

impl Iova {
    /// Names the address `raw`.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number as it stands on the bus.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The address `len` further on; `None` where that does not exist.
    #[must_use]
    pub const fn checked_add(self, len: ByteLen) -> Option<Self> {
        match self.0.checked_add(len.0) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }
}

impl fmt::Debug for Iova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iova({:#x})", self.0)
    }
}

impl fmt::Display for Iova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ByteLen(u64);

impl ByteLen {
    /// `raw` bytes.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteLen {
    /// In the largest binary unit that divides it: `512 MiB`, `4 KiB`, `17 B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// A half-open range `[start, end)` of I/O virtual addresses, never empty and never wrapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct IovaRange {
    start: Iova,
    end: Iova,
}

impl IovaRange {
    /// The range of `len` from `start`; `None` where it is empty or wraps.
    #[must_use]
    pub const fn new(start: Iova, len: ByteLen) -> Option<Self> {
        if len.0 == 0 {
            return None;
        }
        match start.checked_add(len) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// The first address of the range.
    #[must_use]
    pub const fn start(&self) -> Iova {
        self.start
    }

    /// The first address behind the range.
    #[must_use]
    pub const fn end(&self) -> Iova {
        self.end
    }

    /// The number of bytes.
    #[must_use]
    pub const fn len_bytes(&self) -> ByteLen {
        ByteLen(self.end.0 - self.start.0)
    }

    /// The range from `start` to `last`, both in it, as the kernel writes ranges; `None` where `last` is before `start`.
    ///
    /// The address 2^64 - 1 is left out: no half-open range can hold it, and no page that ends there can be mapped.
    #[must_use]
    pub const fn from_inclusive(start: Iova, last: Iova) -> Option<Self> {
        let end = Iova(last.0.saturating_add(1));
        if start.0 >= end.0 {
            return None;
        }
        Some(Self { start, end })
    }

    /// Whether `iova` is in the range.
    #[must_use]
    pub const fn contains(&self, iova: Iova) -> bool {
        self.start.0 <= iova.0 && iova.0 < self.end.0
    }

    /// Whether every address of `other` is in this range.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether the two ranges share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl fmt::Display for IovaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}, {:#x})", self.start.0, self.end.0)
    }
}
