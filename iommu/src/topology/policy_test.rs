use std::fs;

use proptest::prelude::*;

use super::*;
use crate::{fake::FakeHost, topology::Topology};

const PF: &str = "0000:01:00.0";

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

fn host() -> FakeHost {
    FakeHost::new("")
        .pf(PF, 12)
        .interface("eth7")
        .vf("0000:01:10.0", PF, 13)
        .vf("0000:01:10.2", PF, 14)
        .vf_policy("mac none vlan 100 proto 802.1ad spoofchk off max_tx 1000 link down")
}

/// The policies of the second VF of a host whose folder was changed.
fn read(host: &FakeHost, change: impl FnOnce(&SysRoot)) -> Vec<InterfacePolicy> {
    let folder = tempfile::tempdir().unwrap();
    let root = host.clone().at(folder.path()).write().unwrap();
    change(&root);
    let topology = Topology::read(&root).unwrap();
    topology.functions[&bdf("0000:01:10.2")].policies.clone()
}

fn unknown(policies: &[InterfacePolicy]) -> &str {
    match policies {
        [
            InterfacePolicy {
                enforced: Enforced::Unknown { reason },
                ..
            },
        ] => reason,
        other => panic!("{other:?}"),
    }
}

fn table(root: &SysRoot) -> std::path::PathBuf {
    root.path("narrows/vf-info/eth7")
}

#[test]
fn each_vf_has_what_its_own_line_says() {
    let policies = read(&host(), |_| {});
    let [policy] = &policies[..] else {
        panic!("{policies:?}");
    };
    assert_eq!(policy.interface, "eth7");
    let wanted = VfPolicy {
        index: 1,
        mac: None,
        vlan: Some(100),
        qos: Some(0),
        vlan_proto: Some(VlanProto::Dot1Ad),
        spoof_check: Some(false),
        trusted: Some(false),
        rss_query: Some(false),
        link: Some(super::super::LinkPolicy::Down),
        min_tx_mbps: Some(0),
        max_tx_mbps: Some(1000),
    };
    assert_eq!(policy.enforced, Enforced::Told(wanted));
}

#[test]
fn the_number_of_a_vf_is_that_of_the_link_to_it() {
    let policies = read(&host(), |root| {
        let pf = root.path("sys/bus/pci/devices").join(PF);
        fs::rename(pf.join("virtfn0"), pf.join("virtfn5")).unwrap();
        fs::rename(pf.join("virtfn1"), pf.join("virtfn0")).unwrap();
    });
    let [
        InterfacePolicy {
            enforced: Enforced::Told(policy),
            ..
        },
    ] = &policies[..]
    else {
        panic!("{policies:?}");
    };
    assert_eq!(policy.index, 0);
    assert_eq!(policy.mac.unwrap().to_string(), "00:00:00:00:00:01");
    assert_eq!(policy.vlan_proto, Some(VlanProto::Dot1Q), "not told");
    let lost = read(&host(), |root| {
        let pf = root.path("sys/bus/pci/devices").join(PF);
        fs::remove_file(pf.join("virtfn1")).unwrap();
    });
    assert_eq!(unknown(&lost), "no link virtfnN of the PF leads to it");
}

#[test]
fn an_interface_of_another_function_tells_nothing() {
    let policies = read(&host(), |root| {
        let text = fs::read_to_string(table(root)).unwrap();
        fs::write(table(root), text.replace(PF, "0000:09:00.0")).unwrap();
    });
    let reason = "is an interface of 0000:09:00.0, not of 0000:01:00.0";
    assert_eq!(unknown(&policies), reason);
}

#[test]
fn what_tells_of_no_vf_is_left_out_and_what_fails_is_not() {
    let silent = read(&host().no_vf_policies(), |_| {});
    assert_eq!(silent, []);
    let port = |root: &SysRoot| {
        let folder = root.path("sys/bus/pci/devices").join(PF).join("net/rep0");
        fs::create_dir_all(folder).unwrap();
    };
    assert_eq!(read(&host(), port).len(), 1, "a representor");
    let failing = read(&host(), |root| {
        fs::remove_file(table(root)).unwrap();
        fs::create_dir(table(root)).unwrap();
    });
    assert!(unknown(&failing).ends_with("EISDIR"), "{failing:?}");
}

#[test]
fn malformed_lines_make_all_of_an_interface_unknown() {
    for line in [
        "vf",
        "vf x mac none",
        "vf 7",
        "vf 7 mac",
        "vf 7 mac 00:00:00:00:00:00",
        "vf 7 mac 1:2:3:4:5:6",
        "vf 7 mac 01:02:03:04:05",
        "vf 7 mac +1:02:03:04:05:06",
        "vf 7 mac none vlan 1 proto 802.1q",
        "vf 7 mac 01:02:03:04:05:06:07",
        "vf 7 mac none trust maybe",
        "vf 7 mac none trust",
        "vf 7 mac none link sideways",
        "vf 7 mac none vlan 99999999999",
        "vf 7 mac none colour red",
        "vf 0 mac none",
        "VF 7 mac none",
        "",
    ] {
        let policies = read(&host(), |root| {
            let text = fs::read_to_string(table(root)).unwrap();
            fs::write(table(root), format!("{text}{line}\n")).unwrap();
        });
        assert!(unknown(&policies).contains(line), "{line}: {policies:?}");
    }
}

#[test]
fn a_line_that_is_missing_is_not_taken_from_another_vf() {
    let policies = read(&host(), |root| {
        let text = fs::read_to_string(table(root)).unwrap();
        let kept: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with("vf 1 "))
            .collect();
        fs::write(table(root), kept.join("\n")).unwrap();
    });
    assert_eq!(unknown(&policies), "tells nothing of VF 1");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(vf|parent| |[a-z0-9:\n]){0,40}") {
        drop(parse(&text, bdf(PF)));
    }
}
