use std::{fs, path::PathBuf, process, time::Instant};

use iommu::{fake::FakeHost, sysfs::SysRoot};

use super::read;
use crate::{
    spec::host::{Eswitch, Mbps},
    sriov::{Anchor, Observed, Used},
};

/// A folder for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("narrows-sriov-{name}-{}", process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

const NIC: &str = "0000:01:00.0";
const NVME: &str = "0000:02:00.0";

fn host(folder: &Folder) -> FakeHost {
    FakeHost::new(&folder.0)
        .pf(NIC, 12)
        .interface("eth0")
        .vf("0000:01:10.0", NIC, 13)
        .vf_policy("mac 52:54:00:00:01:00 vlan 101 qos 3 max_tx 500")
        .vf("0000:01:10.2", NIC, 14)
        .driver("igbvf")
        .interface("eth0v1")
        .nvme_pf(NVME, 15, "nvme0")
        .subsystem("nvme0", 4, &[(1, 1 << 30, &[0]), (2, 64 << 20, &[])])
        .nvme_vf("0000:02:00.1", NVME, 16)
        .block_device("nvme0", 1, "nvme0n3")
}

fn whos(uses: &[crate::sriov::Use]) -> Vec<String> {
    uses.iter()
        .map(|one| match &one.of {
            Used::Interface(name) => format!("{name}: {}", one.who),
            Used::Namespace { controller, nsid } => format!("{controller}/{nsid}: {}", one.who),
            Used::Controller(name) => format!("{name}: {}", one.who),
        })
        .collect()
}

#[test]
fn machine_is_read_whole() {
    let folder = Folder::new("whole");
    let root = host(&folder).write().unwrap();
    let observed = read(&root).unwrap();
    assert_eq!(observed.unread, []);
    assert_eq!(observed.pfs.len(), 2);
    let nic = &observed.pfs[&NIC.parse().unwrap()];
    assert_eq!((nic.total, nic.count, nic.is_probed), (7, 2, Some(false)));
    assert_eq!((nic.vendor, nic.device), (0x8086, 0x10c9));
    assert_eq!(nic.root, "pci0000:01");
    assert!(matches!(nic.anchor, Anchor::Mac(_)));
    let facts = nic.nic().unwrap();
    assert_eq!(facts.interface.as_deref(), Some("eth0"));
    assert!(facts.is_up && facts.has_carrier);
    assert_eq!(facts.link, Some(Mbps(10_000)));
    assert_eq!(facts.eswitch, None);
    let [first, second] = nic.vfs.as_slice() else {
        panic!("{:?}", nic.vfs);
    };
    let attributes = first.nic.unwrap();
    assert_eq!(attributes.vlan.unwrap().id, 101);
    assert_eq!(attributes.vlan.unwrap().qos, 3);
    assert_eq!(attributes.max_tx, Some(Mbps(500)));
    assert_eq!((first.group, first.group_size), (Some(13), 1));
    assert_eq!(first.driver, None);
    assert_eq!(second.driver.as_deref(), Some("igbvf"));
    assert_eq!(second.interfaces, ["eth0v1"]);
    let nvme = observed.pfs[&NVME.parse().unwrap()].nvme().unwrap();
    assert_eq!(nvme.serial, "fake-nvme0");
    assert_eq!(nvme.secondaries.len(), 4);
    assert_eq!(nvme.namespaces[&1].block_device.as_deref(), Some("nvme0n3"));
    assert_eq!(nvme.namespaces[&2].block_device, None);
    // The VF's address is not one that other VFs must leave alone: it is theirs.
    assert_eq!(observed.macs.len(), 1);
}

#[test]
fn a_plan_file_can_hold_what_was_read() {
    let folder = Folder::new("json");
    let root = host(&folder).write().unwrap();
    let observed = read(&root).unwrap();
    let text = serde_json::to_string(&observed).unwrap();
    assert_eq!(serde_json::from_str::<Observed>(&text).unwrap(), observed);
}

