//! `narrows ps`: the guests of this host.

use std::collections::BTreeMap;

use clap::Args;
use iommu::sysfs::SysRoot;
use serde::Serialize;

use super::{Done, Outcome, host::Machine, written};
use crate::{
    error::{Color, Report},
    sriov::Records,
    state::{Guest, State},
    view::{KeptGuest, guests_text},
};

#[derive(Debug, Args)]
pub(super) struct Ps {
    /// Print the list as JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    guests: &'a [Guest],
    /// Guests that do not run and keep VFs.
    kept: &'a [KeptGuest],
    damaged: &'a [Report],
}

impl Ps {
    /// Lists them.
    pub(super) fn list(&self, root: &SysRoot, state: &State, color: Color) -> Outcome {
        let (guests, mut damaged) = state.guests(root).map_err(|report| vec![report])?;
        let records = Machine::read(root, state)?.records;
        // What guests keep of these is not known.
        damaged.extend(records.unusable.values().cloned());
        let kept = kept(&records, &guests);
        let data = match self.json {
            true => written(serde_json::to_string_pretty(&Document {
                api_version: "v1alpha1",
                kind: "Guests",
                guests: &guests,
                kept: &kept,
                damaged: &damaged,
            }))?,
            false => guests_text(&guests, &kept, color),
        };
        Ok(Done {
            // As JSON they are in the document.
            warnings: if self.json { Vec::new() } else { damaged },
            ..Done::with(data)
        })
    }
}

/// Guests with leases that outlive their runs, but for those that run.
fn kept(records: &Records, guests: &[Guest]) -> Vec<KeptGuest> {
    let mut kept: BTreeMap<&str, KeptGuest> = BTreeMap::new();
    for record in records.pfs.values().flat_map(|pf| pf.vfs.values()) {
        let Some(lease) = record.lease.as_ref().filter(|lease| lease.keep) else {
            continue;
        };
        if guests.iter().any(|guest| guest.name == lease.guest) {
            continue;
        }
        let entry = kept.entry(&lease.guest).or_insert_with(|| KeptGuest {
            name: lease.guest.clone(),
            since: lease.since.clone(),
            vfs: Vec::new(),
        });
        entry.vfs.push(record.bdf);
    }
    kept.into_values().collect()
}
