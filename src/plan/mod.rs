//! Host and wish become a [`Plan`], or the list of everything that stands in the way. Pure: no file is read here.
#![forbid(unsafe_code)]

mod acpi;
#[cfg(test)]
mod acpi_test;
mod assemble;
mod checks;
mod cmdline;
mod explain;
mod handoff;
#[cfg(test)]
mod handoff_test;
mod layout;
#[cfg(test)]
mod layout_test;
#[cfg(test)]
mod lying_test;
#[cfg(test)]
mod plan_test;
#[cfg(test)]
mod refusal_test;
mod types;

pub use iommu::space::Interface;

pub use self::{
    cmdline::MachineWord,
    handoff::{OpenedFunction, Region},
    layout::{gpa_range_of, iova_of},
    types::{
        Bar, Binding, Contents, Function, Image, Interrupts, Memory, OpenPart, Peer, Plan, Ram,
        Sandbox, Span,
    },
};

use std::collections::BTreeMap;

use iommu::bdf::Bdf;

use crate::{
    error::{ErrorId, Report},
    host::Inventory,
    spec::{Files, GuestSpec},
    sriov::LeaseTerms,
};

/// Plans a guest: applies every check, then lays everything out.
///
/// # Errors
///
/// Every refusal that applies, not only the first; see `checks` for the table and `docs/errors.md` for their meaning.
pub fn plan(host: &Inventory, spec: &GuestSpec, files: &Files) -> Result<Plan, Vec<Report>> {
    plan_leased(host, spec, files, &BTreeMap::new())
}

/// The same for a guest with VFs of pools: each wish was resolved, and these are the terms of all its leases.
///
/// # Errors
///
/// As [`plan()`].
pub fn plan_leased(
    host: &Inventory,
    spec: &GuestSpec,
    files: &Files,
    leases: &BTreeMap<Bdf, LeaseTerms>,
) -> Result<Plan, Vec<Report>> {
    if let Some(wish) = spec.pool_devices.first() {
        return Err(vec![
            Report::new(
                ErrorId::Bug,
                format!("no VF was chosen of pool {}", wish.wish.pool),
                "a plan is made of functions with addresses",
                "report this with the guest file",
            )
            .at(wish.place.clone()),
        ]);
    }
    let case = checks::Case::of(host, spec, files);
    let verdict = checks::judge(&case);
    if !verdict.refusals.is_empty() {
        return Err(verdict.refusals);
    }
    let mut plan = assemble::assemble(&case, verdict).map_err(|report| vec![report])?;
    for function in &mut plan.0.functions {
        function.lease = leases.get(&function.bdf).cloned();
    }
    Ok(plan)
}
