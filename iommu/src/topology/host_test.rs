use std::{fs, io::Write, path::Path};

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::{fake::FakeHost, topology::Topology};

fn read_host(host: &FakeHost) -> HostState {
    let folder = tempfile::tempdir().unwrap();
    let root = host.clone().at(folder.path()).write().unwrap();
    read(&root).unwrap()
}

fn units(host: &FakeHost) -> Result<Vec<IommuUnit>> {
    let folder = tempfile::tempdir().unwrap();
    read_iommus(&host.clone().at(folder.path()).write().unwrap())
}

fn host() -> FakeHost {
    FakeHost::new("")
}

#[test]
fn a_host_is_read_with_everything_about_it() {
    let state = read_host(
        &host()
            .kernel("6.18.2-lab")
            .cmdline("quiet  iommu=pt\tx=y")
            .setting("proc/sys/kernel/tainted", "64")
            .cpu_vulnerability("mds", "Vulnerable"),
    );
    assert_eq!(state.kernel.as_deref(), Some("6.18.2-lab"));
    assert_eq!(state.cmdline, ["quiet", "iommu=pt", "x=y"]);
    assert_eq!(state.settings.len(), SETTINGS.len());
    let tainted = &state.settings["proc/sys/kernel/tainted"];
    assert_eq!(tainted.text, "64");
    assert!(tainted.path.ends_with("proc/sys/kernel/tainted"));
    assert_eq!(state.vulnerabilities["mds"], "Vulnerable");
    let (path, options) = state.kernel_config.unwrap();
    assert!(path.ends_with("boot/config-6.18.2-lab"));
    assert_eq!(options["IOMMUFD"], "y");
    assert_eq!(options.get("VFIO_NOIOMMU"), None);
    assert_eq!(state.locked_memory_limit, None);
}

#[test]
fn files_that_are_not_there_leave_their_facts_out() {
    let folder = tempfile::tempdir().unwrap();
    let state = read(&SysRoot::new(folder.path())).unwrap();
    let unread = SETTINGS.iter().copied().collect();
    let nothing = HostState {
        unread,
        ..HostState::default()
    };
    assert_eq!(state, nothing);
    assert_eq!(state.remapping, Remapping::Unknown);
}

#[test]
fn remapping_is_read_from_the_interrupts() {
    let is_on = |host: &FakeHost| match read_host(host).remapping {
        Remapping::On { .. } => Some(true),
        Remapping::Off { .. } => Some(false),
        Remapping::Unknown => None,
    };
    assert_eq!(is_on(&host()), Some(true));
    assert_eq!(is_on(&host().amd_iommu(0, 0)), Some(true));
    assert_eq!(is_on(&host().interrupt_remapping(false)), Some(false));
    assert_eq!(is_on(&host().no_iommu()), Some(false));
    assert_eq!(is_on(&host().file("proc/interrupts", "")), None);
}

#[test]
fn an_iommu_shows_its_makers_registers() {
    let intel = units(&host().intel_iommu(0xd2_008c_4066_0462, 0xf0_20df)).unwrap();
    let kind = IommuKind::Intel {
        cap: 0xd2_008c_4066_0462,
        ecap: 0xf0_20df,
    };
    let name = "dmar0".to_owned();
    assert_eq!(intel, [IommuUnit { name, kind }]);
    let features = 0x8462_77ef_a225_4afa;
    let amd = units(&host().amd_iommu(0x190b_640f, features)).unwrap();
    let kind = IommuKind::Amd {
        cap: 0x190b_640f,
        features,
    };
    assert_eq!(amd[0].kind, kind);
    for text in ["10:846277efa2254afa", "846277efa2254afa:10"] {
        let both = host()
            .amd_iommu(0x190b_640f, 0)
            .file("sys/class/iommu/ivhd0/amd-iommu/features", text);
        assert_eq!(units(&both).unwrap()[0].kind, kind, "{text}");
    }
    let other = units(&host().no_iommu().file("sys/class/iommu/smmu3.0/x", "")).unwrap();
    assert_eq!(other[0].kind, IommuKind::Other);
    let error = units(&host().file("sys/class/iommu/dmar0/intel-iommu/cap", "0x12")).unwrap_err();
    assert_eq!(error.id(), "sysfs-malformed");
    assert_eq!(units(&host().no_iommu()).unwrap(), []);
}

