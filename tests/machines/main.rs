//! Every machine file of `hw-configs`: it is read, its devices are shown and judged, and a guest is planned on it, as an
//! operator sees it, compared with `tests/golden/machines`. `NARROWS_BLESS=1` writes what is compared with.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test whose scene cannot be set up has failed"
)]

mod config;
mod host;
mod made;
mod parts;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, id},
    sync::Mutex,
};

use narrows::host::machine::{Machine, Origin};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of all machines.
fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(workspace().join("hw-configs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn file(name: &str) -> PathBuf {
    workspace().join(format!("hw-configs/{name}.toml"))
}

/// Compares with the file, or writes it; tells what differs.
fn compare(place: &Path, text: &str) -> Option<String> {
    if env::var_os("NARROWS_BLESS").is_some_and(|value| value == "1") {
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, text).unwrap();
        return None;
    }
    let wanted = fs::read_to_string(place).unwrap_or_default();
    if wanted == text {
        return None;
    }
    let at = wanted
        .lines()
        .zip(text.lines())
        .take_while(|(a, b)| a == b)
        .count();
    Some(format!(
        "{}:{}: wanted {:?}, got {:?}",
        place.display(),
        at + 1,
        wanted.lines().nth(at).unwrap_or("the end"),
        text.lines().nth(at).unwrap_or("the end"),
    ))
}

/// What an operator sees: status, standard output and standard error, with paths as seen from the checkout.
fn narrows(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_narrows"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("NO_COLOR")
        .output()
        .unwrap();
    let mut text = format!("exit status {}\n", output.status.code().unwrap());
    for bytes in [output.stdout, output.stderr] {
        text.push_str(&String::from_utf8(bytes).unwrap());
    }
    let text = text.replace(&format!("{}/", workspace().display()), "");
    text.replace(&format!("{}/", folder.display()), "")
}

/// How the machines that are written by hand differ from what the builder makes.
fn written_by_hand() -> Vec<String> {
    // Several tests ask; only one may write.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let machines = made::all();
    let differs = |machine: &Machine| compare(&file(&machine.head.name), &machine.to_text());
    machines.iter().filter_map(differs).collect()
}

/// A folder with a guest file and its kernel, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("narrows-machines-{name}-{}", id()));
        fs::create_dir_all(&folder).unwrap();
        let mut kernel = vec![0; 0x1000];
        kernel[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x206..0x208].copy_from_slice(&[0x0F, 2]);
        kernel[0x236] = 1;
        fs::write(folder.join("vmlinuz"), kernel).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn every_machine_shows_judges_and_plans_as_before() {
    let golden = workspace().join("tests/golden/machines");
    // What is blessed is what the builder makes now, not what it made last time.
    let mut differences = written_by_hand();
    for name in names() {
        let folder = Folder::new(&name);
        let guest = golden.join(format!("{name}.guest.toml"));
        fs::copy(&guest, folder.0.join("guest.toml")).unwrap();
        let machine = file(&name);
        let root = machine.to_str().unwrap();
        for (what, arguments) in [
            ("inventory", ["--root", root, "inventory"].as_slice()),
            ("doctor", &["--root", root, "doctor"]),
            ("plan", &["--root", root, "plan", "guest.toml"]),
        ] {
            let text = narrows(&folder.0, arguments);
            let place = golden.join(format!("{name}.{what}.txt"));
            differences.extend(compare(&place, &text));
        }
    }
    assert!(
        differences.is_empty(),
        "NARROWS_BLESS=1 takes it as it is:\n{}",
        differences.join("\n")
    );
}

