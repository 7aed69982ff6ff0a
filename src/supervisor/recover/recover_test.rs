use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
};

use iommu::{
    bind::{Binding, VFIO_PCI},
    fake::FakeHost,
};

use super::*;
use crate::state::{self, Identity, ProcessId};

const PF: &str = "0000:01:00.0";
const VF: &str = "0000:01:10.0";
const BOOT: &str = "proc/sys/kernel/random/boot_id";

/// A made-up host with a state folder, removed at the end.
struct Scene {
    folder: PathBuf,
    root: SysRoot,
}

impl Scene {
    fn new(name: &str, change: impl FnOnce(FakeHost) -> FakeHost) -> Self {
        let folder =
            std::env::temp_dir().join(format!("narrows-recover-{}-{name}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        let host = FakeHost::new(folder.join("root")).file(BOOT, "boot-1\n");
        let root = change(host.pf(PF, 12).vf(VF, PF, 13)).write().unwrap();
        Self { folder, root }
    }

    fn state(&self) -> State {
        State::new(self.folder.join("state"))
    }

    /// Leaves the journal of a dead run that had the VF unbound before, and this cgroup.
    fn leave(&self, boot: &str, cgroup: Option<&str>) {
        let text = serde_json::json!({
            "bdf": VF, "driver": VFIO_PCI, "driver_before": null, "override_before": null
        });
        let binding: Binding = serde_json::from_value(text).unwrap();
        let taken = state::Taken {
            binding,
            device: Identity::default(),
            before: None,
            lease: None,
        };
        let owner = ProcessId { pid: 7, start: 77 };
        let cgroup = cgroup.map(PathBuf::from);
        let mut changes = Changes::new("web", owner, boot, vec![taken], cgroup);
        changes.processes = vec![ProcessId { pid: 8, start: 78 }];
        // A file of its own: a process that another test forks may have a copy of the lock of this one for a moment.
        let journal = Journal::begin(&self.state(), changes).unwrap();
        let (path, text) = (journal.path().to_owned(), fs::read(journal.path()).unwrap());
        journal.remove().unwrap();
        fs::write(path, text).unwrap();
    }

    fn recover(&self, is_dry: bool) -> Vec<Recovered> {
        self.recover_as(&asked(is_dry))
    }

    fn recover_as(&self, asked: &Asked<'_>) -> Vec<Recovered> {
        recover(&self.root, &self.state(), asked).unwrap()
    }

    fn has_journal(&self) -> bool {
        !self.state().left_behind(&self.root).unwrap().is_empty()
    }

    /// Another recovery that is at what was left.
    fn other(&self) -> Journal {
        let left = self.state().left_behind(&self.root).unwrap();
        let [Left::Dead(remains)] = left.as_slice() else {
            panic!("{left:?}");
        };
        let Claim::Ours(journal) = remains.claim().unwrap() else {
            panic!("{remains:?} is locked");
        };
        *journal
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.path(path)).unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

fn asked(is_dry: bool) -> Asked<'static> {
    Asked {
        guest: None,
        is_dry,
        is_silent: true,
        patience: Duration::ZERO,
    }
}

fn only(all: Vec<Recovered>) -> Recovered {
    let [one] = <[Recovered; 1]>::try_from(all).unwrap();
    one
}

fn ids(left: &[Report]) -> Vec<String> {
    left.iter().map(|report| report.id.to_string()).collect()
}

#[test]
fn nothing_left_behind_is_nothing_to_do() {
    let scene = Scene::new("nothing", |host| host);
    assert!(scene.recover(false).is_empty());
}

#[test]
fn an_unbound_function_is_given_back_with_its_override_and_the_second_time_does_nothing() {
    let scene = Scene::new("override", |host| {
        host.attribute("driver_override", VFIO_PCI)
    });
    scene.leave("boot-1", None);
    let before = scene.read(&format!("sys/bus/pci/devices/{VF}/driver_override"));
    let told = only(scene.recover(true));
    assert!(told.left.is_empty());
    assert_eq!(
        told.steps,
        [format!(
            "{VF} would be reset, compared and bound as before (no driver; now no driver)"
        )]
    );
    assert!(scene.has_journal(), "telling changes nothing");
    assert_eq!(
        scene.read(&format!("sys/bus/pci/devices/{VF}/driver_override")),
        before
    );

    let done = only(scene.recover(false));
    assert!(done.left.is_empty(), "{:?}", done.left);
    assert!(done.whose.starts_with("guest web, process 7, since 20"));
    assert_eq!(done.steps, [format!("{VF} is given back")]);
    assert_eq!(
        scene.read(&format!("sys/bus/pci/devices/{VF}/driver_override")),
        "\n"
    );
    assert!(scene.recover(false).is_empty());
}

#[test]
fn a_function_that_is_not_clean_is_in_quarantine_and_the_rest_is_done() {
    let scene = Scene::new("unclean", |host| host);
    scene.leave("boot-1", None);
    // Bus master, and nothing that could clear it.
    let config = scene.root.path(format!("sys/bus/pci/devices/{VF}/config"));
    let mut bytes = fs::read(&config).unwrap();
    bytes[4] |= 4;
    fs::write(&config, bytes).unwrap();
    let done = only(scene.recover(false));
    assert_eq!(ids(&done.left), ["device-not-clean"]);
    assert!(scene.state().refusal(VF.parse().unwrap()).is_some());
    assert!(!scene.has_journal());
}

#[test]
fn a_host_that_has_booted_since_has_nothing_of_the_run() {
    let scene = Scene::new("boot", |host| host.attribute("driver_override", VFIO_PCI));
    scene.leave("boot-0", Some("/sys/fs/cgroup/narrows/web"));
    let place = format!("sys/bus/pci/devices/{VF}/driver_override");
    let before = scene.read(&place);
    let done = only(scene.recover(false));
    assert!(done.left.is_empty());
    assert_eq!(
        done.steps,
        ["the host has booted since: nothing of it is left"]
    );
    assert!(!scene.has_journal());
    assert_eq!(scene.read(&place), before);
}

#[test]
fn what_the_hosts_driver_has_by_now_is_left_alone() {
    let scene = Scene::new("host", |host| host.driver("igbvf"));
    scene.leave("boot-1", None);
    let done = only(scene.recover(false));
    assert!(done.left.is_empty(), "{:?}", done.left);
    assert_eq!(
        done.steps,
        [format!(
            "{VF} was given to the host's driver igbvf since: it is left alone"
        )]
    );
    assert!(!scene.has_journal());
    assert_eq!(scene.read("sys/bus/pci/drivers/igbvf/unbind").trim(), "");
}

#[test]
fn what_a_run_that_lives_has_is_not_touched() {
    let scene = Scene::new("lives", |host| host.attribute("driver_override", VFIO_PCI));
    scene.leave("boot-1", None);
    let bdf = VF.parse().unwrap();
    let lock = InUse::take(&scene.state(), bdf, "db").unwrap();
    let done = only(scene.recover(false));
    assert_eq!(ids(&done.left), ["device-in-use"]);
    assert!(scene.has_journal());
    drop(lock);
    assert!(only(scene.recover(false)).left.is_empty());
    assert!(!scene.has_journal());
}

#[test]
fn a_bound_function_that_cannot_be_opened_keeps_the_journal_until_it_is_put_back() {
    // There is no VFIO to open it with, and no kernel that unbinds.
    let scene = Scene::new("bound", |host| host.vfio("vfio0"));
    scene.leave("boot-1", None);
    let done = only(scene.recover(false));
    assert_eq!(ids(&done.left), ["host-not-restored"]);
    assert!(scene.has_journal());
    assert_eq!(scene.read("sys/bus/pci/drivers/vfio-pci/unbind"), VF);
}

#[test]
fn cgroups_of_the_guest_are_emptied_and_removed_and_no_others() {
    let scene = Scene::new("cgroup", |host| host);
    let folder = scene.root.path("sys/fs/cgroup/narrows/web");
    let reset = || {
        fs::create_dir_all(folder.join("vcpu")).unwrap();
        fs::create_dir_all(folder.join("device")).unwrap();
    };
    reset();
    scene.leave("boot-1", Some("/sys/fs/cgroup/narrows/web"));
    let done = only(scene.recover(false));
    assert!(done.left.is_empty(), "{:?}", done.left);
    assert!(!folder.exists());

    // A guest of that name may run again, with other functions.
    reset();
    scene.leave("boot-1", Some("/sys/fs/cgroup/narrows/web"));
    let name = Running::take(&scene.state(), "web").unwrap();
    let done = only(scene.recover(false));
    assert!(done.left.is_empty(), "{:?}", done.left);
    assert!(folder.join("vcpu").exists());
    drop(name);

    for other in [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/narrows",
        "/sys/fs/cgroup/narrows/db",
        "/sys/fs/cgroup/narrows/web/..",
        "/sys/fs/cgroup/narrows/web/vcpu",
        "/etc/narrows/web",
        "sys/fs/cgroup/narrows/web",
    ] {
        reset();
        scene.leave("boot-1", Some(other));
        let done = only(scene.recover(false));
        assert_eq!(ids(&done.left), ["host-not-restored"], "{other}");
        assert!(folder.join("vcpu").exists(), "{other}");
        assert!(scene.has_journal(), "{other}");
        fs::remove_dir_all(scene.folder.join("state")).unwrap();
    }
}

#[test]
fn a_boot_that_cannot_be_told_changes_nothing() {
    let scene = Scene::new("noproc", |host| host);
    scene.leave("boot-1", None);
    fs::remove_file(scene.root.path(BOOT)).unwrap();
    for is_dry in [true, false] {
        let done = only(scene.recover(is_dry));
        assert_eq!(ids(&done.left), ["host-unreadable"]);
        assert!(scene.has_journal());
    }
}

#[test]
fn a_damaged_journal_is_told_and_kept() {
    let scene = Scene::new("damaged", |host| host);
    scene.leave("boot-1", None);
    let path = scene.folder.join("state/journal/web-7-77.json");
    fs::write(&path, "{").unwrap();
    let done = only(scene.recover(false));
    assert_eq!(ids(&done.left), ["journal-damaged"]);
    assert!(path.exists());
}

#[test]
fn what_another_recovery_has_is_never_nothing_to_do() {
    let scene = Scene::new("held", |host| host);
    scene.leave("boot-1", None);
    let other = scene.other();
    // To look is not to lock: what would be done is told all the same.
    assert!(only(scene.recover(true)).left.is_empty());
    let done = only(scene.recover(false));
    assert_eq!(ids(&done.left), ["recovery-held"]);
    assert!(done.whose.starts_with("guest web, process 7"));
    drop(other);
    assert!(only(scene.recover(false)).left.is_empty());
    assert!(!scene.has_journal());
}

/// Another recovery that ends while this one waits, in the way that `ends` has it; what this one then did.
fn waits_for(scene: &Scene, ends: fn(Journal)) -> Recovered {
    let other = scene.other();
    let patient = Asked {
        patience: Duration::from_secs(60),
        ..asked(false)
    };
    let (begins, begun) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            begun.recv().unwrap();
            thread::sleep(3 * HELD_POLL);
            ends(other);
        });
        begins.send(()).unwrap();
        only(scene.recover_as(&patient))
    })
}

