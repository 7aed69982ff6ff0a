//! Break-outs that must fail: code of an attacker who has taken V or D over, compiled with the feature `breakout` only.
//!
//! On entry: the process is locked down and was told to go, as if its loop would begin now. A probe tries one way out,
//! stops where it would be open, acts only on what the harness made for it, and ends the process. What came of each try
//! stands in the start page ([`record`]); what the filter does not let through ends the process in the middle of a try.

mod attempt;
mod calls;
mod devices;
mod files;
mod kernel;
mod memory;
mod network;
mod processes;
pub mod record;
mod requests;
mod ring;
pub mod sweep;
pub mod table;
mod tries;
pub mod words;

#[cfg(test)]
mod breakout_test;

use self::{record::Record, tries::Tries};
use crate::{handoff::Handoff, manifest::Role, sys::syscall::exit_group};

/// The exit status of a probe that came to its end, whatever it found.
pub const PROBED: u8 = 60;
/// The exit status of a process that was asked for a probe that it does not have.
pub const NO_SUCH_PROBE: u8 = 61;

/// Runs the probe that the harness asks `role` for, and ends the process; returns where none is asked for.
pub fn run_if_asked(role: Role, handoff: &Handoff) {
    let Some((id, from)) = words::probe(handoff, role) else {
        return;
    };
    let Some(probe) = table::find(id, role) else {
        exit_group(NO_SUCH_PROBE);
    };
    let record = Record;
    record.begin();
    let mut tries = Tries::new(handoff, role, record, from);
    (probe.run)(&mut tries);
    record.done();
    exit_group(PROBED)
}
