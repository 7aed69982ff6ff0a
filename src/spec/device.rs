//! `[[device]]`: a function by its address, or a VF of one of the host's pools.

use iommu::{
    bdf::Bdf,
    isolation::{CheckId, Verdict},
};
use jailed::handoff::MAX_VECTORS;

use super::{
    host::Mbps,
    near::nearest,
    parse::{MAX_NUMA_NODE, choice},
    reader::{Placed, Table},
    types::{DeviceSpec, PoolDevice, PoolWish, Uuid},
    values::{bdf, check_name},
};
use crate::error::{ErrorId, Location, Report};

const BDF_KEYS: &[&str] = &["bdf", "max_vectors", "accept", "vf_token"];
const POOL_KEYS: &[&str] = &["pool", "numa", "min_link", "keep", "max_vectors", "accept"];
const KEYS: &[&str] = &[
    "bdf",
    "pool",
    "numa",
    "min_link",
    "keep",
    "max_vectors",
    "accept",
    "vf_token",
];

/// Vectors of a function whose guest file says nothing about them.
const DEFAULT_VECTORS: u32 = 64;

/// The devices of a guest file.
#[derive(Debug)]
pub(super) struct Devices {
    /// Those with an address.
    pub(super) by_bdf: Vec<DeviceSpec>,
    /// Those of pools.
    pub(super) by_pool: Vec<PoolDevice>,
    /// Whether all could be read.
    pub(super) is_whole: bool,
}

/// One table.
enum Device {
    ByBdf(DeviceSpec),
    ByPool(PoolDevice),
}

/// All tables; `home` is the NUMA node of the guest's RAM.
pub(super) fn devices(tables: Vec<Table<'_>>, home: Option<u32>) -> Devices {
    let mut found = Devices {
        by_bdf: Vec::new(),
        by_pool: Vec::new(),
        is_whole: true,
    };
    for (at, table) in tables.into_iter().enumerate() {
        match device(table, at, home) {
            Some(Device::ByBdf(device)) => found.by_bdf.push(device),
            Some(Device::ByPool(device)) => found.by_pool.push(device),
            None => found.is_whole = false,
        }
    }
    found
}

fn device(mut table: Table<'_>, at: usize, home: Option<u32>) -> Option<Device> {
    match (table.has("bdf"), table.has("pool")) {
        (true, true) => {
            let pool = table.string("pool")?;
            let report = Report::new(
                ErrorId::BadChoice,
                "a [[device]] names both a bdf and a pool",
                "`bdf` is one function, `pool` leaves the choice to narrows",
                "remove one of the two",
            );
            table.problem(report, pool.place)
        }
        (_, false) => by_bdf(table).map(Device::ByBdf),
        (false, true) => by_pool(table, at, home).map(Device::ByPool),
    }
}

fn by_bdf(mut table: Table<'_>) -> Option<DeviceSpec> {
    let is_named = table.has("bdf");
    let bdf: Option<(Bdf, Location)> =
        table
            .required("bdf", "\"0000:3b:02.1\"")
            .and_then(|text| match bdf(&text.value) {
                Ok(bdf) => Some((bdf, text.place)),
                Err(report) => table.problem(report, text.place),
            });
    let max_vectors = table.number("max_vectors", 1..=MAX_VECTORS);
    let accept = accepted(&mut table);
    let vf_token = table.string("vf_token").and_then(|text| {
        Uuid::parse(&text.value).or_else(|| {
            table.problem(
                Report::new(
                    ErrorId::BadUuid,
                    format!("{:?} is not a UUID", text.value),
                    "VFIO takes 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12",
                    "make one with `uuidgen`; it is the one that the owner of the PF set",
                ),
                text.place,
            )
        })
    });
    // Of a table with neither, either may be meant.
    table.finish(if is_named { BDF_KEYS } else { KEYS });
    let (bdf, place) = bdf?;
    Some(DeviceSpec {
        bdf,
        max_vectors: max_vectors.map_or(DEFAULT_VECTORS, |v| v.value),
        accept,
        vf_token,
        place: Some(place),
    })
}

