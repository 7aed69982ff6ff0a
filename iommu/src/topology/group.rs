//! IOMMU groups, from `/sys/kernel/iommu_groups`.

use std::{collections::BTreeMap, path::PathBuf};

use super::{Group, GroupId, Member, ReservedRegion};
use crate::{
    addr::{Iova, IovaRange},
    bdf::Bdf,
    error::{IommuError, Result},
    sysfs::SysRoot,
};

pub(super) fn read_all(root: &SysRoot) -> Result<BTreeMap<GroupId, Group>> {
    let mut groups = BTreeMap::new();
    for name in root.list(FOLDER)? {
        let Ok(id) = name.parse().map(GroupId) else {
            return Err(IommuError::Malformed {
                path: root.path(FOLDER),
                text: name,
                wanted: "the number of a group",
            });
        };
        groups.insert(id, read(root, id)?);
    }
    Ok(groups)
}

pub(super) fn read(root: &SysRoot, id: GroupId) -> Result<Group> {
    let folder = group_path(id);
    let mut members: Vec<Bdf> = Vec::new();
    let mut other_members = Vec::new();
    for name in root.list(folder.join("devices"))? {
        match name.parse() {
            Ok(bdf) => members.push(bdf),
            Err(_) => other_members.push(name),
        }
    }
    let reserved = read_reserved(root, id)?;
    Ok(Group {
        members,
        other_members,
        domain_type: read_type(root, id)?,
        is_reserved_unread: reserved.is_none(),
        reserved: reserved.unwrap_or_default(),
    })
}

/// How the IOMMU translates for a group, in the kernel's word.
pub(super) fn read_type(root: &SysRoot, id: GroupId) -> Result<String> {
    let text = root.read_text_if_any(group_path(id).join("type"))?;
    Ok(text.unwrap_or_else(|| "unknown".to_owned()))
}

pub(super) fn read_members(root: &SysRoot, id: GroupId) -> Result<Vec<Member>> {
    let devices = group_path(id).join("devices");
    let mut members = Vec::new();
    for name in root.list(&devices)? {
        let driver = root.read_link_name(devices.join(&name).join("driver"))?;
        members.push(Member { name, driver });
    }
    Ok(members)
}

/// Reads `reserved_regions`: lines `first last kind`, both addresses inclusive; `None` where there is no such file.
fn read_reserved(root: &SysRoot, id: GroupId) -> Result<Option<Vec<ReservedRegion>>> {
    let path = group_path(id).join("reserved_regions");
    let Some(text) = root.read_text_if_any(&path)? else {
        return Ok(None);
    };
    text.lines()
        .map(|line| {
            parse_reserved(line).ok_or_else(|| IommuError::Malformed {
                path: root.path(&path),
                text: line.to_owned(),
                wanted: "a line `first last kind`",
            })
        })
        .collect::<Result<_>>()
        .map(Some)
}

fn parse_reserved(line: &str) -> Option<ReservedRegion> {
    let mut words = line.split_whitespace();
    let mut next = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (first, last) = (next()?, next()?);
    let kind = words.next()?.to_owned();
    let range = IovaRange::from_inclusive(Iova::new(first), Iova::new(last))?;
    Some(ReservedRegion { range, kind })
}

const FOLDER: &str = "sys/kernel/iommu_groups";

fn group_path(id: GroupId) -> PathBuf {
    PathBuf::from(format!("{FOLDER}/{}", id.0))
}
