//! Which part of a BAR an access meets that was not mapped into the guest.

use super::msix::ENTRY_BYTES;
use crate::{
    handoff::{Bar, Function, InterruptKind},
    ring::Request,
};

/// What lies at an unmapped place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The MSI-X table, at this offset in it.
    Table(u64),
    /// The MSI-X pending bits, at this offset in them.
    Pending(u64),
    /// A register of the device, at this offset of its descriptor.
    Register(u64),
    /// Nothing that answers: outside, mapped, or not aligned.
    Nothing,
}

/// Finds what `request` meets; `table_entries` is the size of the device's own table, of which the guest may have less.
#[must_use]
pub fn place(function: &Function, table_entries: u32, request: &Request) -> Place {
    find(function, table_entries, request).unwrap_or(Place::Nothing)
}

fn find(function: &Function, table_entries: u32, request: &Request) -> Option<Place> {
    let bar = function.bars.get(request.bar)?;
    let (offset, size_bytes) = (request.offset, u64::try_from(request.size_bytes).ok()?);
    let end = offset.checked_add(size_bytes)?;
    if end > bar.len_bytes || !offset.is_multiple_of(size_bytes) {
        return None;
    }
    // Aligned accesses of at most 8 bytes never cross the borders: both structures are aligned to 8 bytes and a multiple
    // of 8 bytes long.
    let within = |is_bar: u32, start: u32, len_bytes: u64| {
        let is_same = usize::try_from(is_bar).is_ok_and(|b| b == request.bar);
        let into = offset.checked_sub(u64::from(start))?;
        (is_same && into < len_bytes).then_some(into)
    };
    if function.interrupt_kind == InterruptKind::Msix as u32 {
        let entries = u64::from(table_entries);
        let table_bytes = entries.checked_mul(ENTRY_BYTES)?;
        if let Some(into) = within(
            function.msix_table_bar,
            function.msix_table_offset,
            table_bytes,
        ) {
            return Some(Place::Table(into));
        }
        let pending_bytes = entries.div_ceil(64).checked_mul(8)?;
        if let Some(into) = within(
            function.msix_pba_bar,
            function.msix_pba_offset,
            pending_bytes,
        ) {
            return Some(Place::Pending(into));
        }
    }
    // What is mapped, V does not ask for.
    if is_mapped(bar, offset, end) {
        return None;
    }
    bar.region_offset.checked_add(offset).map(Place::Register)
}

fn is_mapped(bar: &Bar, start: u64, end: u64) -> bool {
    let count = usize::try_from(bar.span_count).unwrap_or(usize::MAX);
    bar.spans.iter().take(count).any(|span| {
        let span_end = span.offset.saturating_add(span.len_bytes);
        start < span_end && end > span.offset
    })
}
