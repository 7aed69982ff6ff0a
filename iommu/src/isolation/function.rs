//! Checks of what a function is, and of who has it.

use super::{
    Check, CheckId, Verdict,
    row::{Case, Find, Found, NOT_READ, Row, attribute},
};
use crate::{bind::is_placeholder, error::Blame};

pub(super) const ROWS: &[Row] = &[
    Row {
        check: Check {
            id: CheckId::DeviceNotAVf,
            worst: Verdict::Refuse,
            title: "it is a virtual function",
            why: "the guest could change what the next user gets: firmware, link, VFs",
            remedy: "assign a VF",
            sources: &["XSA-461, CVE-2024-31146", "PCIe r6.0 chapter 9 (SR-IOV)"],
            accepted: Some(
                "the guest may change what the next user of the device gets: firmware, link, VFs",
            ),
            blame: Blame::Operator,
        },
        find: Find::Function(device_not_a_vf),
    },
    Row {
        check: Check {
            id: CheckId::LegacyBridge,
            worst: Verdict::Refuse,
            title: "it is no ISA or LPC bridge",
            why: "the kernel may map the first 16 MiB of memory for it, whatever the guest's map says",
            remedy: "choose another device",
            sources: &["drivers/iommu/intel/Kconfig, INTEL_IOMMU_FLOPPY_WA (Linux 6.12)"],
            accepted: None,
            blame: Blame::Operator,
        },
        find: Find::Function(legacy_bridge),
    },
    Row {
        check: Check {
            id: CheckId::DeviceHostDriver,
            worst: Verdict::Refuse,
            title: "no driver of the host has it",
            why: "a device in use would be taken away from the host",
            remedy: "unbind it from the driver",
            sources: &["Documentation/ABI/testing/sysfs-bus-pci (Linux 6.12)"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(device_host_driver),
    },
    Row {
        check: Check {
            id: CheckId::DriverOverrideSet,
            worst: Verdict::Refuse,
            title: "no other tool keeps it for a driver",
            why: "two tools would fight over the device",
            remedy: "empty driver_override",
            sources: &["Documentation/ABI/testing/sysfs-bus-pci, driver_override (Linux 6.12)"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(driver_override_set),
    },
    Row {
        check: Check {
            id: CheckId::VfAutoprobe,
            worst: Verdict::Warn,
            title: "drivers of the host leave new VFs alone",
            why: "a driver of the host takes each new VF and may leave state in it",
            remedy: "write 0 to sriov_drivers_autoprobe of the PF before VFs are created",
            sources: &[
                "Documentation/ABI/testing/sysfs-bus-pci, sriov_drivers_autoprobe (Linux 6.12)",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(vf_autoprobe),
    },
];

fn device_not_a_vf(case: &Case<'_>) -> Found {
    let bdf = case.function.bdf;
    let link = attribute(bdf, "physfn");
    if let Some(pf) = case.function.physfn {
        return Found::pass(format!("VF of {pf}")).saw(link, pf.to_string());
    }
    let vfs: Vec<String> = case
        .topology
        .vfs_of(bdf)
        .take(3)
        .map(|vf| vf.bdf.to_string())
        .collect();
    let fix = match vfs.is_empty() {
        true => "assign a VF".to_owned(),
        false => format!("assign one of its VFs, for instance {}", vfs.join(", ")),
    };
    Found::refuse("no VF", fix).saw(link, "does not exist")
}

fn legacy_bridge(case: &Case<'_>) -> Found {
    const ISA_BRIDGE: u32 = 0x0601;
    let class = case.function.class;
    let found = match class >> 8 == ISA_BRIDGE {
        true => Found::refuse("ISA bridge", "choose another device"),
        false => Found::pass("no"),
    };
    found.saw(
        attribute(case.function.bdf, "class"),
        format!("{class:#08x}"),
    )
}

fn device_host_driver(case: &Case<'_>) -> Found {
    let function = case.function;
    let link = attribute(function.bdf, "driver");
    let Some(driver) = function.driver.as_deref() else {
        return Found::pass("free").saw(link, "does not exist");
    };
    if is_placeholder(driver) {
        return Found::pass(driver).saw(link, driver);
    }
    let used: Vec<&str> = function
        .interfaces
        .iter()
        .chain(&function.controllers)
        .map(String::as_str)
        .collect();
    let found = Found::refuse(
        driver,
        format!(
            "echo {} > /sys/bus/pci/drivers/{driver}/unbind",
            function.bdf
        ),
    );
    match used.is_empty() {
        true => found.saw(link, format!("the host's driver {driver} has it")),
        false => found.saw(
            link,
            format!("the host's driver {driver} has it, as {}", used.join(", ")),
        ),
    }
}

fn driver_override_set(case: &Case<'_>) -> Found {
    let function = case.function;
    let file = attribute(function.bdf, "driver_override");
    match function.driver_override.as_deref() {
        None => Found::pass("empty").saw(file, "(null)"),
        Some(wanted) if is_placeholder(wanted) => Found::pass(wanted).saw(file, wanted),
        Some(wanted) => Found::refuse(
            wanted,
            format!(
                "driverctl unset-override {0}, or echo > /sys/bus/pci/devices/{0}/driver_override",
                function.bdf
            ),
        )
        .saw(
            file,
            format!("names {wanted}: somebody, perhaps driverctl, keeps it"),
        ),
    }
}

fn vf_autoprobe(case: &Case<'_>) -> Found {
    let Some(pf) = case.function.physfn else {
        return Found::pass("no VF").saw(attribute(case.function.bdf, "physfn"), "does not exist");
    };
    let file = attribute(pf, "sriov_drivers_autoprobe");
    let fix = format!("echo 0 > {}, before the VFs are created", file.display());
    match case.pf().and_then(|pf| pf.sriov) {
        Some(sriov) if sriov.is_probed => Found::warn("on", fix).saw(file, "1"),
        Some(_) => Found::pass("off").saw(file, "0"),
        None => Found::warn(NOT_READ, fix).saw(file, "does not exist"),
    }
}
