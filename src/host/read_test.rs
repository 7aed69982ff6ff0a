use std::{fs, path::PathBuf, process};

use iommu::{addr::ByteLen, fake::FakeHost};

use super::{Anew, Inventory, Node, read::parse_list};
use crate::spec::HugepageSize;

/// A folder for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("narrows-host-{name}-{}", process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn host(folder: &Folder) -> FakeHost {
    FakeHost::new(&folder.0)
        .file(
            "proc/cpuinfo",
            "processor\t: 0\naddress sizes\t: 46 bits physical, 48 bits virtual\n",
        )
        .file(
            "proc/meminfo",
            "MemTotal: 9 kB\nMemAvailable:    1048576 kB\n",
        )
        .file("sys/devices/system/cpu/online", "0-3,6\n")
        .file("dev/kvm", "")
}

#[test]
fn an_inventory_is_read_from_any_root() {
    let folder = Folder::new("any");
    let root = host(&folder)
        .file("sys/devices/system/node/online", "0-1\n")
        .file(
            "sys/devices/system/node/node0/meminfo",
            "Node 0 MemTotal:  2048 kB\n",
        )
        .file(
            "sys/devices/system/node/node1/meminfo",
            "Node 1 MemTotal:  4096 kB\n",
        )
        .file(
            "sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages",
            "7\n",
        )
        .file(
            "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
            "10\n",
        )
        .file(
            "sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages",
            "4\n",
        )
        .write()
        .unwrap();
    let host = Inventory::read(&root).unwrap();
    assert_eq!(
        (host.cpus, host.phys_bits, host.topology.host.has_kvm),
        (5, 46, true)
    );
    assert_eq!(host.memory_available, ByteLen::new(1 << 30));
    let node = |id, kib: u64| Node {
        id,
        total: ByteLen::new(kib << 10),
    };
    assert_eq!(host.nodes, [node(0, 2048), node(1, 4096)]);
    assert_eq!(host.free_hugepages(HugepageSize::TwoMib, None), 6);
    assert_eq!(host.free_hugepages(HugepageSize::TwoMib, Some(1)), 7);
    assert_eq!(host.free_hugepages(HugepageSize::OneGib, None), 0);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = Folder::new("missing");
    let root = host(&folder)
        .file("proc/cpuinfo", "processor: 0\n")
        .write()
        .unwrap();
    let report = Inventory::read(&root).unwrap_err();
    assert_eq!(report.id.name(), "host-unreadable");
    assert!(report.why[0].contains("address sizes"));

    let report = Inventory::read(&iommu::sysfs::SysRoot::new("/nowhere")).unwrap_err();
    assert!(report.why[0].contains("/nowhere"), "{report}");
}

#[test]
fn lists_of_numbers_are_parsed() {
    assert_eq!(parse_list("0-2,5"), Some(vec![0, 1, 2, 5]));
    assert_eq!(parse_list(""), Some(vec![]));
    for bad in ["x", "3-1", "0-4294967295", "1-"] {
        assert_eq!(parse_list(bad), None, "{bad}");
    }
}

#[test]
fn memory_is_read_again_only_before_any_is_taken_for_the_guest() {
    let folder = Folder::new("again");
    let root = host(&folder).write().unwrap();
    let before = Inventory::read_to_plan(&root).unwrap();
    let less = "MemAvailable:    1024 kB\n";
    fs::write(root.path("proc/meminfo"), less).unwrap();
    fs::write(root.path("dev/iommu"), "").unwrap();
    for (anew, available) in [(Anew::DevicesAndMemory, 1 << 20), (Anew::Devices, 1 << 30)] {
        let again = before.read_again(&root, &[], anew).unwrap();
        assert_eq!(again.memory_available, ByteLen::new(available), "{anew:?}");
        assert!(again.topology.has_iommufd, "{anew:?}");
        let kept = |host: &Inventory| (host.cpus, host.phys_bits, host.layers.clone());
        assert_eq!(kept(&again), kept(&before));
    }
}
