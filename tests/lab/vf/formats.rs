//! What a guest makes of its namespace's format, and what the next one finds.

use super::{applied, document, expect, oracle};
use crate::{attack::Attacker, guest::GuestFile};

/// The emulated drive's format with blocks of 4096 bytes; the first has 512, without metadata as this.
const OF_4096: u64 = 4;
/// And one with 8 bytes of metadata for each block of 512.
const WITH_METADATA: u64 = 1;

#[test]
#[ignore = "needs a lab host"]
fn format_that_a_guest_has_given_its_namespace_is_taken_back() {
    applied();
    let before = oracle::dump();
    for (pool, nsid) in [("disk-a", 2), ("disk-b", 4)] {
        let declared = oracle::format(nsid);
        for format in [OF_4096, WITH_METADATA] {
            let case = format!("{pool}, format {format}");
            let mut guest = Attacker::start(&GuestFile::attacker("formats").pool(pool));
            guest.start_nvme(1);
            let status = guest.value(&format!("nvme-format {nsid} {format}"));
            assert_eq!(status, 0, "{case}: the drive does not let it");
            let changed = oracle::format(nsid);
            assert_eq!(changed.0, format, "{case}: not formatted");
            assert_ne!(changed, declared, "{case}");
            let ended = guest.off();
            assert_eq!(oracle::format(nsid), declared, "{case}: {}", ended.text());
            assert_eq!(oracle::dump(), before, "{case}: {}", ended.text());
            assert!(oracle::is_zero(nsid), "{case}: it is not empty");
            // The next tenant finds it as it was declared, and works with it.
            let next = GuestFile::small("next", "nvme").pool(pool).run();
            let next = next.facts("nvme", "same=");
            assert_eq!(next["same"], "yes", "{case}");
            assert_eq!(oracle::format(nsid), declared, "{case}");
        }
    }
    for row in document(0, &["vf", "ls", "--json"])["vfs"]
        .as_array()
        .unwrap()
    {
        assert_eq!(row["state"], "clean", "{row}");
    }
    expect(0, &["host", "status"]);
}

/// Its own format is the guest's business, in all its lives and with a lease that it keeps.
#[test]
#[ignore = "needs a lab host"]
fn guest_that_has_formatted_its_namespace_reboots_with_it() {
    applied();
    let declared = oracle::format(2);
    let mut guest = Attacker::start(&GuestFile::attacker("formats").pool("disk-a"));
    guest.start_nvme(1);
    assert_eq!(guest.value(&format!("nvme-format 2 {OF_4096}")), 0);
    guest.begin("out 1 0x602 1");
    guest.guest.wait_for("GUEST init=");
    assert_eq!(oracle::format(2).0, OF_4096);
    guest.off();
    assert_eq!(oracle::format(2), declared);
}
