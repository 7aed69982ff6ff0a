//! What the driver of a NIC's PF enforces on each VF.

use std::collections::{BTreeMap, BTreeSet};

use super::{Enforced, Function, InterfacePolicy, Mac, VfPolicy, VlanProto, function_path};
use crate::{bdf::Bdf, error::Result, sysfs::SysRoot};

/// Class code of network controllers, the upper 8 bits.
const NETWORK: u32 = 0x02;

/// Reads the policies of all VFs of those of `pfs` that are network devices.
///
/// # Errors
/// `sysfs-io`: the PF's links to its VFs cannot be read.
pub(super) fn read_of(
    root: &SysRoot,
    functions: &mut BTreeMap<Bdf, Function>,
    pfs: &BTreeSet<Bdf>,
) -> Result<()> {
    let pfs: Vec<(Bdf, u32, Vec<String>)> = functions
        .values()
        .filter(|function| pfs.contains(&function.bdf))
        .filter(|function| function.class >> 16 == NETWORK)
        .filter_map(|pf| Some((pf.bdf, pf.sriov?.enabled, pf.interfaces.clone())))
        .filter(|(_, enabled, _)| *enabled > 0)
        .collect();
    for (pf, enabled, interfaces) in pfs {
        let indexes = read_indexes(root, pf, enabled)?;
        let tables: Vec<(String, Answer)> = interfaces
            .into_iter()
            .filter_map(|interface| {
                let answer = read_table(root, &interface, pf)?;
                Some((interface, answer))
            })
            .collect();
        for vf in functions.values_mut().filter(|vf| vf.physfn == Some(pf)) {
            let index = indexes.get(&vf.bdf).copied();
            vf.policies = tables
                .iter()
                .map(|(interface, answer)| InterfacePolicy {
                    interface: interface.clone(),
                    enforced: of_vf(answer, index),
                })
                .collect();
        }
    }
    Ok(())
}

/// The numbers of a PF's VFs, as its links `virtfnN` have them; its driver counts alike.
///
/// *Source:* drivers/pci/iov.c, `pci_iov_sysfs_link` (v6.12).
fn read_indexes(root: &SysRoot, pf: Bdf, enabled: u32) -> Result<BTreeMap<Bdf, u32>> {
    let folder = function_path(pf);
    let mut indexes = BTreeMap::new();
    // A made-up tree may say anything; a function number has 16 bits.
    for index in 0..enabled.min(0xffff) {
        let target = root.read_link_name(folder.join(format!("virtfn{index}")))?;
        if let Some(vf) = target.and_then(|target| target.parse().ok()) {
            indexes.insert(vf, index);
        }
    }
    Ok(indexes)
}

/// What an interface tells of its VFs, by index; or why that is not known.
pub(super) type Answer = std::result::Result<BTreeMap<u32, VfPolicy>, String>;

/// `None` where it tells of none: the PF may carry representors and ports besides the interface that does.
pub(super) fn read_table(root: &SysRoot, interface: &str, pf: Bdf) -> Option<Answer> {
    match root.vf_info(interface) {
        Ok(text) => parse(&text?, pf),
        Err(error) => Some(Err(error.to_string())),
    }
}

/// Reads lines as [`SysRoot::vf_info`] gives them.
fn parse(text: &str, pf: Bdf) -> Option<Answer> {
    let mut table = BTreeMap::new();
    for line in text.lines() {
        match line.split_once(' ') {
            // In another network namespace, a name may be another device's.
            Some(("parent", parent)) if parent != pf.to_string() => {
                return Some(Err(format!("is an interface of {parent}, not of {pf}")));
            }
            Some(("parent", _)) => {}
            Some(("vf", rest)) => {
                let row = parse_row(rest).filter(|row| !table.contains_key(&row.index));
                let Some(row) = row else {
                    return Some(Err(format!("{line:?} is no line of a VF, or its second")));
                };
                table.insert(row.index, row);
            }
            _ => return Some(Err(format!("{line:?} is no line of a VF"))),
        }
    }
    Some(Ok(table))
}

fn parse_row(rest: &str) -> Option<VfPolicy> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (index, pairs) = words.split_first()?;
    let mut policy = VfPolicy {
        index: index.parse().ok()?,
        mac: None,
        vlan: None,
        qos: None,
        vlan_proto: None,
        spoof_check: None,
        trusted: None,
        rss_query: None,
        link: None,
        min_tx_mbps: None,
        max_tx_mbps: None,
    };
    let (mut has_mac, mut proto) = (false, VlanProto::Dot1Q);
    for pair in pairs.chunks(2) {
        let [key, value] = pair else {
            return None;
        };
        match *key {
            "mac" => {
                has_mac = true;
                policy.mac = match *value {
                    "none" => None,
                    mac => Some(mac.parse().ok().filter(|mac: &Mac| !mac.is_zero())?),
                };
            }
            "vlan" => policy.vlan = Some(value.parse().ok()?),
            "qos" => policy.qos = Some(value.parse().ok()?),
            "proto" => proto = value.parse().ok()?,
            "spoofchk" => policy.spoof_check = Some(parse_switch(value)?),
            "trust" => policy.trusted = Some(parse_switch(value)?),
            "query_rss" => policy.rss_query = Some(parse_switch(value)?),
            "link" => policy.link = Some(value.parse().ok()?),
            "min_tx" => policy.min_tx_mbps = Some(value.parse().ok()?),
            "max_tx" => policy.max_tx_mbps = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    policy.vlan_proto = policy.vlan.map(|_| proto);
    has_mac.then_some(policy)
}

fn parse_switch(word: &str) -> Option<bool> {
    match word {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn of_vf(answer: &Answer, index: Option<u32>) -> Enforced {
    let row = match (answer, index) {
        (Err(reason), _) => Err(reason.clone()),
        (Ok(_), None) => Err("no link virtfnN of the PF leads to it".to_owned()),
        (Ok(table), Some(index)) => table
            .get(&index)
            .copied()
            .ok_or_else(|| format!("tells nothing of VF {index}")),
    };
    match row {
        Ok(policy) => Enforced::Told(policy),
        Err(reason) => Enforced::Unknown { reason },
    }
}

#[cfg(test)]
#[path = "policy_test.rs"]
mod tests;
