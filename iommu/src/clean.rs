//! What a function must look like when it comes back from a guest: silent, and as it was before.
//!
//! Configuration space is read through sysfs, past what VFIO shows of it, so that it is the hardware that answers.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::{bdf::Bdf, error::Result, sysfs::SysRoot, topology::function_path};

/// A function's configuration space at one moment: 64, 256 or 4096 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSnapshot(Vec<u8>);

/// Where a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the header.
    Header,
    /// In the capability with this id.
    Capability(u8),
    /// In the extended capability with this id.
    Extended(u16),
}

/// A register that may differ after a guest, in the bits of `mask`.
struct MayDiffer {
    place: Place,
    offset: usize,
    len: usize,
    mask: u8,
    /// Why that is no trace of the guest that matters.
    #[cfg_attr(not(test), expect(dead_code, reason = "for who reads the table"))]
    reason: &'static str,
}

const fn row(place: Place, offset: usize, len: usize, mask: u8, reason: &'static str) -> MayDiffer {
    MayDiffer {
        place,
        offset,
        len,
        mask,
        reason,
    }
}

const POWER: Place = Place::Capability(0x01);
const VPD: Place = Place::Capability(0x03);
const MSI: Place = Place::Capability(0x05);
const MSIX: Place = Place::Capability(0x11);
const EXPRESS: Place = Place::Capability(0x10);
const AER: Place = Place::Extended(0x0001);

/// What may differ; every other bit of configuration space must be what it was.
///
/// *Source:* `PCIe` r6.0 §7.5.1, §7.5.2.1 (power), §7.7.1 (MSI), §7.7.2 (MSI-X), §7.5.3 (Express), §7.8.4 (AER), §7.9.18
/// (VPD).
const MAY_DIFFER: &[MayDiffer] = &[
    row(
        Place::Header,
        0x04,
        1,
        0x53,
        "decoding and parity: set anew whenever the function is opened",
    ),
    row(
        Place::Header,
        0x05,
        1,
        0x05,
        "masking of INTx and reporting of errors: a guest cannot set them, its run clears them",
    ),
    row(
        Place::Header,
        0x06,
        1,
        0x08,
        "pending INTx, of an interrupt that no guest is given",
    ),
    row(
        Place::Header,
        0x07,
        1,
        0xf9,
        "errors that were seen, in any life",
    ),
    row(POWER, 0x05, 1, 0x80, "whether a wake-up was signalled"),
    row(
        VPD,
        0x02,
        6,
        0xff,
        "the window to product data: address and what was read last",
    ),
    row(
        MSI,
        0x02,
        1,
        0x70,
        "how many messages are enabled, while none is",
    ),
    row(
        MSI,
        0x04,
        20,
        0xff,
        "address, data, masks and pending bits of messages, while none is enabled",
    ),
    row(
        MSIX,
        0x03,
        1,
        0x40,
        "mask of all vectors, while none is enabled",
    ),
    row(EXPRESS, 0x0a, 1, 0x0f, "errors that were seen, in any life"),
    row(
        EXPRESS,
        0x12,
        2,
        0xff,
        "state of the link, which the port above sets",
    ),
    row(
        EXPRESS,
        0x32,
        2,
        0xff,
        "state of the link, which the port above sets",
    ),
    row(AER, 0x04, 4, 0xff, "errors that were seen, in any life"),
    row(AER, 0x10, 4, 0xff, "errors that were seen, in any life"),
    row(AER, 0x18, 1, 0x1f, "which of them came first"),
    row(
        AER,
        0x1c,
        16,
        0xff,
        "head of the packet that came with the first error",
    ),
    row(
        AER,
        0x38,
        16,
        0xff,
        "prefix of the packet that came with the first error",
    ),
];

/// More differences than these are not told one by one.
const TOLD: usize = 8;

impl ConfigSnapshot {
    /// Reads a function's configuration space from the hardware.
    ///
    /// # Errors
    /// `sysfs-io`.
    pub fn read(root: &SysRoot, bdf: Bdf) -> Result<Self> {
        root.read_bytes(function_path(bdf).join("config"), 4096)
            .map(Self)
    }

