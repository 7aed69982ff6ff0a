//! Guest-physical addresses and ranges.

use core::fmt;

/// An address in the guest's physical address space.
///
/// There is no `+`: an address that wraps is an isolation bug, so every sum is spelled with [`Gpa::checked_add`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gpa(u64);

impl Gpa {
    /// Names the address `raw`.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number as the guest's bus sees it.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The address `len_bytes` further on; `None` where that does not exist.
    #[must_use]
    pub const fn checked_add(self, len_bytes: u64) -> Option<Self> {
        match self.0.checked_add(len_bytes) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// How many bytes this address lies above `base`; `None` where it lies below.
    #[must_use]
    pub const fn offset_from(self, base: Self) -> Option<u64> {
        self.0.checked_sub(base.0)
    }

    /// The first multiple of `align_bytes` (a power of two) at or above this address.
    #[must_use]
    pub const fn checked_align_up(self, align_bytes: u64) -> Option<Self> {
        match self.0.checked_next_multiple_of(align_bytes) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }
}

impl fmt::Debug for Gpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpa({:#x})", self.0)
    }
}

impl fmt::Display for Gpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A half-open range `[start, end)` of guest-physical addresses, never empty and never wrapping.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GpaRange {
    start: Gpa,
    end: Gpa,
}

impl GpaRange {
    /// The range of `len_bytes` bytes from `start`; `None` where it is empty or wraps.
    #[must_use]
    pub const fn new(start: Gpa, len_bytes: u64) -> Option<Self> {
        if len_bytes == 0 {
            return None;
        }
        match start.checked_add(len_bytes) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// The first address of the range.
    #[must_use]
    pub const fn start(&self) -> Gpa {
        self.start
    }

    /// The first address behind the range.
    #[must_use]
    pub const fn end(&self) -> Gpa {
        self.end
    }

    /// The number of bytes.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether all `len_bytes` bytes from `at` lie inside.
    #[must_use]
    pub fn contains(&self, at: Gpa, len_bytes: u64) -> bool {
        match at.checked_add(len_bytes) {
            Some(end) => at >= self.start && end <= self.end && len_bytes > 0,
            None => false,
        }
    }

    /// Whether the two ranges share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl fmt::Debug for GpaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}, {:#x})", self.start.0, self.end.0)
    }
}

impl fmt::Display for GpaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}, {:#x})", self.start.0, self.end.0)
    }
}
