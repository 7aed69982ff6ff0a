use std::{fmt::Write as _, path::Path};

use super::{
    profile::{Manages, Origin, Profile, Quirk},
    profiles::Profiles,
    types::{Kind, Mbps},
};
use crate::error::{ErrorId, Id, Report};

/// A profile that says as little as it may.
const MINIMAL: &str = "format = 1
name = \"some-nic\"
title = \"Some NIC\"
origin = \"written-from-documents\"
sources = [\"its manual\"]
[match]
kind = \"nic\"
driver = \"some\"
[count]
through_zero = true
destroys_all = true
interrupts_pf = true
settle_ms = 0
[order]
pf_up_before_vfs = false
autoprobe_off = true
resources_before_online = false
[attributes]
";

fn add(text: &str) -> Result<Profiles, Vec<Report>> {
    let mut all = Profiles::built_in();
    all.add(Path::new("some.toml"), text, None)?;
    Ok(all)
}

/// Line and text of each problem; all of them are `profile-malformed`.
fn problems(text: &str) -> Vec<(usize, String)> {
    let problems = add(text).unwrap_err();
    problems
        .into_iter()
        .map(|report| {
            assert_eq!(report.id, Id::from(ErrorId::ProfileMalformed), "{report}");
            (report.location.map_or(0, |l| l.line), report.what)
        })
        .collect()
}

#[test]
fn every_built_in_profile_is_well_formed() {
    let mut names = Vec::new();
    for file in std::fs::read_dir(folder()).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let profile = super::profile_read::read_profile(&path, &text);
        let profile = profile.unwrap_or_else(|problems| panic!("{}", problems[0]));
        assert_eq!(
            path.file_stem().unwrap(),
            profile.name.as_str(),
            "the file has the profile's name"
        );
        names.push(profile.name);
    }
    names.sort();
    let all = Profiles::built_in();
    let mut built_in: Vec<&str> = all.all().map(|profile| profile.name.as_str()).collect();
    assert_eq!(
        built_in.split_off(names.len()),
        ["generic-nic", "generic-nvme"]
    );
    built_in.sort_unstable();
    assert_eq!(built_in, names, "each file is built in, once");
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/hw-configs/profiles"))
}

#[test]
fn what_is_assumed_of_each_family_is_the_golden_one() {
    let mut text = String::new();
    for profile in Profiles::built_in().all() {
        print(profile, &mut text);
    }
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/spec/host/profiles.golden");
    if std::env::var_os("NARROWS_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(golden, &text).unwrap();
    }
    let expected = std::fs::read_to_string(golden).unwrap();
    assert_eq!(text, expected, "NARROWS_BLESS=1 takes it as it is");
}

/// What a decision depends on, a line each.
fn print(profile: &Profile, text: &mut String) {
    let Profile {
        name,
        title,
        origin,
        tested,
        sources: _,
        matches,
        count,
        order,
        attributes,
        quirks,
        nvme,
    } = profile;
    let ids: Vec<String> = matches
        .ids
        .iter()
        .map(|(v, d)| format!("{v:04x}:{d:04x}"))
        .collect();
    writeln!(text, "{name}: {title}; {origin}").unwrap();
    writeln!(text, "  tested {tested:?}").unwrap();
    writeln!(
        text,
        "  {:?} driver {:?} ids {ids:?}",
        matches.kind, matches.driver
    )
    .unwrap();
    writeln!(text, "  {count:?}").unwrap();
    writeln!(text, "  {order:?}").unwrap();
    if matches.kind == Kind::Nic {
        writeln!(text, "  {attributes:?}").unwrap();
    }
    let words: Vec<&str> = quirks.iter().map(|quirk| quirk.word()).collect();
    writeln!(text, "  quirks {words:?}").unwrap();
    if let Some(nvme) = nvme {
        writeln!(text, "  {nvme:?}").unwrap();
    }
}

