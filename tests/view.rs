//! What an operator reads of made-up hosts: goldens of `doctor` and `inventory`, and their JSON against its schemas.
//!
//! `NARROWS_BLESS=1` writes the goldens anew: read the difference before committing it. `NARROWS_PICTURES=FOLDER`
//! also writes the picture of every host there, folded and unfolded, to look at.
#![expect(
    clippy::unwrap_used,
    reason = "a test whose scene cannot be set up has failed"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use boon::{Compiler, SchemaIndex, Schemas};
use iommu::{fake::FakeHost, sysfs::SysRoot, topology::Topology};
use narrows::{
    error::Color,
    host::{PciNames, Platform},
    view::{self, Examination, Scene, Topic, Wish},
};

/// What `pci.ids` says of the devices below.
const PCI_IDS: &str = "\
1000  Broadcom / LSI
\tc010  PEX880xx PCIe Gen 4 Switch
144d  Samsung Electronics Co Ltd
\ta824  NVMe SSD Controller PM173X
15b3  Mellanox Technologies
\t101d  MT2892 Family [ConnectX-6 Dx]
\t101e  ConnectX Family mlx5Gen Virtual Function
8086  Intel Corporation
\t10c9  82576 Gigabit Network Connection
\t10ca  82576 Virtual Function
\t3420  5520/5500/X58 I/O Hub PCI Express Root Port 1
";
const INTEL: &str = "vendor_id : GenuineIntel\nflags : fpu vmx\naddress sizes : 46 bits physical, 48 bits virtual\n";
const AMD: &str = "vendor_id : AuthenticAMD\nflags : fpu svm\naddress sizes : 48 bits physical, 48 bits virtual\n";

/// A made-up host as the verbs see it; its folder is removed at the end.
struct Look {
    folder: PathBuf,
    topology: Topology,
    names: PciNames,
    platform: Platform,
}

impl Look {
    fn at(name: &str, host: FakeHost) -> Self {
        let folder = std::env::temp_dir().join(format!("narrows-view-{name}-{}", process::id()));
        let root: SysRoot = host.at(&folder).write().unwrap();
        // Read as if it stood at `/`: where lines break does not depend on a folder of the moment.
        let recording = SysRoot::recording(root.as_path());
        Topology::read(&recording).unwrap();
        let at_root = SysRoot::captured("/", recording.recorded().unwrap());
        let topology = Topology::read(&at_root).unwrap();
        Self {
            names: PciNames::read(&root, &topology).unwrap(),
            platform: Platform::read(&root).unwrap(),
            folder,
            topology,
        }
    }

