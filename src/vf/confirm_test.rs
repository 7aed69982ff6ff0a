use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use iommu::sysfs::SysRoot;

use super::{
    Job, Recovered, Verb,
    apply::prepare,
    confirm,
    confirm::keep_if_confirmed,
    machine_test::{Folder, ids, machine, planner},
    recover_host,
};
use crate::{
    error::{ErrorId, Report},
    sriov::{Hands, Observed, Percent, Seen, Step, StepFault, model::Machine},
    state::{Left, Phase, State, boot},
};

/// A machine in a file: what one process does to it, another sees.
struct Shared(PathBuf);

impl Shared {
    fn machine(&self) -> Machine {
        let text = fs::read(&self.0).unwrap();
        Machine::new(serde_json::from_slice(&text).unwrap())
    }
}

impl Hands for Shared {
    fn carry_out(
        &mut self,
        step: &Step,
        progress: &mut dyn FnMut(Percent),
    ) -> Result<Seen, StepFault> {
        let mut machine = self.machine();
        let seen = machine.carry_out(step, progress)?;
        let new = self.0.with_extension("new");
        fs::write(&new, serde_json::to_vec(&machine.now).unwrap()).unwrap();
        fs::rename(&new, &self.0).unwrap();
        Ok(seen)
    }

    fn observe(&mut self) -> Result<Observed, Report> {
        Ok(self.machine().now)
    }
}

/// What the child is told.
const FOLDER: &str = "NARROWS_TEST_CONFIRM_FOLDER";
const WITHIN: &str = "NARROWS_TEST_CONFIRM_MS";

/// The child of the other tests, in a process of its own.
#[test]
#[ignore = "is started by the other tests of this file"]
fn child_that_waits() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = PathBuf::from(folder);
    let within: u64 = std::env::var(WITHIN).unwrap().parse().unwrap();
    let state = State::new(folder.join("state"));
    let mut hands = Shared(folder.join("machine.json"));
    let job = Job {
        planner: &planner(2, 0),
        shown: None,
        verb: Verb::Apply,
        file: Some((Path::new("host.toml"), "text")),
        is_stopped: &|| false,
    };
    let mut ready = prepare(&mut hands, &state, &job).unwrap();
    let within = Duration::from_millis(within);
    let kept = keep_if_confirmed(&mut hands, &state, &mut ready, &job, within, &mut |_| {});
    let word = match kept {
        Ok(()) => "kept".to_owned(),
        Err(reports) => ids(&reports).into_iter().collect::<Vec<_>>().join(" "),
    };
    fs::write(folder.join("word"), word).unwrap();
}

struct Scene {
    folder: Folder,
    child: Child,
    before: Observed,
}

impl Scene {
    /// A child that has done all steps and waits.
    fn new(name: &str, within_ms: u64) -> Self {
        let folder = Folder::new(name);
        let mut before = machine().now;
        before.boot = boot(&SysRoot::default()).unwrap();
        let path = folder.0.join("machine.json");
        fs::write(&path, serde_json::to_vec(&before).unwrap()).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "vf::confirm_test::child_that_waits", "--ignored"])
            .env(FOLDER, &folder.0)
            .env(WITHIN, within_ms.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            folder,
            child,
            before,
        }
    }

    fn state(&self) -> State {
        self.folder.state()
    }

    fn hands(&self) -> Shared {
        Shared(self.folder.0.join("machine.json"))
    }

    fn until_it_waits(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self
            .state()
            .host_changes(&SysRoot::default())
            .unwrap()
            .iter()
            .any(|changes| changes.phase == Phase::Awaiting)
        {
            assert!(Instant::now() < deadline, "it does not wait");
            sleep(Duration::from_millis(5));
        }
    }

    /// What the child has to say at its end.
    fn word(&mut self) -> String {
        assert!(self.child.wait().unwrap().success());
        fs::read_to_string(self.folder.0.join("word")).unwrap()
    }
}

/// Puts right what the one dead child has left.
fn recovered(state: &State, hands: &mut Shared) -> Recovered {
    let left = state.left_behind(&SysRoot::default()).unwrap();
    let [Left::Host(remains)] = left.as_slice() else {
        panic!("{left:?}");
    };
    loop {
        match recover_host(hands, state, remains, false, &mut |_| {}) {
            // Another test's child may have the lock's descriptor for a moment.
            Err(report) if report.id == ErrorId::HostBusy => std::thread::yield_now(),
            recovered => return recovered.unwrap(),
        }
    }
}

