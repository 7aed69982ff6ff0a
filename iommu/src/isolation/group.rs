//! Checks of a function's IOMMU group, and of the functions that it shares a group, a firmware or a card with.

use super::{
    Check, CheckId, Evidence, Verdict,
    row::{Case, Find, Found, NOT_READ, Row, attribute, evidence, group_file, with_driver},
};
use crate::{bind::is_placeholder, error::Blame, topology::Function};

pub(super) const ROWS: &[Row] = &[
    Row {
        check: Check {
            id: CheckId::DeviceNoGroup,
            worst: Verdict::Refuse,
            title: "an IOMMU translates for it",
            why: "the device's DMA would not be translated",
            remedy: "choose a device behind an IOMMU; firmware lists the scopes in the DMAR or IVRS table",
            sources: &["Documentation/driver-api/vfio.rst (Linux 6.12)"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(device_no_group),
    },
    Row {
        check: Check {
            id: CheckId::GroupShared,
            worst: Verdict::Refuse,
            title: "its group has no other owner",
            why: "the guest could reach the other devices of the group by DMA",
            remedy: "assign all of them to this guest, or have them told apart: ACS on the ports above them",
            sources: &["Documentation/driver-api/vfio.rst (Linux 6.12)"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(group_shared),
    },
    Row {
        check: Check {
            id: CheckId::PfIdentity,
            worst: Verdict::Refuse,
            title: "all that its firmware can send is translated",
            why: "the VF's physical function could be used against all of the host's memory",
            remedy: "boot without iommu=pt and iommu.passthrough=1",
            sources: &[
                "Documentation/ABI/testing/sysfs-kernel-iommu_groups, type (Linux 6.12)",
                "PCIe r6.0 §6.12.1.1 (ACS source validation checks the bus number alone)",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(pf_identity),
    },
    Row {
        check: Check {
            id: CheckId::LazyInvalidation,
            worst: Verdict::Warn,
            title: "the PF's old mappings end at once",
            why: "the device's firmware can still reach, for a while, memory that the PF's driver has given back",
            remedy: "boot with iommu.strict=1, or write DMA to the type of the PF's group",
            sources: &[
                "Documentation/ABI/testing/sysfs-kernel-iommu_groups, type (Linux 6.12)",
                "Thunderclap, NDSS 2019",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(lazy_invalidation),
    },
    Row {
        check: Check {
            id: CheckId::ReservedDirect,
            worst: Verdict::Refuse,
            title: "firmware claims no memory for it",
            why: "the device would reach host memory that firmware has claimed for it",
            remedy: "turn off the firmware feature that uses the device (RMRR, IVMD), or choose another",
            sources: RESERVED,
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(reserved_direct),
    },
    Row {
        check: Check {
            id: CheckId::ReservedDirectRelaxable,
            worst: Verdict::Refuse,
            title: "firmware claimed no memory for it before boot",
            why: "firmware that still uses the device would lose its memory",
            remedy: "turn off the firmware feature that uses the device (RMRR, IVMD), or choose another",
            sources: RESERVED,
            accepted: Some("firmware that still uses the device loses its memory"),
            blame: Blame::Host,
        },
        find: Find::Function(reserved_direct_relaxable),
    },
    Row {
        check: Check {
            id: CheckId::FirmwareShared,
            worst: Verdict::Warn,
            title: "no other guest is on the same firmware",
            why: "a guest that takes over the device's firmware reaches the memory of all guests on that device",
            remedy: "give the functions of one device to guests of one tenant",
            sources: &["PCIe r6.0 §6.12.1.1 (ACS source validation checks the bus number alone)"],
            accepted: None,
            blame: Blame::Operator,
        },
        find: Find::Function(firmware_shared),
    },
];

const RESERVED: &[&str] = &[
    "Documentation/ABI/testing/sysfs-kernel-iommu_groups, reserved_regions (Linux 6.12)",
    "XSA-378, CVE-2021-28694, CVE-2021-28695, CVE-2021-28696",
    "XSA-386, CVE-2021-28702",
];

fn device_no_group(case: &Case<'_>) -> Found {
    let link = attribute(case.function.bdf, "iommu_group");
    let fix =
        "choose a device behind an IOMMU; firmware lists the scopes in the DMAR or IVRS table";
    match (case.function.group, case.group()) {
        (Some(id), Some(_)) => Found::pass(format!("group {}", id.0)).saw(link, id.0.to_string()),
        (Some(id), None) => Found::refuse(NOT_READ, fix).saw(group_file(id, ""), "does not exist"),
        (None, _) => {
            Found::refuse(NO_GROUP, fix).saw(link, "does not exist, no IOMMU translates for it")
        }
    }
}

fn group_shared(case: &Case<'_>) -> Found {
    let Some((id, group)) = case.group() else {
        // device-no-group refuses it.
        return Found::pass(NO_GROUP).saw(
            attribute(case.function.bdf, "iommu_group"),
            "does not exist",
        );
    };
    let folder = group_file(id, "devices");
    let functions = group
        .members
        .iter()
        .filter(|bdf| !case.together.contains(bdf));
    let functions = functions.map(|bdf| with_driver(case.topology, *bdf));
    let others: Vec<String> = functions
        .chain(group.other_members.iter().cloned())
        .collect();
    let count = group.members.len() + group.other_members.len();
    if others.is_empty() {
        let value = match count {
            1 => "alone".to_owned(),
            _ => format!("{count} members, all of one guest"),
        };
        let members: Vec<String> = group.members.iter().map(ToString::to_string).collect();
        return Found::pass(value).saw(folder, members.join(", "));
    }
    Found::refuse(
        format!("{count} members"),
        "assign all of them to this guest, or have them told apart: ACS on the ports above them",
    )
    .saw(
        folder,
        format!("IOMMU group {} also holds {}", id.0, others.join(", ")),
    )
}

/// Strict: also the VFs, the one to be assigned among them. Their own domain is the guest's only while a guest has
/// them; at all other times firmware that was taken over could send under their names.
fn pf_identity(case: &Case<'_>) -> Found {
    let fix = "boot without iommu=pt and iommu.passthrough=1, or write DMA to that file with the function unbound";
    if let Some(pf) = case.function.physfn.filter(|_| case.pf().is_none()) {
        return Found::refuse(NOT_READ, fix).saw(attribute(pf, ""), "does not exist");
    }
    let functions = case.of_one_device();
    let (bad, good): (Vec<_>, Vec<_>) = functions
        .map(|other| translation(case, other))
        .partition(|(fault, _)| fault.is_some());
    // The worst is the value; the evidence has them all.
    let worst = [IDENTITY, NO_GROUP, NOT_READ]
        .into_iter()
        .find(|value| bad.iter().any(|(fault, _)| *fault == Some(*value)));
    if let Some(value) = worst {
        return Found::refuse(value, fix).saw_all(bad.into_iter().map(|(_, evidence)| evidence));
    }
    let mut seen: Vec<Evidence> = good.into_iter().map(|(_, evidence)| evidence).collect();
    // The members of a group are neighbours in most cases; one line for each group is enough to show it was looked at.
    seen.dedup();
    Found::pass("translated").saw_all(seen)
}

const IDENTITY: &str = "identity";

/// The value of a finding about a function that no IOMMU translates for.
const NO_GROUP: &str = "no group";

/// What is wrong with what this function sends when no guest has it, if anything, and where that is said.
fn translation(case: &Case<'_>, other: &Function) -> (Option<&'static str>, Evidence) {
    let name = with_driver(case.topology, other.bdf);
    let Some((id, group)) = case.topology.group_of(other.bdf) else {
        let said = format!("does not exist: no IOMMU translates for {name}");
        return (
            Some(NO_GROUP),
            evidence(attribute(other.bdf, "iommu_group"), said),
        );
    };
    let fault = match group.domain_type.as_str() {
        "DMA" | "DMA-FQ" | "blocked" => None,
        "identity" => Some(IDENTITY),
        _ => Some(NOT_READ),
    };
    let said = match fault {
        None => group.domain_type.clone(),
        Some(_) => format!("{}, of {name}", group.domain_type),
    };
    (fault, evidence(group_file(id, "type"), said))
}

fn lazy_invalidation(case: &Case<'_>) -> Found {
    let pf = case.function.physfn.unwrap_or(case.function.bdf);
    let fix = "boot with iommu.strict=1, or write DMA to that file with the PF unbound";
    match case.topology.group_of(pf) {
        Some((id, group)) if group.domain_type == "DMA-FQ" => {
            Found::warn("lazy", fix).saw(group_file(id, "type"), "DMA-FQ")
        }
        Some((id, group)) => Found::pass("strict").saw(group_file(id, "type"), &group.domain_type),
        None => Found::warn(NOT_READ, fix).saw(attribute(pf, "iommu_group"), "does not exist"),
    }
}

fn reserved_direct(case: &Case<'_>) -> Found {
    reserved(case, "direct")
}

fn reserved_direct_relaxable(case: &Case<'_>) -> Found {
    reserved(case, "direct-relaxable")
}

fn reserved(case: &Case<'_>, kind: &str) -> Found {
    let Some((id, group)) = case.group() else {
        // device-no-group refuses it.
        return Found::pass(NO_GROUP).saw(
            attribute(case.function.bdf, "iommu_group"),
            "does not exist",
        );
    };
    let file = group_file(id, "reserved_regions");
    let fix = "turn off the firmware feature that uses the device (RMRR, IVMD), or choose another";
    if group.is_reserved_unread {
        return Found::refuse(
            NOT_READ,
            "mount /sys; it must show what firmware has reserved",
        )
        .saw(file, "does not exist");
    }
    let regions: Vec<String> = group
        .reserved
        .iter()
        .filter(|region| region.kind == kind)
        .map(|region| region.range.to_string())
        .collect();
    if regions.is_empty() {
        return Found::pass("none").saw(file, format!("no {kind} region"));
    }
    Found::refuse(format!("{} regions", regions.len()), fix)
        .saw(file, format!("{kind} {}", regions.join(", ")))
}

fn firmware_shared(case: &Case<'_>) -> Found {
    let of_others: Vec<&Function> = case
        .of_one_device()
        .filter(|other| other.driver.as_deref().is_some_and(is_placeholder))
        .filter(|other| !case.together.contains(&other.bdf) && other.bdf != case.function.bdf)
        .collect();
    if of_others.is_empty() {
        let count = case.of_one_device().count();
        return Found::pass("alone").saw(
            attribute(case.function.physfn.unwrap_or(case.function.bdf), ""),
            format!("{count} functions of one device, none with another guest"),
        );
    }
    Found::warn(
        match of_others.len() {
            1 => "1 other".to_owned(),
            count => format!("{count} others"),
        },
        "give the functions of one device to guests of one tenant",
    )
    .saw_all(of_others.iter().map(|other| {
        let driver = other.driver.clone().unwrap_or_default();
        evidence(attribute(other.bdf, "driver"), driver)
    }))
}
