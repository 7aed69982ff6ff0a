//! The inventory that a scheduler needs: what there is, where, and how much of it is free.

use std::collections::BTreeMap;

use iommu::bdf::Bdf;
use serde::Serialize;

use super::{
    desired::{Desired, DesiredPf},
    facts::{KindFacts, Observed, PfFacts, VfFacts},
    matching::kind_of,
    plan::Pf,
    records::Records,
    tenure::Tenure,
};
use crate::spec::host::{Eswitch, Kind, Mbps, Origin, Profiles};

/// The `HostInventory`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// The form of the document.
    pub api_version: &'static str,
    /// What it is.
    pub kind: &'static str,
    /// The host as a whole.
    pub host: InventoryHost,
    /// NUMA nodes.
    pub nodes: Vec<u32>,
    /// By address.
    pub pfs: Vec<InventoryPf>,
    /// By PF and index.
    pub vfs: Vec<InventoryVf>,
    /// By name.
    pub pools: Vec<InventoryPool>,
}

/// The host as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InventoryHost {
    /// Its name; a captured machine has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The release of its kernel.
    pub kernel: Option<String>,
    /// Whose IOMMU it has; `None` where it has none, and no guest can have a VF.
    pub iommu: Option<InventoryIommu>,
}

/// Whose an IOMMU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InventoryIommu {
    /// VT-d.
    Intel,
    /// AMD-Vi.
    Amd,
    /// Another one.
    Other,
}

/// A PF.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryPf {
    /// Its address.
    pub bdf: Bdf,
    /// Its interface, or its controller.
    pub interface: Option<String>,
    /// The profile that is used for it.
    pub profile: String,
    /// Where the profile comes from.
    pub origin: Origin,
    /// Its driver.
    pub driver: Option<String>,
    /// Its NUMA node.
    pub numa: Option<u32>,
    /// The root it is below.
    pub pcie_root: String,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// Its link; of NICs.
    pub link: Option<InventoryLink>,
    /// Its VFs, in numbers.
    pub vfs: InventoryVfs,
    /// The rates that are promised to its VFs, together.
    pub tx_committed_mbps: u64,
    /// The mode of its switch.
    pub eswitch: Option<Eswitch>,
    /// `ok`, or what is the matter with it.
    pub health: String,
}

/// A link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InventoryLink {
    /// Whether it carries.
    pub up: bool,
    /// Its speed.
    pub mbps: Option<u32>,
}

/// VFs in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InventoryVfs {
    /// As many as there can be.
    pub total: u32,
    /// As many as there are.
    pub made: u32,
    /// Of those in pools, as many as nobody has.
    pub free: u32,
}

/// A VF.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryVf {
    /// Its address.
    pub bdf: Bdf,
    /// Its PF.
    pub pf: Bdf,
    /// Its index.
    pub index: u32,
    /// `nic` or `nvme`; none where the PF shows neither.
    pub kind: Option<Kind>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// How many functions are in that.
    pub group_size: u32,
    /// Its NUMA node.
    pub numa: Option<u32>,
    /// The root it is below.
    pub pcie_root: String,
    /// Its pool.
    pub pool: Option<String>,
    /// `free`, `created`, `kept`, `in use`, `dirty` or `quarantined`.
    pub state: &'static str,
    /// The guest that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    /// The speed of its PF's link.
    pub link_mbps: Option<u32>,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryPool {
    /// Its name.
    pub name: String,
    /// What its VFs are.
    pub kind: Option<Kind>,
    /// As many VFs as it has.
    pub total: u32,
    /// As many as a guest can have now.
    pub free: u32,
}

/// The inventory of the machine, with pools where a file was applied.
#[must_use]
pub fn inventory(
    host: InventoryHost,
    observed: &Observed,
    desired: Option<&Desired>,
    records: &Records,
    profiles: &Profiles,
) -> Inventory {
    let mut pools: BTreeMap<String, InventoryPool> = BTreeMap::new();
    let mut all = Inventory {
        api_version: "v1alpha1",
        kind: "HostInventory",
        host,
        nodes: observed.nodes.clone(),
        pfs: Vec::new(),
        vfs: Vec::new(),
        pools: Vec::new(),
    };
    for facts in observed.pfs.values() {
        let none = unwanted(facts.bdf);
        let wanted = desired.and_then(|desired| desired.pfs.get(&facts.bdf));
        let pf = Pf::new(facts, wanted.unwrap_or(&none), observed, records, profiles);
        let vfs: Vec<InventoryVf> = facts.vfs.iter().map(|vf| one_vf(&pf, vf)).collect();
        for vf in &vfs {
            if let Some(name) = &vf.pool {
                let pool = pools.entry(name.clone()).or_insert_with(|| InventoryPool {
                    name: name.clone(),
                    kind: vf.kind,
                    total: 0,
                    free: 0,
                });
                pool.total += 1;
                pool.free += u32::from(vf.state == FREE);
            }
        }
        all.pfs.push(one_pf(&pf, &vfs, observed));
        all.vfs.extend(vfs);
    }
    all.pools = pools.into_values().collect();
    all
}

