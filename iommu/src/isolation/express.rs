//! Checks of features with which a device sends what ports and IOMMU do not check as they check the rest.

use super::{
    Check, CheckId, Evidence, Verdict,
    row::{Case, Find, Found, NOT_READ, Row, attribute, evidence},
};
use crate::{
    error::Blame,
    topology::{Extended, ExtendedCaps, Function},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        check: Check {
            id: CheckId::AtsEnabled,
            worst: Verdict::Refuse,
            title: "it does not translate addresses by itself",
            why: "the device could name any host address as translated already, past the IOMMU",
            remedy: "boot with pci=noats",
            sources: &[
                "PCIe r6.0 chapter 10 (ATS)",
                "Thunderclap, NDSS 2019",
                "Documentation/admin-guide/kernel-parameters.txt, pci=noats (Linux 6.12)",
            ],
            accepted: Some("the device's firmware is trusted with all of the host's memory"),
            blame: Blame::Host,
        },
        find: Find::Function(ats_enabled),
    },
    Row {
        check: Check {
            id: CheckId::PriEnabled,
            worst: Verdict::Refuse,
            title: "it does not ask for pages",
            why: "the device could keep the host busy with requests for pages",
            remedy: "have the driver that uses shared virtual addressing let go of the device",
            sources: &["PCIe r6.0 chapter 10 (Page Request Interface)"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(pri_enabled),
    },
    Row {
        check: Check {
            id: CheckId::PasidEnabled,
            worst: Verdict::Refuse,
            title: "it names no address space of a process",
            why: "the device could reach address spaces besides the guest's",
            remedy: "have the driver that uses shared virtual addressing let go of the device",
            sources: &["PCIe r6.0 §6.20 (PASID)"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(pasid_enabled),
    },
    Row {
        check: Check {
            id: CheckId::PhantomFunctions,
            worst: Verdict::Refuse,
            title: "it sends under its own number alone",
            why: "the IOMMU would take the device's DMA for that of another function",
            remedy: "reset the device, and see what in firmware or driver turned it on",
            sources: &[
                "PCIe r6.0 §7.5.3.4 (Device Control, Phantom Functions Enable)",
                "XSA-449, CVE-2023-46839",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(phantom_functions),
    },
];

/// Why a function's capabilities are not known, where they are not.
pub(super) fn unread(function: &Function) -> Option<&'static str> {
    match &function.config.extended {
        Extended::Known(_) => None,
        Extended::Unknown { reason } => Some(reason),
    }
}

fn ats_enabled(case: &Case<'_>) -> Found {
    switched(case, "ATS", |caps| caps.ats, "boot with pci=noats")
}

fn pri_enabled(case: &Case<'_>) -> Found {
    let fix = "have the driver that uses shared virtual addressing let go of the device";
    switched(case, "PRI", |caps| caps.pri, fix)
}

fn pasid_enabled(case: &Case<'_>) -> Found {
    let fix = "have the driver that uses shared virtual addressing let go of the device";
    switched(case, "PASID", |caps| caps.pasid, fix)
}

/// Judges a switch of the function, and of its PF: a VF has some of them in common with that.
fn switched(
    case: &Case<'_>,
    name: &str,
    of: fn(&ExtendedCaps) -> Option<bool>,
    fix: &str,
) -> Found {
    let functions = [Some(case.function), case.pf()];
    let mut on = Vec::new();
    let mut unread = Vec::new();
    let mut off = Vec::new();
    for function in functions.into_iter().flatten() {
        let file = attribute(function.bdf, "config");
        match &function.config.extended {
            Extended::Unknown { reason } => unread.push(evidence(file, *reason)),
            Extended::Known(caps) => match of(caps) {
                Some(true) => on.push(evidence(file, format!("{name} is switched on"))),
                Some(false) => off.push(evidence(file, format!("{name} is switched off"))),
                None => off.push(evidence(file, format!("no {name} capability"))),
            },
        }
    }
    if !on.is_empty() {
        return Found::refuse("on", fix).saw_all(on);
    }
    if !unread.is_empty() {
        return not_read(unread);
    }
    Found::pass("off").saw_all(off)
}

fn not_read(evidence: Vec<Evidence>) -> Found {
    Found::refuse(
        NOT_READ,
        "run as root; if it stays, the device's configuration space is malformed",
    )
    .saw_all(evidence)
}

/// Judges the function and its PF: what a VF shows of the bit need not be what the card does.
fn phantom_functions(case: &Case<'_>) -> Found {
    let functions = [Some(case.function), case.pf()];
    let mut on = Vec::new();
    let mut missing = Vec::new();
    let mut off = Vec::new();
    for function in functions.into_iter().flatten() {
        let file = attribute(function.bdf, "config");
        match (function.config.express, unread(function)) {
            (Some(express), _) if express.has_phantom_functions_on => on.push(evidence(
                file,
                "Device Control has bit 9 (Phantom Functions) set",
            )),
            (Some(_), _) => off.push(evidence(
                file,
                "Device Control has bit 9 (Phantom Functions) clear",
            )),
            (None, None) => off.push(evidence(file, "no PCI Express capability, so none of this")),
            (None, Some(reason)) => missing.push(evidence(file, reason)),
        }
    }
    if !on.is_empty() {
        let fix = "reset the device, and see what in firmware or driver turned it on";
        return Found::refuse("on", fix).saw_all(on);
    }
    if !missing.is_empty() {
        return not_read(missing);
    }
    Found::pass("off").saw_all(off)
}
