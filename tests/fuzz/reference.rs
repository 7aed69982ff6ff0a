//! A second opinion on configuration space: what the table of policy allows, byte by byte.

use jailed::{
    device::{
        config::DeviceBytes,
        policy::{FactKind, Structure, TABLE, Treatment},
    },
    handoff::{Function, InterruptKind},
};

/// The capabilities that a guest may ever see.
const KNOWN: [u8; 4] = [0x01, 0x05, 0x10, 0x11];

/// Kind and offset of each capability, as a driver walks the list.
///
/// # Panics
/// Where the list leaves its place or does not end.
pub(crate) fn walk(bytes: &[u8; 256]) -> Vec<(u8, u8)> {
    let mut list = Vec::new();
    let mut at = bytes[0x34];
    while at != 0 {
        assert!(
            (0x40..=0xFC).contains(&at) && at.is_multiple_of(4),
            "a capability at {at:#x}"
        );
        assert!(
            list.iter().all(|(_, other)| *other != at),
            "a loop at {at:#x}"
        );
        list.push((bytes[usize::from(at)], at));
        at = bytes[usize::from(at) + 1];
    }
    list
}

/// Whether a device's own list is one: inside of its place, and with an end.
pub(crate) fn is_list(bytes: &[u8; 256]) -> bool {
    let mut seen = [false; 256];
    let mut at = usize::from(bytes[0x34] & !3);
    while bytes[6] & 0x10 != 0 && at != 0 {
        if at < 0x40 || seen[at] || bytes[at] == 0xFF {
            return false;
        }
        seen[at] = true;
        at = usize::from(bytes[at + 1] & !3);
    }
    true
}

/// What a guest may read and change.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    /// A byte that has no row reads zero.
    pub(crate) is_shown: [bool; 256],
    /// The bits that hold what the guest writes.
    pub(crate) mask: [u8; 256],
    capabilities: Vec<(u8, u8)>,
}

impl Allowed {
    /// Applies the table to the capabilities that the guest sees; checks those, and rows that show the device.
    pub(crate) fn of(shown: &[u8; 256], device: &DeviceBytes, facts: &Function) -> Self {
        let capabilities = walk(shown);
        for (kind, at) in &capabilities {
            assert!(KNOWN.contains(kind), "capability {kind:#x} is shown");
            assert_eq!(
                device[usize::from(*at)],
                *kind,
                "the device has no such one there"
            );
            let same = capabilities.iter().filter(|(k, _)| k == kind).count();
            assert_eq!(same, 1, "capability {kind:#x} is there twice");
        }
        let has = |kind: u8| capabilities.iter().any(|(k, _)| *k == kind);
        assert_eq!(has(0x05), facts.interrupt_kind == InterruptKind::Msi as u32);
        assert_eq!(
            has(0x11),
            facts.interrupt_kind == InterruptKind::Msix as u32
        );
        let mut allowed = Self {
            is_shown: [false; 256],
            mask: [0; 256],
            capabilities,
        };
        for row in TABLE {
            let Some(base) = allowed.base(row.structure, device) else {
                continue;
            };
            let start = usize::from(base) + usize::from(row.offset);
            let range = start..start + usize::from(row.size_bytes);
            let written = match row.treatment {
                Treatment::Constant(_) | Treatment::Device => 0,
                Treatment::Virtual(_, mask) => mask,
                Treatment::Fact(fact) => fact_mask(fact, facts),
            };
            for (at, byte) in range.clone().zip(written.to_le_bytes()) {
                assert!(!allowed.is_shown[at], "two rows at {at:#x}");
                allowed.is_shown[at] = true;
                allowed.mask[at] = byte;
            }
            let seen = &shown[range.clone()];
            match row.treatment {
                Treatment::Device => assert_eq!(seen, &device[range], "{}", row.name),
                Treatment::Constant(value) | Treatment::Virtual(value, _) => {
                    assert_eq!(seen, &value.to_le_bytes()[..seen.len()], "{}", row.name);
                }
                Treatment::Fact(_) => {}
            }
        }
        for (at, (is_shown, byte)) in allowed.is_shown.iter().zip(shown).enumerate() {
            assert!(*is_shown || *byte == 0, "{at:#x} is shown");
        }
        allowed
    }

