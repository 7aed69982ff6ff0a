//! `narrows inspect` and the self-inventory at the start: a guest is its manifest, and what root changes from outside is
//! found.

use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::{
    guest::{Guest, GuestFile},
    host,
};

/// Inspects a guest; the exit status, the document, and what was said on standard error.
fn inspect(name: &str) -> (i32, Value, String) {
    let output = Command::new("narrows")
        .args(["inspect", name, "--json"])
        .output()
        .unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), document, said)
}

fn names(list: &Value) -> Vec<&str> {
    let names = list.as_array().unwrap().iter();
    names.map(|call| call["name"].as_str().unwrap()).collect()
}

/// Fails unless the record says that all is as it is meant to be, with so many system calls.
fn assert_match(record: &Value) {
    assert_eq!(record["verdict"], "match", "{record:#}");
    let processes = record["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 3, "{record:#}");
    for process in processes {
        let calls = names(&process["reachable"]);
        match process["role"].as_str().unwrap() {
            "vcpu" => assert_eq!(calls, ["ioctl", "futex", "exit_group"]),
            "device" => assert!(calls.len() <= 10, "{calls:?}"),
            "supervisor" => assert!(!calls.contains(&"openat"), "{calls:?}"),
            role => panic!("{role}"),
        }
        let evidence = |id: &str| evidence(process, id);
        let descriptors = evidence("descriptors");
        match process["role"].as_str().unwrap() {
            "device" => assert!(
                descriptors.contains("the keeper's own (kcmp)"),
                "{descriptors}"
            ),
            "supervisor" => assert!(descriptors.contains("by device and inode"), "{descriptors}"),
            _ => {}
        }
        assert!(
            evidence("landlock").contains("what this kernel offers"),
            "{record:#}"
        );
    }
}

/// What was read of one process under one topic.
fn evidence(process: &Value, topic: &str) -> String {
    let findings = process["findings"].as_array().unwrap();
    let finding = findings.iter().find(|f| f["id"] == topic).unwrap();
    finding["evidence"].to_string()
}

/// The mismatches of one process under one topic.
fn mismatches(record: &Value, role: &str, topic: &str) -> String {
    let processes = record["processes"].as_array().unwrap();
    let process = processes.iter().find(|p| p["role"] == role).unwrap();
    let findings = process["findings"].as_array().unwrap();
    let finding = findings.iter().find(|f| f["id"] == topic).unwrap();
    finding["mismatches"].to_string()
}

/// As root may, from outside.
fn limit_cores(process: u32, bytes: u64) {
    let process = Pid::from_raw(process.try_into().unwrap());
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    prlimit(process, Resource::Core, limit).unwrap();
}

fn stop(guest: Guest) {
    guest.signal("TERM");
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(25), "{}", transcript.text());
}

fn is_its_manifest(file: &GuestFile, name: &str) {
    let mut guest = file.start();
    let line = guest.wait_for(" inspection {");
    let (_, json) = line.split_once(" inspection ").unwrap();
    assert_match(&serde_json::from_str(json).unwrap());
    guest.wait_for("GUEST init=yes");
    for _ in 0..3 {
        let (status, record, said) = inspect(name);
        assert_eq!((status, said.as_str()), (0, ""), "{record:#}");
        assert_match(&record);
    }
    // It went on, and gave its answer.
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(0), "{}", transcript.text());
    assert_eq!(inspect(name).0, 1, "it has ended");
}

#[test]
#[ignore = "needs a lab host"]
fn a_guest_on_iommufd_is_its_manifest() {
    let file = GuestFile::small("manifest-iommufd", "nvme,sleep:4,irq")
        .vcpus(2)
        .key("interface = \"iommufd\"")
        .device(&host::nic(0))
        .device(&host::nvme(0));
    is_its_manifest(&file, "manifest-iommufd");
}

#[test]
#[ignore = "needs a lab host"]
fn a_guest_on_type1_is_its_manifest() {
    let file = GuestFile::small("manifest-type1", "nvme,sleep:4,irq")
        .key("interface = \"type1\"")
        .device(&host::nic(1))
        .device(&host::nvme(1));
    is_its_manifest(&file, "manifest-type1");
}

