//! Which boot of the host this is. What is kept of VFs is of one boot: to take an unreadable one for another would end
//! leases, and leave steps as they are that are to be undone.

use crate::error::{ErrorId, Report};

/// Shows that the boot is known.
///
/// # Errors
/// `host-unreadable`.
pub(super) fn check(boot: &str) -> Result<(), Report> {
    match boot.is_empty() {
        false => Ok(()),
        true => Err(Report::new(
            ErrorId::HostUnreadable,
            "it cannot be told whether the host has booted since its VFs were written down",
            "/proc/sys/kernel/random/boot_id cannot be read, or is empty",
            "mount /proc, and run as root",
        )),
    }
}
