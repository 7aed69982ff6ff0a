//! A guest's VFs of pools: claimed, made as the lease says, and given back.
//!
//! Each part can be done again after it was cut off anywhere: what is left to do is read from the hardware, and whose the
//! VF is from its record. On exit of [`claim`]: the record names the guest, and no other guest's claim succeeds. Of
//! [`take`]: the VF reads as the lease says. Of [`give_back`]: it reads as its pool rests, its namespaces are erased, and
//! the record is clean; or there is evidence for the quarantine, and the record says that it is not clean.

mod choosing;
mod ending;
mod erasing;
mod ownerless;
mod returning;
mod taking;

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant},
};

use iommu::bdf::Bdf;

pub use self::{
    choosing::{Found, Purpose, for_guest},
    ending::{finish, return_lease},
    ownerless::erase_ownerless,
    returning::{give_back, give_back_gone},
    taking::{bound, check_free, claim, take},
};
use crate::{
    error::Report,
    sriov::{Hands, LeaseTerms, Percent, Step, StepFault},
};

/// The terms of each function that is leased.
pub type Leases = BTreeMap<Bdf, LeaseTerms>;

/// How long a step is tried that may work a moment later.
const BUSY: Duration = Duration::from_secs(5);
const BUSY_POLL: Duration = Duration::from_millis(50);

/// Carries out a step, again where that may help.
fn patiently(
    hands: &mut dyn Hands,
    step: &Step,
    progress: &mut dyn FnMut(Percent),
) -> Result<(), StepFault> {
    let deadline = Instant::now() + BUSY;
    loop {
        match hands.carry_out(step, progress) {
            Err(fault) if fault.is_busy && Instant::now() < deadline => sleep(BUSY_POLL),
            done => return done.map(drop),
        }
    }
}

fn in_a_line(report: &Report) -> String {
    match report.why.is_empty() {
        true => report.what.clone(),
        false => format!("{}: {}", report.what, report.why.join("; ")),
    }
}

#[cfg(test)]
mod erasing_test;
#[cfg(test)]
mod kept_test;
#[cfg(test)]
mod lease_test;
#[cfg(test)]
mod model_test;
