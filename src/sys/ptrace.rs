//! The live system call filters of another thread, and its core scheduling cookie.
//!
//! On entry: `CAP_SYS_ADMIN` and `CAP_SYS_PTRACE`, and no filter on the caller: the kernel gives filters to nobody else.
//! While a [`Tracee`] lives its thread may stand still; when it is gone the thread goes on as if nothing had been.

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
    /// A signal that arrived just when the thread was to stand still, and is still to be delivered; 0 for none.
    signal: usize,
    is_attached: bool,
}

impl Tracee {
    /// Begins to trace `tid`, and makes it stand still.
    ///
    /// # Errors
    /// The errno of `ptrace` or `waitid`; `ESRCH` for a thread that has ended, `ETIMEDOUT` for one that does not stop.
    pub fn stop(tid: u32) -> io::Result<Self> {
        let tid = libc::pid_t::try_from(tid).map_err(io::Error::other)?;
        request(libc::PTRACE_SEIZE, tid, 0, 0)?;
        let mut tracee = Self {
            tid,
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
        request(libc::PTRACE_DETACH, self.tid, 0, self.signal).map(drop)
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
        let id = libc::id_t::try_from(self.tid).map_err(io::Error::other)?;
        let mut waited = Duration::ZERO;
        loop {
            // SAFETY: `siginfo_t` is plain numbers, of which all zeros are a value.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // Without WEXITED: who ends while it is looked at is left to its parent, who wants to know how.
            let flags = libc::WSTOPPED | libc::WNOHANG | libc::__WALL;
            // SAFETY: the structure is writable and outlives the call.
            if unsafe { libc::waitid(libc::P_PID, id, &raw mut info, flags) } != 0 {
                let error = io::Error::last_os_error();
                return Err(match error.raw_os_error() {
                    Some(libc::ECHILD) => io::Error::from_raw_os_error(libc::ESRCH),
                    _ => error,
                });
            }
            if info.si_signo == libc::SIGCHLD {
                // SAFETY: the kernel has filled in the fields of SIGCHLD.
                let status = unsafe { info.si_status() };
                let is_ours = status & PTRACE_EVENT_STOP != 0;
                return Ok(if is_ours {
                    0
                } else {
                    usize::try_from(status).unwrap_or(0)
                });
            }
            if waited >= PATIENCE {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            thread::sleep(PAUSE);
            waited += PAUSE;
        }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if self.is_attached {
            // After a failure. A thread that does not stand still cannot be let go; the kernel does so when this
            // process ends.
            request(libc::PTRACE_DETACH, self.tid, 0, self.signal).ok();
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
