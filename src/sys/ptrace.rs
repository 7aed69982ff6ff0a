//! The live system call filters of another thread, and its core scheduling cookie.
//!
//! On entry: `CAP_SYS_ADMIN` and `CAP_SYS_PTRACE`, and no filter on the caller: the kernel gives filters to nobody else.
//! While a [`Tracee`] lives its thread may stand still; when it is gone the thread goes on as if nothing had been.
//!
//! A thread that is killed while it is traced waits for its tracer, and the whole process for that thread: its parent would
//! wait for ever for a process whose threads nobody has taken note of. So a thread that cannot be let go is waited for here.

use std::{io, thread, time::Duration};

use jailed::manifest::{Instruction, MAX_INSTRUCTIONS};

use super::offers::has_single_cores;

/// `PTRACE_SECCOMP_GET_FILTER`. *Source:* `include/uapi/linux/ptrace.h (v6.12)`.
const GET_FILTER: libc::c_uint = 0x420c;
/// How long a thread may take to stand still; it does so at its next return to user space.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_micros(200);

/// A thread that this process traces.
#[derive(Debug)]
pub struct Tracee {
    tid: libc::pid_t,
    /// Whether its end is its process's end, which is its parent's to know.
    is_leader: bool,
    /// A signal that arrived just when the thread was to stand still, and is still to be delivered; 0 for none.
    signal: usize,
    is_attached: bool,
}

/// What a thread has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// It stands still, with this status.
    Stopped(libc::c_int),
    /// It is no more.
    Ended,
}

impl Tracee {
    /// Begins to trace thread `tid` of process `pid`, and makes it stand still.
    ///
    /// # Errors
    /// The errno of `ptrace` or `waitid`; `ESRCH` for a thread that has ended, `ETIMEDOUT` for one that does not stop.
    pub fn stop(pid: u32, tid: u32) -> io::Result<Self> {
        let is_leader = pid == tid;
        let tid = libc::pid_t::try_from(tid).map_err(io::Error::other)?;
        request(libc::PTRACE_SEIZE, tid, 0, 0)?;
        let mut tracee = Self {
            tid,
            is_leader,
            signal: 0,
            is_attached: true,
        };
        request(libc::PTRACE_INTERRUPT, tid, 0, 0)?;
        tracee.signal = tracee.wait_for_stop()?;
        Ok(tracee)
    }

    /// The filters in force, the oldest first.
    ///
    /// # Errors
    /// The errno of `ptrace`: `EACCES` without privilege or under a filter of one's own, `EINVAL` where the thread has no
    /// filter or the kernel keeps none to be read (`CONFIG_CHECKPOINT_RESTORE`).
    pub fn filters(&self) -> io::Result<Vec<Vec<Instruction>>> {
        let mut filters = Vec::new();
        while let Some(filter) = self.filter(filters.len())? {
            filters.push(filter);
        }
        Ok(filters)
    }

    /// Lets the thread go on.
    ///
    /// # Errors
    /// The errno of `ptrace`: `ESRCH` for a thread that has ended meanwhile.
    pub fn release(mut self) -> io::Result<()> {
        self.is_attached = false;
        self.let_go()
    }

