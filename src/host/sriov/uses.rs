//! What the host does with interfaces: routes, addresses, logins, and what is built on them. Disks are in `disks`.
//!
//! An interface below a bond, a bridge or a VLAN is used by what that is used by.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use iommu::{
    error::{Errno, IommuError},
    sysfs::{Asked, SysRoot},
};

use super::{disks, interfaces, logins, made_of, missing, note};
use crate::{
    sriov::{Observed, Unread, Use, Used},
    sys::rtnl,
};

/// An address of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) interface: String,
    pub(super) ip: IpAddr,
    prefix: u8,
    is_of_link: bool,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    interface: String,
    is_default: bool,
    who: String,
}

/// Reads all uses; without any PF there is nothing to be used.
pub(super) fn read(root: &SysRoot, observed: &mut Observed) {
    if observed.pfs.is_empty() {
        return;
    }
    let addresses = read_addresses(root);
    let addresses = note(&mut observed.unread, addresses).unwrap_or_default();
    let ours = interfaces(observed);
    let add = |observed: &mut Observed, interface: &str, who: &str, source: &str| -> Vec<Use> {
        let parts = note(&mut observed.unread, made_of(root, interface)).unwrap_or_default();
        parts
            .into_iter()
            .filter(|part| ours.contains_key(part))
            .map(|part| Use {
                who: match part == interface {
                    true => who.to_owned(),
                    false => format!("{who}, as part of {interface}"),
                },
                of: Used::Interface(part),
                source: source.to_owned(),
            })
            .collect()
    };
    for (place, parse) in ROUTES {
        // A kernel without IPv6 has no such file.
        if !root.exists(place) && place == ROUTES6 {
            continue;
        }
        let text = note(&mut observed.unread, root.read_bytes(place, ROUTES_LIMIT));
        let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
        for line in text.lines() {
            let Some(route) = parse(line) else {
                continue;
            };
            let uses = add(observed, &route.interface, &route.who, place);
            match route.is_default {
                true => observed.uses.default_routes.extend(uses),
                false => observed.uses.routes.extend(uses),
            }
        }
    }
    for address in addresses.iter().filter(|address| !address.is_of_link) {
        let who = format!("address {}/{}", address.ip, address.prefix);
        let uses = add(observed, &address.interface, &who, "RTM_GETADDR");
        observed.uses.addresses.extend(uses);
    }
    read_uppers(root, observed, &ours);
    match logins::read(root) {
        Ok(logins) => {
            for login in logins {
                let at: Vec<&Address> = addresses.iter().filter(|a| a.ip == login.local).collect();
                if at.is_empty() && !login.local.is_loopback() {
                    observed.unread.push(Unread {
                        place: login.source.clone(),
                        reason: format!("no interface has the address {}", login.local),
                        bdf: None,
                    });
                }
                for address in at {
                    let who = format!("the login from {}", login.remote);
                    let uses = add(observed, &address.interface, &who, &login.source);
                    observed.uses.logins.extend(uses);
                }
            }
        }
        Err(unread) => observed.unread.push(unread),
    }
    disks::read(root, observed);
}

/// What interfaces of PFs and VFs are part of.
fn read_uppers(root: &SysRoot, observed: &mut Observed, ours: &BTreeMap<String, iommu::bdf::Bdf>) {
    for name in ours.keys() {
        let place = format!("sys/class/net/{name}");
        let entries = note(&mut observed.unread, root.list(&place)).unwrap_or_default();
        for upper in entries.iter().filter_map(|e| e.strip_prefix("upper_")) {
            observed.uses.uppers.push(Use {
                of: Used::Interface(name.clone()),
                who: format!("part of {upper}"),
                source: format!("/{place}/upper_{upper}"),
            });
        }
    }
}

/// A router of the Internet has a million routes; a hypervisor has not.
const ROUTES_LIMIT: u64 = 4 << 20;

type Parser = fn(&str) -> Option<Route>;
const ROUTES: [(&str, Parser); 2] = [("proc/net/route", parse_route), (ROUTES6, parse_route6)];
const ROUTES6: &str = "proc/net/ipv6_route";

/// A destination that is refused, not reached.
const RTF_REJECT: u32 = 0x200;

