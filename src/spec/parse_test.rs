use std::path::Path;

use iommu::{addr::ByteLen, isolation::CheckId};

use super::types::{
    ConsoleSpec, GuestSpec, HugepageSize, InterfaceChoice, OnDmaFault, OnReboot, RootMode,
};
use crate::error::{ErrorId, Id};

const MINIMAL: &str = "name = \"a\"\nmemory = \"512M\"\nkernel = \"vmlinuz\"\n";

fn parse(text: &str) -> Result<GuestSpec, Vec<crate::error::Report>> {
    GuestSpec::parse(Path::new("/guests/guest.toml"), text)
}

/// `MINIMAL` and `more`; the problems' ids with their lines.
fn problems(more: &str) -> Vec<(Id, usize)> {
    parse(&format!("{MINIMAL}{more}"))
        .unwrap_err()
        .iter()
        .map(|p| (p.id, p.location.as_ref().map_or(0, |l| l.line)))
        .collect()
}

#[test]
fn a_minimal_file_has_safe_defaults() {
    let spec = parse(MINIMAL).unwrap();
    assert_eq!((spec.name.as_str(), spec.vcpus), ("a", 1));
    assert_eq!(spec.memory.size, ByteLen::new(512 << 20));
    assert_eq!(spec.kernel, Path::new("/guests/vmlinuz"));
    assert_eq!(
        (spec.on_reboot, spec.interface),
        (OnReboot::Restart, InterfaceChoice::Auto)
    );
    assert_eq!(spec.on_dma_fault, OnDmaFault::Stop);
    assert!(spec.machine_words);
    assert_eq!(spec.console, ConsoleSpec::Off);
    assert!(spec.devices.is_empty() && spec.root.is_none() && spec.initramfs.is_none());
}

#[test]
fn every_key_is_understood() {
    let spec = parse(
        r#"
        name = "web-1"
        vcpus = 4
        kernel = "/boot/vmlinuz"
        initramfs = "initrd"
        cmdline = "console=ttyS0"
        machine_words = false
        on_reboot = "exit"
        on_dma_fault = "log"
        interface = "type1"
        memory = { size = "2G", hugepages = "1G", numa_node = 1 }
        [root]
        image = "root.erofs"
        mode = "copy"
        [console]
        mode = "file"
        path = "console.log"
        [[device]]
        bdf = "0000:3b:02.1"
        max_vectors = 8
        accept = ["device-no-reset", "device-not-a-vf"]
        vf_token = "00112233-4455-6677-8899-AABBCCDDEEFF"
        [[device]]
        bdf = "3b:02.2"
        "#,
    )
    .unwrap();
    assert_eq!(spec.memory.hugepages, Some(HugepageSize::OneGib));
    assert_eq!((spec.vcpus, spec.memory.numa_node), (4, Some(1)));
    assert_eq!(spec.on_dma_fault, OnDmaFault::Log);
    assert!(!spec.machine_words);
    assert_eq!(spec.kernel, Path::new("/boot/vmlinuz"));
    assert_eq!(spec.initramfs.as_deref(), Some(Path::new("/guests/initrd")));
    let root = spec.root.unwrap();
    assert_eq!(
        (root.image.as_path(), root.mode),
        (Path::new("/guests/root.erofs"), RootMode::Copy)
    );
    assert_eq!(
        spec.console,
        ConsoleSpec::File("/guests/console.log".into())
    );
    let [first, second] = spec.devices.as_slice() else {
        panic!("two devices")
    };
    assert_eq!(first.bdf.to_string(), "0000:3b:02.1");
    assert_eq!((first.max_vectors, second.max_vectors), (8, 64));
    assert_eq!(
        first.accept,
        [CheckId::DeviceNoReset, CheckId::DeviceNotAVf]
    );
    let token = first.vf_token.unwrap();
    assert_eq!(token.bytes()[..3], [0x00, 0x11, 0x22]);
    assert_eq!(token.bytes()[13..], [0xDD, 0xEE, 0xFF]);
    assert_eq!(format!("{token:?}"), "Uuid(secret)");
}

/// Two devices, in lines 4 to 7, and `more`.
fn two_devices(more: &str) -> String {
    let devices = "[[device]]\nbdf = \"3b:02.1\"\n[[device]]\nbdf = \"3b:02.2\"\n";
    format!("{devices}{more}")
}

