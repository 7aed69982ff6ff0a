//! `[[pf]]`.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    namespace::namespaces,
    pool::Declared,
    types::{Eswitch, Interlock, PfMatch, PfSpec, PoolRef},
    values::{MAX_INDEX, check_interface, check_serial, check_word, ranges},
    vf::overrides,
};
use crate::{
    error::{ErrorId, Location, Report},
    spec::{
        near::nearest,
        parse::choice,
        reader::{Placed, Table},
        values::bdf,
    },
};

pub(super) const KEYS: &[&str] = &[
    "bdf",
    "interface",
    "profile",
    "port",
    "serial",
    "vfs",
    "pools",
    "adopt",
    "eswitch",
    "up",
    "accept",
    "vf",
    "namespace",
];

/// The highest number of a port that the file may name.
const MAX_PORT: usize = 255;

/// Every interlock with its word; the first four may be accepted.
const INTERLOCKS: [(&str, Interlock); 11] = [
    ("pf-default-route", Interlock::PfDefaultRoute),
    ("pf-only-route", Interlock::PfOnlyRoute),
    ("pf-login", Interlock::PfLogin),
    ("managed-elsewhere", Interlock::ManagedElsewhere),
    ("pf-root-disk", Interlock::PfRootDisk),
    ("pf-mounted", Interlock::PfMounted),
    ("namespace-open", Interlock::NamespaceOpen),
    ("vf-host-used", Interlock::VfHostUsed),
    ("vf-in-use", Interlock::VfInUse),
    ("pf-assigned", Interlock::PfAssigned),
    ("facts-unread", Interlock::FactsUnread),
];
/// How many of them may be accepted.
const ACCEPTABLE: usize = 4;

/// Reads a `[[pf]]`; `None` where it is not known which PF it is, or how many VFs it has.
pub(super) fn pf(
    mut table: Table<'_>,
    pools: &[Declared],
    warnings: &mut Vec<Report>,
) -> Option<PfSpec> {
    let whole = table.place()?.clone();
    let profile = table.string("profile");
    let found = matching(&mut table, profile.as_ref(), &whole);
    table.requires("vfs", "vfs = 4");
    let vfs = table.number("vfs", 0..=MAX_INDEX as usize + 1);
    // All numbers are below it, where it is not known.
    let count = vfs.as_ref().map_or(u32::MAX, |vfs| vfs.value);
    let in_pools = match table.table("pools") {
        Some(table) => indexes(table, count, pools),
        None => BTreeMap::new(),
    };
    let boolean = |table: &mut Table<'_>, key| table.boolean(key).map(|found| found.value);
    let adopt = boolean(&mut table, "adopt");
    let words = &["legacy", "switchdev", "keep"];
    let eswitch: Option<Placed<String>> = choice(&mut table, "eswitch", words);
    let up = boolean(&mut table, "up");
    let accept = accept(&mut table);
    let overrides = overrides(&mut table, count, &in_pools, pools, warnings);
    let namespaces = namespaces(table.tables("namespace"), count, &in_pools, pools);
    table.finish(KEYS);
    let (match_by, place) = found?;
    let vfs = vfs?;
    Some(PfSpec {
        match_by,
        place,
        profile: profile.map(|profile| (profile.value, profile.place)),
        vfs: vfs.value,
        vfs_place: vfs.place,
        pools: in_pools,
        overrides,
        namespaces,
        adopt: adopt.unwrap_or(false),
        eswitch: eswitch.and_then(|word| match word.value.as_str() {
            "legacy" => Some(Eswitch::Legacy),
            "switchdev" => Some(Eswitch::Switchdev),
            _ => None,
        }),
        up,
        accept,
    })
}

/// Which PF it is, said in exactly one way.
fn matching(
    table: &mut Table<'_>,
    profile: Option<&Placed<String>>,
    whole: &Location,
) -> Option<(PfMatch, Location)> {
    let checked =
        |table: &Table<'_>, found: Placed<String>, check: fn(&str) -> Result<(), Report>| {
            match check(&found.value) {
                Ok(()) => Some(found),
                Err(report) => table.problem(report, found.place),
            }
        };
    let has_profile = table.has("profile") || profile.is_some();
    let ways: Vec<&str> = ["bdf", "interface", "serial", "port"]
        .into_iter()
        .filter(|key| table.has(key))
        .collect();
    let by_bdf = table.string("bdf").and_then(|text| match bdf(&text.value) {
        Ok(bdf) => Some((PfMatch::Bdf(bdf), text.place)),
        Err(report) => table.problem(report, text.place),
    });
    let interface = table.string("interface");
    let by_interface = interface
        .and_then(|name| checked(table, name, check_interface))
        .map(|name| (PfMatch::Interface(name.value), name.place));
    let serial = table.string("serial");
    let by_serial = serial
        .and_then(|serial| checked(table, serial, check_serial))
        .map(|serial| (PfMatch::Serial(serial.value), serial.place));
    let port = table.number("port", 0..=MAX_PORT);
    let by_port = port.zip(profile).map(|(port, profile)| {
        let by_port = PfMatch::Port {
            profile: profile.value.clone(),
            port: port.value,
        };
        (by_port, port.place)
    });
    if let Some(profile) = profile {
        let name = Placed {
            value: profile.value.clone(),
            place: profile.place.clone(),
        };
        checked(table, name, |name| check_word("a profile", name))?;
    }
    let bad = |why: String, fix: &str| {
        Report::new(
            ErrorId::PfMatch,
            "it is not clear which PF is meant",
            why,
            fix,
        )
    };
    let report = match (ways.as_slice(), has_profile) {
        (["port"], false) => bad(
            "`port` counts the ports of a profile, and there is no `profile`".to_owned(),
            "add `profile = \"intel-igb\"`, or name the PF by `bdf`",
        ),
        ([_], _) => return by_bdf.or(by_interface).or(by_serial).or(by_port),
        ([], true) => bad(
            "a profile is of many PFs".to_owned(),
            "add `port = 0`, or `bdf`, `interface` or `serial`",
        ),
        ([], false) => bad(
            "there is none of `bdf`, `interface`, `serial`, and `profile` with `port`".to_owned(),
            "add `bdf = \"0000:3b:00.0\"`, as `narrows inventory` shows it",
        ),
        (several, _) => bad(
            format!("there are `{}`", several.join("` and `")),
            "keep one of them",
        ),
    };
    table.problem(report, whole.clone())
}