#[test]
fn change_that_is_confirmed_is_kept() {
    let mut scene = Scene::new("kept", 600_000);
    scene.until_it_waits();
    let state = scene.state();
    // It keeps others away as long as it waits.
    let busy = state.lock_host("apply").unwrap_err();
    assert_eq!(busy.id, ErrorId::HostBusy);
    let who = format!("process {}", scene.child.id());
    assert!(busy.to_string().contains(&who), "{busy}");

    assert!(confirm(&state).unwrap().contains(&who));
    assert_eq!(scene.word(), "kept");
    assert!(
        scene
            .hands()
            .machine()
            .now
            .pfs
            .values()
            .all(|pf| pf.count == 2)
    );
    assert_eq!(scene.folder.journals(), 0);
    assert_eq!(state.applied().unwrap().unwrap().text, "text");
    let again = confirm(&state).unwrap_err();
    assert_eq!(again.id, ErrorId::NothingToConfirm);
}

#[test]
fn confirmed_change_that_cannot_be_written_down_is_no_success() {
    let mut scene = Scene::new("unwritten", 600_000);
    scene.until_it_waits();
    let state = scene.state();
    // No file can take its place.
    fs::create_dir_all(state.host_folder().join("applied.json/x")).unwrap();
    let report = confirm(&state).unwrap_err();
    let text = report.to_string();
    assert!(
        text.contains("applied.json") && text.contains("narrows recover"),
        "{text}"
    );
    assert_eq!(crate::error::exit_of(&[report]) as u8, 1);
    assert_eq!(scene.word(), "state-unwritable");
    // It stays, and recovery only takes the journal away.
    assert_eq!(scene.folder.journals(), 1);
    let now = scene.hands().machine().now;
    assert!(recovered(&state, &mut scene.hands()).left.is_empty());
    assert_eq!(scene.folder.journals(), 0);
    assert_eq!(scene.hands().machine().now, now);
    assert!(now.pfs.values().all(|pf| pf.count == 2));
}

#[test]
fn confirmed_change_whose_process_dies_is_no_success() {
    let mut scene = Scene::new("died", 600_000);
    scene.until_it_waits();
    // The child cannot read its machine any more, and panics.
    fs::write(scene.folder.0.join("machine.json"), "{").unwrap();
    let report = confirm(&scene.state()).unwrap_err();
    assert!(report.to_string().contains("without a word"), "{report}");
    assert!(!scene.child.wait().unwrap().success());
    assert_eq!(scene.folder.journals(), 1);
}

#[test]
fn release_that_nobody_confirms_undoes_itself() {
    let folder = Folder::new("release-undone");
    let state = folder.state();
    let mut machine = machine();
    machine.now.boot = boot(&SysRoot::default()).unwrap();
    super::machine_test::Ask::of(2, 0)
        .run(&mut machine, &state)
        .unwrap();
    let before = machine.now.clone();
    let job = Job {
        planner: &planner(0, 0),
        shown: None,
        verb: Verb::Release,
        file: None,
        is_stopped: &|| false,
    };
    let mut ready = loop {
        match prepare(&mut machine, &state, &job) {
            // Another test's child may have the lock's descriptor for a moment.
            Err(reports) if ids(&reports).contains("host-busy") => std::thread::yield_now(),
            ready => break ready.unwrap(),
        }
    };
    let within = Duration::from_millis(1);
    let done = keep_if_confirmed(&mut machine, &state, &mut ready, &job, within, &mut |_| {});
    assert!(ids(&done.unwrap_err()).contains("not-confirmed"));
    for (pf, facts) in &before.pfs {
        assert_eq!(machine.now.pfs[pf].count, facts.count);
    }
    assert!(state.baseline().unwrap().is_some() && state.applied().unwrap().is_some());
}

#[test]
fn change_that_nobody_confirms_undoes_itself() {
    let mut scene = Scene::new("undone", 100);
    assert_eq!(scene.word(), "not-confirmed");
    assert_eq!(scene.hands().machine().now, scene.before);
    assert_eq!(scene.folder.journals(), 0);
    assert!(scene.state().applied().unwrap().is_none());
    let late = confirm(&scene.state()).unwrap_err();
    assert_eq!(late.id, ErrorId::NothingToConfirm);
}

#[test]
fn change_whose_child_is_killed_is_undone_by_recovery() {
    let mut scene = Scene::new("killed", 600_000);
    scene.until_it_waits();
    scene.child.kill().unwrap();
    scene.child.wait().unwrap();
    let state = scene.state();
    let refused = confirm(&state).unwrap_err();
    assert_eq!(refused.id, ErrorId::NothingToConfirm);
    let recovered = recovered(&state, &mut scene.hands());
    assert!(recovered.left.is_empty(), "{:?}", recovered.left);
    assert!(!recovered.steps.is_empty());
    assert_eq!(scene.hands().machine().now, scene.before);
    assert_eq!(scene.folder.journals(), 0);
}