#[test]
fn a_recovery_waits_for_another_and_then_looks_again() {
    let scene = Scene::new("waits", |host| host);
    // One that ends without having done it.
    scene.leave("boot-1", None);
    let done = waits_for(&scene, drop);
    assert!(done.left.is_empty(), "{:?}", done.left);
    assert!(
        // The other one is of this process, which the kernel does not tell itself.
        done.steps[0].ends_with("has its journal: waiting for that"),
        "{:?}",
        done.steps
    );
    assert_eq!(done.steps[1], format!("{VF} is given back"));
    assert!(!scene.has_journal());

    // One that has done it.
    scene.leave("boot-1", None);
    let done = waits_for(&scene, |other| other.remove().unwrap());
    assert!(done.left.is_empty(), "{:?}", done.left);
    assert_eq!(done.steps[1..], ["another recovery has put it right"]);
}

#[test]
fn only_the_guest_that_is_named_is_put_right() {
    let scene = Scene::new("named", |host| host);
    scene.leave("boot-1", None);
    let damaged = scene.folder.join("state/journal/db-1-7-77.json");
    fs::write(&damaged, "{").unwrap();
    let of = |guest| Asked {
        guest: Some(guest),
        ..asked(false)
    };
    assert!(scene.recover_as(&of("db")).is_empty());
    assert_eq!(
        ids(&only(scene.recover_as(&of("db-1"))).left),
        ["journal-damaged"]
    );
    assert!(scene.has_journal());
    assert!(only(scene.recover_as(&of("web"))).left.is_empty());
    assert!(Path::new(&damaged).exists());
}
