//! `[[pf.vf]]`: what single VFs have different from their pool.

use std::collections::{BTreeMap, BTreeSet};

use iommu::topology::Mac;

use super::{
    attributes::{Attributes, NIC_KEYS, NVME_KEYS},
    pf::beyond,
    pool::Declared,
    types::{Overrides, PoolRef},
    values::{mac, ranges},
};
use crate::{
    error::{ErrorId, Location, Report},
    spec::reader::Table,
};

pub(super) const KEYS: &[&str] = &["index"];

/// What single VFs of a PF have different from their pool, by index.
pub(super) fn overrides(
    pf: &mut Table<'_>,
    count: u32,
    in_pools: &BTreeMap<u32, PoolRef>,
    pools: &[Declared],
    warnings: &mut Vec<Report>,
) -> BTreeMap<u32, Overrides> {
    let mut all: BTreeMap<u32, Overrides> = BTreeMap::new();
    for table in pf.tables("vf") {
        let reports = table.reporter();
        let Some((set, place, found)) = one_override(table, count, in_pools, pools, warnings)
        else {
            continue;
        };
        if let Some(index) = set.iter().find(|index| all.contains_key(index)) {
            let report = Report::new(
                ErrorId::VfListedTwice,
                format!("VF {index} has two tables"),
                "an earlier `[[pf.vf]]` of this PF names it too",
                "write all that is particular to it into one table",
            );
            reports.problem(report.at(Some(place)));
        }
        for index in set {
            all.entry(index).or_insert_with(|| found.clone());
        }
    }
    all
}

fn one_override(
    mut table: Table<'_>,
    count: u32,
    in_pools: &BTreeMap<u32, PoolRef>,
    pools: &[Declared],
    warnings: &mut Vec<Report>,
) -> Option<(BTreeSet<u32>, Location, Overrides)> {
    let index = table.required("index", "\"0\"");
    let whole = index.as_ref().map(|index| index.place.clone());
    let whole = whole.or_else(|| table.place().cloned())?;
    let attributes = Attributes::read(&mut table, whole);
    let mac = table.string("mac").and_then(|text| match mac(&text.value) {
        Ok(mac) => Some((mac, text.place)),
        Err(report) => table.problem(report, text.place),
    });
    let set = index.and_then(|index| match ranges(&index.value) {
        Ok(set) => match beyond(&set, count) {
            Some(report) => table.problem(report, index.place),
            None => Some((set, index.place)),
        },
        Err(report) => table.problem(report, index.place),
    });
    if let (Some((mac, place)), Some((set, _))) = (&mac, &set)
        && set.len() > 1
    {
        let report = Report::new(
            ErrorId::MacListedTwice,
            format!("{} VFs have the address {mac}", set.len()),
            "`index` of the table names all of them, and an address is of one",
            "write a table for each VF",
        );
        let _: Option<()> = table.problem(report, place.clone());
    }
    attributes.warn(warnings);
    if let Some((set, _)) = &set {
        check_override(&attributes, set, in_pools, pools, &table);
    }
    table.finish(&[KEYS, NIC_KEYS, NVME_KEYS].concat());
    let (set, place) = set?;
    Some((
        set,
        place,
        as_overrides(attributes, mac.map(|(mac, _)| mac)),
    ))
}

/// What contradicts the pools of the VFs, once for each pool.
fn check_override(
    attributes: &Attributes,
    set: &BTreeSet<u32>,
    in_pools: &BTreeMap<u32, PoolRef>,
    pools: &[Declared],
    table: &Table<'_>,
) {
    let names: BTreeSet<Option<&str>> = set
        .iter()
        .map(|index| in_pools.get(index).map(|pool| pool.name.as_str()))
        .collect();
    for name in names {
        let declared = pools
            .iter()
            .find(|pool| Some(pool.name.value.as_str()) == name);
        let kind = declared.and_then(|pool| pool.kind);
        if let (Some(kind), Some(name)) = (kind, name) {
            attributes.keep_to(kind, &format!("the pool {name:?} of the VF"), table);
        }
        let policy = declared.and_then(|pool| pool.pool.as_ref()?.nic());
        // A rate of the pool alone was judged there.
        let has_rate = attributes.min_tx.is_some() || attributes.max_tx.is_some();
        if has_rate {
            let (min, max) = policy.map_or_else(Default::default, |nic| (nic.min_tx, nic.max_tx));
            let min = attributes.min_tx.unwrap_or(min);
            attributes.check_rates(min, attributes.max_tx.unwrap_or(max), table);
        }
    }
}

fn as_overrides(attributes: Attributes, mac: Option<Mac>) -> Overrides {
    Overrides {
        mac,
        vlan: attributes.vlan,
        spoofchk: attributes.spoofchk,
        trust: attributes.trust,
        state: attributes.state,
        min_tx: attributes.min_tx,
        max_tx: attributes.max_tx,
        query_rss: attributes.query_rss,
        queues: attributes.queues,
        vectors: attributes.vectors,
        places: attributes.places,
    }
}
