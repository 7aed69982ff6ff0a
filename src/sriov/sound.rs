//! What the machine should be, as far as it can be: one PF that is gone keeps no guest from VFs of another one.

use std::collections::BTreeSet;

use super::{
    desired::{Desired, desired},
    facts::Observed,
    records::Records,
};
use crate::{
    error::Report,
    spec::host::{HostSpec, PfSpec, Profiles},
};

/// What the file asks of the PFs that can be as it says, and the others.
#[derive(Clone, Debug)]
pub struct Sound {
    /// Of the PFs that can be so.
    pub desired: Desired,
    /// One for each `[[pf]]` that cannot.
    pub broken: Vec<BrokenPf>,
}

/// A `[[pf]]` that the machine cannot be.
#[derive(Clone, Debug)]
pub struct BrokenPf {
    /// The pools that its VFs are in.
    pub pools: BTreeSet<String>,
    /// Why.
    pub reports: Vec<Report>,
}

/// What the file asks of those PFs of this machine that can be as it says.
///
/// # Errors
///
/// Those of [`desired`] that are of several PFs together.
pub fn sound(
    spec: &HostSpec,
    observed: &Observed,
    records: &Records,
    profiles: &Profiles,
) -> Result<Sound, Vec<Report>> {
    if let Ok(desired) = desired(spec, observed, records, profiles) {
        let broken = Vec::new();
        return Ok(Sound { desired, broken });
    }
    let mut broken = Vec::new();
    let is_sound = |pf: &PfSpec| {
        let alone = HostSpec {
            pfs: vec![pf.clone()],
            ..spec.clone()
        };
        let Err(reports) = desired(&alone, observed, records, profiles) else {
            return true;
        };
        let pools = pf.pools.values().map(|of| of.name.clone()).collect();
        broken.push(BrokenPf { pools, reports });
        false
    };
    let mut rest = spec.clone();
    rest.pfs.retain(is_sound);
    let desired = desired(&rest, observed, records, profiles)?;
    Ok(Sound { desired, broken })
}
