//! What a request brings about.

use super::vectors::VectorSet;
use crate::ring::RouteUpdate;

/// Something to do to the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write the command register: memory enable and bus master only.
    HardwareCommand(u16),
    /// Arm so many vectors, all at once, each with its latch.
    EnableVectors(u32),
    /// Send the vectors that differ between the sets to the guest, if the second has them, else to their latches.
    Retarget {
        /// Delivered until now.
        before: VectorSet,
        /// Delivered from now on.
        after: VectorSet,
    },
    /// Disarm all vectors.
    DisableVectors,
    /// Reset the function.
    Reset,
    /// Write a register of the device, at this offset of its descriptor.
    RegionWrite {
        /// The offset.
        offset: u64,
        /// 1, 2, 4 or 8.
        size_bytes: usize,
        /// The value in the low bytes.
        value: u64,
    },
}

/// Where the answer's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// From here.
    Value(u64),
    /// From a register of the device, at this offset of its descriptor.
    Region(u64),
    /// From the latches of the vectors from this one on, one bit each.
    Pending {
        /// The first vector.
        first_vector: u32,
        /// How many, at most 64.
        count: u32,
    },
}

/// What a request brings about, to be done in order: effects, then the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the guest reads.
    pub answer: Answer,
    /// A change of routes.
    pub route: Option<RouteUpdate>,
    /// What to do to the hardware.
    pub effects: [Option<Effect>; 3],
    /// Whether the configuration space must be published anew.
    pub is_config_changed: bool,
}

impl Outcome {
    /// Nothing changes, and the guest reads this.
    pub(super) const fn value(value: u64) -> Self {
        Self {
            answer: Answer::Value(value),
            route: None,
            effects: [None; 3],
            is_config_changed: false,
        }
    }
}
