use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use iommu::bdf::Bdf;

use super::{Entry, Identity, InUse, Record, State};
use crate::{
    error::{ErrorId, Report},
    sriov::Observed,
};

const VF: &str = "0000:01:10.0";

fn vf() -> Bdf {
    VF.parse().unwrap()
}

fn record() -> Record {
    let device = Identity {
        vendor: "0x8086".to_owned(),
        device: "0x10ca".to_owned(),
        class: "0x020000".to_owned(),
    };
    let evidence = vec!["VFIO_DEVICE_RESET failed: ENOTTY".to_owned()];
    Record::new(
        vf(),
        device,
        "it did not come back clean",
        evidence,
        "web-1",
    )
}

/// A folder of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("narrows-state-{}-{name}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn state(&self) -> State {
        State::new(&self.0)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn id(report: &Report) -> String {
    report.id.to_string()
}

#[test]
fn a_folder_that_does_not_exist_quarantines_nothing() {
    let state = State::new("/nonexistent/narrows");
    assert!(state.refusal(vf()).is_none());
    assert!(state.quarantined().unwrap().is_empty());
}

#[test]
fn a_quarantined_function_is_refused_until_it_is_released_by_name() {
    let folder = Folder::new("life");
    let state = folder.state();
    state.put_into_quarantine(&record()).unwrap();
    // Another program, after a reboot: nothing but the folder is common.
    let state = folder.state();
    let refusal = state.refusal(vf()).unwrap();
    assert_eq!(id(&refusal), ErrorId::DeviceQuarantined.name());
    let text = refusal.to_string();
    for word in [
        "web-1",
        "did not come back clean",
        "ENOTTY",
        "narrows quarantine release 0000:01:10.0",
        "since 2",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(state.refusal("0000:01:10.1".parse().unwrap()).is_none());

    let (kept, was) = state.release(vf(), Some("slot reseated")).unwrap();
    assert_eq!(was.unwrap().reason, record().reason);
    assert!(state.refusal(vf()).is_none());
    let kept: Record = serde_json::from_slice(&fs::read(kept).unwrap()).unwrap();
    assert_eq!(kept.note.as_deref(), Some("slot reseated"));
    assert!(kept.released.is_some());
    assert_eq!(names(&folder.path("quarantine")), Vec::<String>::new());
}

#[test]
fn releasing_what_is_not_there_names_what_is() {
    let folder = Folder::new("absent");
    let state = folder.state();
    let other: Bdf = "0000:02:00.1".parse().unwrap();
    let report = state.release(other, None).unwrap_err();
    assert!(
        report.why[0].contains("nothing is in quarantine"),
        "{report}"
    );
    state.put_into_quarantine(&record()).unwrap();
    let report = state.release(other, None).unwrap_err();
    assert_eq!(id(&report), ErrorId::NotQuarantined.name());
    assert!(report.why[0].contains(VF), "{report}");
}

#[test]
fn a_damaged_record_keeps_its_function_in_quarantine() {
    let folder = Folder::new("damaged");
    let state = folder.state();
    let path = state.put_into_quarantine(&record()).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    let later = whole.replace("\"version\": 1", "\"version\": 2");
    let unknown = whole.replace("\"version\": 1", "\"version\": 1, \"more\": 1");
    let other = whole.replace(VF, "0000:01:10.1");
    for text in ["", "{", &whole[..whole.len() / 2], &later, &unknown, &other] {
        fs::write(&path, text).unwrap();
        let refusal = state.refusal(vf()).unwrap();
        assert_eq!(id(&refusal), ErrorId::StateDamaged.name(), "{text}");
        assert!(
            refusal
                .to_string()
                .contains("quarantine release 0000:01:10.0"),
            "{refusal}"
        );
        let entries = state.quarantined().unwrap();
        assert!(matches!(
            entries.as_slice(),
            [Entry::Damaged { bdf: Some(_), .. }]
        ));
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            text,
            "it is left as it is"
        );
    }
    // The way out keeps what was there.
    let (kept, was) = state.release(vf(), None).unwrap();
    assert!(was.is_none());
    assert_eq!(fs::read_to_string(kept).unwrap(), other);
    assert!(state.refusal(vf()).is_none());
}

