//! Recovery as an operator sees it: the built binary on a made-up host.
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

use iommu::{
    bind::{Binding, VFIO_PCI},
    fake::FakeHost,
    sysfs::SysRoot,
};
use narrows::state::{Changes, Claim, Identity, Journal, Left, ProcessId, State, Taken};

const PF: &str = "0000:01:00.0";
const VF: &str = "0000:01:10.0";

/// A folder with a guest file, a host, and the journal of a run that was killed; removed at its end.
struct Scene(PathBuf);

impl Scene {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("narrows-recovery-{}-{count}", id()));
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
        let root = FakeHost::new(folder.join("root"))
            .file(
                "proc/cpuinfo",
                "address sizes : 39 bits physical, 48 bits virtual\n",
            )
            .file("proc/meminfo", "MemAvailable: 8388608 kB\n")
            .file("proc/sys/kernel/random/boot_id", "boot-1\n")
            .file("sys/devices/system/cpu/online", "0-3\n")
            .file("dev/kvm", "")
            .pf(PF, 12)
            .vf(VF, PF, 13)
            .write()
            .unwrap();
        let scene = Self(folder);
        let taken = Taken {
            binding: Binding::plan(&root, VF.parse().unwrap(), VFIO_PCI).unwrap(),
            device: Identity::default(),
            before: None,
            lease: None,
        };
        let owner = ProcessId { pid: 7, start: 77 };
        let changes = Changes::new("web-0", owner, "boot-1", vec![taken], None);
        // A file of its own: a process that another test forks may have a copy of the lock of this one for a moment.
        let journal = Journal::begin(&scene.state(), changes).unwrap();
        let (path, text) = (journal.path().to_owned(), fs::read(journal.path()).unwrap());
        journal.remove().unwrap();
        fs::write(path, text).unwrap();
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
fn functions_of_a_killed_run_are_refused_until_they_are_recovered() {
    let scene = Scene::new();
    for verb in ["plan", "run"] {
        let (status, _, text) = scene.run(&[verb, "guest.toml"]);
        assert_eq!(status, Some(3), "{text}");
        for word in [
            "error[recover-needed]: cannot assign 0000:01:10.0",
            "guest web-0, process 7",
            "guest.toml:5:7",
            "fix: narrows recover",
        ] {
            assert!(text.contains(word), "no {word:?} in:\n{text}");
        }
    }
    let (status, said, text) = scene.run(&["recover", "--dry-run"]);
    assert_eq!((status, text.as_str()), (Some(0), ""));
    assert!(said.contains("guest web-0, process 7, since 20"), "{said}");
    assert!(said.contains(": to be recovered\n  0000:01:10.0 would be reset"));
    let (status, said, text) = scene.run(&["recover"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(
        said.contains(": recovered\n  0000:01:10.0 is given back"),
        "{said}"
    );
    let (status, said, _) = scene.run(&["recover"]);
    assert_eq!((status, said.trim()), (Some(0), "nothing to recover"));
    let (status, _, text) = scene.run(&["plan", "guest.toml"]);
    assert_eq!(status, Some(0), "{text}");
}

#[test]
fn who_has_the_journal_of_a_dead_run_is_named_and_looking_goes_on() {
    let scene = Scene::new();
    let host = SysRoot::new(scene.0.join("root"));
    let left = scene.state().left_behind(&host).unwrap();
    let [Left::Dead(remains)] = left.as_slice() else {
        panic!("{left:?}");
    };
    let Claim::Ours(_recovery) = remains.claim().unwrap() else {
        panic!("{remains:?} is locked");
    };
    let (status, said, text) = scene.run(&["recover", "--wait", "1"]);
    assert_eq!(status, Some(1), "{said}{text}");
    assert!(said.contains("not recovered"), "{said}");
    let who = format!("process {} puts it right already", id());
    assert!(said.contains(&who), "no {who:?} in:\n{said}");
    for word in [
        "recovery-held",
        &format!("process {} has its journal locked", id()),
    ] {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
    let (_, said, _) = scene.run(&["doctor"]);
    assert!(said.contains("recover-needed"), "{said}");
    let (status, _, text) = scene.run(&["plan", "guest.toml"]);
    assert_eq!(status, Some(3), "{text}");
    let (status, said, _) = scene.run(&["recover", "--guest", "web-1"]);
    assert_eq!((status, said.trim()), (Some(0), "nothing to recover"));
}

#[test]
fn doctor_tells_which_functions_a_killed_run_has_still() {
    let scene = Scene::new();
    let (_, said, _) = scene.run(&["doctor"]);
    assert!(said.contains("recover-needed"), "{said}");
    assert!(said.contains("narrows recover"), "{said}");
}

#[test]
fn what_was_done_is_told_as_json_and_nothing_else_is() {
    let scene = Scene::new();
    let (status, said, text) = scene.run(&["recover", "--json"]);
    assert_eq!((status, text.as_str()), (Some(0), ""));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["kind"], "Recovered");
    assert_eq!(said["dryRun"], false);
    assert_eq!(said["runs"][0]["steps"][0], "0000:01:10.0 is given back");
    assert_eq!(said["runs"][0]["left"], serde_json::json!([]));
}

#[test]
fn a_damaged_journal_fails_with_the_file_and_what_to_do() {
    let scene = Scene::new();
    let journal = "root/var/lib/narrows/journal/web-0-7-77.json";
    fs::write(scene.0.join(journal), "{}").unwrap();
    let (status, said, text) = scene.run(&["recover"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("not recovered"), "{said}");
    for word in ["journal-damaged", "web-0-7-77.json", "narrows inventory"] {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
    let (status, _, text) = scene.run(&["plan", "guest.toml"]);
    assert_eq!(status, Some(3));
    assert!(text.contains("error[journal-damaged]"), "{text}");
    assert!(scene.0.join(journal).exists(), "it is never dropped");
}
