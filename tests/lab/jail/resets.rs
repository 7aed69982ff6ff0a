//! Resets of several devices: a thread waits for each, beside the others.

use std::{fs, path::Path};

use super::{CGROUPS, read, stop};
use crate::{guest::GuestFile, host};

/// The kernel counts each thread that a cgroup had no room for: none is, when a guest of four VFs starts, reboots and ends.
#[test]
#[ignore = "needs a lab host"]
fn every_thread_that_waits_for_a_reset_finds_room() {
    let refused = || {
        let text = fs::read_to_string(Path::new(CGROUPS).join("narrows/pids.events"));
        let text = text.unwrap_or_else(|_| "max 0".to_owned());
        let line = text.lines().find_map(|line| line.strip_prefix("max "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let before = refused();
    let mut file = GuestFile::small("jail-room", "reboot");
    for bdf in [host::nic(0), host::nic(1), host::nvme(0), host::nvme(1)] {
        file = file.device(&bdf);
    }
    let mut guest = file.start();
    for _ in 0..2 {
        guest.wait_for("GUEST done");
    }
    let folder = Path::new(CGROUPS).join("narrows/jail-room/supervisor");
    guest.wait_for("GUEST init=yes");
    assert_eq!(read(folder.join("pids.max")).trim(), "2");
    stop(guest);
    assert_eq!(refused() - before, 0, "threads were refused");
}
