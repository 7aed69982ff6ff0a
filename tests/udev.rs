//! The shipped rules of udev: well-formed, and what they make of a tenant's namespace and of the host's own.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it leaves out"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

const RULES: &str = include_str!("../scripts/udev/59-narrows.rules");
const SETUP: &str = include_str!("../docs/host-setup.md");
/// The line that an operator writes, as the rules show it.
const SHOWN: &str = "#ENV{DEVTYPE}==";

/// A key with what is in its braces, an operator, a value.
#[derive(Debug)]
struct Token<'a> {
    key: &'a str,
    operator: &'a str,
    value: &'a str,
}

/// The tokens of the rules' lines, comments left out.
fn parse(text: &str) -> Vec<Vec<Token<'_>>> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(", ").map(|part| token(line, part)).collect())
        .collect()
}

fn token<'a>(line: &str, part: &'a str) -> Token<'a> {
    let (head, value) = part
        .strip_suffix('"')
        .and_then(|part| part.split_once('"'))
        .unwrap_or_else(|| panic!("{part:?} in: {line}"));
    let operator = ["==", "!=", ":=", "+=", "="]
        .into_iter()
        .find(|operator| head.ends_with(operator))
        .unwrap_or_else(|| panic!("no operator in {part:?}: {line}"));
    let key = head.strip_suffix(operator).unwrap();
    assert!(
        key.starts_with(|c: char| c.is_ascii_uppercase()) && !key.contains([' ', '=', '!', ':']),
        "{key:?} in: {line}"
    );
    assert!(!value.contains('"'), "{line}");
    Token {
        key,
        operator,
        value,
    }
}

/// A device as the rules see it: properties, its own attributes, those of its parents, and its parent's properties.
#[derive(Clone, Debug, Default)]
struct Device {
    kernel: &'static str,
    subsystem: &'static str,
    env: BTreeMap<String, String>,
    own: BTreeMap<&'static str, &'static str>,
    parents: BTreeMap<&'static str, &'static str>,
    parent_env: BTreeMap<String, String>,
    options: BTreeSet<String>,
}

