use super::*;
use crate::{
    fake::FakeHost,
    sysfs::{Asked, SysRoot},
    topology::Topology,
};

fn host() -> FakeHost {
    FakeHost::new("")
        .bridge("0000:00:02.0", 1)
        .pf("0000:01:00.0", 12)
        .vf("0000:01:10.0", "0000:01:00.0", 13)
        .vfio("vfio3")
        .file("sys/module/secret/parameters/key", "never asked for")
}

fn json(topology: &Topology, root: &SysRoot) -> String {
    let text = serde_json::to_string_pretty(topology).unwrap();
    text.replace(&root.as_path().display().to_string(), "ROOT")
}

#[test]
fn what_was_recorded_reads_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let live = host().at(folder.path()).write().unwrap();
    let recording = SysRoot::recording(folder.path());
    let seen = Topology::read(&recording).unwrap();
    let captured = SysRoot::captured("machine.toml", recording.recorded().unwrap());
    let again = Topology::read(&captured).unwrap();
    let wanted = json(&Topology::read(&live).unwrap(), &live);
    assert_eq!(json(&seen, &recording), wanted);
    assert_eq!(json(&again, &captured), wanted);
    assert!(wanted.contains("0000:01:10.0"));
}

#[test]
fn only_what_was_asked_for_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    fs::create_dir_all(at("sys/devices/one")).unwrap();
    fs::create_dir_all(at("sys/bus")).unwrap();
    fs::write(at("sys/devices/one/vendor"), "0x8086\n").unwrap();
    fs::write(at("sys/devices/one/secret"), "never asked for\n").unwrap();
    fs::write(at("sys/devices/node"), "").unwrap();
    std::os::unix::fs::symlink("../devices/one", at("sys/bus/first")).unwrap();
    let root = SysRoot::recording(folder.path());
    root.read_text("sys/bus/first/vendor").unwrap();
    assert!(root.exists("sys/devices/node"));
    assert!(!root.exists("sys/devices/none"));
    assert_eq!(root.read_link("sys/bus/first/driver").unwrap(), None);
    let tree = root.recorded().unwrap();
    let seen: Vec<String> = tree
        .entries()
        .filter(|(_, entry)| entry.kind != Kind::Folder)
        .map(|(path, entry)| format!("{} {:?}", path.display(), entry.kind))
        .collect();
    let vendor = Kind::File(b"0x8086\n".to_vec());
    assert_eq!(
        seen,
        [
            "sys/bus/first Link(\"../devices/one\")".to_owned(),
            "sys/devices/node Unread".to_owned(),
            format!("sys/devices/one/vendor {vendor:?}"),
        ]
    );
}

#[test]
fn the_longest_piece_of_a_file_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config"), "0123456789").unwrap();
    let root = SysRoot::recording(folder.path());
    for limit in [4, 8, 2] {
        root.read_bytes("config", limit).unwrap();
    }
    let captured = SysRoot::captured("m", root.recorded().unwrap());
    assert_eq!(captured.read_bytes("config", 64).unwrap(), b"01234567");
}

#[test]
fn owners_and_listings_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("dev/vfio/devices")).unwrap();
    fs::write(folder.path().join("dev/vfio/12"), "").unwrap();
    let root = SysRoot::recording(folder.path());
    let owner = root.owner("dev/vfio/12").unwrap();
    assert_eq!(root.list("dev/vfio").unwrap(), ["12", "devices"]);
    let captured = SysRoot::captured("m", root.recorded().unwrap());
    assert_eq!(captured.owner("dev/vfio/12").unwrap(), owner);
    assert!(owner.is_some());
    assert_eq!(captured.list("dev/vfio").unwrap(), ["12", "devices"]);
    assert_eq!(
        captured.list("dev/vfio/devices").unwrap(),
        Vec::<String>::new()
    );
}

#[test]
fn recording_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x"), "1").unwrap();
    let root = SysRoot::recording(folder.path());
    assert_eq!(
        root.write_text("x", "2").unwrap_err().id(),
        "machine-read-only"
    );
    assert_eq!(fs::read_to_string(folder.path().join("x")).unwrap(), "1");
}

/// What a question about a made-up drive is called.
fn of_the_drive() -> Asked<'static> {
    Asked {
        call: "NVME_IOCTL_ADMIN_CMD",
        of: Path::new("dev/nvme0"),
    }
}

/// Claim: only the running host's kernel is asked; a capture of it holds the answers, the refusals among them.
#[test]
fn an_answer_of_the_kernel_is_recorded_and_read_from_the_record() {
    let host = SysRoot::recording("/");
    let told = || Ok(Some("id x\n".to_owned()));
    let refused = || Err(Errno::new(libc::EACCES));
    let place = |name: &str| Path::new("narrows/nvme").join(name);
    let wanted = Some("id x\n".to_owned());
    assert_eq!(host.ask(place("a"), of_the_drive(), told).unwrap(), wanted);
    let nothing = host.ask(place("b"), of_the_drive(), || Ok(None));
    assert_eq!(nothing.unwrap(), None);
    let error = host.ask(place("c"), of_the_drive(), refused).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/dev/nvme0: NVME_IOCTL_ADMIN_CMD failed: EACCES"
    );

    let captured = SysRoot::captured("machine", host.recorded().unwrap());
    let never = || panic!("a captured machine has no kernel");
    let ask = |name| captured.ask(place(name), of_the_drive(), never);
    assert_eq!(ask("a").unwrap(), wanted);
    assert_eq!(ask("b").unwrap(), None);
    let error = ask("c").unwrap_err().to_string();
    assert!(
        error.ends_with("narrows/nvme/c: read failed: EACCES"),
        "{error}"
    );
}

#[test]
fn a_made_up_host_holds_what_its_kernel_would_answer() {
    let folder = tempfile::tempdir().unwrap();
    let root = SysRoot::new(folder.path());
    let never = || panic!("a folder has no kernel");
    let ask = || root.ask("narrows/nvme/nvme0", of_the_drive(), never);
    assert_eq!(ask().unwrap(), None);
    fs::create_dir_all(folder.path().join("narrows/nvme")).unwrap();
    fs::write(folder.path().join("narrows/nvme/nvme0"), "id y\n").unwrap();
    assert_eq!(ask().unwrap(), Some("id y\n".to_owned()));
}
