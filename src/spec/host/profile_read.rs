//! The keys of a profile, and the reader of one.

use std::{collections::BTreeSet, path::Path};

use super::{
    profile::{
        AttributeRules, CountRules, NvmeRules, OrderRules, Origin, Profile, ProfileMatch, Quirk,
    },
    profile_attributes::attribute_rules,
    types::Kind,
    values::check_word,
};
use crate::{
    error::{ErrorId, Location, Report},
    spec::{
        near::nearest,
        parse::choice,
        reader::{FileKind, Placed, Reader, Table},
    },
};

const KEYS: &[&str] = &[
    "format",
    "name",
    "title",
    "origin",
    "tested",
    "sources",
    "match",
    "count",
    "order",
    "attributes",
    "quirks",
    "nvme",
];
const MATCH_KEYS: &[&str] = &["kind", "driver", "ids"];
const COUNT_KEYS: &[&str] = &[
    "max_vfs",
    "through_zero",
    "destroys_all",
    "interrupts_pf",
    "settle_ms",
];
const ORDER_KEYS: &[&str] = &[
    "pf_up_before_vfs",
    "autoprobe_off",
    "resources_before_online",
];
const QUIRK_KEYS: &[&str] = &["words"];
const NVME_KEYS: &[&str] = &["secondary_manages"];

/// The only form of profiles that there is.
const FORMAT: usize = 1;
/// More VFs than a PF can have (a 16-bit field of its SR-IOV capability).
const MAX_VFS: usize = 65_535;
/// The longest that a PF may be said to take; past it, nobody would wait.
const MAX_SETTLE_MS: usize = 60_000;

/// Reads and checks a profile.
///
/// # Errors
///
/// Every problem of the file, in its order: `profile-malformed`.
pub(super) fn read_profile(path: &Path, text: &str) -> Result<Profile, Vec<Report>> {
    let reader = Reader::new(FileKind::Profile, path, text);
    let profile = reader.document().and_then(profile);
    let problems = reader.into_problems();
    profile.filter(|_| problems.is_empty()).ok_or(problems)
}

fn profile(mut top: Table<'_>) -> Option<Profile> {
    top.requires("format", "format = 1");
    let format = top.number("format", FORMAT..=FORMAT);
    let name = top.required("name", "\"intel-igb\"").and_then(|name| {
        match check_word("a profile", &name.value) {
            Ok(()) => Some(name.value),
            Err(report) => top.problem(report, name.place),
        }
    });
    let title = top.required("title", "\"Intel 82576, driver igb\"");
    top.requires("origin", "origin = \"written-from-documents\"");
    let origin: Option<Placed<Origin>> = choice(
        &mut top,
        "origin",
        &["run-in-the-lab", "written-from-documents"],
    );
    let tested = texts(&mut top, "tested").unwrap_or_default();
    top.requires("sources", "sources = [\"what its facts were read from\"]");
    let sources = filled(&mut top, "sources");
    if let Some(origin) = &origin {
        check_origin(&top, origin, tested.is_empty());
    }
    top.requires("match", "[match]");
    let matches = top.table("match").and_then(matches);
    top.requires("count", "[count]");
    let count = top.table("count").and_then(count);
    top.requires("order", "[order]");
    let order = top.table("order").and_then(order);
    let kind = matches.as_ref().map(|matches| matches.kind);
    let (attributes_key, nvme_key) = match kind {
        Some(Kind::Nic) => (Some("attributes"), None),
        Some(Kind::Nvme) => (None, Some("nvme")),
        None => (None, None),
    };
    for key in attributes_key.into_iter().chain(nvme_key) {
        top.requires(key, &format!("[{key}]"));
    }
    let (attributes, nvme) = (top.table("attributes"), top.table("nvme"));
    for (table, wanted) in [(&attributes, Kind::Nic), (&nvme, Kind::Nvme)] {
        if let (Some(table), Some(kind)) = (table, kind)
            && kind != wanted
        {
            other_kind(table, kind);
        }
    }
    let attributes = match attributes {
        Some(table) => attribute_rules(table),
        None => Some(AttributeRules::default()),
    };
    let nvme = nvme.map(nvme_rules);
    let quirks = top.table("quirks").map(quirks).unwrap_or_default();
    top.finish(KEYS);
    format?;
    Some(Profile {
        name: name?,
        title: title?.value,
        origin: origin?.value,
        tested,
        sources: sources?,
        matches: matches?,
        count: count?,
        order: order?,
        attributes: attributes?,
        quirks,
        nvme: match nvme {
            Some(rules) => Some(rules?),
            None => None,
        },
    })
}

/// Notes that a table is one of the other kind of devices.
fn other_kind(table: &Table<'_>, kind: Kind) {
    let Some(place) = table.place().cloned() else {
        return;
    };
    let report = Report::new(
        ErrorId::ProfileMalformed,
        "the table says nothing of such devices",
        format!("the profile is for {}", kind.plural()),
        "remove it, or correct `kind`",
    );
    let _: Option<()> = table.problem(report, place);
}

/// Who says that a profile was run says on what.
fn check_origin(top: &Table<'_>, origin: &Placed<Origin>, is_untested: bool) {
    let (what, why, fix) = match (origin.value, is_untested) {
        (Origin::RunInTheLab, true) => (
            "the profile was run, on nothing",
            "`tested` names no device",
            "name devices and kernels in `tested`, or write `origin = \"written-from-documents\"`",
        ),
        (Origin::WrittenFromDocuments, false) => (
            "the profile was not run, and was tested",
            "`tested` names devices",
            "remove `tested`, or write `origin = \"run-in-the-lab\"`",
        ),
        (Origin::RunInTheLab | Origin::WrittenFromDocuments | Origin::Assumed, _) => return,
    };
    let report = Report::new(ErrorId::ProfileMalformed, what, why, fix);
    let _: Option<()> = top.problem(report, origin.place.clone());
}

