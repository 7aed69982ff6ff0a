//! Landlock without a rule: nothing can be opened, made or connected by path any more.
//!
//! *Source:* `include/uapi/linux/landlock.h` (Linux 6.12).

use rustix::io::{Errno, Result};

use super::confine::last_errno;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct Attributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

const CREATE_RULESET_VERSION: u32 = 1;
/// Rights on files by the first version that has them: number of version, how many rights are known then.
const FILE_RIGHTS: [(u32, u32); 4] = [(1, 13), (2, 14), (3, 15), (5, 16)];
/// From version 4 on: binding and connecting TCP sockets.
const NET_RIGHTS: u64 = 0b11;
/// From version 6 on: abstract sockets and signals.
const SCOPES: u64 = 0b11;

/// The version that the kernel has.
///
/// # Errors
/// `ENOSYS` where it is not built in, `EOPNOTSUPP` where it is switched off.
pub fn version() -> Result<u32> {
    let no_attributes = std::ptr::null::<Attributes>();
    // SAFETY: asks for a number; no structure is read.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            no_attributes,
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).map_err(|_negative| last_errno())
}

/// Refuses to the calling thread everything that version `version` can refuse. It has set `no_new_privs`.
///
/// # Errors
/// The errno of the call that failed.
pub fn deny_all(version: u32) -> Result<()> {
    let (attributes, size) = attributes(version);
    // SAFETY: the structure outlives the call, and `size` bytes of it are known to this version.
    let ruleset = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(&attributes),
            size,
            0_u32,
        )
    };
    let ruleset = i32::try_from(ruleset).map_err(|_negative| Errno::BADF)?;
    if ruleset < 0 {
        return Err(last_errno());
    }
    // SAFETY: two numbers; the descriptor was just made.
    let restricted = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0_u32) };
    let result = if restricted == 0 {
        Ok(())
    } else {
        Err(last_errno())
    };
    // SAFETY: the descriptor was made above and nobody else knows it.
    unsafe { libc::close(ruleset) };
    result
}

fn attributes(version: u32) -> (Attributes, usize) {
    let known = FILE_RIGHTS.iter().rfind(|(since, _)| *since <= version);
    let rights = known.map_or(0, |(_, count)| (1_u64 << count) - 1);
    let since = |first, bits| if version >= first { bits } else { 0 };
    let attributes = Attributes {
        handled_access_fs: rights,
        handled_access_net: since(4, NET_RIGHTS),
        scoped: since(6, SCOPES),
    };
    let words = match version {
        ..=3 => 1,
        4..=5 => 2,
        6.. => 3,
    };
    (attributes, words * size_of::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_asked_for_all_that_it_knows_and_no_more() {
        for (version, files, net, scopes, size) in [
            (1, 0x1FFF, 0, 0, 8),
            (2, 0x3FFF, 0, 0, 8),
            (3, 0x7FFF, 0, 0, 8),
            (4, 0x7FFF, 3, 0, 16),
            (5, 0xFFFF, 3, 0, 16),
            (6, 0xFFFF, 3, 3, 24),
            (8, 0xFFFF, 3, 3, 24),
        ] {
            let (found, len) = attributes(version);
            let found = (
                found.handled_access_fs,
                found.handled_access_net,
                found.scoped,
                len,
            );
            assert_eq!(found, (files, net, scopes, size), "version {version}");
        }
    }
}