// VT-d r4.1 §8.1, DMAR flags bit 2; AMD 48882 r3.08 §5.2, IVinfo bit 1.
#[test]
fn preboot_protection_is_a_bit_of_the_firmwares_table() {
    let table = [("DMAR", 37, 0x04), ("IVRS", 36, 0x02)];
    for (name, at, bit) in table {
        let folder = tempfile::tempdir().unwrap();
        let root = host().no_iommu().at(folder.path()).write().unwrap();
        let path = Path::new("sys/firmware/acpi/tables").join(name);
        fs::create_dir_all(root.path("sys/firmware/acpi/tables")).unwrap();
        for (byte, wanted) in [(bit, true), (!bit, false)] {
            let mut bytes = vec![0; 100];
            bytes[at] = byte;
            fs::write(root.path(&path), bytes).unwrap();
            let found = read(&root).unwrap().preboot_protection;
            assert_eq!(found, Some((root.path(&path), wanted)), "{name}");
        }
        fs::write(root.path(&path), [0; 36]).unwrap();
        assert_eq!(read(&root).unwrap().preboot_protection, None);
    }
}

#[test]
fn a_carried_kernel_configuration_comes_before_an_installed_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = host().at(folder.path()).write().unwrap();
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    let text =
        b"CONFIG_VFIO_NOIOMMU=y\nCONFIG_IOMMUFD=m\nCONFIG_USB=y\n# CONFIG_PCIEAER is not set\n";
    packer.write_all(text).unwrap();
    let packed = packer.finish().unwrap();
    fs::write(root.path("proc/config.gz"), &packed).unwrap();
    let (path, options) = read(&root).unwrap().kernel_config.unwrap();
    assert!(path.ends_with("proc/config.gz"));
    let options: Vec<(&str, &str)> = options
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(options, [("IOMMUFD", "m"), ("VFIO_NOIOMMU", "y")]);
    for bad in [&packed[..packed.len() / 2], b"CONFIG_IOMMUFD=y\n"] {
        fs::write(root.path("proc/config.gz"), bad).unwrap();
        assert_eq!(read(&root).unwrap_err().id(), "sysfs-malformed");
    }
}

#[test]
fn a_configuration_that_swells_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let root = host().at(folder.path()).write().unwrap();
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    let blank = vec![b'\n'; 1 << 20];
    for _ in 0..8 {
        packer.write_all(&blank).unwrap();
    }
    packer.write_all(b"CONFIG_IOMMUFD=y\n").unwrap();
    fs::write(root.path("proc/config.gz"), packer.finish().unwrap()).unwrap();
    let (_, options) = read(&root).unwrap().kernel_config.unwrap();
    assert!(options.is_empty());
}

#[test]
fn nodes_that_give_devices_away_are_found_with_their_modes() {
    let state = read_host(
        &host()
            .iommufd()
            .pf("0000:01:00.0", 12)
            .vf("0000:01:10.0", "0000:01:00.0", 13)
            .vfio("vfio3")
            .node("dev/vfio/13", 0o660)
            .node("dev/vfio/noiommu-0", 0o666)
            .node("dev/vfio/vfio", 0o666),
    );
    let nodes: Vec<(String, u32)> = state
        .vfio_nodes
        .iter()
        .map(|node| {
            let name = node.path.to_string_lossy();
            (name.split_once("/dev/").unwrap().1.to_owned(), node.mode)
        })
        .collect();
    let wanted = [
        ("vfio/13", 0o660),
        ("vfio/noiommu-0", 0o666),
        ("vfio/devices/vfio3", 0o600),
        ("iommu", 0o600),
    ];
    let wanted = wanted.map(|(name, mode)| (name.to_owned(), mode));
    assert_eq!(nodes, wanted);
}

#[test]
fn the_soft_limit_of_locked_memory_is_read() {
    let limit = |words: &str| {
        let line = format!(
            "Max processes             9     9    processes\nMax locked memory         {words}"
        );
        read_host(&host().file("proc/self/limits", &line)).locked_memory_limit
    };
    assert_eq!(limit("8388608    unlimited    bytes"), Some(8_388_608));
    assert_eq!(limit("unlimited    unlimited    bytes"), None);
    let folder = tempfile::tempdir().unwrap();
    let bad = host().file("proc/self/limits", "Max locked memory   lots");
    let root = bad.at(folder.path()).write().unwrap();
    assert_eq!(read(&root).unwrap_err().id(), "sysfs-malformed");
}

#[test]
fn a_topology_carries_the_state_of_its_host() {
    let folder = tempfile::tempdir().unwrap();
    let root = host().at(folder.path()).write().unwrap();
    let topology = Topology::read(&root).unwrap();
    assert_eq!(topology.host, read(&root).unwrap());
    let protection = topology.host.preboot_protection.unwrap();
    assert!(protection.1 && protection.0.ends_with("DMAR"));
}
