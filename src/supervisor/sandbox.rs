//! The guest's jail, made from its plan once a run.

use std::path::PathBuf;

use super::fault::Fault;
use crate::{
    jail::{Ids, Jail, Size, Wish},
    plan::Plan,
};

/// Makes cgroups for the guest whose users are `ids`; `processes` go to the supervisor's cgroup.
///
/// # Errors
/// `cgroup-unusable`; nothing is left behind then.
pub(super) fn make_jail(plan: &Plan, ids: Ids, processes: &[u32]) -> Result<Jail, Fault> {
    let wish = Wish {
        guest: &plan.name,
        size: Size {
            vcpus: plan.vcpus,
            ram_bytes: plan.memory.size.raw(),
            images_bytes: plan.images.iter().fold(0, |sum: u64, image| {
                sum.saturating_add(image.at.len_bytes())
            }),
            cpu_percent: plan.sandbox.cpu_percent,
            overhead_bytes: plan.sandbox.memory_overhead.raw(),
        },
        absent: plan.sandbox.absent,
        processes,
    };
    Ok(Jail::make(ids, &wish)?)
}

/// The folder of the guest's cgroups, unless it does without.
///
/// # Errors
/// `cgroup-unusable`.
pub(super) fn cgroup_of(plan: &Plan) -> Result<Option<PathBuf>, Fault> {
    Ok(Jail::cgroup_of(&plan.name, plan.sandbox.absent)?)
}
