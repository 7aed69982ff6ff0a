//! What the rows of the table need to know: the handoff and the device's own bytes, checked against each other.

use super::{
    caps,
    config::{Contradiction, DeviceBytes, Places},
    policy::{self, FactKind, Row, Structure, TABLE},
};
use crate::{
    handoff::{self, InterruptKind},
    machine::PAGE_BYTES,
};

/// What the device has at a row's place.
pub(super) fn device_value(device: &DeviceBytes, offset: u8, row: &Row) -> u32 {
    let mut bytes = [0; 4];
    let from = device
        .iter()
        .skip(usize::from(offset))
        .take(usize::from(row.size_bytes));
    for (to, from) in bytes.iter_mut().zip(from) {
        *to = *from;
    }
    u32::from_le_bytes(bytes)
}

/// What the rows that name a fact need.
pub(super) struct Facts<'a> {
    function: &'a handoff::Function,
    pub(super) places: Places,
    /// The bits of the device's MSI control register that say its form: 64-bit, masks.
    msi_form: u32,
}

impl<'a> Facts<'a> {
    pub(super) fn gather(
        device: &DeviceBytes,
        function: &'a handoff::Function,
    ) -> Result<Self, Contradiction> {
        // All ones: the device is gone, or never answered.
        if device.iter().all(|byte| *byte == 0xFF) {
            return Err(Contradiction);
        }
        let found = caps::walk(device).ok_or(Contradiction)?;
        let kind = function.interrupt_kind;
        let shown = |place: Option<u8>, as_kind: InterruptKind| match place {
            Some(_) if kind == as_kind as u32 => Ok(place),
            None if kind == as_kind as u32 => Err(Contradiction),
            _ => Ok(None),
        };
        if kind > InterruptKind::Msix as u32
            || (kind != InterruptKind::None as u32) != (function.vectors > 0)
        {
            return Err(Contradiction);
        }
        let mut facts = Self {
            function,
            places: Places {
                power: found.power,
                msi: shown(found.msi, InterruptKind::Msi)?,
                express: found.express,
                msix: shown(found.msix, InterruptKind::Msix)?,
            },
            msi_form: 0,
        };
        let register = |base: Option<u8>, offset: u8, bytes: u8| {
            let row = Row {
                size_bytes: bytes,
                ..*TABLE.first()?
            };
            Some(device_value(device, base?.checked_add(offset)?, &row))
        };
        facts.check_geometry(
            register(facts.places.msix, 2, 2),
            register(facts.places.msix, 4, 4),
            register(facts.places.msix, 8, 4),
        )?;
        if let Some(control) = register(facts.places.msi, 2, 2) {
            facts.msi_form = control & 0x180;
            let log = control >> 1 & 7;
            let most = 1_u32 << log;
            if log > 5 || !function.vectors.is_power_of_two() || function.vectors > most {
                return Err(Contradiction);
            }
        }
        let lacks_upper_half = |pair: &[handoff::Bar]| matches!(pair, [low, high] if low.is_64bit == 1 && high.len_bytes > 0);
        if function.bars.windows(2).any(lacks_upper_half) {
            return Err(Contradiction);
        }
        if facts.overlaps()
            || has_shared_region(function)
            || !function
                .bars
                .iter()
                .enumerate()
                .all(|(i, bar)| is_sane_bar(i, bar))
        {
            return Err(Contradiction);
        }
        Ok(facts)
    }

