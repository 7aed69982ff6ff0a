use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use iommu::{
    bdf::Bdf,
    bind::{Binding, VFIO_PCI},
    fake::FakeHost,
    sysfs::SysRoot,
};

use super::{Changes, Claim, Identity, Journal, Left, ProcessId, Remains, State, Taken};
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
            lease: None,
        };
        let owner = ProcessId { pid, start: 77 };
        Changes::new(guest, owner, "boot-1", vec![taken], None)
    }

    fn begin(&self, guest: &str, pid: u32) -> Journal {
        Journal::begin(&self.state(), self.changes(guest, pid)).unwrap()
    }

    /// The host, with its boot, and these processes by number and time of start.
    fn host(&self, processes: &[(u32, u64)]) -> SysRoot {
        let mut host = FakeHost::new(self.0.join(format!("host-{processes:?}")))
            .file("proc/sys/kernel/random/boot_id", "boot-1\n");
        for (pid, start) in processes {
            let stat = format!(
                "{pid} (narrows) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 {start} 20\n"
            );
            host = host.file(&format!("proc/{pid}/stat"), &stat);
        }
        host.write().unwrap()
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

fn dead(state: &State, host: &SysRoot) -> Vec<Remains> {
    let left = state.left_behind(host).unwrap();
    left.into_iter()
        .map(|left| match left {
            Left::Dead(remains) => remains,
            Left::Host(remains) => panic!("{}", remains.changes().whose()),
            Left::Damaged { report, .. } => panic!("{report}"),
        })
        .collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_folder_that_does_not_exist_has_no_journals() {
    let state = State::new("/nonexistent/narrows");
    let host = SysRoot::default();
    assert!(state.left_behind(&host).unwrap().is_empty());
    assert!(state.withheld(&host, vf()).is_none());
    assert!(state.check_recovered(vf()).is_ok());
}

#[test]
fn a_run_is_dead_when_its_process_is_gone_whoever_has_its_journal_locked() {
    let scene = Scene::new("dead");
    let state = scene.state();
    let mut journal = scene.begin("web", 7);
    assert_eq!(
        journal.path().file_name().unwrap().to_str().unwrap(),
        "web-7-77.json"
    );
    let alive = scene.host(&[(7, 77)]);
    assert!(dead(&state, &alive).is_empty());
    assert!(state.withheld(&alive, vf()).is_none());
    // The same number, given to a later process; and one of another number.
    for processes in [&[(7, 78)][..], &[(8, 77)]] {
        assert_eq!(dead(&state, &scene.host(processes)).len(), 1);
    }

    let child = ProcessId { pid: 8, start: 78 };
    journal
        .update(|changes| changes.processes.push(child))
        .unwrap();
    let gone = scene.host(&[]);
    let found = dead(&state, &gone);
    let [found] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(found.changes().processes, [child]);
    assert_eq!(found.changes().functions[0].binding.bdf(), vf());

    // A boot later nothing of it lives, whatever has its number.
    fs::write(alive.path("proc/sys/kernel/random/boot_id"), "boot-2\n").unwrap();
    assert_eq!(dead(&state, &alive).len(), 1);
}

#[test]
fn to_look_keeps_nobody_from_putting_right_and_putting_right_keeps_nobody_from_looking() {
    let scene = Scene::new("look");
    let (state, host) = (scene.state(), scene.host(&[]));
    drop(scene.begin("web", 7));
    // Several look at once; all see it, and one of them can lock it still.
    let [first, second] = [dead(&state, &host), dead(&state, &host)];
    assert!(state.withheld(&host, vf()).is_some());
    let Claim::Ours(journal) = first[0].claim().unwrap() else {
        panic!("who looked has locked it");
    };
    assert_eq!(journal.changes(), second[0].changes());
    assert_eq!(dead(&state, &host).len(), 1);
    assert!(state.withheld(&host, vf()).is_some());
    // One at a time.
    assert!(matches!(second[0].claim().unwrap(), Claim::Held(_)));
    journal.remove().unwrap();
    assert!(matches!(second[0].claim().unwrap(), Claim::Gone));
    assert!(dead(&state, &host).is_empty());
}

#[test]
fn a_function_of_a_dead_run_is_withheld_and_no_other() {
    let scene = Scene::new("withheld");
    let state = scene.state();
    drop(scene.begin("web", 7));
    let host = scene.host(&[]);
    let report = state.withheld(&host, vf()).unwrap();
    assert_eq!(id(&report), "recover-needed");
    assert!(report.why[0].contains("guest web, process 7, since 20"));
    assert_eq!(report.fix, "narrows recover");
    assert!(
        state
            .withheld(&host, "0000:01:10.1".parse().unwrap())
            .is_none()
    );

    // In the host's own folder it counts, too.
    let other = State::new(scene.0.join("other")).besides(scene.0.join("state"));
    assert_eq!(id(&other.withheld(&host, vf()).unwrap()), "recover-needed");
}

#[test]
fn who_has_a_functions_lock_believes_no_owner_of_a_journal() {
    let scene = Scene::new("race");
    let state = scene.state();
    // It looks like that of a run that lives.
    let _journal = scene.begin("web", 7);
    assert!(state.withheld(&scene.host(&[(7, 77)]), vf()).is_none());
    let report = state.check_recovered(vf()).unwrap_err();
    assert_eq!(id(&report), "recover-needed");
    assert!(
        state
            .check_recovered("0000:01:10.1".parse().unwrap())
            .is_ok()
    );
}

#[test]
fn a_journal_of_the_version_before_leases_is_read() {
    let scene = Scene::new("version-1");
    let (state, host) = (scene.state(), scene.host(&[]));
    let path = scene.begin("web", 7).path().to_owned();
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("\"lease\""), "{text}");
    fs::write(&path, text.replace("\"version\": 2", "\"version\": 1")).unwrap();
    assert_eq!(dead(&state, &host).len(), 1);
}

#[test]
fn a_damaged_journal_withholds_every_function() {
    let scene = Scene::new("damaged");
    let (state, host) = (scene.state(), scene.host(&[]));
    let path = scene.begin("web", 7).path().to_owned();
    let good = fs::read_to_string(&path).unwrap();
    for (text, why) in [
        (String::new(), "EOF"),
        (good[..good.len() / 2].to_owned(), "EOF"),
        (
            good.replace("\"version\": 2", "\"version\": 3"),
            "version 3",
        ),
        (good.replace("\"guest\"", "\"host\""), "host"),
        (good.replace("\"start\": 77", "\"start\": -1"), "-1"),
    ] {
        fs::write(&path, &text).unwrap();
        for report in [
            state
                .withheld(&host, "0000:01:10.1".parse().unwrap())
                .unwrap(),
            state.check_recovered(vf()).unwrap_err(),
        ] {
            assert_eq!(id(&report), "journal-damaged", "{text}");
            assert!(report.why[0].contains(why), "{}", report.why[0]);
            assert!(report.why[0].contains("web-7-77.json"));
        }
        assert!(matches!(
            state.left_behind(&host).unwrap().as_slice(),
            [Left::Damaged { guest: Some(guest), .. }] if guest == "web"
        ));
    }
    // What was never finished belongs to a run that had changed nothing.
    fs::rename(&path, scene.folder().join(".web-7-77.json.7.new")).unwrap();
    assert!(state.left_behind(&host).unwrap().is_empty());
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
    assert!(dead(&state, &scene.host(&[])).is_empty());
    assert!(state.check_recovered(vf()).is_ok());
    assert_eq!(fs::read_dir(scene.folder()).unwrap().count(), 0);

    let nowhere = State::new("/proc/narrows");
    let refused = Journal::begin(&nowhere, scene.changes("web", 7)).unwrap_err();
    assert_eq!(id(&refused), "state-unwritable");
}
