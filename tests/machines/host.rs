//! A made-up host as the kernel would show it, in memory: what the hand-made machines are built from.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use iommu::sysfs::{Entry, Kind, Owner, Tree};
use narrows::host::machine::{Head, Machine, Origin, Provenance};

use crate::config::Config;

/// A host in the making.
pub(crate) struct Host {
    tree: Tree,
    group_type: &'static str,
    /// Reserved regions of every group.
    reserved: Vec<String>,
    groups: BTreeMap<u32, ()>,
    interrupts: Vec<String>,
    /// Vendors and devices that it has.
    ids: BTreeSet<(u16, u16)>,
    /// Folders of VFs by the PF's, in their order.
    vfs: BTreeMap<String, Vec<String>>,
    /// The interface of each PF, by the PF's folder.
    interfaces: BTreeMap<String, String>,
}

/// A function in the making.
pub(crate) struct Function<'a> {
    /// Its bridges from the root bus down, then itself.
    pub(crate) path: Vec<&'a str>,
    pub(crate) ids: (u16, u16, u32),
    pub(crate) config: Config,
    pub(crate) group: u32,
    pub(crate) node: i32,
    pub(crate) driver: Option<&'a str>,
    /// BARs, 64-bit and prefetchable: index, start, length.
    pub(crate) bars: Vec<(usize, u64, u64)>,
    pub(crate) resets: &'a str,
    pub(crate) link: Option<(&'a str, &'a str)>,
    pub(crate) physfn: Option<Vec<&'a str>>,
    pub(crate) sriov: Option<(u32, u32)>,
}

impl Host {
    /// A host of `vendor` with a healthy kernel, processors 0 to `cpus - 1`, and memory of each node in GiB.
    pub(crate) fn new(processor: [&str; 2], phys_bits: u32, cpus: u32, nodes_gib: &[u64]) -> Self {
        let mut host = Self {
            tree: Tree::default(),
            group_type: "DMA",
            reserved: vec!["0x00000000fee00000 0x00000000feefffff msi".to_owned()],
            groups: BTreeMap::new(),
            interrupts: Vec::new(),
            ids: BTreeSet::new(),
            vfs: BTreeMap::new(),
            interfaces: BTreeMap::new(),
        };
        let [vendor, model] = processor;
        host.text(
            "proc/cpuinfo",
            &format!(
                "processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: {model}\n\
                 address sizes\t: {phys_bits} bits physical, 48 bits virtual\n"
            ),
        );
        host.text("sys/devices/system/cpu/online", &format!("0-{}", cpus - 1));
        let total: u64 = nodes_gib.iter().sum();
        let kib = |gib: u64| gib << 20;
        host.text(
            "proc/meminfo",
            &format!(
                "MemTotal:       {} kB\nMemAvailable:   {} kB\n",
                kib(total),
                kib(total) / 10 * 9
            ),
        );
        host.text(
            "sys/devices/system/node/online",
            &match nodes_gib.len() {
                1 => "0".to_owned(),
                count => format!("0-{}", count - 1),
            },
        );
        for (node, gib) in nodes_gib.iter().enumerate() {
            let folder = format!("sys/devices/system/node/node{node}");
            let line = format!("Node {node} MemTotal:       {} kB\n", kib(*gib));
            host.text(&format!("{folder}/meminfo"), &line);
            let pool = format!("{folder}/hugepages/hugepages-1048576kB/free_hugepages");
            host.text(&pool, "16");
        }
        let pool = "sys/kernel/mm/hugepages/hugepages-1048576kB";
        let pages = 16 * nodes_gib.len();
        host.text(&format!("{pool}/free_hugepages"), &pages.to_string());
        host.text(&format!("{pool}/resv_hugepages"), "0");
        for (path, text) in KERNEL {
            host.text(path, text);
        }
        for (path, mode) in [
            ("dev/kvm", 0o660),
            ("dev/iommu", 0o600),
            ("dev/vfio/vfio", 0o666),
        ] {
            let owner = Owner {
                mode,
                uid: 0,
                gid: 0,
            };
            host.add(path, Kind::Unread, Some(owner));
        }
        host
    }

    fn add(&mut self, path: &str, kind: Kind, owner: Option<Owner>) {
        let entry = Entry { kind, owner };
        if let Err(error) = self.tree.insert(Path::new(path), entry) {
            panic!("{path} {error}");
        }
    }

    /// Sets a text file.
    pub(crate) fn text(&mut self, path: &str, text: &str) {
        let line_end = if text.ends_with('\n') { "" } else { "\n" };
        let bytes = format!("{text}{line_end}").into_bytes();
        self.add(path, Kind::File(bytes), None);
    }

