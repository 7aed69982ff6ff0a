//! Module parameters that take protection away.

use std::path::PathBuf;

use crate::{
    error::{IommuError, Result},
    sysfs::SysRoot,
};

/// The parameters with which the kernel gives devices away although their interrupts are not remapped.
const UNSAFE_INTERRUPTS: [&str; 2] = [
    "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
    "sys/module/iommufd/parameters/allow_unsafe_interrupts",
];

/// The parameter with which VFIO works without an IOMMU.
const UNSAFE_NOIOMMU: &str = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

pub(super) fn read_unsafe_interrupts(root: &SysRoot) -> Result<Vec<(PathBuf, bool)>> {
    let flags = UNSAFE_INTERRUPTS.iter().map(|path| read_flag(root, path));
    Ok(flags
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect())
}

pub(super) fn read_unsafe_noiommu(root: &SysRoot) -> Result<Option<(PathBuf, bool)>> {
    read_flag(root, UNSAFE_NOIOMMU)
}

fn read_flag(root: &SysRoot, path: &str) -> Result<Option<(PathBuf, bool)>> {
    let Some(text) = root.read_text_if_any(path)? else {
        return Ok(None);
    };
    match text.as_str() {
        "Y" | "1" => Ok(Some((root.path(path), true))),
        "N" | "0" => Ok(Some((root.path(path), false))),
        _ => Err(IommuError::Malformed {
            path: root.path(path),
            text,
            wanted: "Y or N",
        }),
    }
}
