//! `[[pool]]`.

use std::collections::BTreeSet;

use iommu::topology::{LinkPolicy, Mac};

use super::{
    attributes::{Attributes, LEAST_QUEUES, NIC_KEYS, NVME_KEYS, other_kind, weak},
    types::{
        Eraser, Hold, Kind, MacChoice, MacRange, Mbps, NicPolicy, NvmePolicy, Pool, PoolOptOut,
        PoolPolicy, Vlan,
    },
    values::{MAX_INDEX, check_word, mac, mac_range},
};
use crate::{
    error::{ErrorId, Location, Report},
    spec::{
        near::nearest,
        parse::choice,
        reader::{Placed, Table},
    },
};

pub(super) const KEYS: &[&str] = &["name", "kind", "hold", "erase", "accept", "reserve"];
const RANGE_KEYS: &[&str] = &["first", "last"];

/// Interrupt resources of a secondary controller whose pool says nothing: one for each queue.
const USUAL_VECTORS: u16 = LEAST_QUEUES;

/// A pool as far as it was understood.
#[derive(Debug)]
pub(super) struct Declared {
    /// Its name, though it may be one that no pool can have.
    pub(super) name: Placed<String>,
    /// `None` where the problem is noted.
    pub(super) kind: Option<Kind>,
    /// `None` where the problem is noted.
    pub(super) pool: Option<Pool>,
    /// Where `reserve` stands.
    pub(super) reserve_place: Option<Location>,
}

/// Reads a `[[pool]]`; `None` where it has no name.
pub(super) fn pool(mut table: Table<'_>, warnings: &mut Vec<Report>) -> Option<Declared> {
    let name = table.required("name", "\"tenant-a\"");
    let is_named = name.as_ref().is_some_and(|name| {
        let checked = check_word("a pool", &name.value);
        checked
            .map_or_else(|report| table.problem(report, name.place.clone()), Some)
            .is_some()
    });
    table.requires("kind", "kind = \"nic\"");
    let kind: Option<Kind> = choice(&mut table, "kind", &["nic", "nvme"]).map(|kind| kind.value);
    let whole = name.as_ref().map(|name| name.place.clone());
    let whole = whole.or_else(|| table.place().cloned());
    let attributes = whole.map(|whole| Attributes::read(&mut table, whole));
    let (hold_place, erase_place) = (table.place_of("hold"), table.place_of("erase"));
    let hold: Option<Placed<Hold>> = choice(&mut table, "hold", &["lease", "always"]);
    let words = &["none", "auto", "crypto", "format", "overwrite"];
    let erase: Option<Placed<Eraser>> = choice(&mut table, "erase", words);
    let mac = mac_choice(&mut table);
    let accept = accept(&mut table, kind);
    let reserve = table.number("reserve", 0..=MAX_INDEX as usize + 1);
    let pool = attributes.zip(kind).and_then(|(mut attributes, kind)| {
        let whose = "the pool";
        attributes.keep_to(kind, whose, &table);
        let why = format!("{whose} is of {}", kind.plural());
        let alone = [
            ("hold", Kind::Nic, hold_place),
            ("erase", Kind::Nvme, erase_place),
        ];
        for (key, of, place) in alone {
            let Some(place) = place else { continue };
            if of != kind {
                other_kind(&table, key, of, &why, &place);
            }
            attributes.places.keys.insert(key, place);
        }
        let policy = match kind {
            Kind::Nic => {
                attributes.warn(warnings);
                PoolPolicy::Nic(nic(attributes, hold.map(|hold| hold.value), mac, &table))
            }
            Kind::Nvme => PoolPolicy::Nvme(nvme(attributes, erase, warnings)),
        };
        let name = name.as_ref().filter(|_| is_named)?;
        Some(Pool {
            name: name.value.clone(),
            place: name.place.clone(),
            policy,
            accept,
            reserve: reserve.as_ref().map_or(0, |reserve| reserve.value),
        })
    });
    table.finish(&[KEYS, NIC_KEYS, NVME_KEYS].concat());
    Some(Declared {
        name: name?,
        kind,
        pool,
        reserve_place: reserve.map(|reserve| reserve.place),
    })
}