    /// Lets it go on, or takes note of its end.
    fn let_go(&self) -> io::Result<()> {
        let released = request(libc::PTRACE_DETACH, self.tid, 0, self.signal);
        match &released {
            // It does not stand still: it was killed, or it never stopped. The latter is let go when this process ends.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) && !self.is_leader => {
                self.await_end()?;
            }
            _ => {}
        }
        released.map(drop)
    }

    /// Waits for the end of a thread that is on its way there, but not for ever.
    fn await_end(&self) -> io::Result<()> {
        let mut waited = Duration::ZERO;
        while waited < PATIENCE {
            match self.changed(libc::WEXITED) {
                Ok(None | Some(News::Stopped(_))) => {}
                Ok(Some(News::Ended)) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
                Err(error) => return Err(error),
            }
            thread::sleep(PAUSE);
            waited += PAUSE;
        }
        Ok(())
    }

    /// The filter at `index`, the oldest being 0; `None` behind the last.
    fn filter(&self, index: usize) -> io::Result<Option<Vec<Instruction>>> {
        let len = match request(GET_FILTER, self.tid, index, 0) {
            Ok(len) => len.min(MAX_INSTRUCTIONS),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The kernel writes as many as there are: room for the most, should the answer change between the two calls.
        let mut filter = vec![Instruction::NOTHING; MAX_INSTRUCTIONS];
        let place = filter.as_mut_ptr().expose_provenance();
        let written = request(GET_FILTER, self.tid, index, place)?;
        if written != len {
            return Err(io::Error::other("the filter changed while it was read"));
        }
        filter.truncate(written);
        Ok(Some(filter))
    }

    /// The signal that it stopped for in place of our request, 0 where it was our request.
    fn wait_for_stop(&self) -> io::Result<usize> {
        const PTRACE_EVENT_STOP: libc::c_int = 128 << 8;
        let mut waited = Duration::ZERO;
        loop {
            // Without WEXITED: who ends while it is looked at is left to its parent, who wants to know how.
            if let Some(News::Stopped(status)) = self.changed(libc::WSTOPPED)? {
                let is_ours = status & PTRACE_EVENT_STOP != 0;
                return Ok(if is_ours {
                    0
                } else {
                    usize::try_from(status).unwrap_or(0)
                });
            }
            // It may have stopped since, which is told here, too: the next round takes note of it.
            if self.changed(libc::WEXITED | libc::WNOWAIT)? == Some(News::Ended) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            if waited >= PATIENCE {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            thread::sleep(PAUSE);
            waited += PAUSE;
        }
    }

    /// News of the kinds in `flags`, where there are any, and of a stop, whatever is in `flags`: of a traced thread the kernel tells
    /// those always. Does not wait.
    ///
    /// *Source:* `kernel/exit.c` (v6.12), `wait_task_stopped`.
    fn changed(&self, flags: libc::c_int) -> io::Result<Option<News>> {
        let id = libc::id_t::try_from(self.tid).map_err(io::Error::other)?;
        // SAFETY: `siginfo_t` is plain numbers, of which all zeros are a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = flags | libc::WNOHANG | libc::__WALL;
        // SAFETY: the structure is writable and outlives the call.
        if unsafe { libc::waitid(libc::P_PID, id, &raw mut info, flags) } != 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::ECHILD) => io::Error::from_raw_os_error(libc::ESRCH),
                _ => error,
            });
        }
        if info.si_signo != libc::SIGCHLD {
            return Ok(None);
        }
        Ok(Some(match info.si_code {
            libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED => News::Ended,
            // SAFETY: the kernel has filled in the fields of SIGCHLD.
            _ => News::Stopped(unsafe { info.si_status() }),
        }))
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if self.is_attached {
            // After a failure, which is told; there is nobody to tell of this one.
            self.let_go().ok();
        }
    }
}

/// Who shares a core with thread `tid`: equal cookies only, where this is not zero. `None` where no core is shared.
///
/// # Errors
/// The errno of `prctl`.
pub fn core_cookie(tid: u32) -> io::Result<Option<u64>> {
    const PR_SCHED_CORE: libc::c_int = 62;
    const GET: libc::c_ulong = 0;
    const THREAD: libc::c_ulong = 0;
    let mut cookie = 0_u64;
    let (tid, place) = (libc::c_ulong::from(tid), &raw mut cookie);
    // SAFETY: the kernel writes one 64-bit number to the place, which outlives the call.
    if unsafe { libc::prctl(PR_SCHED_CORE, GET, tid, THREAD, place) } == 0 {
        return Ok(Some(cookie));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENODEV) => Ok(None),
        // A kernel without core scheduling, which is not needed here.
        Some(libc::EINVAL) if has_single_cores() => Ok(None),
        _ => Err(error),
    }
}

