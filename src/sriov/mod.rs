//! VFs as data: what the machine has, what the host file wants, the steps from one to the other, and the life of a VF.
//!
//! Pure: it names no file, no time and no process. Readers are in `host::sriov`, memory is in `state::vf`, hands are in
//! `vf`.

mod attributes;
mod baseline;
mod check;
mod check_nvme;
mod choose;
mod desired;
mod diff;
mod diff_nvme;
mod dirt;
mod drift;
#[cfg(test)]
mod drive_test;
mod export;
mod facts;
mod hands;
mod interlock;
mod lease;
mod life;
#[cfg(test)]
mod life_test;
mod macs;
#[cfg(test)]
mod made;
mod matching;
mod member;
#[cfg(test)]
pub(crate) mod model;
mod order;
mod plan;
#[cfg(test)]
mod plan_test;
#[cfg(test)]
mod properties_test;
mod records;
#[cfg(test)]
mod refusal_test;
mod sound;
mod step;
mod tenure;
mod terms;
mod undo;
mod wish;
mod words;

pub use self::{
    baseline::{baseline, with_accepted},
    check_nvme::erase_how,
    choose::{PoolsView, candidates, choose, foreign, terms_of},
    desired::{Desired, DesiredNamespace, DesiredPf, DesiredVf, Restored, WithoutMac, desired},
    dirt::{changed_formats, check_format, is_gone, to_erase},
    drift::{Drift, drift},
    export::{
        Inventory, InventoryHost, InventoryIommu, InventoryLink, InventoryPf, InventoryPool,
        InventoryVf, InventoryVfs, inventory,
    },
    facts::{
        Anchor, Flexible, KindFacts, Managed, Namespace, NamespaceFormat, NamespaceId,
        NicAttributes, NicFacts, NvmeCan, NvmeFacts, Observed, PfFacts, Resource, Secondary,
        Unread, Use, Used, Uses, VfFacts,
    },
    hands::{Hands, Percent, Seen, StepFault},
    lease::{to_leased, to_rest},
    life::{Event, Forbidden, VfState, next},
    plan::{Destroyed, Held, HostPlan, Later, Pending, plan},
    records::{Holder, Lease, NamespaceRecord, NamespaceState, PfRecords, Records, VfRecord},
    sound::{BrokenPf, Sound, sound},
    step::{AttributeName, AttributeValue, DriveSnapshot, EraseHow, ResourceKind, Step, Undo},
    terms::{Dirt, LeaseTerms, LeasedNamespace},
};
