//! What the host has: read from sysfs, procfs and `/dev` under a root that can be another folder than `/`.
#![forbid(unsafe_code)]

mod layers;
pub mod machine;
mod names;
mod platform;
#[cfg(test)]
mod platform_test;
mod read;
#[cfg(test)]
mod read_test;
pub mod sriov;

use iommu::{addr::ByteLen, topology::Topology};
use serde::Serialize;

pub use self::{
    layers::{Known, Layers},
    names::PciNames,
    platform::{BootLoader, CpuMaker, Platform},
    read::unread,
};
use crate::spec::HugepageSize;

/// What is read again of a host on the way from a plan to its execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anew {
    /// What the guest's devices depend on, and how much memory there is: as long as none was taken for the guest.
    DevicesAndMemory,
    /// What the guest's devices depend on.
    Devices,
}

/// Everything that a plan is made from but the operator's wish. Facts only.
#[derive(Clone, Debug, Serialize)]
pub struct Inventory {
    /// PCI functions and IOMMU groups.
    pub topology: Topology,
    /// CPUs that are online.
    pub cpus: u32,
    /// Physical address bits of the CPU.
    pub phys_bits: u32,
    /// `MemAvailable`.
    pub memory_available: ByteLen,
    /// NUMA nodes that are online, by number.
    pub nodes: Vec<Node>,
    /// Free huge pages, of the whole host and of each node.
    pub hugepages: Vec<HugepagePool>,
    /// The layers of the jail.
    pub layers: Layers,
}

/// A NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its number.
    pub id: u32,
    /// Its memory.
    pub total: ByteLen,
}

/// Huge pages of one size that nobody uses or has reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HugepagePool {
    /// The node they are on; `None` for the sum over the host.
    pub node: Option<u32>,
    /// Their size.
    pub size: HugepageSize,
    /// How many.
    pub free: u64,
}

impl Inventory {
    /// How many huge pages of `size` are free on `node`, or on the whole host.
    #[must_use]
    pub fn free_hugepages(&self, size: HugepageSize, node: Option<u32>) -> u64 {
        self.hugepages
            .iter()
            .find(|pool| pool.size == size && pool.node == node)
            .map_or(0, |pool| pool.free)
    }
}
