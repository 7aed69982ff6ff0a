//! The host as a whole: IOMMUs, interrupt remapping, module parameters, and what the kernel is set to.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::Serialize;

use super::{
    file::{self, malformed},
    firmware, kernel, remapping,
};
use crate::{error::Result, sysfs::SysRoot};

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
    /// The files of [`SETTINGS`] that cannot be read, which is not to say that the kernel lacks them: this process may not
    /// read them, or `/proc` or `/sys` is missing.
    pub unread: BTreeSet<&'static str>,
    /// `/sys/devices/system/cpu/vulnerabilities`: the kernel's word on each; empty where it cannot be read.
    pub vulnerabilities: BTreeMap<String, String>,
    /// Options of the kernel's configuration that bear on isolation, where it can be read; absent ones are `n`.
    pub kernel_config: Option<(PathBuf, BTreeMap<String, String>)>,
    /// Whether firmware asks for DMA protection from the start (DMAR flag 2, IVRS `IVinfo` bit 1), with its table.
    pub preboot_protection: Option<(PathBuf, bool)>,
    /// The device nodes below `/dev/vfio`.
    pub vfio_nodes: Vec<VfioNode>,
    /// `Max locked memory` of this process in bytes, soft limit; `None` for unlimited or unknown, and with `CAP_IPC_LOCK`.
    pub locked_memory_limit: Option<u64>,
    /// Whether that is known.
    pub is_locked_memory_known: bool,
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

/// The files of [`HostState::settings`], each of which is its name there.
pub const SETTINGS: &[&str] = &[
    "proc/sys/kernel/tainted",
    "proc/sys/kernel/kptr_restrict",
    "proc/sys/kernel/dmesg_restrict",
    "proc/sys/kernel/perf_event_paranoid",
    "proc/sys/kernel/unprivileged_bpf_disabled",
    "proc/sys/kernel/kexec_load_disabled",
    "proc/sys/kernel/yama/ptrace_scope",
    "proc/sys/kernel/io_uring_disabled",
    "proc/sys/kernel/core_pattern",
    "proc/sys/kernel/randomize_va_space",
    "proc/sys/vm/unprivileged_userfaultfd",
    "proc/sys/fs/suid_dumpable",
    "sys/kernel/security/lockdown",
    "sys/kernel/mm/ksm/run",
    "proc/swaps",
    "sys/devices/system/cpu/smt/control",
];

/// The parameters with which the kernel gives devices away although their interrupts are not remapped.
const UNSAFE_INTERRUPTS: [&str; 2] = [
    "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
    "sys/module/iommufd/parameters/allow_unsafe_interrupts",
];

/// The parameter with which VFIO works without an IOMMU.
const UNSAFE_NOIOMMU: &str = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

const VULNERABILITIES: &str = "sys/devices/system/cpu/vulnerabilities";

pub(super) fn read(root: &SysRoot) -> Result<HostState> {
    let fences = read_to_assign(root)?;
    let settings = read_settings(root)?;
    let locked_memory = read_locked_memory(root)?;
    Ok(HostState {
        unread: unread(root, &settings),
        settings,
        vulnerabilities: read_vulnerabilities(root)?,
        kernel_config: kernel::read_config(root, fences.kernel.as_deref())?,
        preboot_protection: firmware::read_preboot_protection(root)?,
        locked_memory_limit: match locked_memory {
            Some(LockedMemory::Limit(limit)) => Some(limit),
            Some(LockedMemory::Unlimited) | None => None,
        },
        is_locked_memory_known: locked_memory.is_some(),
        ..fences
    })
}

/// Reads what checks of the host refuse for, and what checks of functions look at. The rest, which can only warn, is left
/// unknown.
pub(super) fn read_to_assign(root: &SysRoot) -> Result<HostState> {
    let of_boot = HostState {
        kernel: file::text(root, "proc/sys/kernel/osrelease")?,
        cmdline: file::text(root, "proc/cmdline")?
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        ..HostState::default()
    };
    read_again(root, &of_boot)
}

/// Reads again what may change before the next boot, and what checks refuse for.
pub(super) fn read_again(root: &SysRoot, before: &HostState) -> Result<HostState> {
    Ok(HostState {
        has_kvm: root.exists("dev/kvm"),
        remapping: remapping::read(root)?,
        unsafe_interrupts: read_unsafe_interrupts(root)?,
        unsafe_noiommu: read_flag(root, UNSAFE_NOIOMMU)?,
        vfio_nodes: read_vfio_nodes(root)?,
        ..before.clone()
    })
}

/// Reads again which IOMMUs are in use. What one that is known can do stays.
pub(super) fn read_iommus_again(root: &SysRoot, before: &[IommuUnit]) -> Result<Vec<IommuUnit>> {
    let names = root.list("sys/class/iommu")?.into_iter();
    names
        .map(|name| match before.iter().find(|unit| unit.name == name) {
            Some(known) => Ok(known.clone()),
            None => read_unit(root, name),
        })
        .collect()
}

pub(super) fn read_iommus(root: &SysRoot) -> Result<Vec<IommuUnit>> {
    read_iommus_again(root, &[])
}

fn read_unit(root: &SysRoot, name: String) -> Result<IommuUnit> {
    let kind = read_kind(root, &name)?;
    Ok(IommuUnit { name, kind })
}

