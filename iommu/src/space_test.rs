use super::*;
use crate::fake::FakeHost;

#[test]
fn iommufd_needs_the_context_and_a_node_for_every_function() {
    let folder = tempfile::tempdir().unwrap();
    let pf = "0000:01:00.0";
    let vfs = ["0000:01:10.0", "0000:01:10.2"];
    let bdfs = vfs.map(|bdf| bdf.parse().unwrap());
    let both = |host: FakeHost| {
        host.pf(pf, 1)
            .vf(vfs[0], pf, 2)
            .vfio("vfio0")
            .vf(vfs[1], pf, 3)
    };
    let table = [
        (
            "all",
            both(FakeHost::new("").iommufd()).vfio("vfio1"),
            Interface::Iommufd,
        ),
        (
            "no context",
            both(FakeHost::new("")).vfio("vfio1"),
            Interface::Type1,
        ),
        (
            "one unbound",
            both(FakeHost::new("").iommufd()),
            Interface::Type1,
        ),
        // A kernel without CONFIG_VFIO_DEVICE_CDEV.
        (
            "no node",
            both(FakeHost::new("").iommufd()).vfio_without_node("vfio1"),
            Interface::Type1,
        ),
    ];
    for (number, (name, host, wanted)) in table.into_iter().enumerate() {
        let root = host
            .at(folder.path().join(number.to_string()))
            .write()
            .unwrap();
        let topology = Topology::read(&root).unwrap();
        assert_eq!(Interface::detect(&topology, &bdfs), wanted, "{name}");
    }
}

#[test]
fn a_token_is_written_as_the_kernel_reads_it_and_never_in_a_debug_line() {
    let token = VfToken::new(*b"\x83\xd8\xf4\xf2\x50\x9f\x38\x2f\x3c\x1e\xe6\xbf\xe0\xfa\x10\x01");
    assert_eq!(token.to_string(), "83d8f4f2-509f-382f-3c1e-e6bfe0fa1001");
    assert_eq!(format!("{token:?}"), "VfToken(…)");
}

#[test]
fn a_mapping_is_never_finer_than_the_host_page() {
    assert_eq!(
        PageSizes::from_bitmap(0x4020_1000).smallest,
        ByteLen::new(0x1000)
    );
    assert_eq!(
        PageSizes::from_bitmap(!0xfff).smallest,
        ByteLen::new(0x1000)
    );
    assert_eq!(PageSizes::from_bitmap(1).smallest, ByteLen::new(0x1000));
    assert_eq!(
        PageSizes::from_bitmap(0x1_0000).smallest,
        ByteLen::new(0x1_0000)
    );
    assert_eq!(PageSizes::from_alignment(1).smallest, ByteLen::new(0x1000));
}

#[test]
fn a_host_without_nodes_says_which_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let root = SysRoot::new(folder.path());
    for (interface, node) in [
        (Interface::Iommufd, "dev/iommu"),
        (Interface::Type1, "dev/vfio/vfio"),
    ] {
        let error = AddressSpace::open(interface, &root).unwrap_err();
        let wanted = format!(
            "{} cannot be opened: ENOENT",
            folder.path().join(node).display()
        );
        assert_eq!(error.to_string(), wanted);
    }
}

#[test]
fn a_container_that_is_none_is_refused_with_call_and_errno() {
    let folder = tempfile::tempdir().unwrap();
    let root = FakeHost::new(folder.path()).write().unwrap();
    let error = AddressSpace::open(Interface::Type1, &root).unwrap_err();
    assert_eq!(
        error.to_string(),
        "type1 context: VFIO_GET_API_VERSION failed: ENOTTY"
    );
}

#[test]
fn iommufd_without_a_node_or_without_a_device_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = FakeHost::new(folder.path()).iommufd().write().unwrap();
    let mut space = AddressSpace::open(Interface::Iommufd, &root).unwrap();
    let node = DeviceNode {
        bdf: "0000:01:10.0".parse().unwrap(),
        group: GroupId(2),
        cdev: None,
        vf_token: None,
    };
    assert_eq!(space.attach(&node).unwrap_err().id(), "no-vfio-cdev");
    assert_eq!(
        space
            .attached(Vec::new(), Bars::default())
            .unwrap_err()
            .id(),
        "nothing-attached"
    );
}
