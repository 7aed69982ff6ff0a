//! Orders to the kernel about a network interface: one attribute of one VF, or the link itself. Only their bytes are made
//! here; [`exchange`](crate::netlink::exchange()) sends them, which takes `CAP_NET_ADMIN`.
//!
//! The kernel carries out the attributes of a message in their order and stops at the first that fails, with those
//! before it done. So one message has one, and what failed is known.
//!
//! *Source:* `include/uapi/linux/if_link.h`; `net/core/rtnetlink.c`, `do_setlink`, `do_setvfinfo` (v6.12).

use std::num::NonZeroU32;

use crate::{
    netlink::{
        NLM_F_ACK, Question,
        link::{
            IFF_UP, IFLA_VF_INFO, IFLA_VF_LINK_STATE, IFLA_VF_MAC, IFLA_VF_RATE,
            IFLA_VF_RSS_QUERY_EN, IFLA_VF_SPOOFCHK, IFLA_VF_TRUST, IFLA_VF_VLAN_INFO,
            IFLA_VF_VLAN_LIST, IFLA_VFINFO_LIST, RTM_SETLINK, question,
        },
    },
    topology::{LinkPolicy, Mac, VlanProto},
};

/// What the driver of a PF is to enforce on a VF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VfAttribute {
    /// Its address; zeros take it away, where the driver lets them.
    Mac(Mac),
    /// The VLAN it is put into; 0 for none.
    Vlan {
        /// 0 to 4094.
        id: u16,
        /// The priority in the tag, 0 to 7.
        qos: u8,
        /// Of what protocol the tag is.
        proto: VlanProto,
    },
    /// Whether frames with a source address that is not its own are dropped.
    SpoofCheck(bool),
    /// Whether it may do what concerns others.
    Trust(bool),
    /// Whether it may read how the PF spreads packets over queues.
    RssQuery(bool),
    /// What it sees of the link.
    Link(LinkPolicy),
    /// Both rates, because the kernel knows no message for one; 0 for none.
    Rate {
        /// What it is promised, in Mbit/s.
        min_mbps: u32,
        /// What it is held to, in Mbit/s.
        max_mbps: u32,
    },
}

/// Sets `attribute` of the VF number `vf` of the PF whose interface has the index `interface`.
#[must_use]
pub fn set_vf(interface: NonZeroU32, vf: u32, attribute: VfAttribute) -> Question {
    order(interface, 0, 0).nest(IFLA_VFINFO_LIST, |list| {
        list.nest(IFLA_VF_INFO, |info| put(info, vf, attribute))
    })
}

/// Sets the interface with the index `interface` up or down.
#[must_use]
pub fn set_up(interface: NonZeroU32, is_up: bool) -> Question {
    order(interface, if is_up { IFF_UP } else { 0 }, IFF_UP)
}

fn order(interface: NonZeroU32, flags: u32, change: u32) -> Question {
    question(RTM_SETLINK, NLM_F_ACK, interface.get(), flags, change)
}

fn put(info: Question, vf: u32, attribute: VfAttribute) -> Question {
    match attribute {
        VfAttribute::Mac(mac) => {
            let mut value = [0; 36];
            value[..4].copy_from_slice(&vf.to_ne_bytes());
            value[4..10].copy_from_slice(&mac.0);
            info.put(IFLA_VF_MAC, &value)
        }
        // Never `IFLA_VF_VLAN`, which leaves the protocol to the kernel.
        VfAttribute::Vlan { id, qos, proto } => info.nest(IFLA_VF_VLAN_LIST, |list| {
            let mut value = numbers(&[vf, u32::from(id), u32::from(qos)]);
            value.extend(proto.ethertype().to_be_bytes());
            // The kernel wants all of the structure.
            value.extend([0; 2]);
            list.put(IFLA_VF_VLAN_INFO, &value)
        }),
        VfAttribute::SpoofCheck(is_on) => {
            info.put(IFLA_VF_SPOOFCHK, &numbers(&[vf, u32::from(is_on)]))
        }
        VfAttribute::Trust(is_on) => info.put(IFLA_VF_TRUST, &numbers(&[vf, u32::from(is_on)])),
        VfAttribute::RssQuery(is_on) => {
            info.put(IFLA_VF_RSS_QUERY_EN, &numbers(&[vf, u32::from(is_on)]))
        }
        VfAttribute::Link(link) => {
            let state = match link {
                LinkPolicy::Auto => 0,
                LinkPolicy::Up => 1,
                LinkPolicy::Down => 2,
            };
            info.put(IFLA_VF_LINK_STATE, &numbers(&[vf, state]))
        }
        // Never `IFLA_VF_TX_RATE`, which knows no least rate.
        VfAttribute::Rate { min_mbps, max_mbps } => {
            info.put(IFLA_VF_RATE, &numbers(&[vf, min_mbps, max_mbps]))
        }
    }
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_ne_bytes()).collect()
}

#[cfg(test)]
#[path = "set_link_test.rs"]
mod tests;
