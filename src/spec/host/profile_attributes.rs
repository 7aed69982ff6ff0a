//! `[attributes]` of a profile: what can be set on a VF.

use super::{
    profile::{Attribute, AttributeRules, RateRules},
    profile_read::{may, must, unknown_word, words},
    types::Mbps,
    values::{LINK_POLICIES, VLAN_PROTOS, link_policy, vlan_proto},
};
use crate::{
    error::{ErrorId, Location, Report},
    spec::{
        parse::choice,
        reader::{Placed, Table},
    },
};

const ATTRIBUTE_KEYS: &[&str] = &[
    "mac",
    "clear_mac",
    "vlan",
    "spoofchk",
    "trust",
    "query_rss",
    "state",
    "min_tx_rate",
    "max_tx_rate",
    "live",
    "reset_by",
];
const RATE_KEYS: &[&str] = &["granularity_mbps", "needs_link", "at_most"];

/// The coarsest step of a rate: the link of the fastest NIC.
const MAX_GRANULARITY: usize = 1_000_000;

/// Reads `[attributes]` of a profile.
pub(super) fn attribute_rules(mut table: Table<'_>) -> Option<AttributeRules> {
    let mac = may(&mut table, "mac");
    let place = table.place_of("clear_mac");
    let clear_mac = may(&mut table, "clear_mac");
    if let (true, false, Some(place)) = (clear_mac, mac, place) {
        let report = Report::new(
            ErrorId::ProfileMalformed,
            "an address can be taken away and not given",
            "`clear_mac` is true, `mac` is not",
            "write `mac = true`, or remove `clear_mac`",
        );
        let _: Option<()> = table.problem(report, place);
    }
    let vlan = words(&mut table, "vlan", vlan_proto, |word| {
        unknown_word("a protocol of tags", word, VLAN_PROTOS)
    });
    let spoofchk = may(&mut table, "spoofchk");
    let trust = may(&mut table, "trust");
    let query_rss = may(&mut table, "query_rss");
    let state = words(&mut table, "state", link_policy, |word| {
        unknown_word("a link state", word, LINK_POLICIES)
    });
    let min_tx_rate = may(&mut table, "min_tx_rate");
    let has_rate = table.has("max_tx_rate");
    let max_tx_rate = table.table("max_tx_rate").and_then(rate_rules);
    let mut rules = AttributeRules {
        mac,
        clear_mac,
        vlan: vlan.into_iter().collect(),
        spoofchk,
        trust,
        query_rss,
        state: state.into_iter().collect(),
        min_tx_rate,
        max_tx_rate,
        ..AttributeRules::default()
    };
    let live = attributes(&mut table, "live");
    let reset_by = attributes(&mut table, "reset_by");
    for (key, listed) in [("live", &live), ("reset_by", &reset_by)] {
        for (attribute, place) in listed {
            // Of a rate that was not understood, no more is said.
            let is_unread = *attribute == Attribute::Rate && has_rate;
            if !rules.has(*attribute) && !is_unread {
                unlisted(&table, key, *attribute, place);
            }
        }
    }
    rules.live = live.iter().map(|(attribute, _)| *attribute).collect();
    rules.reset_by = reset_by.iter().map(|(attribute, _)| *attribute).collect();
    for (attribute, place) in &live {
        if rules.reset_by.contains(attribute) {
            let report = Report::new(
                ErrorId::ProfileMalformed,
                format!("`{attribute}` cannot be set while a guest has the VF"),
                "it is in `reset_by` too: to set it resets the VF",
                "take it out of `live`",
            );
            let _: Option<()> = table.problem(report, place.clone());
        }
    }
    table.finish(ATTRIBUTE_KEYS);
    (rules.max_tx_rate.is_some() == has_rate).then_some(rules)
}

fn unlisted(table: &Table<'_>, key: &str, attribute: Attribute, place: &Location) {
    let report = Report::new(
        ErrorId::ProfileMalformed,
        format!("`{attribute}` is in `{key}`, and cannot be set at all"),
        "`[attributes]` does not list it",
        format!("list it there, or take it out of `{key}`"),
    );
    let _: Option<()> = table.problem(report, place.clone());
}

fn rate_rules(mut table: Table<'_>) -> Option<RateRules> {
    table.requires("granularity_mbps", "granularity_mbps = 1");
    let granularity = table.number("granularity_mbps", 1..=MAX_GRANULARITY);
    let needs_link = must(&mut table, "needs_link");
    let at_most: Option<Placed<String>> = choice(&mut table, "at_most", &["link"]);
    table.finish(RATE_KEYS);
    Some(RateRules {
        granularity: Mbps(granularity?.value),
        needs_link: needs_link?,
        at_most_link: at_most.is_some(),
    })
}

fn attributes(table: &mut Table<'_>, key: &str) -> Vec<(Attribute, Location)> {
    let mut listed = Vec::new();
    for word in table.strings(key) {
        let known = Attribute::WORDS;
        match known.iter().find(|(known, _)| *known == word.value) {
            Some((_, attribute)) => listed.push((*attribute, word.place)),
            None => {
                let (what, why, fix) =
                    unknown_word("an attribute", &word.value, &known.map(|(word, _)| word));
                let report = Report::new(ErrorId::ProfileMalformed, what, why, fix);
                let _: Option<()> = table.problem(report, word.place);
            }
        }
    }
    listed
}
