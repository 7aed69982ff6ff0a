use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use iommu::{
    bdf::Bdf,
    bind::{Binding, VFIO_PCI},
    fake::FakeHost,
};

use super::{Changes, Identity, Journal, Left, ProcessId, State, Taken};
use crate::error::Report;

const VF: &str = "0000:01:10.0";

fn vf() -> Bdf {
    VF.parse().unwrap()
}

/// A state folder beside a made-up host, removed at the end.
struct Scene(PathBuf);

impl Scene {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("narrows-journal-{}-{name}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn state(&self) -> State {
        State::new(self.0.join("state"))
    }

    fn changes(&self, guest: &str, pid: u32) -> Changes {
        let root = FakeHost::new(self.0.join("root"))
            .pf("0000:01:00.0", 12)
            .vf(VF, "0000:01:00.0", 13)
            .write()
            .unwrap();
        let taken = Taken {
            binding: Binding::plan(&root, vf(), VFIO_PCI).unwrap(),
            device: Identity::default(),
            before: None,
        };
        let owner = ProcessId { pid, start: 77 };
        Changes::new(guest, owner, "boot-1", vec![taken], None)
    }

    fn begin(&self, guest: &str, pid: u32) -> Journal {
        Journal::begin(&self.state(), self.changes(guest, pid)).unwrap()
    }

    fn folder(&self) -> PathBuf {
        self.0.join("state/journal")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn id(report: &Report) -> String {
    report.id.to_string()
}

fn dead(state: &State) -> Vec<Journal> {
    let left = state.left_behind().unwrap();
    left.into_iter()
        .map(|left| match left {
            Left::Dead(journal) => journal,
            Left::Damaged(report) => panic!("{report}"),
        })
        .collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_folder_that_does_not_exist_has_no_journals() {
    let state = State::new("/nonexistent/narrows");
    assert!(state.left_behind().unwrap().is_empty());
    assert!(state.withheld(vf()).is_none());
    assert!(state.check_recovered(vf()).is_ok());
}

#[test]
fn a_journal_is_of_a_dead_run_only_when_nobody_has_it_locked() {
    let scene = Scene::new("lock");
    let state = scene.state();
    let mut journal = scene.begin("web", 7);
    assert_eq!(
        journal.path().file_name().unwrap().to_str().unwrap(),
        "web-7-77.json"
    );
    assert!(dead(&state).is_empty());
    assert!(state.withheld(vf()).is_none());

    // Written anew, it is another file, and locked like the first.
    let child = ProcessId { pid: 8, start: 78 };
    journal
        .update(|changes| changes.processes.push(child))
        .unwrap();
    assert!(dead(&state).is_empty());

    drop(journal);
    let found = dead(&state);
    let [found] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(found.changes().processes, [child]);
    assert_eq!(found.changes().functions[0].binding.bdf(), vf());
    // While one puts it right, another finds nothing to do.
    assert!(dead(&state).is_empty());
}

#[test]
fn a_function_of_a_dead_run_is_withheld_and_no_other() {
    let scene = Scene::new("withheld");
    let state = scene.state();
    drop(scene.begin("web", 7));
    let report = state.withheld(vf()).unwrap();
    assert_eq!(id(&report), "recover-needed");
    assert!(report.why[0].contains("guest web, process 7, since 20"));
    assert_eq!(report.fix, "narrows recover");
    assert!(state.withheld("0000:01:10.1".parse().unwrap()).is_none());

    // In the host's own folder it counts, too.
    let other = State::new(scene.0.join("other")).besides(scene.0.join("state"));
    assert_eq!(id(&other.withheld(vf()).unwrap()), "recover-needed");
}

#[test]
fn who_has_a_functions_lock_believes_no_lock_of_a_journal() {
    let scene = Scene::new("race");
    let state = scene.state();
    // Another process reads it just now, so it looks like that of a run that lives.
    let _reader = scene.begin("web", 7);
    assert!(state.withheld(vf()).is_none());
    let report = state.check_recovered(vf()).unwrap_err();
    assert_eq!(id(&report), "recover-needed");
    assert!(
        state
            .check_recovered("0000:01:10.1".parse().unwrap())
            .is_ok()
    );
}

#[test]
fn a_damaged_journal_withholds_every_function() {
    let scene = Scene::new("damaged");
    let state = scene.state();
    let path = scene.begin("web", 7).path().to_owned();
    let good = fs::read_to_string(&path).unwrap();
    for (text, why) in [
        (String::new(), "EOF"),
        (good[..good.len() / 2].to_owned(), "EOF"),
        (
            good.replace("\"version\": 1", "\"version\": 2"),
            "version 2",
        ),
        (good.replace("\"guest\"", "\"host\""), "host"),
        (good.replace("\"start\": 77", "\"start\": -1"), "-1"),
    ] {
        fs::write(&path, &text).unwrap();
        for report in [
            state.withheld("0000:01:10.1".parse().unwrap()).unwrap(),
            state.check_recovered(vf()).unwrap_err(),
        ] {
            assert_eq!(id(&report), "journal-damaged", "{text}");
            assert!(report.why[0].contains(why), "{}", report.why[0]);
            assert!(report.why[0].contains("web-7-77.json"));
        }
        assert!(matches!(
            state.left_behind().unwrap().as_slice(),
            [Left::Damaged(_)]
        ));
    }
    // What was never finished belongs to a run that had changed nothing.
    fs::rename(&path, scene.folder().join(".web-7-77.json.7.new")).unwrap();
    assert!(state.left_behind().unwrap().is_empty());
}

#[test]
fn only_its_owner_can_read_a_journal_and_so_lock_it() {
    let scene = Scene::new("mode");
    let journal = scene.begin("web", 7);
    assert_eq!(mode(&scene.folder()), 0o700);
    assert_eq!(mode(journal.path()), 0o600);
}

#[test]
fn a_removed_journal_is_gone_and_one_that_cannot_be_written_is_refused() {
    let scene = Scene::new("removed");
    let state = scene.state();
    let journal = scene.begin("web", 7);
    journal.remove().unwrap();
    assert!(dead(&state).is_empty());
    assert!(state.check_recovered(vf()).is_ok());
    assert_eq!(fs::read_dir(scene.folder()).unwrap().count(), 0);

    let nowhere = State::new("/proc/narrows");
    let refused = Journal::begin(&nowhere, scene.changes("web", 7)).unwrap_err();
    assert_eq!(id(&refused), "state-unwritable");
}
