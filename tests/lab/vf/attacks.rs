//! What a guest with a VF of a pool tries, and does not get.

use super::{applied, oracle};
use crate::{
    guest::{GuestFile, Transcript},
    host,
};

/// The guest is in VLAN 101, the host's PF in none.
#[test]
#[ignore = "needs a lab host"]
fn guest_cannot_leave_its_vlan() {
    applied();
    // With a tag of its own, and without.
    let words = "net:10.9.0.2/24,ping:10.9.0.1,vlan:102:10.9.2.2/24,ping:10.9.2.1";
    let interface = host::fact("NIC_IF");
    host::shell(&format!(
        "/usr/bin/ip link add link {interface} name tag102 type vlan id 102; /usr/bin/ip address add 10.9.2.1/24 dev tag102; \
         /usr/bin/ip link set tag102 up"
    ));
    let inside = GuestFile::small("inside", words).pool("tenant-a").run();
    // The same guest in a pool without a VLAN reaches both: it is the VLAN that stopped it.
    let control = GuestFile::small("control", words).pool("open").run();
    host::shell("/usr/bin/ip link del tag102");
    assert_eq!(received(&inside, "10.9.0.1"), 0, "{}", inside.text());
    assert_eq!(received(&inside, "10.9.2.1"), 0, "{}", inside.text());
    assert_eq!(received(&control, "10.9.0.1"), 3, "{}", control.text());
    assert_eq!(received(&control, "10.9.2.1"), 3, "{}", control.text());
}

/// Answers to three pings; none where there is no route either.
fn received(transcript: &Transcript, address: &str) -> u32 {
    let facts = transcript.facts("ping", address);
    facts
        .get("received")
        .map_or(0, |count| count.parse().unwrap())
}

#[test]
#[ignore = "needs a lab host"]
fn guest_cannot_take_another_mac() {
    applied();
    let mut guest = GuestFile::small("liar", "net:10.9.0.2/24,mac:02deadbeef01,sleep:600")
        .pool("tenant-a")
        .start();
    let line = guest.wait_for("GUEST mac=");
    // What the PF enforces, not what the guest's driver says of itself.
    let links: Vec<String> = (0..4).map(oracle::link).collect();
    assert!(line.contains("status=refused"), "{line}");
    assert!(!links.join("\n").contains("02:de:ad:be:ef:01"), "{links:?}");
    guest.signal("TERM");
    guest.end();
    // Control: a VF that the host trusts may.
    let interface = host::fact("NIC_IF");
    host::shell(&format!(
        "/usr/bin/ip link set dev {interface} vf 6 trust on; /usr/bin/ip link set dev {interface} vf 6 mac 00:00:00:00:00:00"
    ));
    let control = GuestFile::small("trusted", "net:10.9.0.3/24,mac:02deadbeef01")
        .device_with(&super::vf("NIC_PF", 6), "accept = [\"nic-vf-trusted\"]");
    // The pool's lease would put it right first, so it is taken out of the pool.
    super::expect(0, &["host", "release"]);
    host::shell(&format!(
        "cd /sys/bus/pci/devices/{}; echo 0 > sriov_drivers_autoprobe; echo 7 > sriov_numvfs",
        host::fact("NIC_PF")
    ));
    host::shell(&format!(
        "/usr/bin/ip link set dev {interface} vf 6 trust on"
    ));
    let control = control.start();
    let (_, control) = control.end();
    assert!(control.text().contains("status=ok"), "{}", control.text());
}

#[test]
#[ignore = "needs a lab host"]
fn namespace_of_a_pool_is_invisible_to_the_others_guest() {
    applied();
    let mut first = GuestFile::small("first", "nvme-ls,sleep:600")
        .pool("disk-a")
        .start();
    let of_a = first.wait_for("GUEST nvme-ls=");
    let mut second = GuestFile::small("second", "nvme-ls,sleep:600")
        .pool("disk-b")
        .start();
    let of_b = second.wait_for("GUEST nvme-ls=");
    assert!(of_a.contains("nvme-ls=2:"), "{of_a}");
    assert!(of_b.contains("nvme-ls=4:"), "{of_b}");
    for (line, foreign) in [(&of_a, ["3:", "4:", "5:"]), (&of_b, ["2:", "3:", "5:"])] {
        for nsid in foreign {
            let list = line
                .split("nvme-ls=")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap();
            assert!(
                !list.split(',').any(|one| one.starts_with(nsid)),
                "{nsid} is in {line}"
            );
        }
    }
    assert_eq!(oracle::attached(2).len(), 1);
    assert_eq!(oracle::attached(4).len(), 1);
    for guest in [first, second] {
        guest.signal("TERM");
        guest.end();
    }
    assert_eq!(
        oracle::attached(2),
        Vec::<u32>::new(),
        "namespace 2 is still attached"
    );
    assert_eq!(
        oracle::attached(4),
        Vec::<u32>::new(),
        "namespace 4 is still attached"
    );
}

#[test]
#[ignore = "needs a lab host"]
fn what_a_guest_wrote_is_erased_before_the_next_one_has_it() {
    applied();
    for pool in ["disk-a", "disk-b"] {
        let wrote = GuestFile::small("writer", "nvme").pool(pool).run();
        let wrote = wrote.facts("nvme", "wrote=");
        assert_eq!(wrote["same"], "yes", "{pool}");
        let nsid = if pool == "disk-a" { 2 } else { 4 };
        assert!(oracle::is_zero(nsid), "{pool}: not zeros");
    }
}
