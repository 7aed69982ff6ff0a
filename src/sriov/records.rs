//! What the hardware cannot say: leases, given addresses, dirt. Kept by `state::vf`.

use std::collections::BTreeMap;

use iommu::{bdf::Bdf, topology::Mac};
use serde::{Deserialize, Serialize};

use super::{
    facts::Anchor,
    life::{Event, VfState, next},
    terms::LeaseTerms,
};
use crate::{
    error::{ErrorId, Report},
    spec::host::Eraser,
};

/// The records of all PFs, and the host's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    /// By PF.
    pub pfs: BTreeMap<Bdf, PfRecords>,
    /// PFs of which nobody knows who has their VFs, with why: none of these is among `pfs`.
    pub unusable: BTreeMap<Bdf, Report>,
    /// VFs in quarantine: the sentence of each.
    pub quarantined: BTreeMap<Bdf, String>,
    /// Locked by a run: the name of its guest.
    pub running: BTreeMap<Bdf, String>,
    /// Of what generated addresses are made; `None` before the first apply.
    pub seed: Option<[u8; 16]>,
}

impl Records {
    /// The record of a VF.
    #[must_use]
    pub fn vf(&self, pf: Bdf, index: u32) -> Option<&VfRecord> {
        self.pfs.get(&pf)?.vfs.get(&index)
    }
}

/// The records of one PF: one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PfRecords {
    /// The card that they are about.
    pub anchor: Anchor,
    /// The boot in which they were written.
    pub boot: String,
    /// By index.
    pub vfs: BTreeMap<u32, VfRecord>,
    /// By namespace id.
    pub namespaces: BTreeMap<u32, NamespaceRecord>,
}

impl PfRecords {
    /// Nothing is known yet of the card.
    #[must_use]
    pub const fn new(anchor: Anchor, boot: String) -> Self {
        Self {
            anchor,
            boot,
            vfs: BTreeMap::new(),
            namespaces: BTreeMap::new(),
        }
    }

    /// What happens to a VF: its record goes on to the state that the life of a VF has for it. A lease ends with the state
    /// that it was about: with `Rested` and `Erased`, and with `Gone` unless it is kept or its namespaces are still to be
    /// erased; a kept one has no run after `RestedKept`.
    ///
    /// # Errors
    /// `record-mismatch` where the event cannot happen: the record is then as it was.
    pub fn step(
        &mut self,
        index: u32,
        bdf: Bdf,
        event: Event,
        now: &str,
    ) -> Result<VfState, Report> {
        let was = self.vfs.get(&index);
        let from = was.map_or(VfState::Absent, |record| record.state);
        let to = next(from, event).map_err(|forbidden| {
            Report::new(
                ErrorId::RecordMismatch,
                format!("what is kept of VF {index} ({bdf}) does not fit what happens to it"),
                format!(
                    "it is {}, and the event is {:?}",
                    forbidden.state, forbidden.event
                ),
                format!("narrows recover, then narrows vf why {bdf}"),
            )
        })?;
        let is_owed = was
            .and_then(|record| record.lease.as_ref())
            .is_some_and(|lease| self.is_owed(lease));
        let record = self.vfs.entry(index).or_insert_with(|| VfRecord {
            bdf,
            state: VfState::Absent,
            since: now.to_owned(),
            pool: None,
            mac: None,
            lease: None,
        });
        record.bdf = bdf;
        if record.state != to {
            record.state = to;
            now.clone_into(&mut record.since);
        }
        match event {
            Event::Rested | Event::Erased => record.lease = None,
            Event::Gone => record.lease = record.lease.take().filter(|l| l.keep || is_owed),
            Event::RestedKept => {
                if let Some(lease) = &mut record.lease {
                    lease.run = None;
                }
            }
            Event::Created
            | Event::ResetSeen
            | Event::Leased
            | Event::Bound
            | Event::Ended
            | Event::RestedDirty
            | Event::Failed
            | Event::Freed => {}
        }
        Ok(to)
    }

    /// Whether something is left to be done for a lease that ends: a namespace of it is not clean.
    fn is_owed(&self, lease: &Lease) -> bool {
        let mut own = lease.terms.own_namespaces();
        own.any(|its| {
            let record = self.namespaces.get(&its.nsid);
            record.is_some_and(|record| record.state != NamespaceState::Clean)
        })
    }

    /// The namespaces that the host file names, that may have somebody's data, and that no lease tells of. A shared one is
    /// nobody's to erase.
    #[must_use]
    pub fn ownerless(&self) -> Vec<u32> {
        let leases = self.vfs.values().filter_map(|vf| vf.lease.as_ref());
        let leased: Vec<u32> = leases
            .flat_map(|lease| lease.terms.namespaces.iter().map(|its| its.nsid))
            .collect();
        let is_left = |nsid: &u32, record: &NamespaceRecord| match record.state {
            NamespaceState::Clean => false,
            NamespaceState::Dirty | NamespaceState::Sanitising => {
                !leased.contains(nsid) && !record.is_shared && !record.name.is_empty()
            }
        };
        let left = self.namespaces.iter().filter(|(nsid, r)| is_left(nsid, r));
        left.map(|(nsid, _)| *nsid).collect()
    }