    /// A snapshot of these bytes.
    #[must_use]
    pub const fn of(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Its bytes in hexadecimal, to be written down.
    #[must_use]
    pub fn to_hex(&self) -> String {
        let digit = |half: u8| char::from_digit(u32::from(half), 16);
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
        digits.filter_map(digit).collect()
    }

    /// The snapshot that was written down as `text`; `None` for what is none.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes().chunks_exact(2);
        if text.is_empty() || !digits.remainder().is_empty() || text.contains('+') {
            return None;
        }
        digits
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok())
            .collect::<Option<_>>()
            .map(Self)
    }

    /// What keeps the function from counting as silent: one line each, none for a function that answers, is not bus
    /// master, has no message enabled and no transaction pending.
    #[must_use]
    pub fn noise(&self) -> Vec<String> {
        let mut noise = Vec::new();
        match self.word(0x04) {
            // Not the vendor: VFs have none in hardware. Bits 11 to 15 of the command register are zero by definition.
            None => return vec!["its configuration space cannot be read".to_owned()],
            Some(command) if command & 0xf800 == 0xf800 => {
                return vec![
                    "it does not answer: its configuration space reads all ones".to_owned(),
                ];
            }
            Some(command) if command & 0x0004 != 0 => {
                noise.push(format!("COMMAND reads {command:#06x}: it is bus master"));
            }
            Some(_) => {}
        }
        for (place, offset, mask, name, meaning) in [
            (MSI, 2, 0x0001, "MSI control", "messages are enabled"),
            (MSIX, 2, 0x8000, "MSI-X control", "messages are enabled"),
            (
                EXPRESS,
                0x0a,
                0x0020,
                "device status",
                "transactions are pending",
            ),
        ] {
            let register = self.find(place).and_then(|at| at.checked_add(offset));
            if let Some(value) = register.and_then(|at| self.word(at))
                && value & mask != 0
            {
                noise.push(format!("{name} reads {value:#06x}: {meaning}"));
            }
        }
        noise
    }

    /// What differs in `after` though it may not: one line for each place, and how many more there are.
    #[must_use]
    pub fn differences(&self, after: &Self) -> Vec<String> {
        if self.0.len() != after.0.len() {
            return vec![format!(
                "configuration space has {} bytes, before the guest it had {}",
                after.0.len(),
                self.0.len()
            )];
        }
        let free = self.free_bits();
        let bytes = self.0.iter().zip(&after.0).zip(&free);
        let mut found = (0_usize..)
            .zip(bytes)
            .filter(|(_, ((before, after), free))| (*before ^ *after) & !**free != 0)
            .map(|(at, ((before, after), _))| {
                format!("configuration space at {at:#05x} reads {after:#04x}, before the guest {before:#04x}")
            });
        let mut told: Vec<String> = found.by_ref().take(TOLD).collect();
        match found.count() {
            0 => {}
            more => told.push(format!("and {more} more bytes differ")),
        }
        told
    }

    /// The bits that may differ, for each byte.
    fn free_bits(&self) -> Vec<u8> {
        let mut free = vec![0; self.0.len()];
        for row in MAY_DIFFER {
            let Some(start) = self
                .find(row.place)
                .and_then(|at| at.checked_add(row.offset))
            else {
                continue;
            };
            for byte in free.iter_mut().skip(start).take(row.len) {
                *byte |= row.mask;
            }
        }
        free
    }

    /// Where the header or a capability starts. The lists are the device's word: every step is bounded.
    fn find(&self, place: Place) -> Option<usize> {
        match place {
            Place::Header => Some(0),
            Place::Capability(id) => {
                const HAS_LIST: u16 = 0x0010;
                self.word(0x06).filter(|status| status & HAS_LIST != 0)?;
                let mut at = self.byte(0x34)? & 0xfc;
                for _ in 0..48 {
                    if at < 0x40 {
                        return None;
                    }
                    let start = usize::from(at);
                    if self.byte(start)? == id {
                        return Some(start);
                    }
                    at = self.byte(start.checked_add(1)?)? & 0xfc;
                }
                None
            }
            Place::Extended(id) => {
                let mut at = 0x100;
                for _ in 0..960 {
                    if at < 0x100 {
                        return None;
                    }
                    if self.word(at)? == id {
                        return Some(at);
                    }
                    at = usize::from(self.word(at.checked_add(2)?)? >> 4) & 0xffc;
                }
                None
            }
        }
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn word(&self, at: usize) -> Option<u16> {
        let high = self.byte(at.checked_add(1)?)?;
        Some(u16::from_le_bytes([self.byte(at)?, high]))
    }
}

#[cfg(test)]
#[path = "clean_test.rs"]
mod tests;
