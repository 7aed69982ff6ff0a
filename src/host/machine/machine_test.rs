use std::{fs, path::PathBuf, process};

use iommu::{fake::FakeHost, sysfs::Owner};
use proptest::prelude::*;

use super::*;

/// A folder for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("narrows-machine-{name}-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn host(folder: &Folder) -> SysRoot {
    FakeHost::new(folder.0.join("root"))
        .file(
            "proc/cpuinfo",
            "processor\t: 0\naddress sizes\t: 46 bits physical, 48 bits virtual\n\nprocessor\t: 1\n",
        )
        .file("proc/meminfo", "MemAvailable:    1048576 kB\n")
        .file("sys/devices/system/cpu/online", "0-3")
        .file("dev/kvm", "")
        // Nothing to scrub, so that what is captured equals what is there.
        .cmdline("ro intel_iommu=on iommu.strict=1")
        .bridge("0000:00:02.0", 1)
        .pf("0000:01:00.0", 12)
        .vf("0000:01:10.0", "0000:01:00.0", 13)
        .vfio("vfio3")
        .write()
        .unwrap()
}

fn head() -> Head {
    Head {
        name: "test".to_owned(),
        title: "a \"quoted\" title".to_owned(),
        origin: Origin::Captured,
        provenance: Provenance {
            by: "a test".to_owned(),
            notes: vec!["one".to_owned(), "two\nlines".to_owned()],
            ..Provenance::default()
        },
    }
}

fn why(text: &str) -> String {
    let report = Machine::parse(Path::new("m.toml"), text).unwrap_err();
    assert_eq!(report.id, ErrorId::MachineMalformed);
    report.why.join("; ")
}

fn with(folders: &str) -> String {
    format!(
        "format = 1\nname = \"x\"\ntitle = \"x\"\norigin = \"captured\"\n[provenance]\nby = \"x\"\n{folders}"
    )
}

#[test]
fn a_captured_host_reads_as_the_live_one() {
    let folder = Folder::new("live");
    let live = host(&folder);
    let machine = capture(&live, head()).unwrap();
    let file = folder.0.join("test.toml");
    fs::write(&file, machine.to_text()).unwrap();
    let root = open_root(&file).unwrap();
    let json = |root: &SysRoot| {
        let inventory = Inventory::read(root).unwrap();
        let text = serde_json::to_string_pretty(&inventory).unwrap();
        text.replace(&root.as_path().display().to_string(), "ROOT")
    };
    assert_eq!(json(&root), json(&live));
    assert!(json(&live).contains("0000:01:10.0"));
    assert_eq!(Machine::read(&file).unwrap(), machine);
}

#[test]
fn whatever_a_tree_holds_is_written_and_read_again() {
    let owner = Some(Owner {
        mode: 0o660,
        uid: 0,
        gid: 107,
    });
    let mut tree = Tree::default();
    let entries = [
        ("dev/vfio/12", Kind::Unread, owner),
        ("dev/kvm", Kind::Unread, None),
        ("dev/empty", Kind::Folder, owner),
        ("sys/empty/folder", Kind::Folder, None),
        (
            "sys/a b/\"c\"/0000:01:00.0",
            Kind::Link("../x\\y".into()),
            None,
        ),
        ("sys/text", Kind::File(b"one line\n".to_vec()), owner),
        (
            "sys/lines",
            Kind::File(b"\"one\"\n\ttwo \\\n".to_vec()),
            None,
        ),
        ("sys/indented", Kind::File(b"\n  one\n\n\n".to_vec()), None),
        ("sys/nothing", Kind::File(Vec::new()), None),
        ("sys/break", Kind::File(b"\n".to_vec()), None),
        (
            "sys/binary",
            Kind::File([&[0; 300][..], &[7, 0, 0x80]].concat()),
            None,
        ),
        (
            "proc/config.gz",
            Kind::File(gzip::pack("CONFIG_A=y\nCONFIG_B=m\n").unwrap()),
            None,
        ),
        ("sys/zeros", Kind::File(vec![0; 64]), None),
        (
            "sys/denied",
            Kind::Failing(iommu::Errno::new(libc::EACCES)),
            None,
        ),
        ("sys/odd", Kind::Failing(iommu::Errno::new(71)), None),
    ];
    for (path, kind, owner) in entries {
        tree.insert(Path::new(path), iommu::sysfs::Entry { kind, owner })
            .unwrap();
    }
    let machine = Machine { head: head(), tree };
    let text = machine.to_text();
    let again = Machine::parse(Path::new("m"), &text).unwrap();
    assert_eq!(again, machine, "{text}");
    assert_eq!(again.to_text(), text);
}

