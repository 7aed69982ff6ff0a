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

/// The kernel counts memory in whole pages, and has a word for more than there can be.
///
/// *Source:* `mm/page_counter.c` (v6.12), `page_counter_memparse`.
fn is_same(written: &str, read: &str) -> bool {
    const PAGE_BYTES: u64 = 4096;
    const MOST_PAGES: u64 = i64::MAX.unsigned_abs() / PAGE_BYTES;
    if written == read {
        return true;
    }
    let Ok(pages) = written.parse::<u64>().map(|bytes| bytes / PAGE_BYTES) else {
        return false;
    };
    match read.parse::<u64>() {
        Ok(read) => read == pages.saturating_mul(PAGE_BYTES) && read > 0,
        Err(_no_number) => read == "max" && pages >= MOST_PAGES,
    }
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
}