    fn scene(&self, is_unfolded: bool) -> Scene<'_> {
        Scene {
            topology: &self.topology,
            names: &self.names,
            platform: &self.platform,
            is_unfolded,
        }
    }

    fn examine(&self, wish: &Wish) -> Examination {
        view::examine(&self.topology, wish, |_| None).unwrap()
    }

    fn doctor(&self, wish: &Wish, is_verbose: bool) -> String {
        let found = self.examine(wish);
        let scene = self.scene(wish.is_all);
        view::doctor_text(&scene, &found, None, is_verbose, Color::Never)
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn empty() -> FakeHost {
    FakeHost::new("")
        .file("usr/share/misc/pci.ids", PCI_IDS)
        .file("proc/cpuinfo", INTEL)
        .file("sys/firmware/acpi/tables/DMAR", "")
        .file("etc/default/grub", "")
        .file("dev/kvm", "")
}

/// A NIC and an NVMe controller, each with VFs, on two nodes.
fn healthy() -> FakeHost {
    let mut host = empty()
        .iommufd()
        .bridge("0000:00:02.0", 1)
        .numa_node(0)
        .pf("0000:01:00.0", 12)
        .under("0000:00:02.0")
        .numa_node(0)
        .interface("enp1s0")
        .link("5.0 GT/s PCIe", "4");
    for (index, bdf) in ["10.0", "10.2", "10.4", "10.6", "11.0"].iter().enumerate() {
        let group = 13 + u32::try_from(index).unwrap();
        host = host
            .vf(&format!("0000:01:{bdf}"), "0000:01:00.0", group)
            .numa_node(0);
        if index == 0 {
            host = host.vfio("vfio0");
        }
    }
    host.bridge("0000:80:01.0", 30)
        .numa_node(1)
        .pf("0000:81:00.0", 31)
        .under("0000:80:01.0")
        .ids(0x144d, 0xa824, 0x01_0802)
        .driver("nvme")
        .controller("nvme0")
        .attribute("sriov_totalvfs", "32")
        .numa_node(1)
        .link("16.0 GT/s PCIe", "4")
        .vf("0000:81:00.1", "0000:81:00.0", 32)
        .ids(0x144d, 0xa824, 0x01_0802)
        .numa_node(1)
        .device("0000:80:05.0", 33)
        .numa_node(1)
        .reset_methods("")
}

fn shared_group() -> FakeHost {
    empty()
        .bridge("0000:00:02.0", 1)
        .pf("0000:01:00.0", 12)
        .under("0000:00:02.0")
        .vf("0000:01:10.0", "0000:01:00.0", 13)
        .vf("0000:01:10.2", "0000:01:00.0", 14)
        .vf("0000:01:10.4", "0000:01:00.0", 14)
        .driver("igbvf")
        .interface("enp1s0v2")
        .device("0000:00:1f.0", 20)
        .device("0000:00:1f.3", 20)
        .other_member(20, "INT3450:00")
}

/// A switch with two cards; the kernel has seen that its ports let them reach each other.
fn switch_without_acs() -> FakeHost {
    let port = |host: FakeHost, bdf: &str, kind: u8| {
        host.bridge(bdf, 5)
            .ids(0x1000, 0xc010, 0x06_0400)
            .express(kind)
            .no_acs()
    };
    let host = empty().bridge("0000:00:01.0", 1);
    let host = port(host, "0000:01:00.0", 5).under("0000:00:01.0");
    let host = port(host, "0000:02:00.0", 6).under("0000:01:00.0");
    let host = port(host, "0000:02:01.0", 6).under("0000:01:00.0");
    host.pf("0000:03:00.0", 5)
        .under("0000:02:00.0")
        .interface("enp3s0")
        .vf("0000:03:10.0", "0000:03:00.0", 5)
        .vf("0000:03:10.2", "0000:03:00.0", 5)
        .pf("0000:04:00.0", 5)
        .under("0000:02:01.0")
        .ids(0x144d, 0xa824, 0x01_0802)
        .driver("nvme")
        .controller("nvme0")
        .bar(0, 0xfd00_0000, 0x4000)
        .device("0000:00:1c.0", 7)
}

/// Two ports of 100 Gbit/s with 64 VFs each, on a host with two nodes.
fn large() -> FakeHost {
    let mut host = empty().iommufd();
    for (node, bus) in [(0_u32, 0x3b_u32), (1, 0xaf)] {
        let (root, pf) = (
            format!("0000:{:02x}:00.0", bus - 1),
            format!("0000:{bus:02x}:00.0"),
        );
        host = host
            .bridge(&root, 10 + node)
            .numa_node(node)
            .pf(&pf, 20 + node)
            .under(&root)
            .ids(0x15b3, 0x101d, 0x02_0000)
            .driver("mlx5_core")
            .attribute("sriov_totalvfs", "127")
            .interface(&format!("ens{node}f0"))
            .link("16.0 GT/s PCIe", "16")
            .numa_node(node);
        for vf in 0..64_u32 {
            let (device, function) = (2 + vf / 8, vf % 8);
            host = host
                .vf(
                    &format!("0000:{bus:02x}:{device:02x}.{function}"),
                    &pf,
                    100 + node * 64 + vf,
                )
                .ids(0x15b3, 0x101e, 0x02_0000)
                .numa_node(node);
            if vf < 60 {
                host = host.vfio(&format!("vfio{}", node * 60 + vf));
            }
        }
    }
    host
}

/// A PF that has no VFs yet.
fn without_vfs() -> FakeHost {
    empty()
        .bridge("0000:00:02.0", 1)
        .pf("0000:01:00.0", 12)
        .under("0000:00:02.0")
}

fn no_iommu_intel() -> FakeHost {
    FakeHost::new("")
        .no_iommu()
        .cmdline("root=/dev/sda1 quiet")
        .file("proc/cpuinfo", INTEL)
        .file("sys/firmware/acpi/tables/FACP", "")
        .file("etc/default/grub", "")
        .pf("0000:01:00.0", 12)
        .vf("0000:01:10.0", "0000:01:00.0", 13)
}

fn no_iommu_amd() -> FakeHost {
    FakeHost::new("")
        .no_iommu()
        .cmdline("root=/dev/sda1 amd_iommu=off quiet")
        .file("proc/cpuinfo", AMD)
        .file("sys/firmware/acpi/tables/IVRS", "")
        .file("boot/loader/entries/linux.conf", "")
        .file("dev/kvm", "")
        .pf("0000:01:00.0", 12)
}

fn remapping_off() -> FakeHost {
    healthy()
        .cmdline("root=/dev/sda1 intel_iommu=on intremap=off")
        .interrupt_remapping(false)
}

/// How a host is made up.
type Made = fn() -> FakeHost;

/// Every made-up host, by the name of its goldens.
fn hosts() -> Vec<(&'static str, Look)> {
    let all: [(&str, Made); 9] = [
        ("healthy", healthy),
        ("shared-group", shared_group),
        ("switch-without-acs", switch_without_acs),
        ("large", large),
        ("without-vfs", without_vfs),
        ("no-iommu-intel", no_iommu_intel),
        ("no-iommu-amd", no_iommu_amd),
        ("remapping-off", remapping_off),
        ("empty", || FakeHost::new("")),
    ];
    // Tests run side by side: each call has folders of its own.
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let call = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    all.into_iter()
        .map(|(name, host)| (name, Look::at(&format!("{call}-{name}"), host())))
        .collect()
}

/// Compares with a golden file, or writes it.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("NARROWS_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == text,
        "{} differs (NARROWS_BLESS=1 writes it anew):\n{text}",
        path.display()
    );
}

