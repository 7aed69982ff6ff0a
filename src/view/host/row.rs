//! One VF, with all that is known of it: from the machine, the records and the host file.

use std::collections::BTreeMap;

use iommu::bdf::Bdf;
use serde::Serialize;

use crate::sriov::{Desired, KindFacts, Observed, PfFacts, Records, VfFacts, VfRecord, VfState};

/// A VF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its address.
    pub bdf: Bdf,
    /// Its PF.
    pub pf: Bdf,
    /// The PF's interface or controller.
    pub of: Option<String>,
    /// Its index.
    pub index: u32,
    /// The pool it is in.
    pub pool: Option<String>,
    /// Where it is in its life.
    pub state: VfState,
    /// Why, where the state needs a reason.
    pub why: Option<String>,
    /// Since when it is in that state: RFC 3339.
    pub since: Option<String>,
    /// The guest that has it, or had it last.
    pub guest: Option<String>,
    /// Whether the guest keeps it between runs.
    pub is_kept: bool,
    /// Its address on the network, as the PF enforces it.
    pub mac: Option<String>,
    /// Ids of the namespaces that its controller sees now.
    pub namespaces: Vec<u32>,
}

/// All VFs that there are, and those that the file wants, in the order of PF and index.
#[must_use]
pub fn rows(observed: &Observed, desired: Option<&Desired>, records: &Records) -> Vec<Row> {
    let mut rows = Vec::new();
    for (pf, facts) in &observed.pfs {
        let wanted = desired.and_then(|desired| desired.pfs.get(pf));
        let pools: BTreeMap<u32, &str> = wanted
            .into_iter()
            .flat_map(|wanted| &wanted.vfs)
            .filter_map(|vf| Some((vf.index, vf.pool.as_deref()?)))
            .collect();
        for vf in &facts.vfs {
            let record = records
                .vf(*pf, vf.index)
                .filter(|record| record.bdf == vf.bdf);
            let pool = pools.get(&vf.index).copied();
            rows.push(row(facts, vf, pool, record, records));
        }
    }
    rows
}

fn row(
    pf: &PfFacts,
    vf: &VfFacts,
    pool: Option<&str>,
    record: Option<&VfRecord>,
    records: &Records,
) -> Row {
    let quarantined = records.quarantined.get(&vf.bdf);
    let running = records.running.get(&vf.bdf);
    let lease = record.and_then(|record| record.lease.as_ref());
    let state = match (quarantined, record, running) {
        (Some(_), _, _) => VfState::Quarantined,
        (None, Some(record), _) => record.state,
        // Without a record, a VF that a guest was given by its address.
        (None, None, Some(_)) => VfState::InUse,
        (None, None, None) => VfState::Created,
    };
    Row {
        bdf: vf.bdf,
        pf: pf.bdf,
        of: match &pf.kind {
            KindFacts::Nic(nic) => nic.interface.clone(),
            KindFacts::Nvme(nvme) => Some(nvme.controller.clone()),
            KindFacts::Other => None,
        },
        index: vf.index,
        pool: pool
            .map(str::to_owned)
            .or_else(|| record.and_then(|record| record.pool.clone())),
        state,
        why: quarantined.cloned().or_else(|| {
            let report = records.unusable.get(&pf.bdf)?;
            Some(format!("{}: {}", report.what, report.fix))
        }),
        since: record.map(|record| record.since.clone()),
        guest: lease
            .map(|lease| lease.guest.clone())
            .or_else(|| running.cloned()),
        is_kept: lease.is_some_and(|lease| lease.keep),
        mac: vf.nic.and_then(|nic| nic.mac).map(|mac| mac.to_string()),
        namespaces: namespaces(pf, vf.index),
    }
}

/// Ids of the namespaces that are attached to the VF's controller.
fn namespaces(pf: &PfFacts, index: u32) -> Vec<u32> {
    let Some(nvme) = pf.nvme() else {
        return Vec::new();
    };
    let secondary = nvme
        .secondaries
        .iter()
        .find(|one| u32::from(one.vf).checked_sub(1) == Some(index));
    let attached = nvme.namespaces.iter();
    attached
        .filter(|(_, namespace)| {
            secondary.is_some_and(|one| namespace.attached.contains(&one.cntlid))
        })
        .map(|(nsid, _)| *nsid)
        .collect()
}
