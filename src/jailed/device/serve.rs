//! D's loop: a request, the model's outcome, the calls it needs, the reply. Between them, the console's bytes.

use super::{
    brake::ResetBrake,
    console::ConsoleOut,
    function::Function,
    hardware::Hardware,
    outcome::{Answer, Effect},
};
use crate::{
    handoff::{DeviceFds, Ending, MAX_FUNCTIONS},
    ring::{DeviceFailure, DeviceSide, Next, PeerBroken, Reply, Request},
    sys::{
        syscall::{Errno, Fd, exit_group},
        thread::forever,
    },
};

/// The thread that answers requests.
#[derive(Debug)]
pub struct Server {
    ring: &'static DeviceSide,
    /// Each in pages of its own: what a guest does not have takes none.
    functions: [Option<&'static mut (Function, Hardware, ResetBrake)>; MAX_FUNCTIONS],
    console: ConsoleOut,
}

impl Server {
    /// A server of no functions yet.
    #[must_use]
    pub const fn new(ring: &'static DeviceSide, has_console: bool) -> Self {
        Self {
            ring,
            functions: [const { None }; MAX_FUNCTIONS],
            console: ConsoleOut::new(if has_console {
                Some(Fd::new(DeviceFds::CONSOLE_OUT))
            } else {
                None
            }),
        }
    }

    /// Adds function `index`.
    ///
    /// # Errors
    /// The errno of `mmap` or `mseal`.
    pub fn add(
        &mut self,
        index: usize,
        function: Function,
        hardware: Hardware,
    ) -> Result<(), Errno> {
        if let Some(place) = self.functions.get_mut(index) {
            *place = Some(forever((function, hardware, ResetBrake::new()))?);
        }
        Ok(())
    }

    /// Answers until the process ends.
    pub fn serve(&mut self) -> ! {
        let mut last_vcpu = 0;
        loop {
            let timeout_ms = self.console.drain(self.ring);
            match self.ring.next_request(last_vcpu, timeout_ms) {
                Ok(Next::Request { vcpu, request }) => {
                    match self.answer(&request) {
                        Ok(reply) => self.ring.reply(vcpu, &reply),
                        Err(failure) => {
                            self.ring.set_failure(failure);
                            exit_group(Ending::DeviceCallFailed as u8);
                        }
                    }
                    last_vcpu = vcpu;
                }
                Ok(Next::Console | Next::Nothing) => self.console.try_again(),
                Err(PeerBroken) => exit_group(Ending::PeerBroken as u8),
            }
        }
    }

    /// Does what a request asks, in order: effects, publication, value.
    fn answer(&mut self, request: &Request) -> Result<Reply, DeviceFailure> {
        let Some((function, hardware, brake)) = self
            .functions
            .get_mut(request.function)
            .and_then(Option::as_mut)
        else {
            return Ok(Reply::default());
        };
        let outcome = function.access(request);
        for effect in outcome.effects.into_iter().flatten() {
            if matches!(effect, Effect::Reset) {
                brake.hold(self.ring);
            }
            let performed = hardware.perform(self.ring, effect);
            performed.map_err(|(call, errno)| DeviceFailure {
                call,
                errno: errno.0,
                function: request.function,
            })?;
        }
        if outcome.is_config_changed {
            self.ring
                .publish_config(request.function, function.config().dwords());
        }
        let value = match outcome.answer {
            Answer::Value(value) => value,
            Answer::Region(offset) => hardware.read_region(self.ring, offset, request.size_bytes),
            Answer::Pending {
                first_vector,
                count,
            } => hardware.pending(first_vector, count),
        };
        Ok(Reply {
            value,
            route: outcome.route,
        })
    }
}