#[test]
fn what_the_host_uses_is_named() {
    let folder = Folder::new("uses");
    let root = host(&folder)
        .default_route("eth0", "10.9.0.254")
        .route("eth0v1", "10.8.0.0", "0.0.0.0", 24)
        .address("eth0", "10.9.0.1/24")
        .mount("nvme0n3", "/srv")
        .file(
            "proc/swaps",
            "Filename\tType\tSize\tUsed\tPriority\n/dev/nvme0n3 partition 1 0 -2",
        )
        .file("proc/self/stat", "812 (narrows) S 700 812")
        .file("proc/self/environ", "TERM=x")
        .file("proc/700/stat", "700 (bash) S 1 700")
        .file(
            "proc/700/environ",
            "A=b\0SSH_CONNECTION=10.9.0.7 40000 10.9.0.1 22\0",
        )
        .write()
        .unwrap();
    // Process 700 has the namespace's other node open.
    let open = folder.0.join("proc/700/fd/3");
    fs::create_dir_all(open.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/ng0n3", open).unwrap();
    let observed = read(&root).unwrap();
    assert_eq!(observed.unread, []);
    let uses = &observed.uses;
    assert_eq!(
        whos(&uses.default_routes),
        ["eth0: the default route by 10.9.0.254"]
    );
    assert_eq!(whos(&uses.routes), ["eth0v1: the route to 10.8.0.0/24"]);
    assert_eq!(whos(&uses.addresses), ["eth0: address 10.9.0.1/24"]);
    assert_eq!(whos(&uses.logins), ["eth0: the login from 10.9.0.7"]);
    assert_eq!(whos(&uses.mounts), ["nvme0/1: mounted at /srv"]);
    assert_eq!(whos(&uses.roots), ["nvme0/1: swap on /dev/nvme0n3"]);
    assert_eq!(
        whos(&uses.open),
        ["nvme0/1: process 700 () has /dev/ng0n3 open"]
    );
}

#[test]
fn ports_below_a_bond_carry_its_route_and_its_login() {
    let folder = Folder::new("bond");
    let root = host(&folder)
        .default_route("bond0", "10.9.0.254")
        .write()
        .unwrap();
    for (below, above) in [("bond0", "lower_eth0"), ("eth0", "upper_bond0")] {
        let place = folder.0.join("sys/class/net").join(below).join(above);
        fs::create_dir_all(place).unwrap();
    }
    let observed = read(&root).unwrap();
    assert_eq!(
        whos(&observed.uses.default_routes),
        ["eth0: the default route by 10.9.0.254, as part of bond0"]
    );
    assert_eq!(whos(&observed.uses.uppers), ["eth0: part of bond0"]);
}

#[test]
fn partitions_and_what_is_built_on_them_count_as_the_namespace() {
    let folder = Folder::new("stack");
    let root = host(&folder)
        .file("sys/class/block/dm-0/dev", "253:0")
        .file(
            "proc/self/mountinfo",
            "2 1 253:0 / / rw - ext4 /dev/mapper/root rw\n3 1 0:40 / /tank rw - zfs tank rw",
        )
        .write()
        .unwrap();
    let device = folder.0.join("sys/class/block/nvme0n3");
    fs::create_dir_all(device.join("nvme0n3p1/holders/dm-0")).unwrap();
    fs::write(device.join("nvme0n3p1/partition"), "1\n").unwrap();
    let part = folder.0.join("sys/class/block/nvme0n3p1");
    std::os::unix::fs::symlink("nvme0n3/nvme0n3p1", part).unwrap();
    // The file of mounts is written before that of the made-up host.
    let observed = read(&root).unwrap();
    assert_eq!(whos(&observed.uses.roots), ["nvme0/1: mounted at /"]);
    assert_eq!(
        whos(&observed.uses.open),
        ["nvme0/1: dm-0 is built on nvme0n3p1"]
    );
    assert_eq!(whos(&observed.uses.mounts), ["nvme0: mounted at /tank"]);
}

#[test]
fn what_cannot_be_read_is_told() {
    let folder = Folder::new("unread");
    let root = host(&folder).write().unwrap();
    for (place, instead) in [
        ("narrows/nvme/nvme0", "serial x\nwhat is this\n"),
        (
            "narrows/vf-info/eth0",
            "parent 0000:01:00.0\nvf 0 mac none\n",
        ),
        ("narrows/addresses", "not an address\n"),
    ] {
        fs::write(folder.0.join(place), instead).unwrap();
    }
    fs::remove_file(folder.0.join("proc/net/route")).unwrap();
    let observed = read(&root).unwrap();
    let told: Vec<String> = observed
        .unread
        .iter()
        .map(|one| format!("{} {:?}", one.place.rsplit('/').next().unwrap(), one.bdf))
        .collect();
    assert_eq!(
        told,
        [
            format!("IFLA_VFINFO_LIST Some({NIC})"),
            format!("nvme0 Some({NVME})"),
            "addresses None".to_owned(),
            "route None".to_owned(),
        ],
        "{:#?}",
        observed.unread
    );
    // A controller that is not understood is none, so that nothing is planned for it.
    assert!(observed.pfs[&NVME.parse().unwrap()].nvme().is_none());
}

#[test]
fn vfs_without_their_links_are_told() {
    let folder = Folder::new("links");
    let root = host(&folder).write().unwrap();
    let device = folder.0.join("sys/bus/pci/devices").join(NIC);
    fs::remove_file(device.join("virtfn1")).unwrap();
    let observed = read(&root).unwrap();
    assert_eq!(observed.pfs[&NIC.parse().unwrap()].vfs.len(), 1);
    assert!(observed.unread[0].reason.contains("no such link"));
}

#[test]
fn mode_of_the_switch_is_read() {
    let folder = Folder::new("eswitch");
    let root = host(&folder)
        .file(&format!("narrows/eswitch/{NIC}"), "switchdev")
        .file(
            "etc/NetworkManager/system-connections/x.nmconnection",
            "[connection]\ninterface-name=eth0\n[sriov]\ntotal-vfs=4",
        )
        .write()
        .unwrap();
    let observed = read(&root).unwrap();
    let nic = observed.pfs[&NIC.parse().unwrap()].nic().unwrap();
    assert_eq!(nic.eswitch, Some(Eswitch::Switchdev));
    let [managed] = observed.managers.as_slice() else {
        panic!("{:?}", observed.managers);
    };
    assert_eq!(
        (managed.bdf.to_string().as_str(), managed.count),
        (NIC, Some(4))
    );
}

#[test]
fn files_of_systemd_count_in_each_of_its_folders() {
    for (number, place) in [
        "etc/systemd/network/10-nic.link",
        "run/systemd/network/10-netplan-eth0.link",
        "usr/local/lib/systemd/network/10-nic.link",
        "usr/lib/systemd/network/10-nic.link",
    ]
    .into_iter()
    .enumerate()
    {
        let folder = Folder::new(&format!("systemd-{number}"));
        let link = "[Match]\nOriginalName=eth0\n[Link]\nSR-IOVVirtualFunctions=3\n";
        let network = "[Match]\nName=eth0\n[SR-IOV]\nVirtualFunction=0\nVLANId=5\n";
        let other = place.replace(".link", ".network");
        let root = host(&folder).file(place, link).file(&other, network);
        let observed = read(&root.write().unwrap()).unwrap();
        let mut found: Vec<_> = observed
            .managers
            .iter()
            .map(|its| (its.manager.as_str(), its.source.clone(), its.count))
            .collect();
        found.sort();
        let expected = [
            ("systemd", format!("/{place}"), Some(3)),
            ("systemd", format!("/{other}"), None),
        ];
        assert_eq!(found, expected);
    }
}

#[test]
fn a_captured_machine_reads_as_the_folder_it_was_made_of() {
    let folder = Folder::new("captured");
    host(&folder)
        .default_route("eth0", "10.9.0.254")
        .write()
        .unwrap();
    let recording = SysRoot::recording(&folder.0);
    let direct = read(&recording).unwrap();
    let tree = recording.recorded().unwrap();
    assert_eq!(read(&SysRoot::captured("m", tree)).unwrap(), direct);
}

/// Claim: one more VF costs four questions: its IOMMU group, its PF's link to it, its driver, and what is to bind it, or
/// with a driver of the host's its interfaces. What its PF tells of it is read with the others.
#[test]
fn each_vf_costs_four_questions() {
    let asked = |name: &str, count: u32, driver: Option<&str>| {
        let folder = Folder::new(name);
        let mut host = FakeHost::new(&folder.0)
            .pf(NIC, 12)
            .total_vfs(128)
            .interface("eth0");
        for number in 0..count {
            let at = 0x80 + number;
            let bdf = format!("0000:01:{:02x}.{}", at >> 3, at & 7);
            host = host.vf(&bdf, NIC, 20 + number);
            if let Some(driver) = driver {
                host = host.driver(driver);
            }
        }
        host.write().unwrap();
        let root = SysRoot::recording(&folder.0);
        let observed = read(&root).unwrap();
        assert_eq!(observed.unread, []);
        root.questions().unwrap()
    };
    for (name, driver) in [
        ("unbound", None),
        ("lent", Some("vfio-pci")),
        ("hosts", Some("igbvf")),
    ] {
        let (few, many) = (asked(name, 8, driver), asked(name, 72, driver));
        assert_eq!(many - few, 4 * 64, "{name}");
    }
}

/// The limit is generous: a test build is slow. `tests/bench_verbs.rs` has the figures.
#[test]
fn two_thousand_vfs_are_read_at_once() {
    let folder = Folder::new("many");
    let mut host = FakeHost::new(&folder.0);
    for number in 0..16_u32 {
        let pf = format!("0000:{:02x}:00.0", 1 + 2 * number);
        host = host
            .pf(&pf, 1000 * (number + 1))
            .total_vfs(128)
            .interface(&format!("eth{number}"))
            .vfs_of(&pf, 128, 1000 * (number + 1) + 1);
    }
    let root = host.write().unwrap();
    let began = Instant::now();
    let observed = read(&root).unwrap();
    let took = began.elapsed();
    assert_eq!(observed.unread, []);
    let vfs: usize = observed.pfs.values().map(|pf| pf.vfs.len()).sum();
    assert_eq!(vfs, 2048);
    assert!(took.as_millis() < 2000, "{took:?}");
}
