//! The quarantine as an operator sees it: the built binary on a made-up host.
#![expect(
    clippy::unwrap_used,
    reason = "a test whose scene cannot be set up has failed"
)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, id},
    sync::atomic::{AtomicU32, Ordering},
};

use iommu::{bdf::Bdf, fake::FakeHost};
use narrows::{
    sriov::{Anchor, Event, VfState},
    state::{Identity, Record, State},
};

const PF: &str = "0000:01:00.0";
const VF: &str = "0000:01:10.0";

/// A folder with a guest file and a host whose VF is in quarantine; removed at its end.
struct Scene(PathBuf);

impl Scene {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("narrows-quarantine-{}-{count}", id()));
        fs::create_dir_all(&folder).unwrap();
        let mut kernel = vec![0; 0x1000];
        kernel[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x206..0x208].copy_from_slice(&[0x0F, 2]);
        kernel[0x236] = 1;
        fs::write(folder.join("vmlinuz"), kernel).unwrap();
        let guest = format!(
            "name = \"web-1\"\nmemory = \"512M\"\nkernel = \"vmlinuz\"\n[[device]]\nbdf = \"{VF}\"\n"
        );
        fs::write(folder.join("guest.toml"), guest).unwrap();
        FakeHost::new(folder.join("root"))
            .file(
                "proc/cpuinfo",
                "address sizes : 39 bits physical, 48 bits virtual\n",
            )
            .file("proc/meminfo", "MemAvailable: 8388608 kB\n")
            .file("sys/devices/system/cpu/online", "0-3\n")
            .file("dev/kvm", "")
            .pf(PF, 12)
            .vf(VF, PF, 13)
            .write()
            .unwrap();
        let scene = Self(folder);
        let bdf: Bdf = VF.parse().unwrap();
        let evidence = vec!["VFIO_DEVICE_RESET failed: ENOTTY".to_owned()];
        let record = Record::new(
            bdf,
            Identity::default(),
            "it did not come back clean",
            evidence,
            "web-0",
        );
        scene.state().put_into_quarantine(&record).unwrap();
        scene
    }

    /// Where the host's root has it, so that no option is needed.
    fn state(&self) -> State {
        State::new(self.0.join("root/var/lib/narrows"))
    }

    /// Exit status, standard output, standard error.
    fn run(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_narrows"))
            .args(["--root", "root"])
            .args(words)
            .current_dir(&self.0)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn plan_for_a_quarantined_function_is_refused_with_the_way_out() {
    let scene = Scene::new();
    for verb in ["plan", "run"] {
        let (_, _, text) = scene.run(&[verb, "guest.toml"]);
        for word in [
            "error[device-quarantined]: cannot assign 0000:01:10.0",
            "--> guest.toml:5:7",
            "after a run of guest web-0",
            "VFIO_DEVICE_RESET failed: ENOTTY",
            "narrows quarantine release 0000:01:10.0",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
    // Naming another folder frees nothing.
    for verb in [["plan", "guest.toml"], ["doctor", VF]] {
        let words = [&["--state", "elsewhere"][..], &verb].concat();
        let (status, out, err) = scene.run(&words);
        assert_eq!(status, Some(3), "{out}{err}");
        assert!((out + &err).contains("device-quarantined"));
    }
}

#[test]
fn the_list_says_what_and_why_and_as_json_too() {
    let scene = Scene::new();
    let (status, list, _) = scene.run(&["quarantine"]);
    assert_eq!(status, Some(0));
    for word in [VF, "guest web-0", "it did not come back clean", "ENOTTY"] {
        assert!(list.contains(word), "{word}: {list}");
    }
    let (status, list, _) = scene.run(&["quarantine", "--json"]);
    assert_eq!(status, Some(0));
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["kind"], "Quarantine");
    assert_eq!(list["quarantined"][0]["bdf"], VF);
    assert_eq!(list["damaged"], serde_json::json!([]));
}

#[test]
fn release_is_by_name_and_releases_all_or_none() {
    let scene = Scene::new();
    let (status, _, text) = scene.run(&["quarantine", "release"]);
    assert_eq!(status, Some(64), "{text}");
    for other in ["0000:01:10.2", "all", "*"] {
        let (status, _, text) = scene.run(&["quarantine", "release", VF, other]);
        assert_eq!(status, Some(1), "{text}");
        assert!(scene.state().refusal(VF.parse().unwrap()).is_some());
    }
    let (_, _, text) = scene.run(&["quarantine", "release", "0000:01:10.2"]);
    assert!(text.contains("in quarantine: 0000:01:10.0"), "{text}");
    let (status, said, text) = scene.run(&["quarantine", "release", VF, "--note", "card replaced"]);
    assert_eq!((status, text.as_str()), (Some(0), ""));
    assert!(
        said.contains("0000:01:10.0 is released: it did not come back clean since 2"),
        "{said}"
    );
    let (status, list, _) = scene.run(&["quarantine"]);
    assert_eq!(
        (status, list.as_str()),
        (Some(0), "nothing is in quarantine\n")
    );
}

#[test]
fn a_released_vf_is_created_and_not_clean() {
    let scene = Scene::new();
    let bdf: Bdf = VF.parse().unwrap();
    let pf: Bdf = PF.parse().unwrap();
    let anchor = Anchor::Slot(pf);
    let state = scene.state();
    // As a run leaves it that was killed between the quarantine and the record.
    state
        .change_pf(pf, &anchor, |kept| {
            kept.step(0, bdf, Event::Created, "then")?;
            kept.step(0, bdf, Event::ResetSeen, "then")
        })
        .unwrap();
    let is = || {
        let kept = state.change_pf(pf, &anchor, |kept| Ok(kept.vfs[&0].state));
        kept.unwrap()
    };
    for reported in [false, true] {
        if reported {
            let record = Record::new(bdf, Identity::default(), "again", Vec::new(), "web-0");
            state.put_into_quarantine(&record).unwrap();
            state.mark_quarantined(bdf).unwrap();
            assert_eq!(is(), VfState::Quarantined);
        }
        let (status, said, text) = scene.run(&["quarantine", "release", VF]);
        assert_eq!((status, text.as_str()), (Some(0), ""));
        assert!(said.contains("is created: narrows host apply"), "{said}");
        assert_eq!(is(), VfState::Created);
    }
}

#[test]
fn damaged_record_is_told_keeps_the_function_and_can_be_released() {
    let scene = Scene::new();
    let path = scene
        .0
        .join("root/var/lib/narrows/quarantine")
        .join(format!("{VF}.json"));
    fs::write(&path, "{ \"version\": 1").unwrap();
    let (status, _, text) = scene.run(&["quarantine"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("[state-damaged]"), "{text}");
    let (_, _, text) = scene.run(&["plan", "guest.toml"]);
    assert!(text.contains("error[state-damaged]"), "{text}");
    let (status, said, _) = scene.run(&["quarantine", "release", VF]);
    assert_eq!(status, Some(0));
    assert!(said.contains("its record was damaged"), "{said}");
    assert!(!path.exists());
}

#[test]
fn doctor_refuses_what_is_in_quarantine_and_says_since_when() {
    let scene = Scene::new();
    let (status, text, _) = scene.run(&["doctor", VF]);
    assert_eq!(status, Some(3), "{text}");
    for words in [
        "device-quarantined",
        "after a run of guest web-0: it did not come back clean",
        &format!("narrows quarantine release {VF}"),
    ] {
        // Lines are wrapped.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(words), "{words}:\n{text}");
    }
    let (_, json, _) = scene.run(&["doctor", VF, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let id = json.pointer("/devices/0/quarantine/id").unwrap();
    assert_eq!(id, "device-quarantined");
    assert_eq!(json.pointer("/verdict").unwrap(), "refuse");
    let (status, _, _) = scene.run(&["quarantine", "release", VF]);
    assert_eq!(status, Some(0));
    let (status, text, _) = scene.run(&["doctor", VF]);
    assert_eq!(status, Some(0), "{text}");
}
