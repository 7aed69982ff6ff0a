//! What other tools say of the devices.

use std::{collections::BTreeMap, fs, path::Path, thread, time::Duration};

use crate::host;

/// What iproute2 says of a VF: the words behind `vf N`.
pub(crate) fn link(index: u32) -> String {
    let text = host::shell(&format!(
        "/usr/bin/ip link show dev {}",
        host::fact("NIC_IF")
    ));
    let start = format!("vf {index} ");
    text.lines()
        .find_map(|line| line.trim().strip_prefix(&start))
        .unwrap_or_else(|| panic!("no vf {index} in:\n{text}"))
        .to_owned()
}

/// What nvme-cli's `verb` says of the primary controller. Its number is another one after some boots: the host has two drives.
pub(crate) fn nvme(verb: &str, words: &str) -> String {
    let node = host::fact("NVME_CTRL");
    host::shell(&format!("nvme {verb} {node} {words}"))
}

/// The host's block device of a namespace that the primary has, once the kernel has found it.
pub(crate) fn block(nsid: u32) -> String {
    let node = host::fact("NVME_CTRL");
    let name = node.trim_start_matches("/dev/");
    let find = format!(
        "for b in /sys/block/{name}n*; do [ \"$(cat $b/nsid)\" = {nsid} ] && basename $b; done; true"
    );
    for _ in 0..200 {
        let found = format!("/dev/{}", host::shell(&find).trim());
        if found != "/dev/" && Path::new(&found).exists() {
            return found;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("the host has not found namespace {nsid} of {node}");
}

/// The ids of all namespaces of the subsystem.
pub(crate) fn namespaces() -> Vec<u32> {
    ids(&nvme("list-ns", "--all"))
}

/// The ids of the controllers that a namespace is attached to.
pub(crate) fn attached(nsid: u32) -> Vec<u32> {
    ids(&nvme("list-ctrl", &format!("-n {nsid}")))
}

/// The numbers behind the colons of nvme-cli's lists: `[   0]:0x1`.
fn ids(text: &str) -> Vec<u32> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix('[')?.split_once("]:"))
        .filter_map(|(_, id)| u32::from_str_radix(id.trim().strip_prefix("0x")?, 16).ok())
        .collect()
}

/// Whether the part of a namespace that guests write to holds zeros, read by the host while nobody has it.
pub(crate) fn is_zero(nsid: u32) -> bool {
    const READ: &str = "bs=64k skip=1 count=16 iflag=direct 2>/dev/null | sha256sum";
    let namespace = format!("-n {nsid} -c 0");
    nvme("attach-ns", &namespace);
    let sum = host::shell(&format!("dd if={} {READ}", block(nsid)));
    let zeros = host::shell("dd if=/dev/zero bs=64k count=16 2>/dev/null | sha256sum");
    nvme("detach-ns", &namespace);
    sum == zeros
}

/// The number of a namespace's format and its size in blocks, as nvme-cli reads them.
pub(crate) fn format(nsid: u32) -> (u64, u64) {
    let text = nvme("id-ns", &format!("-n {nsid} --force -o json"));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |key: &str| {
        json[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no {key}: {text}"))
    };
    (number("flbas") & 0xf, number("nsze"))
}

/// Of each secondary controller with a VF: whether it is online, queues, vectors; by the number of its VF, from 1.
pub(crate) fn secondaries() -> BTreeMap<u32, (bool, u32, u32)> {
    let text = nvme("list-secondary", "-o json");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let list = json
        .as_object()
        .and_then(|object| object.values().find_map(serde_json::Value::as_array))
        .unwrap_or_else(|| panic!("{text}"));
    let number = |entry: &serde_json::Value, key: &str| -> u32 {
        entry[key]
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or_else(|| panic!("no {key} in {entry}"))
    };
    list.iter()
        .map(|entry| {
            let function = number(entry, "virtual-function-number");
            let is_online = number(entry, "secondary-controller-state") == 1;
            let queues = number(entry, "num-virtual-queues");
            let vectors = number(entry, "num-virtual-interrupts");
            (function, (is_online, queues, vectors))
        })
        .filter(|(function, _)| *function != 0)
        .collect()
}

/// Everything of PFs, VFs and controllers that a lease could leave changed, as text.
pub(crate) fn dump() -> String {
    let mut text = String::new();
    for pf in [host::fact("NIC_PF"), host::fact("NVME_PF")] {
        let folder = format!("/sys/bus/pci/devices/{pf}");
        for file in ["sriov_numvfs", "sriov_drivers_autoprobe"] {
            let value = fs::read_to_string(format!("{folder}/{file}")).unwrap();
            text += &format!("{pf} {file} {}\n", value.trim());
        }
        let count: u32 = fs::read_to_string(format!("{folder}/sriov_numvfs"))
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        for index in 0..count {
            let vf = fs::read_link(format!("{folder}/virtfn{index}")).unwrap();
            let vf = vf.file_name().unwrap().to_string_lossy().into_owned();
            text += &format!(
                "{vf} driver {:?} override {:?} bus master {}\n",
                host::driver(&vf),
                host::driver_override(&vf),
                host::is_bus_master(&vf)
            );
        }
        if pf == host::fact("NIC_PF") {
            for index in 0..count {
                text += &format!("vf {index} {}\n", link(index));
            }
        }
    }
    for nsid in namespaces() {
        text += &format!("namespace {nsid} attached to {:?}\n", attached(nsid));
    }
    text += &format!("secondaries {:?}\n", secondaries());
    text
}
