//! `[[pf.namespace]]`.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    pf::{beyond, unknown_pool},
    pool::Declared,
    types::{BlockSize, Kind, NamespaceFor, NamespaceFrom, NamespaceSpec, PoolRef},
    values::{check_word, ranges},
};
use crate::{
    error::{ErrorId, Location, Report},
    spec::{
        reader::{Placed, Table},
        values::drive_size,
    },
};

pub(super) const KEYS: &[&str] = &["name", "nsid", "size", "block", "vfs", "pool", "shared"];

/// The highest id; the one above it means all namespaces.
const MAX_NSID: usize = 0xFFFF_FFFE;

/// Reads the namespaces of a PF.
pub(super) fn namespaces(
    tables: Vec<Table<'_>>,
    count: u32,
    in_pools: &BTreeMap<u32, PoolRef>,
    pools: &[Declared],
) -> Vec<NamespaceSpec> {
    let mut all: Vec<NamespaceSpec> = Vec::new();
    for table in tables {
        let reports = table.reporter();
        let Some(found) = namespace(table, count, in_pools, pools) else {
            continue;
        };
        let names = names(&found, in_pools);
        for other in &all {
            let same_name = names
                .iter()
                .find(|name| self::names(other, in_pools).contains(name.as_str()));
            let why = match (same_name, found.from, other.from) {
                (_, NamespaceFrom::Existing { nsid }, NamespaceFrom::Existing { nsid: other })
                    if nsid == other =>
                {
                    format!("both have nsid {nsid}")
                }
                (Some(name), ..) => format!("both make the name {name:?}"),
                (None, ..) => continue,
            };
            let report = Report::new(
                ErrorId::NamespaceListedTwice,
                format!("{:?} is a namespace that is there already", found.name),
                why,
                "write one table for each namespace",
            )
            .and(format!("the other one is in line {}", other.place.line));
            reports.problem(report.at(Some(found.place.clone())));
            break;
        }
        all.push(found);
    }
    all
}

/// The names that a table makes: for a pool, one for each of its VFs.
fn names(namespace: &NamespaceSpec, in_pools: &BTreeMap<u32, PoolRef>) -> BTreeSet<String> {
    match &namespace.to {
        NamespaceFor::Vfs(_) => BTreeSet::from([namespace.name.clone()]),
        NamespaceFor::Pool(pool) => in_pools
            .iter()
            .filter(|(_, of)| of.name == *pool)
            .map(|(index, _)| format!("{}-{index}", namespace.name))
            .collect(),
    }
}

fn namespace(
    mut table: Table<'_>,
    count: u32,
    in_pools: &BTreeMap<u32, PoolRef>,
    pools: &[Declared],
) -> Option<NamespaceSpec> {
    let name = table.required("name", "\"a0\"").and_then(|name| {
        match check_word("a namespace", &name.value) {
            Ok(()) => Some(name),
            Err(report) => table.problem(report, name.place),
        }
    });
    let shared = table.boolean("shared").is_some_and(|shared| shared.value);
    let from = from(&mut table);
    let is_existing = matches!(from, Some(NamespaceFrom::Existing { .. }));
    let to = to(&mut table, count, shared, is_existing, in_pools, pools);
    table.finish(KEYS);
    let name = name?;
    Some(NamespaceSpec {
        name: name.value,
        place: name.place,
        from: from?,
        to: to?,
        shared,
    })
}

/// `nsid`, or `size` and `block`.
fn from(table: &mut Table<'_>) -> Option<NamespaceFrom> {
    let block_place = table.place_of("block");
    let (has_nsid, has_size) = (table.has("nsid"), table.has("size"));
    if !has_nsid && !has_size {
        table.requires(
            "nsid",
            "nsid = 2` for one that is there, or `size = \"10G\"",
        );
    }
    let nsid = table.number("nsid", 1..=MAX_NSID);
    let size_place = table.place_of("size");
    let size = table.string("size").and_then(|text| {
        drive_size(&text.value).map_or_else(|report| table.problem(report, text.place), Some)
    });
    let block = block(table);
    if has_nsid {
        let of_new = [("size", &size_place), ("block", &block_place)];
        for (key, place) in of_new {
            if let Some(place) = place {
                excludes(
                    table,
                    "nsid",
                    key,
                    "the first is there, the second is for one that is made",
                    place,
                );
            }
        }
        return Some(NamespaceFrom::Existing { nsid: nsid?.value });
    }
    let (size, place) = (size?, size_place?);
    let unit = match block {
        Some(BlockSize::B4096) => 4096,
        Some(BlockSize::B512) | None => 512,
    };
    if size.raw() == 0 || !size.raw().is_multiple_of(unit) {
        let report = Report::new(
            ErrorId::BadSize,
            format!("a namespace of {size} is not possible"),
            format!("it has whole blocks of {unit} bytes, and one at least"),
            "write a larger size",
        );
        return table.problem(report, place);
    }
    Some(NamespaceFrom::Created { size, block })
}

