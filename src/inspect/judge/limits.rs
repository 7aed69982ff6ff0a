//! How much a process may have: of its own limits, and of those of its cgroup.

use super::{Answer, Look, Mismatches, unread};
use crate::inspect::{expected::CgroupLimit, facts::Limit};

pub(super) fn of_process(look: &Look<'_>) -> Answer {
    let own = match &look.facts.limits {
        Ok(own) => own,
        Err(fact) => return unread(fact),
    };
    let mut mismatches = Mismatches::default();
    let shown = |value: Option<u64>| value.map_or("unlimited".to_owned(), |v| v.to_string());
    for expected in &look.expected.limits {
        match own.iter().find(|limit| limit.name == expected.name) {
            None => mismatches
                .0
                .push(format!("{:?} is not listed", expected.name)),
            Some(Limit { name, soft, hard }) => {
                let is_meant = *soft == expected.value && *hard == expected.value;
                mismatches.unless(is_meant, || {
                    format!(
                        "{name:?} is {}, and can be raised to {}; it is meant to be {}",
                        shown(*soft),
                        shown(*hard),
                        shown(expected.value)
                    )
                });
            }
        }
    }
    let count = look.expected.limits.len();
    if count == 0 {
        return ("none is known here".to_owned(), mismatches.0);
    }
    (format!("{count} limits, soft and hard alike"), mismatches.0)
}

/// The cgroup's files say what the jail wrote to them, and so do those of the guest's cgroup around it.
pub(super) fn of_cgroup(look: &Look<'_>) -> Answer {
    let meant = &look.expected.place.cgroup_limits;
    let mut mismatches = Mismatches::default();
    mismatches.unless(!meant.is_empty(), || "it has none".to_owned());
    let mut words = Vec::new();
    for limit in meant {
        let CgroupLimit {
            is_guests,
            file,
            value,
            is_optional,
        } = limit;
        let whose = if *is_guests { "the guest's " } else { "" };
        let mut files = look.facts.cgroup_files.iter();
        let found = files.find(|found| found.is_guests == *is_guests && found.file == *file);
        match found.map(|found| &found.content) {
            Some(Ok(Some(content))) => {
                mismatches.unless(is_same(value, content), || {
                    format!("{whose}{file} is {content}; it is meant to be {value}")
                });
                words.push(format!("{whose}{file} {content}"));
            }
            Some(Ok(None)) if *is_optional => {
                words.push(format!("no {whose}{file} in this kernel"));
            }
            Some(Ok(None)) | None => mismatches.0.push(format!("{whose}{file} is not there")),
            Some(Err(fact)) => mismatches.0.extend(unread(fact).1),
        }
    }
    (words.join(", "), mismatches.0)
}

/// Whether the kernel, given `written`, may say `read`.
fn is_same(written: &str, read: &str) -> bool {
    written == read || is_same_memory(written, read) || is_same_rate(written, read)
}

/// The kernel counts memory in whole pages, and has a word for more than there can be.
///
/// *Source:* `mm/page_counter.c` (v6.12), `page_counter_memparse`.
fn is_same_memory(written: &str, read: &str) -> bool {
    const PAGE_BYTES: u64 = 4096;
    const MOST_PAGES: u64 = i64::MAX.unsigned_abs() / PAGE_BYTES;
    let Ok(pages) = written.parse::<u64>().map(|bytes| bytes / PAGE_BYTES) else {
        return false;
    };
    match read.parse::<u64>() {
        Ok(read) => read == pages.saturating_mul(PAGE_BYTES) && read > 0,
        Err(_no_number) => read == "max" && pages >= MOST_PAGES,
    }
}

/// The kernel doubles quota and period of `cpu.max` together when its timer comes too late to keep up with the period, as on
/// a busy host; the share stays, the file says the new numbers. A period stays under a second.
///
/// *Source:* `kernel/sched/fair.c` (v6.12), `sched_cfs_period_timer`.
fn is_same_rate(written: &str, read: &str) -> bool {
    const MAX_PERIOD_US: u64 = 1_000_000;
    let (Some((quota, period)), Some((quota_now, period_now))) = (rate(written), rate(read)) else {
        return false;
    };
    (1..=20)
        .map(|times| 1_u64 << times)
        .take_while(|factor| period.saturating_mul(*factor) < MAX_PERIOD_US)
        .any(|factor| {
            let scaled = |value: u64| value.checked_mul(factor);
            scaled(quota) == Some(quota_now) && scaled(period) == Some(period_now)
        })
}

/// Quota and period of `cpu.max`, in microseconds, where both are positive numbers.
fn rate(content: &str) -> Option<(u64, u64)> {
    let (quota, period) = content.split_once(' ')?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number > 0);
    Some((number(quota)?, number(period)?))
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn memory_is_compared_in_pages() {
        for (written, read) in [
            ("2", "2"),
            ("400000 100000", "400000 100000"),
            ("8192", "8192"),
            ("8195", "8192"),
            ("0", "0"),
            ("18446744073709551615", "max"),
        ] {
            assert!(is_same(written, read), "{written} {read}");
        }
        for (written, read) in [
            ("2", "3"),
            ("2", "max"),
            ("2", "0"),
            ("400000 100000", "max 100000"),
            ("8192", "12288"),
            ("8192", "max"),
            ("0", "max"),
        ] {
            assert!(!is_same(written, read), "{written} {read}");
        }
    }
    #[test]
    fn a_share_of_processors_stays_when_the_kernel_doubles_its_period() {
        for read in [
            "100000 100000",
            "200000 200000",
            "400000 400000",
            "800000 800000",
        ] {
            assert!(is_same("100000 100000", read), "{read}");
        }
        assert!(is_same("350000 100000", "700000 200000"));
        for read in [
            "200000 100000",
            "100000 200000",
            "150000 150000",
            "300000 300000",
            "50000 50000",
            "1600000 1600000",
            "max 200000",
            "0 0",
            "200000",
            "200000 200000 0",
        ] {
            assert!(!is_same("100000 100000", read), "{read}");
        }
        // No number of ours, but `cpu.max` of no limit is one too.
        assert!(!is_same("max 100000", "max 200000"));
    }
}