#[test]
fn what_was_run_in_the_lab_says_on_what_and_the_rest_does_not_claim_it() {
    for profile in Profiles::built_in().all() {
        let was_run = profile.origin == Origin::RunInTheLab;
        assert_eq!(was_run, !profile.tested.is_empty(), "{}", profile.name);
        let is_assumed = profile.origin == Origin::Assumed;
        assert_eq!(is_assumed, profile.sources.is_empty(), "{}", profile.name);
    }
}

#[test]
fn a_pf_gets_the_profile_of_its_ids_then_of_its_driver_then_the_generic_one() {
    let all = Profiles::built_in();
    let of = |driver, ids, kind| all.of(None, driver, ids, kind).name.as_str();
    let rows = [
        (Some("igb"), (0x8086, 0x10c9), Kind::Nic, "intel-igb"),
        (Some("igb"), (0x8086, 0x1521), Kind::Nic, "intel-igb-i350"),
        (Some("ixgbe"), (0x8086, 0x10fb), Kind::Nic, "intel-ixgbe"),
        (Some("i40e"), (0x8086, 0x1572), Kind::Nic, "intel-i40e"),
        (Some("ice"), (0x8086, 0x1592), Kind::Nic, "intel-ice"),
        (
            Some("mlx5_core"),
            (0x15b3, 0x101d),
            Kind::Nic,
            "nvidia-mlx5",
        ),
        (Some("bnxt_en"), (0x14e4, 0x1750), Kind::Nic, "generic-nic"),
        // Another driver of the same device is not the one that the profile knows.
        (Some("other"), (0x8086, 0x10c9), Kind::Nic, "generic-nic"),
        (None, (0x8086, 0x10c9), Kind::Nic, "intel-igb"),
        (None, (0x8086, 0x1521), Kind::Nic, "generic-nic"),
        (Some("nvme"), (0x1b36, 0x0010), Kind::Nvme, "qemu-nvme"),
        (Some("nvme"), (0x144d, 0xa824), Kind::Nvme, "nvme-sriov"),
        (None, (0x144d, 0xa824), Kind::Nvme, "generic-nvme"),
        (Some("igb"), (0x8086, 0x10c9), Kind::Nvme, "generic-nvme"),
    ];
    for (driver, ids, kind, expected) in rows {
        assert_eq!(of(driver, ids, kind), expected, "{driver:?} {ids:04x?}");
    }
    let named = all.of(Some("intel-ice"), Some("igb"), (0x8086, 0x10c9), Kind::Nic);
    assert_eq!(named.name, "intel-ice");
}

#[test]
fn a_profile_of_a_file_counts_before_a_built_in_one() {
    let text = MINIMAL.replace("\"some\"", "\"ixgbe\"");
    let all = add(&text).unwrap();
    let of = all.of(None, Some("ixgbe"), (0x8086, 0x10fb), Kind::Nic);
    assert_eq!(of.name, "some-nic");
    assert_eq!(all.named("intel-ixgbe").unwrap().name, "intel-ixgbe");
}

#[test]
fn what_a_profile_does_not_list_cannot_be_set() {
    let all = add(MINIMAL).unwrap();
    let rules = &all.named("some-nic").unwrap().attributes;
    for (word, attribute) in super::Attribute::WORDS {
        assert!(!rules.has(attribute), "{word}");
        assert_eq!(attribute.word(), word);
    }
}

