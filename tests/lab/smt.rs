//! A host whose cores have two threads each. Guests that do nothing: with more than one processor the emulator now and then
//! fails a program of its host while guests run.

use std::{collections::BTreeSet, fs, process::Command};

use rustix::{
    process::Pid,
    thread::{CoreSchedulingScope, core_scheduling_cookie},
};
use serde_json::Value;

use crate::{
    guest::{Guest, GuestFile},
    host,
};

/// The cookies of a process's threads.
fn cookies(pid: u32) -> BTreeSet<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads
        .map(|thread| {
            let number = thread.unwrap().file_name().into_string().unwrap();
            let thread = Pid::from_raw(number.parse().unwrap()).unwrap();
            core_scheduling_cookie(thread, CoreSchedulingScope::Thread).unwrap()
        })
        .collect()
}

/// The cookie that a guest's V and D have, every thread of them.
fn cookie_of_guest(guest: &Guest) -> u64 {
    let of = |program: &str| cookies(guest.child_pid(program));
    let (vcpu, device) = (of("narrows-vcpu"), of("narrows-device"));
    assert_eq!(
        vcpu, device,
        "V and D are not of one kind for the scheduler"
    );
    assert_eq!(vcpu.len(), 1, "threads of one guest differ: {vcpu:?}");
    *vcpu.first().unwrap()
}

/// An idle guest with two vCPUs, stopped.
fn stopped(name: &str, bdf: &str) -> Guest {
    let mut guest = GuestFile::attacker(name).vcpus(2).device(bdf).start();
    guest.wait_for("GUEST init=");
    host::shell(&format!("kill -STOP {}", guest.child_pid("narrows-vcpu")));
    guest
}

fn end(guest: &Guest) {
    host::shell(&format!("kill -CONT {}", guest.child_pid("narrows-vcpu")));
    guest.signal("TERM");
}

#[test]
#[ignore = "needs a lab host"]
fn threads_of_a_core_are_shared_with_no_other_guest_and_not_with_the_host() {
    assert_eq!(
        fs::read_to_string("/sys/devices/system/cpu/smt/active").unwrap(),
        "1\n",
        "the test is of no worth here: no core has a second thread"
    );
    let one = stopped("one", &host::nvme(0));
    let other = stopped("other", &host::nvme(1));
    let (ours, theirs) = (cookie_of_guest(&one), cookie_of_guest(&other));
    assert_ne!(ours, 0, "the guest shares cores with everybody");
    assert_ne!(ours, theirs, "two guests share cores");
    for guest in [&one, &other] {
        for pid in [guest.pid(), guest.keeper_pid()] {
            let own = cookies(pid);
            assert!(
                !own.contains(&ours) && !own.contains(&theirs),
                "a process of the host, {pid}, shares cores with a guest"
            );
        }
    }
    assert_eq!(cookies(std::process::id()), BTreeSet::from([0]));
    for guest in [one, other] {
        end(&guest);
        let (status, transcript) = guest.end();
        assert_eq!(status.code(), Some(25), "{}", transcript.text());
    }
}

#[test]
#[ignore = "needs a lab host"]
fn doctor_knows_that_guests_can_have_cores_of_their_own() {
    let output = Command::new("narrows").args(["doctor", "--json"]).output();
    let report: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let layers = report["layers"].as_array().unwrap();
    let layer = layers.iter().find(|layer| layer["id"] == "core-scheduling");
    assert_eq!(layer.unwrap()["state"], "available", "{report}");
}
