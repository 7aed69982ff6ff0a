//! Numbers and shapes as a reader wants them.

use super::{goals::Target, statistic::Summary};
use crate::record::{Guest, Pages};

/// A number with three digits that count, thousands apart, and zeros only where they mean something.
#[must_use]
pub fn number(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        _ if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ if size >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    };
    let (whole, part) = match text.split_once('.') {
        Some((whole, part)) => (whole, part.trim_end_matches('0')),
        None => (text.as_str(), ""),
    };
    let (sign, digits) = match whole.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", whole),
    };
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let dot = if part.is_empty() { "" } else { "." };
    format!("{sign}{grouped}{dot}{part}")
}

/// A number in its unit: nanoseconds become the unit in which they are read.
#[must_use]
pub fn amount(value: f64, unit: &str) -> String {
    match unit {
        // A clock that counts instructions: a nanosecond is one, but where the host is idle it is a tick alone.
        "instructions" | "ticks" => format!("{} M", number(value / 1e6)),
        "ns" if value.abs() >= 1e9 => format!("{} s", number(value / 1e9)),
        "ns" if value.abs() >= 1e6 => format!("{} ms", number(value / 1e6)),
        "ns" if value.abs() >= 1e3 => format!("{} µs", number(value / 1e3)),
        "ns" => format!("{} ns", number(value)),
        _ => number(value),
    }
}

/// The median, and the spread where the runs differ.
#[must_use]
pub fn cell(summary: Option<Summary>, unit: &str) -> String {
    let Some(Summary {
        median, min, max, ..
    }) = summary
    else {
        return "not measured".to_owned();
    };
    let (median, min, max) = (amount(median, unit), amount(min, unit), amount(max, unit));
    if min == max {
        median
    } else {
        format!("{median} ({min}–{max})")
    }
}

/// What a goal is held to.
#[must_use]
pub fn target(target: Target) -> String {
    match target {
        Target::OfBestPeer(part) => format!(
            "at most 1/{} of the best peer",
            number((1.0 / part).round())
        ),
        Target::Below(limit) => format!("0 (less than {})", number(limit)),
        Target::AtMost(limit) => format!("at most {}", number(limit)),
    }
}

/// `2 vCPUs, 256 MiB in 4 KiB pages, 1 NIC VF, 1 NVMe VF, console`.
#[must_use]
pub fn guest(guest: Guest) -> String {
    let mut parts = vec![plural(guest.vcpus, "vCPU")];
    let memory = match guest.memory_mib {
        mib if mib >= 1024 && mib.is_multiple_of(1024) => format!("{} GiB", mib / 1024),
        mib => format!("{mib} MiB"),
    };
    parts.push(memory + pages(guest.pages));
    for (number, name) in [(guest.nics, "NIC VF"), (guest.nvmes, "NVMe VF")] {
        if number > 0 {
            parts.push(plural(number, name));
        }
    }
    parts.push(
        if guest.console {
            "console"
        } else {
            "no console"
        }
        .to_owned(),
    );
    parts.join(", ")
}

/// Behind an amount of memory.
#[must_use]
pub fn pages(pages: Pages) -> &'static str {
    match pages {
        Pages::Default => "",
        Pages::Small => " in 4 KiB pages",
        Pages::TwoMib => " in 2 MiB pages",
    }
}

/// A heading as a part of a sentence.
#[must_use]
pub fn inside(heading: &str) -> String {
    let mut letters = heading.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

fn plural(count: u32, name: &str) -> String {
    let more = if count == 1 { "" } else { "s" };
    format!("{count} {name}{more}")
}

#[cfg(test)]
mod tests {
    use super::{Summary, Target, amount, cell, number, target};

    #[test]
    fn numbers_have_thousands_and_three_digits() {
        let table = [
            (0.0, "0"),
            (1234.0, "1,234"),
            (1_234_567.4, "1,234,567"),
            (-1500.0, "-1,500"),
            (12.34, "12.3"),
            (1.2, "1.2"),
            (0.333_3, "0.33"),
            (0.001_2, "0.0012"),
            (999.6, "1,000"),
        ];
        for (value, text) in table {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn nanoseconds_are_read_in_the_unit_that_fits() {
        assert_eq!(amount(1.5e9, "ns"), "1.5 s");
        assert_eq!(amount(2.5e6, "ns"), "2.5 ms");
        assert_eq!(amount(512.0, "KiB"), "512");
    }

    #[test]
    fn a_spread_is_shown_where_runs_differ() {
        let same = Summary {
            median: 4.0,
            min: 4.0,
            max: 4.0,
            runs: 5,
        };
        assert_eq!(cell(Some(same), "count"), "4");
        assert_eq!(cell(Some(Summary { max: 9.0, ..same }), "count"), "4 (4–9)");
        assert_eq!(cell(None, "count"), "not measured");
    }

    #[test]
    fn targets_are_said_as_they_were_set() {
        assert_eq!(
            target(Target::OfBestPeer(1.0 / 3.0)),
            "at most 1/3 of the best peer"
        );
        assert_eq!(target(Target::Below(1.0)), "0 (less than 1)");
    }
}
