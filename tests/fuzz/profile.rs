//! Profiles, damaged: refused with the place, or taken without contradiction.

use std::path::Path;

use narrows::{
    error::{ErrorId, Id},
    spec::host::{Attribute, Kind, Origin, Profile, Profiles},
};

use crate::{
    host_file::{damage, placed},
    input::{Executions, Input, any_bytes},
};

const FILES: [&str; 3] = [
    include_str!("../../hw-configs/profiles/intel-ixgbe.toml"),
    include_str!("../../hw-configs/profiles/nvidia-mlx5.toml"),
    include_str!("../../hw-configs/profiles/qemu-nvme.toml"),
];

#[test]
fn a_damaged_profile_is_refused_or_contradicts_nothing() {
    let executions = Executions::of("profile");
    let built_in = Profiles::built_in();
    bolero::check!()
        .with_generator(any_bytes())
        .with_iterations(usize::MAX)
        .with_test_time(executions.time())
        .for_each(|bytes| {
            executions.one();
            one(&built_in, &mut Input::new(bytes));
        });
    executions.say();
}

fn one(built_in: &Profiles, input: &mut Input<'_>) {
    // A name of its own: those of the built-in ones are taken.
    let mut text = input.pick(&FILES).replacen("name = \"", "name = \"my-", 1);
    for _ in 0..input.below(4) {
        damage(input, &mut text, PIECES);
    }
    let mut all = built_in.clone();
    let before = all.all().count();
    match all.add(Path::new("p"), &text, None) {
        Ok(()) => {
            assert_eq!(all.all().count(), before + 1);
            as_it_stands(all.all().next().unwrap(), &text);
        }
        Err(problems) => {
            assert_eq!(all.all().count(), before);
            let malformed = Id::from(ErrorId::ProfileMalformed);
            assert!(problems.iter().all(|report| report.id == malformed));
            placed(&problems, &text);
        }
    }
}

fn as_it_stands(profile: &Profile, text: &str) {
    let document: toml::Table = text.parse().unwrap();
    assert_eq!(document["name"].as_str(), Some(profile.name.as_str()));
    assert_eq!(document["format"].as_integer(), Some(1));
    assert_eq!(document.contains_key("nvme"), profile.nvme.is_some());
    let was_run = profile.origin == Origin::RunInTheLab;
    assert!(
        profile.origin != Origin::Assumed && was_run != profile.tested.is_empty(),
        "{text}"
    );
    assert_eq!(
        profile.nvme.is_some(),
        profile.matches.kind == Kind::Nvme,
        "{text}"
    );
    assert!(!profile.sources.is_empty() && !profile.matches.driver.is_empty());
    let rules = &profile.attributes;
    assert!(rules.mac || !rules.clear_mac, "{text}");
    assert!(rules.live.is_disjoint(&rules.reset_by), "{text}");
    let listed = rules.live.union(&rules.reset_by);
    assert!(
        listed.into_iter().all(|attribute| rules.has(*attribute)),
        "{text}"
    );
    let rate = rules.max_tx_rate.map_or(1, |rate| rate.granularity.0);
    assert!(
        rate >= 1
            && rules.has(Attribute::Rate) == (rules.min_tx_rate || rules.max_tx_rate.is_some())
    );
    assert!(
        profile
            .count
            .max_vfs
            .is_none_or(|most| (1..=65535).contains(&most))
    );
}

const PIECES: &[&str] = &[
    "",
    "\"",
    "\n",
    "\r\n",
    "é",
    "=",
    "0",
    "1",
    "65536",
    "true",
    "false",
    "[]",
    "{}",
    "nic",
    "nvme",
    "802.1ad",
    "run-in-the-lab",
    "intel-igb",
    "\"8086:10c9\"",
    "\ntested = [\"x\"]\n",
    "\nlive = [\"mac\"]\n",
    "\nreset_by = [\"rate\"]\n",
    "\nmac = false\n",
    "\nmax_tx_rate = { granularity_mbps = 0, needs_link = true }\n",
    "\n[attributes]\n",
    "\n[nvme]\nsecondary_manages = \"refused\"\n",
    "\n[quirks]\nwords = [\"silent-until-up\"]\n",
    "enable",
    "rate",
];
