//! Checks of the way from a function up to the IOMMU: whether a port passes what the IOMMU never sees.
//!
//! Stricter than the kernel where it decides on groups (`pci_acs_path_enabled` in drivers/pci/pci.c, Linux 6.12). The
//! kernel takes a bit that the capability lacks for wired on, knows ports by their ids that isolate without a
//! capability (many of Intel's and AMD's root ports and chipsets), and does not look at direct translated peer-to-peer.
//! Here each port shows the bits in its own registers, or an operator accepts it by name.
//!
//! A multi-function endpoint's own ACS is left to the kernel: functions of one card that it does not keep apart are in
//! one group, which `group-shared` refuses.

use super::{
    Check, CheckId, Evidence, Verdict,
    row::{Case, Find, Found, NOT_READ, Row, attribute, evidence},
};
use crate::{
    error::Blame,
    topology::{Acs, Extended, Function, PortType},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        check: Check {
            id: CheckId::AcsMissing,
            worst: Verdict::Refuse,
            title: "every port above it sends all to the IOMMU",
            why: "the guest could reach other devices below the same port, past the IOMMU",
            remedy: "move the card below a port with ACS, or enable ACS in the firmware",
            sources: &[
                "PCIe r6.0 §6.12 and §7.7.11 (ACS)",
                "drivers/iommu/iommu.c, REQ_ACS_FLAGS (Linux 6.12)",
                "drivers/pci/pci.c, pci_acs_enabled (Linux 6.12)",
                "Documentation/driver-api/vfio.rst (Linux 6.12)",
            ],
            accepted: Some("the guest may reach other devices below the same port, past the IOMMU"),
            blame: Blame::Host,
        },
        find: Find::Function(acs_missing),
    },
    Row {
        check: Check {
            id: CheckId::AcsOverride,
            worst: Verdict::Refuse,
            title: "nobody told the kernel to weaken ACS",
            why: "the kernel would call devices isolated that are not",
            remedy: "remove the word from the kernel's command line",
            sources: &[
                "Documentation/admin-guide/kernel-parameters.txt, pci=disable_acs_redir=, pci=config_acs= (Linux 6.12)",
                "pcie_acs_override= is no part of Linux, but of patches to it",
            ],
            accepted: Some(
                "groups are no proof of isolation any more: the guest may reach other devices",
            ),
            blame: Blame::Host,
        },
        find: Find::Function(acs_override),
    },
];

/// What a port that leads down has to have on.
const OF_DOWNWARD: &[(u16, &str)] = &[
    (Acs::SOURCE_VALIDATION, "source validation"),
    (Acs::REQUEST_REDIRECT, "request redirect"),
    (Acs::COMPLETION_REDIRECT, "completion redirect"),
    (Acs::UPSTREAM_FORWARDING, "upstream forwarding"),
];

/// What a function of a multi-function upstream port has to have on: the other two do not exist there.
const OF_UPSTREAM: &[(u16, &str)] = &[
    (Acs::REQUEST_REDIRECT, "request redirect"),
    (Acs::COMPLETION_REDIRECT, "completion redirect"),
];

fn acs_missing(case: &Case<'_>) -> Found {
    // A VF may stand on a bus that has no bridge of its own: its way is the PF's.
    let from = match (case.function.parent, case.function.physfn) {
        (None, Some(pf)) => pf,
        _ => case.function.bdf,
    };
    let ports: Vec<&Function> = case.topology.path_above(from).collect();
    if let Some(bdf) = lost_parent(case, from, &ports) {
        return Found::refuse(NOT_READ, FIX).saw(
            attribute(bdf, ""),
            "does not exist, and a device lies below it",
        );
    }
    if ports.is_empty() {
        return Found::pass("root bus").saw(
            attribute(from, ""),
            "no port lies between it and the root complex",
        );
    }
    let judged: Vec<(Option<&str>, Evidence)> =
        ports.iter().map(|port| judge_port(case, port)).collect();
    let mut bad = judged
        .iter()
        .filter_map(|(fault, evidence)| Some(((*fault)?, evidence)))
        .peekable();
    let Some((fault, _)) = bad.peek() else {
        return Found::pass(format!("{} ports", ports.len()))
            .saw_all(judged.into_iter().map(|(_, evidence)| evidence));
    };
    Found::refuse(*fault, FIX).saw_all(bad.map(|(_, evidence)| evidence.clone()))
}

const FIX: &str = "move the card below a port with ACS, or enable ACS in the firmware";

/// The bridge that the topmost known function names above itself, but that the host does not have.
fn lost_parent(
    case: &Case<'_>,
    from: crate::bdf::Bdf,
    ports: &[&Function],
) -> Option<crate::bdf::Bdf> {
    let top = ports
        .last()
        .copied()
        .or_else(|| case.topology.functions.get(&from))?;
    top.parent
        .filter(|bdf| !case.topology.functions.contains_key(bdf))
}

