//! A host file from the machine as it is: applied at once, it changes nothing.
//!
//! It declares how many VFs each PF has and leaves their settings alone; what those are is told in comments, as a pool
//! that only has to be uncommented.

use std::fmt::{self, Write};

use iommu::topology::VlanProto;

use crate::sriov::{KindFacts, NicAttributes, NvmeFacts, Observed, PfFacts, Records, VfFacts};

/// The text of a host file.
#[must_use]
pub fn import(observed: &Observed, records: &Records) -> String {
    let mut text = String::new();
    // Writing to a text cannot fail.
    file(&mut text, observed, records).ok();
    text
}

fn file(to: &mut String, observed: &Observed, records: &Records) -> fmt::Result {
    to.push_str(
        "# Made by `narrows host import` from the machine as it was. Applied as it is, it changes nothing.\n\
         # Uncomment a pool to let guests ask for its VFs by name; docs/host-file.md has all keys.\n\
         apiVersion = \"v1alpha1\"\n",
    );
    let is_ours = |facts: &&PfFacts| !matches!(facts.kind, KindFacts::Other) && facts.total > 0;
    for facts in observed.pfs.values().filter(is_ours) {
        to.push('\n');
        pf(to, facts, records)?;
    }
    Ok(())
}

fn pf(to: &mut String, facts: &PfFacts, records: &Records) -> fmt::Result {
    let PfFacts {
        bdf,
        vendor,
        device,
        count,
        total,
        ..
    } = facts;
    let driver = facts.driver.as_deref().unwrap_or("no driver");
    write!(to, "# {vendor:04x}:{device:04x}, {driver}")?;
    match &facts.kind {
        KindFacts::Nic(nic) => {
            let interface = nic.interface.as_deref().unwrap_or("no interface");
            write!(to, ", {}", one_line(interface))?;
        }
        KindFacts::Nvme(nvme) => {
            let (model, serial) = (one_line(&nvme.model), one_line(&nvme.serial));
            write!(
                to,
                ", {}, {model}, serial {serial}",
                one_line(&nvme.controller)
            )?;
        }
        KindFacts::Other => {}
    }
    if let Some(node) = facts.numa {
        write!(to, ", NUMA node {node}")?;
    }
    writeln!(to, "; {count} of {total} VFs")?;
    writeln!(to, "[[pf]]\nbdf = \"{bdf}\"\nvfs = {count}")?;
    // Whoever made them goes on to have made them.
    writeln!(to, "adopt = true")?;
    if let Some(nic) = facts.nic() {
        writeln!(to, "up = {}", nic.is_up)?;
    }
    if *count == 0 {
        return Ok(());
    }
    let kind = if facts.nic().is_some() { "nic" } else { "nvme" };
    let pool = format!("{kind}-{}", bdf.to_string().replace([':', '.'], "-"));
    writeln!(to, "# pools = {{ {pool} = \"0-{}\" }}", count - 1)?;
    for vf in &facts.vfs {
        one_vf(to, facts, vf, records)?;
    }
    if let Some(nvme) = facts.nvme() {
        namespaces(to, nvme)?;
    }
    writeln!(to, "# [[pool]]\n# name = \"{pool}\"\n# kind = \"{kind}\"")?;
    if facts.nic().is_some() {
        writeln!(to, "# hold = \"always\"")?;
    }
    Ok(())
}

fn one_vf(to: &mut String, pf: &PfFacts, vf: &VfFacts, records: &Records) -> fmt::Result {
    write!(to, "# VF {}: {}", vf.index, vf.bdf)?;
    if let Some(driver) = &vf.driver {
        write!(to, ", with {}", one_line(driver))?;
    }
    let lease = records
        .vf(pf.bdf, vf.index)
        .and_then(|record| record.lease.as_ref());
    if let Some(lease) = lease {
        write!(to, ", leased to guest {}", lease.guest)?;
    }
    if let Some(nvme) = pf.nvme()
        && let Some(one) = nvme
            .secondaries
            .iter()
            .find(|one| u32::from(one.vf) == vf.index + 1)
    {
        let word = if one.is_online { "online" } else { "offline" };
        let (queues, vectors) = (one.queues, one.vectors);
        write!(to, ", {word}, queues = {queues}, vectors = {vectors}")?;
    }
    to.push('\n');
    let Some(nic) = &vf.nic else { return Ok(()) };
    writeln!(to, "# [[pf.vf]]\n# index = \"{}\"", vf.index)?;
    attributes(to, nic)
}

fn attributes(to: &mut String, nic: &NicAttributes) -> fmt::Result {
    if let Some(mac) = nic.mac {
        writeln!(to, "# mac = \"{mac}\"")?;
    }
    if let Some(vlan) = nic.vlan.filter(|vlan| vlan.id != 0) {
        writeln!(to, "# vlan = {}\n# qos = {}", vlan.id, vlan.qos)?;
        if vlan.proto == VlanProto::Dot1Ad {
            writeln!(to, "# vlan_proto = \"802.1ad\"")?;
        }
    }
    let switches = [
        ("spoofchk", nic.spoofchk),
        ("trust", nic.trust),
        ("query_rss", nic.query_rss),
    ];
    for (name, value) in switches {
        if let Some(value) = value {
            writeln!(to, "# {name} = {value}")?;
        }
    }
    for (name, rate) in [("min_tx_rate", nic.min_tx), ("max_tx_rate", nic.max_tx)] {
        if let Some(rate) = rate.filter(|rate| rate.0 != 0) {
            writeln!(to, "# {name} = {}", rate.0)?;
        }
    }
    Ok(())
}

fn namespaces(to: &mut String, nvme: &NvmeFacts) -> fmt::Result {
    for (nsid, namespace) in &nvme.namespaces {
        let attached: Vec<String> = namespace.attached.iter().map(u16::to_string).collect();
        writeln!(
            to,
            "# namespace {nsid}: {} bytes, blocks of {}, attached to controllers [{}]",
            namespace.size,
            namespace.block,
            attached.join(", ")
        )?;
    }
    Ok(())
}

/// What a device says of itself may not end a comment.
fn one_line(text: &str) -> String {
    text.trim().replace(|c: char| c.is_control(), "?")
}
