use super::*;

const PF: &str = "0000:01:00.0";
const OTHER: &str = "0000:02:00.0";
const VF: &str = "0000:01:10.0";

fn three() -> Vec<Device> {
    let device = |bdf: &str, name: &str, mac: &str, is_pf| Device {
        bdf: bdf.parse().unwrap(),
        interface: Some(name.to_owned()),
        mac: Some(mac.to_owned()),
        driver: Some("igb".to_owned()),
        is_pf,
    };
    vec![
        device(PF, "eth0", "52:54:00:00:00:01", true),
        device(OTHER, "ens2f0", "52:54:00:00:00:02", true),
        device(VF, "eth0v0", "52:54:00:00:00:03", false),
    ]
}

/// What a reader says of a file, as text.
fn said(read: fn(&str, &str, &[Device]) -> Found, file: &str, text: &str) -> Vec<String> {
    read(file, text, &three())
        .into_iter()
        .map(|(bdf, count)| match count {
            Some(count) => format!("{bdf} {count}"),
            None => bdf.to_string(),
        })
        .collect()
}

#[test]
fn network_manager_owns_what_has_a_section_on_vfs() {
    let by_name = "[connection]\nid=x\ninterface-name=eth0\n[sriov]\ntotal-vfs=4\n";
    assert_eq!(said(network_manager, "x", by_name), [format!("{PF} 4")]);
    let by_mac = "[ethernet]\nmac-address=52:54:00:00:00:02\n\n[sriov]\nautoprobe-drivers=0\n";
    assert_eq!(said(network_manager, "x", by_mac), [OTHER]);
    let by_nothing = "[connection]\nid=x\n[sriov]\ntotal-vfs=4\n";
    assert_eq!(said(network_manager, "x", by_nothing).len(), 2);
    let plain = "[connection]\ninterface-name=eth0\n[ipv4]\nmethod=auto\n";
    assert!(said(network_manager, "x", plain).is_empty());
}

#[test]
fn netplan_owns_what_has_a_number_of_vfs() {
    let own =
        "network:\n  version: 2\n  ethernets:\n    eth0:\n      virtual-function-count: 8 # all\n";
    assert_eq!(said(netplan::read, "x", own), [format!("{PF} 8")]);
    let matched = "network:\n    ethernets:\n        uplink:\n            match:\n                macaddress: \"52:54:00:00:00:02\"\n            embedded-switch-mode: legacy\n            virtual-function-count: 2\n        eth0:\n            dhcp4: true\n";
    assert_eq!(said(netplan::read, "x", matched), [format!("{OTHER} 2")]);
    let vf = "network:\n  ethernets:\n    eth0: {}\n    eth0v0:\n      link: eth0\n      addresses: [10.0.0.1/24]\n";
    assert_eq!(said(netplan::read, "x", vf), [PF, VF]);
    let vlan = "network:\n  ethernets:\n    eth0:\n      dhcp4: true\n  vlans:\n    v1:\n      id: 1\n      link: eth0\n";
    assert!(said(netplan::read, "x", vlan).is_empty());
}

#[test]
fn netplan_written_otherwise_owns_every_nic() {
    for text in [
        "network: {ethernets: {eth0: {virtual-function-count: 8}}}\n",
        "network:\n  ethernets:\n    eth0: {virtual-function-count: 8}\n",
        "network:\n  ethernets:\n    eth0: &anchor\n      x:\n        virtual-function-count: 8\n",
        "virtual-function-count\n",
    ] {
        assert_eq!(said(netplan::read, "x", text), [PF, OTHER], "{text}");
    }
}

#[test]
fn systemd_owns_what_its_match_may_mean() {
    let by_name = "[Match]\nOriginalName=eth*\n\n[Link]\nSR-IOVVirtualFunctions=7\n";
    assert_eq!(said(systemd, "10-x.link", by_name), [format!("{PF} 7")]);
    let by_path = "[Match]\nPath=pci-0000:02:00.*\n[SR-IOV]\nVirtualFunction=0\nTrust=no\n";
    assert_eq!(said(systemd, "10-x.network", by_path), [OTHER]);
    let others = "[Match]\nOriginalName=!eth0 lo\n[Link]\nSR-IOVVirtualFunctions=7\n";
    assert_eq!(said(systemd, "10-x.link", others), [format!("{OTHER} 7")]);
    let unknown = "[Match]\nProperty=ID_X=1\nDriver=ig?\n[SR-IOV]\nVirtualFunction=0\n";
    assert_eq!(said(systemd, "10-x.link", unknown), [PF, OTHER]);
    let wrong = "[Match]\nDriver=i40e\n[Link]\nSR-IOVVirtualFunctions=7\n";
    assert!(said(systemd, "10-x.link", wrong).is_empty());
    let plain = "[Match]\nOriginalName=*\n[Link]\nNamePolicy=keep\n";
    assert!(said(systemd, "99-default.link", plain).is_empty());
    // Whose drop-in it is, its own text does not say.
    let dropin = "[Link]\nSR-IOVVirtualFunctions=7\n";
    assert_eq!(said(systemd, "etc/10-x.link.d/a.conf", dropin).len(), 2);
}

#[test]
fn driverctl_owns_functions_by_the_names_of_its_files() {
    let file = format!("etc/driverctl.d/pci-{VF}");
    assert_eq!(said(driverctl, &file, "vfio-pci\n"), [VF]);
    assert!(said(driverctl, "etc/driverctl.d/0000:09:00.0", "x").is_empty());
}

#[test]
fn operator_owns_what_its_state_names() {
    let file = format!("etc/sriov-operator/pci/{PF}");
    assert_eq!(said(operator, &file, "{}"), [PF]);
    let text =
        "spec:\n  interfaces:\n  - name: ens2f0\n    numVfs: 4\n    pciAddress: 0000:02:00.0\n";
    assert_eq!(said(operator, "etc/sriov-operator/x.yaml", text), [OTHER]);
    assert!(said(operator, "etc/sriov-operator/x.yaml", "name: ens2f01\n").is_empty());
}

#[test]
fn globs_fit_as_in_a_shell() {
    for (text, glob, expected) in [
        ("eth0", "eth*", true),
        ("eth0", "eth?", true),
        ("eth", "eth?", false),
        ("eth0", "eth[01]", true),
        ("enp1s0f0", "enp*f0", true),
        ("enp1s0f1", "enp*f0", false),
        ("", "*", true),
    ] {
        assert_eq!(fits(text.as_bytes(), glob.as_bytes()), expected, "{glob}");
    }
}
