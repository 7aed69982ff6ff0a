//! What single values of the host file look like: addresses, ranges, rates, durations, names.

use std::{collections::BTreeSet, time::Duration};

use iommu::topology::{LinkPolicy, Mac, VlanProto};

use super::types::{MacRange, Mbps};
use crate::{
    error::{ErrorId, Report},
    spec::values::check_name,
};

/// The words for what a VF sees of the link, those of iproute2.
pub(super) const LINK_POLICIES: &[&str] = &["auto", "enable", "disable"];
/// The protocols of VLAN tags.
pub(super) const VLAN_PROTOS: &[&str] = &["802.1Q", "802.1ad"];
/// The highest number of a VF that SR-IOV can count.
pub(super) const MAX_INDEX: u32 = 65_534;

/// What a VF sees of the link.
pub(super) fn link_policy(word: &str) -> Option<LinkPolicy> {
    match word {
        "auto" => Some(LinkPolicy::Auto),
        "enable" => Some(LinkPolicy::Up),
        "disable" => Some(LinkPolicy::Down),
        _ => None,
    }
}

/// The protocol of a VLAN tag.
pub(super) fn vlan_proto(word: &str) -> Option<VlanProto> {
    match word {
        "802.1Q" => Some(VlanProto::Dot1Q),
        "802.1ad" => Some(VlanProto::Dot1Ad),
        _ => None,
    }
}

/// Whether `noun`, "a pool" for instance, may have this name.
///
/// # Errors
/// `bad-name`.
pub(super) fn check_word(noun: &str, name: &str) -> Result<(), Report> {
    check_name(name).map_err(|report| Report {
        what: format!("{name:?} cannot name {noun}"),
        ..report
    })
}

/// The address of a VF.
///
/// # Errors
/// `bad-mac`, `mac-multicast`.
pub(super) fn mac(text: &str) -> Result<Mac, Report> {
    let bad = |why: String| {
        Report::new(
            ErrorId::BadMac,
            format!("{text:?} is not an address of a VF"),
            why,
            "write six pairs of hexadecimal digits, for instance \"52:54:00:12:34:56\"",
        )
    };
    let mac: Mac = text
        .parse()
        .map_err(|error: iommu::topology::BadMac| bad(error.to_string()))?;
    if mac.is_zero() {
        return Err(bad("zeros mean that there is none".to_owned()));
    }
    if mac.is_multicast() {
        return Err(Report::new(
            ErrorId::MacMulticast,
            format!("{text:?} is the address of a group"),
            "the lowest bit of its first byte is set: no station has such an address, and drivers refuse it",
            "begin it with 02, 06, 0a or 0e, which are free for local use",
        ));
    }
    Ok(mac)
}

/// Addresses from `first` to `last`.
///
/// # Errors
/// `bad-mac`.
pub(super) fn mac_range(first: Mac, last: Mac) -> Result<MacRange, Report> {
    let bad = |why: &str, fix: &str| {
        Err(Report::new(
            ErrorId::BadMac,
            format!("{first} to {last} is not a range of addresses"),
            why,
            fix,
        ))
    };
    if first > last {
        return bad("it runs backwards", "exchange `first` and `last`");
    }
    if first.0[..3] != last.0[..3] {
        return bad(
            "the first three bytes differ: they are one maker's, or one local choice",
            "write `first` and `last` alike in the first three bytes",
        );
    }
    let range = MacRange { first, last };
    if range.count() > MacRange::MOST {
        return bad(
            "it has more than 65536 addresses",
            "choose a smaller one: a PF has 65535 VFs at most",
        );
    }
    Ok(range)
}

impl MacRange {
    /// The most addresses that a range has.
    pub(super) const MOST: u32 = 65_536;

    /// How many addresses there are.
    #[must_use]
    pub fn count(self) -> u32 {
        tail(self.last) - tail(self.first) + 1
    }

