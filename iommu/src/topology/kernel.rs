//! How the kernel was built, as far as isolation is concerned.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;

use super::file::{self, malformed};
use crate::{error::Result, sysfs::SysRoot};

/// The options that are kept, without `CONFIG_`.
const OPTIONS: &[&str] = &[
    "VFIO_NOIOMMU",
    "VFIO_DEVICE_CDEV",
    "VFIO_GROUP",
    "IOMMUFD",
    "IOMMU_DEFAULT_PASSTHROUGH",
    "INTEL_IOMMU_DEBUGFS",
    "AMD_IOMMU_DEBUGFS",
    "IOMMU_DEBUGFS",
    "INIT_ON_FREE_DEFAULT_ON",
    "INIT_ON_ALLOC_DEFAULT_ON",
    "IRQ_REMAP",
    "PCIEAER",
];

/// Reads the configuration that the kernel carries, else the one that was installed with it.
pub(super) fn read_config(
    root: &SysRoot,
    release: Option<&str>,
) -> Result<Option<(PathBuf, BTreeMap<String, String>)>> {
    let carried = Path::new("proc/config.gz");
    if let Some(bytes) = file::bytes(root, carried, LIMIT)? {
        let text = unpack(&bytes)
            .map_err(|error| malformed(root, carried, &error.to_string(), "a compressed text"))?;
        return Ok(Some((root.path(carried), parse(&text))));
    }
    // A release is one word in a path, whoever made it up.
    let Some(release) = release.filter(|release| !release.contains('/')) else {
        return Ok(None);
    };
    let installed = format!("boot/config-{release}");
    let Some(bytes) = file::bytes(root, &installed, LIMIT)? else {
        return Ok(None);
    };
    let options = parse(&String::from_utf8_lossy(&bytes));
    Ok(Some((root.path(installed), options)))
}

/// Ten times the size of a distribution's configuration: what is longer is cut, so that options are absent.
const LIMIT: u64 = 4 << 20;

fn unpack(bytes: &[u8]) -> std::io::Result<String> {
    let mut text = Vec::new();
    GzDecoder::new(bytes).take(LIMIT).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("CONFIG_")?.split_once('='))
        .filter(|(option, _)| OPTIONS.contains(option))
        .map(|(option, value)| (option.to_owned(), value.to_owned()))
        .collect()
}
