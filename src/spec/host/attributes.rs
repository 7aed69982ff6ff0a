//! The keys that a pool and a single VF have in common: the words of iproute2, and the resources of a secondary controller.

use std::collections::BTreeMap;

use iommu::topology::{LinkPolicy, VlanProto};

use super::{
    types::{Kind, Mbps, NicPlaces, Vlan},
    values::{LINK_POLICIES, VLAN_PROTOS, link_policy, rate},
};
use crate::{
    error::{ErrorId, Location, Report},
    spec::{
        parse::choice,
        reader::{Placed, Table},
    },
};

/// Keys for VFs of NICs.
pub(super) const NIC_KEYS: &[&str] = &[
    "mac",
    "vlan",
    "qos",
    "vlan_proto",
    "spoofchk",
    "trust",
    "state",
    "min_tx_rate",
    "max_tx_rate",
    "query_rss",
];
/// Keys for secondary controllers.
pub(super) const NVME_KEYS: &[&str] = &["queues", "vectors"];

/// The highest VLAN; 4095 is reserved, 4096 does not fit into a tag.
const MAX_VLAN: usize = 4094;
/// The highest priority of a tag: three bits.
const MAX_QOS: usize = 7;
/// The least of queue resources: the admin queue's and one for data.
pub(super) const LEAST_QUEUES: u16 = 2;
/// The least of interrupt resources.
pub(super) const LEAST_VECTORS: u16 = 1;

/// What a table says of these; `None` where it is silent.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    pub(super) vlan: Option<Vlan>,
    pub(super) spoofchk: Option<bool>,
    pub(super) trust: Option<bool>,
    pub(super) state: Option<LinkPolicy>,
    pub(super) min_tx: Option<Mbps>,
    pub(super) max_tx: Option<Mbps>,
    pub(super) query_rss: Option<bool>,
    pub(super) queues: Option<u16>,
    pub(super) vectors: Option<u16>,
    /// Where the table begins, and where its keys stand; `mac` too, which is read elsewhere.
    pub(super) places: NicPlaces,
}

impl Attributes {
    /// Reads all keys but `mac`, of a table that begins at `whole`.
    pub(super) fn read(table: &mut Table<'_>, whole: Location) -> Self {
        let mut keys = BTreeMap::new();
        for key in NIC_KEYS.iter().chain(NVME_KEYS) {
            if let Some(place) = table.place_of(key) {
                keys.insert(*key, place);
            }
        }
        let boolean = |table: &mut Table<'_>, key| table.boolean(key).map(|found| found.value);
        let state: Option<Placed<String>> = choice(table, "state", LINK_POLICIES);
        Self {
            vlan: vlan(table),
            spoofchk: boolean(table, "spoofchk"),
            trust: boolean(table, "trust"),
            state: state.and_then(|word| link_policy(&word.value)),
            min_tx: rate_at(table, "min_tx_rate"),
            max_tx: rate_at(table, "max_tx_rate"),
            query_rss: boolean(table, "query_rss"),
            queues: resources(table, "queues", LEAST_QUEUES),
            vectors: resources(table, "vectors", LEAST_VECTORS),
            places: NicPlaces { whole, keys },
        }
    }

    /// Notes each key that is not for VFs of `kind`, which `whose` has.
    pub(super) fn keep_to(&self, kind: Kind, whose: &str, table: &Table<'_>) {
        let (others, other) = match kind {
            Kind::Nic => (NVME_KEYS, Kind::Nvme),
            Kind::Nvme => (NIC_KEYS, Kind::Nic),
        };
        for key in others {
            if let Some(place) = self.places.keys.get(key) {
                other_kind(
                    table,
                    key,
                    other,
                    &format!("{whose} is of {}", kind.plural()),
                    place,
                );
            }
        }
    }

    /// Notes what is weaker than is safe.
    pub(super) fn warn(&self, warnings: &mut Vec<Report>) {
        if self.spoofchk == Some(false) {
            warnings.push(weak(
                "spoofchk = false",
                "a guest with such a VF can send under its neighbours' addresses",
                self.places.of("spoofchk"),
            ));
        }
        if self.trust == Some(true) {
            warnings.push(weak(
                "trust = true",
                "a guest with such a VF can receive what is meant for others, and change its address",
                self.places.of("trust"),
            ));
        }
    }

