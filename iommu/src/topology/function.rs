//! PCI functions, from `/sys/bus/pci/devices`.

use std::collections::BTreeMap;

use super::{
    Function, GroupId, HostBar, Interrupts, function_path, parse_config, parse_interrupts,
};
use crate::{
    addr::ByteLen,
    bdf::Bdf,
    error::{IommuError, Result},
    sysfs::SysRoot,
};

/// Reads every function whose address has four digits of domain; no other can be assigned.
pub(super) fn read_all(root: &SysRoot) -> Result<BTreeMap<Bdf, Function>> {
    let mut functions = BTreeMap::new();
    for name in root.list("sys/bus/pci/devices")? {
        let Ok(bdf) = name.parse::<Bdf>() else {
            continue;
        };
        match read(root, bdf) {
            Ok(function) => {
                functions.insert(bdf, function);
            }
            // It was unplugged, or its VFs were removed, since the folder was listed.
            Err(_) if !root.exists(function_path(bdf)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(functions)
}

fn read(root: &SysRoot, bdf: Bdf) -> Result<Function> {
    let folder = function_path(bdf);
    let cdev = root
        .list(folder.join("vfio-dev"))?
        .into_iter()
        .find(|name| root.exists(format!("dev/vfio/devices/{name}")));
    Ok(Function {
        bdf,
        path: root.path(&folder),
        vendor: read_id(root, bdf, "vendor")?,
        device: read_id(root, bdf, "device")?,
        class: read_hex(root, bdf, "class")?,
        driver: root.read_link_name(folder.join("driver"))?,
        driver_override: read_driver_override(root, bdf)?,
        physfn: read_physfn(root, bdf)?,
        group: read_group(root, bdf)?,
        numa_node: read_numa_node(root, bdf)?,
        bars: read_bars(root, bdf)?,
        reset_methods: root
            .read_text_if_any(folder.join("reset_method"))?
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        vfio_cdev: cdev,
        interrupts: read_interrupts(root, bdf),
        parent: None,
        config: parse_config(&[]),
        sriov: None,
        rom: None,
        driver_version: None,
        interfaces: Vec::new(),
        controllers: Vec::new(),
        errors: None,
        link: None,
    })
}

pub(super) fn read_driver(root: &SysRoot, bdf: Bdf) -> Result<Option<String>> {
    if !root.exists(function_path(bdf)) {
        return Err(IommuError::NoFunction { bdf });
    }
    root.read_link_name(function_path(bdf).join("driver"))
}

pub(super) fn read_driver_override(root: &SysRoot, bdf: Bdf) -> Result<Option<String>> {
    let text = root.read_text_if_any(function_path(bdf).join("driver_override"))?;
    // The kernel prints an unset one with %s.
    Ok(text.filter(|text| !text.is_empty() && text != "(null)"))
}

fn read_physfn(root: &SysRoot, bdf: Bdf) -> Result<Option<Bdf>> {
    let path = function_path(bdf).join("physfn");
    let Some(name) = root.read_link_name(&path)? else {
        return Ok(None);
    };
    let malformed = |_bad| malformed(root, &path, &name, "the link to a PCI function");
    name.parse().map(Some).map_err(malformed)
}

fn read_group(root: &SysRoot, bdf: Bdf) -> Result<Option<GroupId>> {
    let path = function_path(bdf).join("iommu_group");
    let Some(name) = root.read_link_name(&path)? else {
        return Ok(None);
    };
    let malformed = |_bad| malformed(root, &path, &name, "the link to an IOMMU group");
    name.parse().map(GroupId).map(Some).map_err(malformed)
}

fn read_numa_node(root: &SysRoot, bdf: Bdf) -> Result<Option<u32>> {
    let path = function_path(bdf).join("numa_node");
    let Some(text) = root.read_text_if_any(&path)? else {
        return Ok(None);
    };
    let node: i64 = text
        .parse()
        .map_err(|_bad| malformed(root, &path, &text, "a NUMA node"))?;
    Ok(u32::try_from(node).ok())
}

fn read_hex(root: &SysRoot, bdf: Bdf, name: &str) -> Result<u32> {
    let path = function_path(bdf).join(name);
    let text = root.read_text(&path)?;
    text.strip_prefix("0x")
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or_else(|| malformed(root, &path, &text, "a hexadecimal number of 32 bits"))
}

fn read_id(root: &SysRoot, bdf: Bdf, name: &str) -> Result<u16> {
    let value = read_hex(root, bdf, name)?;
    let path = function_path(bdf).join(name);
    u16::try_from(value)
        .map_err(|_big| malformed(root, &path, &format!("{value:#x}"), "a number of 16 bits"))
}

/// Reads `resource`: one line `start end flags` for each BAR, the ROM, and windows of bridges.
fn read_bars(root: &SysRoot, bdf: Bdf) -> Result<[Option<HostBar>; 6]> {
    let path = function_path(bdf).join("resource");
    let text = root.read_text_if_any(&path)?.unwrap_or_default();
    let mut bars = [None; 6];
    for (bar, line) in bars.iter_mut().zip(text.lines()) {
        *bar = parse_bar(line)
            .ok_or_else(|| malformed(root, &path, line, "a line `start end flags`"))?;
    }
    Ok(bars)
}

/// The outer `None` is a malformed line, the inner one a BAR that does not exist.
#[expect(
    clippy::option_option,
    reason = "malformed and absent are different things"
)]
fn parse_bar(line: &str) -> Option<Option<HostBar>> {
    let mut words = line.split_whitespace();
    let mut next = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (start, end, flags) = (next()?, next()?, next()?);
    if flags & (RESOURCE_IO | RESOURCE_MEM) == 0 {
        return Some(None);
    }
    let len = end.checked_sub(start)?.checked_add(1)?;
    Some(Some(HostBar {
        start,
        len: ByteLen::new(len),
        is_memory: flags & RESOURCE_MEM != 0,
        is_64bit: flags & RESOURCE_MEM_64 != 0,
        is_prefetchable: flags & RESOURCE_PREFETCH != 0,
    }))
}

// Source: include/linux/ioport.h, IORESOURCE_* (v6.12); `resource` prints them raw.
const RESOURCE_IO: u64 = 0x100;
const RESOURCE_MEM: u64 = 0x200;
const RESOURCE_PREFETCH: u64 = 0x2000;
const RESOURCE_MEM_64: u64 = 0x10_0000;

/// Without root the file ends after 64 bytes; a file that cannot be read is a fact about the reader.
fn read_interrupts(root: &SysRoot, bdf: Bdf) -> Interrupts {
    match root.read_bytes(function_path(bdf).join("config"), 256) {
        Ok(config) => parse_interrupts(&config),
        Err(_) => Interrupts::Unknown {
            reason: "configuration space cannot be read",
        },
    }
}

fn malformed(
    root: &SysRoot,
    path: &std::path::Path,
    text: &str,
    wanted: &'static str,
) -> IommuError {
    IommuError::Malformed {
        path: root.path(path),
        text: text.to_owned(),
        wanted,
    }
}
