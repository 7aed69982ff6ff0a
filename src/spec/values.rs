//! What single values look like: sizes, names, command lines.

use iommu::{
    addr::ByteLen,
    bdf::{BadBdf, Bdf},
};
use jailed::{handoff::CMDLINE_BYTES, machine::PAGE_BYTES};

use super::types::HugepageSize;
use crate::error::{ErrorId, Report};

/// The function that `text` names.
///
/// # Errors
/// `bad-bdf`.
pub(super) fn bdf(text: &str) -> Result<Bdf, Report> {
    text.parse().map_err(|error: BadBdf| {
        Report::new(
            ErrorId::BadBdf,
            format!("{text:?} is not a PCI address"),
            error.to_string(),
            "write domain:bus:device.function as `lspci -D` prints it",
        )
    })
}

/// The least RAM: below it, a distribution's kernel does not get to its first process.
const LEAST_RAM: ByteLen = ByteLen::new(64 << 20);

/// A size such as `512M`: a whole number and `K`, `M` or `G` (1024, 1024², 1024³ bytes).
pub(super) fn size(text: &str) -> Result<ByteLen, Report> {
    size_in(text, "K, M or G", &[('K', 10), ('M', 20), ('G', 30)])
}

/// A size of a drive: `T` (1024⁴ bytes) too.
pub(super) fn drive_size(text: &str) -> Result<ByteLen, Report> {
    let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    size_in(text, "K, M, G or T", &units)
}

/// A size with one of these units, which `names` names.
fn size_in(text: &str, names: &str, units: &[(char, u32)]) -> Result<ByteLen, Report> {
    let bad = |why: &str| {
        Report::new(
            ErrorId::BadSize,
            format!("{text:?} is not a size"),
            why,
            format!("write a whole number with {names}, for instance \"512M\""),
        )
    };
    let unit = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(*unit)?, *shift)));
    let Some((digits, shift)) = unit else {
        let why = format!("it does not end with a unit: {names} (powers of 1024)");
        return Err(bad(&why));
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad("there is something else than digits before the unit"));
    }
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .map(ByteLen::new)
        .ok_or_else(|| bad("it is more than 64 bits of bytes"))
}

/// Whether RAM may have this size.
pub(super) fn check_memory(size: ByteLen, hugepages: Option<HugepageSize>) -> Result<(), Report> {
    let unit = hugepages.map_or(ByteLen::new(PAGE_BYTES), HugepageSize::len);
    let bad = |why: String, fix: String| {
        Err(Report::new(
            ErrorId::BadSize,
            format!("RAM of {size} is not possible"),
            why,
            fix,
        ))
    };
    if size < LEAST_RAM {
        return bad(
            format!("a guest needs {LEAST_RAM} at least"),
            "write a larger size".to_owned(),
        );
    }
    if !size.raw().is_multiple_of(unit.raw()) {
        return bad(
            format!("it is not a multiple of {unit}, the size of the pages that back it"),
            format!("write a multiple of {unit}"),
        );
    }
    Ok(())
}

/// Whether this may be a guest's name.
///
/// # Errors
/// `bad-name`.
pub fn check_name(name: &str) -> Result<(), Report> {
    let is_good = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if is_good {
        return Ok(());
    }
    Err(Report::new(
        ErrorId::BadName,
        format!("{name:?} cannot name a guest"),
        "a name has 1 to 64 characters of a to z, 0 to 9 and -: it becomes part of paths and unit names",
        "choose another name",
    ))
}

/// Whether this may be a kernel command line.
pub(super) fn check_cmdline(cmdline: &str) -> Result<(), Report> {
    let bad = |why: String| {
        Err(Report::new(
            ErrorId::BadCmdline,
            "the kernel's command line cannot be handed over",
            why,
            "shorten it or remove what is not printable ASCII",
        ))
    };
    if cmdline.len() >= CMDLINE_BYTES {
        return bad(format!(
            "it has {} bytes, {} is the most",
            cmdline.len(),
            CMDLINE_BYTES - 1
        ));
    }
    match cmdline.chars().find(|c| !matches!(c, ' '..='~')) {
        Some(c) => bad(format!("it contains {c:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_with_a_unit() {
        for (text, bytes) in [("1K", 1024), ("64M", 64 << 20), ("3G", 3 << 30), ("0M", 0)] {
            assert_eq!(size(text).unwrap().raw(), bytes, "{text}");
        }
        for text in [
            "",
            "M",
            "512",
            "512MB",
            "1.5G",
            "-1M",
            "+1M",
            "1 G",
            "1MM",
            "0x10M",
            "18446744073709551615K",
        ] {
            assert_eq!(size(text).unwrap_err().id, ErrorId::BadSize, "{text}");
        }
    }

    #[test]
    fn a_drive_can_be_as_large_as_terabytes_and_ram_cannot() {
        assert_eq!(drive_size("2T").unwrap().raw(), 2 << 40);
        assert_eq!(drive_size("512M").unwrap().raw(), 512 << 20);
        assert!(size("2T").is_err());
        assert!(drive_size("16777216T").is_err());
    }

    #[test]
    fn ram_is_a_multiple_of_its_pages() {
        let len = ByteLen::new;
        assert!(check_memory(len(64 << 20), None).is_ok());
        assert!(check_memory(len((64 << 20) - 4096), None).is_err());
        assert!(check_memory(len((64 << 20) + 1024), None).is_err());
        assert!(check_memory(len((65 << 20) + 4096), None).is_ok());
        assert!(check_memory(len(65 << 20), Some(HugepageSize::TwoMib)).is_err());
        assert!(check_memory(len(1536 << 20), Some(HugepageSize::OneGib)).is_err());
        assert!(check_memory(len(2 << 30), Some(HugepageSize::OneGib)).is_ok());
    }

    #[test]
    fn names_are_safe_in_paths() {
        for name in ["a", "web-1", &"x".repeat(64)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "..", "a/b", "Web", "a b", "\u{e9}", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn command_lines_are_short_printable_ascii() {
        assert!(check_cmdline(&"x".repeat(2047)).is_ok());
        for bad in ["a\nb", "a\0b", "caf\u{e9}", &"x".repeat(2048)] {
            assert!(check_cmdline(bad).is_err());
        }
    }
}
