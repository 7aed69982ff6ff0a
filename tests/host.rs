//! `narrows host`, `vf`, `ps` and `check` on made-up hosts: statuses, JSON against its schemas, and what is refused.
#![expect(
    clippy::unwrap_used,
    reason = "a test whose scene cannot be set up has failed"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, id},
};

use boon::{Compiler, Schemas};
use iommu::fake::FakeHost;
use serde_json::Value;

const NIC: &str = "0000:01:00.0";
const DRIVE: &str = "0000:02:00.0";
const POOLS: &str =
    "[[pool]]\nname = \"a\"\nkind = \"nic\"\n[[pool]]\nname = \"b\"\nkind = \"nic\"\n";
/// A file that the host is fit for, and that it does not fit yet. Its PF ends it.
const FILE: &str = "[[pool]]\nname = \"a\"\nkind = \"nic\"\n[[pf]]\ninterface = \"eth0\"\nvfs = 4\npools = { a = \"0-3\" }\n";
const DISKS: &str = "[[pool]]\nname = \"d\"\nkind = \"nvme\"\naccept = [\"nvme-vf-manages\"]\n[[pf]]\nserial = \"fake-nvme0\"\nvfs = 2\npools = { d = \"0-1\" }\n";

/// A folder with a host, a state folder and a host file; removed at its end.
struct Scene(PathBuf);

impl Scene {
    fn new(name: &str, change: fn(FakeHost) -> FakeHost, file: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("narrows-host-{name}-{}", id()));
        fs::create_dir_all(folder.join("state")).unwrap();
        let host = FakeHost::new(folder.join("root"))
            .nvme_pf(DRIVE, 13, "nvme0")
            .total_vfs(4)
            .subsystem("nvme0", 4, &[(2, 64 << 20, &[])])
            .pf(NIC, 12)
            .driver("igb")
            .total_vfs(7)
            .interface("eth0")
            .port("eth0", true, 1000);
        change(host).write().unwrap();
        fs::write(folder.join("host.toml"), file).unwrap();
        Self(folder)
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_narrows"))
            .args(["--root", "root", "--state", "state"])
            .args(arguments)
            .current_dir(&self.0)
            .env_remove("NO_COLOR")
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let code = output.status.code();
        (code, text(output.stdout), text(output.stderr))
    }

    /// Everything below the host and the state folder: of files what they hold, of links where they lead.
    fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut folders = vec![self.0.join("root"), self.0.join("state")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let (path, kind) = entry.map(|e| (e.path(), e.file_type().unwrap())).unwrap();
                let held = match (kind.is_dir(), kind.is_symlink()) {
                    (true, _) => Vec::new(),
                    (_, true) => fs::read_link(&path)
                        .unwrap()
                        .into_os_string()
                        .into_encoded_bytes(),
                    _ => fs::read(&path).unwrap(),
                };
                if kind.is_dir() {
                    folders.push(path.clone());
                }
                all.insert(path, held);
            }
        }
        all
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn same(host: FakeHost) -> FakeHost {
    host
}

/// The host with the VFs of its NIC.
fn with_vfs(host: FakeHost) -> FakeHost {
    host.autoprobe(false).vfs_of(NIC, 4, 20)
}

fn holds(name: &str, json: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join(format!("docs/schema/{name}.schema.json"));
    let schema = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("schema.json", schema).unwrap();
    let index = compiler.compile("schema.json", &mut schemas).unwrap();
    let mut document: Value = serde_json::from_str(json).unwrap();
    let result = schemas.validate(&document, index);
    assert!(result.is_ok(), "{name}: {:#}\n{json}", result.unwrap_err());
    // The schema has teeth: what it does not know is no part of the document.
    document["surprise"] = true.into();
    assert!(schemas.validate(&document, index).is_err(), "{name}");
    document
}