#[test]
fn inventories_read_as_agreed() {
    for (name, look) in hosts() {
        golden(
            &format!("inventory-{name}.txt"),
            &view::tree(&look.scene(false), Color::Never),
        );
    }
}

#[test]
fn verdicts_read_as_agreed() {
    for (name, look) in hosts() {
        golden(
            &format!("doctor-{name}.txt"),
            &look.doctor(&Wish::default(), false),
        );
    }
}

#[test]
fn pictures_are_drawn_as_agreed() {
    for (name, look) in hosts() {
        if let Some(folder) = std::env::var_os("NARROWS_PICTURES") {
            let path = Path::new(&folder).join(format!("{name}.svg"));
            fs::write(path, view::svg(&look.scene(false))).unwrap();
            let path = Path::new(&folder).join(format!("{name}-all.svg"));
            fs::write(path, view::svg(&look.scene(true))).unwrap();
        }
        if matches!(name, "healthy" | "switch-without-acs") {
            golden(
                &format!("inventory-{name}.svg"),
                &view::svg(&look.scene(false)),
            );
            golden(
                &format!("inventory-{name}.dot"),
                &view::dot(&look.scene(false)),
            );
        }
    }
}

#[test]
fn inventories_as_json_have_the_published_form() {
    let form = Form::published("inventory");
    for (name, look) in hosts() {
        let json = view::inventory_json(&look.scene(false)).unwrap();
        form.holds(name, &json);
    }
}

#[test]
fn verdicts_as_json_have_the_published_form() {
    let form = Form::published("doctor");
    for (name, look) in hosts() {
        for is_all in [false, true] {
            let found = look.examine(&Wish {
                named: Vec::new(),
                is_all,
            });
            let json = view::doctor_json(&look.scene(is_all), &found, Some("x")).unwrap();
            form.holds(name, &json);
        }
    }
}

/// A schema that documents are held against.
struct Form(Schemas, SchemaIndex);