    /// Links one place below `/sys` to another, as the kernel does: relative, by the shortest way.
    fn link(&mut self, from: &str, to: &str) {
        let common = Path::new(from)
            .components()
            .zip(Path::new(to).components())
            .take_while(|(a, b)| a == b)
            .count();
        let ups = Path::new(from).components().count() - common - 1;
        let rest: PathBuf = Path::new(to).components().skip(common).collect();
        let target = format!("{}{}", "../".repeat(ups), rest.display());
        self.add(from, Kind::Link(target.into()), None);
    }

    /// VT-d units, and the head of the table that tells of them.
    pub(crate) fn intel(&mut self, units: u32) {
        for unit in 0..units {
            let folder = format!("sys/devices/virtual/iommu/dmar{unit}");
            self.text(&format!("{folder}/intel-iommu/cap"), "8d2078c106f0466");
            self.text(&format!("{folder}/intel-iommu/ecap"), "f020df");
            self.link(&format!("sys/class/iommu/dmar{unit}"), &folder);
        }
        // 46 bits of address; interrupts are remapped; the platform wants DMA fenced from power-on.
        self.table("DMAR", &[45, 0x05]);
    }

    /// AMD-Vi units at these functions, and the head of the table that tells of them.
    pub(crate) fn amd(&mut self, units: &[&str]) {
        for (index, bdf) in units.iter().enumerate() {
            let bus = bdf.get(..7).unwrap();
            let folder = format!("sys/devices/pci{bus}/{bdf}/iommu/ivhd{index}");
            self.text(&format!("{folder}/amd-iommu/cap"), "190b640f");
            self.text(
                &format!("{folder}/amd-iommu/features"),
                "246577efa2254afa:0",
            );
            self.link(&format!("sys/class/iommu/ivhd{index}"), &folder);
        }
        // Features in the table; DMA is remapped before the kernel runs; 48 bits of address.
        self.table("IVRS", &[0x43, 0x30, 0x20, 0x00]);
        self.reserved
            .push("0x000000fd00000000 0x000000ffffffffff reserved".to_owned());
    }

    fn table(&mut self, name: &str, fields: &[u8]) {
        let mut bytes = name.as_bytes().to_vec();
        bytes.extend(0x120_u32.to_le_bytes());
        bytes.resize(36, 0);
        bytes.extend(fields);
        bytes.resize(48, 0);
        let path = format!("sys/firmware/acpi/tables/{name}");
        self.add(&path, Kind::File(bytes), None);
    }

    /// The type of the domain that every group has.
    pub(crate) fn group_type(&mut self, group_type: &'static str) {
        self.group_type = group_type;
    }

    /// Lines of `/proc/interrupts`, without numbers and counts.
    pub(crate) fn interrupts(&mut self, lines: &[&str]) {
        self.interrupts
            .extend(lines.iter().map(|line| (*line).to_owned()));
    }

    fn place(path: &[&str]) -> String {
        let bus = path.first().and_then(|top| top.get(..7)).unwrap();
        format!("sys/devices/pci{bus}/{}", path.join("/"))
    }

    /// Adds a function, and its group where it is the first in it.
    pub(crate) fn function(&mut self, function: &Function<'_>) {
        let bdf = *function.path.last().unwrap();
        let folder = Self::place(&function.path);
        self.link(&format!("sys/bus/pci/devices/{bdf}"), &folder);
        let mut config = function.config.clone();
        for (index, start, _) in &function.bars {
            if function.physfn.is_none() {
                config.bar(*index, *start);
            }
        }
        let (vendor, device, class) = function.ids;
        self.ids.insert((vendor, device));
        let file = |name: &str| format!("{folder}/{name}");
        self.add(&file("config"), Kind::File(config.bytes().to_vec()), None);
        for (name, text) in [
            ("vendor", format!("{vendor:#06x}")),
            ("device", format!("{device:#06x}")),
            ("class", format!("{class:#08x}")),
            ("numa_node", function.node.to_string()),
            ("driver_override", "(null)".to_owned()),
            ("resource", resource(&function.bars)),
        ] {
            self.text(&file(name), &text);
        }
        if !function.resets.is_empty() {
            self.text(&file("reset_method"), function.resets);
        }
        if let Some((speed, width)) = function.link {
            self.text(&file("current_link_speed"), speed);
            self.text(&file("current_link_width"), width);
            for (kind, total) in [
                ("correctable", "COR"),
                ("nonfatal", "NONFATAL"),
                ("fatal", "FATAL"),
            ] {
                let text = format!("TOTAL_ERR_{total} 0");
                self.text(&file(&format!("aer_dev_{kind}")), &text);
            }
        }
        if let Some((total, enabled)) = function.sriov {
            self.text(&file("sriov_totalvfs"), &total.to_string());
            self.text(&file("sriov_numvfs"), &enabled.to_string());
            self.text(&file("sriov_drivers_autoprobe"), "0");
        }
        if let Some(driver) = function.driver {
            let driver = format!("sys/bus/pci/drivers/{driver}");
            self.link(&file("driver"), &driver);
            self.add(&driver, Kind::Folder, None);
        }
        if let Some(pf) = &function.physfn {
            let pf = Self::place(pf);
            self.link(&file("physfn"), &pf);
            self.vfs.entry(pf).or_default().push(folder.clone());
        }
        self.join_group(function.group, bdf, &folder);
    }