    /// The VF, with the guest that has it or keeps it, whose lease has a namespace alone: nobody else gets it.
    #[must_use]
    pub fn owner_of(&self, nsid: u32) -> Option<(&VfRecord, &str)> {
        self.holders_of(nsid)
            .find(|(_, _, is_shared)| !is_shared)
            .map(|(vf, guest, _)| (vf, guest))
    }

    /// The VFs and guests whose leases a namespace is in, each with whether it is shared: nobody deletes it.
    pub fn holders_of(&self, nsid: u32) -> impl Iterator<Item = (&VfRecord, &str, bool)> {
        let leased = self
            .vfs
            .values()
            .filter_map(|vf| Some((vf, vf.lease.as_ref()?)));
        leased.filter_map(move |(vf, lease)| {
            let mut all = lease.terms.namespaces.iter();
            let its = all.find(|its| its.nsid == nsid)?;
            Some((vf, lease.guest.as_str(), its.is_shared))
        })
    }

    /// The same in another boot: what a NIC held its VFs to is gone with them, and what lives on is a kept lease, a given
    /// address and every namespace. Of a controller, a VF that had not come back clean stays so: its namespaces are still
    /// to be erased. A boot that cannot be told is not another one.
    pub fn enter(&mut self, boot: &str, is_nvme: bool, now: &str) {
        if self.boot == boot || boot.is_empty() {
            return;
        }
        boot.clone_into(&mut self.boot);
        for record in self.vfs.values_mut() {
            let is_unfinished = matches!(
                record.state,
                VfState::Leased | VfState::InUse | VfState::Dirty | VfState::Sanitising
            );
            record.lease = record.lease.take().filter(|lease| lease.keep || is_nvme);
            let is_to_end = match &record.lease {
                Some(lease) => !lease.keep,
                None => is_unfinished,
            };
            if is_nvme && is_to_end {
                continue;
            }
            if let Some(lease) = &mut record.lease {
                lease.run = None;
            }
            if record.state != VfState::Absent {
                record.state = VfState::Absent;
                now.clone_into(&mut record.since);
            }
        }
    }
}

/// What is known of a VF.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VfRecord {
    /// Its address.
    pub bdf: Bdf,
    /// Where it is in its life. The quarantine has a record of its own, which counts: one that is not given back yet is in
    /// there, too, and is not `Quarantined` here before it is given back.
    pub state: VfState,
    /// Since when: RFC 3339.
    pub since: String,
    /// The pool it is in.
    pub pool: Option<String>,
    /// The address it was given.
    pub mac: Option<Mac>,
    /// Who has it.
    pub lease: Option<Lease>,
}

/// A lease: one guest has one VF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lease {
    /// The guest's name.
    pub guest: String,
    /// Whether it outlives the run.
    pub keep: bool,
    /// Since when: RFC 3339.
    pub since: String,
    /// The run that holds it; `None` for a kept lease between two runs.
    pub run: Option<Holder>,
    /// What the guest was given, and how it is taken back.
    pub terms: LeaseTerms,
}

/// The process that holds a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// When it started, in clock ticks after boot.
    pub start: u64,
    /// The boot.
    pub boot: String,
}

/// What is known of a namespace: it outlives boots, and VFs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespaceRecord {
    /// Its identity: another one at this id is another namespace.
    pub id: super::facts::NamespaceId,
    /// Its name in the host file; empty for one that no file has named since what was known of the card was forgotten.
    pub name: String,
    /// Whether somebody's data may be on it.
    pub state: NamespaceState,
    /// Since when: RFC 3339.
    pub since: String,
    /// Whether Narrows made it.
    pub is_made: bool,
    /// The guest that had it last.
    pub last_guest: Option<String>,
    /// The format that it should have: the one that it had when it was declared, made or first leased.
    #[serde(default)]
    pub format: Option<super::facts::NamespaceFormat>,
    /// How the pool of the lease that had it last erases.
    #[serde(default)]
    pub erase: Option<Eraser>,
    /// Whether the lease that had it last shared it: then it is dirty for everybody but those who share it.
    #[serde(default)]
    pub is_shared: bool,
}

/// Whether somebody's data may be on a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamespaceState {
    /// No guest had it since it was erased, or declared.
    Clean,
    /// A guest has it, or had it: it is erased before another one gets it.
    Dirty,
    /// An erase of it was begun.
    Sanitising,
}
