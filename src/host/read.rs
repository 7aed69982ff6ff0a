//! Reads an [`Inventory`].

use iommu::{addr::ByteLen, bdf::Bdf, error::IommuError, sysfs::SysRoot, topology::Topology};

use super::{Anew, HugepagePool, Inventory, Layers, Node, machine::malformed};
use crate::{
    error::{ErrorId, Report},
    spec::HugepageSize,
};

const CPUS: &str = "sys/devices/system/cpu/online";
const NODES: &str = "sys/devices/system/node";
const CPUINFO: &str = "proc/cpuinfo";
const MEMINFO: &str = "proc/meminfo";
const HUGEPAGES: &str = "sys/kernel/mm/hugepages";

impl Inventory {
    /// Reads the host under `root`. Needs no privilege; without it configuration space stays unknown.
    ///
    /// # Errors
    ///
    /// `host-unreadable`: a file that every host has is not there or does not read as expected.
    pub fn read(root: &SysRoot) -> Result<Self, Report> {
        Self::around(root, Topology::read(root))
    }

    /// The same without what can only warn of the host as a whole, which no plan repeats.
    ///
    /// # Errors
    /// As [`Inventory::read`].
    pub fn read_to_plan(root: &SysRoot) -> Result<Self, Report> {
        Self::around(root, Topology::read_to_assign(root))
    }

    /// Reads again what a plan for `functions` depends on and what may have changed since `self` was read.
    ///
    /// Not read again: processors, whose number only warns and whose addresses do not grow; and layers of the jail, each of
    /// which fails by itself where it is absent when a guest's processes are put into it.
    ///
    /// # Errors
    /// As [`Inventory::read`].
    pub fn read_again(
        &self,
        root: &SysRoot,
        functions: &[Bdf],
        anew: Anew,
    ) -> Result<Self, Report> {
        let topology = self.topology.read_again(root, functions);
        let (nodes, memory_available, hugepages) = match anew {
            Anew::Devices => (
                self.nodes.clone(),
                self.memory_available,
                self.hugepages.clone(),
            ),
            Anew::DevicesAndMemory => read_memory(root)?,
        };
        Ok(Self {
            topology: topology.map_err(|error| unread(&error))?,
            cpus: self.cpus,
            phys_bits: self.phys_bits,
            memory_available,
            nodes,
            hugepages,
            layers: self.layers.clone(),
        })
    }

    fn around(root: &SysRoot, topology: iommu::error::Result<Topology>) -> Result<Self, Report> {
        let (nodes, memory_available, hugepages) = read_memory(root)?;
        Ok(Self {
            topology: topology.map_err(|error| unread(&error))?,
            cpus: read_list(root, CPUS)?.len().try_into().unwrap_or(u32::MAX),
            phys_bits: read_phys_bits(root)?,
            memory_available,
            nodes,
            hugepages,
            layers: Layers::read(root),
        })
    }
}

/// Reads what memory there is.
fn read_memory(root: &SysRoot) -> Result<(Vec<Node>, ByteLen, Vec<HugepagePool>), Report> {
    let nodes = read_nodes(root)?;
    let available = read_kib(root, MEMINFO, "MemAvailable:")?;
    let hugepages = read_hugepages(root, &nodes)?;
    Ok((nodes, available, hugepages))
}

/// Why a host could not be read: `machine-malformed` where a machine file holds more than any host, else
/// `host-unreadable`.
#[must_use]
pub fn unread(error: &IommuError) -> Report {
    if let IommuError::LargeMachine { place, .. } = error {
        return malformed(place, &error.to_string());
    }
    unreadable(&error.to_string())
}

pub(super) fn unreadable(why: &str) -> Report {
    Report::new(
        ErrorId::HostUnreadable,
        "the host cannot be described",
        why,
        "run on Linux with /sys and /proc mounted, or check --root",
    )
}

fn read(root: &SysRoot, path: &str) -> Result<String, Report> {
    root.read_text(path).map_err(|error| unread(&error))
}

/// A list of numbers such as `0-3,8`, in order.
fn read_list(root: &SysRoot, path: &str) -> Result<Vec<u32>, Report> {
    let text = read(root, path)?;
    parse_list(&text)
        .ok_or_else(|| unreadable(&format!("{path} holds {text:?}, not a list of numbers")))
}

pub(super) fn parse_list(text: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        // No host has more; a made-up file must not fill memory.
        if last < first || last > 0xFFFF {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// `address sizes : 46 bits physical, 48 bits virtual` of the first CPU.
fn read_phys_bits(root: &SysRoot) -> Result<u32, Report> {
    read(root, CPUINFO)?
        .lines()
        .filter_map(|line| line.strip_prefix("address sizes"))
        .find_map(|line| {
            line.trim_start_matches([' ', '\t', ':'])
                .split(' ')
                .next()?
                .parse()
                .ok()
        })
        .filter(|bits| (32..=64).contains(bits))
        .ok_or_else(|| unreadable("/proc/cpuinfo has no line \"address sizes\""))
}

/// The number behind `key` in a file of the form of `/proc/meminfo`.
fn read_kib(root: &SysRoot, path: &str, key: &str) -> Result<ByteLen, Report> {
    read(root, path)?
        .lines()
        .find_map(|line| line.split_once(key))
        .and_then(|(_, rest)| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .and_then(|kib| kib.checked_mul(1024))
        .map(ByteLen::new)
        .ok_or_else(|| unreadable(&format!("/{path} has no line {key:?}")))
}

/// None on a kernel without NUMA.
fn read_nodes(root: &SysRoot) -> Result<Vec<Node>, Report> {
    let online = format!("{NODES}/online");
    if !root.exists(&online) {
        return Ok(Vec::new());
    }
    read_list(root, &online)?
        .into_iter()
        .map(|id| {
            let total = read_kib(root, &format!("{NODES}/node{id}/meminfo"), "MemTotal:")?;
            Ok(Node { id, total })
        })
        .collect()
}

fn read_hugepages(root: &SysRoot, nodes: &[Node]) -> Result<Vec<HugepagePool>, Report> {
    let mut pools = Vec::new();
    for (size, name) in [
        (HugepageSize::TwoMib, "hugepages-2048kB"),
        (HugepageSize::OneGib, "hugepages-1048576kB"),
    ] {
        // Reserved pages are promised to somebody; only the host as a whole counts them.
        let folder = format!("{HUGEPAGES}/{name}");
        if let Some(free) = read_count(root, &format!("{folder}/free_hugepages"))? {
            let reserved = read_count(root, &format!("{folder}/resv_hugepages"))?.unwrap_or(0);
            let free = free.saturating_sub(reserved);
            pools.push(HugepagePool {
                node: None,
                size,
                free,
            });
        }
        for node in nodes {
            let path = format!("{NODES}/node{}/hugepages/{name}/free_hugepages", node.id);
            if let Some(free) = read_count(root, &path)? {
                pools.push(HugepagePool {
                    node: Some(node.id),
                    size,
                    free,
                });
            }
        }
    }
    Ok(pools)
}

fn read_count(root: &SysRoot, path: &str) -> Result<Option<u64>, Report> {
    if !root.exists(path) {
        return Ok(None);
    }
    let text = read(root, path)?;
    match text.parse() {
        Ok(count) => Ok(Some(count)),
        Err(error) => Err(unreadable(&format!("/{path} holds {text:?}: {error}"))),
    }
}
