//! Checks of what the PF's driver lets a VF of a NIC do to its neighbours. The IOMMU fences memory; on the wire, the
//! NIC's own switch is the fence, and these are its settings.
//!
//! VLAN, rates and link state are the operator's to choose: they are read, and not judged.

use std::path::PathBuf;

use super::{
    Check, CheckId, Evidence, Verdict,
    row::{Case, Find, Found, NOT_READ, Row, attribute, evidence},
};
use crate::{
    bdf::Bdf,
    error::Blame,
    topology::{Enforced, InterfacePolicy, VfPolicy},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        check: Check {
            id: CheckId::NicVfTrusted,
            worst: Verdict::Refuse,
            title: "its NIC does not trust it",
            why: "the guest could receive what is meant for others, and take their addresses",
            remedy: "ip link set PF vf N trust off",
            sources: &[
                "ip-link(8), vf trust",
                "drivers/net/ethernet/intel: igb_set_vf_mac_filter, ixgbe_update_vf_xcast_mode (Linux 6.12)",
            ],
            accepted: Some(
                "the guest may receive what is meant for others, and change its address",
            ),
            blame: Blame::Host,
        },
        find: Find::Function(trusted),
    },
    Row {
        check: Check {
            id: CheckId::NicVfSpoofCheck,
            worst: Verdict::Refuse,
            title: "its NIC drops frames with a forged sender",
            why: "the guest could send under its neighbours' addresses, and pause the port for all of them",
            remedy: "ip link set PF vf N spoofchk on",
            sources: &[
                "ip-link(8), vf spoofchk",
                "Smolyar, Ben-Yehuda, Tsafrir: Securing Self-Virtualizing Ethernet Devices (USENIX Security 2015)",
                "CVE-2015-1142857 (pause frames; ixgbe drops them where the spoof check is on)",
            ],
            accepted: Some("the guest may send under its neighbours' addresses"),
            blame: Blame::Host,
        },
        find: Find::Function(spoof_check),
    },
    Row {
        check: Check {
            id: CheckId::NicVfMac,
            worst: Verdict::Warn,
            title: "the host has set its MAC address",
            why: "the guest chooses its own address, a neighbour's if it wants",
            remedy: "ip link set PF vf N mac ADDRESS",
            sources: &["ip-link(8), vf mac"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(mac),
    },
    Row {
        check: Check {
            id: CheckId::NicVfRssQuery,
            worst: Verdict::Warn,
            title: "it cannot read how the PF spreads packets",
            why: "the guest learns the key by which the host's packets are spread, and could crowd one queue",
            remedy: "ip link set PF vf N query_rss off",
            sources: &[
                "ip-link(8), vf query_rss",
                "include/linux/netdevice.h, ndo_set_vf_rss_query_en: of the kernel's drivers for hardware ixgbe alone has \
                 it (Linux 6.12)",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(rss_query),
    },
];

/// What one policy says of one question.
enum Answer {
    Good(&'static str),
    Bad(&'static str),
    /// The driver does not say.
    Silent,
}

/// A question to each policy, and how the operator sets it right.
struct Question {
    ask: fn(&VfPolicy) -> Answer,
    said: fn(&VfPolicy) -> String,
    /// As `ip link set IF vf N …` takes it.
    fix: &'static str,
    /// What a bad answer leads to.
    finding: fn(&'static str, String) -> Found,
    /// Where a driver that says nothing has no such switch, and does what is wanted.
    silence_is_good: bool,
}

fn trusted(case: &Case<'_>) -> Found {
    judge(
        case,
        &Question {
            ask: |policy| match policy.trusted {
                Some(true) => Answer::Bad("trusted"),
                Some(false) => Answer::Good("not trusted"),
                None => Answer::Silent,
            },
            said: |policy| format!("trust {}", switch(policy.trusted)),
            fix: "trust off",
            finding: Found::refuse,
            silence_is_good: false,
        },
    )
}

fn spoof_check(case: &Case<'_>) -> Found {
    judge(
        case,
        &Question {
            ask: |policy| match policy.spoof_check {
                Some(true) => Answer::Good("on"),
                Some(false) => Answer::Bad("off"),
                None => Answer::Silent,
            },
            said: |policy| format!("spoofchk {}", switch(policy.spoof_check)),
            fix: "spoofchk on",
            finding: Found::refuse,
            silence_is_good: false,
        },
    )
}

fn mac(case: &Case<'_>) -> Found {
    judge(
        case,
        &Question {
            ask: |policy| match policy.mac {
                Some(_) => Answer::Good("set"),
                None => Answer::Bad("not set"),
            },
            said: |policy| match policy.mac {
                Some(mac) => format!("mac {mac}"),
                None => "mac 00:00:00:00:00:00".to_owned(),
            },
            fix: "mac ADDRESS",
            finding: Found::warn,
            silence_is_good: false,
        },
    )
}

fn rss_query(case: &Case<'_>) -> Found {
    judge(
        case,
        &Question {
            ask: |policy| match policy.rss_query {
                Some(true) => Answer::Bad("on"),
                Some(false) => Answer::Good("off"),
                None => Answer::Silent,
            },
            said: |policy| format!("query_rss {}", switch(policy.rss_query)),
            fix: "query_rss off",
            finding: Found::warn,
            silence_is_good: true,
        },
    )
}

fn switch(value: Option<bool>) -> &'static str {
    match value {
        Some(true) => "on",
        Some(false) => "off",
        None => "is not told by the driver",
    }
}

/// Asks every policy: the worst answer counts, and one that could not be had is none.
fn judge(case: &Case<'_>, question: &Question) -> Found {
    let function = case.function;
    if function.class >> 16 != NETWORK {
        return Found::pass("no network device").saw(
            attribute(function.bdf, "class"),
            format!("{:#08x}", function.class),
        );
    }
    let Some(pf) = function.physfn else {
        return Found::pass("no VF").saw(attribute(function.bdf, "physfn"), "does not exist");
    };
    if function.policies.is_empty() {
        return unread(question).saw_all([no_table(case, pf)]);
    }
    let seen = function
        .policies
        .iter()
        .map(|policy| evidence(source(policy), said(policy, question)));
    let mut value = "no such switch";
    let mut is_unread = false;
    for policy in &function.policies {
        let Enforced::Told(told) = &policy.enforced else {
            is_unread = true;
            continue;
        };
        match (question.ask)(told) {
            Answer::Good(good) => value = good,
            Answer::Silent => is_unread |= !question.silence_is_good,
            Answer::Bad(bad) => {
                let (interface, index) = (&policy.interface, told.index);
                let fix = format!("ip link set {interface} vf {index} {}", question.fix);
                return (question.finding)(bad, fix).saw_all(seen);
            }
        }
    }
    match is_unread {
        true => unread(question).saw_all(seen),
        false => Found::pass(value).saw_all(seen),
    }
}

/// Class code of network controllers, the upper 8 bits.
const NETWORK: u32 = 0x02;

fn unread(question: &Question) -> Found {
    let fix = format!(
        "set it by the means of the PF's driver; where ip link can: ip link set PF vf N {}",
        question.fix
    );
    Found::warn(NOT_READ, fix)
}

/// Why there is no policy.
fn no_table(case: &Case<'_>, pf: Bdf) -> Evidence {
    let interfaces = case.pf().map_or(&[][..], |pf| &pf.interfaces);
    let said = match interfaces {
        [] => "the PF has no network interface".to_owned(),
        names => format!("{}: the driver tells nothing of VFs", names.join(", ")),
    };
    evidence(attribute(pf, "net"), said)
}

/// What an operator types to see the same.
fn source(policy: &InterfacePolicy) -> PathBuf {
    let interface = &policy.interface;
    PathBuf::from(match &policy.enforced {
        Enforced::Told(told) => format!("ip link show {interface}, vf {}", told.index),
        Enforced::Unknown { .. } => format!("ip link show {interface}"),
    })
}

fn said(policy: &InterfacePolicy, question: &Question) -> String {
    match &policy.enforced {
        Enforced::Told(told) => (question.said)(told),
        Enforced::Unknown { reason } => reason.clone(),
    }
}
