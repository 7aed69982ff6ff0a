//! From a guest file to its plan, and to the same plan again: the way that every verb which touches the host goes.

use std::{collections::BTreeSet, path::Path};

use iommu::{bdf::Bdf, sysfs::SysRoot};

use super::reserve::Lost;
use crate::{
    error::{ErrorId, Report},
    host::{Anew, Inventory},
    plan::{Plan, plan_leased},
    spec::{Files, GuestSpec},
    state::State,
    supervisor::Replan,
    vf::lease::{Found, Purpose, for_guest},
};

/// A plan, and what it was made from.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) plan: Plan,
    /// Which VFs were chosen for the guest.
    pub(super) chosen: BTreeSet<Bdf>,
    /// The host as it was read.
    pub(super) host: Inventory,
}

/// Plans the guest of `file` from the host and the quarantine, without VFs that went to others meanwhile. A machine file has
/// no quarantine.
pub(super) fn plan_without(
    file: &Path,
    root: &SysRoot,
    state: Option<&State>,
    lost: &Lost,
    purpose: Purpose,
) -> Result<Planned, Vec<Report>> {
    plan_on(file, root, state, (lost, purpose), |_| {
        Inventory::read_to_plan(root)
    })
}

/// Plans the guest of `file` again, before and after its devices are opened: the host may have changed since `before` was
/// read. What no device of the guest depends on is taken from there.
pub(super) fn replan<'a>(
    file: &'a Path,
    root: &'a SysRoot,
    state: &'a State,
    before: Inventory,
) -> Replan<'a> {
    Box::new(move |anew: Anew| {
        let lost = Lost::new();
        let again = plan_on(file, root, Some(state), (&lost, Purpose::Run), |spec| {
            let devices: Vec<Bdf> = spec.devices.iter().map(|device| device.bdf).collect();
            before.read_again(root, &devices, anew)
        });
        Ok(again?.plan)
    })
}

fn plan_on(
    file: &Path,
    root: &SysRoot,
    state: Option<&State>,
    (lost, purpose): (&Lost, Purpose),
    read: impl FnOnce(&GuestSpec) -> Result<Inventory, Report>,
) -> Result<Planned, Vec<Report>> {
    let spec = GuestSpec::read(file)?;
    let files: Files = spec.check_files()?;
    let named: BTreeSet<Bdf> = spec.devices.iter().map(|device| device.bdf).collect();
    let found = for_guest(root, state, spec, lost, purpose)?;
    let Found {
        spec,
        leases,
        warnings,
    } = found;
    let devices = spec.devices.iter().map(|device| device.bdf);
    let chosen = devices.filter(|bdf| !named.contains(bdf)).collect();
    let host = read(&spec).map_err(|report| vec![report])?;
    let planned = plan_leased(&host, &spec, &files, &leases);
    // What may not be read keeps nobody from looking; with the warning, that is said.
    let is_told = |report: &Report| {
        warnings.is_empty()
            || report.id == ErrorId::DeviceQuarantined
            || report.id == ErrorId::RecoverNeeded
    };
    let quarantined: Vec<Report> = spec
        .devices
        .iter()
        .filter_map(|wish| Some(state?.withheld(root, wish.bdf)?.at(wish.place.clone())))
        .filter(is_told)
        .collect();
    match planned {
        Ok(plan) if quarantined.is_empty() => Ok(Planned {
            plan: plan.warned(warnings),
            chosen,
            host,
        }),
        Ok(_) => Err(quarantined),
        Err(refusals) => Err([quarantined, refusals].concat()),
    }
}
