//! Why the guest could not be built.

use crate::handoff::{KernelFault, Report, Stage};
use crate::lock::Refused;
use crate::sys::syscall::Errno;

/// A failed step: what the supervisor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step.
    pub stage: Stage,
    /// The errno, [`Errno::NONE`] where no call failed.
    pub errno: Errno,
    /// See [`Stage`].
    pub detail: u64,
}

impl Failure {
    /// A step that failed without a call.
    #[must_use]
    pub const fn new(stage: Stage, detail: u64) -> Self {
        Self {
            stage,
            errno: Errno::NONE,
            detail,
        }
    }

    /// Turns the errno of a call into a failure of `stage`.
    pub fn at(stage: Stage, detail: u64) -> impl FnOnce(Errno) -> Self {
        move |errno| Self {
            stage,
            errno,
            detail,
        }
    }

    /// The message for the supervisor.
    #[must_use]
    pub const fn report(&self) -> Report {
        Report {
            stage: self.stage as u32,
            errno: self.errno.0,
            detail: self.detail,
        }
    }
}

impl From<KernelFault> for Failure {
    fn from(fault: KernelFault) -> Self {
        Self::new(Stage::Kernel, fault as u64)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self {
            stage: Stage::Lock,
            errno: refused.errno,
            detail: u64::from(refused.layer),
        }
    }
}