    /// Notes rates that contradict each other: `min` and `max` are what is in force here.
    pub(super) fn check_rates(&self, min: Mbps, max: Mbps, table: &Table<'_>) {
        if max == Mbps(0) || min <= max {
            return;
        }
        let key = ["min_tx_rate", "max_tx_rate"]
            .into_iter()
            .find(|key| self.places.keys.contains_key(key));
        let report = Report::new(
            ErrorId::BadRate,
            format!("a promise of {min} is above the limit of {max}"),
            "`min_tx_rate` is more than `max_tx_rate`: no rate is both",
            "lower the first, or raise the second",
        );
        let place = self.places.of(key.unwrap_or("min_tx_rate")).clone();
        let _: Option<()> = table.problem(report, place);
    }
}

/// A wish that is granted and should not be.
pub(super) fn weak(wish: &str, why: &str, place: &Location) -> Report {
    Report::new(
        ErrorId::PoolWeak,
        format!("`{wish}` gives guests more than is safe"),
        why,
        "remove the key, unless these guests trust each other",
    )
    .at(Some(place.clone()))
}

/// Notes a key that is for VFs of `kind` only.
pub(super) fn other_kind(table: &Table<'_>, key: &str, kind: Kind, why: &str, place: &Location) {
    let report = Report::new(
        ErrorId::PoolKind,
        format!("`{key}` is for {}", kind.plural()),
        why,
        "remove the key",
    );
    let _: Option<()> = table.problem(report, place.clone());
}

/// `vlan`, with `qos` and `vlan_proto`, which say nothing without it.
fn vlan(table: &mut Table<'_>) -> Option<Vlan> {
    let has_vlan = table.has("vlan");
    let id = table.number_or(ErrorId::BadVlan, "vlan", 0..=MAX_VLAN);
    let qos = table.number_or(ErrorId::BadVlan, "qos", 0..=MAX_QOS);
    let proto: Option<Placed<VlanProto>> = choice(table, "vlan_proto", VLAN_PROTOS);
    // Of a number that was refused, no more is said.
    let is_untagged = !has_vlan || id.as_ref().is_some_and(|id| id.value == 0);
    let qos_of_none = qos.as_ref().filter(|qos| is_untagged && qos.value != 0);
    let proto_of_none = proto
        .as_ref()
        .filter(|proto| is_untagged && proto.value != VlanProto::default());
    let alone = [
        ("qos", qos_of_none.map(|qos| &qos.place)),
        ("vlan_proto", proto_of_none.map(|proto| &proto.place)),
    ];
    for (key, place) in alone {
        if let Some(place) = place {
            let report = Report::new(
                ErrorId::BadVlan,
                format!("`{key}` is without a VLAN"),
                "it travels in the tag, and there is no `vlan` beside it that makes one",
                format!("add `vlan = 101`, or remove `{key}`"),
            );
            let _: Option<()> = table.problem(report, place.clone());
        }
    }
    let id = u16::try_from(id?.value).ok()?;
    if id == 0 {
        return Some(Vlan::NONE);
    }
    Some(Vlan {
        id,
        qos: qos
            .and_then(|qos| u8::try_from(qos.value).ok())
            .unwrap_or(0),
        proto: proto.map(|proto| proto.value).unwrap_or_default(),
    })
}

/// A number of Mbit/s, or a text with a unit.
fn rate_at(table: &mut Table<'_>, key: &str) -> Option<Mbps> {
    if !table.has_string(key) {
        let most = u32::MAX as usize;
        let number = table.number_or(ErrorId::BadRate, key, 0..=most)?;
        return Some(Mbps(number.value));
    }
    let text = table.string(key)?;
    rate(&text.value).map_or_else(|report| table.problem(report, text.place), Some)
}

fn resources(table: &mut Table<'_>, key: &str, least: u16) -> Option<u16> {
    let number = table.number(key, usize::from(least)..=usize::from(u16::MAX))?;
    u16::try_from(number.value).ok()
}
