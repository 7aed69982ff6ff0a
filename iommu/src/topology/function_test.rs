use std::{fs, os::unix::fs::symlink};

use super::*;
use crate::{
    fake::FakeHost,
    topology::{Acs, ErrorCounts, Link, PortType, Sriov, Topology},
};

const PORT: &str = "0000:00:1c.0";
const SWITCH: &str = "0000:01:00.0";
const DOWNSTREAM: &str = "0000:02:03.0";
const PF: &str = "0000:03:00.0";
const VF: &str = "0000:03:10.0";

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

/// A PF with a VF behind a switch.
fn host() -> FakeHost {
    FakeHost::new("")
        .bridge(PORT, 1)
        .bridge(SWITCH, 2)
        .express(5)
        .no_acs()
        .under(PORT)
        .bridge(DOWNSTREAM, 3)
        .express(6)
        .under(SWITCH)
        .pf(PF, 12)
        .under(DOWNSTREAM)
        .vf(VF, PF, 13)
}

fn read_topology(host: &FakeHost) -> Result<Topology> {
    let folder = tempfile::tempdir().unwrap();
    Topology::read(&host.clone().at(folder.path()).write().unwrap())
}

fn function(host: &FakeHost, name: &str) -> Function {
    read_topology(host).unwrap().functions[&bdf(name)].clone()
}

#[test]
fn the_bridges_above_a_function_are_its_path() {
    let topology = read_topology(&host()).unwrap();
    let path = |name| -> Vec<String> {
        let above = topology.path_above(bdf(name));
        above.map(|bridge| bridge.bdf.to_string()).collect()
    };
    assert_eq!(path(PF), [DOWNSTREAM, SWITCH, PORT]);
    assert_eq!(path(VF), [DOWNSTREAM, SWITCH, PORT]);
    assert!(path(PORT).is_empty());
}

#[test]
fn a_place_that_says_nothing_of_bridges_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = host().at(folder.path()).write().unwrap();
    let link = root.path("sys/bus/pci/devices").join(VF);
    fs::remove_file(&link).unwrap();
    fs::create_dir_all(root.path("sys/devices/odd")).unwrap();
    let target = root.read_link(format!("sys/bus/pci/devices/{PF}"));
    let place = link.parent().unwrap().join(target.unwrap().unwrap());
    symlink(place, root.path("sys/devices/odd").join(VF)).unwrap();
    symlink(format!("../../../devices/odd/{VF}"), &link).unwrap();
    let error = Topology::read(&root).unwrap_err();
    assert_eq!(error.id(), "sysfs-malformed");
    assert!(error.to_string().contains("devices/odd"), "{error}");
}

#[test]
fn ports_show_their_registers() {
    let topology = read_topology(&host()).unwrap();
    let config = |name| &topology.functions[&bdf(name)].config;
    let acs = |name| match &config(name).extended {
        Extended::Known(caps) => caps.acs,
        Extended::Unknown { reason } => panic!("{reason}"),
    };
    let port = |name| config(name).express.unwrap().port;
    let buses = |name| {
        let bridge = config(name).bridge.unwrap();
        (bridge.secondary, bridge.subordinate)
    };
    let all = Acs {
        capability: 0x5f,
        control: 0x1d,
    };
    assert_eq!((port(PORT), buses(PORT)), (PortType::RootPort, (1, 3)));
    assert_eq!(
        (port(SWITCH), buses(SWITCH)),
        (PortType::SwitchUpstream, (2, 3))
    );
    assert_eq!(
        (port(DOWNSTREAM), buses(DOWNSTREAM)),
        (PortType::SwitchDownstream, (3, 3))
    );
    assert_eq!(
        (acs(PORT), acs(SWITCH), acs(DOWNSTREAM)),
        (Some(all), None, Some(all))
    );
    assert!(config(VF).express.unwrap().has_flr && config(VF).bridge.is_none());
}

#[test]
fn the_kernels_own_facts_are_read() {
    let pf = function(
        &host()
            .pf("0000:04:00.0", 14)
            .attribute("sriov_drivers_autoprobe", "1")
            .driver_version("5.6.1-k")
            .interface("ens1f1")
            .interface("ens1f0")
            .controller("nvme3")
            .errors(7, 1, 2)
            .link("16.0 GT/s PCIe", "4")
            .rom(0xfe70_0000, 0x8_0000)
            .vf("0000:04:10.0", "0000:04:00.0", 15),
        "0000:04:00.0",
    );
    let sriov = Sriov {
        total: 7,
        enabled: 1,
        is_probed: true,
    };
    assert_eq!(pf.sriov, Some(sriov));
    assert_eq!(pf.driver_version.as_deref(), Some("5.6.1-k"));
    assert_eq!(pf.interfaces, ["ens1f0", "ens1f1"]);
    assert_eq!(pf.controllers, ["nvme3"]);
    let counts = ErrorCounts {
        correctable: 7,
        nonfatal: 1,
        fatal: 2,
    };
    assert_eq!(pf.errors, Some(counts));
    let link = Link {
        speed: "16.0 GT/s PCIe".to_owned(),
        width: "4".to_owned(),
    };
    assert_eq!(pf.link, Some(link));
    let rom = pf.rom.unwrap();
    assert_eq!((rom.start, rom.len.raw()), (0xfe70_0000, 0x8_0000));
    assert!(rom.is_memory && pf.bars[0].is_some() && pf.bars[5].is_none());
}