#[test]
fn every_key_of_a_profile_is_understood() {
    let text = format!(
        "{MINIMAL}mac = true\nclear_mac = true\nvlan = [\"802.1ad\", \"802.1Q\"]\nspoofchk = true\ntrust = true
query_rss = true\nstate = [\"enable\"]\nmin_tx_rate = true
max_tx_rate = {{ granularity_mbps = 50, needs_link = false }}\nlive = [\"rate\"]\nreset_by = [\"mac\", \"vlan\"]
[quirks]\nwords = [\"silent-until-up\"]\n"
    );
    let all = add(&text).unwrap();
    let profile = all.named("some-nic").unwrap();
    let rate = profile.attributes.max_tx_rate.unwrap();
    assert_eq!((rate.granularity, rate.at_most_link), (Mbps(50), false));
    assert_eq!(profile.attributes.reset_by.len(), 2);
    assert!(profile.quirks.contains(&Quirk::SilentUntilUp));
    for (word, attribute) in super::Attribute::WORDS {
        assert!(profile.attributes.has(attribute), "{word}");
    }
    let nvme = MINIMAL
        .replace("\"nic\"", "\"nvme\"")
        .replace("[attributes]", "[nvme]\nsecondary_manages = \"refused\"");
    let all = add(&nvme).unwrap();
    let rules = all.named("some-nic").unwrap().nvme.unwrap();
    assert_eq!(rules.secondary_manages, Manages::Refused);
}

#[test]
fn a_malformed_profile_is_refused_with_its_line() {
    let more = |more: &str| format!("{MINIMAL}{more}");
    let other = |from: &str, to: &str| MINIMAL.replace(from, to);
    #[rustfmt::skip]
    let rows = [
        (MINIMAL.replacen("[attributes]", "", 1), 0, "key `attributes` is missing"),
        (other("format = 1", "format = 2"), 1, "2 is out of range for `format`"),
        (other("some-nic", "Some NIC"), 2, "\"Some NIC\" cannot name a profile"),
        (other("some-nic", "intel-igb"), 0, "profile some.toml is there twice"),
        (other("some-nic", "generic-nic"), 0, "profile some.toml is there twice"),
        (other("written-from-documents", "guessed"), 4, "\"guessed\" is not a value of `origin`"),
        (other("written-from-documents", "run-in-the-lab"), 4, "the profile was run, on nothing"),
        (other("[match]", "tested = [\"x\"]\n[match]"), 4, "the profile was not run, and was tested"),
        (other("sources = [\"its manual\"]\n", ""), 0, "key `sources` is missing"),
        (other("sources = [\"its manual\"]\n", "sources = []\n"), 5, "`sources` is empty"),
        (other("driver = \"some\"", "driver = \"\""), 8, "`match.driver` is empty"),
        (other("driver = \"some\"", "driver = \"some\"\nids = [\"8086:1\"]"), 9, "\"8086:1\" is no id"),
        (other("settle_ms = 0", "settle_ms = 60001"), 13, "60001 is out of range for `count.settle_ms`"),
        (other("settle_ms = 0\n", ""), 9, "key `count.settle_ms` is missing"),
        (other("through_zero = true", "through_zero = 1"), 10, "`count.through_zero` has the wrong type"),
        (other("pf_up_before_vfs", "pf_up_before_vf"), 14, "key `order.pf_up_before_vfs` is missing"),
        (more("mack = true\n"), 19, "key `attributes.mack` is not known"),
        (more("vlan = [\"802.1q\"]\n"), 19, "\"802.1q\" is not a protocol of tags"),
        (more("state = [\"up\"]\n"), 19, "\"up\" is not a link state"),
        (more("live = [\"max_tx_rate\"]\n"), 19, "\"max_tx_rate\" is not an attribute"),
        (more("live = [\"mac\"]\n"), 19, "`mac` is in `live`, and cannot be set at all"),
        (more("mac = true\nlive = [\"mac\"]\nreset_by = [\"mac\"]\n"), 20, "`mac` cannot be set while a guest has the VF"),
        (more("clear_mac = true\n"), 19, "an address can be taken away and not given"),
        (more("max_tx_rate = { needs_link = true }\n"), 19, "key `attributes.max_tx_rate.granularity_mbps` is missing"),
        (more("[quirks]\nwords = [\"silent\"]\n"), 20, "\"silent\" is not a quirk"),
        (more("[nvme]\nsecondary_manages = \"unknown\"\n"), 19, "the table says nothing of such devices"),
        (other("\"nic\"", "\"nvme\""), 0, "key `nvme` is missing"),
        (more("= "), 19, "profile some.toml is not TOML"),
    ];
    for (text, line, what) in rows {
        let found = problems(&text);
        let expected = (line, what.to_owned());
        assert!(found.contains(&expected), "{found:?}\nlacks {expected:?}");
    }
}
