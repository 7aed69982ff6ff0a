//! What the tables of one host file say against each other.

use std::collections::BTreeMap;

use iommu::topology::Mac;

use super::{
    pool::Declared,
    types::{Kind, MacChoice, MacRange, PfMatch, PfSpec},
};
use crate::{
    error::{ErrorId, Location, Report},
    spec::reader::Table,
};

/// Notes every contradiction between tables. Where not `is_whole`, a PF is missing from `pfs`, and nothing is said of how
/// many VFs a pool has.
pub(super) fn check(top: &Table<'_>, pools: &[Declared], pfs: &[PfSpec], is_whole: bool) {
    let note = |report: Report, place: &Location| {
        let _: Option<()> = top.problem(report, place.clone());
    };
    for (report, place) in pools_twice(pools)
        .chain(pfs_twice(pfs))
        .chain(kinds(pools, pfs))
        .chain(macs_twice(pools, pfs))
        .chain(ranges_overlap(pools))
    {
        note(report, place);
    }
    if is_whole {
        for (report, place) in sizes(pools, pfs) {
            note(report, place);
        }
    }
}

/// Two pools of one name.
fn pools_twice(pools: &[Declared]) -> impl Iterator<Item = (Report, &Location)> {
    pools.iter().enumerate().filter_map(|(at, pool)| {
        let name = &pool.name;
        let other = pools[..at]
            .iter()
            .find(|other| other.name.value == name.value)?;
        let report = Report::new(
            ErrorId::PoolListedTwice,
            format!("there are two pools {:?}", name.value),
            format!("the other one is in line {}", other.name.place.line),
            "give each pool a name of its own",
        );
        Some((report, &name.place))
    })
}

/// Two tables for one PF, in the same words; in other words is seen against the machine.
fn pfs_twice(pfs: &[PfSpec]) -> impl Iterator<Item = (Report, &Location)> {
    pfs.iter().enumerate().filter_map(|(at, pf)| {
        let other = pfs[..at]
            .iter()
            .find(|other| other.match_by == pf.match_by)?;
        let report = Report::new(
            ErrorId::PfListedTwice,
            format!("two `[[pf]]` tables are for {}", pf.match_by),
            format!("the other one is in line {}", other.place.line),
            "make one table of them",
        );
        Some((report, &pf.place))
    })
}

/// Pools of a kind that a PF is not: by the words that name it, its namespaces, or its other pools.
fn kinds<'a>(
    pools: &'a [Declared],
    pfs: &'a [PfSpec],
) -> impl Iterator<Item = (Report, &'a Location)> {
    pfs.iter().filter_map(move |pf| {
        let (kind, why) = match &pf.match_by {
            PfMatch::Interface(name) => (Kind::Nic, format!("`interface` {name:?} is a NIC's")),
            PfMatch::Serial(serial) => (Kind::Nvme, format!("`serial` {serial:?} is a drive's")),
            PfMatch::Bdf(_) | PfMatch::Port { .. } if !pf.namespaces.is_empty() => {
                (Kind::Nvme, "it has a `[[pf.namespace]]`".to_owned())
            }
            PfMatch::Bdf(_) | PfMatch::Port { .. } => {
                let (kind, name) = kinds_of(pf, pools).next()?;
                (kind, format!("its pool {name:?} is of {}", kind.plural()))
            }
        };
        if let (Kind::Nic, Some(namespace)) = (kind, pf.namespaces.first()) {
            let report = Report::new(
                ErrorId::PoolKind,
                "a NIC has no namespaces",
                why,
                "name the drive by `serial` or `bdf`, or remove the namespaces",
            );
            return Some((report, &namespace.place));
        }
        let (index, of) = pf.pools.iter().find(|(_, of)| {
            let other = pools.iter().find(|pool| pool.name.value == of.name);
            other
                .and_then(|pool| pool.kind)
                .is_some_and(|other| other != kind)
        })?;
        let report = Report::new(
            ErrorId::PoolKind,
            format!("VF {index} cannot be in the pool {:?}", of.name),
            why,
            "put VFs of NICs and of drives into pools of their own kind",
        );
        Some((report, &of.place))
    })
}

/// The kind of each of a PF's pools, by the order of its VFs.
fn kinds_of<'a>(pf: &'a PfSpec, pools: &'a [Declared]) -> impl Iterator<Item = (Kind, &'a str)> {
    pf.pools.values().filter_map(|of| {
        let pool = pools.iter().find(|pool| pool.name.value == of.name)?;
        Some((pool.kind?, of.name.as_str()))
    })
}

