//! Checks of the interface, and of the list of devices.

use std::collections::BTreeMap;

use iommu::bdf::Bdf;

use super::{Case, Evidence, Finding, GuestCheck};
use crate::{
    error::{ErrorId, Location, Report},
    plan::assemble::memory_bars,
    spec::InterfaceChoice,
};

/// The rows, in the order in which an operator reads the refusals.
pub(super) const CHECKS: &[GuestCheck] = &[
    GuestCheck {
        id: ErrorId::InterfaceAbsent,
        reason: "the devices could not be opened",
        find: interface_absent,
    },
    GuestCheck {
        id: ErrorId::DeviceAbsent,
        reason: "there is nothing to assign",
        find: device_absent,
    },
    GuestCheck {
        id: ErrorId::DeviceListedTwice,
        reason: "one function would appear at two addresses of the guest",
        find: device_listed_twice,
    },
];

pub(super) fn one(
    what: impl Into<String>,
    evidence: Evidence,
    place: Option<&Location>,
) -> Vec<Finding> {
    vec![Finding {
        what: what.into(),
        evidence,
        place: place.cloned(),
    }]
}

fn interface_absent(case: &Case<'_>) -> Vec<Finding> {
    if case.spec.interface != InterfaceChoice::Iommufd {
        return Vec::new();
    }
    let fix = "write `interface = \"auto\"`, or boot a kernel with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV";
    let mut why = Vec::new();
    if !case.host.topology.has_iommufd {
        why.push("there is no /dev/iommu".to_owned());
    }
    why.extend(
        case.asked
            .iter()
            .filter(|asked| asked.lacks_cdev())
            .map(|asked| {
                format!(
                    "{} is bound to vfio-pci, but has no device file",
                    asked.function.bdf
                )
            }),
    );
    if why.is_empty() {
        return Vec::new();
    }
    let evidence = Evidence {
        why,
        fix: fix.to_owned(),
    };
    one(
        "cannot use iommufd on this host",
        evidence,
        case.spec.places.interface.as_ref(),
    )
}

fn device_absent(case: &Case<'_>) -> Vec<Finding> {
    let functions = &case.host.topology.functions;
    let wishes = case.spec.devices.iter();
    wishes
        .filter(|wish| !functions.contains_key(&wish.bdf))
        .flat_map(|wish| {
            let near = nearest(case, wish.bdf);
            let fix = match near.is_empty() {
                true => "create the VF first: write a number to sriov_numvfs of its PF".to_owned(),
                false => format!("did you mean {}?", near.join(" or ")),
            };
            let path = format!("/sys/bus/pci/devices/{} does not exist", wish.bdf);
            one(
                format!("there is no device {}", wish.bdf),
                Evidence::new(path, fix),
                wish.place.as_ref(),
            )
        })
        .collect()
}

/// At most three functions of the same bus or with the same digits elsewhere, VFs first.
fn nearest(case: &Case<'_>, bdf: Bdf) -> Vec<String> {
    let mut near: Vec<_> = case
        .host
        .topology
        .functions
        .values()
        .filter(|f| {
            let is_same_bus = (f.bdf.domain(), f.bdf.bus()) == (bdf.domain(), bdf.bus());
            let is_same_place =
                (f.bdf.device(), f.bdf.function()) == (bdf.device(), bdf.function());
            is_same_bus || is_same_place && f.physfn.is_some()
        })
        .map(|f| {
            (
                f.physfn.is_none(),
                f.bdf.packed().abs_diff(bdf.packed()),
                f.bdf,
            )
        })
        .collect();
    near.sort_unstable();
    near.into_iter()
        .take(3)
        .map(|(_, _, bdf)| bdf.to_string())
        .collect()
}

/// A pair works as asked, and gives up that devices of the guest are kept from each other: one warning for each.
pub(super) fn peers(case: &Case<'_>) -> Vec<Report> {
    const FIX: &str =
        "remove the [[peer]] table, unless these devices gain much by not going through RAM";
    let moved = case.host.topology.has_iommufd && case.spec.interface == InterfaceChoice::Auto;
    let pairs = case.spec.peers.iter();
    pairs
        .map(|pair| {
            let (from, to) = (pair.from, pair.to);
            let what = format!(
                "DMA of {from} may reach the BARs of {to}, and so may DMA of every device of this guest"
            );
            let report = Report::new(
                ErrorId::PeerDma,
                what,
                "one address space serves all devices of a guest; the pages of the MSI-X table and of the pending bits \
                 stay closed",
                FIX,
            )
            .and(format!(
                "a device that writes to {to} while it is reset or does not decode may raise PCIe errors on the host"
            ))
            .at(pair.place.clone());
            let report = match moved {
                true => report.and("type1 is used: iommufd, which the host has, maps no BARs"),
                false => report,
            };
            let opened = case.asked.iter().find(|asked| asked.function.bdf == to);
            let has_none = opened.is_some_and(|asked| memory_bars(asked.function).next().is_none());
            match has_none {
                true => report.and(format!("it opens nothing: {to} has no BAR of memory")),
                false => report,
            }
        })
        .collect()
}

fn device_listed_twice(case: &Case<'_>) -> Vec<Finding> {
    let mut count: BTreeMap<Bdf, u32> = BTreeMap::new();
    case.spec
        .devices
        .iter()
        .filter(|wish| {
            let seen = count.entry(wish.bdf).or_default();
            *seen += 1;
            *seen == 2
        })
        .flat_map(|wish| {
            let evidence = Evidence::new(
                format!(
                    "another [[device]] of this guest has bdf = \"{}\", too",
                    wish.bdf
                ),
                "remove one of them",
            );
            one(
                format!("device {} is listed twice", wish.bdf),
                evidence,
                wish.place.as_ref(),
            )
        })
        .collect()
}