    /// MSI-X where and as large as the handoff says, table and pending bits within their BARs, apart, and not mapped.
    fn check_geometry(
        &self,
        control: Option<u32>,
        table: Option<u32>,
        pending: Option<u32>,
    ) -> Result<(), Contradiction> {
        let (Some(control), Some(table), Some(pending)) = (control, table, pending) else {
            return Ok(());
        };
        let f = self.function;
        let entries = u64::from(control & 0x7FF).saturating_add(1);
        let table = Place {
            register: table,
            len_bytes: entries.saturating_mul(16),
        };
        let pending = Place {
            register: pending,
            len_bytes: entries.div_ceil(64).saturating_mul(8),
        };
        // A second answer that differs from the first would leave pages mapped that hold the table now.
        let is_same = table.register == f.msix_table_offset | f.msix_table_bar
            && pending.register == f.msix_pba_offset | f.msix_pba_bar
            && f.msix_table_offset & 7 == 0
            && f.msix_pba_offset & 7 == 0
            && entries == u64::from(f.msix_entries)
            && u64::from(f.vectors) <= entries;
        let is_fenced = [&table, &pending]
            .into_iter()
            .all(|place| place.is_fenced(f));
        if is_same && is_fenced && !table.overlaps(&pending) {
            Ok(())
        } else {
            Err(Contradiction)
        }
    }

    /// Where a structure begins, if it is shown.
    pub(super) fn base(&self, structure: Structure) -> Option<u8> {
        let msi = |form: u32, mask: u32| self.places.msi.filter(|_| self.msi_form & mask == form);
        match structure {
            Structure::Header => Some(0),
            Structure::Power => self.places.power,
            Structure::Msi => self.places.msi,
            Structure::MsiShort => msi(0, 0x80),
            Structure::MsiLong => msi(0x80, 0x80),
            Structure::MsiShortMasked => msi(0x100, 0x180),
            Structure::MsiLongMasked => msi(0x180, 0x180),
            Structure::Express => self.places.express,
            Structure::Msix => self.places.msix,
        }
    }

    /// The shown capabilities in the order of their list: fixed, whatever the device's own order.
    fn chain(&self) -> [Option<u8>; 4] {
        [
            self.places.power,
            self.places.msi,
            self.places.express,
            self.places.msix,
        ]
    }

    /// Whether a shown capability reaches into another or over the end.
    fn overlaps(&self) -> bool {
        let msi = match self.msi_form {
            0 => Structure::MsiShort,
            0x80 => Structure::MsiLong,
            0x100 => Structure::MsiShortMasked,
            _ => Structure::MsiLongMasked,
        };
        let extents =
            [Structure::Power, msi, Structure::Express, Structure::Msix].map(policy::extent_bytes);
        let range = |(place, bytes): (Option<u8>, u8)| {
            let start = u32::from(place?);
            Some((start, start.saturating_add(u32::from(bytes))))
        };
        let ranges = || self.chain().into_iter().zip(extents).filter_map(range);
        ranges().any(|(start, end)| {
            end > 256 || ranges().filter(|(s, e)| *s < end && start < *e).count() > 1
        })
    }

    /// A fact's value and writable bits; `base` is where the capability that asks is.
    pub(super) fn value(&self, fact: FactKind, base: u8) -> (u32, u32) {
        let f = self.function;
        match fact {
            FactKind::Bar(index) => bar_value(f, usize::from(index)),
            FactKind::FirstCapability => (
                self.chain()
                    .into_iter()
                    .flatten()
                    .next()
                    .map_or(0, u32::from),
                0,
            ),
            FactKind::Link(kind) => {
                let behind = self
                    .chain()
                    .into_iter()
                    .flatten()
                    .skip_while(|at| *at != base)
                    .nth(1);
                (u32::from(kind) | behind.map_or(0, u32::from) << 8, 0)
            }
            // Role-based error reporting is mandatory since PCI Express 1.1.
            FactKind::Resettable => (1 << 15 | u32::from(f.can_reset == 1) << 28, 0),
            FactKind::MsiControl => (self.msi_form | f.vectors.trailing_zeros() << 1, 0x71),
            FactKind::MsixControl => (f.vectors.saturating_sub(1) & 0x7FF, 0xC000),
            FactKind::MsixTable => (f.msix_table_offset | f.msix_table_bar, 0),
            FactKind::MsixPending => (f.msix_pba_offset | f.msix_pba_bar, 0),
        }
    }
}

/// Where a device says that its table or its pending bits are.
struct Place {
    /// Offset, and the BAR in the three lowest bits.
    register: u32,
    len_bytes: u64,
}

impl Place {
    fn start(&self) -> u64 {
        u64::from(self.register & !7)
    }

