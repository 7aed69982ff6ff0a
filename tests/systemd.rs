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
const EXPOSURES: [(&str, f64); 2] = [
    // Who looks at what hostile hands can write to has no right to anything.
    ("narrows@.service", 0.5),
    // Unfiltered, because the kernel lets only an unfiltered process read live filters: docs/systemd.md has the list.
    ("narrows-keeper@.service", 6.8),
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
        let text = text.replace("=/usr/bin/narrows ", "=/bin/true ");
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

#[test]
fn every_directive_is_next_to_its_reason() {
    let units = units("reasons");
    for entry in fs::read_dir(&units).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let mut has_reason = false;
        for line in text.lines() {
            match line.chars().next() {
                Some('#') => has_reason = true,
                None => has_reason = false,
                Some('[') => {}
                Some(_) => {
                    let is_plain = ["Description=", "Documentation=", "WantedBy="]
                        .iter()
                        .any(|key| line.starts_with(key));
                    assert!(has_reason || is_plain, "{}: {line}", path.display());
                }
            }
        }
    }
}
