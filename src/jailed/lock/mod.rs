//! How V and D lock themselves down.
//!
//! On entry of [`Lock::begin`]: the handoff was read, the list of descriptors checked. On exit: nothing can be opened,
//! executed or traced, and only what building needs may be called. On exit of [`Lock::finish`]: every thread may make the
//! calls of the run and no other, holds the descriptors of [`manifest::descriptors()`] and no other, and nothing of this
//! can be taken back. Each step is done before the filter takes away the call that it needs.

mod start;

pub use start::StartPage;

use crate::handoff::Handoff;
use crate::manifest::start_page::Locked;
use crate::manifest::{self, Phase, Role, Rules, layer};
use crate::sys::memory::close_range;
use crate::sys::syscall::Errno;
use crate::sys::{image, lock, lock::Instruction, thread};

/// A layer that could not be had and may not be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its bit in [`layer`].
    pub layer: u32,
    /// What the kernel said.
    pub errno: Errno,
}

/// A process that is half way: it may build.
#[derive(Debug)]
pub struct Lock {
    role: Role,
    locked: Locked,
}

impl Lock {
    /// Takes away what building does not need.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn begin(role: Role, handoff: &Handoff) -> Result<Self, Refused> {
        let mut lock = Self {
            role,
            locked: Locked {
                layers: 0,
                landlock_abi: 0,
            },
        };
        lock.put_on(handoff, layer::NO_NEW_PRIVS, lock::forbid_new_privileges)?;
        lock.put_on(handoff, layer::NOT_DUMPABLE, lock::forbid_dumps)?;
        lock.put_on(handoff, layer::MDWE, lock::forbid_exec_gain)?;
        let mut landlock_abi = 0;
        lock.put_on(handoff, layer::LANDLOCK, || {
            landlock_abi = lock::landlock()?;
            Ok(())
        })?;
        lock.locked.landlock_abi = landlock_abi;
        // From here on, mappings are sealed as they are made.
        lock.put_on(handoff, layer::MSEAL, lock::can_seal)?;
        if has(handoff, layer::SECCOMP) {
            with_program(role, Phase::Build, handoff, lock::install)?;
        }
        Ok(lock)
    }

    /// Takes away what running does not need, and says so in `start`; the control socket closes on the way.
    ///
    /// # Errors
    /// [`Refused`], while there is a control socket to say so. What fails later stands in `start`, and ends the process.
    pub fn finish(mut self, handoff: &Handoff, start: StartPage) -> Result<(), Refused> {
        image::protect_and_seal().map_err(refused(layer::MSEAL))?;
        let run = program(self.role, handoff)?;
        thread::settle_stack().map_err(refused(layer::RLIMITS))?;
        if has(handoff, layer::RLIMITS) {
            for limit in manifest::limits(self.role, handoff.vcpu_count) {
                lock::limit(limit.resource, limit.value).map_err(refused(layer::RLIMITS))?;
            }
        }
        self.locked.layers |= layer::RLIMITS | layer::SECCOMP;
        let last = close_others(self.role, handoff)
            .map_err(refused(layer::SECCOMP))
            .and_then(|()| match has(handoff, layer::SECCOMP) {
                true => lock::install(run).map_err(refused(layer::SECCOMP)),
                false => Ok(()),
            });
        match last {
            Ok(()) => {
                start.say_locked(self.locked);
                Ok(())
            }
            Err(Refused { errno, .. }) => start.fail(errno),
        }
    }

    /// Notes that a layer is on, or that the kernel lacks it where it may.
    fn put_on(
        &mut self,
        handoff: &Handoff,
        layer: u32,
        put: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Refused> {
        if !has(handoff, layer) {
            return Ok(());
        }
        let may_be_absent = handoff.layers_absent & layer & !layer::ALWAYS != 0;
        match put() {
            Ok(()) => self.locked.layers |= layer,
            Err(Errno::INVALID | Errno::NO_CALL | Errno::NOT_SUPPORTED) if may_be_absent => {}
            Err(errno) => return Err(Refused { layer, errno }),
        }
        Ok(())
    }
}

/// Whether a layer is put on: always, but where the lab tries what becomes without it.
#[cfg(not(feature = "breakout"))]
const fn has(_handoff: &Handoff, _layer: u32) -> bool {
    true
}

#[cfg(feature = "breakout")]
fn has(handoff: &Handoff, layer: u32) -> bool {
    let ablated = crate::breakout::words::ablated(handoff);
    if ablated & layer::MSEAL != 0 {
        lock::leave_unsealed();
    }
    ablated & layer == 0
}

fn refused(layer: u32) -> impl FnOnce(Errno) -> Refused {
    move |errno| Refused { layer, errno }
}

/// The last filter, out of the stack, which is given back before it goes on.
#[inline(never)]
fn program(role: Role, handoff: &Handoff) -> Result<&'static [Instruction], Refused> {
    with_program(role, Phase::Run, handoff, thread::copied)
}

/// Makes the filter of `phase`, for which the stack gets deep, and passes it on.
#[inline(never)]
fn with_program<R>(
    role: Role,
    phase: Phase,
    handoff: &Handoff,
    then: impl FnOnce(&[Instruction]) -> Result<R, Errno>,
) -> Result<R, Refused> {
    let rules = Rules::of(role, phase, handoff);
    let program = manifest::program(&rules);
    if !program.is_whole() {
        return Err(refused(layer::SECCOMP)(Errno::TOO_BIG));
    }
    then(program.instructions()).map_err(refused(layer::SECCOMP))
}

/// Closes all descriptors that the run does not need.
fn close_others(role: Role, handoff: &Handoff) -> Result<(), Errno> {
    let mut from = 0;
    for kept in manifest::descriptors(role, handoff) {
        if from < kept.number {
            close_range(from, kept.number - 1)?;
        }
        from = kept.number + 1;
    }
    close_range(from, u32::MAX)
}