    fn end(&self) -> u64 {
        self.start().saturating_add(self.len_bytes)
    }

    /// Whether it lies in its BAR, and no page of it is mapped into the guest.
    fn is_fenced(&self, function: &handoff::Function) -> bool {
        let index = usize::try_from(self.register & 7).ok();
        let Some(bar) = index.and_then(|index| function.bars.get(index)) else {
            return false;
        };
        let first_page = self.start() & !(PAGE_BYTES.saturating_sub(1));
        let count = usize::try_from(bar.span_count).unwrap_or(usize::MAX);
        let is_mapped = bar.spans.iter().take(count).any(|span| {
            let span_end = span.offset.saturating_add(span.len_bytes);
            // Spans are whole pages, so one that begins behind the last byte begins behind its page.
            span.offset < self.end() && first_page < span_end
        });
        self.end() <= bar.len_bytes && !is_mapped
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.register & 7 == other.register & 7
            && self.start() < other.end()
            && other.start() < self.end()
    }
}

/// The dword of a BAR: address and kind, and the bits above its size as writable.
fn bar_value(function: &handoff::Function, index: usize) -> (u32, u32) {
    let low = |n: u64| u32::try_from(n & 0xFFFF_FFFF).unwrap_or(0);
    let bar = |index: usize| function.bars.get(index).filter(|b| b.len_bytes > 0);
    if let Some(bar) = bar(index) {
        let kind = bar.is_64bit << 2 | bar.is_prefetchable << 3;
        return (low(bar.gpa) | kind, low(bar.len_bytes.wrapping_neg()));
    }
    match index
        .checked_sub(1)
        .and_then(bar)
        .filter(|b| b.is_64bit == 1)
    {
        Some(bar) => (low(bar.gpa >> 32), low(bar.len_bytes.wrapping_neg() >> 32)),
        None => (0, 0),
    }
}

/// Whether two BARs, or one and configuration space, are the same place of the device's descriptor: a write to a
/// register would be one to something else.
fn has_shared_region(function: &handoff::Function) -> bool {
    let regions = || {
        let bars = function.bars.iter().map(|b| (b.region_offset, b.len_bytes));
        bars.chain([(function.config_offset, function.config_bytes)])
            .filter(|(_, len_bytes)| *len_bytes > 0)
            .map(|(start, len_bytes)| (start, start.saturating_add(len_bytes)))
    };
    regions().any(|(start, end)| regions().filter(|(s, e)| *s < end && start < *e).count() > 1)
}

/// x86-64's widest physical address.
const MAX_PHYS_BITS: u32 = 52;

/// Whether what is mapped of a BAR is whole pages of it.
fn are_sane_spans(bar: &handoff::Bar) -> bool {
    let count = usize::try_from(bar.span_count).unwrap_or(usize::MAX);
    count <= bar.spans.len()
        && bar.spans.iter().take(count).all(|span| {
            span.offset.is_multiple_of(PAGE_BYTES)
                && span.len_bytes.is_multiple_of(PAGE_BYTES)
                && span
                    .offset
                    .checked_add(span.len_bytes)
                    .is_some_and(|end| end <= bar.len_bytes)
        })
}

/// Whether a BAR of the handoff can be shown at all.
fn is_sane_bar(index: usize, bar: &handoff::Bar) -> bool {
    let is_64bit = bar.is_64bit == 1;
    bar.len_bytes == 0
        || bar.len_bytes.is_power_of_two()
            && bar.len_bytes >= PAGE_BYTES
            && bar.gpa.is_multiple_of(bar.len_bytes)
            && bar.is_64bit <= 1
            && bar.is_prefetchable <= 1
            && (!is_64bit || index < 5)
            && bar
                .gpa
                .checked_add(bar.len_bytes)
                .is_some_and(|end| end <= 1 << if is_64bit { MAX_PHYS_BITS } else { 32 })
            && are_sane_spans(bar)
            && bar.region_offset.is_multiple_of(PAGE_BYTES)
            && bar.region_offset.checked_add(bar.len_bytes).is_some()
}
