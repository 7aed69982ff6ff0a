//! A plan and what it needs for itself: planned again where a VF that was chosen went to another run meanwhile.
//!
//! Plans take no lock, so two runs may choose the same VF. The loser has touched nothing, and chooses another one, until
//! its pool has none: then it is told who has each.

use std::{collections::BTreeMap, path::Path};

use iommu::{bdf::Bdf, sysfs::SysRoot};

use super::planning::{Planned, plan_without};
use crate::{
    error::Report,
    host::Inventory,
    plan::Plan,
    state::State,
    supervisor::{Refused, Reserved},
    vf::lease::Purpose,
};

/// VFs that were chosen and went to others, and why.
pub(super) type Lost = BTreeMap<Bdf, String>;

/// What a guest is run from.
#[derive(Debug)]
pub(super) struct ToRun {
    pub(super) plan: Plan,
    pub(super) reserved: Reserved,
    /// The host that the plan was made from.
    pub(super) host: Inventory,
}

/// Plans the guest of `file`, and reserves what the plan names.
///
/// # Errors
/// Those of the plan, of which `pool-exhausted` has who took what was chosen; those of [`Reserved::take`].
pub(super) fn reserve(file: &Path, root: &SysRoot, state: &State) -> Result<ToRun, Vec<Report>> {
    let (planned, reserved) = until_reserved(
        |lost| plan_without(file, root, Some(state), lost, Purpose::Run),
        |plan| Reserved::take(plan, root, state),
    )?;
    Ok(ToRun {
        plan: planned.plan,
        reserved,
        host: planned.host,
    })
}

/// Plans until what is planned can be had. Each round without an end takes away one VF more: there are no more rounds than
/// VFs.
fn until_reserved<T>(
    plan: impl Fn(&Lost) -> Result<Planned, Vec<Report>>,
    take: impl Fn(&Plan) -> Result<T, Refused>,
) -> Result<(Planned, T), Vec<Report>> {
    let mut lost = Lost::new();
    loop {
        let planned = plan(&lost)?;
        let Refused { function, report } = match take(&planned.plan) {
            Ok(taken) => return Ok((planned, taken)),
            Err(refused) => refused,
        };
        match function {
            Some(bdf) if planned.chosen.contains(&bdf) && !lost.contains_key(&bdf) => {
                lost.insert(bdf, report.why.join("; "));
            }
            _ => return Err(vec![report]),
        }
    }
}

#[cfg(test)]
#[path = "reserve_test.rs"]
mod tests;
