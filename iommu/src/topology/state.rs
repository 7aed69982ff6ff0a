//! What the kernel keeps about a function: its VFs, its link, the errors it counted.

use std::path::Path;

use super::{
    ErrorCounts, Link, Sriov,
    file::{self, malformed},
    function_path,
};
use crate::{
    bdf::Bdf,
    error::{IommuError, Result},
    sysfs::SysRoot,
};

/// Reads `sriov_*`, which only a function that can have VFs has.
pub(super) fn read_sriov(root: &SysRoot, bdf: Bdf) -> Result<Option<Sriov>> {
    let folder = function_path(bdf);
    let number = |name| read_number(root, &folder.join(name));
    let Some(total) = number("sriov_totalvfs")? else {
        return Ok(None);
    };
    Ok(Some(Sriov {
        total,
        enabled: number("sriov_numvfs")?.unwrap_or(0),
        // A kernel before 4.12 has no such switch, and always probes.
        is_probed: number("sriov_drivers_autoprobe")? != Some(0),
    }))
}

fn read_number(root: &SysRoot, path: &Path) -> Result<Option<u32>> {
    let Some(text) = file::text(root, path)? else {
        return Ok(None);
    };
    text.parse()
        .map(Some)
        .map_err(|_bad| malformed(root, path, &text, "a number of 32 bits"))
}

/// Reads the totals of `aer_dev_*`, files of lines `NAME COUNT`; `None` where any of them is missing.
///
/// *Source:* Documentation/ABI/testing/sysfs-bus-pci-devices-aer (v6.12).
pub(super) fn read_errors(root: &SysRoot, bdf: Bdf) -> Result<Option<ErrorCounts>> {
    let total = |name: &str, key: &str| -> Result<Option<u64>> {
        let path = function_path(bdf).join(name);
        let Some(text) = file::text(root, &path)? else {
            return Ok(None);
        };
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
            .map(Some)
            .ok_or_else(|| malformed(root, &path, &text, "a list of errors with their total"))
    };
    let correctable = total("aer_dev_correctable", "TOTAL_ERR_COR ")?;
    let nonfatal = total("aer_dev_nonfatal", "TOTAL_ERR_NONFATAL ")?;
    let fatal = total("aer_dev_fatal", "TOTAL_ERR_FATAL ")?;
    Ok(match (correctable, nonfatal, fatal) {
        (Some(correctable), Some(nonfatal), Some(fatal)) => Some(ErrorCounts {
            correctable,
            nonfatal,
            fatal,
        }),
        _ => None,
    })
}

/// Reads `current_link_*`. The kernel answers EINVAL where the device does not answer it.
pub(super) fn read_link(root: &SysRoot, bdf: Bdf) -> Result<Option<Link>> {
    let word = |name: &str| match file::text(root, function_path(bdf).join(name)) {
        Err(IommuError::Sysfs { errno, .. }) if errno.raw() == libc::EINVAL => Ok(None),
        other => other,
    };
    let (speed, width) = (word("current_link_speed")?, word("current_link_width")?);
    Ok(speed.zip(width).map(|(speed, width)| Link { speed, width }))
}
