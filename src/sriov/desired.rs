//! What the machine should be: the host file, matched with the machine.

use std::collections::{BTreeMap, BTreeSet};

use iommu::bdf::Bdf;
use serde::{Deserialize, Serialize};

use super::{
    check::{self, Subject},
    facts::{NicAttributes, Observed},
    macs::{self, Given},
    matching,
    records::{PfRecords, Records},
    wish::{self, Wish},
};
use crate::{
    error::{Location, Report},
    spec::host::{
        Eraser, Eswitch, HostSpec, Interlock, NamespaceFor, NamespaceFrom, PoolOptOut, PoolPolicy,
        Profiles,
    },
};

/// What the file asks of this machine.
///
/// # Errors
///
/// All that the machine cannot be, with the place in the file: the rows of `check`, `pf-absent`, `pf-ambiguous`,
/// `pf-listed-twice`, `mac-listed-twice`, `mac-range-small`; why nobody knows who has the VFs of a PF (`Records::unusable`).
pub fn desired(
    spec: &HostSpec,
    observed: &Observed,
    records: &Records,
    profiles: &Profiles,
) -> Result<Desired, Vec<Report>> {
    let (matched, mut problems) = matching::pfs(spec, observed, profiles);
    for &(pf, facts, profile) in &matched {
        if let Some(report) = records.unusable.get(&facts.bdf) {
            problems.push(report.clone().at(Some(pf.place.clone())));
            continue;
        }
        problems.extend(check::all(&Subject {
            spec,
            pf,
            facts,
            profile,
            records: records_of(records, facts),
        }));
    }
    let macs = match macs::assign(spec, observed, records, &matched) {
        Ok(macs) => macs,
        Err(more) => {
            problems.extend(more);
            return Err(problems);
        }
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    let pfs = matched.into_iter().map(|(pf, facts, profile)| {
        let subject = Subject {
            spec,
            pf,
            facts,
            profile,
            records: records_of(records, facts),
        };
        (facts.bdf, one_pf(&subject, &macs))
    });
    Ok(Desired { pfs: pfs.collect() })
}

/// The records of a PF, unless they are of another card in its slot.
pub(super) fn records_of<'a>(
    records: &'a Records,
    facts: &super::facts::PfFacts,
) -> Option<&'a PfRecords> {
    let found = records.pfs.get(&facts.bdf)?;
    (found.anchor == facts.anchor).then_some(found)
}

fn one_pf(subject: &Subject<'_>, macs: &BTreeMap<(Bdf, u32), Given>) -> DesiredPf {
    let (pf, facts, profile) = (subject.pf, subject.facts, subject.profile);
    let namespaces = namespaces(subject);
    let vfs = (0..pf.vfs).map(|index| {
        let mut vf = one_vf(subject, index, macs.get(&(facts.bdf, index)));
        let seen = namespaces.iter().filter(|one| one.vfs.contains(&index));
        vf.namespaces = seen.filter_map(|one| one.nsid).collect();
        vf
    });
    DesiredPf {
        bdf: facts.bdf,
        place: Some(pf.place.clone()),
        profile: profile.name.clone(),
        count: pf.vfs,
        up: pf.up.unwrap_or(profile.order.pf_up_before_vfs) && pf.vfs > 0,
        is_probed: (profile.order.autoprobe_off && !pf.adopt).then_some(false),
        adopt: pf.adopt,
        eswitch: pf.eswitch,
        accept: pf.accept.iter().copied().collect(),
        vfs: vfs.collect(),
        namespaces,
        restored: None,
    }
}

fn one_vf(subject: &Subject<'_>, index: u32, given: Option<&Given>) -> DesiredVf {
    let mut vf = DesiredVf {
        index,
        pool: None,
        rest: NicAttributes::default(),
        without_mac: WithoutMac::Leave,
        leased: NicAttributes::default(),
        resources: None,
        namespaces: Vec::new(),
        erase: Eraser::None,
        accept: Vec::new(),
    };
    let Some(pool) = subject.pool(index) else {
        return vf;
    };
    vf.pool = Some(pool.name.clone());
    vf.accept = pool.accept.iter().copied().collect();
    let over = subject.pf.overrides.get(&index);
    match &pool.policy {
        PoolPolicy::Nic(policy) => {
            let wish = Wish::new(policy, over);
            let mac = match given {
                Some(Given::Mac(mac)) if subject.profile.attributes.mac => Some(*mac),
                _ => None,
            };
            vf.without_mac = match given {
                Some(Given::Later) => WithoutMac::Later,
                Some(Given::None) if subject.profile.attributes.clear_mac => WithoutMac::Clear,
                _ => WithoutMac::Leave,
            };
            vf.leased = wish.leased(mac, &subject.profile.attributes);
            vf.rest = wish.rest(mac, &subject.profile.attributes);
        }
        PoolPolicy::Nvme(policy) => {
            vf.resources = Some(wish::resources(policy, over));
            vf.erase = policy.erase;
        }
    }
    vf
}

/// The namespaces of the file, one for each VF of a pool where it says so, with the ids of those that are there.
fn namespaces(subject: &Subject<'_>) -> Vec<DesiredNamespace> {
    let mut all = Vec::new();
    for wanted in &subject.pf.namespaces {
        let (nsid, size, block) = match wanted.from {
            NamespaceFrom::Existing { nsid } => (Some(nsid), None, None),
            NamespaceFrom::Created { size, block } => {
                (None, Some(size.raw()), block.map(wish::block_bytes))
            }
        };
        let one = |name: String, vfs: Vec<u32>| DesiredNamespace {
            nsid: nsid.or_else(|| subject.made(&name)),
            name,
            size,
            block,
            is_shared: wanted.shared,
            vfs,
        };
        match &wanted.to {
            NamespaceFor::Vfs(vfs) => {
                all.push(one(wanted.name.clone(), vfs.iter().copied().collect()));
            }
            NamespaceFor::Pool(pool) => {
                let of_pool = subject.pf.pools.iter().filter(|(_, of)| of.name == *pool);
                all.extend(
                    of_pool.map(|(index, _)| one(format!("{}-{index}", wanted.name), vec![*index])),
                );
            }
        }
    }
    all
}

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
    /// Where the host file names it: every refusal points there. No saved plan has it.
    #[serde(skip)]
    pub place: Option<Location>,
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
    /// What it was before the first apply, where no file says it: at release.
    #[serde(default)]
    pub restored: Option<Restored>,
}

/// What no file says and a release puts back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The controllers that each namespace was attached to.
    pub attached: BTreeMap<u32, BTreeSet<u16>>,
    /// The host's drivers of VFs, by index.
    pub drivers: BTreeMap<u32, String>,
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
    /// What `rest.mac` of `None` means.
    #[serde(default)]
    pub without_mac: WithoutMac,
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

/// What a VF without an address in the plan is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutMac {
    /// What it has.
    #[default]
    Leave,
    /// None: the guest's driver chooses.
    Clear,
    /// One that is made at the first apply, together with the host's seed.
    Later,
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
