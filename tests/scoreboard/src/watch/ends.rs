//! The end of processes, without looking for it again and again: that would take time from those who are to end.
//!
//! A process has ended when its last thread has: its files are closed and its memory is given back by then.
//!
//! *Source:* `kernel/exit.c` (`do_exit`, `exit_notify`) and `pidfd_poll` in `fs/pidfs.c (v6.12)`.

use std::{
    collections::BTreeSet,
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

/// Processes whose end can be awaited.
#[derive(Debug)]
pub struct Ends {
    left: Vec<OwnedFd>,
}

impl Ends {
    /// Of those of `pids` that are there still.
    ///
    /// # Errors
    /// The errno of `pidfd_open`.
    pub fn of(pids: &BTreeSet<u32>) -> io::Result<Self> {
        let mut left = Vec::new();
        for pid in pids {
            let pid = i32::try_from(*pid).map_err(io::Error::other)?;
            let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
            match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(process) => left.push(process),
                Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Self { left })
    }

    /// Waits until all of them have ended; whether they did in time.
    ///
    /// # Errors
    /// The errno of `poll`.
    pub fn wait(mut self, patience: Duration) -> io::Result<bool> {
        let begin = Instant::now();
        while !self.left.is_empty() {
            let Some(rest) = patience.checked_sub(begin.elapsed()) else {
                return Ok(false);
            };
            let rest = Timespec::try_from(rest).map_err(io::Error::other)?;
            let of = |process| PollFd::new(process, PollFlags::IN);
            let mut polled: Vec<_> = self.left.iter().map(of).collect();
            match poll(&mut polled, Some(&rest)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut has_ended = polled
                .iter()
                .map(|process| !process.revents().is_empty())
                .collect::<Vec<_>>()
                .into_iter();
            self.left.retain(|_| !has_ended.next().unwrap_or(false));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_last_end_is_awaited() {
        let mut children = ["0", "0.3"].map(|seconds| {
            let mut sleep = Command::new("sleep");
            sleep.arg(seconds).spawn().expect("sleep starts")
        });
        let pids = children.iter().map(std::process::Child::id).collect();
        let begin = Instant::now();
        assert!(
            Ends::of(&pids)
                .unwrap()
                .wait(Duration::from_secs(30))
                .unwrap()
        );
        let taken = begin.elapsed();
        assert!(taken >= Duration::from_millis(250), "{taken:?}");
        for child in &mut children {
            child.wait().unwrap();
        }
        // Nobody has these numbers any more.
        assert!(Ends::of(&pids).unwrap().left.is_empty());
    }

    #[test]
    fn one_that_does_not_end_is_told() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let ends = Ends::of(&BTreeSet::from([child.id()])).unwrap();
        assert!(!ends.wait(Duration::from_millis(20)).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