#[test]
fn a_long_text_with_odd_characters_is_read_again() {
    let long = format!("\r\u{1}\u{7f}{}\n", "é".repeat(hex::LIMIT));
    let mut tree = Tree::default();
    let entry = iommu::sysfs::Entry {
        kind: Kind::File(long.into_bytes()),
        owner: None,
    };
    tree.insert(Path::new("proc/long"), entry).unwrap();
    let machine = Machine { head: head(), tree };
    let again = Machine::parse(Path::new("m"), &machine.to_text()).unwrap();
    assert!(again == machine);
}

#[test]
fn the_text_is_what_a_person_reads() {
    let mut tree = Tree::default();
    for (path, kind) in [
        (
            "sys/pci/0000:01:00.0/vendor",
            Kind::File(b"0x8086\n".to_vec()),
        ),
        (
            "sys/pci/0000:01:00.0/resource",
            Kind::File(b"0x1\n0x2\n".to_vec()),
        ),
        (
            "sys/pci/0000:01:00.0/config",
            Kind::File([&[0; 16][..], &[0x86, 0x80]].concat()),
        ),
        (
            "sys/pci/0000:01:00.0/driver",
            Kind::Link("../../igb".into()),
        ),
    ] {
        let entry = iommu::sysfs::Entry { kind, owner: None };
        tree.insert(Path::new(path), entry).unwrap();
    }
    let machine = Machine { head: head(), tree };
    assert_eq!(
        machine.to_text(),
        r#"format = 1
name = "test"
title = "a \"quoted\" title"
origin = "captured"

[provenance]
by = "a test"
notes = [
    "one",
    """
two
lines""",
]

[folder."sys/pci/0000:01:00.0"]
hex.config = """
size 18
010: 86 80
"""
link.driver = "../../igb"
text.resource = """
0x1
0x2
"""
text.vendor = "0x8086"
"#
    );
}

#[test]
fn nonsense_is_refused_with_its_reason() {
    for (text, wanted) in [
        ("format = 2", "its format is 2; this version reads 1"),
        ("name = 1", "missing field `format`"),
        ("format = 1\nname = ", "line 2"),
        (&with("more = 1"), "unknown field `more`"),
        (
            &with("[folder.\"sys\"]\nfile.x = \"1\""),
            "unknown field `file`",
        ),
        (&with("[folder.\"/sys\"]"), "no plain path"),
        (&with("[folder.\"sys/../..\"]"), "no plain path"),
        (&with("[folder.\"sys\"]\ntext.\"a/b\" = \"1\""), "no name"),
        (
            &with("[folder.\"sys\"]\ntext.\"..\" = \"1\""),
            "no plain path",
        ),
        (
            &with("[folder.\"sys\"]\ntext.a = \"1\"\nlink.a = \"b\""),
            "in the way",
        ),
        (
            &with("[folder.\"sys\"]\ntext.a = \"1\"\n[folder.\"sys/a\"]"),
            "in the way",
        ),
        (&with("[folder.\"sys\"]\nhex.a = \"00\""), "size"),
        (
            &with("[folder.\"sys\"]\nhex.a = \"size 2\\n000: 00 00 00\""),
            "behind the size",
        ),
        (
            &with("[folder.\"sys\"]\nhex.a = \"size 2\\n000: 0x\""),
            "no row",
        ),
        (
            &with("[folder.\"sys\"]\nhex.a = \"size 2\\n000: +1\""),
            "no row",
        ),
        (
            &with("[folder.\"sys\"]\nhex.a = \"size 99999999999\""),
            "longer than 65536",
        ),
        (&with("[folder.\"sys\"]\nfails.a = \"EWHAT\""), "no errno"),
        (
            &with("[folder.\"sys\"]\nnode.a = \"rw root\""),
            "owner of a",
        ),
    ] {
        let why = why(text);
        assert!(why.contains(wanted), "{text}: {why}");
    }
}

