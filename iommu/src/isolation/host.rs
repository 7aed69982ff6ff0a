//! Checks of the host: what fences devices from it, and who may use that.

use std::path::Path;

use super::{
    Check, CheckId, Evidence, Verdict,
    row::{Find, Found, NOT_READ, Row, evidence, on_host},
};
use crate::{
    error::Blame,
    topology::{IommuKind, IommuUnit, Remapping, Topology},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        check: Check {
            id: CheckId::KvmAbsent,
            worst: Verdict::Refuse,
            title: "KVM can run guests",
            why: "there is nothing to run the guest with",
            remedy: "enable virtualisation in the firmware and load kvm_intel or kvm_amd",
            sources: &["Documentation/virt/kvm/api.rst (Linux 6.12)"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(kvm_absent),
    },
    Row {
        check: Check {
            id: CheckId::NoIommu,
            worst: Verdict::Refuse,
            title: "the kernel uses an IOMMU",
            why: "a device could read and write all of the host's memory",
            remedy: "enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on (AMD: on by default)",
            sources: &[
                "Documentation/driver-api/vfio.rst (Linux 6.12)",
                "Documentation/admin-guide/kernel-parameters.txt, intel_iommu (Linux 6.12)",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(no_iommu),
    },
    Row {
        check: Check {
            id: CheckId::NoInterruptRemapping,
            worst: Verdict::Refuse,
            title: "interrupts of devices are remapped",
            why: "a device could forge interrupts to the host by DMA",
            remedy: "enable interrupt remapping (x2APIC) in the firmware, and boot without intremap=",
            sources: &[
                "drivers/vfio/vfio_iommu_type1.c, iommu_group_has_isolated_msi (Linux 6.12)",
                "XSA-3, CVE-2011-1898",
                "XSA-33, CVE-2012-5634",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(no_interrupt_remapping),
    },
    Row {
        check: Check {
            id: CheckId::UnsafeInterrupts,
            worst: Verdict::Refuse,
            title: "VFIO insists on interrupt remapping",
            why: "a device could forge interrupts to the host by DMA",
            remedy: "write N to the parameter, and remove it from the kernel's command line and modprobe.d",
            sources: &[
                "drivers/vfio/vfio_iommu_type1.c, allow_unsafe_interrupts (Linux 6.12)",
                "drivers/iommu/iommufd/device.c, allow_unsafe_interrupts (Linux 6.12)",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(unsafe_interrupts),
    },
    Row {
        check: Check {
            id: CheckId::NoiommuMode,
            worst: Verdict::Refuse,
            title: "VFIO insists on an IOMMU",
            why: "somebody could use VFIO without an IOMMU while this guest counts on one",
            remedy: "write N to the parameter, and remove it from the kernel's command line and modprobe.d",
            sources: &["drivers/vfio/Kconfig, VFIO_NOIOMMU (Linux 6.12)"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(noiommu_mode),
    },
    Row {
        check: Check {
            id: CheckId::NoSnoopControl,
            worst: Verdict::Warn,
            title: "the IOMMU can force devices to snoop caches",
            why: "a device could pass by the caches, and KVM would have to flush them for the guest",
            remedy: "nothing but another machine, or another slot, has it",
            sources: &[
                "drivers/iommu/intel/iommu.h, ecap_sc_support (Linux 6.12)",
                "drivers/iommu/amd/iommu.c, amd_iommu_enforce_cache_coherency (Linux 6.12)",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(no_snoop_control),
    },
    Row {
        check: Check {
            id: CheckId::NoPrebootProtection,
            worst: Verdict::Warn,
            title: "firmware fences devices before the kernel does",
            why: "a device whose firmware was changed could own the host at its next boot",
            remedy: "enable kernel or pre-boot DMA protection in the firmware",
            sources: &[
                "Intel VT-d specification, DMA remapping reporting structure, DMA_CTRL_PLATFORM_OPT_IN_FLAG",
                "AMD I/O virtualization specification, IVRS, IVinfo",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(no_preboot_protection),
    },
    Row {
        check: Check {
            id: CheckId::VfioNodeOpen,
            worst: Verdict::Warn,
            title: "devices are opened by their owner alone",
            why: "another user of the host could open a guest's device",
            remedy: "give the node mode 0600: see the rules of udev that changed it",
            sources: &["Documentation/driver-api/vfio.rst (Linux 6.12)"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(vfio_node_open),
    },
];

fn kvm_absent(topology: &Topology) -> Found {
    const NODE: &str = "/dev/kvm";
    match topology.host.has_kvm {
        true => Found::pass("present").saw(NODE, "exists"),
        false => Found::refuse(
            "absent",
            "enable virtualisation in the firmware and load kvm_intel or kvm_amd",
        )
        .saw(NODE, "does not exist"),
    }
}

fn no_iommu(topology: &Topology) -> Found {
    const FOLDER: &str = "/sys/class/iommu";
    let units = &topology.iommus;
    if units.is_empty() {
        return Found::refuse(
            "none",
            "enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on (AMD: on by default)",
        )
        .saw(FOLDER, "empty, the kernel uses no IOMMU");
    }
    let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
    Found::pass(names.len().to_string()).saw(FOLDER, names.join(", "))
}

fn no_interrupt_remapping(topology: &Topology) -> Found {
    const FILE: &str = "/proc/interrupts";
    let fix = "enable interrupt remapping (x2APIC) in the firmware, and boot without intremap=";
    match &topology.host.remapping {
        Remapping::On { evidence } => Found::pass("on").saw(FILE, evidence),
        Remapping::Off { evidence } => Found::refuse("off", fix).saw(FILE, evidence),
        // Not a pass, and no refusal either: the kernel refuses to attach a device where it is off.
        Remapping::Unknown => Found::warn("not seen", fix).saw(
            FILE,
            "shows no message interrupt; the kernel decides when a device is attached",
        ),
    }
}

fn unsafe_interrupts(topology: &Topology) -> Found {
    const FILES: [&str; 2] = [
        "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
        "/sys/module/iommufd/parameters/allow_unsafe_interrupts",
    ];
    let flags = &topology.host.unsafe_interrupts;
    let said: Vec<Evidence> = FILES
        .iter()
        .map(|file| {
            let flag = flags
                .iter()
                .find(|(path, _)| path.ends_with(relative(file)));
            evidence(
                *file,
                flag.map_or("does not exist", |(_, is_on)| word(*is_on)),
            )
        })
        .collect();
    let on: Vec<&str> = said
        .iter()
        .filter(|evidence| evidence.said == word(true))
        .filter_map(|evidence| evidence.source.to_str())
        .collect();
    match on.is_empty() {
        true => Found::pass("off"),
        false => Found::refuse(
            "on",
            format!(
                "write N to {}; enable interrupt remapping in the firmware",
                on.join(" and ")
            ),
        ),
    }
    .saw_all(said)
}

fn noiommu_mode(topology: &Topology) -> Found {
    const FILE: &str = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    let flag = topology.host.unsafe_noiommu.as_ref();
    let said = flag.map_or("does not exist", |(_, is_on)| word(*is_on));
    let nodes: Vec<Evidence> = topology
        .host
        .vfio_nodes
        .iter()
        .map(|node| on_host(&node.path))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with("noiommu-")
        })
        .map(|path| evidence(path, "exists"))
        .collect();
    let is_on = flag.is_some_and(|(_, is_on)| *is_on);
    match is_on || !nodes.is_empty() {
        false => Found::pass("off"),
        true => Found::refuse(
            "on",
            format!(
                "write N to {FILE}, remove it from the kernel's command line and modprobe.d, and unbind what uses it"
            ),
        ),
    }
    .saw(FILE, said)
    .saw_all(nodes)
}

fn no_snoop_control(topology: &Topology) -> Found {
    const SNOOP_CONTROL: u64 = 1 << 7;
    let said = |unit: &IommuUnit| {
        let file = format!("/sys/class/iommu/{}", unit.name);
        match unit.kind {
            IommuKind::Intel { ecap, .. } => (
                ecap & SNOOP_CONTROL != 0,
                evidence(format!("{file}/intel-iommu/ecap"), format!("{ecap:x}")),
            ),
            // The kernel sets the bit that forces it (FC) in every entry.
            IommuKind::Amd { .. } => (true, evidence(file, "AMD-Vi: always forced")),
            IommuKind::Other => (false, evidence(file, "of an unknown kind")),
        }
    };
    let (able, lacking): (Vec<_>, Vec<_>) =
        topology.iommus.iter().map(said).partition(|(is, _)| *is);
    let fix = "assign devices behind another IOMMU, or live with slower cache control";
    if able.is_empty() && lacking.is_empty() {
        return Found::warn(NOT_READ, fix).saw("/sys/class/iommu", "empty");
    }
    match lacking.len() {
        0 => Found::pass("all").saw_all(able.into_iter().map(|(_, evidence)| evidence)),
        count => Found::warn(format!("{count} without"), fix)
            .saw_all(lacking.into_iter().map(|(_, evidence)| evidence)),
    }
}

fn no_preboot_protection(topology: &Topology) -> Found {
    let fix = "enable kernel or pre-boot DMA protection in the firmware";
    match &topology.host.preboot_protection {
        Some((path, true)) => Found::pass("on").saw(on_host(path), "firmware opts in"),
        Some((path, false)) => {
            Found::warn("off", fix).saw(on_host(path), "firmware does not opt in")
        }
        None => Found::warn(NOT_READ, fix).saw(
            "/sys/firmware/acpi/tables",
            "no DMAR or IVRS table that can be read; only root may",
        ),
    }
}

fn vfio_node_open(topology: &Topology) -> Found {
    const FOLDER: &str = "/dev/vfio";
    // These two give nothing without a group's or a device's node; distributions make them 0666 for that.
    let is_empty = |path: &Path| path.ends_with("dev/vfio/vfio") || path.ends_with("dev/iommu");
    let nodes = topology.host.vfio_nodes.iter();
    let (open, closed): (Vec<_>, Vec<_>) = nodes
        .filter(|node| !is_empty(&node.path))
        .partition(|node| node.mode & 0o077 != 0);
    if open.is_empty() {
        return Found::pass(format!("{} nodes", closed.len())).saw(
            FOLDER,
            format!("{} nodes, none open to others", closed.len()),
        );
    }
    let paths: Vec<_> = open.iter().map(|node| on_host(&node.path)).collect();
    let names: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    Found::warn(
        format!("{} open", open.len()),
        format!("chmod 0600 {}", names.join(" ")),
    )
    .saw_all(open.iter().zip(paths).map(|(node, path)| {
        evidence(
            path,
            format!(
                "mode {:04o}, user {}, group {}",
                node.mode, node.uid, node.gid
            ),
        )
    }))
}

fn word(is_on: bool) -> &'static str {
    if is_on { "Y" } else { "N" }
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}