/// An address for two VFs: fixed twice, or fixed and in the range of a pool that is not the VF's.
fn macs_twice<'a>(
    pools: &'a [Declared],
    pfs: &'a [PfSpec],
) -> impl Iterator<Item = (Report, &'a Location)> {
    let mut seen: BTreeMap<Mac, &Location> = BTreeMap::new();
    let mut found = Vec::new();
    for pf in pfs {
        for (index, own) in &pf.overrides {
            let Some(mac) = own.mac else { continue };
            let place = own.places.of("mac");
            let other = seen.get(&mac).copied();
            // One table with several VFs was judged where it was read.
            let is_other = other.is_some_and(|other| other != place);
            let pool = pf.pools.get(index).map(|pool| pool.name.as_str());
            let range =
                ranges(pools).find(|(name, range, _)| Some(*name) != pool && range.contains(mac));
            let why = match (other, range) {
                (Some(other), _) if is_other => format!("line {} has it too", other.line),
                (_, Some((name, range, _))) => format!(
                    "the pool {name:?} gives out {} to {}, and the VF is not in it",
                    range.first, range.last
                ),
                (_, None) => {
                    seen.insert(mac, place);
                    continue;
                }
            };
            let report = Report::new(
                ErrorId::MacListedTwice,
                format!("the address {mac} is for two VFs"),
                why,
                "give each VF an address of its own",
            );
            found.push((report, place));
        }
    }
    found.into_iter()
}

/// Two pools that give out the same addresses.
fn ranges_overlap(pools: &[Declared]) -> impl Iterator<Item = (Report, &Location)> {
    let all: Vec<_> = ranges(pools).collect();
    let mut found = Vec::new();
    for (at, (name, range, place)) in all.iter().enumerate() {
        let other = all[..at]
            .iter()
            .find(|(_, other, _)| other.overlaps(*range));
        if let Some((other, other_range, _)) = other {
            let report = Report::new(
                ErrorId::MacListedTwice,
                format!("the pools {other:?} and {name:?} give out the same addresses"),
                format!(
                    "{other:?} has {} to {}",
                    other_range.first, other_range.last
                ),
                "give each pool a range of its own",
            );
            found.push((report, *place));
        }
    }
    found.into_iter()
}

/// The ranges of pools, each with the pool's name and the place of the range.
fn ranges(pools: &[Declared]) -> impl Iterator<Item = (&str, MacRange, &Location)> {
    pools.iter().filter_map(|declared| {
        let pool = declared.pool.as_ref()?;
        let nic = pool.nic()?;
        match nic.mac {
            MacChoice::Range(range) => Some((pool.name.as_str(), range, nic.places.of("mac"))),
            MacChoice::Fixed(_) | MacChoice::Generated | MacChoice::None => None,
        }
    })
}

/// Pools with fewer VFs than are held back, and ranges with fewer addresses than there are VFs.
fn sizes<'a>(
    pools: &'a [Declared],
    pfs: &'a [PfSpec],
) -> impl Iterator<Item = (Report, &'a Location)> {
    let of_pool = |name: &'a str| {
        pfs.iter().flat_map(move |pf| {
            let in_it = pf.pools.iter().filter(move |(_, pool)| pool.name == name);
            in_it.map(|(index, _)| pf.overrides.get(index).and_then(|own| own.mac))
        })
    };
    let held = pools.iter().filter_map(move |declared| {
        let (pool, place) = (declared.pool.as_ref()?, declared.reserve_place.as_ref()?);
        let size = of_pool(&pool.name).count();
        if usize::try_from(pool.reserve).is_ok_and(|reserve| reserve <= size) {
            return None;
        }
        let report = Report::new(
            ErrorId::BadNumber,
            format!("{} VFs cannot be held back", pool.reserve),
            format!("the pool {:?} has {size}", pool.name),
            "lower `reserve`, or put more VFs into the pool",
        );
        Some((report, place))
    });
    let small = ranges(pools).filter_map(move |(name, range, place)| {
        let (mut without, mut taken) = (0_u32, 0_u32);
        for mac in of_pool(name) {
            match mac {
                Some(mac) => taken += u32::from(range.contains(mac)),
                None => without += 1,
            }
        }
        let free = range.count().saturating_sub(taken);
        if without <= free {
            return None;
        }
        let report = Report::new(
            ErrorId::MacRangeSmall,
            format!("the pool {name:?} has more VFs than addresses"),
            format!("{without} VFs have none of their own, and {free} are free in the range"),
            "widen the range, or write `mac = \"generated\"`",
        );
        Some((report, place))
    });
    held.chain(small)
}
