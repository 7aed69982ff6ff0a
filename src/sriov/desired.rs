//! What the machine should be: the host file, matched with the machine.

use std::collections::BTreeMap;

use iommu::bdf::Bdf;
use serde::{Deserialize, Serialize};

use super::facts::NicAttributes;
use crate::spec::host::{Eraser, Eswitch, Interlock, PoolOptOut};

/// The PFs that the file names, by address. Others are not touched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// By address.
    pub pfs: BTreeMap<Bdf, DesiredPf>,
}

/// One PF.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredPf {
    /// Its address.
    pub bdf: Bdf,
    /// The name of its profile.
    pub profile: String,
    /// How many VFs.
    pub count: u32,
    /// Whether its link is to be up before its VFs are made.
    pub up: bool,
    /// Whether its VFs may be probed by drivers of the host; `None` leaves it.
    pub is_probed: Option<bool>,
    /// Whether VFs that another manager made are taken over.
    pub adopt: bool,
    /// The mode of its switch; `None` leaves it.
    pub eswitch: Option<Eswitch>,
    /// Interlocks that do not hold for it.
    pub accept: Vec<Interlock>,
    /// One for each index below `count`.
    pub vfs: Vec<DesiredVf>,
    /// The namespaces that the file names.
    pub namespaces: Vec<DesiredNamespace>,
}

/// One VF.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredVf {
    /// Its index.
    pub index: u32,
    /// The pool it is in.
    pub pool: Option<String>,
    /// What it is while no guest has it; `None` words are left alone.
    pub rest: NicAttributes,
    /// What it is while a guest has it.
    pub leased: NicAttributes,
    /// VQ and VI of its secondary controller.
    pub resources: Option<(u16, u16)>,
    /// Ids of the namespaces that it sees while a guest has it. Those that are still to be made are in
    /// `DesiredPf::namespaces` without an id.
    pub namespaces: Vec<u32>,
    /// How its namespaces are erased.
    pub erase: Eraser,
    /// What its pool accepts.
    pub accept: Vec<PoolOptOut>,
}

/// One namespace that the file names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredNamespace {
    /// Its name.
    pub name: String,
    /// Its id; `None` until it is made.
    pub nsid: Option<u32>,
    /// Its size in bytes, where it is made.
    pub size: Option<u64>,
    /// Its block size, where it is made.
    pub block: Option<u32>,
    /// Whether several controllers may see it.
    pub is_shared: bool,
    /// Indexes of the VFs that see it while a guest has them.
    pub vfs: Vec<u32>,
}
