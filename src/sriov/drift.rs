//! What of a machine is not as the file that was applied says: found by hand or by accident, VFs in use included.

use std::fmt;

use iommu::bdf::Bdf;
use serde::Serialize;

use super::{
    check_nvme::secondary,
    desired::{Desired, WithoutMac},
    diff::differences,
    facts::Observed,
    plan::Pf,
    records::{NamespaceState, Records},
    tenure::Tenure,
};
use crate::spec::host::Profiles;

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// The PF.
    pub pf: Bdf,
    /// The VF's index; `None` where it is of the PF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vf: Option<u32>,
    /// What: `vlan`, `vfs`, `link`.
    pub name: String,
    /// As it is.
    pub is: String,
    /// As it should be.
    pub should: String,
    /// The guest that has the VF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pf,
            name,
            is,
            should,
            ..
        } = self;
        match self.vf {
            Some(vf) => write!(f, "VF {vf} of {pf}: {name} is {is}, should be {should}")?,
            None => write!(f, "{pf}: {name} is {is}, should be {should}")?,
        }
        match &self.guest {
            Some(guest) => write!(f, " (guest {guest} has it)"),
            None => Ok(()),
        }
    }
}

/// Everything that differs, PF by PF and VF by VF.
#[must_use]
pub fn drift(
    observed: &Observed,
    desired: &Desired,
    records: &Records,
    profiles: &Profiles,
) -> Vec<Drift> {
    let mut all = Vec::new();
    for wanted in desired.pfs.values() {
        match observed.pfs.get(&wanted.bdf) {
            Some(facts) => {
                let pf = Pf::new(facts, wanted, observed, records, profiles);
                of_pf(&pf, &mut all);
                of_vfs(&pf, &mut all);
                of_namespaces(&pf, &mut all);
                of_strange_namespaces(&pf, &mut all);
            }
            None => all.push(Drift {
                pf: wanted.bdf,
                vf: None,
                name: "pf".to_owned(),
                is: "absent".to_owned(),
                should: "present".to_owned(),
                guest: None,
            }),
        }
    }
    all
}

fn of_pf(pf: &Pf<'_>, all: &mut Vec<Drift>) {
    let mut push = |name: &str, is: String, should: String| {
        all.push(Drift {
            pf: pf.facts.bdf,
            vf: None,
            name: name.to_owned(),
            is,
            should,
            guest: None,
        });
    };
    let (is, should) = (pf.facts.count, pf.wanted.count);
    let has_enough = pf.wanted.adopt && is >= should;
    if is != should && !has_enough {
        push("vfs", is.to_string(), should.to_string());
    }
    if let Some(nic) = pf.facts.nic()
        && pf.wanted.up
        && !nic.is_up
    {
        push("link", "down".to_owned(), "up".to_owned());
    }
    if let (Some(is), Some(should)) = (pf.facts.is_probed, pf.wanted.is_probed)
        && is != should
    {
        push("autoprobe", on(is), on(should));
    }
}

fn on(is: bool) -> String {
    if is { "on" } else { "off" }.to_owned()
}

fn of_vfs(pf: &Pf<'_>, all: &mut Vec<Drift>) {
    for vf in &pf.wanted.vfs {
        let Some(is) = pf.facts.vfs.iter().find(|is| is.index == vf.index) else {
            continue;
        };
        let tenure = pf.tenure(is);
        let guest = tenure.guest().map(str::to_owned);
        let mut push = |name: String, is: String, should: String| {
            all.push(Drift {
                pf: pf.facts.bdf,
                vf: Some(vf.index),
                name,
                is,
                should,
                guest: guest.clone(),
            });
        };
        let (wanted, without) = match tenure {
            Tenure::Running(_) => (vf.leased, WithoutMac::Leave),
            // On its way back: what it is now is nobody's wish.
            Tenure::Returning(_) => continue,
            Tenure::Free | Tenure::Kept(_) | Tenure::Quarantined => (vf.rest, vf.without_mac),
        };
        for change in differences(is.nic.unwrap_or_default(), wanted, without, pf.profile) {
            let read = change.from.map(super::step::AttributeValue::in_words);
            push(
                change.to.name().to_string(),
                read.unwrap_or_default(),
                change.to.in_words(),
            );
        }
        let own = pf.facts.nvme().and_then(|nvme| secondary(nvme, vf.index));
        if let (Some((queues, vectors)), Some(own)) = (vf.resources, own) {
            let read = resources(own.is_online, own.queues, own.vectors);
            let should = resources((queues, vectors) != (0, 0), queues, vectors);
            if read != should {
                push("resources".to_owned(), read, should);
            }
        }
    }
}

fn resources(is_online: bool, queues: u16, vectors: u16) -> String {
    let word = if is_online { "online" } else { "offline" };
    format!("{word}, {queues} queues, {vectors} vectors")
}

/// Namespaces that the file does not name, and that VFs of pools have.
fn of_strange_namespaces(pf: &Pf<'_>, all: &mut Vec<Drift>) {
    let Some(nvme) = pf.facts.nvme() else { return };
    let is_named = |nsid: u32| {
        let mut named = pf.wanted.namespaces.iter();
        named.any(|one| one.nsid == Some(nsid))
    };
    for vf in pf.wanted.vfs.iter().filter(|vf| vf.pool.is_some()) {
        let Some(own) = secondary(nvme, vf.index) else {
            continue;
        };
        for (nsid, namespace) in &nvme.namespaces {
            if namespace.attached.contains(&own.cntlid) && !is_named(*nsid) {
                all.push(Drift {
                    pf: pf.facts.bdf,
                    vf: Some(vf.index),
                    name: format!("namespace {nsid}"),
                    is: "attached".to_owned(),
                    should: "not of this VF".to_owned(),
                    guest: pf.tenure_of(vf.index).guest().map(str::to_owned),
                });
            }
        }
    }
}

/// Namespaces of the file that somebody else has, or that are gone.
fn of_namespaces(pf: &Pf<'_>, all: &mut Vec<Drift>) {
    let Some(nvme) = pf.facts.nvme() else { return };
    for wanted in &pf.wanted.namespaces {
        let name = format!("namespace {}", wanted.name);
        let is = wanted.nsid.and_then(|nsid| nvme.namespaces.get(&nsid));
        let mut push = |is: String, should: &str| {
            all.push(Drift {
                pf: pf.facts.bdf,
                vf: None,
                name: name.clone(),
                is,
                should: should.to_owned(),
                guest: None,
            });
        };
        let Some(is) = is else {
            push("absent".to_owned(), "present");
            continue;
        };
        let record = wanted.nsid.and_then(|nsid| pf.kept?.namespaces.get(&nsid));
        let record = record.filter(|record| record.state == NamespaceState::Clean);
        if let Some(format) = record.and_then(|record| record.format)
            && format != is.format()
        {
            push(is.format().to_string(), &format.to_string());
        }
        if wanted.vfs.is_empty() {
            continue;
        }
        let may = wanted.vfs.iter().filter_map(|index| {
            let is_free = pf.tenure_of(*index) == Tenure::Free;
            let own = secondary(nvme, *index)?;
            (!is_free).then_some(own.cntlid)
        });
        let may: Vec<u16> = may.collect();
        let strangers = is.attached.iter().filter(|cntlid| !may.contains(cntlid));
        let strangers: Vec<String> = strangers.map(u16::to_string).collect();
        if !strangers.is_empty() {
            push(
                format!("attached to controllers {}", strangers.join(", ")),
                "attached to guests' only",
            );
        }
    }
}
