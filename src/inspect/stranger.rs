//! Threads that are none of ours: what their live filters let them call.
//!
//! On entry and on exit as for all of [`super`].

use std::{collections::BTreeSet, io};

use super::compare;
use crate::sys::ptrace::Tracee;

/// The numbers below 1,024 of the system calls that thread `tid` of process `pid` can make with some arguments, as the
/// filters say that are in force now.
///
/// # Errors
/// The errno of `ptrace` or `waitid`: `EINVAL` for a thread without a filter, `EACCES` without privilege or under a filter
/// of one's own.
pub fn reachable_calls(pid: u32, tid: u32) -> io::Result<BTreeSet<u32>> {
    let tracee = Tracee::stop(pid, tid)?;
    let filters = tracee.filters()?;
    // Judging comes after, when it runs again.
    tracee.release()?;
    Ok(compare::reachable(&filters))
}

#[cfg(test)]
mod tests {
    use jailed::manifest::Instruction;

    use super::{compare, reachable_calls};
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
        let reached = compare::reachable(&[all_but_one()]);
        assert_eq!(reached.len(), 1023);
        assert!(!reached.contains(&FORBIDDEN));
    }

    #[test]
    fn a_call_that_needs_an_argument_is_reached() {
        let filter = seven_where(16, 0x1234);
        assert_eq!(
            compare::reachable(&[filter])
                .into_iter()
                .collect::<Vec<_>>(),
            [7]
        );
    }

    /// Allows call 7 where word `offset` of it is `value`, and nothing else.
    fn seven_where(offset: u32, value: u32) -> Vec<Instruction> {
        vec![
            Instruction::new(LOAD_NUMBER, 0, 0, 0),
            Instruction::new(IS_EQUAL, 0, 2, 7),
            Instruction::new(LOAD_NUMBER, 0, 0, offset),
            Instruction::new(IS_EQUAL, 1, 0, value),
            Instruction::new(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO),
            Instruction::new(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        ]
    }

    #[test]
    fn a_call_is_reached_by_what_several_filters_allow_together() {
        let (first, second) = (16, 24);
        let reached = |filters: &[Vec<Instruction>]| compare::reachable(filters);
        let together = [seven_where(first, 0x1234), seven_where(second, 0x5678)];
        assert_eq!(reached(&together), [7].into());
        let never = [seven_where(first, 0x1234), seven_where(first, 0x5678)];
        assert_eq!(reached(&never), [].into());
    }

    #[test]
    fn a_call_is_reached_that_depends_on_where_it_is_made() {
        let (low, high) = (8, 12);
        let filters = [seven_where(low, 0x1000), seven_where(high, 0x7FFF)];
        assert_eq!(compare::reachable(&filters), [7].into());
    }

    #[test]
    fn a_call_with_more_ways_than_are_tried_counts_as_reached() {
        // Two comparisons of a word triple the ways; none of them ends well.
        let mut filter = vec![
            Instruction::new(LOAD_NUMBER, 0, 0, 0),
            Instruction::new(IS_EQUAL, 1, 0, 7),
            Instruction::new(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO),
        ];
        for argument in 0..12 {
            filter.push(Instruction::new(LOAD_NUMBER, 0, 0, 16 + 4 * argument));
            filter.push(Instruction::new(IS_EQUAL, 0, 0, 1));
            filter.push(Instruction::new(IS_EQUAL, 0, 0, 2));
        }
        filter.push(Instruction::new(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO));
        assert_eq!(compare::reachable(&[filter]), [7].into());
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