/// As `fnmatch` does, with `*`, `?` and the alternatives of udev.
fn is_match(pattern: &str, value: &str) -> bool {
    fn one(pattern: &[u8], value: &[u8]) -> bool {
        match (pattern.split_first(), value.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=value.len()).any(|at| one(rest, &value[at..])),
            (Some((b'?', rest)), Some((_, value))) => one(rest, value),
            (Some((p, rest)), Some((v, value))) => p == v && one(rest, value),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
    let mut ways = pattern.split('|');
    ways.any(|way| one(way.as_bytes(), value.as_bytes()))
}

impl Device {
    fn get(&self, key: &str) -> Option<String> {
        let (name, of) = match key.split_once('{') {
            Some((name, of)) => (name, of.strip_suffix('}').unwrap()),
            None => (key, ""),
        };
        match name {
            "ACTION" => Some("add".to_owned()),
            "KERNEL" => Some(self.kernel.to_owned()),
            "SUBSYSTEM" => Some(self.subsystem.to_owned()),
            "ENV" => Some(self.env.get(of).cloned().unwrap_or_default()),
            "ATTR" => self.own.get(of).map(|value| (*value).to_owned()),
            "ATTRS" => {
                let found = self.own.get(of).or_else(|| self.parents.get(of));
                found.map(|value| (*value).to_owned())
            }
            _ => panic!("the test does not know {key}"),
        }
    }

    /// Goes through the rules, as udevd would.
    fn process(mut self, rules: &str) -> Self {
        let mut skipping: Option<&str> = None;
        for line in parse(rules) {
            if let Some(label) = skipping {
                let is_there = |token: &Token<'_>| token.key == "LABEL" && token.value == label;
                if line.iter().any(is_there) {
                    skipping = None;
                }
                continue;
            }
            let matches = line.iter().all(|token| match token.operator {
                "==" => self
                    .get(token.key)
                    .is_some_and(|is| is_match(token.value, &is)),
                "!=" => !self
                    .get(token.key)
                    .is_some_and(|is| is_match(token.value, &is)),
                _ => true,
            });
            if !matches {
                continue;
            }
            for token in line.iter().filter(|token| !token.operator.ends_with("==")) {
                match (token.key, token.operator) {
                    (_, "!=") => {}
                    ("GOTO", _) => skipping = Some(token.value),
                    ("LABEL", _) => {}
                    ("OPTIONS", operator) => {
                        self.options.insert(format!("{operator}{}", token.value));
                    }
                    ("IMPORT{parent}", _) => {
                        let found = self.parent_env.get(token.value).cloned();
                        if let Some(found) = found {
                            self.env.insert(token.value.to_owned(), found);
                        }
                    }
                    (key, _) => {
                        let name = key.strip_prefix("ENV{").and_then(|k| k.strip_suffix('}'));
                        let name = name.unwrap_or_else(|| panic!("the test does not know {key}"));
                        self.env.insert(name.to_owned(), token.value.to_owned());
                    }
                }
            }
        }
        assert_eq!(skipping, None, "a label is missing");
        self
    }
}

/// The rules as an operator has them: with the line that they show.
fn filled_in() -> String {
    assert_eq!(RULES.matches(SHOWN).count(), 1);
    RULES.replace(SHOWN, SHOWN.trim_start_matches('#'))
}

fn namespace(nsid: &'static str, serial: &'static str) -> Device {
    Device {
        kernel: "nvme0n1",
        subsystem: "block",
        env: [("DEVTYPE".to_owned(), "disk".to_owned())].into(),
        own: [("nsid", nsid)].into(),
        parents: [("serial", serial)].into(),
        ..Device::default()
    }
}

/// What has no one look into it: each property with who heeds it is a line of the rules.
const KEPT_OUT: [(&str, &str); 5] = [
    ("UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG", "1"),
    ("DM_UDEV_DISABLE_OTHER_RULES_FLAG", "1"),
    ("nompath", "1"),
    ("SYSTEMD_READY", "0"),
    ("UDISKS_IGNORE", "1"),
];

fn is_left_alone(device: &Device) -> bool {
    KEPT_OUT
        .iter()
        .all(|(key, value)| device.env.get(*key).is_some_and(|is| is == value))
        && device.options.contains(":=nowatch")
}

#[test]
fn a_tenants_namespace_and_its_partitions_are_looked_into_by_nobody() {
    let rules = filled_in();
    for nsid in ["2", "3"] {
        let disk = namespace(nsid, "lab-sriov").process(&rules);
        assert!(is_left_alone(&disk), "{disk:?}");
        let part = Device {
            kernel: "nvme0n1p1",
            env: [("DEVTYPE".to_owned(), "partition".to_owned())].into(),
            own: BTreeMap::new(),
            parent_env: disk.env.clone(),
            ..namespace(nsid, "lab-sriov")
        };
        let part = part.process(&rules);
        assert!(is_left_alone(&part), "{part:?}");
    }
}

#[test]
fn what_is_the_hosts_own_is_found_as_ever() {
    let rules = filled_in();
    let other = |change: fn(&mut Device)| {
        let mut device = namespace("2", "lab-sriov");
        change(&mut device);
        device
    };
    for device in [
        namespace("1", "lab-sriov"),
        namespace("22", "lab-sriov"),
        namespace("2", "another"),
        other(|device| device.subsystem = "nvme"),
        other(|device| device.kernel = "sda"),
    ] {
        let (before, device) = (device.env.clone(), device.process(&rules));
        assert_eq!(device.env, before);
        assert!(device.options.is_empty(), "{device:?}");
    }
    // As shipped they say nothing of any device.
    let device = namespace("2", "lab-sriov").process(RULES);
    assert!(!is_left_alone(&device) && device.options.is_empty());
}

#[test]
fn the_setup_page_shows_the_line_that_the_rules_want() {
    let line = RULES.lines().find(|line| line.starts_with(SHOWN)).unwrap();
    assert!(SETUP.contains(line.trim_start_matches('#')), "{line}");
}

#[test]
fn udevs_own_tool_finds_nothing_wrong() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join("59-narrows.rules");
    fs::write(&file, filled_in()).unwrap();
    let asked = Command::new("udevadm").args(["verify", "--help"]).output();
    if !asked.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no udevadm of systemd 254 or newer");
        return;
    }
    let output = Command::new("udevadm")
        .arg("verify")
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
