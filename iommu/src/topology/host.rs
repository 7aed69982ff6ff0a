//! The host as a whole: IOMMUs, interrupt remapping, module parameters, and what the kernel is set to.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use crate::{
    error::{IommuError, Result},
    sysfs::SysRoot,
};

/// What the kernel and the firmware say of the host. A file that is not there leaves its fact out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostState {
    /// Whether `/dev/kvm` exists.
    pub has_kvm: bool,
    /// `/proc/sys/kernel/osrelease`.
    pub kernel: Option<String>,
    /// The words of `/proc/cmdline`.
    pub cmdline: Vec<String>,
    /// Interrupt remapping, from the names of interrupt chips.
    pub remapping: Remapping,
    /// `allow_unsafe_interrupts` of `vfio_iommu_type1` and of `iommufd`, each where the module is loaded.
    pub unsafe_interrupts: Vec<(PathBuf, bool)>,
    /// `enable_unsafe_noiommu_mode` of `vfio`; `None` where there is no such parameter.
    pub unsafe_noiommu: Option<(PathBuf, bool)>,
    /// Small files with one setting each, by the name that [`crate::isolation`] knows them by.
    pub settings: BTreeMap<&'static str, Setting>,
    /// `/sys/devices/system/cpu/vulnerabilities`: the kernel's word on each.
    pub vulnerabilities: BTreeMap<String, String>,
    /// Options of the kernel's configuration that bear on isolation, where it can be read; absent ones are `n`.
    pub kernel_config: Option<(PathBuf, BTreeMap<String, String>)>,
    /// Whether firmware asks for DMA protection from the start (DMAR flag 2, IVRS `IVinfo` bit 1), with its table.
    pub preboot_protection: Option<(PathBuf, bool)>,
    /// The device nodes below `/dev/vfio`.
    pub vfio_nodes: Vec<VfioNode>,
    /// `Max locked memory` of this process in bytes, soft limit; `None` for unlimited or unknown.
    pub locked_memory_limit: Option<u64>,
}

/// Whether the IOMMU checks interrupts that devices send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Remapping {
    /// Message interrupts go through chips whose names begin with `IR-`.
    On {
        /// A line of `/proc/interrupts` that shows it.
        evidence: String,
    },
    /// Message interrupts go straight to the processors.
    Off {
        /// A line of `/proc/interrupts` that shows it.
        evidence: String,
    },
    /// No message interrupt is in use, or the file cannot be read.
    #[default]
    Unknown,
}

/// A small file of sysfs or procfs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Where it was read.
    pub path: PathBuf,
    /// What it said, without white space around it.
    pub text: String,
}

/// A device node of VFIO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VfioNode {
    /// Where it is.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// An IOMMU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IommuUnit {
    /// Its name in `/sys/class/iommu`, such as `dmar0` or `ivhd0`.
    pub name: String,
    /// What it can do.
    pub kind: IommuKind,
}

/// The maker's registers of an IOMMU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "vendor", rename_all = "kebab-case")]
pub enum IommuKind {
    /// VT-d: the capability registers.
    Intel {
        /// `cap`.
        cap: u64,
        /// `ecap`.
        ecap: u64,
    },
    /// AMD-Vi: what the firmware's table and the unit say.
    Amd {
        /// `cap`.
        cap: u64,
        /// `features`.
        features: u64,
    },
    /// Neither.
    Other,
}

/// The parameters with which the kernel gives devices away although their interrupts are not remapped.
const UNSAFE_INTERRUPTS: [&str; 2] = [
    "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
    "sys/module/iommufd/parameters/allow_unsafe_interrupts",
];

/// The parameter with which VFIO works without an IOMMU.
const UNSAFE_NOIOMMU: &str = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

pub(super) fn read(root: &SysRoot) -> Result<HostState> {
    Ok(HostState {
        has_kvm: root.exists("dev/kvm"),
        unsafe_interrupts: read_unsafe_interrupts(root)?,
        unsafe_noiommu: read_flag(root, UNSAFE_NOIOMMU)?,
        ..HostState::default()
    })
}

pub(super) fn read_iommus(root: &SysRoot) -> Result<Vec<IommuUnit>> {
    let names = root.list("sys/class/iommu")?.into_iter();
    Ok(names
        .map(|name| IommuUnit {
            name,
            kind: IommuKind::Other,
        })
        .collect())
}

fn read_unsafe_interrupts(root: &SysRoot) -> Result<Vec<(PathBuf, bool)>> {
    let flags = UNSAFE_INTERRUPTS.iter().map(|path| read_flag(root, path));
    Ok(flags
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect())
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
