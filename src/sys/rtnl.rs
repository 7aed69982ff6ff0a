//! What is asked and ordered by netlink besides what `iommu` asks: addresses, the mode of a NIC's switch, links and
//! attributes of VFs.
//!
//! Orders need `CAP_NET_ADMIN`; questions nothing.
//!
//! *Source:* `include/uapi/linux/{if_addr,if_link,rtnetlink,genetlink,devlink}.h` (v6.12).

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
};

use iommu::{
    bdf::Bdf,
    error::Errno,
    netlink::{
        Attributes, MALFORMED, NLM_F_DUMP, Question, Reply, exchange, exchange_generic, u16_at,
        u32_at,
    },
    set_link::{self, VfAttribute},
    topology::Mac,
};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
/// Since Linux 5.6.
const IFLA_PERM_ADDRESS: u16 = 54;
/// `ifinfomsg`.
const LINK_LEN: usize = 16;
/// `ifaddrmsg`: family, length of the prefix, flags, scope; index of the interface.
const ADDR_LEN: usize = 8;
const IFA_ADDRESS: u16 = 1;
/// Of a link between two points, the own end; [`IFA_ADDRESS`] is the other one.
const IFA_LOCAL: u16 = 2;
const SCOPE_LINK: u8 = 253;

/// `genlmsghdr`: command, version, two bytes of nothing.
const GENERIC_LEN: usize = 4;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const DEVLINK_CMD_ESWITCH_GET: u8 = 29;
const DEVLINK_ATTR_BUS_NAME: u16 = 1;
const DEVLINK_ATTR_DEV_NAME: u16 = 2;
const DEVLINK_ATTR_ESWITCH_MODE: u16 = 25;

/// Sets an attribute of the VF number `vf` of the PF whose interface has the index `interface`.
///
/// # Errors
/// The kernel's or the driver's errno.
pub fn set_vf(interface: NonZeroU32, vf: u32, attribute: VfAttribute) -> Result<(), Errno> {
    exchange(&set_link::set_vf(interface, vf, attribute)).map(drop)
}

/// Sets the interface with the index `interface` up or down.
///
/// # Errors
/// The kernel's or the driver's errno.
pub fn set_up(interface: NonZeroU32, is_up: bool) -> Result<(), Errno> {
    exchange(&set_link::set_up(interface, is_up)).map(drop)
}

/// The address that an interface has by its hardware, as text; `None` where its driver tells of none.
///
/// # Errors
/// The kernel's errno.
pub fn permanent_address(interface: &str) -> Result<Option<String>, Errno> {
    let question =
        Question::new(RTM_GETLINK, 0, &[0; LINK_LEN]).put(IFLA_IFNAME, &with_nul(interface));
    let replies = exchange(&question)?;
    let body = only(&replies, RTM_NEWLINK)?.get(LINK_LEN..);
    let link = Attributes::parse(body.ok_or(MALFORMED)?)?;
    let address = link.only(IFLA_PERM_ADDRESS)?.map(<[u8; 6]>::try_from);
    // InfiniBand's have 20 bytes.
    let mac = address.and_then(Result::ok).map(Mac);
    Ok(mac.filter(|mac| !mac.is_zero()).map(|mac| mac.to_string()))
}

/// All addresses of the host: a line `2 10.9.0.1/24 global` for each, by the index of its interface. The third word is
/// `link` where the address is good on its link alone.
///
/// # Errors
/// The kernel's errno; EINTR where they changed meanwhile, several times.
pub fn addresses() -> Result<String, Errno> {
    let question = Question::new(RTM_GETADDR, NLM_F_DUMP, &[0; ADDR_LEN]);
    let mut tries = 0;
    let replies = loop {
        match exchange(&question) {
            Err(errno) if errno.raw() == libc::EINTR && tries < 8 => tries += 1,
            other => break other?,
        }
    };
    let mut lines = String::new();
    for reply in replies.iter().filter(|reply| reply.kind == RTM_NEWADDR) {
        lines.push_str(&address_line(&reply.body)?);
    }
    Ok(lines)
}

