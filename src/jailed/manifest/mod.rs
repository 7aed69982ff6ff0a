//! What V and D may do, and what they have once they are locked down: tables, each row with its reason.
//!
//! V and D make their filters from these tables, the keeper compares the live filters, descriptors and limits with them,
//! and a test prints them. Pure: nothing here makes a call.

mod common;
mod descriptors;
mod device;
mod gaps;
pub mod layer;
mod limits;
mod program;
mod rule;
mod rules;
pub mod start_page;
mod table;
mod vcpu;

#[cfg(test)]
mod manifest_test;
#[cfg(test)]
mod program_test;
#[cfg(test)]
pub(crate) mod sample;

pub use descriptors::{Descriptor, DescriptorKind, descriptors};
pub use limits::{AtStart, LIMITS, Limit, limits, tasks, threads};
pub use program::{Instruction, MAX_INSTRUCTIONS, Program, program};
pub use rule::{ARCH, Check, MAX_CHECKS, Operand, Rule, SeccompData, X32};
pub use rules::{MAX_RULES, Rules};

pub use crate::sys::landlock::Ruleset;

/// Which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// V.
    Vcpu,
    /// D.
    Device,
}

/// What it is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Building the guest or its model. From here there is only one way.
    Build,
    /// Running the guest.
    Run,
}