/// `eth0 00000000 0100090A 0003 0 0 0 00000000 …`: interface, destination, gateway, flags, and at 7 the mask; addresses
/// in the host's order. *Source:* `net/ipv4/fib_trie.c`, `fib_route_seq_show` (v6.12).
fn parse_route(line: &str) -> Option<Route> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [interface, destination, gateway, flags, _, _, _, mask, ..] = words.as_slice() else {
        return None;
    };
    let address = |digits: &str| {
        let raw = u32::from_str_radix(digits, 16).ok()?;
        Some(Ipv4Addr::from(raw.to_ne_bytes()))
    };
    let (destination, gateway, mask) = (address(destination)?, address(gateway)?, address(mask)?);
    if u32::from_str_radix(flags, 16).ok()? & RTF_REJECT != 0 {
        return None;
    }
    let prefix = mask.to_bits().count_ones();
    Some(Route {
        interface: (*interface).to_owned(),
        is_default: prefix == 0,
        who: words_of(
            prefix == 0,
            &format!("{destination}/{prefix}"),
            &IpAddr::V4(gateway),
        ),
    })
}

/// Destination, its prefix, source, its prefix, gateway, metric, two counts, flags, interface. *Source:*
/// `net/ipv6/route.c`, `rt6_native_seq_show` (v6.12).
fn parse_route6(line: &str) -> Option<Route> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [
        destination,
        prefix,
        _,
        _,
        gateway,
        _,
        _,
        _,
        flags,
        interface,
    ] = words.as_slice()
    else {
        return None;
    };
    let address = |digits: &str| {
        let raw = u128::from_str_radix(digits, 16).ok()?;
        Some(Ipv6Addr::from(raw))
    };
    let (destination, gateway) = (address(destination)?, address(gateway)?);
    let prefix = u8::from_str_radix(prefix, 16).ok()?;
    let is_refused = u32::from_str_radix(flags, 16).ok()? & RTF_REJECT != 0;
    // Every interface that is up has these two by itself.
    let is_automatic = destination.is_unicast_link_local() || destination.is_multicast();
    if is_refused || is_automatic {
        return None;
    }
    Some(Route {
        interface: (*interface).to_owned(),
        is_default: prefix == 0,
        who: words_of(
            prefix == 0,
            &format!("{destination}/{prefix}"),
            &IpAddr::V6(gateway),
        ),
    })
}

fn words_of(is_default: bool, destination: &str, gateway: &IpAddr) -> String {
    let to = match is_default {
        true => "the default route".to_owned(),
        false => format!("the route to {destination}"),
    };
    match gateway.is_unspecified() {
        true => to,
        false => format!("{to} by {gateway}"),
    }
}

/// All addresses, each with the name of its interface.
fn read_addresses(root: &SysRoot) -> Result<Vec<Address>, IommuError> {
    let asked = Asked {
        call: "RTM_GETADDR",
        of: Path::new("sys/class/net"),
    };
    let place = "narrows/addresses";
    let text = root.ask(place, asked, || rtnl::addresses().map(Some))?;
    // Not told is not none.
    let text = text.ok_or_else(|| IommuError::Sysfs {
        path: root.path(place),
        call: "read",
        errno: Errno::new(libc::ENODATA),
    })?;
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    let wanted: BTreeSet<&str> = lines().filter_map(|line| line.split(' ').next()).collect();
    let mut names = BTreeMap::new();
    if !wanted.is_empty() {
        for name in root.list("sys/class/net")? {
            let place = format!("sys/class/net/{name}/ifindex");
            if let Some(index) = root.read_text_if_any(place)? {
                names.insert(index, name);
            }
        }
    }
    let mut addresses = Vec::new();
    for line in lines() {
        addresses.push(
            parse_address(line, &names).ok_or_else(|| IommuError::Malformed {
                path: root.path("narrows/addresses"),
                text: line.to_owned(),
                wanted: "an index of an interface, an address with its prefix, and a scope",
            })?,
        );
    }
    Ok(addresses)
}

fn parse_address(line: &str, names: &BTreeMap<String, String>) -> Option<Address> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [index, address, scope] = words.as_slice() else {
        return None;
    };
    let (ip, prefix) = address.split_once('/')?;
    Some(Address {
        // One that has gone in between has no name, and no use.
        interface: names.get(*index).cloned().unwrap_or_default(),
        ip: ip.parse().ok()?,
        prefix: prefix.parse().ok()?,
        is_of_link: *scope == "link",
    })
}

/// That a process ended while it was looked at.
pub(super) fn is_gone(error: &IommuError) -> bool {
    let gone = [libc::ENOENT, libc::ESRCH].map(Errno::new);
    matches!(error, IommuError::Sysfs { errno, .. } if gone.contains(errno))
}

/// As [`missing`], in words of one's own.
pub(super) fn cannot(error: &IommuError, what: &str) -> Unread {
    let Unread { place, reason, bdf } = missing(error);
    Unread {
        place,
        reason: format!("{what}: {reason}"),
        bdf,
    }
}

#[cfg(test)]
#[path = "uses_test.rs"]
mod tests;
