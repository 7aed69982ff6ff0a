//! The console's last bytes: those that D has not passed on when V has ended.
//!
//! D passes them on by itself, as fast as the supervisor takes them, and the ring says how many are left. They are few, but
//! the last that a guest has to say. What the ring says is V's and D's word: it decides nothing but whether to wait.

use std::{
    io,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{ending::RunEnd, process::Process};

/// How long the console's receiver may take in all: whoever is at the other end holds no device longer than this.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often to look.
const INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};

/// Whether the last bytes are waited for: where the guest or the operator has ended it. Where anything has failed or is
/// under suspicion, or a device is asked for, nothing is kept up for them.
pub(super) const fn is_due(end: &RunEnd) -> bool {
    end.is_the_guests() || matches!(end, RunEnd::Stopped)
}

/// Waits until `left` says that no bytes are left, D has ended, or it has been long enough: how many bytes are left.
///
/// # Errors
/// The errno of `poll` or of waiting for D.
pub(super) fn wait(device: &mut Process, left: impl Fn() -> u32) -> io::Result<u32> {
    let begin = Instant::now();
    loop {
        let bytes = left();
        if bytes == 0 || begin.elapsed() >= PATIENCE || device.ended()?.is_some() {
            return Ok(bytes);
        }
        let mut waits = [PollFd::new(device.pidfd(), PollFlags::IN)];
        match poll(&mut waits, Some(&INTERVAL)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::{super::ending::Role, *};
    use crate::sys::child::Child;

    fn asleep() -> Process {
        Process::new(Role::Device, Child::asleep())
    }

    #[test]
    fn nobody_waits_for_a_console_that_has_said_all() {
        let mut device = asleep();
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            0
        };
        assert_eq!(wait(&mut device, look).unwrap(), 0);
        assert_eq!(looks.get(), 1);
        device.stop().unwrap();
    }

    #[test]
    fn a_slow_receiver_has_time_to_take_the_rest() {
        let mut device = asleep();
        let begin = Instant::now();
        let taking = Duration::from_millis(200);
        let left = || u32::from(begin.elapsed() < taking);
        assert_eq!(wait(&mut device, left).unwrap(), 0);
        assert!(begin.elapsed() >= taking);
        device.stop().unwrap();
    }

    #[test]
    fn a_receiver_that_takes_nothing_is_not_waited_for_for_ever() {
        let mut device = asleep();
        let begin = Instant::now();
        assert_eq!(wait(&mut device, || 7).unwrap(), 7);
        assert!(begin.elapsed() >= PATIENCE);
        // Nor is one who has ended.
        device.stop().unwrap();
        let begin = Instant::now();
        assert_eq!(wait(&mut device, || 7).unwrap(), 7);
        assert!(begin.elapsed() < PATIENCE);
    }

    #[test]
    fn nothing_is_waited_for_where_a_device_has_failed_or_is_wanted() {
        for end in [RunEnd::PoweredOff, RunEnd::Panicked, RunEnd::Stopped] {
            assert!(is_due(&end), "{end:?}");
        }
        let killed = RunEnd::Killed {
            role: Role::Vcpu,
            signal: 9,
            call: None,
        };
        let failed = RunEnd::DeviceFailed { bdf: None };
        let wanted = RunEnd::DeviceRequested { bdf: None };
        for end in [killed, failed, wanted, RunEnd::Abandoned] {
            assert!(!is_due(&end), "{end:?}");
        }
    }
}
