//! Checks of the function's own registers: reset, configuration space, bus master, errors.

use super::{
    Check, CheckId, Evidence, Verdict,
    driver::version,
    express,
    row::{Case, Find, Found, NOT_READ, Row, attribute, evidence},
};
use crate::{error::Blame, topology::Interrupts};

pub(super) const ROWS: &[Row] = &[
    Row {
        check: Check {
            id: CheckId::DeviceNoReset,
            worst: Verdict::Refuse,
            title: "it can be reset alone",
            why: "state, and DMA under way, would pass from one guest to the next",
            remedy: "choose a device with function-level reset",
            sources: &[
                "PCIe r6.0 §6.6.2 (function level reset)",
                "Documentation/ABI/testing/sysfs-bus-pci, reset_method (Linux 6.12)",
                "XSA-302, CVE-2019-18424",
                "XSA-306, CVE-2019-19579",
            ],
            accepted: Some("state, and DMA under way, may pass from one guest to the next"),
            blame: Blame::Device,
        },
        find: Find::Function(device_no_reset),
    },
    Row {
        check: Check {
            id: CheckId::ConfigUnreadable,
            worst: Verdict::Refuse,
            title: "its configuration space can be read",
            why: "the interrupts, and which pages must stay unmapped, would be guesses",
            remedy: "run as root; if it stays, the device's configuration space is malformed",
            sources: &[
                "PCIe r6.0 §7.5.1.1.11 (capabilities pointer), §7.6 (extended capabilities)",
                "XSA-337, CVE-2020-25595",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(config_unreadable),
    },
    Row {
        check: Check {
            id: CheckId::BusMasterOn,
            worst: Verdict::Fixable,
            title: "it sends nothing before the guest's map is sealed",
            why: "the device could use memory before the guest's map is in place",
            remedy: "nothing: bus master is switched off before the map is made",
            sources: &[
                "PCIe r6.0 §7.5.1.1.3 (Command register)",
                "XSA-61, CVE-2013-4329",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(bus_master_on),
    },
    Row {
        check: Check {
            id: CheckId::DeviceErrors,
            worst: Verdict::Warn,
            title: "it has had no errors",
            why: "a guest would get a device, or a link, that fails",
            remedy: "see the kernel's log, and reseat or replace the card",
            sources: &[
                "Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats (Linux 6.12)",
                "PCIe r6.0 §6.2 (error signaling)",
            ],
            accepted: None,
            blame: Blame::Device,
        },
        find: Find::Function(device_errors),
    },
];

/// `bus` resets neighbours or needs there to be none, `pm` leaves to the device what it clears.
const FUNCTION_LEVEL: [&str; 3] = ["flr", "af_flr", "device_specific"];

fn device_no_reset(case: &Case<'_>) -> Found {
    let function = case.function;
    let file = attribute(function.bdf, "reset_method");
    let fix = "choose a device with function-level reset";
    let methods = function.reset_methods.join(" ");
    let level = |method: &&String| FUNCTION_LEVEL.contains(&method.as_str());
    let Some(method) = function.reset_methods.iter().find(level) else {
        return match methods.is_empty() {
            true if function.has_reset_method => {
                Found::refuse("none", fix).saw(file, "empty, the kernel cannot reset it")
            }
            true => no_reset_method(case, fix).saw_all(release(case)),
            false => Found::refuse(methods.clone(), fix).saw(
                file,
                format!("{methods}, and none of {}", FUNCTION_LEVEL.join(", ")),
            ),
        };
    };
    let has_flr = function.config.express.map(|express| express.has_flr);
    if method == "flr" && has_flr == Some(false) {
        // The kernel read the bit when it found the device: since then one of the two has changed.
        return Found::warn(
            "flr, which the device denies",
            "reset the PF or the host, and look again",
        )
        .saw(file, methods)
        .saw(
            attribute(function.bdf, "config"),
            "Device Capabilities has bit 28 (FLR) clear",
        );
    }
    Found::pass(method.as_str()).saw(file, methods)
}

/// The kernel shows the file where it can reset the function, since 5.15; an earlier one does not tell.
///
/// *Source:* drivers/pci/pci.c, `pci_dev_reset_method_attr_is_visible` (v6.12).
fn no_reset_method(case: &Case<'_>, fix: &str) -> Found {
    let file = attribute(case.function.bdf, "reset_method");
    let kernel = case.topology.host.kernel.as_deref().and_then(version);
    match kernel.is_some_and(|kernel| (kernel.0, kernel.1) >= (5, 15)) {
        true => Found::refuse("none", fix).saw(file, "does not exist, the kernel cannot reset it"),
        false => Found::refuse(NOT_READ, "use Linux 5.15 or later").saw(
            file,
            "does not exist: this kernel does not tell how it resets",
        ),
    }
}

fn release(case: &Case<'_>) -> Option<Evidence> {
    let release = case.topology.host.kernel.clone()?;
    Some(evidence("/proc/sys/kernel/osrelease", release))
}

fn config_unreadable(case: &Case<'_>) -> Found {
    let function = case.function;
    let file = attribute(function.bdf, "config");
    let of_interrupts = match function.interrupts {
        Interrupts::Unknown { reason } => Some(reason),
        Interrupts::None | Interrupts::Msi { .. } | Interrupts::Msix { .. } => None,
    };
    match of_interrupts.or_else(|| express::unread(function)) {
        None => Found::pass("read").saw(file, "all capabilities were read"),
        Some(reason) => Found::refuse(
            NOT_READ,
            "run as root; if it stays, the device's configuration space is malformed",
        )
        .saw(file, reason),
    }
}

fn bus_master_on(case: &Case<'_>) -> Found {
    const BUS_MASTER: u16 = 1 << 2;
    let file = attribute(case.function.bdf, "config");
    match case.function.config.command {
        None => Found::fixable(NOT_READ).saw(file, "the command register cannot be read"),
        Some(command) if command & BUS_MASTER != 0 => Found::fixable("on").saw(
            file,
            format!("command {command:#06x}; bit 2 is cleared before the map is made"),
        ),
        Some(command) => Found::pass("off").saw(file, format!("command {command:#06x}")),
    }
}

fn device_errors(case: &Case<'_>) -> Found {
    let bdf = case.function.bdf;
    let Some(errors) = case.function.errors else {
        return Found::pass("not counted").saw(attribute(bdf, "aer_dev_fatal"), "does not exist");
    };
    let found = match (errors.fatal, errors.nonfatal) {
        (0, 0) => Found::pass("none"),
        (fatal, nonfatal) => Found::warn(
            format!("{} uncorrectable", fatal.saturating_add(nonfatal)),
            "see the kernel's log, and reseat or replace the card",
        ),
    };
    found
        .saw(
            attribute(bdf, "aer_dev_fatal"),
            format!("{} in total", errors.fatal),
        )
        .saw(
            attribute(bdf, "aer_dev_nonfatal"),
            format!("{} in total", errors.nonfatal),
        )
}
