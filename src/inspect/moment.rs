//! Processes that stand still, so that all that is read of them is of one moment.
//!
//! A thread stands still at its next return to user space. One that is in `KVM_RUN` or waits goes on afterwards as after a
//! signal that nobody handles.

use super::facts::{Known, Proc, Unread};
use crate::sys::ptrace::Tracee;

/// How often the threads are listed: one that began to run before the last was stopped may have made another.
const ROUNDS: usize = 8;

/// A process all of whose threads stand still, until it is let go.
#[derive(Debug)]
pub(super) struct Still {
    threads: Vec<(u32, Tracee)>,
}

impl Still {
    /// Stops the threads of `pid`, until none is left that runs.
    pub(super) fn stop(proc: &Proc, pid: u32) -> Known<Self> {
        let mut still = Self {
            threads: Vec::new(),
        };
        for _ in 0..ROUNDS {
            let all = proc.stoppable(pid)?;
            still.threads.retain(|(tid, _)| all.contains(tid));
            let is_stopped = |tid: &u32| still.threads.iter().any(|(own, _)| own == tid);
            let running: Vec<u32> = all.into_iter().filter(|tid| !is_stopped(tid)).collect();
            if running.is_empty() {
                return Ok(still);
            }
            for tid in running {
                match Tracee::stop(pid, tid) {
                    Ok(tracee) => still.threads.push((tid, tracee)),
                    // It has ended since it was listed.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(error) => return Err(unread(tid, "stopping it", &error)),
                }
            }
        }
        Err(Unread {
            source: format!("process {pid}"),
            why: "it starts threads as fast as they are stopped".to_owned(),
        })
    }

    /// The threads, with what traces them.
    pub(super) fn threads(&self) -> &[(u32, Tracee)] {
        &self.threads
    }

    /// Lets all of them go on.
    pub(super) fn release(self) -> Known<()> {
        let released = self.threads.into_iter().map(|(tid, tracee)| {
            let released = tracee.release();
            released.map_err(|error| unread(tid, "letting it go on", &error))
        });
        // All of them, also behind one that cannot be let go.
        released.fold(Ok(()), Result::and)
    }
}

pub(super) fn unread(tid: u32, doing: &str, error: &std::io::Error) -> Unread {
    Unread {
        source: format!("ptrace of thread {tid}, {doing}"),
        why: error.to_string(),
    }
}