    /// Where the guest sees a capability.
    pub(crate) fn place(&self, kind: u8) -> Option<usize> {
        let found = self.capabilities.iter().find(|(k, _)| *k == kind);
        found.map(|(_, at)| usize::from(*at))
    }

    fn base(&self, structure: Structure, device: &DeviceBytes) -> Option<u8> {
        let at = |kind| self.place(kind).and_then(|at| u8::try_from(at).ok());
        let form = |is_long: bool, is_masked: Option<bool>| {
            let control =
                u16::from_le_bytes([device[self.place(0x05)? + 2], device[self.place(0x05)? + 3]]);
            let is_it = (control & 0x80 != 0) == is_long
                && is_masked.is_none_or(|m| (control & 0x100 != 0) == m);
            is_it.then(|| at(0x05)).flatten()
        };
        match structure {
            Structure::Header => Some(0),
            Structure::Power => at(0x01),
            Structure::Msi => at(0x05),
            Structure::MsiShort => form(false, None),
            Structure::MsiLong => form(true, None),
            Structure::MsiShortMasked => form(false, Some(true)),
            Structure::MsiLongMasked => form(true, Some(true)),
            Structure::Express => at(0x10),
            Structure::Msix => at(0x11),
        }
    }

    /// What a register file of these rules holds after a write; `before` is what it held.
    pub(crate) fn write(
        &self,
        before: &[u8; 256],
        offset: u64,
        size: usize,
        value: u64,
    ) -> [u8; 256] {
        let mut after = *before;
        if !matches!(size, 1 | 2 | 4) || !offset.is_multiple_of(size as u64) {
            return after;
        }
        for (lane, byte) in value.to_le_bytes().into_iter().take(size).enumerate() {
            let at = offset.saturating_add(lane as u64);
            if let Some(at) = usize::try_from(at).ok().filter(|at| *at < 256) {
                after[at] = before[at] & !self.mask[at] | byte & self.mask[at];
            }
        }
        if let Some(power) = self.place(0x01) {
            // D1 and D2 are not there.
            if matches!(after[power + 4] & 3, 1 | 2) {
                after[power + 4] = before[power + 4];
            }
        }
        if let Some(msi) = self.place(0x05) {
            // The count of vectors stays while they are enabled.
            if before[msi + 2] & after[msi + 2] & 1 == 1 {
                after[msi + 2] = after[msi + 2] & !0x70 | before[msi + 2] & 0x70;
            }
        }
        after
    }

    /// Whether a write starts a reset.
    pub(crate) fn is_reset(&self, can_reset: bool, offset: u64, size: usize, value: u64) -> bool {
        let Some(express) = self.place(0x10).filter(|_| can_reset) else {
            return false;
        };
        let is_access = matches!(size, 1 | 2 | 4) && offset.is_multiple_of(size as u64);
        let lane = (express as u64 + 9)
            .checked_sub(offset)
            .filter(|lane| *lane < size as u64);
        is_access && lane.is_some_and(|lane| value >> (8 * lane) & 0x80 != 0)
    }
}

/// The writable bits of a BAR are those above its size; of the interrupt controls, enable, mask and count.
fn fact_mask(fact: FactKind, facts: &Function) -> u32 {
    let bytes = |bytes: u64, half: u32| {
        let mask = if bytes == 0 {
            0
        } else {
            u64::MAX - (bytes - 1)
        };
        u32::try_from(mask >> (32 * half) & 0xFFFF_FFFF).unwrap()
    };
    match fact {
        FactKind::Bar(index) => {
            let index = usize::from(index);
            let is_upper = index > 0
                && facts.bars[index].len_bytes == 0
                && facts.bars[index - 1].is_64bit == 1
                && facts.bars[index - 1].len_bytes > 0;
            if is_upper {
                bytes(facts.bars[index - 1].len_bytes, 1)
            } else {
                bytes(facts.bars[index].len_bytes, 0)
            }
        }
        FactKind::MsiControl => 0x71,
        FactKind::MsixControl => 0xC000,
        FactKind::FirstCapability
        | FactKind::Link(_)
        | FactKind::Resettable
        | FactKind::MsixTable
        | FactKind::MsixPending => 0,
    }
}
