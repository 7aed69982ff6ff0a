//! PCI functions, from `/sys/bus/pci/devices`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    ConfigFacts, Extended, Function, GroupId, Interrupts,
    file::{self, malformed},
    function_path, parse_config, parse_interrupts, resource, state,
};
use crate::{
    bdf::Bdf,
    error::{IommuError, Result},
    sysfs::SysRoot,
};

/// Reads every function whose address has four digits of domain; no other can be assigned.
pub(super) fn read_all(root: &SysRoot) -> Result<BTreeMap<Bdf, Function>> {
    let mut functions = BTreeMap::new();
    for bdf in list(root)? {
        functions.extend(read_if_there(root, bdf)?.map(|function| (bdf, function)));
    }
    Ok(functions)
}

/// The addresses of all functions.
pub(super) fn list(root: &SysRoot) -> Result<BTreeSet<Bdf>> {
    let names = root.list("sys/bus/pci/devices")?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Reads a function of a list; `None` where it was unplugged, or its VFs were removed, since the folder was listed.
pub(super) fn read_if_there(root: &SysRoot, bdf: Bdf) -> Result<Option<Function>> {
    match read(root, bdf) {
        Ok(function) => Ok(Some(function)),
        Err(_) if !root.exists(function_path(bdf)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads again what concerns the neighbours of a function: where its BARs are, whose VF it is, what its group is and who
/// drives it. `None` where it is gone.
pub(super) fn read_beside(root: &SysRoot, before: &Function) -> Result<Option<Function>> {
    let bdf = before.bdf;
    let resources = resource::read(root, bdf)?;
    if resources.is_unread && !root.exists(function_path(bdf)) {
        return Ok(None);
    }
    Ok(Some(Function {
        physfn: read_physfn(root, bdf)?,
        driver: root.read_link_name(function_path(bdf).join("driver"))?,
        group: read_group(root, bdf)?,
        bars: resources.bars,
        rom: resources.rom,
        is_resource_unread: resources.is_unread,
        ..before.clone()
    }))
}

pub(super) fn read(root: &SysRoot, bdf: Bdf) -> Result<Function> {
    let folder = function_path(bdf);
    let driver = root.read_link_name(folder.join("driver"))?;
    let resources = resource::read(root, bdf)?;
    let (interrupts, config) = read_config(root, bdf);
    let reset_method = root.read_text_if_any(folder.join("reset_method"))?;
    Ok(Function {
        bdf,
        path: root.path(&folder),
        vendor: read_id(root, bdf, "vendor")?,
        device: read_id(root, bdf, "device")?,
        class: read_hex(root, bdf, "class")?,
        driver_override: read_free_override(root, bdf, driver.as_deref())?,
        driver,
        physfn: read_physfn(root, bdf)?,
        group: read_group(root, bdf)?,
        numa_node: read_numa_node(root, bdf)?,
        bars: resources.bars,
        is_resource_unread: resources.is_unread,
        has_reset_method: reset_method.is_some(),
        reset_methods: reset_method
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        vfio_cdev: read_cdev(root, bdf)?,
        interrupts,
        parent: read_parent(root, bdf)?,
        config,
        sriov: state::read_sriov(root, bdf)?,
        rom: resources.rom,
        driver_version: file::text(root, folder.join("driver/module/version"))?,
        interfaces: file::list(root, folder.join("net"))?,
        controllers: file::list(root, folder.join("nvme"))?,
        errors: state::read_errors(root, bdf)?,
        link: state::read_link(root, bdf)?,
        // From the PF's interface, when all functions are known.
        policies: Vec::new(),
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

/// Reads the name of a function's device node, where it has one.
pub(super) fn read_cdev(root: &SysRoot, bdf: Bdf) -> Result<Option<String>> {
    let mut names = root.list(function_path(bdf).join("vfio-dev"))?.into_iter();
    Ok(names.find(|name| root.exists(format!("dev/vfio/devices/{name}"))))
}

pub(super) fn read_group(root: &SysRoot, bdf: Bdf) -> Result<Option<GroupId>> {
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

/// Reads the bridge right above from where the function is in the tree of devices.
///
/// The link's target is `../../../devices/pci0000:00/0000:00:1c.0/0000:01:00.0`. What is above a function of a root bus
/// is named `pci` and its bus; anything else would be a bridge that nobody looks at, so it is no answer.
fn read_parent(root: &SysRoot, bdf: Bdf) -> Result<Option<Bdf>> {
    let path = function_path(bdf);
    let target = root.read_link(&path)?.unwrap_or_default();
    let above = target
        .parent()
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    match above.parse() {
        Ok(parent) => Ok(Some(parent)),
        Err(_) if above.starts_with("pci") => Ok(None),
        Err(_) => Err(malformed(
            root,
            &path,
            &target.to_string_lossy(),
            "a link to a function below a bridge or a root bus",
        )),
    }
}

/// Reads `driver_override`, unless a driver of the host has the function: what it says then changes nothing for us, and
/// reading it takes the device's lock, so that it waits while a driver is being bound or unbound.
fn read_free_override(root: &SysRoot, bdf: Bdf, driver: Option<&str>) -> Result<Option<String>> {
    match driver {
        Some(driver) if !driver.contains("vfio") && driver != "pci-stub" => Ok(None),
        _ => read_driver_override(root, bdf),
    }
}

/// Reads configuration space once. Without root the file ends after 64 bytes; a file that cannot be read is a fact about
/// the reader.
fn read_config(root: &SysRoot, bdf: Bdf) -> (Interrupts, ConfigFacts) {
    match root.read_bytes(function_path(bdf).join("config"), CONFIG_LEN) {
        Ok(config) => (parse_interrupts(&config), parse_config(&config)),
        Err(_) => {
            let reason = "configuration space cannot be read";
            let mut facts = parse_config(&[]);
            facts.extended = Extended::Unknown { reason };
            (Interrupts::Unknown { reason }, facts)
        }
    }
}

/// A whole configuration space.
const CONFIG_LEN: u64 = 0x1000;

#[cfg(test)]
#[path = "function_test.rs"]
mod tests;
