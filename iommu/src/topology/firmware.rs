//! What the firmware's tables say of DMA before the kernel has taken over.

use std::path::PathBuf;

use super::file;
use crate::{error::Result, sysfs::SysRoot};

/// Where a table says whether firmware has kept devices from memory since power-on.
struct Place {
    path: &'static str,
    offset: usize,
    bit: u8,
}

/// *Source:* VT-d r4.1 §8.1, DMAR flags, `DMA_CTRL_PLATFORM_OPT_IN_FLAG`; AMD IOMMU 48882 r3.08 §5.2, `IVinfo`, `DmaRemapSup`,
/// as drivers/iommu/intel/dmar.c and drivers/iommu/amd/init.c read them (v6.12).
const PLACES: &[Place] = &[
    Place {
        path: "sys/firmware/acpi/tables/DMAR",
        offset: 37,
        bit: 1 << 2,
    },
    Place {
        path: "sys/firmware/acpi/tables/IVRS",
        offset: 36,
        bit: 1 << 1,
    },
];

/// Reads the flag with the table it is in; `None` without such a table, and without root, who alone may read it.
pub(super) fn read_preboot_protection(root: &SysRoot) -> Result<Option<(PathBuf, bool)>> {
    for place in PLACES {
        let table = file::bytes(root, place.path, HEAD)?.unwrap_or_default();
        if let Some(byte) = table.get(place.offset) {
            return Ok(Some((root.path(place.path), byte & place.bit != 0)));
        }
    }
    Ok(None)
}

/// The common header of 36 bytes and the table's own first fields.
const HEAD: u64 = 48;
