//! Who has a block device for itself: what the kernel has built on it, told from sysfs.

use iommu::{error::IommuError, sysfs::SysRoot};

/// Who holds a block device or a partition of it, in words; empty where sysfs knows of nobody.
///
/// # Errors
/// What cannot be read.
pub(super) fn holders(root: &SysRoot, device: &str) -> Result<Vec<String>, IommuError> {
    let place = format!("sys/block/{device}");
    let mut found = of_one(root, device, &place)?;
    let partitions = root.list(&place)?;
    for part in partitions.iter().filter(|name| name.starts_with(device)) {
        found.extend(of_one(root, part, &format!("{place}/{part}"))?);
    }
    Ok(found)
}

fn of_one(root: &SysRoot, device: &str, place: &str) -> Result<Vec<String>, IommuError> {
    let folder = format!("{place}/holders");
    if !root.exists(&folder) {
        return Ok(Vec::new());
    }
    let names = root.list(&folder)?;
    names
        .iter()
        .map(|holder| Ok(format!("{} has {device}", named(root, holder)?)))
        .collect()
}

/// A holder, and the name that its owner gave it.
fn named(root: &SysRoot, holder: &str) -> Result<String, IommuError> {
    let text = |file: &str| root.read_text_if_any(format!("sys/block/{holder}/{file}"));
    if let Some(name) = text("dm/name")? {
        // "LVM-…", "mpath-…", "CRYPT-…": who made it.
        let uuid = text("dm/uuid")?.unwrap_or_default();
        let maker = uuid.split('-').next().filter(|maker| !maker.is_empty());
        let maker = maker.unwrap_or("device mapper");
        return Ok(format!("{holder} ({maker}: {})", name.trim()));
    }
    match text("md/level")? {
        Some(level) => Ok(format!("{holder} (md, {})", level.trim())),
        None => Ok(holder.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use iommu::fake::FakeHost;

    use super::*;

    #[test]
    fn holder_is_named_with_its_maker_and_the_partition_that_it_has() {
        let folder = std::env::temp_dir().join(format!("narrows-holders-{}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        let root = FakeHost::new(folder.clone())
            .file("sys/block/nvme0n2/size", "1\n")
            .file("sys/block/nvme0n2/holders/md127/x", "")
            .file("sys/block/nvme0n2/nvme0n2p1/holders/dm-0/x", "")
            .file("sys/block/nvme0n2/nvme0n2p2/holders/dm-1/x", "")
            .file("sys/block/nvme0n2/nvme0n2p3/holders/bcache0/x", "")
            .file("sys/block/md127/md/level", "raid1\n")
            .file("sys/block/dm-0/dm/name", "vg-root\n")
            .file("sys/block/dm-0/dm/uuid", "LVM-abc\n")
            .file("sys/block/dm-1/dm/name", "plain\n")
            .file("sys/block/dm-1/dm/uuid", "\n")
            .file("sys/block/nvme0n3/size", "1\n")
            .write()
            .unwrap();
        let mut found = holders(&root, "nvme0n2").unwrap();
        found.sort();
        assert_eq!(
            found,
            [
                "bcache0 has nvme0n2p3",
                "dm-0 (LVM: vg-root) has nvme0n2p1",
                "dm-1 (device mapper: plain) has nvme0n2p2",
                "md127 (md, raid1) has nvme0n2",
            ]
        );
        assert_eq!(holders(&root, "nvme0n3").unwrap(), Vec::<String>::new());
        fs::remove_dir_all(&folder).unwrap();
    }
}
