use super::*;
use crate::{addr::Iova, error::Blame, fake::FakeHost};

const PF: &str = "0000:01:00.0";
const VF: &str = "0000:01:10.0";

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

fn read(host: &FakeHost) -> Result<Topology> {
    let folder = tempfile::tempdir().unwrap();
    Topology::read(&host.clone().at(folder.path()).write().unwrap())
}

fn host() -> FakeHost {
    FakeHost::new("")
        .bridge("0000:00:02.0", 1)
        .pf(PF, 12)
        .vf(VF, PF, 13)
}

#[test]
fn a_vf_is_read_with_everything_about_it() {
    let topology = read(
        &host()
            .numa_node(1)
            .vfio("vfio3")
            .attribute("driver_override", "vfio-pci"),
    )
    .unwrap();
    let vf = &topology.functions[&bdf(VF)];
    assert_eq!(
        (vf.vendor, vf.device, vf.class),
        (0x8086, 0x10ca, 0x02_0000)
    );
    assert_eq!(vf.driver.as_deref(), Some("vfio-pci"));
    assert_eq!(vf.driver_override.as_deref(), Some("vfio-pci"));
    assert_eq!(vf.physfn, Some(bdf(PF)));
    assert_eq!(vf.group, Some(GroupId(13)));
    assert_eq!(vf.numa_node, Some(1));
    assert_eq!(vf.reset_methods, ["flr"]);
    assert_eq!(vf.vfio_cdev.as_deref(), Some("vfio3"));
    let bar = vf.bars[3].unwrap();
    assert_eq!(bar.len, ByteLen::new(0x4000));
    assert!(bar.is_memory && bar.is_64bit && !bar.is_prefetchable);
    assert_eq!(vf.bars[1], None);
    assert!(matches!(
        vf.interrupts,
        Interrupts::Msix {
            vectors: 3,
            table_bar: 3,
            pba_offset: 0x2000,
            ..
        }
    ));
    let vfs: Vec<Bdf> = topology.vfs_of(bdf(PF)).map(|vf| vf.bdf).collect();
    assert_eq!(vfs, [bdf(VF)]);
}

#[test]
fn what_is_not_set_is_none() {
    let topology = read(&host()).unwrap();
    let vf = &topology.functions[&bdf(VF)];
    assert_eq!(vf.driver_override, None);
    assert_eq!(vf.driver, None);
    assert_eq!(vf.numa_node, None);
    assert_eq!(vf.vfio_cdev, None);
    assert_eq!(topology.functions[&bdf(PF)].physfn, None);
    assert!(!topology.has_iommufd);
}

#[test]
fn groups_have_members_type_and_reserved_regions() {
    let host = host()
        .device("0000:01:11.0", 13)
        .reserved(13, 0xfd_0000_0000, 0xff_ffff_ffff, "reserved")
        .reserved(13, 0, u64::MAX, "direct")
        .group_type(12, "identity");
    let topology = read(&host).unwrap();
    let (id, group) = topology.group_of(bdf(VF)).unwrap();
    assert_eq!(id, GroupId(13));
    assert_eq!(group.members, [bdf(VF), bdf("0000:01:11.0")]);
    assert_eq!(group.domain_type, "DMA");
    assert_eq!(topology.groups[&GroupId(12)].domain_type, "identity");
    let regions: Vec<String> = group
        .reserved
        .iter()
        .map(|region| format!("{} {}", region.range, region.kind))
        .collect();
    assert_eq!(
        regions,
        [
            "[0xfee00000, 0xfef00000) msi",
            "[0xfd00000000, 0x10000000000) reserved",
            "[0x0, 0xffffffffffffffff) direct",
        ]
    );
    assert!(group.reserved[0].range.contains(Iova::new(0xfeef_ffff)));
}

#[test]
fn a_member_that_is_no_pci_function_is_counted() {
    let topology = read(
        &host()
            .other_member(13, "10000:e1:00.0")
            .other_member(13, "serial8250"),
    )
    .unwrap();
    let group = &topology.groups[&GroupId(13)];
    assert_eq!(group.members, [bdf(VF)]);
    assert_eq!(group.other_members, ["10000:e1:00.0", "serial8250"]);
}

#[test]
fn a_vfio_dev_folder_without_a_node_is_no_cdev() {
    let topology = read(&host().iommufd().vfio_without_node("vfio0")).unwrap();
    assert_eq!(topology.functions[&bdf(VF)].vfio_cdev, None);
}

#[test]
fn a_host_without_iommu_is_read_and_shows_it() {
    let topology = read(&host().no_iommu()).unwrap();
    assert!(topology.groups.is_empty() && topology.iommus.is_empty());
    assert_eq!(topology.functions[&bdf(VF)].group, None);
}

#[test]
fn configuration_space_without_privilege_is_a_fact_not_an_error() {
    let mut config = [0; 64];
    config[0x06] = 0x10;
    config[0x34] = 0x70;
    let topology = read(&host().config(&config)).unwrap();
    let interrupts = topology.functions[&bdf(VF)].interrupts;
    assert!(
        matches!(interrupts, Interrupts::Unknown { .. }),
        "{interrupts:?}"
    );
}

#[test]
fn module_parameters_are_read_with_their_path() {
    let host = host()
        .iommufd()
        .file("sys/module/iommufd/parameters/allow_unsafe_interrupts", "Y");
    let topology = read(&host).unwrap();
    let flags: Vec<bool> = topology
        .host
        .unsafe_interrupts
        .iter()
        .map(|(_, flag)| *flag)
        .collect();
    assert_eq!(flags, [false, true]);
    assert!(
        topology.host.unsafe_interrupts[1]
            .0
            .ends_with("sys/module/iommufd/parameters/allow_unsafe_interrupts")
    );
    assert!(!topology.host.unsafe_noiommu.unwrap().1);
}

#[test]
fn nonsense_is_refused_with_file_and_text() {
    let table = [
        ("vendor", "0x18086"),
        ("device", "10ca"),
        ("class", ""),
        ("numa_node", "one"),
        ("resource", "0x1 0x0 0x200"),
        ("resource", "what"),
    ];
    for (name, text) in table {
        let error = read(&host().attribute(name, text)).unwrap_err();
        assert_eq!(error.id(), "sysfs-malformed", "{name}");
        assert_eq!(error.blame(), Blame::Host);
        assert!(error.to_string().contains(name), "{error}");
    }
    let error = read(&host().file(
        "sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
        "maybe",
    ))
    .unwrap_err();
    assert_eq!(error.id(), "sysfs-malformed");
}

#[test]
fn members_are_read_with_their_drivers() {
    let folder = tempfile::tempdir().unwrap();
    let root = host()
        .device("0000:01:11.0", 13)
        .driver("ixgbevf")
        .at(folder.path())
        .write()
        .unwrap();
    let members = read_members(&root, GroupId(13)).unwrap();
    let words: Vec<String> = members.iter().map(Member::to_string).collect();
    assert_eq!(
        words,
        ["0000:01:10.0 (no driver)", "0000:01:11.0 (driver ixgbevf)"]
    );
}

#[test]
fn an_empty_root_is_an_empty_host() {
    let folder = tempfile::tempdir().unwrap();
    let topology = Topology::read(&SysRoot::new(folder.path())).unwrap();
    assert!(topology.functions.is_empty() && topology.host.unsafe_noiommu.is_none());
}
