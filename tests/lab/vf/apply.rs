//! Plan, apply, status, drift, release.

use std::fs;

use super::{applied, bare, document, expect, host_file, oracle, vf, write};
use crate::host;

#[test]
#[ignore = "needs a lab host"]
fn apply_from_nothing_makes_what_the_file_says_and_a_second_has_nothing_to_do() {
    bare();
    let before = oracle::dump();
    let file = write(&host_file());
    let plan = expect(2, &["host", "plan", file]);
    assert!(
        plan.out.contains("7 VFs") && plan.out.contains("4 VFs"),
        "{}",
        plan.out
    );
    assert_eq!(oracle::dump(), before, "a plan has changed the host");
    expect(0, &["host", "apply", file]);
    for index in 0..7 {
        let link = oracle::link(index);
        // At rest: an address, no VLAN, spoof check on, trust off.
        assert!(!link.contains("00:00:00:00:00:00"), "vf {index}: {link}");
        assert!(!link.contains("vlan"), "vf {index}: {link}");
        assert!(link.contains("spoof checking on"), "vf {index}: {link}");
        assert!(link.contains("trust off"), "vf {index}: {link}");
    }
    assert!(
        oracle::link(0).contains("02:4e:57:00:00:"),
        "{}",
        oracle::link(0)
    );
    assert!(
        oracle::link(4).contains("52:54:00:00:01:04"),
        "{}",
        oracle::link(4)
    );
    let secondaries = oracle::secondaries();
    assert_eq!(secondaries[&1], (true, 3, 2));
    assert_eq!(secondaries[&2], (true, 3, 2));
    assert_eq!(secondaries[&3], (true, 2, 2));
    let after = oracle::dump();
    let again = expect(0, &["host", "plan", file]);
    assert!(again.out.contains("nothing to do"), "{}", again.out);
    expect(0, &["host", "apply", file]);
    assert_eq!(
        oracle::dump(),
        after,
        "the second apply has changed the host"
    );
    for row in document(0, &["vf", "ls", "--json"])["vfs"]
        .as_array()
        .unwrap()
    {
        assert_eq!(row["state"], "clean", "{row}");
    }
    expect(0, &["host", "status"]);
    expect(0, &["host", "release"]);
    assert_eq!(oracle::dump(), before, "release left something");
}

#[test]
#[ignore = "needs a lab host"]
fn addresses_that_were_generated_are_the_same_after_the_vfs_were_made_anew() {
    let file = applied();
    let before: Vec<String> = (0..7).map(oracle::link).collect();
    let pf = host::fact("NIC_PF");
    host::shell(&format!("echo 0 > /sys/bus/pci/devices/{pf}/sriov_numvfs"));
    expect(2, &["host", "status"]);
    expect(0, &["host", "apply", file]);
    let after: Vec<String> = (0..7).map(oracle::link).collect();
    assert_eq!(before, after);
}

#[test]
#[ignore = "needs a lab host"]
fn drift_made_by_hand_is_found_and_repaired() {
    let file = applied();
    let before = oracle::dump();
    let interface = host::fact("NIC_IF");
    for (words, name) in [
        ("mac 02:00:00:00:00:99", "mac"),
        ("vlan 7", "vlan"),
        ("spoofchk off", "spoofchk"),
        ("trust on", "trust"),
        ("max_tx_rate 100", "rate"),
    ] {
        host::shell(&format!(
            "/usr/bin/ip link set dev {interface} vf 5 {words}"
        ));
        assert_ne!(oracle::dump(), before, "{words} changed nothing");
        let status = document(2, &["host", "status", "--json"]);
        let drift = status["drift"].as_array().unwrap();
        assert_eq!(drift.len(), 1, "{words}: {status}");
        assert_eq!(drift[0]["vf"], 5, "{words}: {status}");
        assert!(
            drift[0]["name"].as_str().unwrap().contains(name),
            "{words}: {status}"
        );
        expect(2, &["host", "plan", file]);
        expect(0, &["host", "apply", file]);
        assert_eq!(oracle::dump(), before, "{words} was not repaired");
    }
    // A controller that was taken offline, and a namespace that was given away.
    let bdf = vf("NVME_PF", 3);
    oracle::nvme("virt-mgmt", "-c 4 -a 7");
    expect(2, &["host", "status"]);
    expect(0, &["host", "apply", file]);
    assert_eq!(oracle::dump(), before, "{bdf} is not online again");
    oracle::nvme("attach-ns", "-n 6 -c 1");
    expect(2, &["host", "status"]);
    expect(0, &["host", "apply", file]);
    assert_eq!(oracle::dump(), before, "namespace 6 is still a VF's");
}

#[test]
#[ignore = "needs a lab host"]
fn host_file_that_was_imported_plans_nothing() {
    applied();
    let imported = expect(0, &["host", "import"]).out;
    fs::write("/tmp/imported.toml", &imported).unwrap();
    expect(0, &["check", "/tmp/imported.toml"]);
    let plan = expect(0, &["host", "plan", "/tmp/imported.toml"]);
    assert!(
        plan.out.contains("nothing to do"),
        "{imported}\n{}",
        plan.out
    );
}

#[test]
#[ignore = "needs a lab host"]
fn apply_that_is_not_confirmed_undoes_itself() {
    bare();
    let before = oracle::dump();
    let file = write(&host_file());
    expect(0, &["host", "apply", "--confirm-within", "5s", file]);
    std::thread::sleep(std::time::Duration::from_secs(12));
    assert_eq!(oracle::dump(), before, "not undone");
    let mut child = std::process::Command::new("narrows")
        .args(["host", "apply", "--confirm-within", "120s", file])
        .spawn()
        .unwrap();
    // All is done when the last VF has its state.
    for _ in 0..600 {
        if super::narrows(&["host", "confirm"]).status == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert!(child.wait().unwrap().success());
    expect(0, &["host", "plan", file]);
}

#[test]
#[ignore = "needs a lab host"]
fn plan_that_was_kept_is_stale_once_the_machine_has_changed() {
    bare();
    let file = write(&host_file());
    // Addresses that are to be generated are known after the first apply.
    expect(0, &["host", "apply", file]);
    let changed = host_file()
        .replace("vfs = 7", "vfs = 5")
        .replace("4-6", "4");
    let file = write(&changed);
    expect(2, &["host", "plan", "--out", "/tmp/kept.plan", file]);
    let interface = host::fact("NIC_IF");
    host::shell(&format!(
        "/usr/bin/ip link set dev {interface} vf 0 trust on"
    ));
    let said = expect(3, &["host", "apply", "--plan-file", "/tmp/kept.plan"]);
    assert!(said.err.contains("error[plan-stale]"), "{}", said.err);
    host::shell(&format!(
        "/usr/bin/ip link set dev {interface} vf 0 trust off"
    ));
    expect(0, &["host", "apply", "--plan-file", "/tmp/kept.plan"]);
    expect(0, &["host", "plan", file]);
}
