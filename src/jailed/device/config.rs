//! Configuration space of one function as the guest sees it: values and the bits it may change.

use super::{
    facts::{Facts, device_value},
    policy::{TABLE, Treatment},
};
use crate::handoff;

/// Dwords that can be other than zero: all capabilities lie in the first 256 bytes.
pub const DWORDS: usize = 64;

/// The device's own configuration bytes, as read once at the start.
pub type DeviceBytes = [u8; 4 * DWORDS];

/// Where the visible capabilities are. The header is at zero, so no capability is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Power management, if the device has it.
    pub power: Option<u8>,
    /// MSI, if it is the function's interrupt.
    pub msi: Option<u8>,
    /// PCI Express, if the device has it.
    pub express: Option<u8>,
    /// MSI-X, if it is the function's interrupt.
    pub msix: Option<u8>,
}

/// What the guest reads, and may write.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    values: [u32; DWORDS],
    initial: [u32; DWORDS],
    writable: [u32; DWORDS],
}

/// The device's bytes contradict the handoff or themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction;

impl Config {
    /// Applies the table to what the device says and the handoff decided.
    ///
    /// # Errors
    /// [`Contradiction`] where a capability the guest needs is absent, does not fit, or overlaps another one.
    pub fn build(
        device: &DeviceBytes,
        function: &handoff::Function,
    ) -> Result<(Self, Places), Contradiction> {
        let mut config = Self {
            values: [0; DWORDS],
            initial: [0; DWORDS],
            writable: [0; DWORDS],
        };
        let facts = Facts::gather(device, function)?;
        for row in TABLE {
            let Some(base) = facts.base(row.structure) else {
                continue;
            };
            let offset = base.checked_add(row.offset).ok_or(Contradiction)?;
            let (value, writable) = match row.treatment {
                Treatment::Constant(value) => (value, 0),
                Treatment::Device => (device_value(device, offset, row), 0),
                Treatment::Virtual(initial, writable) => (initial, writable),
                Treatment::Fact(fact) => facts.value(fact, base),
            };
            config.place(offset, value, writable);
        }
        config.values = config.initial;
        Ok((config, facts.places))
    }

    /// What the guest reads, for the shadow.
    #[must_use]
    pub const fn dwords(&self) -> &[u32; DWORDS] {
        &self.values
    }

    /// The register of 32 bits at `offset`, or the 16 bits at its front or back in the low bits.
    #[must_use]
    pub fn read(&self, offset: u8) -> u32 {
        let dword = self
            .values
            .get(usize::from(offset / 4))
            .copied()
            .unwrap_or(0);
        dword >> shift_of(offset)
    }

    /// Sets the bits that the guest may change among `size_bytes` aligned bytes at `offset`.
    pub fn write(&mut self, offset: u64, size_bytes: usize, value: u64) {
        let Some((index, lanes, value)) = lanes(offset, size_bytes, value) else {
            return;
        };
        let writable = self.writable.get(index).copied().unwrap_or(0);
        if let Some(dword) = self.values.get_mut(index) {
            *dword = *dword & !(lanes & writable) | value & lanes & writable;
        }
    }

    /// Puts `value` into the bits `mask` of the dword that holds `offset`, which count from `offset`.
    pub fn set(&mut self, offset: u8, mask: u32, value: u32) {
        if let Some(dword) = self.values.get_mut(usize::from(offset / 4)) {
            let shift = shift_of(offset);
            *dword = *dword & !(mask << shift) | (value & mask) << shift;
        }
    }

    /// All registers as after power-on; the BARs where the plan placed them.
    pub fn reset(&mut self) {
        self.values = self.initial;
    }

    fn place(&mut self, offset: u8, value: u32, writable: u32) {
        let (index, shift) = (usize::from(offset / 4), shift_of(offset));
        if let Some(dword) = self.initial.get_mut(index) {
            *dword |= value << shift;
        }
        if let Some(dword) = self.writable.get_mut(index) {
            *dword |= writable << shift;
        }
    }
}

/// The dword, the bits and the shifted value of an aligned access of 1, 2 or 4 bytes.
#[must_use]
pub fn lanes(offset: u64, size_bytes: usize, value: u64) -> Option<(usize, u32, u32)> {
    let mask = match size_bytes {
        1 => 0xFF,
        2 => 0xFFFF,
        4 => u32::MAX,
        _ => return None,
    };
    let offset = usize::try_from(offset)
        .ok()
        .filter(|o| o.is_multiple_of(size_bytes))?;
    let shift = u32::try_from(offset % 4).ok()?.wrapping_mul(8);
    // The low half: what the register's width leaves of it is masked next.
    let value = u32::try_from(value & u64::from(mask)).ok()?;
    Some((offset / 4, mask << shift, value << shift))
}

fn shift_of(offset: u8) -> u32 {
    u32::from(offset % 4).wrapping_mul(8)
}
