//! Checks of the host, and of the guest as a whole.

use std::collections::BTreeMap;

use iommu::bdf::Bdf;
use jailed::handoff::{MAX_FUNCTIONS, MAX_VCPUS};

use super::{Case, Evidence, Finding, GuestCheck};
use crate::{
    error::{ErrorId, Location, Report},
    plan::assemble::interrupts_of,
    spec::{InterfaceChoice, RootMode},
};

/// The most vectors of all functions together: each takes two eventfds in D and a GSI in KVM.
pub(super) const MAX_TOTAL_VECTORS: u32 = 1024;

/// The rows, in the order in which an operator reads the refusals.
pub(super) const CHECKS: &[GuestCheck] = &[
    GuestCheck {
        id: ErrorId::KvmAbsent,
        reason: "there is nothing to run the guest with",
        find: kvm_absent,
    },
    GuestCheck {
        id: ErrorId::NoIommu,
        reason: "a device could read and write all of the host's memory",
        find: no_iommu,
    },
    GuestCheck {
        id: ErrorId::NoiommuMode,
        reason: "somebody could use VFIO without an IOMMU while this guest counts on one",
        find: noiommu_mode,
    },
    GuestCheck {
        id: ErrorId::UnsafeInterrupts,
        reason: "a device could forge interrupts to the host by DMA",
        find: unsafe_interrupts,
    },
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
    GuestCheck {
        id: ErrorId::TooManyDevices,
        reason: "the handoff could not describe them",
        find: too_many_devices,
    },
    GuestCheck {
        id: ErrorId::TooManyVectors,
        reason: "V and D would run out of descriptors",
        find: too_many_vectors,
    },
    GuestCheck {
        id: ErrorId::TooManyVcpus,
        reason: "the handoff could not describe them",
        find: too_many_vcpus,
    },
    GuestCheck {
        id: ErrorId::NumaNodeAbsent,
        reason: "memory would come from an arbitrary node",
        find: numa_node_absent,
    },
    GuestCheck {
        id: ErrorId::HugepagesInsufficient,
        reason: "mapping RAM would fail half-way",
        find: hugepages_insufficient,
    },
    GuestCheck {
        id: ErrorId::MemoryInsufficient,
        reason: "pinning RAM would push the host out of memory",
        find: memory_insufficient,
    },
];

fn one(what: impl Into<String>, evidence: Evidence, place: Option<&Location>) -> Vec<Finding> {
    vec![Finding {
        what: what.into(),
        evidence,
        place: place.cloned(),
    }]
}

fn kvm_absent(case: &Case<'_>) -> Vec<Finding> {
    if case.host.has_kvm {
        return Vec::new();
    }
    let evidence = Evidence::new(
        "there is no /dev/kvm",
        "enable virtualisation in the firmware and load kvm_intel or kvm_amd",
    );
    one("cannot run a guest on this host", evidence, None)
}

fn no_iommu(case: &Case<'_>) -> Vec<Finding> {
    if case.spec.devices.is_empty() || !case.host.topology.iommus.is_empty() {
        return Vec::new();
    }
    let evidence = Evidence::new(
        "/sys/class/iommu is empty: the kernel uses no IOMMU",
        "enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on (AMD: on by default)",
    );
    one("cannot assign devices on this host", evidence, None)
}

fn noiommu_mode(case: &Case<'_>) -> Vec<Finding> {
    let Some((path, true)) = &case.host.topology.unsafe_noiommu else {
        return Vec::new();
    };
    let evidence = Evidence::new(
        format!("{} is Y", path.display()),
        format!(
            "write N to {}, and remove it from the kernel's command line and modprobe.d",
            path.display()
        ),
    );
    one(
        "VFIO may be used without an IOMMU on this host",
        evidence,
        None,
    )
}

