//! Checks of how much the guest asks for: devices, vectors, vCPUs, memory.

use jailed::handoff::{MAX_FUNCTIONS, MAX_VCPUS};

use super::{Asked, Case, Evidence, Finding, GuestCheck, guest::one};
use crate::{
    error::{ErrorId, Report},
    plan::assemble::interrupts_of,
    spec::RootMode,
};

/// The most vectors of all functions together: each takes two eventfds in D and a GSI in KVM.
const MAX_TOTAL_VECTORS: u32 = 1024;

/// The rows, in the order in which an operator reads the refusals.
pub(super) const CHECKS: &[GuestCheck] = &[
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
    let vectors = |asked: &Asked<'_>| interrupts_of(asked.function, asked.wish.max_vectors).1;
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