fn by_pool(mut table: Table<'_>, at: usize, home: Option<u32>) -> Option<PoolDevice> {
    let pool = table
        .string("pool")
        .and_then(|pool| match check_name(&pool.value) {
            Ok(()) => Some(pool),
            Err(report) => table.problem(report, pool.place),
        });
    let numa = numa(&mut table, home);
    let min_link = match table.string("min_link") {
        None => Some(None),
        Some(text) => match link(&text.value) {
            Some(link) => Some(Some(link)),
            None => table.problem(
                Report::new(
                    ErrorId::BadRate,
                    format!("{:?} is not the speed of a link", text.value),
                    "it is a whole number with M or G, in bits per second, and not 0",
                    "write for instance \"10G\"",
                ),
                text.place,
            ),
        },
    };
    let keep = table.boolean("keep");
    let max_vectors = table.number("max_vectors", 1..=MAX_VECTORS);
    let accept = accepted(&mut table);
    table.finish(POOL_KEYS);
    let pool = pool?;
    Some(PoolDevice {
        at,
        wish: PoolWish {
            pool: pool.value,
            numa: numa?,
            home,
            min_link: min_link?,
            keep: keep.is_some_and(|keep| keep.value),
        },
        max_vectors: max_vectors.map_or(DEFAULT_VECTORS, |v| v.value),
        accept,
        place: Some(pool.place),
    })
}

/// The NUMA node that is asked for, if any: a number, or the word for the node of the guest's RAM.
fn numa(table: &mut Table<'_>, home: Option<u32>) -> Option<Option<u32>> {
    if !table.has("numa") {
        return Some(None);
    }
    if !table.has_string("numa") {
        return table
            .number("numa", 0..=MAX_NUMA_NODE)
            .map(|n| Some(n.value));
    }
    let word: Placed<String> = choice(table, "numa", &["any", "near"])?;
    match (word.value.as_str(), home) {
        ("near", None) => {
            let report = Report::new(
                ErrorId::BadChoice,
                "`numa = \"near\"` is near to nothing",
                "the guest's RAM has no NUMA node of its own",
                "add `numa_node` to `[memory]`, or write the number of the node here",
            );
            table.problem(report, word.place)
        }
        ("near", home) => Some(home),
        _ => Some(None),
    }
}

/// `10G`, `100M`: decimal units, as of links.
fn link(text: &str) -> Option<Mbps> {
    let (number, unit) = match text.strip_suffix('G') {
        Some(number) => (number, 1000),
        None => (text.strip_suffix('M')?, 1),
    };
    let is_plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = number.parse().ok().filter(|_| is_plain)?;
    number.checked_mul(unit).filter(|mbps| *mbps > 0).map(Mbps)
}

/// The checks that the table accepts.
fn accepted(table: &mut Table<'_>) -> Vec<CheckId> {
    let mut accept = Vec::new();
    for word in table.strings("accept") {
        match acceptable().find(|id| id.name() == word.value) {
            Some(id) if !accept.contains(&id) => accept.push(id),
            Some(_) => {}
            None => {
                let _: Option<()> = table.problem(not_acceptable(&word.value), word.place);
            }
        }
    }
    accept
}

/// The checks whose refusal an operator may accept for a device.
fn acceptable() -> impl Iterator<Item = CheckId> {
    CheckId::all().filter(|id| id.check().accepted.is_some())
}

fn not_acceptable(word: &str) -> Report {
    let what = format!("{word:?} cannot be accepted");
    if let Some(id) = CheckId::from_name(word) {
        let why = match id.check().worst {
            Verdict::Refuse => format!("nobody may accept it: otherwise {}", id.check().why),
            Verdict::Pass | Verdict::Fixable | Verdict::Warn => "it refuses nothing".to_owned(),
        };
        return Report::new(ErrorId::BadOptOut, what, why, id.check().remedy);
    }
    let names: Vec<&str> = acceptable().map(CheckId::name).collect();
    // Who leaves the front of a name away means it all the same.
    let end = names
        .iter()
        .find(|name| word.len() > 3 && name.ends_with(word));
    let fix = match end.copied().or_else(|| nearest(word, &names)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("known: {}", names.join(", ")),
    };
    Report::new(ErrorId::BadOptOut, what, "no check has that name", fix)
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
