//! The parts of a function's BARs that are not mapped into the guest, as offsets of the device's descriptor.

use crate::handoff::{Bar, Function};

/// The first and the last offset of each gap of `function`, BAR by BAR, ascending in each.
///
/// An access that begins with the last bytes of a gap ends in what the guest reaches itself, or where the kernel refuses.
pub(super) fn gaps(function: &Function) -> impl Iterator<Item = (u64, u64)> {
    function
        .bars
        .iter()
        .flat_map(|bar| Gaps { bar: *bar, at: 0 })
}

struct Gaps {
    bar: Bar,
    at: u64,
}

impl Iterator for Gaps {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        let bar = &self.bar;
        let used = usize::try_from(bar.span_count).unwrap_or(usize::MAX);
        while self.at < bar.len_bytes {
            let start = self.at;
            let spans = bar
                .spans
                .iter()
                .take(used)
                .filter(|span| span.len_bytes > 0);
            let ahead = spans.filter(|span| span.offset.saturating_add(span.len_bytes) > start);
            let next = ahead.min_by_key(|span| span.offset);
            let (end, behind) = match next {
                Some(span) => (span.offset, span.offset.saturating_add(span.len_bytes)),
                None => (bar.len_bytes, bar.len_bytes),
            };
            self.at = behind;
            let end = end.min(bar.len_bytes);
            if start < end {
                let first = bar.region_offset.checked_add(start)?;
                return Some((first, bar.region_offset.checked_add(end)?.checked_sub(1)?));
            }
        }
        None
    }
}
