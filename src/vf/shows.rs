//! Whether a machine looks as it does after a step: for steps of which nobody knows whether they were done.

use crate::sriov::{Observed, ResourceKind, Secondary, Step};

/// Whether `observed` is as the step makes it; `None` where that cannot be seen.
pub(super) fn shows(step: &Step, observed: &Observed) -> Option<bool> {
    let facts = observed.pfs.get(&step.pf())?;
    let secondary = |cntlid: u16| -> Option<&Secondary> {
        let nvme = facts.nvme()?;
        nvme.secondaries.iter().find(|one| one.cntlid == cntlid)
    };
    let is_attached = |nsid: u32, cntlid: u16| {
        let namespace = facts.nvme()?.namespaces.get(&nsid)?;
        Some(namespace.attached.contains(&cntlid))
    };
    let vf = |index: u32| facts.vfs.iter().find(|vf| vf.index == index);
    match step {
        Step::Link { up, .. } => Some(facts.nic()?.is_up == *up),
        Step::Autoprobe { to, .. } => Some(facts.is_probed? == *to),
        Step::Unbind { index, driver, .. } => {
            Some(vf(*index)?.driver.as_deref() != Some(driver.as_str()))
        }
        Step::Bind { index, driver, .. } => {
            Some(vf(*index)?.driver.as_deref() == Some(driver.as_str()))
        }
        Step::Destroy { .. } => Some(facts.count == 0),
        Step::Create { count, .. } => Some(facts.count == *count),
        Step::Attribute { index, to, .. } => {
            Some(vf(*index)?.nic.as_ref()?.value(to.name())? == *to)
        }
        Step::Offline { cntlid, .. } => {
            let one = secondary(*cntlid)?;
            Some(!one.is_online && one.queues == 0 && one.vectors == 0)
        }
        Step::Assign {
            cntlid,
            resource,
            to,
            ..
        } => {
            let one = secondary(*cntlid)?;
            Some(match resource {
                ResourceKind::Queues => one.queues == *to,
                ResourceKind::Vectors => one.vectors == *to,
            })
        }
        Step::Online { cntlid, .. } => Some(secondary(*cntlid)?.is_online),
        Step::Detach { nsid, cntlid, .. } => Some(!is_attached(*nsid, *cntlid)?),
        Step::Attach { nsid, cntlid, .. } => is_attached(*nsid, *cntlid),
        Step::NamespaceDelete { nsid, .. } => Some(!facts.nvme()?.namespaces.contains_key(nsid)),
        Step::Reset { .. } | Step::Erase { .. } | Step::NamespaceCreate { .. } => None,
    }
}

/// Whether doing it once more, or taking it back once more, changes nothing: then nobody has to look first.
pub(super) const fn is_idempotent(step: &Step) -> bool {
    matches!(
        step,
        Step::Attribute { .. } | Step::Link { .. } | Step::Autoprobe { .. } | Step::Reset { .. }
    )
}

/// Whether what it changes is still so after a reboot.
pub(super) const fn lasts(step: &Step) -> bool {
    matches!(
        step,
        Step::NamespaceCreate { .. }
            | Step::Detach { .. }
            | Step::Attach { .. }
            | Step::Erase { .. }
            | Step::NamespaceDelete { .. }
    )
}