#[test]
fn a_pair_is_of_two_devices_of_the_same_file_and_named_once() {
    let pair = |from: &str, to: &str| format!("[[peer]]\nfrom = \"{from}\"\nto = \"{to}\"\n");
    let there = pair("3b:02.1", "0000:3b:02.2");
    let back = pair("3b:02.2", "3b:02.1");
    let spec = parse(&format!(
        "{MINIMAL}{}",
        two_devices(&format!("{there}{back}"))
    ))
    .unwrap();
    let found: Vec<_> = spec
        .peers
        .iter()
        .map(|peer| (peer.from.to_string(), peer.to.to_string()))
        .collect();
    let [one, other] = ["0000:3b:02.1", "0000:3b:02.2"].map(str::to_owned);
    assert_eq!(found, [(one.clone(), other.clone()), (other, one)]);
    assert_eq!(spec.peers[1].place.as_ref().unwrap().line, 13);

    for (more, id, line) in [
        (pair("3b:02.3", "3b:02.2"), ErrorId::BadPeer, 9),
        (pair("3b:02.1", "3b:02.3"), ErrorId::BadPeer, 10),
        (pair("3b:02.1", "3b:02.1"), ErrorId::BadPeer, 10),
        (format!("{there}{there}"), ErrorId::BadPeer, 13),
        (pair("3b:02", "3b:02.2"), ErrorId::BadBdf, 9),
        (
            "[[peer]]\nto = \"3b:02.1\"".to_owned(),
            ErrorId::SpecMissingKey,
            8,
        ),
        (format!("{there}both = true"), ErrorId::SpecUnknownKey, 11),
        (
            format!("peer = {:?}", "3b:02.1"),
            ErrorId::SpecUnknownKey,
            8,
        ),
    ] {
        let found = problems(&two_devices(&more));
        assert_eq!(found, [(Id::from(id), line)], "{more}");
    }
}

#[test]
fn a_pair_is_refused_where_iommufd_is_asked_for() {
    let pair = "[[peer]]\nfrom = \"3b:02.1\"\nto = \"3b:02.2\"\n";
    let with = |interface: &str| format!("interface = {interface:?}\n{}", two_devices(pair));
    let found = problems(&with("iommufd"));
    assert_eq!(found, [(Id::from(ErrorId::PeerInterface), 11)]);
    for interface in ["auto", "type1"] {
        parse(&format!("{MINIMAL}{}", with(interface))).unwrap();
    }
}

#[test]
fn a_device_that_cannot_be_read_is_not_missed_again_in_a_pair() {
    let pair = "[[peer]]\nfrom = \"3b:02.1\"\nto = \"3b:02.2\"\n";
    let text = two_devices(pair).replacen("3b:02.1", "3b:2", 1);
    assert_eq!(problems(&text), [(Id::from(ErrorId::BadBdf), 5)]);
}

#[test]
fn every_bad_value_has_its_id_and_line() {
    for (text, id, line) in [
        ("vcpu = 2", ErrorId::SpecUnknownKey, 4),
        ("vcpus = 0", ErrorId::BadNumber, 4),
        ("vcpus = 65", ErrorId::BadNumber, 4),
        ("vcpus = -1", ErrorId::BadNumber, 4),
        ("vcpus = 99999999999999999999", ErrorId::BadNumber, 4),
        ("vcpus = \"2\"", ErrorId::SpecWrongType, 4),
        ("cmdline = \"a\\nb\"", ErrorId::BadCmdline, 4),
        ("machine_words = \"no\"", ErrorId::SpecWrongType, 4),
        ("machine_words = 0", ErrorId::SpecWrongType, 4),
        ("on_reboot = \"restrat\"", ErrorId::BadChoice, 4),
        ("interface = \"vfio\"", ErrorId::BadChoice, 4),
        ("initramfs = 3", ErrorId::SpecWrongType, 4),
        ("root = \"x\"", ErrorId::SpecWrongType, 4),
        ("[root]\nmode = \"copy\"", ErrorId::SpecMissingKey, 4),
        (
            "[root]\nimage = \"x\"\nmode = \"write\"",
            ErrorId::BadChoice,
            6,
        ),
        ("[console]\npath = \"x\"", ErrorId::BadConsole, 5),
        ("[console]\nmode = \"file\"", ErrorId::BadConsole, 5),
        ("[console]\nmode = \"pty\"", ErrorId::BadChoice, 5),
        (
            "[device]\nbdf = \"0000:3b:02.1\"",
            ErrorId::SpecWrongType,
            4,
        ),
        ("[[device]]", ErrorId::SpecMissingKey, 4),
        ("[[device]]\nbdf = \"3b:02\"", ErrorId::BadBdf, 5),
        (
            "[[device]]\nbdf = \"3b:02.1\"\nmax_vectors = 257",
            ErrorId::BadNumber,
            6,
        ),
        (
            "[[device]]\nbdf = \"3b:02.1\"\naccept = [\"group-shared\"]",
            ErrorId::BadOptOut,
            6,
        ),
        (
            "[[device]]\nbdf = \"3b:02.1\"\naccept = [1]",
            ErrorId::SpecWrongType,
            6,
        ),
        (
            "[[device]]\nbdf = \"3b:02.1\"\nvf_token = \"x\"",
            ErrorId::BadUuid,
            6,
        ),
        (
            "[[device]]\nbdf = \"3b:02.1\"\nrom = true",
            ErrorId::SpecUnknownKey,
            6,
        ),
        ("name = \"b\"", ErrorId::SpecSyntax, 4),
        ("x = [", ErrorId::SpecSyntax, 4),
    ] {
        assert_eq!(problems(text), [(Id::from(id), line)], "{text}");
    }
}