/// A PF that no file names.
fn unwanted(bdf: Bdf) -> DesiredPf {
    DesiredPf {
        bdf,
        place: None,
        profile: String::new(),
        count: 0,
        up: false,
        is_probed: None,
        adopt: false,
        eswitch: None,
        accept: Vec::new(),
        vfs: Vec::new(),
        namespaces: Vec::new(),
        restored: None,
    }
}

const FREE: &str = "free";

fn one_pf(pf: &Pf<'_>, vfs: &[InventoryVf], observed: &Observed) -> InventoryPf {
    let facts = pf.facts;
    let nic = facts.nic();
    let interface = match &facts.kind {
        KindFacts::Nic(nic) => nic.interface.clone(),
        KindFacts::Nvme(nvme) => Some(nvme.controller.clone()),
        KindFacts::Other => None,
    };
    let pooled = vfs.iter().filter(|vf| vf.pool.is_some());
    let free = pooled.filter(|vf| vf.state == FREE).count();
    InventoryPf {
        bdf: facts.bdf,
        interface,
        profile: pf.profile.name.clone(),
        origin: pf.profile.origin,
        driver: facts.driver.clone(),
        numa: facts.numa,
        pcie_root: facts.root.clone(),
        group: facts.group,
        link: nic.map(|nic| InventoryLink {
            up: nic.has_carrier,
            mbps: nic.link.map(|link| link.0),
        }),
        vfs: InventoryVfs {
            total: facts.total,
            made: facts.count,
            free: u32::try_from(free).unwrap_or(u32::MAX),
        },
        tx_committed_mbps: committed(pf),
        eswitch: nic.and_then(|nic| nic.eswitch),
        health: health(facts, observed),
    }
}

/// Promised rates: of the pools, whether guests have the VFs or not.
fn committed(pf: &Pf<'_>) -> u64 {
    let promised = pf.wanted.vfs.iter().filter_map(|vf| vf.leased.min_tx);
    promised.map(|Mbps(rate)| u64::from(rate)).sum()
}

fn health(facts: &PfFacts, observed: &Observed) -> String {
    let unread = observed
        .unread
        .iter()
        .find(|one| one.bdf == Some(facts.bdf));
    match (&facts.kind, unread) {
        (_, Some(unread)) => format!("{} cannot be read: {}", unread.place, unread.reason),
        (KindFacts::Other, None) => "it shows neither an interface nor a controller".to_owned(),
        (KindFacts::Nic(nic), None) if !nic.has_carrier => "no link".to_owned(),
        (KindFacts::Nic(_) | KindFacts::Nvme(_), None) => "ok".to_owned(),
    }
}

fn one_vf(pf: &Pf<'_>, vf: &VfFacts) -> InventoryVf {
    let wanted = pf.wanted.vfs.iter().find(|one| one.index == vf.index);
    let tenure = pf.tenure(vf);
    let state = match &tenure {
        Tenure::Free if pf.is_proven(vf) => FREE,
        // Nobody has read it back yet: no guest gets it before the next apply.
        Tenure::Free => "created",
        Tenure::Kept(_) => "kept",
        Tenure::Running(_) => "in use",
        Tenure::Returning(_) => "dirty",
        Tenure::Quarantined => "quarantined",
    };
    InventoryVf {
        bdf: vf.bdf,
        pf: pf.facts.bdf,
        index: vf.index,
        kind: kind_of(pf.facts),
        group: vf.group,
        group_size: vf.group_size,
        numa: pf.facts.numa,
        pcie_root: pf.facts.root.clone(),
        pool: wanted.and_then(|one| one.pool.clone()),
        state,
        guest: tenure.guest().map(str::to_owned),
        link_mbps: pf.facts.nic().and_then(|nic| nic.link).map(|link| link.0),
    }
}