    /// A network interface of a function.
    pub(crate) fn interface(&mut self, path: &[&str], name: &str) {
        let folder = Self::place(path);
        self.add(&format!("{folder}/net/{name}"), Kind::Folder, None);
        self.interfaces.insert(folder, name.to_owned());
    }

    /// Links PFs to their VFs, and has each interface tell what it enforces on them: what a host does that takes care.
    fn policies(&mut self) {
        let vfs = std::mem::take(&mut self.vfs);
        let mut tables = BTreeMap::new();
        for (pf, vfs) in &vfs {
            for (index, vf) in vfs.iter().enumerate() {
                self.link(&format!("{pf}/virtfn{index}"), vf);
            }
            if let Some(interface) = self.interfaces.get(pf) {
                let bdf = pf.rsplit('/').next().unwrap();
                tables.insert(interface.clone(), (bdf, vfs.len()));
            }
        }
        // Addresses as in a capture: numbered as they come.
        let mut number = 0_u32;
        for (interface, (bdf, count)) in tables {
            let mut text = format!("parent {bdf}\n");
            for index in 0..count {
                number += 1;
                let [_, _, a, b] = number.to_be_bytes();
                text.push_str(&format!(
                    "vf {index} mac 00:00:00:00:{a:02x}:{b:02x} vlan 0 qos 0 spoofchk on trust off{} link auto min_tx 0 \
                     max_tx 0\n",
                    // The one driver that has this switch.
                    if self.has_driver("ixgbe") { " query_rss off" } else { "" },
                ));
            }
            self.text(&format!("narrows/vf-info/{interface}"), &text);
        }
    }

    fn has_driver(&self, driver: &str) -> bool {
        let folder = format!("sys/bus/pci/drivers/{driver}");
        self.tree
            .entries()
            .any(|(path, _)| path == Path::new(&folder))
    }

    /// An NVMe controller of a function.
    pub(crate) fn controller(&mut self, path: &[&str], name: &str) {
        self.add(
            &format!("{}/nvme/{name}", Self::place(path)),
            Kind::Folder,
            None,
        );
    }

    fn join_group(&mut self, group: u32, bdf: &str, folder: &str) {
        let place = format!("sys/kernel/iommu_groups/{group}");
        self.link(&format!("{folder}/iommu_group"), &place);
        self.link(&format!("{place}/devices/{bdf}"), folder);
        if self.groups.insert(group, ()).is_none() {
            self.text(&format!("{place}/type"), self.group_type);
            self.text(
                &format!("{place}/reserved_regions"),
                &self.reserved.join("\n"),
            );
        }
    }

    /// The machine, written by hand from `documents`.
    pub(crate) fn machine(mut self, name: &str, title: &str, documents: &[&str]) -> Machine {
        let lines: Vec<String> = self
            .interrupts
            .iter()
            .enumerate()
            .map(|(index, line)| format!("{:4}: {line}\n", 24 + index))
            .collect();
        self.text("proc/interrupts", &lines.concat());
        self.policies();
        self.text("usr/share/misc/pci.ids", &names(&self.ids));
        let mut notes = vec![
            "Written by hand: no such hardware was looked at, and Narrows never ran on any."
                .to_owned(),
        ];
        notes.extend(documents.iter().map(|text| (*text).to_owned()));
        Machine {
            head: Head {
                name: name.to_owned(),
                title: title.to_owned(),
                origin: Origin::WrittenByHand,
                provenance: Provenance {
                    by: "tests/machines/made.rs, from documents".to_owned(),
                    kernel: "6.12.60".to_owned(),
                    notes,
                    ..Provenance::default()
                },
            },
            tree: self.tree,
        }
    }
}

/// The lines of `pci.ids` for these.
fn names(ids: &BTreeSet<(u16, u16)>) -> String {
    let mut text = String::new();
    for (vendor, device, name) in NAMES {
        let is_there = match device {
            Some(device) => ids.contains(&(*vendor, *device)),
            None => ids.iter().any(|(there, _)| there == vendor),
        };
        if is_there {
            text.push_str(&match device {
                Some(device) => format!("\t{device:04x}  {name}\n"),
                None => format!("{vendor:04x}  {name}\n"),
            });
        }
    }
    text
}