#[test]
fn memory_is_checked_in_both_spellings() {
    for (memory, id) in [
        ("memory = 512", ErrorId::SpecWrongType),
        ("memory = \"512\"", ErrorId::BadSize),
        ("memory = \"63M\"", ErrorId::BadSize),
        (
            "memory = { size = \"1G\", hugepages = \"4M\" }",
            ErrorId::BadChoice,
        ),
        (
            "memory = { size = \"65M\", hugepages = \"2M\" }",
            ErrorId::BadSize,
        ),
        ("memory = { hugepages = \"2M\" }", ErrorId::SpecMissingKey),
        (
            "memory = { size = \"1G\", node = 0 }",
            ErrorId::SpecUnknownKey,
        ),
    ] {
        let problems = parse(&format!("name = \"a\"\nkernel = \"k\"\n{memory}\n")).unwrap_err();
        let ids: Vec<_> = problems.iter().map(|p| p.id).collect();
        assert_eq!(ids, [id], "{memory}");
    }
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let text = "vcpus = 900\nname = \"A\"\nkernal = \"x\"\nmemory = \"1M\"\n";
    let problems = parse(text).unwrap_err();
    let ids: Vec<_> = problems.iter().map(|p| p.id.name()).collect();
    assert_eq!(
        ids,
        [
            "spec-missing-key",
            "bad-number",
            "bad-name",
            "spec-unknown-key",
            "bad-size"
        ]
    );
}

#[test]
fn a_report_points_at_the_place() {
    let problems = parse(&format!("{MINIMAL}\n[[device]]\n  bdf = \"3b:2.1\"\n")).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "error[bad-bdf]: \"3b:2.1\" is not a PCI address\n  \
           --> /guests/guest.toml:6:9\n    \
             |\n  \
           6 |   bdf = \"3b:2.1\"\n    \
             |         ^^^^^^^^\n  \
           why: \"3b:2.1\" is not a PCI address of the form 0000:3b:02.1\n  \
           fix: write domain:bus:device.function as `lspci -D` prints it\n  \
           more: narrows explain bad-bdf"
    );
}

#[test]
fn what_cannot_be_accepted_is_explained() {
    let of = |word: &str| {
        let text = format!("{MINIMAL}[[device]]\nbdf = \"3b:02.1\"\naccept = [\"{word}\"]\n");
        parse(&text).unwrap_err().remove(0)
    };
    assert_eq!(
        of("device_no_reset").fix,
        "did you mean \"device-no-reset\"?"
    );
    assert_eq!(of("no-reset").fix, "did you mean \"device-no-reset\"?");
    assert_eq!(of("asc-missing").fix, "did you mean \"acs-missing\"?");
    let group = of("group-shared");
    assert_eq!(
        group.why,
        [
            "nobody may accept it: otherwise the guest could reach the other devices of the group by DMA"
        ]
    );
    assert!(group.fix.starts_with("assign all of them to this guest"));
    assert_eq!(of("smt-on").why, ["it refuses nothing"]);
    assert!(
        of("everything")
            .fix
            .starts_with("known: device-not-a-vf, pf-driver-known-bad, ")
    );
}

#[test]
fn what_can_be_accepted_is_in_the_guide() {
    let guide = include_str!("../../docs/guest-file.md");
    for id in CheckId::all() {
        let row = format!("| [`{id}`](errors.md#{id}) |");
        assert_eq!(guide.contains(&row), id.check().accepted.is_some(), "{id}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z =\"\\[\\]\n\u{e9}.{},#0-9]{0,120}") {
        drop(parse(&text));
        drop(parse(&format!("{MINIMAL}{text}")));
    }
}
