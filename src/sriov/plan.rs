//! The plan: steps from what is to what should be, and what stands in their way.

use iommu::bdf::Bdf;
use serde::Serialize;

use super::step::Step;
use crate::error::Report;

/// What `apply` would do. Refusals are part of it: `plan` shows all of them, `apply` goes on without any only.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HostPlan {
    /// In the order in which they are done.
    pub steps: Vec<Step>,
    /// What stands in the way.
    pub refusals: Vec<Report>,
    /// What the operator should know.
    pub warnings: Vec<Report>,
    /// What no step can do: firmware settings, a reboot.
    pub pending: Vec<Pending>,
    /// What is lost on the way.
    pub destroyed: Vec<Destroyed>,
    /// What waits until a guest has given its VF back.
    pub held: Vec<Held>,
}

/// What no step can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// The PF.
    pub pf: Bdf,
    /// What is to be set, and where.
    pub what: String,
}

/// What a step takes away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Destroyed {
    /// The PF.
    pub pf: Bdf,
    /// In words.
    pub what: String,
}

/// What waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The VF.
    pub vf: Bdf,
    /// The guest that has it.
    pub guest: String,
    /// What would be changed.
    pub what: String,
}
