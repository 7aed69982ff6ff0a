//! A VF that somebody changes by hand between two lives of its guest: the second life does not begin.

use super::{applied, document, oracle};
use crate::{
    guest::{Guest, GuestFile},
    host,
};

/// A guest that has begun its first life, in which it stays for a while before it reboots.
fn begun(name: &str, pool: &str) -> Guest {
    let mut guest = GuestFile::small(name, "sleep:6,reboot").pool(pool).start();
    guest.wait_for("GUEST init=yes");
    guest
}

/// Ends a guest whose VF was changed: it did not come up again, the run says what differs, and the VF is at rest.
#[track_caller]
fn ends_with(guest: Guest, word: &str, at_rest: &str) {
    let (status, transcript) = guest.end();
    let text = transcript.text();
    assert_eq!(status.code(), Some(1), "{text}");
    assert_eq!(transcript.count("init"), 1, "it came up again:\n{text}");
    assert!(text.contains("the guest reboots (number 1)"), "{text}");
    assert!(text.contains("error[step-not-done]"), "{text}");
    assert!(text.contains(word), "{word} is not named:\n{text}");
    assert_eq!(oracle::dump(), at_rest, "{text}");
    for row in document(0, &["vf", "ls", "--json"])["vfs"]
        .as_array()
        .unwrap()
    {
        assert_eq!(row["state"], "clean", "{row}");
    }
}

#[test]
#[ignore = "needs a lab host"]
fn guest_whose_vlan_was_taken_away_does_not_live_again() {
    applied();
    let rest = oracle::dump();
    let interface = host::fact("NIC_IF");
    for (words, name) in [
        ("vlan 0", "vlan"),
        ("spoofchk off", "spoofchk"),
        ("trust on", "trust"),
    ] {
        let guest = begun("drifts", "tenant-a");
        let index = (0..4)
            .find(|index| oracle::link(*index).contains("vlan 101"))
            .unwrap();
        host::shell(&format!(
            "/usr/bin/ip link set dev {interface} vf {index} {words}"
        ));
        ends_with(guest, name, &rest);
    }
}

#[test]
#[ignore = "needs a lab host"]
fn guest_that_was_given_a_foreign_namespace_does_not_live_again() {
    applied();
    let rest = oracle::dump();
    for (verb, nsid, word) in [
        ("attach-ns", 6, "namespace 6"),
        ("detach-ns", 2, "namespace 2"),
    ] {
        let guest = begun("swapped", "disk-a");
        let controller = oracle::attached(2)[0];
        oracle::nvme(verb, &format!("-n {nsid} -c {controller}"));
        ends_with(guest, word, &rest);
    }
}

/// What is as leased goes on, life after life.
#[test]
#[ignore = "needs a lab host"]
fn guest_whose_vfs_are_as_leased_lives_again() {
    applied();
    let rest = oracle::dump();
    let mut guest = GuestFile::small("again", "reboot")
        .pool("tenant-a")
        .pool("disk-a")
        .start();
    for _ in 0..3 {
        guest.wait_for("GUEST init=yes");
    }
    guest.signal("TERM");
    let (_, transcript) = guest.end();
    assert!(
        !transcript.text().contains("error["),
        "{}",
        transcript.text()
    );
    assert_eq!(oracle::dump(), rest, "{}", transcript.text());
}
