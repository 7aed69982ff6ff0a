//! Threads that are none of ours: what their live filters let them call.
//!
//! On entry and on exit as for all of [`super`].

use std::{collections::BTreeSet, io};

use super::reach;
use crate::sys::ptrace::Tracee;

/// The numbers below 1,024 of the system calls that thread `tid` of process `pid` can make with some arguments, as the
/// filters say that are in force now, by this processor's own convention. It tells of all of them, and of more where
/// filters let a call through for arguments that exclude each other, or leave it to another process.
///
/// # Errors
/// The errno of `ptrace` or `waitid`: `EINVAL` for a thread without a filter, `EACCES` without privilege or under a filter
/// of one's own.
pub fn reachable_calls(pid: u32, tid: u32) -> io::Result<BTreeSet<u32>> {
    let tracee = Tracee::stop(pid, tid)?;
    let filters = tracee.filters()?;
    // Judging comes after, when it runs again.
    tracee.release()?;
    Ok(reach::reachable(&filters))
}

#[cfg(test)]
mod tests {
    use jailed::manifest::Instruction;

    use super::{reach, reachable_calls};
    use crate::sys::filtered::sleeper;

    const LOAD_NUMBER: u16 = 0x20;
    const IS_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const FORBIDDEN: u32 = 1000;

    /// A filter that forbids a single call and allows the rest, as those of other VMMs are.
    fn all_but_one() -> Vec<Instruction> {
        vec![
            Instruction::new(LOAD_NUMBER, 0, 0, 0),
            Instruction::new(IS_EQUAL, 0, 1, FORBIDDEN),
            Instruction::new(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
            Instruction::new(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        ]
    }

    #[test]
    fn what_is_not_forbidden_is_reached() {
        let reached = reach::reachable(&[all_but_one()]);
        assert_eq!(reached.len(), 1023);
        assert!(!reached.contains(&FORBIDDEN));
    }

    #[test]
    fn a_call_that_needs_an_argument_is_reached() {
        let first_argument = 16;
        let filter = vec![
            Instruction::new(LOAD_NUMBER, 0, 0, 0),
            Instruction::new(IS_EQUAL, 0, 2, 7),
            Instruction::new(LOAD_NUMBER, 0, 0, first_argument),
            Instruction::new(IS_EQUAL, 1, 0, 0x1234),
            Instruction::new(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO),
            Instruction::new(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        assert_eq!(
            reach::reachable(&[filter]).into_iter().collect::<Vec<_>>(),
            [7]
        );
    }

    /// Needs what the supervisor has.
    #[test]
    fn the_live_filter_of_a_stranger_is_judged() {
        let mut child = sleeper(&[all_but_one()]).unwrap();
        let reached = reachable_calls(child.id(), child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        match reached {
            Ok(reached) => assert!(reached.len() == 1023 && !reached.contains(&FORBIDDEN)),
            // Not as root, or where this test itself runs under a filter.
            Err(error) => assert!(
                matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)),
                "{error}"
            ),
        }
    }
}
