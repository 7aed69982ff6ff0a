//! What of a VF's attributes differs from what is wanted.

use iommu::topology::VlanProto;

use super::{facts::NicAttributes, step::AttributeValue};
use crate::spec::host::Mbps;

/// The words that `is` has different from `wanted`, each as it is and as it should be, in the order in which they are set:
/// what protects others first. With `no_mac` no address is wanted; otherwise `None` leaves it. What the driver does not tell is set only where something else than nothing is wanted.
pub(super) fn differing(
    is: &NicAttributes,
    wanted: &NicAttributes,
    no_mac: bool,
) -> Vec<(Option<AttributeValue>, AttributeValue)> {
    use AttributeValue::{Mac, QueryRss, Rate, Spoofchk, State, Trust, Vlan};
    let rate = |of: &NicAttributes| match (of.min_tx, of.max_tx) {
        (None, None) => None,
        (min, max) => Some(Rate {
            min: min.unwrap_or_default(),
            max: max.unwrap_or_default(),
        }),
    };
    // An address of zeros reads as none. None is what is left alone, unless there is to be none.
    let mac = |of: &NicAttributes| Some(Mac(of.mac));
    let wanted_mac = match wanted.mac {
        None if no_mac => Some(Mac(None)),
        None => None,
        Some(mac) => Some(Mac(Some(mac))),
    };
    let pairs = [
        (is.spoofchk.map(Spoofchk), wanted.spoofchk.map(Spoofchk)),
        (is.trust.map(Trust), wanted.trust.map(Trust)),
        (is.query_rss.map(QueryRss), wanted.query_rss.map(QueryRss)),
        (mac(is), wanted_mac),
        (is.vlan.map(Vlan), wanted.vlan.map(Vlan)),
        (rate(is), rate(wanted)),
        (is.state.map(State), wanted.state.map(State)),
    ];
    let differ = pairs
        .into_iter()
        .filter_map(|(is, to)| Some((is, to?)))
        .filter(|(is, to)| match is {
            Some(is) => !is_same(is, to),
            None => !is_nothing(to),
        });
    differ.collect()
}

/// Whether two values are one for the NIC: without a VLAN, its protocol says nothing.
fn is_same(is: &AttributeValue, to: &AttributeValue) -> bool {
    match (is, to) {
        (AttributeValue::Vlan(is), AttributeValue::Vlan(to)) if to.id == 0 => is.id == 0,
        (is, to) => is == to,
    }
}

/// Whether a value asks for nothing: a driver that does not know the word has nothing to set.
fn is_nothing(value: &AttributeValue) -> bool {
    match value {
        AttributeValue::Trust(on) | AttributeValue::QueryRss(on) => !on,
        AttributeValue::Vlan(vlan) => vlan.id == 0 && vlan.proto == VlanProto::Dot1Q,
        AttributeValue::Rate { min, max } => (*min, *max) == (Mbps(0), Mbps(0)),
        AttributeValue::State(state) => *state == iommu::topology::LinkPolicy::Auto,
        AttributeValue::Mac(mac) => mac.is_none(),
        // A check that cannot be read is not there: that is for somebody to see.
        AttributeValue::Spoofchk(_) => false,
    }
}

/// The host file's word for an attribute.
pub(super) const fn word(value: &AttributeValue) -> &'static str {
    match value {
        AttributeValue::Spoofchk(_) => "spoofchk",
        AttributeValue::Trust(_) => "trust",
        AttributeValue::QueryRss(_) => "query_rss",
        AttributeValue::Mac(_) => "mac",
        AttributeValue::Vlan(_) => "vlan",
        AttributeValue::Rate { .. } => "tx_rate",
        AttributeValue::State(_) => "state",
    }
}