/// The folder with the maker's name tells whose an IOMMU is.
///
/// *Source:* Documentation/ABI/testing/sysfs-class-iommu-intel-iommu, sysfs-class-iommu-amd-iommu (v6.12).
fn read_kind(root: &SysRoot, name: &str) -> Result<IommuKind> {
    let register = |path: &str| read_register(root, &format!("sys/class/iommu/{name}/{path}"));
    if let (Some(cap), Some(ecap)) = (register("intel-iommu/cap")?, register("intel-iommu/ecap")?) {
        return Ok(IommuKind::Intel { cap, ecap });
    }
    if let (Some(cap), Some(features)) =
        (register("amd-iommu/cap")?, register("amd-iommu/features")?)
    {
        return Ok(IommuKind::Amd { cap, features });
    }
    Ok(IommuKind::Other)
}

/// Reads a register, in hexadecimal without a prefix.
///
/// `features` of AMD-Vi is two registers with a colon between since 5.12, and 6.7 exchanged them. The one that is meant
/// has features in its high half, the other one has none there: it is the greater.
fn read_register(root: &SysRoot, path: &str) -> Result<Option<u64>> {
    let Some(text) = file::text(root, path)? else {
        return Ok(None);
    };
    let words = text.split(':').map(|word| u64::from_str_radix(word, 16));
    let registers = words.collect::<std::result::Result<Vec<u64>, _>>();
    registers
        .map(|registers| registers.into_iter().max())
        .map_err(|_bad| malformed(root, path, &text, "a hexadecimal number of 64 bits"))
}

fn read_settings(root: &SysRoot) -> Result<BTreeMap<&'static str, Setting>> {
    let mut settings = BTreeMap::new();
    for name in SETTINGS {
        if let Some(text) = file::text(root, name)? {
            let path = root.path(name);
            settings.insert(*name, Setting { path, text });
        }
    }
    Ok(settings)
}

/// The settings that are missing although the kernel may well have them.
fn unread(root: &SysRoot, settings: &BTreeMap<&'static str, Setting>) -> BTreeSet<&'static str> {
    let is_mounted = |name: &str| {
        root.exists(match name.starts_with("proc") {
            true => "proc/sys/kernel",
            false => "sys/kernel",
        })
    };
    let missing = SETTINGS.iter().filter(|name| !settings.contains_key(*name));
    missing
        .filter(|name| root.exists(name) || !is_mounted(name))
        .copied()
        .collect()
}

fn read_vulnerabilities(root: &SysRoot) -> Result<BTreeMap<String, String>> {
    let mut vulnerabilities = BTreeMap::new();
    for name in file::list(root, VULNERABILITIES)? {
        let text = file::text(root, format!("{VULNERABILITIES}/{name}"))?;
        vulnerabilities.insert(name, text.unwrap_or_default());
    }
    Ok(vulnerabilities)
}

/// Finds the nodes that give away devices or IOMMU contexts. `/dev/vfio/vfio` is none of them: without a group it is
/// good for nothing, and open to everybody by design.
fn read_vfio_nodes(root: &SysRoot) -> Result<Vec<VfioNode>> {
    let groups = file::list(root, "dev/vfio")?
        .into_iter()
        .filter(|name| name.starts_with("noiommu-") || name.parse::<u32>().is_ok())
        .map(|name| format!("dev/vfio/{name}"));
    let devices = file::list(root, "dev/vfio/devices")?
        .into_iter()
        .filter(|name| name.starts_with("vfio") || name.starts_with("noiommu-"))
        .map(|name| format!("dev/vfio/devices/{name}"));
    let mut nodes = Vec::new();
    for path in groups.chain(devices).chain(["dev/iommu".to_owned()]) {
        if let Some(owner) = root.owner(&path)? {
            nodes.push(VfioNode {
                path: root.path(&path),
                mode: owner.mode,
                uid: owner.uid,
                gid: owner.gid,
            });
        }
    }
    Ok(nodes)
}

/// How much memory this process may lock.
#[derive(Clone, Copy)]
enum LockedMemory {
    Unlimited,
    /// Bytes.
    Limit(u64),
}

/// Reads the soft limit of `Max locked memory`, in bytes; none binds who may lock as much as there is. `None` where the
/// kernel does not tell.
fn read_locked_memory(root: &SysRoot) -> Result<Option<LockedMemory>> {
    // Source: include/uapi/linux/capability.h, CAP_IPC_LOCK (v6.12).
    const MAY_LOCK: u64 = 1 << 14;
    let status = file::text(root, "proc/self/status")?.unwrap_or_default();
    let capabilities = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    if capabilities.is_some_and(|capabilities| capabilities & MAY_LOCK != 0) {
        return Ok(Some(LockedMemory::Unlimited));
    }
    let path = "proc/self/limits";
    let text = file::text(root, path)?.unwrap_or_default();
    let Some(line) = text
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))
    else {
        return Ok(None);
    };
    match line.split_whitespace().next() {
        Some("unlimited") => Ok(Some(LockedMemory::Unlimited)),
        word => word
            .and_then(|word| word.parse().ok())
            .map(|limit| Some(LockedMemory::Limit(limit)))
            .ok_or_else(|| malformed(root, path, line, "a limit in bytes")),
    }
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
        _ => Err(malformed(root, path, &text, "Y or N")),
    }
}

#[cfg(test)]
#[path = "host_test.rs"]
mod tests;