#[test]
#[ignore = "needs a lab host"]
fn what_root_changes_from_outside_is_found() {
    let mut guest = GuestFile::small("changed", "sleep:60")
        .device(&host::nic(0))
        .start();
    guest.wait_for("GUEST init=yes");
    let vcpu = guest.child_pid("narrows-vcpu");
    let device = guest.child_pid("narrows-device");
    assert_eq!(inspect("changed").0, 0);

    limit_cores(vcpu, 4096);
    let (status, record, _) = inspect("changed");
    assert_eq!((status, &record["verdict"]), (3, &Value::from("mismatch")));
    assert!(
        mismatches(&record, "vcpu", "rlimits").contains("Max core file size"),
        "{record:#}"
    );
    assert_eq!(mismatches(&record, "device", "rlimits"), "[]");
    limit_cores(vcpu, 0);
    assert_eq!(inspect("changed").0, 0);

    let own = host::shell(&format!("sed -n s/^0:://p /proc/{device}/cgroup"));
    host::shell(&format!("echo {device} > /sys/fs/cgroup/cgroup.procs"));
    let (status, record, _) = inspect("changed");
    assert_eq!(status, 3);
    assert!(
        mismatches(&record, "device", "cgroup").contains("it is in /, not in"),
        "{record:#}"
    );
    host::shell(&format!(
        "echo {device} > /sys/fs/cgroup{}/cgroup.procs",
        own.trim()
    ));
    assert_eq!(inspect("changed").0, 0);

    // Limits of the cgroups: the process's, the guest's around it, and those of S.
    for (role, member, file) in [
        ("device", "device/", "pids.max"),
        ("vcpu", "vcpu/", "cpu.max"),
        ("vcpu", "", "memory.max"),
        ("supervisor", "supervisor/", "pids.max"),
    ] {
        let path = format!("/sys/fs/cgroup/narrows/changed/{member}{file}");
        let before = host::shell(&format!("cat {path}"));
        host::shell(&format!("echo max > {path}"));
        let (status, record, _) = inspect("changed");
        assert_eq!(status, 3, "{path}");
        let said = mismatches(&record, role, "cgroup-limits");
        assert!(said.contains(&format!("{file} is max")), "{said}");
        host::shell(&format!("echo {} > {path}", before.trim()));
        assert_eq!(inspect("changed").0, 0, "{path}");
    }

    // The kernel doubles both numbers when its timer cannot keep up: the share is the same, and so is the verdict.
    let path = "/sys/fs/cgroup/narrows/changed/device/cpu.max";
    for (rate, status) in [
        ("200000 200000", 0),
        ("200000 100000", 3),
        ("100000 100000", 0),
    ] {
        host::shell(&format!("echo {rate} > {path}"));
        assert_eq!(inspect("changed").0, status, "{rate}");
    }

    let text = Command::new("narrows")
        .args(["inspect", "changed"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("3 system calls can be made: ioctl, futex, exit_group"),
        "{text}"
    );
    stop(guest);
}

#[test]
#[ignore = "needs a lab host"]
fn a_name_is_one_guests_at_a_time() {
    let file = GuestFile::small("same-name", "sleep:60");
    let mut guest = file.start();
    guest.wait_for("GUEST init=yes");
    let said = file.refused(3);
    assert!(said.contains("error[guest-name-taken]"), "{said}");
    assert_eq!(
        inspect("same-name").0,
        0,
        "the one that runs is not touched"
    );
    stop(guest);
}

#[test]
#[ignore = "needs a lab host"]
fn what_a_killed_run_left_is_told_from_a_guest() {
    let mut guest = GuestFile::small("killed-run", "sleep:60").start();
    guest.wait_for("GUEST init=yes");
    // The keeper, and with it the supervisor's reason to go on: nobody is left to remove anything.
    host::shell(&format!("kill -KILL {}", guest.keeper_pid()));
    drop(guest.end());
    let (status, _, said) = inspect("killed-run");
    assert_eq!(status, 1);
    assert!(
        said.contains("guest-not-running") && said.contains("was killed"),
        "{said}"
    );
    let (status, _, said) = inspect("never-seen");
    assert_eq!(status, 1);
    assert!(said.contains("no guest of this name runs"), "{said}");
    // Nor does it stand in the way of the next run.
    let mut guest = GuestFile::small("killed-run", "sleep:60").start();
    guest.wait_for("GUEST init=yes");
    assert_eq!(inspect("killed-run").0, 0);
    stop(guest);
}
