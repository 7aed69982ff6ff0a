//! What only calls tell of a process, not files: the live filters of each thread, who shares its core, and whether its
//! descriptors are the keeper's very own.

use jailed::manifest::Instruction;

use super::{
    expected::GivenFile,
    facts::{Known, Unread},
    moment::{self, Still},
};
use crate::sys::{
    ptrace::{Tracee, core_cookie},
    same::is_same_file,
};

/// The filters of one thread, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ThreadFilters {
    /// The thread.
    pub(super) tid: u32,
    /// Its programs.
    pub(super) filters: Vec<Vec<Instruction>>,
}

/// What calls told.
#[derive(Clone, Debug)]
pub(super) struct Live {
    /// The filters of each thread that runs code of ours.
    pub(super) filters: Known<Vec<ThreadFilters>>,
    /// The core scheduling cookie; `None` inside where no core is shared.
    pub(super) cookie: Known<Option<u64>>,
    /// For descriptors that were given: whether the keeper's is the same opened file; `None` inside where the kernel cannot
    /// tell (`CONFIG_KCMP`).
    pub(super) same: Vec<(u32, Known<Option<bool>>)>,
}

impl Live {
    /// Reads them of process `pid`, which stands `still`; `given` are files that `keeper` has, too.
    #[must_use]
    pub(super) fn read(
        pid: u32,
        still: &Known<Still>,
        keeper: Option<u32>,
        given: &[GivenFile],
    ) -> Self {
        let same = |given: &GivenFile| {
            let (number, theirs, keeper) = (given.number?, given.keepers?, keeper?);
            let same = is_same_file((pid, number), (keeper, theirs));
            let same = same.map_err(|error| Unread {
                source: format!("kcmp of descriptor {number} of {pid} and {theirs} of {keeper}"),
                why: error.to_string(),
            });
            Some((number, same))
        };
        Self {
            filters: still.as_ref().map_err(Clone::clone).and_then(filters),
            cookie: core_cookie(pid).map_err(|error| Unread {
                source: format!("prctl(PR_SCHED_CORE) of {pid}"),
                why: error.to_string(),
            }),
            same: given.iter().filter_map(same).collect(),
        }
    }
}

fn filters(still: &Still) -> Known<Vec<ThreadFilters>> {
    let of = |(tid, tracee): &(u32, Tracee)| {
        let filters = tracee.filters();
        let filters =
            filters.map_err(|error| moment::unread(*tid, "PTRACE_SECCOMP_GET_FILTER", &error))?;
        Ok(ThreadFilters { tid: *tid, filters })
    };
    still.threads().iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::process::ExitStatusExt,
        process::ExitStatus,
        thread,
        time::{Duration, Instant},
    };

    use jailed::manifest::{Instruction, Phase, Role, Rules, program, start_page};

    use crate::{
        inspect::compare::compare_test::guest,
        sys::{
            filtered::{pause, timed_wait, wait},
            ptrace::Tracee,
        },
    };

    /// How a child ends that waits with a limit under these filters and D's, and is interrupted by `interrupt` meanwhile.
    fn interrupted(above: &[Vec<Instruction>], interrupt: impl FnOnce(libc::pid_t)) -> ExitStatus {
        let rules = Rules::of(Role::Device, Phase::Run, &guest(1, 1));
        let own = program(&rules).instructions().to_vec();
        // D's comes last: it lets no other be put on.
        let filters: Vec<Vec<Instruction>> = above.iter().cloned().chain([own]).collect();
        let place = usize::try_from(start_page::WINDOW).unwrap();
        let child = timed_wait(&filters, place).unwrap();
        until_it_waits(child);
        interrupt(child);
        wait(child).unwrap()
    }

    /// Until the child is in its wait, however slow the machine is.
    fn until_it_waits(child: libc::pid_t) {
        let call = format!("/proc/{child}/syscall");
        let futex = format!("{} ", libc::SYS_futex);
        let begin = Instant::now();
        while !fs::read_to_string(&call)
            .unwrap_or_default()
            .starts_with(&futex)
        {
            assert!(
                begin.elapsed().as_secs() < 60,
                "it has not waited in a minute"
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// A filter that allows everything but the call by which the kernel has a wait go on.
    fn without_restart() -> Vec<Instruction> {
        const LOAD_NUMBER: u16 = 0x20;
        const IS_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        let one = |code, if_true, operand| Instruction {
            code,
            if_true,
            if_false: 0,
            operand,
        };
        let number = u32::try_from(libc::SYS_restart_syscall).unwrap();
        vec![
            one(LOAD_NUMBER, 0, 0),
            one(IS_EQUAL, 1, number),
            one(RETURN, 0, libc::SECCOMP_RET_ALLOW),
            one(RETURN, 0, libc::SECCOMP_RET_KILL_PROCESS),
        ]
    }

    /// What being stopped does to a wait, whoever stops it, and whoever may.
    #[test]
    fn a_timed_wait_of_d_goes_on_after_a_stop() {
        let stopped = |child| pause(child).unwrap();
        let status = interrupted(&[], stopped);
        assert_eq!(status.code(), Some(7), "{status}");
        // Control: the wait was interrupted, and it is the rule for this one call that lets it go on.
        let status = interrupted(&[without_restart()], stopped);
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
    }

    /// D waits with a limit while its console is full. To look at it interrupts the wait, and the kernel has it go on by
    /// a call of its own: one that the filter forbids would end D.
    #[test]
    fn a_timed_wait_of_d_survives_being_looked_at() {
        let look = |child: libc::pid_t| {
            Tracee::stop(child.unsigned_abs(), child.unsigned_abs())
                .and_then(Tracee::release)
                .expect("a process may trace its own children");
        };
        let status = interrupted(&[], look);
        assert_eq!(status.code(), Some(7), "{status}");
        let status = interrupted(&[without_restart()], look);
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
    }
}
