//! What a pool, and what the file has different for one VF, ask of the VF.

use iommu::topology::{LinkPolicy, Mac};

use super::{facts::NicAttributes, step::AttributeValue};
use crate::{
    error::Location,
    spec::host::{
        AttributeRules, BlockSize, Hold, MacChoice, Mbps, NicPolicy, NvmePolicy, Overrides, Vlan,
    },
};

/// What the file says of one VF of a NIC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    policy: &'a NicPolicy,
    over: Option<&'a Overrides>,
}

impl<'a> Wish<'a> {
    /// Of a pool, and of a `[[pf.vf]]`.
    pub(super) fn new(policy: &'a NicPolicy, over: Option<&'a Overrides>) -> Self {
        Self { policy, over }
    }

    /// How it comes by its address.
    pub(super) fn mac(&self) -> MacChoice {
        let own = self.over.and_then(|over| over.mac);
        own.map_or(self.policy.mac, MacChoice::Fixed)
    }

    /// The least and the most that it sends.
    pub(super) fn rates(&self) -> (Mbps, Mbps) {
        (
            self.over
                .and_then(|over| over.min_tx)
                .unwrap_or(self.policy.min_tx),
            self.over
                .and_then(|over| over.max_tx)
                .unwrap_or(self.policy.max_tx),
        )
    }

    /// When VLAN, rates and state are in force.
    pub(super) fn hold(&self) -> Hold {
        self.policy.hold
    }

    /// Where the file says `key`, or would.
    pub(super) fn place(&self, key: &str) -> &'a Location {
        let own = self.over.and_then(|over| over.places.keys.get(key));
        own.unwrap_or_else(|| self.policy.places.of(key))
    }

    /// All that it is asked to be, but its address; with the key of the file that says it.
    pub(super) fn values(&self) -> [(&'static str, AttributeValue); 6] {
        let (policy, over) = (self.policy, self.over);
        let (min, max) = self.rates();
        let rate_key = if min.0 > 0 {
            "min_tx_rate"
        } else {
            "max_tx_rate"
        };
        let of =
            |own: fn(&Overrides) -> Option<bool>, pools: bool| over.and_then(own).unwrap_or(pools);
        let vlan = over.and_then(|over| over.vlan).unwrap_or(policy.vlan);
        let state = over.and_then(|over| over.state).unwrap_or(policy.state);
        [
            (
                "spoofchk",
                AttributeValue::Spoofchk(of(|over| over.spoofchk, policy.spoofchk)),
            ),
            (
                "trust",
                AttributeValue::Trust(of(|over| over.trust, policy.trust)),
            ),
            (
                "query_rss",
                AttributeValue::QueryRss(of(|over| over.query_rss, policy.query_rss)),
            ),
            ("vlan", AttributeValue::Vlan(vlan)),
            (rate_key, AttributeValue::Rate { min, max }),
            ("state", AttributeValue::State(state)),
        ]
    }

    /// What it is while a guest has it, as far as the driver can set it.
    pub(super) fn leased(&self, mac: Option<Mac>, rules: &AttributeRules) -> NicAttributes {
        settable(mac, self.values().map(|(_, value)| value), rules)
    }

    /// What it is while no guest has it, as far as the driver can set it.
    pub(super) fn rest(&self, mac: Option<Mac>, rules: &AttributeRules) -> NicAttributes {
        match self.policy.hold {
            Hold::Always => self.leased(mac, rules),
            Hold::Lease => settable(mac, RESTING, rules),
        }
    }
}

/// What a VF is between guests, besides its address: nothing that gives it anything.
pub(super) const RESTING: [AttributeValue; 6] = [
    AttributeValue::Spoofchk(true),
    AttributeValue::Trust(false),
    AttributeValue::QueryRss(false),
    AttributeValue::Vlan(Vlan::NONE),
    AttributeValue::Rate {
        min: Mbps(0),
        max: Mbps(0),
    },
    AttributeValue::State(LinkPolicy::Auto),
];

fn settable(
    mac: Option<Mac>,
    values: [AttributeValue; 6],
    rules: &AttributeRules,
) -> NicAttributes {
    let start = NicAttributes {
        mac,
        ..NicAttributes::default()
    };
    values
        .into_iter()
        .filter(|value| can_set(rules, *value))
        .fold(start, NicAttributes::with)
}

/// Whether the driver can set this value.
pub(super) fn can_set(rules: &AttributeRules, value: AttributeValue) -> bool {
    match value {
        AttributeValue::Spoofchk(_) => rules.spoofchk,
        AttributeValue::Trust(_) => rules.trust,
        AttributeValue::QueryRss(_) => rules.query_rss,
        AttributeValue::Mac(Some(_)) => rules.mac,
        AttributeValue::Mac(None) => rules.clear_mac,
        AttributeValue::Vlan(vlan) if vlan.id == 0 => !rules.vlan.is_empty(),
        AttributeValue::Vlan(vlan) => rules.vlan.contains(&vlan.proto),
        AttributeValue::Rate { min, max } => {
            let (has_min, has_max) = (rules.min_tx_rate, rules.max_tx_rate.is_some());
            match (min.0, max.0) {
                (0, 0) => has_min || has_max,
                (0, _) => has_max,
                (_, 0) => has_min,
                _ => has_min && has_max,
            }
        }
        AttributeValue::State(state) => rules.state.contains(&state),
    }
}

/// Queues and vectors of a secondary controller.
pub(super) fn resources(policy: &NvmePolicy, over: Option<&Overrides>) -> (u16, u16) {
    (
        over.and_then(|over| over.queues).unwrap_or(policy.queues),
        over.and_then(|over| over.vectors).unwrap_or(policy.vectors),
    )
}

/// In bytes.
pub(super) const fn block_bytes(block: BlockSize) -> u32 {
    match block {
        BlockSize::B512 => 512,
        BlockSize::B4096 => 4096,
    }
}
