//! The second thread: devices that fail or are asked back, and bytes for the guest's console.

use crate::{
    handoff::{DeviceFds, Ending, Handoff, MAX_FUNCTIONS},
    ring::{DeviceCall, DeviceFailure, DeviceSide},
    sys::{
        file,
        poll::{self, Waited},
        syscall::{Errno, Fd, exit_group},
    },
};

/// How long to wait for the guest to read its console.
const FULL_MS: u32 = 10;

/// What the thread needs.
#[derive(Debug)]
pub struct Watch {
    ring: &'static DeviceSide,
    fds: DeviceFds,
    functions: u32,
    has_console: bool,
}

impl Watch {
    /// For a checked `handoff`.
    #[must_use]
    pub const fn new(handoff: &Handoff, fds: DeviceFds, ring: &'static DeviceSide) -> Self {
        Self {
            ring,
            fds,
            functions: handoff.function_count,
            has_console: handoff.has_console == 1,
        }
    }

    /// The descriptors that fire once: error and request of each function.
    fn endings(&self) -> impl Iterator<Item = (Fd, Ending, DeviceFailure)> {
        (0..self.functions).zip(0..).flat_map(|(number, function)| {
            let failure = |call| DeviceFailure {
                call,
                errno: 0,
                function,
            };
            let (error, request) = (DeviceCall::ErrorInterrupt, DeviceCall::RequestInterrupt);
            [
                (
                    Fd::new(self.fds.error(number)),
                    Ending::DeviceFailed,
                    failure(error),
                ),
                (
                    Fd::new(self.fds.request(number)),
                    Ending::DeviceRequested,
                    failure(request),
                ),
            ]
        })
    }
}

/// Watches until the process ends.
pub fn run(watch: &'static Watch, _index: usize) -> ! {
    let mut is_open = watch.has_console;
    loop {
        let has_room = watch.ring.console_has_room();
        let mut waited = [Waited::NOTHING; 1 + 2 * MAX_FUNCTIONS];
        let (console, events) = waited.split_at_mut(1);
        for place in console.iter_mut().filter(|_| is_open && has_room) {
            *place = Waited::readable(Fd::new(DeviceFds::CONSOLE_IN));
        }
        for (place, (fd, ..)) in events.iter_mut().zip(watch.endings()) {
            *place = Waited::readable(fd);
        }
        let timeout_ms = (is_open && !has_room).then_some(FULL_MS);
        if poll::wait(&mut waited, timeout_ms).is_err() {
            // Only a wrong argument could do this.
            exit_group(Ending::Bug as u8);
        }
        let (console, events) = waited.split_at(1);
        if let Some((_, (_, ending, failure))) = events
            .iter()
            .zip(watch.endings())
            .find(|(e, _)| e.has_fired())
        {
            watch.ring.set_failure(failure);
            exit_group(ending as u8);
        }
        if console.iter().any(Waited::has_fired) {
            is_open = pass_console(watch.ring);
        }
    }
}

/// Moves bytes to the guest while there are some and there is room; false where no more will come.
fn pass_console(ring: &DeviceSide) -> bool {
    let mut byte = [0];
    // As many as the queue holds, so that device events get their turn.
    for _ in 0..4096 {
        if !ring.console_has_room() {
            return true;
        }
        match file::read(Fd::new(DeviceFds::CONSOLE_IN), &mut byte) {
            Ok(0) => return false,
            Ok(_) => {
                let [byte] = byte;
                // There was room: only this thread puts. A V that says otherwise loses its own byte.
                core::hint::black_box(ring.console_give(byte));
            }
            Err(Errno::AGAIN) => return true,
            Err(_) => return false,
        }
    }
    true
}