    /// Whether `mac` is one of them.
    #[must_use]
    pub fn contains(self, mac: Mac) -> bool {
        (self.first..=self.last).contains(&mac)
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The addresses, from the lowest.
    pub fn addresses(self) -> impl Iterator<Item = Mac> {
        let [a, b, c, ..] = self.first.0;
        (tail(self.first)..=tail(self.last)).map(move |number| {
            let [_, d, e, f] = number.to_be_bytes();
            Mac([a, b, c, d, e, f])
        })
    }
}

/// The last three bytes.
fn tail(mac: Mac) -> u32 {
    let [_, _, _, d, e, f] = mac.0;
    u32::from_be_bytes([0, d, e, f])
}

/// Numbers of VFs, `"0-3,6"`.
///
/// # Errors
/// `bad-ranges`.
pub(super) fn ranges(text: &str) -> Result<BTreeSet<u32>, Report> {
    let bad = |why: String| {
        Report::new(
            ErrorId::BadRanges,
            format!("{text:?} are not numbers of VFs"),
            why,
            "write numbers and ranges with commas between them, for instance \"0-3,6\"",
        )
    };
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let number = digits.parse().ok().filter(|number| *number <= MAX_INDEX);
        match (is_number, number) {
            (false, _) => Err(bad(format!("{digits:?} is not a number"))),
            (true, None) => Err(bad(format!("{digits} is more than {MAX_INDEX}"))),
            (true, Some(number)) => Ok(number),
        }
    };
    let mut all = BTreeSet::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (number(first.trim())?, number(last.trim())?);
        if first > last {
            return Err(bad(format!("{part:?} runs backwards")));
        }
        for index in first..=last {
            if !all.insert(index) {
                return Err(bad(format!("{index} is there twice")));
            }
        }
    }
    Ok(all)
}

/// A rate, `"500M"` or `"5G"`.
///
/// # Errors
/// `bad-rate`.
pub(super) fn rate(text: &str) -> Result<Mbps, Report> {
    let bad = |why: &str| {
        Report::new(
            ErrorId::BadRate,
            format!("{text:?} is not a rate"),
            why,
            "write a number of Mbit/s, or a text with M or G, for instance \"500M\"",
        )
    };
    let (digits, factor) = if let Some(digits) = text.strip_suffix('M') {
        (digits, 1)
    } else if let Some(digits) = text.strip_suffix('G') {
        (digits, 1000)
    } else {
        return Err(bad("it does not end with a unit: M or G (powers of 1000)"));
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad("there is something else than digits before the unit"));
    }
    let number: Option<u32> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(factor))
        .map(Mbps)
        .ok_or_else(|| bad("no link is that fast"))
}

/// A duration, `"60s"` or `"5m"`, of at least 5 seconds and at most an hour: how long `apply` waits to be confirmed.
///
/// # Errors
/// `bad-duration`.
pub fn duration(text: &str) -> Result<Duration, Report> {
    let bad = |why: &str| {
        Report::new(
            ErrorId::BadDuration,
            format!("{text:?} cannot be waited for"),
            why,
            "write a whole number with s or m, for instance \"60s\"",
        )
    };
    let (digits, factor) = if let Some(digits) = text.strip_suffix('s') {
        (digits, 1)
    } else if let Some(digits) = text.strip_suffix('m') {
        (digits, 60)
    } else {
        return Err(bad("it does not end with a unit: s or m"));
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad("there is something else than digits before the unit"));
    }
    let number: Option<u64> = digits.parse().ok();
    match number.and_then(|number| number.checked_mul(factor)) {
        Some(seconds @ 5..=3600) => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err(bad("it may be 5 seconds to an hour")),
    }
}

/// Whether a network interface can have this name. It becomes part of a path.
///
/// # Errors
/// `pf-match`.
pub(super) fn check_interface(name: &str) -> Result<(), Report> {
    // IFNAMSIZ, with the zero at the end.
    let is_good = (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':'));
    if is_good {
        return Ok(());
    }
    Err(Report::new(
        ErrorId::PfMatch,
        format!("{name:?} is no name of a network interface"),
        "a name has 1 to 15 printable characters, without space, / and :",
        "write the name that `ip link` shows",
    ))
}

/// Whether an NVMe controller can have this serial number.
///
/// # Errors
/// `pf-match`.
pub(super) fn check_serial(serial: &str) -> Result<(), Report> {
    let is_good = (1..=20).contains(&serial.len())
        && serial.trim() == serial
        && serial.bytes().all(|b| (b' '..=b'~').contains(&b));
    if is_good {
        return Ok(());
    }
    Err(Report::new(
        ErrorId::PfMatch,
        format!("{serial:?} is no serial number of a drive"),
        "it has 1 to 20 printable characters, without spaces around them",
        "write it as /sys/class/nvme/nvme0/serial has it, without the spaces at its end",
    ))
}