/// A ptrace request whose arguments are numbers, or a place for [`MAX_INSTRUCTIONS`] instructions.
fn request(
    request: libc::c_uint,
    tid: libc::pid_t,
    address: usize,
    data: usize,
) -> io::Result<usize> {
    // SAFETY: none of the requests above writes to this process but GET_FILTER, to a place with room for the longest.
    let result = unsafe { libc::syscall(libc::SYS_ptrace, request, tid, address, data) };
    usize::try_from(result).map_err(|_negative| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::{
        env, fs,
        process::{Child, Command, Stdio},
        thread,
        time::{Duration, Instant},
    };

    use super::Tracee;

    /// The process that the tests look at: two threads that do nothing.
    #[test]
    #[ignore = "runs only as the child of the tests here"]
    fn does_nothing() {
        thread::sleep(Duration::from_secs(60));
    }

    #[expect(clippy::zombie_processes, reason = "each test waits for it")]
    fn child_with_threads() -> (Child, Vec<u32>) {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--test-threads=2"])
            .arg("sys::ptrace::tests::does_nothing")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
            let tids: Vec<u32> = tasks
                .map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap())
                .collect();
            if tids.len() > 1 {
                return (child, tids);
            }
            assert!(Instant::now() < deadline, "the child has one thread");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether a killed process goes away for its parent.
    fn ends(child: &mut Child) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    #[test]
    fn a_process_killed_while_it_is_looked_at_ends_for_its_parent() {
        let (mut child, tids) = child_with_threads();
        let stop = |tid: &u32| Tracee::stop(child.id(), *tid).unwrap();
        let stopped: Vec<Tracee> = tids.iter().map(stop).collect();
        child.kill().unwrap();
        for tracee in stopped {
            tracee.release().unwrap_err();
        }
        assert!(ends(&mut child));
    }

    #[test]
    fn a_process_killed_while_a_look_at_it_fails_ends_for_its_parent() {
        let (mut child, tids) = child_with_threads();
        let stop = |tid: &u32| Tracee::stop(child.id(), *tid).unwrap();
        let stopped: Vec<Tracee> = tids.iter().map(stop).collect();
        child.kill().unwrap();
        drop(stopped);
        assert!(ends(&mut child));
    }

    /// A stop that comes between two questions is no end. Often: it is a matter of microseconds.
    #[test]
    fn a_thread_that_stops_late_has_not_ended() {
        let (mut child, tids) = child_with_threads();
        for _ in 0..300 {
            for tid in &tids {
                let tracee = Tracee::stop(child.id(), *tid).unwrap();
                // Not yet taken note of, and asked only whether it has ended.
                assert_eq!(tracee.changed(libc::WEXITED | libc::WNOWAIT).unwrap(), None);
                tracee.release().unwrap();
            }
        }
        let [tid, ..] = tids[..] else {
            panic!("no threads")
        };
        let tid = libc::pid_t::try_from(tid).unwrap();
        super::request(libc::PTRACE_SEIZE, tid, 0, 0).unwrap();
        super::request(libc::PTRACE_INTERRUPT, tid, 0, 0).unwrap();
        let mut tracee = Tracee {
            tid,
            is_leader: true,
            signal: 0,
            is_attached: true,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        let news = loop {
            let news = tracee.changed(libc::WEXITED | libc::WNOWAIT).unwrap();
            if let Some(news) = news {
                break news;
            }
            assert!(Instant::now() < deadline, "it does not stop");
        };
        assert!(matches!(news, super::News::Stopped(_)), "{news:?}");
        tracee.signal = tracee.wait_for_stop().unwrap();
        tracee.release().unwrap();
        child.kill().unwrap();
        assert!(ends(&mut child));
    }

    /// The end is seen at once, not only when patience is at its end.
    #[test]
    fn a_thread_that_has_ended_is_not_there() {
        let (mut child, _) = child_with_threads();
        let pid = child.id();
        child.kill().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !fs::read_to_string(format!("/proc/{pid}/stat"))
            .unwrap()
            .contains(") Z ")
        {
            assert!(Instant::now() < deadline, "the child does not end");
        }
        let error = Tracee::stop(pid, pid).unwrap_err();
        assert!(matches!(
            error.raw_os_error(),
            Some(libc::ESRCH | libc::EPERM)
        ));
        assert!(ends(&mut child));
    }
}
