//! What an operator sees: the built binary on made-up hosts.
#![expect(
    clippy::unwrap_used,
    reason = "a test whose scene cannot be set up has failed"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, id},
    sync::atomic::{AtomicU32, Ordering},
};

use iommu::fake::FakeHost;

const PF: &str = "0000:01:00.0";
const VF: &str = "0000:01:10.0";

/// What a run of `narrows` left.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A folder with a guest file, its kernel and a host; removed at its end.
struct Scene(PathBuf);

impl Scene {
    fn new(guest: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("narrows-cli-{}-{count}", id()));
        fs::create_dir_all(&folder).unwrap();
        let mut kernel = vec![0; 0x1000];
        kernel[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x206..0x208].copy_from_slice(&[0x0F, 2]);
        kernel[0x236] = 1;
        fs::write(folder.join("vmlinuz"), kernel).unwrap();
        fs::write(folder.join("guest.toml"), guest).unwrap();
        Self(folder)
    }

    /// Writes a host with a free VF, changed by `change`.
    fn host(self, change: fn(FakeHost) -> FakeHost) -> Self {
        let host = FakeHost::new(self.0.join("root"))
            .file(
                "proc/cpuinfo",
                "address sizes : 39 bits physical, 48 bits virtual\n",
            )
            .file("proc/meminfo", "MemAvailable: 8388608 kB\n")
            .file("sys/devices/system/cpu/online", "0-3\n")
            .file("dev/kvm", "")
            .pf(PF, 12)
            .attribute("sriov_drivers_autoprobe", "0")
            .vf(VF, PF, 13);
        change(host).write().unwrap();
        self
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        narrows(&self.0, arguments)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn narrows(folder: &Path, arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_narrows"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("NO_COLOR")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn guest(more: &str) -> String {
    format!("name = \"web-1\"\nmemory = \"512M\"\nkernel = \"vmlinuz\"\n{more}")
}

fn with_vf() -> String {
    guest(&format!("\n[[device]]\nbdf = \"{VF}\"\n"))
}

#[test]
fn check_needs_no_host() {
    let ran = Scene::new(&with_vf()).run(&["check", "guest.toml", "--root", "/nowhere"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(ran.stdout, "guest.toml: guest web-1 is well-formed\n");
}

#[test]
fn check_points_at_the_mistake() {
    let ran = Scene::new(&guest("vcpu = 2\n")).run(&["check", "guest.toml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert_eq!(
        ran.stderr,
        "error[spec-unknown-key]: key `vcpu` is not known\n  \
           --> guest.toml:4:1\n    \
             |\n  \
           4 | vcpu = 2\n    \
             | ^^^^\n  \
           why: an unknown key is refused, so that no wish is silently ignored\n  \
           fix: did you mean `vcpus`?\n  \
           more: narrows explain spec-unknown-key\n"
    );
}

#[test]
fn check_looks_at_the_files() {
    let scene = Scene::new(&guest("initramfs = \"initrd\"\n"));
    fs::write(scene.0.join("vmlinuz"), "text").unwrap();
    let ran = scene.run(&["check", "guest.toml", "--json"]);
    assert_eq!(ran.code, Some(1));
    let json: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(
        (&json["apiVersion"], &json["kind"]),
        (&"v1alpha1".into(), &"Errors".into())
    );
    let ids: Vec<_> = json["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["id"].as_str())
        .collect();
    assert_eq!(ids, [Some("kernel-format"), Some("file-unreadable")]);
    assert_eq!(json["errors"][1]["location"]["line"], 4);
}

/// A host file, and `more` of its only PF.
fn host_file(more: &str) -> String {
    format!("[[pool]]\nname = \"a\"\nkind = \"nic\"\n[[pf]]\ninterface = \"eth0\"\nvfs = 4\n{more}")
}

#[test]
fn check_tells_a_host_file_by_its_tables() {
    let scene = Scene::new(&host_file("pools = { a = \"0-3\" }\n"));
    let ran = scene.run(&["check", "guest.toml", "--root", "/nowhere"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let said = "guest.toml: host file of 1 PF and 1 pool is well-formed\n";
    assert_eq!(ran.stdout, said);
    let ran = Scene::new(&host_file("pools = { a = \"2-4\" }\n")).run(&["check", "guest.toml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert_eq!(
        ran.stderr,
        "error[vf-index]: the PF has no VF 4\n  \
           --> guest.toml:7:15\n    \
             |\n  \
           7 | pools = { a = \"2-4\" }\n    \
             |               ^^^^^\n  \
           why: `vfs` is 4: they are 0 to 3\n  \
           fix: take the number out, or raise `vfs`\n  \
           more: narrows explain vf-index\n"
    );
}

#[test]
fn check_warns_of_a_weak_host_file_and_reads_the_profiles_that_it_names() {
    let weak = format!(
        "profiles = [\"mine.toml\"]\n{}",
        host_file("[[pf.vf]]\nindex = \"0\"\ntrust = true\n")
    );
    let scene = Scene::new(&weak);
    let ran = scene.run(&["check", "guest.toml"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.starts_with(
            "error[file-unreadable]: profile mine.toml cannot be read\n  --> guest.toml:1:13\n"
        ),
        "{}",
        ran.stderr
    );
    fs::write(scene.0.join("mine.toml"), "format = 2\n").unwrap();
    let ran = scene.run(&["check", "guest.toml"]);
    assert!(
        ran.stderr.contains(
            "error[profile-malformed]: 2 is out of range for `format`\n  --> mine.toml:1:10\n"
        ),
        "{}",
        ran.stderr
    );
    let profile =
        include_str!("../hw-configs/profiles/intel-ice.toml").replacen("intel-ice", "mine", 1);
    fs::write(scene.0.join("mine.toml"), profile).unwrap();
    let ran = scene.run(&["check", "guest.toml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let first = "warning[pool-weak]: `trust = true` gives guests more than is safe\n  --> guest.toml:10:9\n";
    assert!(ran.stderr.starts_with(first), "{}", ran.stderr);
}

#[test]
fn plan_shows_what_would_be_done() {
    let scene = Scene::new(&with_vf()).host(|host| host);
    let ran = scene.run(&["--root", "root", "plan", "guest.toml"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(
        ran.stdout.starts_with("guest web-1: 1 vCPU, 512 MiB\n"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout
            .contains("device 0000:01:10.0 -> 00:01.0: group 13, 3 MSI-X vectors")
    );

    let ran = scene.run(&["--root", "root", "plan", "guest.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &json["kind"]), (Some(0), &"Plan".into()));
    assert_eq!(json["plan"]["functions"][0]["bdf"], VF);
}

#[test]
fn a_refusal_ends_with_3() {
    let scene = Scene::new(&with_vf()).host(|host| host.driver("igbvf"));
    let ran = scene.run(&["--root", "root", "plan", "guest.toml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""));
    assert!(
        ran.stderr.starts_with(
            "error[device-host-driver]: cannot assign VF 0000:01:10.0\n  --> guest.toml:6:7\n"
        ),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr
            .contains("fix: echo 0000:01:10.0 > /sys/bus/pci/drivers/igbvf/unbind")
    );
}

#[test]
fn run_touches_nothing_before_the_plan_stands() {
    let scene = Scene::new(&with_vf()).host(|host| host.group_type(12, "identity"));
    let ran = scene.run(&["--root", "root", "run", "guest.toml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""));
    assert!(
        ran.stderr
            .starts_with("error[pf-identity]: cannot assign VF")
    );
    let over = format!("root/sys/bus/pci/devices/{VF}/driver_override");
    assert_eq!(
        fs::read_to_string(scene.0.join(over)).unwrap().trim(),
        "(null)"
    );
}

#[test]
fn an_opt_out_is_a_warning_on_standard_error() {
    let guest = with_vf() + "accept = [\"device-no-reset\"]\n";
    let scene = Scene::new(&guest).host(|host| host.reset_methods(""));
    let ran = scene.run(&["--root", "root", "plan", "guest.toml"]);
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.stderr
            .starts_with("warning[device-no-reset]: assigning VF 0000:01:10.0"),
        "{}",
        ran.stderr
    );
    assert!(ran.stdout.contains("  accepted: device-no-reset\n"));
}

#[test]
fn a_host_that_is_none_is_named() {
    let ran = Scene::new(&with_vf()).run(&["--root", "/nowhere", "plan", "guest.toml"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.starts_with("error[host-unreadable]"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_wrong_command_line_ends_with_64() {
    let folder = std::env::temp_dir();
    for arguments in [
        &[] as &[&str],
        &["plan"],
        &["fly"],
        &["check", "x", "--color", "sometimes"],
    ] {
        let ran = narrows(&folder, arguments);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(64), ""),
            "{arguments:?}"
        );
    }
    let ran = narrows(&folder, &["--version"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stdout.starts_with("narrows 0."));
    assert_eq!(narrows(&folder, &["--help"]).code, Some(0));
}

#[test]
fn colour_is_for_terminals_or_on_request() {
    let scene = Scene::new("x");
    assert!(!scene.run(&["check", "guest.toml"]).stderr.contains('\x1b'));
    assert!(
        scene
            .run(&["check", "guest.toml", "--color", "always"])
            .stderr
            .contains('\x1b')
    );
}

/// What every verb prints of text that would steer a terminal.
fn assert_harmless(text: &str) {
    let is_harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!text.contains(is_harmful), "{text:?}");
    assert!(text.contains("\\x1b[2J"), "{text:?}");
}

#[test]
fn a_hosts_words_cannot_steer_the_terminal() {
    let scene = Scene::new("x").host(|host| {
        host.interface("eth\x1b[2J\u{9b}\u{202e}")
            .driver("igb\x1b[2J")
            .other_member(13, "INT\x1b[2J")
            .kernel("6.12\x1b[2J")
            .cmdline("intel_iommu=off iommu=\x1b[2J,pt")
    });
    for verb in [
        &["inventory"] as &[&str],
        &["doctor"],
        &["doctor", "--all"],
        &["inventory", "--svg"],
    ] {
        let ran = scene.run(&[&["--root", "root"], verb].concat());
        assert_harmless(&ran.stdout);
    }
    // Of the colours, only our own are left.
    let ran = scene.run(&["--root", "root", "--color", "always", "doctor"]);
    assert!(!ran.stdout.contains("\x1b[2J") && ran.stdout.contains("\x1b[0m"));
    let ran = scene.run(&["--root", "root", "--color", "always", "inventory"]);
    assert!(!ran.stdout.contains("\x1b[2J") && ran.stdout.contains("\x1b[0m"));
}

#[test]
fn a_guest_file_cannot_steer_the_terminal() {
    let scene = Scene::new("name = \"web\x1b[2J\u{202e}\"\nvcpu = 2\n");
    assert_harmless(&scene.run(&["check", "guest.toml"]).stderr);
    // TOML has escapes of its own.
    let guest = guest("").replace("vmlinuz", "vm\\u001b[2J\\u202elinux");
    let scene = Scene::new(&guest).host(|host| host);
    assert_harmless(&scene.run(&["check", "guest.toml"]).stderr);
    let kernel = scene.0.join("vm\x1b[2J\u{202e}linux");
    fs::rename(scene.0.join("vmlinuz"), kernel).unwrap();
    let ran = scene.run(&["--root", "root", "plan", "guest.toml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_harmless(&ran.stdout);
}