fn block(table: &mut Table<'_>) -> Option<BlockSize> {
    let number = table.number("block", 512..=4096)?;
    match number.value {
        512 => Some(BlockSize::B512),
        4096 => Some(BlockSize::B4096),
        other => {
            let report = Report::new(
                ErrorId::BadNumber,
                format!("blocks of {other} bytes are not possible"),
                "drives have blocks of 512 or 4096 bytes",
                "write one of them, or leave the key out",
            );
            table.problem(report, number.place)
        }
    }
}

/// `vfs`, or `pool`.
fn to(
    table: &mut Table<'_>,
    count: u32,
    shared: bool,
    is_existing: bool,
    in_pools: &BTreeMap<u32, PoolRef>,
    pools: &[Declared],
) -> Option<NamespaceFor> {
    if !table.has("vfs") && !table.has("pool") {
        table.requires("vfs", "vfs = \"0\"");
    }
    let vfs = table.string("vfs");
    let pool = table.string("pool");
    if let (Some(_), Some(pool)) = (&vfs, &pool) {
        let why = "the first names VFs, the second all of a pool";
        excludes(table, "vfs", "pool", why, &pool.place);
        return None;
    }
    if let Some(pool) = pool {
        let of_pool = OfPool {
            is_existing,
            shared,
            in_pools,
            pools,
        };
        return match of_pool.problem(&pool) {
            Some(report) => table.problem(report, pool.place),
            None => Some(NamespaceFor::Pool(pool.value)),
        };
    }
    let text = vfs?;
    let set = match ranges(&text.value) {
        Ok(set) => set,
        Err(report) => return table.problem(report, text.place),
    };
    let of: BTreeSet<&str> = set
        .iter()
        .filter_map(|index| Some(in_pools.get(index)?.name.as_str()))
        .collect();
    let twice = |what: String, why: &str, fix: &str| {
        Some(Report::new(ErrorId::NamespaceListedTwice, what, why, fix))
    };
    let problem = beyond(&set, count).or_else(|| match (set.len(), of.len()) {
        (0 | 1, _) => None,
        (vfs, _) if !shared => twice(
            format!("the namespace goes to {vfs} VFs"),
            "it is not shared: one VF sees it",
            "name one VF, or write `shared = true`",
        ),
        (_, 2..) => twice(
            format!(
                "the namespace goes to the pools {}",
                Vec::from_iter(of).join(" and ")
            ),
            "what one pool's guest has written would be erased, or read, by the other's",
            "name VFs of one pool",
        ),
        (_, _) => None,
    });
    match problem {
        Some(report) => table.problem(report, text.place),
        None => Some(NamespaceFor::Vfs(set)),
    }
}

/// A namespace for each VF of a pool, and what can be wrong with that.
struct OfPool<'a> {
    is_existing: bool,
    shared: bool,
    in_pools: &'a BTreeMap<u32, PoolRef>,
    pools: &'a [Declared],
}

impl OfPool<'_> {
    fn problem(&self, pool: &Placed<String>) -> Option<Report> {
        let name = pool.value.as_str();
        let Some(declared) = self.pools.iter().find(|pool| pool.name.value == name) else {
            return Some(unknown_pool(name, self.pools));
        };
        let choice = |what: &str, why: &str, fix: &str| {
            Some(Report::new(ErrorId::BadChoice, what, why, fix))
        };
        if declared.kind == Some(Kind::Nic) {
            return Some(Report::new(
                ErrorId::PoolKind,
                format!("the pool {name:?} has no namespaces"),
                "it is of NICs",
                "name a pool of NVMe drives",
            ));
        }
        if self.is_existing {
            return choice(
                "`pool` and `nsid` exclude each other",
                "each VF of the pool gets a namespace of its own, and an existing one is one",
                "name its VF by `vfs`, or have namespaces made: `size = \"10G\"`",
            );
        }
        if self.shared {
            return choice(
                "`pool` and `shared` exclude each other",
                "each VF of the pool gets a namespace of its own",
                "remove `shared`, or name VFs by `vfs`",
            );
        }
        if !self.in_pools.values().any(|of| of.name == name) {
            return Some(Report::new(
                ErrorId::PoolUnknown,
                format!("the pool {name:?} has no VF of this PF"),
                "`pools` of the `[[pf]]` does not name it, so no namespace would be made",
                format!("add `{name} = \"0\"` to `pools`"),
            ));
        }
        None
    }
}

/// Notes that two keys cannot both be there.
fn excludes(table: &Table<'_>, one: &str, other: &str, why: &str, place: &Location) {
    let report = Report::new(
        ErrorId::BadChoice,
        format!("`{one}` and `{other}` exclude each other"),
        why,
        "remove one of them",
    );
    let _: Option<()> = table.problem(report, place.clone());
}
