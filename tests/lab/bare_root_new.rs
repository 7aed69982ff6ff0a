//! A lab host whose root is left as the kernel made it, on a kernel since Linux 7.0: an empty root is below the first RAM
//! file system, and processes can leave that.

use std::fs;

use crate::{bare_root::root_ids, guest::GuestFile, host};

#[test]
#[ignore = "needs a lab host"]
fn guest_runs_in_an_empty_root_where_something_is_below_the_first() {
    let (own, below) = root_ids();
    assert_ne!(own, below, "this kernel has nothing below its root");
    let mut guest = GuestFile::small("bare-new", "sleep:60")
        .device(&host::nic(0))
        .start();
    guest.wait_for("GUEST init=yes");
    for who in ["supervisor", "narrows-vcpu", "narrows-device"] {
        let pid = guest.pid_of(who);
        // As many as can be reached from the root: its own.
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        assert_eq!(mounts.lines().count(), 1, "{who}: {mounts}");
        assert!(
            mounts.contains(" ro,nosuid,nodev,noexec"),
            "{who}: {mounts}"
        );
        assert_eq!(
            fs::read_dir(format!("/proc/{pid}/root")).unwrap().count(),
            0
        );
    }
    guest.signal("TERM");
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(25), "{}", transcript.text());
    host::assert_returned(&host::nic(0));
}
