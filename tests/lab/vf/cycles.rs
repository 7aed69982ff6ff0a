//! Many lives of VFs, and what is left of them.

use std::{thread, time::Duration};

use super::{
    applied, document, expect, host_file,
    hostile::{self, Kind},
    oracle, write,
};
use crate::{attack::Attacker, guest::GuestFile, host};

/// Each with what the guest finds in its only slot.
const POOLS: [(&str, Kind); 4] = [
    ("tenant-a", Kind::Nic),
    ("open", Kind::Nic),
    ("disk-a", Kind::Nvme(2)),
    ("disk-b", Kind::Nvme(4)),
];
const LEASES: usize = 50;

#[test]
#[ignore = "needs a lab host"]
fn fifty_leases_leave_nothing() {
    applied();
    let before = oracle::dump();
    for round in 0..LEASES {
        let (pool, kind) = POOLS[round / 2 % POOLS.len()];
        if round % 2 == 0 {
            let guest = GuestFile::small("tiny", "")
                .silent()
                .memory("64M")
                .pool(pool);
            guest.run();
        } else {
            hostile_lease(pool, kind, round / 2 / POOLS.len());
        }
        assert_eq!(oracle::dump(), before, "after lease {round}, of {pool}");
    }
    for row in document(0, &["vf", "ls", "--json"])["vfs"]
        .as_array()
        .unwrap()
    {
        assert_eq!(row["state"], "clean", "{row}");
        assert_eq!(row["guest"], serde_json::Value::Null, "{row}");
    }
    expect(0, &["host", "status"]);
    // Counters of pinned pages are added up lazily; each guest had 16384.
    assert!(host::pinned_pages() < 1000, "{}", host::pinned_pages());
    for nsid in [2, 4] {
        assert!(oracle::is_zero(nsid), "namespace {nsid} has data");
    }
}

/// A lease of a guest that spoils what it has, and powers off or is stopped while its device works.
fn hostile_lease(pool: &str, kind: Kind, how: usize) {
    let mut guest = Attacker::start(&hostile::file("hostile").pool(pool));
    hostile::spoil(&mut guest, 1, kind, how);
    if kind == Kind::Nic || !how.is_multiple_of(4) {
        guest.begin("off");
    } else {
        guest.guest.signal("TERM");
    }
    let (status, transcript) = guest.guest.end();
    assert!(
        transcript.text().contains("is given back"),
        "{pool}, {how}: {status}\n{}",
        transcript.text()
    );
}

#[test]
#[ignore = "needs a lab host"]
fn change_of_one_vf_leaves_the_neighbours_traffic_alone() {
    applied();
    let mut guest = GuestFile::small(
        "steady",
        "net:10.9.0.2/24,ping:10.9.0.1,loop-ping:10.9.0.1:40",
    )
    .pool("open")
    .start();
    guest.wait_for("GUEST ping=10.9.0.1 sent=3");
    let others: Vec<String> = oracle::dump().lines().map(str::to_owned).collect();
    let text = host_file().replace(
        "[[pf.vf]]\nindex = \"4\"\nmac = \"52:54:00:00:01:04\"\n",
        "[[pf.vf]]\nindex = \"4\"\nmac = \"52:54:00:00:01:04\"\n\n\
         [[pf.vf]]\nindex = \"6\"\nmac = \"52:54:00:00:01:66\"\nvlan = 77\nmax_tx_rate = \"100M\"\n",
    );
    // In force though no guest has the VF.
    let text = text.replace(
        "name = \"open\"\nkind = \"nic\"\n",
        "name = \"open\"\nkind = \"nic\"\nhold = \"always\"\n",
    );
    let file = write(&text);
    thread::sleep(Duration::from_secs(2));
    let plan = expect(2, &["host", "plan", file]);
    assert!(
        !plan.out.contains("VF 4 "),
        "the VF in use would be touched:\n{}",
        plan.out
    );
    expect(0, &["host", "apply", file]);
    let link = oracle::link(6);
    for word in ["52:54:00:00:01:66", "vlan 77", "100Mbps"] {
        assert!(link.contains(word), "no {word} in {link}");
    }
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(0), "{}", transcript.text());
    let facts = transcript.facts("ping", "sent=40");
    assert_eq!(facts["received"], "40", "{}", transcript.text());
    // Nothing but VF 6 has changed, and what the guest's own lease gives back.
    let now = oracle::dump();
    for line in others
        .iter()
        .filter(|line| line.starts_with("namespace") || line.starts_with("secondaries"))
    {
        assert!(now.contains(line.as_str()), "{line}\nbut:\n{now}");
    }
}