#[test]
fn what_a_function_does_not_have_is_none() {
    let vf = function(&host(), VF);
    assert_eq!((vf.sriov, vf.rom, vf.errors), (None, None, None));
    assert_eq!((vf.driver_version, vf.link), (None, None));
    assert!(vf.interfaces.is_empty() && vf.controllers.is_empty());
    assert!(!function(&host(), PF).sriov.unwrap().is_probed);
}

#[test]
fn nonsense_of_the_kernels_is_refused_with_file_and_text() {
    let table = [
        ("sriov_totalvfs", "many"),
        ("sriov_numvfs", "-1"),
        ("sriov_drivers_autoprobe", "4294967296"),
        ("aer_dev_correctable", "RxErr 0"),
        ("aer_dev_nonfatal", "TOTAL_ERR_NONFATAL x"),
        ("aer_dev_fatal", ""),
    ];
    for (name, text) in table {
        let bad = host().pf("0000:04:00.0", 14).attribute(name, text);
        let error = read_topology(&bad).unwrap_err();
        assert_eq!(error.id(), "sysfs-malformed", "{name}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn configuration_space_that_cannot_be_read_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let root = host().at(folder.path()).write().unwrap();
    let config = root.path(function_path(bdf(PORT))).join("config");
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    let port = Topology::read(&root).unwrap().functions[&bdf(PORT)].clone();
    let reason = "configuration space cannot be read";
    assert_eq!(port.config.extended, Extended::Unknown { reason });
    assert_eq!((port.config.command, port.config.express), (None, None));
    assert_eq!(port.interrupts, Interrupts::Unknown { reason });
}

#[test]
fn an_override_is_read_unless_the_host_uses_the_function() {
    let read =
        |host: FakeHost| function(&host.attribute("driver_override", "x"), VF).driver_override;
    assert_eq!(read(host()).as_deref(), Some("x"));
    for driver in ["vfio-pci", "mlx5_vfio_pci", "pci-stub"] {
        assert_eq!(
            read(host().driver(driver)).as_deref(),
            Some("x"),
            "{driver}"
        );
    }
    assert_eq!(read(host().driver("igbvf")), None);
}

#[test]
fn links_lead_where_the_kernels_do() {
    let folder = tempfile::tempdir().unwrap();
    let root = host().vfio("vfio0").at(folder.path()).write().unwrap();
    let target = |path: &str| {
        let target = root.read_link(format!("sys/{path}")).unwrap().unwrap();
        target.to_string_lossy().into_owned()
    };
    let place = format!("pci0000:00/{PORT}/{SWITCH}/{DOWNSTREAM}");
    let vf = format!("devices/{place}/{VF}");
    assert_eq!(
        target(&format!("bus/pci/devices/{VF}")),
        format!("../../../{vf}")
    );
    assert_eq!(target(&format!("{vf}/physfn")), format!("../{PF}"));
    assert_eq!(
        target(&format!("devices/{place}/{PF}/virtfn0")),
        format!("../{VF}")
    );
    let up = "../".repeat(6);
    assert_eq!(
        target(&format!("{vf}/driver")),
        format!("{up}bus/pci/drivers/vfio-pci")
    );
    assert_eq!(
        target(&format!("{vf}/iommu_group")),
        format!("{up}kernel/iommu_groups/13")
    );
    assert_eq!(
        target(&format!("kernel/iommu_groups/13/devices/{VF}")),
        format!("../../../../{vf}")
    );
    assert_eq!(
        target("class/iommu/dmar0"),
        "../../devices/virtual/iommu/dmar0"
    );
}

#[test]
fn a_host_with_a_piece_missing_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = [
        ("no PF", FakeHost::new(folder.path()).vf(VF, PF, 1)),
        (
            "no bridge",
            FakeHost::new(folder.path()).pf(PF, 1).under(PORT),
        ),
        (
            "loop",
            FakeHost::new(folder.path()).bridge(PORT, 1).under(PORT),
        ),
    ];
    for (name, host) in hosts {
        assert!(host.write().is_err(), "{name}");
    }
}