#[test]
fn a_hostile_file_is_refused_before_it_fills_memory() {
    let deep = "a/".repeat(500);
    assert!(why(&with(&format!("[folder.\"{deep}\"]"))).contains("too deep"));
    let zeros: String = (0..2000)
        .map(|n| format!("hex.a{n} = \"size 65536\"\n"))
        .collect();
    assert!(why(&with(&format!("[folder.\"sys\"]\n{zeros}"))).contains("67108864 bytes together"));
    let nested = format!("format = 1\nx = {}", "[".repeat(100_000));
    assert!(why(&nested).contains("line 2"));
    let folder = Folder::new("huge");
    let file = folder.0.join("huge.toml");
    fs::write(&file, with(&"#".repeat(9 << 20))).unwrap();
    let report = open_root(&file).unwrap_err();
    assert_eq!(report.id, ErrorId::MachineMalformed);
    assert!(report.why[0].contains("longer than 8388608"), "{report}");
}

/// A thousand functions that are one folder with thirty thousand names, in half a megabyte of text.
#[test]
fn many_links_to_one_long_folder_are_refused_before_they_fill_memory() {
    let links: String = (0..1024)
        .map(|n| {
            format!(
                "link.\"0000:{:02x}:{:02x}.{}\" = \"../../../devices/pci0000:00/0000:00:01.0\"\n",
                n >> 8,
                n >> 3 & 31,
                n & 7
            )
        })
        .collect();
    let names: String = (0..30_000).map(|n| format!("text.a{n} = \"\"\n")).collect();
    let device = "sys/devices/pci0000:00/0000:00:01.0";
    let text = with(&format!(
        "[folder.\"sys/bus/pci/devices\"]\n{links}[folder.\"{device}\"]\n\
         text.vendor = \"0x8086\"\ntext.device = \"0x1\"\ntext.class = \"0x020000\"\n\
         text.resource = \"0x0 0x0 0x0\"\n[folder.\"{device}/net\"]\n{names}"
    ));
    assert!(text.len() < 1 << 20);
    let machine = Machine::parse(Path::new("m.toml"), &text).unwrap();
    let root = SysRoot::captured("m.toml", machine.tree);
    let error = iommu::topology::Topology::read(&root).unwrap_err();
    let report = unread(&error);
    assert_eq!(report.id, ErrorId::MachineMalformed, "{report}");
    assert!(report.why[0].contains("many links"), "{report}");
}

#[test]
fn a_machine_file_is_not_captured_again() {
    let root = SysRoot::captured("m.toml", Tree::default());
    assert_eq!(
        capture(&root, head()).unwrap_err().id,
        ErrorId::MachineReadOnly
    );
}

#[test]
fn a_capture_without_privilege_is_seen_to_be_incomplete() {
    let folder = Folder::new("short");
    let live = host(&folder);
    let config = live.path("sys/bus/pci/devices/0000:01:10.0/config");
    fs::write(&config, [1; 64]).unwrap();
    assert_eq!(capture(&live, head()).unwrap().incomplete_configs(), (1, 3));
}

proptest! {
    #[test]
    fn a_damaged_file_is_read_or_refused(at in 0_usize..2000, len in 0_usize..40, new in "[ -~\n]{0,40}") {
        let mut tree = Tree::default();
        for (path, kind) in [
            ("sys/a/config", Kind::File(vec![7; 64])),
            ("sys/a/driver", Kind::Link("../b".into())),
            ("sys/a/vendor", Kind::File(b"0x8086\n".to_vec())),
            ("sys/b", Kind::Folder),
        ] {
            tree.insert(Path::new(path), iommu::sysfs::Entry { kind, owner: None }).unwrap();
        }
        let machine = Machine { head: head(), tree };
        let mut text = machine.to_text();
        let start = at.min(text.len());
        let end = (start + len).min(text.len());
        text.replace_range(start..end, &new);
        if let Ok(read) = Machine::parse(Path::new("m"), &text) {
            // What was read can be written, and read again.
            prop_assert_eq!(Machine::parse(Path::new("m"), &read.to_text()).unwrap(), read);
        }
    }
}