/// Makers, and what they call their devices.
const NAMES: &[(u16, Option<u16>, &str)] = &[
    (0x1022, None, "Advanced Micro Devices, Inc. [AMD]"),
    (0x1022, Some(0x1483), "Starship/Matisse GPP Bridge"),
    (0x10b5, None, "PLX Technology, Inc."),
    (
        0x10b5,
        Some(0x8747),
        "PEX 8747 48-Lane, 5-Port PCI Express Gen 3 (8.0 GT/s) Switch",
    ),
    (0x144d, None, "Samsung Electronics Co Ltd"),
    (0x144d, Some(0xa824), "NVMe SSD Controller PM173X"),
    (0x15b3, None, "Mellanox Technologies"),
    (0x15b3, Some(0x101b), "MT28908 Family [ConnectX-6]"),
    (
        0x15b3,
        Some(0x101c),
        "MT28908 Family [ConnectX-6 Virtual Function]",
    ),
    (0x8086, None, "Intel Corporation"),
    (
        0x8086,
        Some(0x10ed),
        "82599 Ethernet Controller Virtual Function",
    ),
    (
        0x8086,
        Some(0x10fb),
        "82599ES 10-Gigabit SFI/SFP+ Network Connection",
    ),
    (
        0x8086,
        Some(0x1515),
        "X540 Ethernet Controller Virtual Function",
    ),
    (
        0x8086,
        Some(0x1520),
        "I350 Ethernet Controller Virtual Function",
    ),
    (0x8086, Some(0x1521), "I350 Gigabit Network Connection"),
    (
        0x8086,
        Some(0x1528),
        "Ethernet Controller 10-Gigabit X540-AT2",
    ),
    (0x8086, Some(0x154c), "Ethernet Virtual Function 700 Series"),
    (
        0x8086,
        Some(0x1572),
        "Ethernet Controller X710 for 10GbE SFP+",
    ),
];

/// The file `resource` up to the last BAR.
fn resource(bars: &[(usize, u64, u64)]) -> String {
    let zero = format!("{:#018x} {:#018x} {:#018x}", 0, 0, 0);
    let mut lines = vec![zero.clone(); 6];
    for (index, start, len) in bars {
        lines[*index] = format!(
            "{start:#018x} {:#018x} {:#018x}",
            start + len - 1,
            0x14_220c
        );
    }
    while lines.len() > 1 && lines.last() == Some(&zero) {
        lines.pop();
    }
    lines.join("\n")
}

/// A kernel that is set up well.
const KERNEL: &[(&str, &str)] = &[
    ("proc/sys/kernel/osrelease", "6.12.60"),
    ("proc/sys/kernel/tainted", "0"),
    ("proc/sys/kernel/kptr_restrict", "2"),
    ("proc/sys/kernel/dmesg_restrict", "1"),
    ("proc/sys/kernel/perf_event_paranoid", "3"),
    ("proc/sys/kernel/unprivileged_bpf_disabled", "2"),
    ("proc/sys/kernel/kexec_load_disabled", "1"),
    ("proc/sys/kernel/yama/ptrace_scope", "2"),
    ("proc/sys/kernel/io_uring_disabled", "2"),
    ("proc/sys/kernel/core_pattern", "|/bin/false"),
    ("proc/sys/kernel/randomize_va_space", "2"),
    ("proc/sys/vm/unprivileged_userfaultfd", "0"),
    ("proc/sys/fs/suid_dumpable", "0"),
    ("proc/swaps", "Filename\tType\tSize\tUsed\tPriority"),
    (
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n\
         Max locked memory         unlimited            unlimited            bytes     ",
    ),
    (
        "sys/kernel/security/lockdown",
        "none [integrity] confidentiality",
    ),
    ("sys/kernel/mm/ksm/run", "0"),
    ("sys/devices/system/cpu/smt/control", "off"),
    (
        "sys/devices/system/cpu/vulnerabilities/meltdown",
        "Not affected",
    ),
    (
        "sys/devices/system/cpu/vulnerabilities/spectre_v2",
        "Mitigation: Enhanced / Automatic IBRS; IBPB: conditional",
    ),
    ("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N"),
    (
        "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
        "N",
    ),
    ("sys/module/iommufd/parameters/allow_unsafe_interrupts", "N"),
    (
        "boot/config-6.12.60",
        "CONFIG_IOMMUFD=y\nCONFIG_VFIO_DEVICE_CDEV=y\nCONFIG_VFIO_GROUP=y\n# CONFIG_VFIO_NOIOMMU is not set\n\
         # CONFIG_IOMMU_DEFAULT_PASSTHROUGH is not set\n# CONFIG_IOMMU_DEBUGFS is not set\nCONFIG_IRQ_REMAP=y\n\
         CONFIG_INIT_ON_ALLOC_DEFAULT_ON=y\nCONFIG_INIT_ON_FREE_DEFAULT_ON=y\nCONFIG_PCIEAER=y\n",
    ),
];
