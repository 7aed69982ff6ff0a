//! The shipped units of systemd: well-formed, and as tight as docs/systemd.md says, by systemd's own measure.
//!
//! `systemd-analyze` is this machine's, or the one that `scripts/lab --fetch-systemd` fetches, or both. Without either the
//! tests say so and pass, unless `NARROWS_NEED_SYSTEMD=1`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it leaves out"
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A unit, and the most of ten points of exposure that it may have.
const EXPOSURES: [(&str, f64); 3] = [
    // Who looks at what hostile hands can write to has no right to anything.
    ("narrows@.service", 0.5),
    // Unfiltered, because the kernel lets only an unfiltered process read live filters: docs/systemd.md has the list.
    ("narrows-keeper@.service", 6.9),
    // Root with three capabilities, filtered; it ends before a guest begins.
    ("narrows-host.service", 2.5),
];

/// A `systemd-analyze`, and where its own units are.
struct Analyze {
    command: Vec<PathBuf>,
    units: PathBuf,
}

impl Analyze {
    fn run(&self, own: &Path, arguments: &[&str]) -> Output {
        let (program, first) = self.command.split_first().unwrap();
        Command::new(program)
            .args(first)
            .args(arguments)
            .env(
                "SYSTEMD_UNIT_PATH",
                format!("{}:{}", own.display(), self.units.display()),
            )
            .env("SYSTEMD_COLORS", "0")
            .env("SYSTEMD_PAGER", "cat")
            .output()
            .unwrap()
    }
}

/// Those that are at hand.
fn analyzers() -> Vec<Analyze> {
    let mut found = Vec::new();
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|folder| folder.join("systemd-analyze"));
    found.extend(
        in_path
            .filter(|program| program.is_file())
            .take(1)
            .map(|program| Analyze {
                command: vec![program],
                units: "/usr/lib/systemd/system".into(),
            }),
    );
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cache =
        env::var_os("NARROWS_CACHE").map_or_else(|| checkout.join(".cache/lab"), PathBuf::from);
    let tree = cache.join("systemd");
    let libraries = tree.join("usr/lib/x86_64-linux-gnu");
    let program = tree.join("usr/bin/systemd-analyze");
    if program.is_file() {
        let path = format!("{0}:{0}/systemd", libraries.display());
        found.push(Analyze {
            command: vec![
                tree.join("usr/lib64/ld-linux-x86-64.so.2"),
                "--library-path".into(),
                path.into(),
                program,
            ],
            units: tree.join("usr/lib/systemd/system"),
        });
    }
    if found.is_empty() {
        assert_ne!(
            env::var("NARROWS_NEED_SYSTEMD").as_deref(),
            Ok("1"),
            "no systemd-analyze"
        );
        eprintln!("skipped: no systemd-analyze; `scripts/lab --fetch-systemd` fetches one");
    }
    found
}

/// The shipped units in a folder of their own, with a program that every machine has.
fn units(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("units")
        .join(test);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/systemd");
    for entry in fs::read_dir(shipped).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("/usr/bin/narrows ", "/bin/true ");
        fs::write(folder.join(path.file_name().unwrap()), text).unwrap();
    }
    folder
}

#[test]
fn the_units_are_no_more_exposed_than_documented() {
    let units = units("exposed");
    let documented =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/systemd.md"))
            .unwrap()
            .replace("\\|", "|");
    for analyze in analyzers() {
        for (unit, most) in EXPOSURES {
            let file = units.join(unit);
            // The whole is told in text only, each part also as JSON.
            let output = analyze.run(
                &units,
                &[
                    "security",
                    "--offline=true",
                    "--no-pager",
                    file.to_str().unwrap(),
                ],
            );
            let text = String::from_utf8(output.stdout).unwrap();
            let level = text
                .lines()
                .find_map(|line| {
                    line.split_once("Overall exposure level for ")?
                        .1
                        .split_once(": ")
                })
                .and_then(|(_, level)| level.split(' ').next()?.parse::<f64>().ok());
            let level = level.unwrap_or_else(|| panic!("{text}"));
            assert!(level <= most, "{unit}: {level} is more than {most}\n{text}");
            // Whatever remains is in the documents, with a reason.
            for line in text.lines().filter(|line| line.starts_with('\u{2717}')) {
                let part = line.split_whitespace().nth(1).unwrap();
                // Capabilities one by one, of all else the key.
                let key = match part.split_once('=') {
                    Some((key, _)) if key != "CapabilityBoundingSet" => format!("{key}="),
                    _ => part.to_owned(),
                };
                assert!(
                    documented.contains(&key),
                    "{unit}: docs/systemd.md has nothing on {part}"
                );
            }
        }
    }
}

