//! MSI: the capability's registers live in [`Config`]; here is what they mean.

use super::{config::Config, msix::deliverable_address, vectors::VectorSet};
use crate::ring::RouteUpdate;

/// The MSI capability at its place.
#[derive(Clone, Copy, Debug)]
pub struct Msi {
    /// Offset of the capability; it fits into configuration space.
    pub base: u8,
    /// How many vectors the guest may enable.
    pub vectors: u32,
}

impl Msi {
    /// How many vectors are enabled, 0 where MSI is not.
    #[must_use]
    pub fn armed(&self, config: &Config) -> u32 {
        if self.control(config) & 1 == 1 {
            self.chosen(config)
        } else {
            0
        }
    }

    /// The vectors that the guest does not mask one by one.
    #[must_use]
    pub fn unmasked(&self, config: &Config) -> VectorSet {
        let control = self.control(config);
        let mask = match control & 0x180 {
            0x100 => self.register(config, 0x0C),
            0x180 => self.register(config, 0x10),
            _ => 0,
        };
        VectorSet::of(self.vectors.min(32), |vector| mask >> vector & 1 == 0)
    }

    /// Where the vectors go; vector `k` gets `data | k`.
    #[must_use]
    pub fn route(&self, config: &Config) -> RouteUpdate {
        let is_long = self.control(config) & 0x80 != 0;
        let (upper_address, data) = if is_long {
            (self.register(config, 0x08), self.register(config, 0x0C))
        } else {
            (0, self.register(config, 0x08))
        };
        let count = self.chosen(config);
        RouteUpdate {
            first_vector: 0,
            count,
            address: deliverable_address(self.register(config, 0x04), upper_address),
            data: data & 0xFFFF & !count.saturating_sub(1),
            is_live: self.armed(config) > 0,
        }
    }

    /// Keeps the count of vectors while MSI is enabled: to change it then is undefined, and we ignore it.
    pub fn settle(&self, before: &Config, after: &mut Config) {
        const COUNT: u32 = 0x70;
        if self.armed(before) > 0 && self.control(after) & 1 == 1 {
            after.set(self.offset(2), COUNT, self.control(before));
        }
    }

    /// The count the guest chose, at most what it has.
    fn chosen(&self, config: &Config) -> u32 {
        let exponent = self.control(config) >> 4 & 7;
        (1_u32 << exponent).min(self.vectors)
    }

    fn control(&self, config: &Config) -> u32 {
        self.register(config, 2) & 0xFFFF
    }

    fn register(&self, config: &Config, offset: u8) -> u32 {
        config.read(self.offset(offset))
    }

    const fn offset(&self, offset: u8) -> u8 {
        self.base.saturating_add(offset)
    }
}
