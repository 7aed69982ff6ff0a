//! Descriptors of a process to be started: each at its number, and no other.
//!
//! On entry of [`Places::place`]: the child, with all that its parent has open. On exit: it has the descriptors of its
//! order, and two more that exec closes.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::io::Errno;

use super::Order;
use crate::sys::confine::last_errno;

/// Where the child keeps what: the numbers of its descriptors, before and after they are in place.
#[derive(Debug)]
pub(super) struct Places {
    sources: Vec<RawFd>,
    parked: Vec<RawFd>,
    /// Above every source and every target, so that no duplication overwrites a source not yet used.
    above: RawFd,
    pub(super) program: RawFd,
    socket: RawFd,
}

impl Places {
    pub(super) fn new(order: &Order<'_>, socket: RawFd) -> Result<Self, Errno> {
        let program = order.program.as_raw_fd();
        // 0, 1 and 2 first.
        let null = order.null.as_raw_fd();
        let mut sources = vec![null; usize::try_from(order.first).unwrap_or(0)];
        sources.extend(order.fds.iter().map(AsRawFd::as_raw_fd));
        let count = RawFd::try_from(sources.len()).map_err(|_many| Errno::MFILE)?;
        let highest = sources.iter().copied().chain([program, socket, count + 2]);
        Ok(Self {
            above: highest.max().unwrap_or(count) + 1,
            parked: vec![-1; sources.len()],
            sources,
            program,
            socket,
        })
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        // SAFETY: open until exec, as `place` left it or the parent gave it.
        unsafe { BorrowedFd::borrow_raw(self.socket) }
    }

    /// Puts every descriptor at its number, the program and the socket right behind them to be closed by exec, and
    /// closes all others.
    pub(super) fn place(&mut self, order: &Order<'_>) -> Result<(), Errno> {
        for (park, source) in self.parked.iter_mut().zip(&self.sources) {
            *park = duplicate_above(*source, self.above)?;
        }
        self.program = duplicate_above(order.program.as_raw_fd(), self.above)?;
        self.socket = duplicate_above(self.socket, self.above)?;
        let mut target = 0;
        for park in &self.parked {
            // SAFETY: both are numbers; the target's earlier meaning in this child is not needed any more.
            if unsafe { libc::dup2(*park, target) } < 0 {
                return Err(last_errno());
            }
            target += 1;
        }
        for kept in [&mut self.program, &mut self.socket] {
            // SAFETY: as above.
            if unsafe { libc::dup3(*kept, target, libc::O_CLOEXEC) } < 0 {
                return Err(last_errno());
            }
            *kept = target;
            target += 1;
        }
        // SAFETY: closes numbers that nothing in this child uses.
        let closed = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                target.unsigned_abs(),
                libc::c_uint::MAX,
                0,
            )
        };
        if closed == 0 {
            Ok(())
        } else {
            Err(last_errno())
        }
    }
}

fn duplicate_above(source: RawFd, above: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: duplicating a number; close-on-exec keeps the copy from surviving the exec.
    let fd = unsafe { libc::fcntl(source, libc::F_DUPFD_CLOEXEC, above) };
    if fd < 0 { Err(last_errno()) } else { Ok(fd) }
}