#[test]
fn the_units_are_well_formed() {
    let units = units("formed");
    let verified = [
        "narrows@guest.service",
        "narrows-keeper@guest.service",
        "narrows@guest.socket",
        "narrows.slice",
        "narrows-vfs.target",
        "narrows-host.service",
    ];
    for analyze in analyzers() {
        let output = analyze.run(&units, &[&["verify", "--man=no"], &verified[..]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let ours = units.to_str().unwrap();
        let wrong: Vec<&str> = said.lines().filter(|line| line.contains(ours)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

/// Directives that say what a unit is called and where more is written, and need no reason.
const PLAIN: [&str; 2] = ["Description", "Documentation"];
/// Fewer words are a title.
const LEAST_WORDS: usize = 4;

/// What is wrong with the reasons of a unit's directives. A reason is the comment directly above one directive: it is for
/// that one alone, and no other has the same words.
fn without_reason(unit: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut used: Vec<String> = Vec::new();
    let mut above: Vec<&str> = Vec::new();
    for (number, line) in (1..).zip(unit.lines()) {
        if let Some(comment) = line.strip_prefix(['#', ';']) {
            above.push(comment.trim());
            continue;
        }
        let reason = std::mem::take(&mut above).join(" ");
        let reason = reason.trim();
        let Some((key, _)) = line.split_once('=').filter(|_| !line.starts_with('[')) else {
            let is_structure = line.is_empty() || (line.starts_with('[') && line.ends_with(']'));
            if !is_structure {
                wrong.push(format!("{number}: neither section nor directive: {line}"));
            }
            continue;
        };
        if PLAIN.contains(&key) {
            continue;
        }
        let what = match reason.split_whitespace().count() {
            0 => "has no reason directly above it",
            1..LEAST_WORDS => "has a title above it, and no reason",
            _ if used.iter().any(|one| one == reason) => "has the reason of another one",
            _ => {
                used.push(reason.to_owned());
                continue;
            }
        };
        wrong.push(format!("{number}: {line} {what}"));
    }
    wrong
}

#[test]
fn every_directive_is_next_to_its_reason() {
    let units = units("reasons");
    let mut directives = 0;
    for entry in fs::read_dir(&units).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        directives += text
            .lines()
            .filter(|line| line.contains('=') && !line.starts_with('#'))
            .count();
        let wrong = without_reason(&text);
        assert!(
            wrong.is_empty(),
            "{}:\n{}",
            path.display(),
            wrong.join("\n")
        );
    }
    assert!(
        directives > 80,
        "{directives} directives: the units were not read"
    );
}

/// Control of the above.
#[test]
fn a_directive_without_a_reason_of_its_own_is_found() {
    let fine = "# What this unit is.\n[Unit]\nDescription=x\n\n[Service]\n# It starts at once, and tells.\nType=exec\n\n\
                # A stop is heard by\n# the main process only.\nKillMode=mixed\n";
    assert_eq!(without_reason(fine), Vec::<String>::new());
    for (unit, found) in [
        // The comment of a section, or of the file, is no reason of its first directive.
        (
            "# What this unit is.\n[Service]\nType=exec\n",
            "3: Type=exec has no reason",
        ),
        // One reason for a whole block.
        (
            "# All of this is what it sees.\nA=yes\nB=yes\n",
            "3: B=yes has no reason",
        ),
        (
            "# It is not directly above.\n\nA=yes\n",
            "3: A=yes has no reason",
        ),
        ("#\nA=yes\n", "2: A=yes has no reason"),
        ("#   \n;\nA=yes\n", "3: A=yes has no reason"),
        ("# Hardening.\nA=yes\n", "2: A=yes has a title"),
        (
            "# It does without this.\nA=yes\n# It does without this.\nB=yes\n",
            "4: B=yes has the reason of another",
        ),
        (
            "# A plain one takes its reason along.\nDescription=x\nA=yes\n",
            "3: A=yes has no reason",
        ),
        (
            "# This is not a directive at all.\nType exec\n",
            "2: neither",
        ),
    ] {
        let wrong = without_reason(unit);
        assert_eq!(wrong.len(), 1, "{unit}: {wrong:?}");
        assert!(wrong[0].starts_with(found), "{unit}: {wrong:?}");
    }
}
