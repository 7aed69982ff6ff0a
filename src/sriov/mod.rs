//! VFs as data: what the machine has, what the host file wants, the steps from one to the other, and the life of a VF.
//!
//! Pure: it names no file, no time and no process. Readers are in `host::sriov`, memory is in `state::vf`, hands are in
//! `vf`.

mod desired;
mod facts;
mod hands;
mod life;
#[cfg(test)]
mod life_test;
#[cfg(test)]
pub(crate) mod model;
mod plan;
mod records;
mod step;
mod undo;
mod words;

pub use self::{
    desired::{Desired, DesiredNamespace, DesiredPf, DesiredVf},
    facts::{
        Anchor, Flexible, KindFacts, Managed, Namespace, NamespaceId, NicAttributes, NicFacts,
        NvmeCan, NvmeFacts, Observed, PfFacts, Resource, Secondary, Unread, Use, Used, Uses,
        VfFacts,
    },
    hands::{Hands, Percent, Seen, StepFault},
    life::{Event, Forbidden, VfState, next},
    plan::{Destroyed, Held, HostPlan, Pending},
    records::{Holder, Lease, NamespaceRecord, NamespaceState, PfRecords, Records, VfRecord},
    step::{AttributeName, AttributeValue, EraseHow, ResourceKind, Step, Undo},
};
