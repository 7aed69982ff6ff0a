//! What only calls tell of a process, not files: the live filters of each thread, and who shares its core.
//!
//! A thread stands still for as long as its filters are copied. One that is in `KVM_RUN` or waits goes on as after a
//! signal that nobody handles.

use jailed::manifest::Instruction;

use super::facts::{Facts, Known, Unread};
use crate::sys::ptrace::{Tracee, core_cookie};

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
}

impl Live {
    /// Reads both of the process that `facts` are about.
    #[must_use]
    pub(super) fn read(facts: &Facts) -> Self {
        Self {
            filters: filters(facts),
            cookie: core_cookie(facts.pid).map_err(|error| Unread {
                source: format!("prctl(PR_SCHED_CORE) of {}", facts.pid),
                why: error.to_string(),
            }),
        }
    }
}

fn filters(facts: &Facts) -> Known<Vec<ThreadFilters>> {
    let threads = facts.threads.clone()?;
    // The kernel's workers never come to user space: they can neither make a call nor be stopped before one.
    let threads = threads.iter().filter(|thread| thread.is_worker != Ok(true));
    threads
        .map(|thread| {
            let tid = thread.tid;
            let unread = |doing: &str, error: std::io::Error| Unread {
                source: format!("ptrace of thread {tid}, {doing}"),
                why: error.to_string(),
            };
            let tracee = Tracee::stop(tid).map_err(|error| unread("stopping it", error))?;
            let filters = tracee.filters();
            let released = tracee.release();
            let filters = filters.map_err(|error| unread("PTRACE_SECCOMP_GET_FILTER", error))?;
            released.map_err(|error| unread("letting it go on", error))?;
            Ok(ThreadFilters { tid, filters })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use jailed::manifest::{Phase, Role, Rules, program, start_page};

    use crate::{
        inspect::compare::compare_test::guest,
        sys::{
            filtered::{timed_wait, wait},
            ptrace::Tracee,
        },
    };

    /// D waits with a limit while its console is full. To look at it interrupts the wait, and the kernel has it go on by
    /// a call of its own: one that the filter forbids would end D.
    #[test]
    fn a_timed_wait_of_d_survives_being_looked_at() {
        let rules = Rules::of(Role::Device, Phase::Run, &guest(1, 1));
        let filter = program(&rules).instructions().to_vec();
        let place = usize::try_from(start_page::WINDOW).unwrap();
        let child = timed_wait(&[filter], place).unwrap();
        thread::sleep(Duration::from_millis(150));
        let looked = Tracee::stop(child.unsigned_abs()).and_then(Tracee::release);
        let status = wait(child).unwrap();
        assert_eq!(status.code(), Some(7), "{status}");
        if let Err(error) = looked {
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        }
    }
}
