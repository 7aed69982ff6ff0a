use super::*;
use crate::{error::IommuError, sysfs::SysRoot};

fn tree(entries: &[(&str, Kind)]) -> Tree {
    let mut tree = Tree::default();
    for (path, kind) in entries {
        let entry = Entry {
            kind: kind.clone(),
            owner: None,
        };
        tree.insert(Path::new(path), entry).unwrap();
    }
    tree
}

fn file(text: &str) -> Kind {
    Kind::File(text.as_bytes().to_vec())
}

fn link(target: &str) -> Kind {
    Kind::Link(target.into())
}

fn errno<T: std::fmt::Debug>(result: crate::error::Result<T>) -> i32 {
    match result {
        Err(IommuError::Sysfs { errno, .. }) => errno.raw(),
        other => panic!("{other:?}"),
    }
}

fn machine() -> SysRoot {
    let tree = tree(&[
        (
            "sys/devices/pci0000:00/0000:00:01.0/vendor",
            file("0x8086\n"),
        ),
        (
            "sys/devices/pci0000:00/0000:00:01.0/driver",
            link("../../../bus/pci/drivers/igb"),
        ),
        ("sys/bus/pci/drivers/igb", Kind::Folder),
        (
            "sys/bus/pci/devices/0000:00:01.0",
            link("../../../devices/pci0000:00/0000:00:01.0"),
        ),
        ("sys/absolute", link("/sys/bus")),
        ("sys/out", link("../../../../sys/bus")),
        ("sys/loop", link("loop")),
        ("sys/dangling", link("nothing")),
        ("dev/kvm", Kind::Unread),
        ("sys/secret", Kind::Failing(Errno::new(libc::EACCES))),
    ]);
    SysRoot::captured("lab.toml", tree)
}

#[test]
fn files_are_read_through_links_in_every_part_of_a_path() {
    let root = machine();
    let text = root.read_text("/sys/bus/pci/devices/0000:00:01.0/vendor");
    assert_eq!(text.unwrap(), "0x8086");
    let name = root.read_link_name("sys/bus/pci/devices/0000:00:01.0/driver");
    assert_eq!(name.unwrap().as_deref(), Some("igb"));
    assert!(root.exists("sys/bus/pci/devices/0000:00:01.0/driver"));
    assert_eq!(root.list("sys/bus/pci/devices").unwrap(), ["0000:00:01.0"]);
    assert_eq!(root.list("sys/absolute").unwrap(), ["pci"]);
    // The folder above the root is the root, as for a process in a chroot.
    assert_eq!(root.list("sys/out").unwrap(), ["pci"]);
    assert_eq!(root.list("").unwrap(), ["dev", "sys"]);
    assert_eq!(
        root.read_bytes("sys/bus/pci/devices/0000:00:01.0/vendor", 2)
            .unwrap(),
        b"0x"
    );
}

#[test]
fn failures_are_those_of_a_file_system() {
    let root = machine();
    assert_eq!(root.read_text_if_any("sys/none").unwrap(), None);
    assert_eq!(root.list("sys/none").unwrap(), Vec::<String>::new());
    assert_eq!(root.read_link("sys/none").unwrap(), None);
    assert_eq!(root.owner("sys/none").unwrap(), None);
    assert_eq!(errno(root.read_text("sys/none")), libc::ENOENT);
    assert_eq!(errno(root.read_text("sys/loop")), libc::ELOOP);
    assert_eq!(errno(root.read_text("sys/dangling")), libc::ENOENT);
    assert!(!root.exists("sys/dangling") && !root.exists("sys/loop"));
    assert_eq!(errno(root.read_text("sys/bus")), libc::EISDIR);
    assert_eq!(errno(root.read_text("sys/secret")), libc::EACCES);
    assert_eq!(errno(root.read_text("sys/secret/more")), libc::ENOTDIR);
    assert_eq!(errno(root.list("sys/secret")), libc::ENOTDIR);
    assert_eq!(errno(root.read_link("sys/bus")), libc::EINVAL);
    // It exists, but what it says was not captured, and must not pass for an empty file.
    assert!(root.exists("dev/kvm"));
    assert_eq!(errno(root.read_text("dev/kvm")), libc::ENODATA);
    assert_eq!(errno(root.owner("dev/kvm")), libc::ENODATA);
}

#[test]
fn errors_name_the_file_of_the_machine() {
    let error = machine().read_text("sys/none").unwrap_err();
    assert_eq!(error.to_string(), "lab.toml/sys/none: read failed: ENOENT");
}

#[test]
fn nothing_can_be_written_to_a_machine() {
    let error = machine().write_text("sys/secret", "1").unwrap_err();
    assert_eq!(error.id(), "machine-read-only");
    assert_eq!(
        error.to_string(),
        "lab.toml/sys/secret: write failed: EROFS: this is a captured machine, not a host"
    );
    assert!(machine().is_read_only() && !SysRoot::default().is_read_only());
}

#[test]
fn an_entry_cannot_leave_the_root_or_stand_on_another() {
    let entry = || Entry {
        kind: file("x"),
        owner: None,
    };
    let mut tree = tree(&[("a/b", file("1")), ("a/l", link("b"))]);
    for path in ["", "/a", "../a", "a/../c", "./a"] {
        assert_eq!(
            tree.insert(Path::new(path), entry()),
            Err(TreeError::BadPath),
            "{path}"
        );
    }
    for path in ["a", "a/b", "a/b/c", "a/l/c"] {
        assert_eq!(
            tree.insert(Path::new(path), entry()),
            Err(TreeError::InTheWay),
            "{path}"
        );
    }
}
