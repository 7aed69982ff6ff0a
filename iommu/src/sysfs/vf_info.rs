//! What the kernel says of the VFs behind a network interface: asked by netlink, turned into lines of text, so that a
//! captured machine can hold it as a file.
//!
//! The first line is `parent 0000:01:00.0`, where the kernel tells whose interface it is. Then follows one line for each
//! VF: `vf 0 mac 52:54:00:00:01:00 vlan 0 qos 0 spoofchk on trust off query_rss off link auto min_tx 0 max_tx 0`. What
//! the driver does not tell is left out; `mac none` is an address of zeros; `proto 802.1ad` follows on `qos` where the
//! VLAN's tag is such a one.
//!
//! *Source:* `include/uapi/linux/if_link.h`, `include/uapi/linux/rtnetlink.h`, `net/core/rtnetlink.c`,
//! `rtnl_fill_vfinfo` (v6.12).

use crate::{
    error::Errno,
    netlink::{
        Attributes, MALFORMED, Question, exchange,
        link::{
            IFLA_EXT_MASK, IFLA_IFNAME, IFLA_PARENT_DEV_NAME, IFLA_VF_INFO, IFLA_VF_LINK_STATE,
            IFLA_VF_MAC, IFLA_VF_RATE, IFLA_VF_RSS_QUERY_EN, IFLA_VF_SPOOFCHK, IFLA_VF_TRUST,
            IFLA_VF_VLAN, IFLA_VF_VLAN_INFO, IFLA_VF_VLAN_LIST, IFLA_VFINFO_LIST, LINK_LEN,
            RTM_GETLINK, RTM_NEWLINK, VFS_WITHOUT_COUNTERS, question,
        },
        u32_at,
    },
};

/// Asks the kernel; `None` where the interface's driver tells of no VFs. Needs no privilege.
pub(super) fn ask(interface: &str) -> Result<Option<String>, Errno> {
    match exchange(&by_name(interface))?.as_slice() {
        [reply] if reply.kind == RTM_NEWLINK => told(&reply.body),
        _ => Err(MALFORMED),
    }
}

/// `RTM_GETLINK` by name.
fn by_name(interface: &str) -> Question {
    let mut name = interface.as_bytes().to_vec();
    name.push(0);
    question(RTM_GETLINK, 0, 0, 0, 0)
        .put(IFLA_IFNAME, &name)
        .put(IFLA_EXT_MASK, &VFS_WITHOUT_COUNTERS.to_ne_bytes())
}

/// The lines of a reply.
fn told(body: &[u8]) -> Result<Option<String>, Errno> {
    let link = Attributes::parse(body.get(LINK_LEN..).ok_or(MALFORMED)?)?;
    let mut lines = String::new();
    if let Some(parent) = link.only(IFLA_PARENT_DEV_NAME)? {
        let name = parent.split(|byte| *byte == 0).next().unwrap_or_default();
        lines.push_str(&format!("parent {}\n", String::from_utf8_lossy(name)));
    }
    let Some(list) = link.only(IFLA_VFINFO_LIST)? else {
        return Ok(None);
    };
    for vf in Attributes::parse(list)?.all(IFLA_VF_INFO) {
        lines.push_str(&line(&Attributes::parse(vf)?)?);
    }
    Ok(Some(lines))
}

/// The line of a VF.
fn line(vf: &Attributes<'_>) -> Result<String, Errno> {
    let mac = vf.only(IFLA_VF_MAC)?.ok_or(MALFORMED)?;
    let index = u32_at(mac, 0)?;
    let mac = mac.get(4..10).ok_or(MALFORMED)?;
    let mut line = match mac.iter().all(|byte| *byte == 0) {
        true => format!("vf {index} mac none"),
        false => {
            let digits: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("vf {index} mac {}", digits.join(":"))
        }
    };
    // Every attribute begins with the VF's number.
    for (kind, words) in WORDS {
        let Some(value) = vf.only(*kind)? else {
            continue;
        };
        for (place, word) in words.iter().enumerate() {
            let number = u32_at(value, 4 + 4 * place)?;
            let said = match (*kind, number) {
                // What the kernel presets, so that a driver without such a switch can be told from one that is off.
                (IFLA_VF_SPOOFCHK | IFLA_VF_TRUST | IFLA_VF_RSS_QUERY_EN, u32::MAX) => continue,
                (IFLA_VF_SPOOFCHK | IFLA_VF_TRUST | IFLA_VF_RSS_QUERY_EN, 0) => "off".to_owned(),
                (IFLA_VF_SPOOFCHK | IFLA_VF_TRUST | IFLA_VF_RSS_QUERY_EN, _) => "on".to_owned(),
                (IFLA_VF_LINK_STATE, 0) => "auto".to_owned(),
                (IFLA_VF_LINK_STATE, 1) => "up".to_owned(),
                (IFLA_VF_LINK_STATE, 2) => "down".to_owned(),
                (IFLA_VF_LINK_STATE, _) => continue,
                (_, number) => number.to_string(),
            };
            line.push_str(&format!(" {word} {said}"));
        }
        if *kind == IFLA_VF_VLAN && has_outer_tag(vf)? {
            line.push_str(" proto 802.1ad");
        }
    }
    line.push('\n');
    Ok(line)
}

/// Whether the VF's VLAN is one of 802.1ad; an older kernel has 802.1Q alone, and no list.
fn has_outer_tag(vf: &Attributes<'_>) -> Result<bool, Errno> {
    let Some(list) = vf.only(IFLA_VF_VLAN_LIST)? else {
        return Ok(false);
    };
    let info = Attributes::parse(list)?.only(IFLA_VF_VLAN_INFO)?;
    let info = info.ok_or(MALFORMED)?;
    let (vlan, qos) = (u32_at(info, 4)?, u32_at(info, 8)?);
    let proto: &[u8; 2] = info
        .get(12..)
        .and_then(<[u8]>::first_chunk)
        .ok_or(MALFORMED)?;
    match u16::from_be_bytes(*proto) {
        // Without a tag there is none of either kind, and some drivers say 0.
        _ if vlan == 0 && qos == 0 => Ok(false),
        0x8100 => Ok(false),
        0x88a8 => Ok(true),
        _ => Err(MALFORMED),
    }
}

/// The words for the numbers of each attribute, in the order of the line.
const WORDS: &[(u16, &[&str])] = &[
    (IFLA_VF_VLAN, &["vlan", "qos"]),
    (IFLA_VF_SPOOFCHK, &["spoofchk"]),
    (IFLA_VF_TRUST, &["trust"]),
    (IFLA_VF_RSS_QUERY_EN, &["query_rss"]),
    (IFLA_VF_LINK_STATE, &["link"]),
    (IFLA_VF_RATE, &["min_tx", "max_tx"]),
];

#[cfg(test)]
#[path = "vf_info_test.rs"]
mod tests;