/// What is wrong with a port, if anything, and its registers.
fn judge_port(case: &Case<'_>, port: &Function) -> (Option<&'static str>, Evidence) {
    let file = attribute(port.bdf, "config");
    let say = |fault, said: String| (fault, evidence(&file, said));
    let config = &port.config;
    let acs = match &config.extended {
        Extended::Known(caps) => Ok(caps.acs),
        Extended::Unknown { reason } => Err(*reason),
    };
    let kind = config.express.map(|express| express.port);
    let wanted = match kind {
        None if config.command.is_some() && acs.is_ok() => {
            return say(
                Some("conventional PCI"),
                "conventional PCI bridge: a shared bus has no ACS".to_owned(),
            );
        }
        Some(PortType::ToPciBridge | PortType::FromPciBridge) => {
            return say(
                Some("conventional PCI"),
                "bridge to or from conventional PCI: a shared bus has no ACS".to_owned(),
            );
        }
        Some(PortType::SwitchUpstream) if !is_multifunction(case, port) => {
            return say(
                None,
                "upstream port of a switch, alone in its device".to_owned(),
            );
        }
        Some(PortType::SwitchUpstream) => OF_UPSTREAM,
        _ => OF_DOWNWARD,
    };
    match acs {
        Err(reason) => say(Some(NOT_READ), reason.to_owned()),
        Ok(None) => say(
            Some("no ACS"),
            format!("{}, no ACS capability", kind_word(kind)),
        ),
        Ok(Some(acs)) => {
            let faults = faults_of(acs, wanted);
            let registers = format!(
                "ACS capability {:#06x}, control {:#06x}",
                acs.capability, acs.control
            );
            match faults.is_empty() {
                true => say(None, registers),
                false => say(
                    Some("ACS off"),
                    format!("{registers}: {}", faults.join(", ")),
                ),
            }
        }
    }
}

fn faults_of(acs: Acs, wanted: &[(u16, &str)]) -> Vec<String> {
    let lacks = |bit: u16| acs.control & bit == 0;
    let missing = wanted
        .iter()
        .filter(|(bit, _)| lacks(*bit))
        .map(|(_, name)| format!("{name} is off"));
    let direct = (acs.control & Acs::DIRECT_TRANSLATED != 0)
        .then(|| "direct translated peer-to-peer is on".to_owned());
    missing.chain(direct).collect()
}

fn is_multifunction(case: &Case<'_>, port: &Function) -> bool {
    let device = |function: &Function| {
        let bdf = function.bdf;
        (bdf.domain(), bdf.bus(), bdf.device())
    };
    let functions = case.topology.functions.values();
    functions
        .filter(|other| device(other) == device(port))
        .count()
        > 1
}

fn kind_word(kind: Option<PortType>) -> &'static str {
    match kind {
        Some(PortType::RootPort) => "root port",
        Some(PortType::SwitchUpstream) => "upstream port of a switch",
        Some(PortType::SwitchDownstream) => "downstream port of a switch",
        _ => "port of an unknown kind",
    }
}

fn acs_override(case: &Case<'_>) -> Found {
    const FILE: &str = "/proc/cmdline";
    let words = &case.topology.host.cmdline;
    let found: Vec<Evidence> = words
        .iter()
        .filter_map(|word| Some(evidence(FILE, format!("{word}: {}", weakens_acs(word)?))))
        .collect();
    if words.is_empty() {
        return Found::refuse(NOT_READ, "mount /proc").saw(FILE, "empty, or it cannot be read");
    }
    match found.is_empty() {
        true => Found::pass("none").saw(FILE, words.join(" ")),
        false => {
            Found::refuse("set", "remove the word from the kernel's command line").saw_all(found)
        }
    }
}

/// No part of Linux, but of patches to it.
const ACS_OVERRIDE: &str = "pcie_acs_override";
/// Options of `pci=` that change ACS, and what they do.
const ACS_OPTIONS: &[(&str, &str)] = &[
    ("disable_acs_redir", "ports pass requests between devices"),
    ("config_acs", "ACS is set by hand"),
];

/// A word for each way to weaken ACS.
pub(super) fn acs_words() -> impl Iterator<Item = String> {
    let options = ACS_OPTIONS.iter();
    let options = options.map(|(name, _)| format!("pci=noaer,{name}=0000:00:1c.0"));
    options.chain([format!("{ACS_OVERRIDE}=downstream")])
}

/// What a word of the command line does to ACS.
fn weakens_acs(word: &str) -> Option<&'static str> {
    let (key, values) = word.split_once('=')?;
    if key.replace('-', "_") == ACS_OVERRIDE {
        return Some("a patched kernel takes devices for isolated that are not");
    }
    if key != "pci" {
        return None;
    }
    // Options are separated by commas, the devices of one option by semicolons.
    values.split([',', ';']).find_map(|option| {
        let name = option.split_once('=')?.0;
        let mut rows = ACS_OPTIONS.iter();
        rows.find_map(|(known, does)| (*known == name).then_some(*does))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_pci_are_read_in_lists() {
        for word in [
            "pcie_acs_override=downstream,multifunction",
            "pcie-acs-override=downstream",
            "pci=disable_acs_redir=0000:00:1c.0",
            "pci=noaer,disable_acs_redir=pci:8086:1c10",
            "pci=config_acs=1111011@0020:02:00.0;101xxxx@0039:00:00.0",
            "pci=realloc,config_acs=x@pci:0:0",
        ] {
            assert!(weakens_acs(word).is_some(), "{word}");
        }
        for word in acs_words() {
            assert!(weakens_acs(&word).is_some(), "{word}");
        }
        for word in [
            "quiet",
            "pci=noaer,noats",
            "pci",
            "xpci=config_acs=1",
            "root=config_acs=1",
        ] {
            assert_eq!(weakens_acs(word), None, "{word}");
        }
    }
}
