//! What carries steps out: the kernel, or a machine of the tests.

use std::fmt;

use iommu::bdf::Bdf;

use super::{facts::Observed, step::Step};
use crate::error::Report;

/// Carries out steps.
pub trait Hands {
    /// Does one step and reads it back; a step that reads otherwise than asked is a fault.
    ///
    /// # Errors
    ///
    /// The step was not done, or nobody knows: it may be half done.
    fn carry_out(
        &mut self,
        step: &Step,
        progress: &mut dyn FnMut(Percent),
    ) -> Result<Seen, StepFault>;

    /// Reads the machine.
    ///
    /// # Errors
    ///
    /// A report where it cannot be read at all.
    fn observe(&mut self) -> Result<Observed, Report>;
}

/// What a step has brought about that was not known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// What was asked for.
    AsAsked,
    /// A namespace with this id was made.
    Namespace(u32),
    /// This VF was reset.
    Function(Bdf),
}

/// How far a long step is: 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

/// Why a step was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFault {
    /// What was being done: `write sriov_numvfs`.
    pub doing: String,
    /// The kernel's, or the controller's, answer, or what was read instead: `EBUSY`, `status 1/20 (invalid secondary
    /// controller state)`, `reads mac 00:…`.
    pub evidence: String,
    /// Whether the same may work a moment later.
    pub is_busy: bool,
    /// Whether the call went well, and the hardware reads otherwise.
    pub is_ignored: bool,
}

impl fmt::Display for StepFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.evidence)
    }
}
