//! `[[peer]]`: pairs of the guest's own devices, one of which may reach the BARs of the other by DMA.

use iommu::bdf::Bdf;

use super::{
    reader::{Placed, Table},
    types::{DeviceSpec, InterfaceChoice, PeerSpec},
    values::bdf,
};
use crate::error::{ErrorId, Location, Report};

const PEER_KEYS: &[&str] = &["from", "to"];

/// The pairs. `devices` are those of the guest, or `None` where not all of them could be read.
pub(super) fn peers(
    tables: Vec<Table<'_>>,
    devices: Option<&[DeviceSpec]>,
    interface: Option<&Placed<InterfaceChoice>>,
) -> Vec<PeerSpec> {
    let mut found: Vec<PeerSpec> = Vec::new();
    for mut table in tables {
        let from = end(&mut table, "from", devices);
        let to = end(&mut table, "to", devices);
        let pair = from.zip(to).and_then(|(from, to)| {
            let peer = PeerSpec {
                from: from.value,
                to: to.value,
                place: Some(to.place.clone()),
            };
            match refusal(&peer, &found, interface) {
                Some(report) => table.problem(report, to.place),
                None => Some(peer),
            }
        });
        table.finish(PEER_KEYS);
        found.extend(pair);
    }
    found
}

/// The device at `key`, when it is one of the guest's.
fn end(table: &mut Table<'_>, key: &str, devices: Option<&[DeviceSpec]>) -> Option<Placed<Bdf>> {
    let text = table.required(key, "\"0000:3b:02.1\"")?;
    let value = match bdf(&text.value) {
        Ok(value) => value,
        Err(report) => return table.problem(report, text.place),
    };
    let is_foreign = |devices: &[DeviceSpec]| devices.iter().all(|device| device.bdf != value);
    if devices.is_some_and(is_foreign) {
        let report = bad(
            format!("{value} is no device of this guest"),
            "no [[device]] of this file has that bdf, and a guest may not reach what is not its own",
            "name two functions that are each a [[device]] of this file",
        );
        return table.problem(report, text.place);
    }
    Some(Placed {
        value,
        place: text.place,
    })
}

/// What stands against a pair of devices of the guest.
fn refusal(
    peer: &PeerSpec,
    before: &[PeerSpec],
    interface: Option<&Placed<InterfaceChoice>>,
) -> Option<Report> {
    if peer.from == peer.to {
        return Some(bad(
            format!("{} is paired with itself", peer.to),
            "a pair is of two devices",
            "name another device, or remove the table",
        ));
    }
    let is_same = |other: &&PeerSpec| (other.from, other.to) == (peer.from, peer.to);
    if let Some(other) = before.iter().find(is_same) {
        let line = |place: &Location| format!("the same pair is at line {}", place.line);
        let why = other.place.as_ref().map_or_else(String::new, line);
        return Some(bad(
            format!("{} and {} are paired twice", peer.from, peer.to),
            why,
            "remove one of the tables",
        ));
    }
    let asked = interface.filter(|asked| asked.value == InterfaceChoice::Iommufd)?;
    Some(Report::new(
        ErrorId::PeerInterface,
        "iommufd cannot map the BARs of a [[peer]]",
        format!(
            "line {} asks for iommufd, which maps memory and no BARs",
            asked.place.line
        ),
        "write `interface = \"auto\"` or \"type1\", or remove the [[peer]] tables",
    ))
}

fn bad(what: String, why: impl Into<String>, fix: &str) -> Report {
    Report::new(ErrorId::BadPeer, what, why, fix)
}