#[test]
fn files_that_were_never_finished_count_for_nothing_and_strangers_are_told() {
    let folder = Folder::new("strangers");
    let state = folder.state();
    state.check_writable().unwrap();
    assert_eq!(names(&folder.path("quarantine")), Vec::<String>::new());
    fs::write(folder.path("quarantine/.0000:01:10.0.json.7.new"), "{").unwrap();
    assert!(state.refusal(vf()).is_none());
    assert!(state.quarantined().unwrap().is_empty());
    fs::write(folder.path("quarantine/notes.txt"), "x").unwrap();
    assert!(matches!(
        state.quarantined().unwrap().as_slice(),
        [Entry::Damaged { bdf: None, .. }]
    ));
}

#[test]
fn a_state_that_cannot_be_written_is_noticed_before() {
    let folder = Folder::new("unwritable");
    // A file where the folder should be: also root cannot write there.
    fs::write(folder.path("file"), "").unwrap();
    fs::set_permissions(folder.path("file"), fs::Permissions::from_mode(0o644)).unwrap();
    let state = State::new(folder.path("file"));
    let report = state.check_writable().unwrap_err();
    assert_eq!(id(&report), ErrorId::StateUnwritable.name());
    state.put_into_quarantine(&record()).unwrap_err();
}

#[test]
fn the_second_run_of_a_function_is_told_who_has_it() {
    let folder = Folder::new("in-use");
    let state = folder.state();
    let first = InUse::take(&state, vf(), "web-1").unwrap();
    assert_eq!(first.bdf(), vf());
    let second = InUse::take(&state, vf(), "web-2").unwrap_err();
    assert_eq!(id(&second), ErrorId::DeviceInUse.name());
    let who = format!("guest web-1, process {}", std::process::id());
    assert!(second.why[0].contains(&who), "{second}");
    // Others could lock what they can open.
    let mode = |name| {
        fs::metadata(folder.path(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode("in-use"), mode("in-use/0000:01:10.0")),
        (0o700, 0o600)
    );
    let other = InUse::take(&state, "0000:01:10.1".parse().unwrap(), "web-2").unwrap();
    drop((first, other));
    let third = InUse::take(&state, vf(), "web-2").unwrap();
    assert_eq!(third.killed_before(), None);
    drop(third);
    // A process that was killed leaves its note, and no lock.
    fs::write(
        folder.path("in-use/0000:01:10.0"),
        "guest web-3, process 7\n",
    )
    .unwrap();
    let fourth = InUse::take(&state, vf(), "web-2").unwrap();
    assert_eq!(fourth.killed_before(), Some("guest web-3, process 7"));
}

#[test]
fn note_of_a_run_that_is_gone_is_not_taken_for_a_later_process() {
    let folder = Folder::new("note");
    let state = State::new(&folder.0);
    let vf: Bdf = "0000:01:10.0".parse().unwrap();
    let path = folder.path("in-use/0000:01:10.0");
    let running = || {
        let records = state.records(&Observed::default()).unwrap();
        records.running.get(&vf).cloned()
    };
    let run = InUse::take(&state, vf, "web").unwrap();
    assert_eq!(running().as_deref(), Some("web"));
    let note = fs::read_to_string(&path).unwrap();
    let (who, start) = note.trim().rsplit_once(' ').unwrap();
    let other = start.parse::<u64>().unwrap() + 1;
    fs::write(&path, format!("{who} {other}\n")).unwrap();
    assert_eq!(running(), None);
    // By an earlier version, which wrote no time.
    fs::write(
        &path,
        format!("guest web, process {}\n", std::process::id()),
    )
    .unwrap();
    assert_eq!(running().as_deref(), Some("web"));
    drop(run);
    assert_eq!(running(), None);
}
