//! The order of steps: PF by PF, what the next needs first, and what nothing takes back at the very end of all.

use super::{
    facts::Observed,
    step::{AttributeValue, ResourceKind, Step},
};

/// Sorts steps into the order in which they are done.
pub(super) fn sort(steps: &mut [Step], observed: &Observed) {
    steps.sort_by_cached_key(|step| {
        let primary = observed.pfs.get(&step.pf()).and_then(|pf| pf.nvme());
        let primary = primary.map(|nvme| nvme.cntlid);
        (
            step.is_irreversible(),
            step.pf(),
            phase(step),
            within(step, primary),
        )
    });
}

/// Which comes first on one PF.
const fn phase(step: &Step) -> u8 {
    match step {
        Step::Link { up: true, .. } => 0,
        Step::Autoprobe { .. } => 1,
        Step::Unbind { .. } => 2,
        Step::Destroy { .. } => 4,
        Step::Create { .. } => 5,
        Step::Attribute { .. } => 6,
        // Resources are free again before others get them.
        Step::Offline { .. } => 7,
        Step::Assign { .. } => 8,
        // After the resources: a VF has as many interrupts as it had at its last reset.
        Step::Reset { .. } => 9,
        Step::Online { .. } => 10,
        Step::NamespaceCreate { .. } => 11,
        Step::Detach { .. } => 12,
        Step::Attach { .. } => 13,
        Step::Bind { .. } => 14,
        Step::Link { up: false, .. } => 15,
        Step::Erase { .. } => 16,
        Step::NamespaceDelete { .. } => 17,
    }
}

/// Which comes first of one phase: by VF or namespace, then by kind.
fn within(step: &Step, primary: Option<u16>) -> (u32, u32) {
    match step {
        Step::Attribute { index, to, .. } => (*index, attribute(*to)),
        Step::Unbind { index, .. } | Step::Bind { index, .. } | Step::Reset { index, .. } => {
            (*index, 0)
        }
        Step::Assign {
            cntlid, resource, ..
        } => (
            u32::from(*cntlid),
            match resource {
                ResourceKind::Vectors => 0,
                ResourceKind::Queues => 1,
            },
        ),
        Step::Offline { cntlid, .. } | Step::Online { cntlid, .. } => (u32::from(*cntlid), 0),
        // The primary first, so that a private one is never without a place to go back to.
        Step::Detach { nsid, cntlid, .. } => (
            *nsid,
            if Some(*cntlid) == primary {
                0
            } else {
                1 + u32::from(*cntlid)
            },
        ),
        Step::Attach { nsid, cntlid, .. } => (
            *nsid,
            if Some(*cntlid) == primary {
                u32::MAX
            } else {
                u32::from(*cntlid)
            },
        ),
        Step::Erase { nsid, .. } | Step::NamespaceDelete { nsid, .. } => (*nsid, 0),
        Step::Link { .. }
        | Step::Autoprobe { .. }
        | Step::Destroy { .. }
        | Step::Create { .. }
        | Step::NamespaceCreate { .. } => (0, 0),
    }
}

/// What narrows a VF comes before what it has, and what widens it after.
fn attribute(to: AttributeValue) -> u32 {
    match to {
        AttributeValue::Spoofchk(true) => 0,
        AttributeValue::Trust(false) => 1,
        AttributeValue::QueryRss(false) => 2,
        AttributeValue::Mac(_) => 3,
        AttributeValue::Vlan(_) => 4,
        AttributeValue::Rate { .. } => 5,
        AttributeValue::State(_) => 6,
        AttributeValue::QueryRss(true) => 7,
        AttributeValue::Trust(true) => 8,
        AttributeValue::Spoofchk(false) => 9,
    }
}