impl Form {
    fn published(name: &str) -> Self {
        let path = format!(
            "{}/docs/schema/{name}.schema.json",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = fs::read_to_string(path).unwrap();
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        let schema = serde_json::from_str(&text).unwrap();
        compiler.add_resource("schema.json", schema).unwrap();
        let index = compiler.compile("schema.json", &mut schemas).unwrap();
        Self(schemas, index)
    }

    fn holds(&self, name: &str, json: &str) {
        let mut document: serde_json::Value = serde_json::from_str(json).unwrap();
        let result = self.0.validate(&document, self.1);
        assert!(result.is_ok(), "{name}: {:#}", result.unwrap_err());
        // The schema has teeth: what it does not know is no part of the document.
        document["surprise"] = true.into();
        assert!(self.0.validate(&document, self.1).is_err());
    }
}

#[test]
fn every_function_is_in_every_picture() {
    for (name, look) in hosts() {
        let scene = look.scene(true);
        let pictures = [
            view::tree(&scene, Color::Never),
            view::svg(&scene),
            view::dot(&scene),
        ];
        for bdf in look.topology.functions.keys() {
            for picture in &pictures {
                assert!(
                    picture.contains(&bdf.to_string()),
                    "{name}: {bdf} is missing"
                );
            }
        }
    }
}

#[test]
fn pictures_are_well_formed_whatever_devices_are_called() {
    let host = empty()
        .file(
            "usr/share/misc/pci.ids",
            "8086  A<b>&\"c\"\u{1}\n\t10c9  '\\\n",
        )
        .pf("0000:01:00.0", 12)
        .interface("<script>")
        .driver("a\"b");
    let look = Look::at("hostile", host);
    let svg = view::svg(&look.scene(false));
    assert!(svg.contains("A&lt;b&gt;&amp;&quot;c&quot;") && !svg.contains("<script"));
    assert!(!svg.contains('\u{1}'));
    assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
    let dot = view::dot(&look.scene(false));
    assert!(dot.contains("a\\\"b") && dot.contains("'\\\\"), "{dot}");
}

#[test]
fn a_tree_with_a_loop_is_shown_all_the_same() {
    let look = Look::at("loop", healthy());
    let mut topology = look.topology.clone();
    let [a, b] = ["0000:00:02.0", "0000:80:01.0"].map(|bdf| bdf.parse().unwrap());
    topology.functions.get_mut(&a).unwrap().parent = Some(b);
    topology.functions.get_mut(&b).unwrap().parent = Some(a);
    let scene = Scene {
        topology: &topology,
        ..look.scene(true)
    };
    let text = view::tree(&scene, Color::Never);
    for bdf in topology.functions.keys() {
        assert_eq!(
            text.matches(&format!("─ {bdf}")).count(),
            1,
            "{bdf}\n{text}"
        );
    }
}

#[test]
fn every_id_is_explained() {
    for topic in Topic::all() {
        let text = topic.text(Color::Never);
        assert!(text.lines().count() > 3, "{text}");
        assert!(!text.contains("]("), "{text}");
        let json: serde_json::Value = serde_json::from_str(&topic.to_json().unwrap()).unwrap();
        assert!(
            json["topics"][0]["title"].as_str().unwrap().len() > 5,
            "{json}"
        );
    }
    for id in ["group-shared", "device-no-reset", "smt-on", "bad-opt-out"] {
        golden(
            &format!("explain-{id}.txt"),
            &Topic::find(id).unwrap().text(Color::Never),
        );
    }
    let report = Topic::find("group-shard").unwrap_err();
    assert!(
        report.fix.contains("did you mean group-shared?"),
        "{report}"
    );
}

#[test]
fn every_id_is_listed_once() {
    let text = view::list_text(Color::Never);
    for topic in Topic::all() {
        let head = topic.text(Color::Never);
        let id = head.split([':', '\n']).next().unwrap();
        let row = format!("  {id} ");
        let listed = text.lines().filter(|line| line.starts_with(&row));
        assert_eq!(listed.count(), 1, "{id}");
    }
}

/// Runs the program on a host; gives its status and what it printed.
fn narrows(look: &Look, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = process::Command::new(env!("CARGO_BIN_EXE_narrows"))
        .arg("--root")
        .arg(&look.folder)
        .args(arguments)
        .env_remove("NO_COLOR")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn doctor_ends_with_3_where_it_refuses() {
    for (name, host, arguments, status) in [
        ("fit", healthy as Made, &[] as &[&str], 0),
        ("fit-all", healthy, &["--all"], 0),
        ("fit-vf", healthy, &["0000:01:10.0", "81:00.1"], 0),
        ("fit-pf", healthy, &["0000:01:00.0"], 3),
        ("one-left", shared_group, &[], 0),
        (
            "the-others",
            shared_group,
            &["0000:01:10.0", "0000:01:10.2"],
            3,
        ),
        ("none-left", switch_without_acs, &[], 3),
        ("no-vfs", without_vfs, &[], 0),
        ("remapping", remapping_off, &[], 3),
        ("iommu", no_iommu_intel, &[], 3),
    ] {
        let look = Look::at(&format!("status-{name}"), host());
        let arguments = [&["doctor"], arguments].concat();
        let (code, stdout, stderr) = narrows(&look, &arguments);
        assert_eq!(
            (code, stderr.as_str()),
            (Some(status), ""),
            "{name}\n{stdout}"
        );
        let json = narrows(&look, &[arguments.as_slice(), &["--json"]].concat());
        let json: serde_json::Value = serde_json::from_str(&json.1).unwrap();
        assert_eq!(json["verdict"] == "refuse", status == 3, "{name}");
    }
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let look = Look::at("absent", healthy());
    let (code, stdout, stderr) = narrows(&look, &["doctor", "0000:01:10.1"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.starts_with("error[device-absent]: function 0000:01:10.1 does not exist")
            && stderr.contains("did you mean 0000:01:1"),
        "{stderr}"
    );
    assert_eq!(narrows(&look, &["doctor", "1:2:3"]).0, Some(64));
    assert_eq!(
        narrows(&look, &["inventory", "--svg", "--json"]).0,
        Some(64)
    );
    assert_eq!(narrows(&look, &["explain", "no-such-id"]).0, Some(64));
    assert_eq!(narrows(&look, &["explain"]).0, Some(0));
    let (code, stdout, _) = narrows(&look, &["inventory"]);
    assert_eq!(code, Some(0));
    assert_eq!(stdout, view::tree(&look.scene(false), Color::Never));
}

#[test]
fn a_root_that_is_no_host_is_no_host_without_iommu() {
    for verb in ["doctor", "inventory"] {
        let output = process::Command::new(env!("CARGO_BIN_EXE_narrows"))
            .args(["--root", "/nowhere", verb])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("error[host-unreadable]"), "{text}");
    }
}

#[test]
fn colour_marks_words_and_never_stands_alone() {
    let look = Look::at("colour", shared_group());
    let plain = narrows(&look, &["doctor"]).1;
    assert!(!plain.contains('\x1b'));
    let colourful = narrows(&look, &["doctor", "--color", "always"]).1;
    assert!(colourful.contains("\x1b[1;31m✗ refuse"));
    let mut bare = String::new();
    for (index, piece) in colourful.split("\x1b[").enumerate() {
        bare.push_str(match index {
            0 => piece,
            _ => piece.split_once('m').unwrap().1,
        });
    }
    assert_eq!(bare, plain);
}

/// The blocks of docs/doctor.md that stand behind the name of a golden are that golden; blessed with it.
#[test]
fn examples_in_the_documents_are_goldens() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("docs/doctor.md");
    let text = fs::read_to_string(&path).unwrap();
    let mut pieces = text.split("<!-- tests/golden/");
    let mut fresh = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once(" -->\n```\n").unwrap();
        let (_, rest) = rest.split_once("```\n").unwrap();
        let golden = fs::read_to_string(root.join("tests/golden").join(name)).unwrap();
        fresh.push_str(&format!(
            "<!-- tests/golden/{name} -->\n```\n{golden}```\n{rest}"
        ));
    }
    assert!(fresh.matches("<!-- tests/golden/").count() > 3);
    if std::env::var_os("NARROWS_BLESS").is_some() {
        return fs::write(&path, &fresh).unwrap();
    }
    assert!(
        fresh == text,
        "docs/doctor.md shows something else (NARROWS_BLESS=1 writes it anew)"
    );
}