fn nic(
    attributes: Attributes,
    hold: Option<Hold>,
    mac: Option<MacChoice>,
    table: &Table<'_>,
) -> NicPolicy {
    let (min_tx, max_tx) = (
        attributes.min_tx.unwrap_or(Mbps(0)),
        attributes.max_tx.unwrap_or(Mbps(0)),
    );
    attributes.check_rates(min_tx, max_tx, table);
    NicPolicy {
        hold: hold.unwrap_or_default(),
        mac: mac.unwrap_or(MacChoice::Generated),
        vlan: attributes.vlan.unwrap_or(Vlan::NONE),
        spoofchk: attributes.spoofchk.unwrap_or(true),
        trust: attributes.trust.unwrap_or(false),
        state: attributes.state.unwrap_or(LinkPolicy::Auto),
        min_tx,
        max_tx,
        query_rss: attributes.query_rss.unwrap_or(false),
        places: attributes.places,
    }
}

fn nvme(
    attributes: Attributes,
    erase: Option<Placed<Eraser>>,
    warnings: &mut Vec<Report>,
) -> NvmePolicy {
    if let Some(erase) = erase.as_ref().filter(|erase| erase.value == Eraser::None) {
        let why = "a guest can read what the one before it has written";
        warnings.push(weak("erase = \"none\"", why, &erase.place));
    }
    NvmePolicy {
        queues: attributes.queues.unwrap_or(LEAST_QUEUES),
        vectors: attributes.vectors.unwrap_or(USUAL_VECTORS),
        erase: erase.map(|erase| erase.value).unwrap_or_default(),
        places: attributes.places,
    }
}

/// `mac = "generated"`, `"none"`, or a range.
fn mac_choice(table: &mut Table<'_>) -> Option<MacChoice> {
    if !table.has_string("mac") {
        return mac_bounds(table.table("mac")?).map(MacChoice::Range);
    }
    let text = table.string("mac")?;
    match text.value.as_str() {
        "generated" => return Some(MacChoice::Generated),
        "none" => return Some(MacChoice::None),
        _ => {}
    }
    let (why, fix) = match mac(&text.value) {
        Ok(_) => (
            "a pool has several VFs, and each needs an address of its own",
            "write it into a `[[pf.vf]]`, or write a range: { first = \"…\", last = \"…\" }",
        ),
        Err(_) => (
            "it may be \"generated\", \"none\", or a range: { first = \"…\", last = \"…\" }",
            "write one of those",
        ),
    };
    let what = format!(
        "{:?} is not where the addresses of a pool come from",
        text.value
    );
    table.problem(Report::new(ErrorId::BadMac, what, why, fix), text.place)
}

fn mac_bounds(mut table: Table<'_>) -> Option<MacRange> {
    let place = table.place()?.clone();
    let bound = |table: &mut Table<'_>, key, example| -> Option<Mac> {
        let text = table.required(key, example)?;
        mac(&text.value).map_or_else(|report| table.problem(report, text.place), Some)
    };
    let first = bound(&mut table, "first", "\"02:4e:57:00:00:00\"");
    let last = bound(&mut table, "last", "\"02:4e:57:00:00:ff\"");
    let range = first.zip(last).and_then(|(first, last)| {
        mac_range(first, last).map_or_else(|report| table.problem(report, place), Some)
    });
    table.finish(RANGE_KEYS);
    range
}

/// What a pool accepts.
fn accept(table: &mut Table<'_>, kind: Option<Kind>) -> BTreeSet<PoolOptOut> {
    const WORD: &str = "nvme-vf-manages";
    let mut accepted = BTreeSet::new();
    for word in table.strings("accept") {
        let what = format!("{:?} cannot be accepted", word.value);
        let (why, fix) = match (word.value.as_str(), kind) {
            (WORD, Some(Kind::Nvme) | None) => {
                accepted.insert(PoolOptOut::NvmeVfManages);
                continue;
            }
            (WORD, Some(Kind::Nic)) => (
                "the pool is of NICs, which have no namespaces".to_owned(),
                "remove it".to_owned(),
            ),
            ("group-shared", _) => (
                "nobody may accept it: a guest would reach what others have in its group"
                    .to_owned(),
                "see `narrows explain group-shared`".to_owned(),
            ),
            (other, _) => (
                "no finding about a pool has that name".to_owned(),
                match nearest(other, &[WORD]) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("known: {WORD}"),
                },
            ),
        };
        let report = Report::new(ErrorId::BadOptOut, what, why, fix);
        let _: Option<()> = table.problem(report, word.place);
    }
    accepted
}