/// `pools`: the pool of each VF that is in one.
fn indexes(table: Table<'_>, count: u32, pools: &[Declared]) -> BTreeMap<u32, PoolRef> {
    let reports = table.reporter();
    let mut all: BTreeMap<u32, PoolRef> = BTreeMap::new();
    for (name, text) in table.names() {
        if !pools.iter().any(|pool| pool.name.value == name.value) {
            reports.problem(unknown_pool(&name.value, pools).at(Some(name.place.clone())));
        }
        let set = match ranges(&text.value) {
            Ok(set) => set,
            Err(report) => {
                reports.problem(report.at(Some(text.place)));
                continue;
            }
        };
        if let Some(report) = beyond(&set, count) {
            reports.problem(report.at(Some(text.place.clone())));
        }
        let twice = set.iter().find_map(|index| Some((index, all.get(index)?)));
        if let Some((index, other)) = twice {
            let report = Report::new(
                ErrorId::PoolsOverlap,
                format!("VF {index} is in two pools"),
                format!("it is in {:?} and in {:?}", other.name, name.value),
                "write each number into the range of one pool",
            );
            reports.problem(report.at(Some(text.place.clone())));
        }
        for index in set {
            all.entry(index).or_insert_with(|| PoolRef {
                name: name.value.clone(),
                place: text.place.clone(),
            });
        }
    }
    all
}

/// What is wrong with a name that no pool has.
pub(super) fn unknown_pool(name: &str, pools: &[Declared]) -> Report {
    let names: Vec<&str> = pools.iter().map(|pool| pool.name.value.as_str()).collect();
    let fix = match nearest(name, &names) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("add a `[[pool]]` with `name = {name:?}`"),
    };
    let why = match names.as_slice() {
        [] => "the file has no `[[pool]]`".to_owned(),
        names => format!("there are: {}", names.join(", ")),
    };
    Report::new(
        ErrorId::PoolUnknown,
        format!("there is no pool {name:?}"),
        why,
        fix,
    )
}

/// What is wrong with numbers of VFs that a PF does not have.
pub(super) fn beyond(set: &BTreeSet<u32>, count: u32) -> Option<Report> {
    let index = set.iter().find(|index| **index >= count)?;
    let why = match count {
        0 => "`vfs` is 0: there are none".to_owned(),
        count => format!("`vfs` is {count}: they are 0 to {}", count - 1),
    };
    Some(Report::new(
        ErrorId::VfIndex,
        format!("the PF has no VF {index}"),
        why,
        "take the number out, or raise `vfs`",
    ))
}

/// Interlocks that do not hold for the PF.
fn accept(table: &mut Table<'_>) -> BTreeSet<Interlock> {
    let mut accepted = BTreeSet::new();
    for word in table.strings("accept") {
        let at = INTERLOCKS.iter().position(|(name, _)| *name == word.value);
        let (why, fix) = match at.and_then(|at| Some((at, INTERLOCKS.get(at)?))) {
            Some((at, (_, interlock))) if at < ACCEPTABLE => {
                accepted.insert(*interlock);
                continue;
            }
            Some((_, (name, _))) => (
                "nobody may accept it: what it protects would be lost".to_owned(),
                format!("see `narrows explain {name}`"),
            ),
            None => {
                let names: Vec<&str> = INTERLOCKS.iter().map(|(name, _)| *name).collect();
                let fix = match nearest(&word.value, &names) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("known: {}", names[..ACCEPTABLE].join(", ")),
                };
                ("no interlock has that name".to_owned(), fix)
            }
        };
        let what = format!("{:?} cannot be accepted", word.value);
        let report = Report::new(ErrorId::BadOptOut, what, why, fix);
        let _: Option<()> = table.problem(report, word.place);
    }
    accepted
}
