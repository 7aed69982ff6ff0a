//! The host loses its power in the middle of an apply, a lease, or a return; then it boots again with the same disks.
//! `scripts/test` boots a host for each half. `POWER_CUT_AT` is the crash point of the first.

use std::{env, fs, process::Command};

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