fn unsafe_interrupts(case: &Case<'_>) -> Vec<Finding> {
    let parameters = case.host.topology.unsafe_interrupts.iter();
    parameters
        .filter(|(_, is_on)| *is_on && !case.spec.devices.is_empty())
        .flat_map(|(path, _)| {
            let evidence = Evidence::new(
                format!(
                    "{} is Y: devices may be attached without interrupt remapping",
                    path.display()
                ),
                format!(
                    "write N to {}; enable interrupt remapping in the firmware",
                    path.display()
                ),
            );
            one(
                "interrupts of devices are not isolated on this host",
                evidence,
                None,
            )
        })
        .collect()
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

fn too_many_devices(case: &Case<'_>) -> Vec<Finding> {
    let count = case.spec.devices.len();
    if count <= MAX_FUNCTIONS {
        return Vec::new();
    }
    let evidence = Evidence::new(
        format!("a guest can have {MAX_FUNCTIONS}, the file asks for {count}"),
        "split the work among several guests",
    );
    let place = case
        .spec
        .devices
        .get(MAX_FUNCTIONS)
        .and_then(|d| d.place.as_ref());
    one("too many devices", evidence, place)
}

fn too_many_vectors(case: &Case<'_>) -> Vec<Finding> {
    let vectors =
        |asked: &super::Asked<'_>| interrupts_of(asked.function, asked.wish.max_vectors).1;
    let total: u32 = case.asked.iter().map(vectors).sum();
    if total <= MAX_TOTAL_VECTORS {
        return Vec::new();
    }
    let evidence = Evidence::new(
        format!("the devices would have {total} vectors together, {MAX_TOTAL_VECTORS} is the most"),
        "lower `max_vectors` of the devices",
    );
    one("too many interrupt vectors", evidence, None)
}

fn too_many_vcpus(case: &Case<'_>) -> Vec<Finding> {
    let vcpus = case.spec.vcpus;
    if usize::try_from(vcpus).is_ok_and(|count| count <= MAX_VCPUS) {
        return Vec::new();
    }
    let evidence = Evidence::new(
        format!("a guest can have {MAX_VCPUS}, the file asks for {vcpus}"),
        "lower `vcpus`",
    );
    one("too many vCPUs", evidence, case.spec.places.vcpus.as_ref())
}

/// More vCPUs than CPUs is slow, not unsafe.
pub(super) fn overcommitted(case: &Case<'_>) -> Option<Report> {
    (case.spec.vcpus > case.host.cpus).then(|| {
        Report::new(
            ErrorId::TooManyVcpus,
            "the guest has more vCPUs than the host has CPUs",
            format!(
                "{} vCPUs, {} CPUs are online",
                case.spec.vcpus, case.host.cpus
            ),
            "lower `vcpus`",
        )
        .at(case.spec.places.vcpus.clone())
    })
}

fn numa_node_absent(case: &Case<'_>) -> Vec<Finding> {
    let nodes = &case.host.nodes;
    let Some(asked) = case
        .spec
        .memory
        .numa_node
        .filter(|id| nodes.iter().all(|n| n.id != *id))
    else {
        return Vec::new();
    };
    let online: Vec<String> = nodes.iter().map(|node| node.id.to_string()).collect();
    let evidence = Evidence::new(
        format!(
            "online in /sys/devices/system/node: {}",
            match online.is_empty() {
                true => "none".to_owned(),
                false => online.join(", "),
            }
        ),
        "name one of those, or remove `numa_node`",
    );
    let what = format!("there is no NUMA node {asked}");
    one(what, evidence, case.spec.places.numa_node.as_ref())
}

fn hugepages_insufficient(case: &Case<'_>) -> Vec<Finding> {
    let memory = case.spec.memory;
    let Some(size) = memory.hugepages else {
        return Vec::new();
    };
    let needed = memory.size.raw().div_ceil(size.len().raw());
    let free = case.host.free_hugepages(size, memory.numa_node);
    if free >= needed {
        return Vec::new();
    }
    let of_node = memory
        .numa_node
        .map(|node| format!(" of node {node}"))
        .unwrap_or_default();
    let kib = size.len().raw() >> 10;
    let folder = match memory.numa_node {
        Some(node) => format!("/sys/devices/system/node/node{node}"),
        None => "/sys/kernel/mm".to_owned(),
    };
    let evidence = Evidence::new(
        format!(
            "it takes {needed} huge pages of {}, {free}{of_node} are free",
            size.len()
        ),
        format!("raise {folder}/hugepages/hugepages-{kib}kB/nr_hugepages, or ask for less memory"),
    );
    one(
        "not enough huge pages for the guest's RAM",
        evidence,
        case.spec.places.hugepages.as_ref(),
    )
}

fn memory_insufficient(case: &Case<'_>) -> Vec<Finding> {
    let memory = case.spec.memory;
    let place = case.spec.places.memory.as_ref();
    let copied = match &case.spec.root {
        Some(root) if root.mode == RootMode::Copy => case.files.root,
        _ => None,
    };
    // Huge pages have left the memory that is available already.
    let ram = if memory.hugepages.is_some() {
        0
    } else {
        memory.size.raw()
    };
    let needed = ram.saturating_add(copied.map_or(0, |len| len.raw()));
    let available = case.host.memory_available;
    if needed > available.raw() {
        let evidence = Evidence::new(
            format!(
                "it takes {} KiB, of which the host has {}",
                needed >> 10,
                available.raw() >> 10
            ),
            "ask for less memory; guest RAM is pinned and never swapped",
        );
        let evidence = match copied {
            Some(len) => evidence.and(format!(
                "{len} of it are the private copy of the root image"
            )),
            None => evidence,
        };
        return one("not enough memory for the guest", evidence, place);
    }
    let node = memory
        .numa_node
        .and_then(|id| case.host.nodes.iter().find(|n| n.id == id));
    match node.filter(|node| memory.size > node.total) {
        Some(node) => {
            let evidence = Evidence::new(
                format!(
                    "NUMA node {} has {}, the guest asks for {}",
                    node.id, node.total, memory.size
                ),
                "ask for less memory, or remove `numa_node`",
            );
            one("not enough memory for the guest", evidence, place)
        }
        None => Vec::new(),
    }
}