/// The line of one address; empty for what is neither IP nor IPv6.
fn address_line(body: &[u8]) -> Result<String, Errno> {
    let [_, prefix, _, scope] = *body.first_chunk().ok_or(MALFORMED)?;
    let index = u32_at(body, 4)?;
    let attributes = Attributes::parse(body.get(ADDR_LEN..).ok_or(MALFORMED)?)?;
    let own = match attributes.only(IFA_LOCAL)? {
        Some(own) => own,
        None => attributes.only(IFA_ADDRESS)?.ok_or(MALFORMED)?,
    };
    let address = match own.len() {
        4 => <[u8; 4]>::try_from(own)
            .ok()
            .map(Ipv4Addr::from)
            .map(IpAddr::V4),
        16 => <[u8; 16]>::try_from(own)
            .ok()
            .map(Ipv6Addr::from)
            .map(IpAddr::V6),
        _ => None,
    };
    let scope = if scope == SCOPE_LINK {
        "link"
    } else {
        "global"
    };
    let mut line = String::new();
    if let Some(address) = address {
        writeln!(line, "{index} {address}/{prefix} {scope}").map_err(|_full| MALFORMED)?;
    }
    Ok(line)
}

/// The mode of the switch in a NIC, `legacy` or `switchdev`; `None` where it has none, or the kernel no devlink.
///
/// # Errors
/// The kernel's errno.
pub fn eswitch_mode(bdf: Bdf) -> Result<Option<String>, Errno> {
    match ask_eswitch(bdf) {
        Ok(0) => Ok(Some("legacy".to_owned())),
        Ok(1) => Ok(Some("switchdev".to_owned())),
        Ok(_) => Err(MALFORMED),
        // No such family; no such device; a device without a switch.
        Err(errno) if [libc::ENOENT, libc::ENODEV, libc::EOPNOTSUPP].contains(&errno.raw()) => {
            Ok(None)
        }
        Err(errno) => Err(errno),
    }
}

fn ask_eswitch(bdf: Bdf) -> Result<u16, Errno> {
    let family = Question::new(GENL_ID_CTRL, 0, &[CTRL_CMD_GETFAMILY, 1, 0, 0])
        .put(CTRL_ATTR_FAMILY_NAME, &with_nul("devlink"));
    let replies = exchange_generic(&family)?;
    let family = only(&replies, GENL_ID_CTRL)?.get(GENERIC_LEN..);
    let family = Attributes::parse(family.ok_or(MALFORMED)?)?;
    let id = u16_at(family.only(CTRL_ATTR_FAMILY_ID)?.ok_or(MALFORMED)?, 0)?;
    let question = Question::new(id, 0, &[DEVLINK_CMD_ESWITCH_GET, 1, 0, 0])
        .put(DEVLINK_ATTR_BUS_NAME, &with_nul("pci"))
        .put(DEVLINK_ATTR_DEV_NAME, &with_nul(&bdf.to_string()));
    let replies = exchange_generic(&question)?;
    let answer = only(&replies, id)?.get(GENERIC_LEN..);
    let answer = Attributes::parse(answer.ok_or(MALFORMED)?)?;
    u16_at(answer.only(DEVLINK_ATTR_ESWITCH_MODE)?.ok_or(MALFORMED)?, 0)
}

fn only(replies: &[Reply], kind: u16) -> Result<&[u8], Errno> {
    match replies {
        [reply] if reply.kind == kind => Ok(&reply.body),
        _ => Err(MALFORMED),
    }
}

fn with_nul(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_the_own_end_of_its_link() {
        let mut body = vec![2, 24, 0x80, 0, 2, 0, 0, 0];
        body.extend([8, 0, 1, 0, 10, 9, 0, 2]);
        body.extend([8, 0, 2, 0, 10, 9, 0, 1]);
        assert_eq!(address_line(&body).unwrap(), "2 10.9.0.1/24 global\n");
        let mut body = vec![10, 64, 0x80, SCOPE_LINK, 3, 0, 0, 0, 20, 0, 1, 0];
        body.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets());
        assert_eq!(address_line(&body).unwrap(), "3 fe80::1/64 link\n");
        assert_eq!(address_line(&body[..14]), Err(MALFORMED));
        assert_eq!(address_line(&[2, 24]), Err(MALFORMED));
    }

    #[test]
    fn the_loopback_interface_has_its_address() {
        let lines = addresses().unwrap();
        assert!(lines.contains("127.0.0.1/8"), "{lines}");
        assert_eq!(permanent_address("lo").unwrap(), None);
        let absent = permanent_address("no-such-if").unwrap_err();
        assert_eq!(absent.raw(), libc::ENODEV);
    }
}
