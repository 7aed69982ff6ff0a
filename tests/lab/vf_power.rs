//! The host loses its power in the middle of an apply, a lease, or a return; then it boots again with the same disks.
//! `scripts/test` boots a host for each half. `POWER_CUT_AT` is the crash point of the first. And what is kept over a boot
//! without a cut: the two tests of kept leases, on two hosts with the same disks.

use std::{collections::HashMap, env, fs, process::Command};

use crate::{
    guest::GuestFile,
    vf::{applied, bare, document, expect, host_file, oracle, write},
};

/// The crash point, and whether it is one of a change of the host.
fn cut_at() -> (String, bool) {
    let at = env::var("POWER_CUT_AT").expect("scripts/test says where");
    let is_host = at.starts_with("host-");
    (at, is_host)
}

/// What has not reached the disks by now never does.
fn cut() -> ! {
    fs::write("/proc/sysrq-trigger", "b").unwrap();
    panic!("the host goes on without power");
}

#[test]
#[ignore = "needs a lab host"]
fn power_is_cut() {
    let (at, is_host) = cut_at();
    if is_host {
        bare();
        // The state folder itself is there.
        Command::new("sync").status().unwrap();
        let output = Command::new("narrows")
            .args(["host", "apply", write(&host_file())])
            .env("NARROWS_CRASH_AT", &at)
            .output()
            .unwrap();
        assert!(
            output.status.code().is_none(),
            "{at} was not reached: {output:?}"
        );
        cut();
    }
    applied();
    Command::new("sync").status().unwrap();
    let guest = GuestFile::small("lost", "nvme")
        .pool("tenant-a")
        .pool("disk-a")
        .env("NARROWS_CRASH_AT", &at)
        .start();
    let (status, transcript) = guest.end();
    assert_eq!(
        status.code(),
        Some(1),
        "{at} was not reached: {}",
        transcript.text()
    );
    cut();
}

#[test]
#[ignore = "needs a lab host"]
fn what_is_left_is_put_right() {
    let (at, _) = cut_at();
    expect(0, &["recover"]);
    let again = expect(0, &["recover"]);
    assert_eq!(again.out.trim(), "nothing to recover", "{at}");
    let file = write(&host_file());
    expect(0, &["host", "apply", file]);
    expect(0, &["host", "status"]);
    for row in document(0, &["vf", "ls", "--json"])["vfs"]
        .as_array()
        .unwrap()
    {
        assert_eq!(row["state"], "clean", "{at}: {row}");
    }
    if ["dirty:1", "sanitising:1"].contains(&at.as_str()) {
        assert!(
            oracle::is_zero(2),
            "{at}: the guest's bytes are still there"
        );
    }
    // And the next tenant gets them.
    GuestFile::small("next", "nvme")
        .pool("tenant-a")
        .pool("disk-a")
        .run();
    expect(0, &["host", "release"]);
}

/// What the first boot tells the second: on the disk that both have.
const NOTE: &str = "/var/lib/narrows/.lab-kept";

/// A guest that keeps its VFs, doing `words`.
fn keeping(words: &str) -> GuestFile {
    GuestFile::small("kept", words)
        .pool_with("tenant-a", "keep = true")
        .pool_with("disk-a", "keep = true")
}

/// One that is not started again before its lease is ended.
fn idle() -> GuestFile {
    GuestFile::small("idle", "nvme,net:10.9.0.3/24")
        .pool_with("tenant-a", "keep = true")
        .pool_with("disk-b", "keep = true")
}

/// The states of the VFs with a lease, by guest.
fn leases() -> Vec<(String, String)> {
    let list = document(0, &["vf", "ls", "--json"]);
    let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap_or("").to_owned();
    let rows = list["vfs"].as_array().unwrap().iter();
    let rows = rows.map(|row| (text(row, "guest"), text(row, "state")));
    let mut leases: Vec<_> = rows.filter(|(guest, _)| !guest.is_empty()).collect();
    leases.sort();
    leases
}

#[test]
#[ignore = "needs a lab host"]
fn kept_leases_before_the_boot() {
    applied();
    let transcript = keeping("nvme,net:10.9.0.2/24").run();
    let wrote = transcript.facts("nvme", "wrote=")["wrote"].clone();
    let mac = transcript.facts("net", "mac=")["mac"].clone();
    let other = idle().run().facts("net", "mac=")["mac"].clone();
    assert_eq!(leases().len(), 4, "{:?}", leases());
    fs::write(NOTE, format!("{wrote} {mac} {other}")).unwrap();
    Command::new("sync").status().unwrap();
}

#[test]
#[ignore = "needs a lab host"]
fn kept_leases_are_the_same_after_the_boot_and_can_be_ended() {
    let note = fs::read_to_string(NOTE).expect("the first boot has left it");
    let mut words = note.split(' ').map(str::to_owned);
    let [wrote, mac, other] = [(); 3].map(|()| words.next().unwrap());
    let nothing = expect(0, &["recover"]);
    assert_eq!(nothing.out.trim(), "nothing to recover");
    let file = write(&host_file());
    expect(0, &["host", "apply", file]);
    // Nobody else gets any of it meanwhile: there are 4 VFs, and two are kept.
    let link = |mac: &str| {
        let links = (0..4).map(oracle::link);
        links.filter(|link| link.contains(mac)).count()
    };
    assert_eq!((link(&mac), link(&other)), (1, 1), "{:?}", oracle::link(0));
    let again: HashMap<String, String> = {
        let transcript = keeping("nvme-sum,net:10.9.0.2/24").run();
        assert_eq!(transcript.facts("net", "mac=")["mac"], mac);
        transcript.facts("nvme-sum", "")
    };
    assert_eq!(again["nvme-sum"], wrote, "its data is not there");
    // The one that has run since the boot, and the one that has not.
    for guest in ["kept", "idle"] {
        expect(0, &["vf", "return", "--guest", guest]);
        assert!(
            leases().iter().all(|(of, _)| of != guest),
            "{guest}: {:?}",
            leases()
        );
    }
    for row in document(0, &["vf", "ls", "--json"])["vfs"]
        .as_array()
        .unwrap()
    {
        assert_eq!(row["state"], "clean", "{row}");
    }
    for nsid in [2, 4] {
        assert!(oracle::is_zero(nsid), "namespace {nsid} is not erased");
    }
    expect(0, &["host", "release"]);
}