fn matches(mut table: Table<'_>) -> Option<ProfileMatch> {
    table.requires("kind", "kind = \"nic\"");
    let kind = choice(&mut table, "kind", &["nic", "nvme"]);
    let driver = table.required("driver", "\"igb\"");
    let driver = driver.and_then(|driver| match driver.value.as_str() {
        "" => empty(&table, "match.driver", driver.place),
        _ => Some(driver.value),
    });
    let ids = words(&mut table, "ids", id, |text| {
        (
            format!("{text:?} is no id"),
            "an id has vendor and device, four hexadecimal digits each: \"8086:10c9\"".to_owned(),
            "write ids as `lspci -nn` prints them".to_owned(),
        )
    });
    table.finish(MATCH_KEYS);
    Some(ProfileMatch {
        kind: kind?.value,
        driver: driver?,
        ids,
    })
}

/// Vendor and device.
fn id(text: &str) -> Option<(u16, u16)> {
    let number = |digits: &str| {
        let is_id = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        is_id.then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let (vendor, device) = text.split_once(':')?;
    Some((number(vendor)?, number(device)?))
}

fn count(mut table: Table<'_>) -> Option<CountRules> {
    let max_vfs = table.number("max_vfs", 1..=MAX_VFS);
    let through_zero = must(&mut table, "through_zero");
    let destroys_all = must(&mut table, "destroys_all");
    let interrupts_pf = must(&mut table, "interrupts_pf");
    table.requires("settle_ms", "settle_ms = 0");
    let settle_ms = table.number("settle_ms", 0..=MAX_SETTLE_MS);
    table.finish(COUNT_KEYS);
    Some(CountRules {
        max_vfs: max_vfs.map(|number| number.value),
        through_zero: through_zero?,
        destroys_all: destroys_all?,
        interrupts_pf: interrupts_pf?,
        settle_ms: settle_ms?.value,
    })
}

fn order(mut table: Table<'_>) -> Option<OrderRules> {
    let pf_up_before_vfs = must(&mut table, "pf_up_before_vfs");
    let autoprobe_off = must(&mut table, "autoprobe_off");
    let resources_before_online = must(&mut table, "resources_before_online");
    table.finish(ORDER_KEYS);
    Some(OrderRules {
        pf_up_before_vfs: pf_up_before_vfs?,
        autoprobe_off: autoprobe_off?,
        resources_before_online: resources_before_online?,
    })
}

fn quirks(mut table: Table<'_>) -> BTreeSet<Quirk> {
    let meaning = |text: &str| {
        let row = Quirk::TABLE.iter().find(|(word, ..)| *word == text);
        row.map(|(_, quirk, _)| *quirk)
    };
    let quirks = words(&mut table, "words", meaning, |word| {
        unknown_word("a quirk", word, &Quirk::TABLE.map(|(word, ..)| word))
    });
    table.finish(QUIRK_KEYS);
    quirks
}

fn nvme_rules(mut table: Table<'_>) -> Option<NvmeRules> {
    table.requires("secondary_manages", "secondary_manages = \"unknown\"");
    let words = &["refused", "accepted", "unknown"];
    let secondary_manages = choice(&mut table, "secondary_manages", words);
    table.finish(NVME_KEYS);
    Some(NvmeRules {
        secondary_manages: secondary_manages?.value,
    })
}

/// What is right or wrong and has to be said.
pub(super) fn must(table: &mut Table<'_>, key: &str) -> Option<bool> {
    table.requires(key, &format!("{key} = true"));
    table.boolean(key).map(|found| found.value)
}

/// What is wrong unless the profile says that it is right.
pub(super) fn may(table: &mut Table<'_>, key: &str) -> bool {
    table.boolean(key).is_some_and(|found| found.value)
}

fn texts(table: &mut Table<'_>, key: &str) -> Option<Vec<String>> {
    table.has(key).then(|| {
        let found = table.strings(key).into_iter();
        found.map(|text| text.value).collect()
    })
}

/// A list that has to have something in it.
fn filled(table: &mut Table<'_>, key: &str) -> Option<Vec<String>> {
    let place = table.place_of(key);
    let found = texts(table, key)?;
    if found.is_empty() {
        return empty(table, key, place?);
    }
    Some(found)
}

/// Notes that nothing stands at `key`.
fn empty<T>(table: &Table<'_>, key: &str, place: Location) -> Option<T> {
    let report = Report::new(
        ErrorId::ProfileMalformed,
        format!("`{key}` is empty"),
        "a profile leaves nothing to be guessed",
        "write what it is",
    );
    table.problem(report, place)
}

/// What the strings of a list mean; `unknown` says what is wrong with one that means nothing: what, why, fix.
pub(super) fn words<T: Ord>(
    table: &mut Table<'_>,
    key: &str,
    meaning: impl Fn(&str) -> Option<T>,
    unknown: impl Fn(&str) -> (String, String, String),
) -> BTreeSet<T> {
    let mut known = BTreeSet::new();
    for word in table.strings(key) {
        match meaning(&word.value) {
            Some(meaning) => drop(known.insert(meaning)),
            None => {
                let (what, why, fix) = unknown(&word.value);
                let report = Report::new(ErrorId::ProfileMalformed, what, why, fix);
                let _: Option<()> = table.problem(report, word.place);
            }
        }
    }
    known
}

pub(super) fn unknown_word(noun: &str, word: &str, known: &[&str]) -> (String, String, String) {
    (
        format!("{word:?} is not {noun}"),
        format!("known: {}", known.join(", ")),
        match nearest(word, known) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "write one of those".to_owned(),
        },
    )
}