#[test]
fn bad_input_is_refused_at_its_line_before_anything_is_touched() {
    let with = |more: &str| format!("{POOLS}[[pf]]\ninterface = \"eth0\"\nvfs = 4\n{more}");
    let two = "pools = { a = \"0-3\" }\n[[pf.vf]]\nindex = \"0\"\nmac = \"02:00:00:00:00:01\"\n[[pf.vf]]\nindex = \"1\"\nmac = \"02:00:00:00:00:01\"\n";
    let managed = |host: FakeHost| {
        let told = "cntlid 0\nserial fake-nvme0\nmodel Fake NVMe\nsubnqn nqn.2019-08.org.example:nvme0\n\
                    capacity 67108864\nunallocated 67108864\ncan attach manage virt format\n\
                    flexible vq total 16 assigned 0 to-primary 0 private 3 most 4 granularity 1\n\
                    flexible vi total 16 assigned 0 to-primary 0 private 17 most 4 granularity 1\n\
                    secondary 1 vf 1 offline vq 0 vi 0\nsecondary 2 vf 2 offline vq 0 vi 0";
        host.file("narrows/nvme/nvme0", told)
    };
    let routed = |host: FakeHost| {
        host.default_route("eth0", "10.9.0.254")
            .address("eth0", "10.9.0.1/24")
    };
    let mounted = |host: FakeHost| {
        host.subsystem("nvme0", 4, &[(2, 64 << 20, &[0])])
            .block_device("nvme0", 2, "nvme0n1")
            .mount("nvme0n1", "/srv")
    };
    type Change = fn(FakeHost) -> FakeHost;
    #[rustfmt::skip]
    let rows: Vec<(&str, Change, String, &str, u32, i32)> = vec![
        ("vfs", same, FILE.replace("vfs = 4", "vfs = 8"), "vfs-overcommitted", 6, 1),
        ("mac-twice", same, with(two), "mac-listed-twice", 16, 1),
        ("multicast", same, with("[[pf.vf]]\nindex = \"0\"\nmac = \"01:00:5e:00:00:01\"\n"), "mac-multicast", 12, 1),
        ("vlan", same, FILE.replacen("\"nic\"\n", "\"nic\"\nvlan = 4096\n", 1), "bad-vlan", 4, 1),
        ("rate", same, FILE.replacen("\"nic\"\n", "\"nic\"\nmax_tx_rate = \"2G\"\n", 1), "rate-beyond-link", 4, 1),
        ("key", same, FILE.replacen("\"nic\"\n", "\"nic\"\nvlans = 1\n", 1), "spec-unknown-key", 4, 1),
        ("overlap", same, with("pools = { a = \"0-1\", b = \"1-2\" }\n"), "pools-overlap", 10, 1),
        ("namespace", managed, format!("{DISKS}[[pf.namespace]]\nname = \"x\"\nsize = \"1G\"\nvfs = \"0\"\n"), "namespace-overcommitted", 10, 1),
        ("only-route", routed, FILE.to_owned(), "pf-only-route", 5, 3),
        ("mounted", mounted, format!("{DISKS}[[pf.namespace]]\nname = \"x\"\nnsid = 2\nvfs = \"0\"\n"), "pf-mounted", 6, 3),
        ("managed", |host| host.file("etc/netplan/1.yaml", "network:\n  ethernets:\n    eth0:\n      virtual-function-count: 3\n"), FILE.to_owned(), "managed-elsewhere", 5, 3),
        ("assigned", |host| host.driver("vfio-pci"), FILE.replace("interface = \"eth0\"", "bdf = \"0000:01:00.0\""), "pf-assigned", 5, 3),
    ];
    let mut wrong = Vec::new();
    for (name, change, file, id, line, status) in rows {
        let scene = Scene::new(name, change, &file);
        let before = scene.everything();
        let (code, stdout, stderr) = scene.run(&["host", "plan", "host.toml"]);
        let is_told = stderr.contains(&format!("error[{id}]"))
            && stderr.contains(&format!("--> host.toml:{line}:"))
            && stderr.contains("fix: ");
        if code != Some(status) || !is_told {
            wrong.push(format!("{name} {id} {line} {code:?}:\n{stdout}{stderr}"));
        }
        let (code, stdout, stderr) = scene.run(&["host", "plan", "--json", "host.toml"]);
        // What is wrong with the file is an error; what stands in the way is in the plan.
        let document: Value = match status {
            3 if stderr.is_empty() => holds("host-plan", &stdout),
            _ => serde_json::from_str(&format!("{stdout}{stderr}")).unwrap(),
        };
        let told = ["errors", "refusals"].map(|list| document[list].as_array().cloned());
        let is_told = told.into_iter().flatten().flatten().any(|report| {
            let place = &report["location"];
            report["id"] == id && place["file"] == "host.toml" && place["line"] == line
        });
        if code != Some(status) || !is_told {
            wrong.push(format!(
                "{name} {id} {line} {code:?} as JSON:\n{stdout}{stderr}"
            ));
        }
        assert_eq!(before, scene.everything(), "{name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn statuses_tell_what_is_pending() {
    let scene = Scene::new("statuses", same, FILE);
    for (arguments, status) in [
        (&["host", "plan", "host.toml"] as &[&str], 2),
        (&["host", "status"], 0),
        (&["host", "status", "host.toml"], 2),
        (&["host", "import"], 0),
        (&["host", "export"], 0),
        (&["vf", "ls"], 0),
        (&["vf", "why", "0000:01:10.0"], 1),
        (&["vf", "why", "x"], 64),
        (&["ps"], 0),
        (&["check", "host.toml"], 0),
        (&["host", "plan"], 64),
        (&["host", "plan", "absent.toml"], 1),
        (&["host", "release"], 1),
    ] {
        let (code, stdout, stderr) = scene.run(arguments);
        assert_eq!(code, Some(status), "{arguments:?}\n{stdout}{stderr}");
    }
}

#[test]
fn what_import_writes_plans_nothing() {
    for (name, change) in [("import", same as fn(_) -> _), ("import-vfs", with_vfs)] {
        let scene = Scene::new(name, change, FILE);
        let (code, stdout, stderr) = scene.run(&["host", "import", "-o", "found.toml"]);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        let (code, stdout, stderr) = scene.run(&["host", "plan", "found.toml"]);
        let text = fs::read_to_string(scene.0.join("found.toml")).unwrap();
        assert_eq!(code, Some(0), "{name}\n{stdout}{stderr}\n{text}");
        let (code, ..) = scene.run(&["host", "import", "-o", "found.toml"]);
        assert_eq!(code, Some(1), "a file that is there is not written over");
    }
}

/// A card that could have more VFs, if its firmware were told.
#[test]
fn what_only_firmware_can_give_ends_plan_and_apply_with_a_status_of_its_own() {
    let scene = Scene::new(
        "firmware",
        |host| {
            let host = host.file("proc/sys/kernel/random/boot_id", "boot");
            with_vfs(host.driver("mlx5_core").total_vfs(4))
        },
        FILE,
    );
    let (code, stdout, stderr) = scene.run(&["host", "import", "-o", "found.toml"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let path = scene.0.join("found.toml");
    let found = fs::read_to_string(&path).unwrap();
    let more = found.replace("vfs = 4", "vfs = 8");
    assert_ne!(found, more);
    fs::write(&path, more).unwrap();
    let before = scene.everything();
    let (code, stdout, stderr) = scene.run(&["host", "plan", "found.toml"]);
    assert_eq!(code, Some(4), "{stdout}{stderr}");
    assert!(
        format!("{stdout}{stderr}").contains("firmware"),
        "{stdout}{stderr}"
    );
    let (code, stdout, stderr) = scene.run(&["host", "plan", "found.toml", "--json"]);
    assert_eq!(code, Some(4), "{stdout}{stderr}");
    let plan = holds("host-plan", &stdout);
    assert_eq!(plan["exit"], 4, "{stdout}");
    assert_eq!(
        plan["pending"].as_array().map(Vec::len),
        Some(1),
        "{stdout}"
    );
    assert_eq!(scene.everything(), before, "a plan has changed the host");
    // There is nothing else to do, and nothing was undone.
    let (code, stdout, stderr) = scene.run(&["host", "apply", "found.toml"]);
    assert_eq!(code, Some(4), "{stdout}{stderr}");
    assert!(
        format!("{stdout}{stderr}").contains("firmware"),
        "{stdout}{stderr}"
    );
}

#[test]
fn documents_have_the_published_forms() {
    for (name, change) in [("json", same as fn(_) -> _), ("json-vfs", with_vfs)] {
        let scene = Scene::new(name, change, FILE);
        let before = scene.everything();
        for (form, arguments) in [
            (
                "host-plan",
                &["host", "plan", "host.toml", "--json"] as &[&str],
            ),
            ("host-status", &["host", "status", "host.toml", "--json"]),
            ("host-status", &["host", "status", "--json"]),
            ("host-inventory", &["host", "export"]),
            ("vfs", &["vf", "ls", "--json"]),
            ("guests", &["ps", "--json"]),
        ] {
            let (_, stdout, stderr) = scene.run(arguments);
            assert_eq!(stderr, "", "{arguments:?}");
            let document = holds(form, &stdout);
            assert_eq!(document["apiVersion"], "v1alpha1", "{form}");
            if form == "host-inventory" {
                let host = serde_json::json!({ "kernel": "6.12.0", "iommu": "intel" });
                assert_eq!(document["host"], host, "a made-up host has no name");
            }
        }
        if name == "json-vfs" {
            holds("vf", &scene.run(&["vf", "why", "0000:01:10.0", "--json"]).1);
        }
        assert_eq!(
            before,
            scene.everything(),
            "{name}: who looks writes nothing"
        );
    }
}

#[test]
fn a_damaged_state_file_is_its_pfs_trouble_alone_with_a_way_out() {
    let scene = Scene::new("damaged", with_vfs, FILE);
    let path = scene.0.join(format!("state/vfs/{NIC}.json"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "{").unwrap();
    let remedy = "narrows vf forget 0000:01:00.0";

    let (code, stdout, stderr) = scene.run(&["host", "plan", "host.toml"]);
    assert_eq!(code, Some(3), "{stdout}{stderr}");
    assert!(stderr.starts_with("error[vf-state-damaged]"), "{stderr}");
    assert!(
        stderr.contains(remedy) && stderr.contains("host.toml:5"),
        "{stderr}"
    );
    // A file that does not name the PF has nothing to do with it.
    fs::write(scene.0.join("disks.toml"), DISKS).unwrap();
    let (code, stdout, stderr) = scene.run(&["host", "plan", "disks.toml"]);
    assert_eq!(code, Some(2), "{stdout}{stderr}");

    for (arguments, expected) in [
        (&["host", "status"] as &[&str], 2),
        (&["host", "status", "host.toml"], 2),
        (&["vf", "ls"], 0),
        (&["ps"], 0),
    ] {
        let (code, stdout, stderr) = scene.run(arguments);
        assert_eq!(code, Some(expected), "{arguments:?}\n{stdout}{stderr}");
        let said = stdout.clone() + &stderr;
        assert!(said.contains(remedy), "{arguments:?}\n{said}");
    }
    let (_, stdout, _) = scene.run(&["vf", "ls"]);
    assert!(stdout.contains("0000:01:10"), "VFs are listed: {stdout}");
    for (arguments, schema) in [
        (&["host", "status", "--json"] as &[&str], "host-status"),
        (&["vf", "ls", "--json"], "vfs"),
    ] {
        let document = holds(schema, &scene.run(arguments).1);
        assert_eq!(document["broken"][0]["id"], "vf-state-damaged");
    }
    assert_eq!(fs::read(&path).unwrap(), b"{", "never started anew");

    // The way out, once somebody has agreed to what is lost.
    let (code, stdout, stderr) = scene.run(&["vf", "forget", NIC]);
    assert_eq!(code, Some(64), "{stdout}{stderr}");
    assert!(
        stderr.contains("nobody can read") && stderr.contains("--yes"),
        "{stderr}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"{");
    let (code, stdout, stderr) = scene.run(&["vf", "forget", NIC, "--yes"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(!path.exists() && stdout.contains("lost: "), "{stdout}");
}

#[test]
fn why_goes_by_the_profiles_of_the_applied_file() {
    let file = FILE.replacen("[[pool]]", "profiles = [\"own.toml\"]\n[[pool]]", 1);
    let file = file
        .replace("vfs = 4", "vfs = 4\nprofile = \"own\"")
        .replace(
            "kind = \"nic\"",
            "kind = \"nic\"\nhold = \"always\"\nstate = \"disable\"",
        );
    let scene = Scene::new("profiles", with_vfs, &file);
    let igb = Path::new(env!("CARGO_MANIFEST_DIR")).join("hw-configs/profiles/intel-igb.toml");
    let profile = fs::read_to_string(igb)
        .unwrap()
        .replace("name = \"intel-igb\"", "name = \"own\"")
        .replace("state = []", "state = [\"auto\", \"enable\", \"disable\"]");
    fs::write(scene.0.join("own.toml"), &profile).unwrap();
    let place = scene.0.join("host.toml");
    let applied = serde_json::json!({
        "version": 1, "file": place, "text": file, "at": "2026-01-01T00:00:00Z", "narrows": "0"
    });
    fs::create_dir_all(scene.0.join("state/host")).unwrap();
    fs::write(scene.0.join("state/host/applied.json"), applied.to_string()).unwrap();
    // The profile that Narrows brings cannot set a link's state, so nothing differs by it.
    let (code, stdout, stderr) = scene.run(&["vf", "why", "0000:01:10.0"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(
        stdout.contains("differs from the file") && stdout.contains("disable"),
        "{stdout}{stderr}"
    );
}
