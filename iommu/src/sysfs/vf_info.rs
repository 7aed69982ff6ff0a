//! What the kernel says of the VFs behind a network interface: asked by netlink, turned into lines of text, so that a
//! captured machine can hold it as a file.
//!
//! The first line is `parent 0000:01:00.0`, where the kernel tells whose interface it is. Then follows one line for each
//! VF: `vf 0 mac 52:54:00:00:01:00 vlan 0 qos 0 spoofchk on trust off query_rss off link auto min_tx 0 max_tx 0`. What
//! the driver does not tell is left out; `mac none` is an address of zeros.
//!
//! *Source:* `include/uapi/linux/if_link.h`, `include/uapi/linux/rtnetlink.h`, `net/core/rtnetlink.c`,
//! `rtnl_fill_vfinfo` (v6.12).

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect,
    netlink::SocketAddrNetlink, recv, send, socket_with,
};

use crate::error::Errno;

/// Asks the kernel; `None` where the interface's driver tells of no VFs. Needs no privilege.
pub(super) fn ask(interface: &str) -> Result<Option<String>, Errno> {
    let reply = exchange(&question(interface)).map_err(|error| Errno::new(error.raw_os_error()))?;
    told(&reply)
}

fn exchange(question: &[u8]) -> rustix::io::Result<Vec<u8>> {
    // No protocol is number 0: NETLINK_ROUTE.
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // From here on nobody but the kernel, whose number is 0, can send to this socket.
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    send(&socket, question, SendFlags::empty())?;
    let mut reply = vec![0; LONGEST];
    // The kernel has answered before `send` returns, so there is nothing to wait for.
    let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
    let (_, len) = recv(&socket, &mut reply, flags)?;
    if len > LONGEST {
        return Err(rustix::io::Errno::MSGSIZE);
    }
    reply.truncate(len);
    Ok(reply)
}

/// Four times what the list of VFs can have: an attribute's length has 16 bits.
const LONGEST: usize = 256 << 10;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const SEQUENCE: u32 = 1;
/// `nlmsghdr`.
const HEADER_LEN: usize = 16;
/// `ifinfomsg`.
const LINK_LEN: usize = 16;

const IFLA_IFNAME: u16 = 3;
const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_PARENT_DEV_NAME: u16 = 56;
/// The VFs, without counters: those of many VFs would not fit into one attribute. Kernels before 6.1 send them anyway.
const VFS_WITHOUT_COUNTERS: u32 = 1 | 1 << 3;

const IFLA_VF_INFO: u16 = 1;
const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_VLAN: u16 = 2;
const IFLA_VF_SPOOFCHK: u16 = 4;
const IFLA_VF_LINK_STATE: u16 = 5;
const IFLA_VF_RATE: u16 = 6;
const IFLA_VF_RSS_QUERY_EN: u16 = 7;
const IFLA_VF_TRUST: u16 = 9;

/// Nested, and in network order: not part of the type.
const TYPE_FLAGS: u16 = 0xc000;

/// `RTM_GETLINK` by name.
fn question(interface: &str) -> Vec<u8> {
    let mut message = vec![0; HEADER_LEN + LINK_LEN];
    let mut name = interface.as_bytes().to_vec();
    name.push(0);
    put(&mut message, IFLA_IFNAME, &name);
    put(
        &mut message,
        IFLA_EXT_MASK,
        &VFS_WITHOUT_COUNTERS.to_ne_bytes(),
    );
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend(len.to_ne_bytes());
    header.extend(RTM_GETLINK.to_ne_bytes());
    header.extend(NLM_F_REQUEST.to_ne_bytes());
    header.extend(SEQUENCE.to_ne_bytes());
    for (place, byte) in message.iter_mut().zip(header) {
        *place = byte;
    }
    message
}

/// Adds an attribute. One that is too long gets a length that the kernel refuses.
fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(value.len() + 4).unwrap_or(0);
    message.extend(len.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

const MALFORMED: Errno = Errno::new(libc::EBADMSG);

/// The lines of a reply.
fn told(reply: &[u8]) -> Result<Option<String>, Errno> {
    let message = reply
        .get(..u32_at(reply, 0).ok_or(MALFORMED)? as usize)
        .ok_or(MALFORMED)?;
    match u16_at(message, 4) {
        Some(RTM_NEWLINK) if u32_at(message, 8) == Some(SEQUENCE) => {}
        Some(NLMSG_ERROR) => {
            let negative = u32_at(message, HEADER_LEN).ok_or(MALFORMED)?;
            return Err(Errno::new(negative.cast_signed().saturating_neg()));
        }
        _ => return Err(MALFORMED),
    }
    let link = message.get(HEADER_LEN + LINK_LEN..).ok_or(MALFORMED)?;
    let link = attributes(link).ok_or(MALFORMED)?;
    let mut lines = String::new();
    if let Some(parent) = only(&link, IFLA_PARENT_DEV_NAME)? {
        let name = parent.split(|byte| *byte == 0).next().unwrap_or_default();
        lines.push_str(&format!("parent {}\n", String::from_utf8_lossy(name)));
    }
    let Some(list) = only(&link, IFLA_VFINFO_LIST)? else {
        return Ok(None);
    };
    for (kind, vf) in attributes(list).ok_or(MALFORMED)? {
        if kind == IFLA_VF_INFO {
            lines.push_str(&line(&attributes(vf).ok_or(MALFORMED)?)?);
        }
    }
    Ok(Some(lines))
}

/// The line of a VF.
fn line(vf: &[(u16, &[u8])]) -> Result<String, Errno> {
    let mac = only(vf, IFLA_VF_MAC)?.ok_or(MALFORMED)?;
    let index = u32_at(mac, 0).ok_or(MALFORMED)?;
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
        let Some(value) = only(vf, *kind)? else {
            continue;
        };
        for (place, word) in words.iter().enumerate() {
            let number = u32_at(value, 4 + 4 * place).ok_or(MALFORMED)?;
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
    }
    line.push('\n');
    Ok(line)
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

/// The attributes of a message or of a nest.
fn attributes(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let len = usize::from(u16_at(bytes, 0)?);
        found.push((u16_at(bytes, 2)? & !TYPE_FLAGS, bytes.get(4..len)?));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(found)
}

/// The one attribute of a type. An old kernel lets the length of a long list wrap, so that the rest of the list reads
/// as more attributes of the message: what is there twice is no answer.
fn only<'a>(attributes: &[(u16, &'a [u8])], kind: u16) -> Result<Option<&'a [u8]>, Errno> {
    let mut of_kind = attributes.iter().filter(|(other, _)| *other == kind);
    let first = of_kind.next().map(|(_, value)| *value);
    match of_kind.next() {
        None => Ok(first),
        Some(_) => Err(MALFORMED),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
#[path = "vf_info_test.rs"]
mod tests;