#[test]
fn every_machine_says_where_it_is_from() {
    let names = names();
    assert!(names.len() >= 10, "{names:?}");
    let documented = fs::read_to_string(workspace().join("hw-configs/README.md")).unwrap();
    for name in names {
        let machine = Machine::read(&file(&name)).unwrap();
        assert_eq!(machine.head.name, name);
        assert!(
            documented.contains(&format!("[{name}]({name}.toml)")),
            "README.md lacks {name}"
        );
        let made = machine.head.provenance;
        match machine.head.origin {
            Origin::Captured => {
                assert!(made.by.starts_with("narrows capture"), "{name}");
                assert!(!made.scrubbed.is_empty() && !made.date.is_empty(), "{name}");
                assert!(!made.kernel.is_empty(), "{name}");
            }
            Origin::WrittenByHand => {
                assert!(
                    made.notes[0].starts_with("Written by hand: no such hardware"),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn a_machine_file_is_written_as_it_was_read() {
    for name in names() {
        let text = fs::read_to_string(file(&name)).unwrap();
        let machine = Machine::read(&file(&name)).unwrap();
        assert!(
            machine.to_text() == text,
            "{name}: not as narrows writes it"
        );
    }
}

#[test]
fn machines_written_by_hand_are_what_the_builder_makes() {
    let differences = written_by_hand();
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

#[test]
fn nothing_runs_on_a_machine_file() {
    let folder = Folder::new("run");
    fs::copy(
        workspace().join("tests/golden/machines/sriov-nvme.guest.toml"),
        folder.0.join("guest.toml"),
    )
    .unwrap();
    let machine = file("sriov-nvme");
    let root = machine.to_str().unwrap();
    for arguments in [
        ["--root", root, "run", "guest.toml"].as_slice(),
        &["--root", root, "capture"],
    ] {
        let text = narrows(&folder.0, arguments);
        assert!(
            text.starts_with("exit status 1\nerror[machine-read-only]: hw-configs/sriov-nvme.toml is a machine file"),
            "{text}"
        );
    }
}

#[test]
fn a_capture_is_written_whole_and_never_over_another_file() {
    let folder = Folder::new("capture");
    let root = iommu::fake::FakeHost::new(folder.0.join("root"))
        .file(
            "proc/cpuinfo",
            "address sizes : 39 bits physical, 48 bits virtual\n",
        )
        .file("proc/meminfo", "MemAvailable: 8388608 kB\n")
        .file("sys/devices/system/cpu/online", "0-3\n")
        .file("sys/class/dmi/id/sys_vendor", "Maker\n")
        .file("sys/class/dmi/id/product_serial", "SECRET\n")
        .pf("0000:01:00.0", 12)
        .vf("0000:01:10.0", "0000:01:00.0", 13)
        .write()
        .unwrap();
    let place = root.as_path().to_str().unwrap();
    let capture = [
        "--root", place, "capture", "--name", "one", "--note", "made up", "-o", "one.toml",
    ];
    let text = narrows(&folder.0, &capture);
    assert!(
        text.starts_with("exit status 0\none.toml: 2 functions captured\nscrubbed: "),
        "{text}"
    );
    let written = fs::read_to_string(folder.0.join("one.toml")).unwrap();
    for wanted in [
        "name = \"one\"",
        "\"made up\"",
        "vendor = \"Maker\"",
        "kernel = \"6.12.0\"",
        "0000:01:10.0",
    ] {
        assert!(written.contains(wanted), "{wanted}");
    }
    for unwanted in ["SECRET", place] {
        assert!(!written.contains(unwanted), "{unwanted}");
    }
    let again = narrows(&folder.0, &capture);
    assert!(
        again.starts_with("exit status 1\nerror[file-exists]"),
        "{again}"
    );
    assert_eq!(
        fs::read_to_string(folder.0.join("one.toml")).unwrap(),
        written
    );
    let forced = narrows(&folder.0, &[capture.as_slice(), &["--force"]].concat());
    assert!(forced.starts_with("exit status 0\n"), "{forced}");
    let nowhere = ["--root", place, "capture", "-o", "none/one.toml"];
    let text = narrows(&folder.0, &nowhere);
    assert!(
        text.starts_with("exit status 1\nerror[file-unwritable]"),
        "{text}"
    );
    // To standard output it is the same, and no temporary file is left.
    let text = narrows(
        &folder.0,
        &[
            "--root", place, "capture", "--name", "one", "--note", "made up",
        ],
    );
    assert_eq!(text.strip_prefix("exit status 0\n"), Some(written.as_str()));
    let left: Vec<_> = fs::read_dir(&folder.0)
        .unwrap()
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with(".narrows")
        })
        .collect();
    assert!(left.is_empty());
    let shown = narrows(&folder.0, &["--root", "one.toml", "inventory"]);
    let live = narrows(&folder.0, &["--root", "root", "inventory"]);
    assert_eq!(shown, live);
}
