use std::path::Path;

use iommu::sysfs::{Entry, Kind, SysRoot, Tree};
use proptest::{collection, prelude::*};

use super::scrub;

fn scrubbed(files: &[(&str, &[u8])]) -> (SysRoot, Vec<String>) {
    let mut tree = Tree::default();
    for (path, bytes) in files {
        let entry = Entry {
            kind: Kind::File(bytes.to_vec()),
            owner: None,
        };
        tree.insert(Path::new(path), entry).unwrap();
    }
    let (tree, said) = scrub(&tree).unwrap();
    (SysRoot::captured("m", tree), said)
}

/// An express function with MSI, a vendor's own capability, vital product data, errors and a serial number; every
/// byte that is not a header's is 0xEE.
fn config() -> Vec<u8> {
    let mut bytes = vec![0xEE; 4096];
    bytes[0x06] = 0x10;
    bytes[0x34] = 0x40;
    for (at, id, next) in [
        (0x40, 0x05, 0x60),
        (0x60, 0x09, 0x70),
        (0x70, 0x03, 0x80),
        (0x80, 0x10, 0),
    ] {
        bytes[at] = id;
        bytes[at + 1] = next;
    }
    for (at, header) in [
        (0x100, 0x1401_0001_u32),
        (0x140, 0x1801_0003),
        (0x180, 0x0001_000d),
    ] {
        bytes[at..at + 4].copy_from_slice(&header.to_le_bytes());
    }
    bytes
}

#[test]
fn serial_numbers_and_unknown_registers_are_gone_from_configuration_space() {
    let path = "sys/devices/pci0000:00/0000:00:01.0/config";
    let (root, said) = scrubbed(&[(path, &config())]);
    let new = root.read_bytes(path, 4096).unwrap();
    let old = config();
    assert_eq!(new.len(), 4096);
    let mut kept = vec![0..0x40, 0x40..0x44, 0x60..0x63, 0x70..0x72, 0x80..0xbc];
    kept.extend([0x100..0x11c, 0x140..0x144, 0x180..0x188]);
    for (at, byte) in new.iter().enumerate() {
        let is_kept = kept.iter().any(|range| range.contains(&at));
        assert_eq!(*byte, if is_kept { old[at] } else { 0 }, "{at:#x}");
    }
    assert_eq!(said.len(), 1);
    // What was scrubbed once has nothing more to give.
    assert_eq!(scrubbed(&[(path, &new)]).1, Vec::<String>::new());
}

#[test]
fn lists_that_never_end_do() {
    let mut bytes = vec![0; 4096];
    bytes[0x06] = 0x10;
    bytes[0x34] = 0x40;
    bytes[0x40..0x42].copy_from_slice(&[0x05, 0x40]);
    bytes[0x100..0x104].copy_from_slice(&0x1001_0003_u32.to_le_bytes());
    for len in [0, 1, 63, 0x35, 0x41, 0x101, 0x103, 4096] {
        let path = "sys/x/config";
        let (root, _) = scrubbed(&[(path, &bytes[..len])]);
        assert_eq!(root.read_bytes(path, 4096).unwrap().len(), len);
    }
}

#[test]
fn the_command_line_keeps_only_what_the_table_allows() {
    let text =
        b"BOOT_IMAGE=/vmlinuz root=UUID=0a1b2c3d-0000-1111-2222-333344445555 ro quiet ip=10.0.0.1 \
        hostname=secret intel_iommu=on iommu=pt pcie_acs_override=downstream rock=1\n";
    let (root, said) = scrubbed(&[("proc/cmdline", text)]);
    assert_eq!(
        root.read_text("proc/cmdline").unwrap(),
        "scrubbed ro quiet scrubbed intel_iommu=on iommu=pt pcie_acs_override=downstream scrubbed"
    );
    assert_eq!(said, ["kernel command line: words that no check needs"]);
}

#[test]
fn addresses_and_ids_become_numbers_everywhere() {
    let (root, said) = scrubbed(&[
        (
            "sys/class/a",
            b"52:54:00:00:01:0A and 52:54:00:00:01:0b, 52:54:00:00:01:0a\n",
        ),
        (
            "sys/class/uuid",
            b"id 0a1b2c3d-0000-1111-2222-333344445555.\n",
        ),
        ("sys/class/net/enx525400000101/mtu", b"1500\n"),
        (
            "sys/class/keep",
            b"0000:01:00.0 0x52540000 12:34:56:78:9a 00:11:22:33:44:55x\n",
        ),
    ]);
    assert_eq!(
        root.read_text("sys/class/a").unwrap(),
        "00:00:00:00:00:01 and 00:00:00:00:00:02, 00:00:00:00:00:01"
    );
    assert_eq!(root.list("sys/class/net").unwrap(), ["enx000000000003"]);
    assert_eq!(
        root.read_text("sys/class/uuid").unwrap(),
        "id 00000000-0000-0000-0000-000000000004."
    );
    assert_eq!(
        root.read_text("sys/class/keep").unwrap(),
        "0000:01:00.0 0x52540000 12:34:56:78:9a 00:11:22:33:44:55x"
    );
    assert_eq!(said, ["MAC addresses and UUIDs, replaced by numbers"]);
}

#[test]
fn long_files_keep_what_checks_read() {
    let interrupts = b"           CPU0       CPU1\n  25:        172         38  IR-PCI-MSIX-0000:00:1f.0    0-edge      nvme0q0\n LOC:  1  2  Local\n";
    let config = "CONFIG_IOMMUFD=y\nCONFIG_LOCALVERSION=\"-secret\"\n# CONFIG_VFIO_NOIOMMU is not set\n# a comment\n";
    let packed = crate::host::machine::gzip::pack(config).unwrap();
    let (root, said) = scrubbed(&[
        ("proc/interrupts", interrupts),
        (
            "proc/cpuinfo",
            b"processor : 0\ncpu MHz : 1\nflags : vmx\n\nprocessor : 1\n",
        ),
        (
            "proc/meminfo",
            b"MemTotal: 9 kB\nMemFree: 7 kB\nMemAvailable: 8 kB\n",
        ),
        (
            "proc/1/limits",
            b"Limit Soft\nMax cpu time 1\nMax locked memory 8\n",
        ),
        (
            "sys/devices/x/aer_dev_fatal",
            b"DLP 0\nTLP 3\nTOTAL_ERR_FATAL 3\n",
        ),
        (
            "sys/devices/x/resource",
            b"0x00 0x00 0x00\n0x10 0x1f 0x200\n0x00 0x00 0x00\n0x00 0x00 0x00\n",
        ),
        (
            "sys/devices/y/resource",
            b"0x00 0x00 0x00\n0x00 0x00 0x00\n",
        ),
        (
            "proc/swaps",
            b"Filename Type Size\n/dev/mapper/secret-swap partition 12\n",
        ),
        ("proc/sys/kernel/core_pattern", b"/home/secret/core.%p\n"),
        ("boot/config-6.12.0", config.as_bytes()),
        ("proc/config.gz", &packed),
    ]);
    let kept = "CONFIG_IOMMUFD=y\n# CONFIG_VFIO_NOIOMMU is not set";
    for (path, text) in [
        (
            "proc/interrupts",
            "25: IR-PCI-MSIX-0000:00:1f.0 0-edge nvme0q0",
        ),
        ("proc/cpuinfo", "processor : 0\nflags : vmx"),
        ("proc/meminfo", "MemTotal: 9 kB\nMemAvailable: 8 kB"),
        ("proc/1/limits", "Limit Soft\nMax locked memory 8"),
        ("sys/devices/x/aer_dev_fatal", "TLP 3\nTOTAL_ERR_FATAL 3"),
        ("sys/devices/x/resource", "0x00 0x00 0x00\n0x10 0x1f 0x200"),
        ("sys/devices/y/resource", "0x00 0x00 0x00"),
        ("proc/swaps", "Filename Type Size\nscrubbed partition 12"),
        ("proc/sys/kernel/core_pattern", "/scrubbed/core.%p"),
        ("boot/config-6.12.0", kept),
    ] {
        assert_eq!(root.read_text(path).unwrap(), text);
    }
    let packed = root.read_bytes("proc/config.gz", 4096).unwrap();
    assert_eq!(
        crate::host::machine::gzip::unpack(&packed).unwrap().trim(),
        kept
    );
    assert_eq!(said.len(), 6, "{said:?}");
}

#[test]
fn the_number_of_the_capturing_process_is_gone() {
    let mut tree = Tree::default();
    for (path, kind) in [
        ("proc/self", Kind::Link("4711".into())),
        (
            "proc/4711/limits",
            Kind::File(b"Max locked memory\n".to_vec()),
        ),
    ] {
        tree.insert(Path::new(path), Entry { kind, owner: None })
            .unwrap();
    }
    let root = SysRoot::captured("m", scrub(&tree).unwrap().0);
    assert_eq!(
        root.read_text("proc/self/limits").unwrap(),
        "Max locked memory"
    );
    assert_eq!(root.list("proc").unwrap(), ["1", "self"]);
}

proptest! {
    #[test]
    fn whatever_configuration_space_says_it_is_scrubbed_once(bytes in collection::vec(any::<u8>(), 0..4200)) {
        let path = "sys/devices/x/config";
        let once = scrubbed(&[(path, &bytes)]).0.read_bytes(path, 8192).unwrap();
        prop_assert_eq!(once.len(), bytes.len());
        prop_assert_eq!(&once[..bytes.len().min(0x40)], &bytes[..bytes.len().min(0x40)]);
        let twice = scrubbed(&[(path, &once)]).0.read_bytes(path, 8192).unwrap();
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn whatever_a_file_says_no_address_is_left(text in "[0-9a-f:x -]{0,40}", address in "[0-9a-f]{2}(:[0-9a-f]{2}){5}") {
        let file = format!("{text} {address} {text}\n");
        let (root, _) = scrubbed(&[("sys/x", file.as_bytes())]);
        let word = format!(" {address} ");
        let is_stand_in = address.starts_with("00:00:00:00:");
        prop_assert!(is_stand_in || !root.read_text("sys/x").unwrap().contains(&word));
    }
}

#[test]
fn every_word_that_a_check_looks_for_is_kept_in_both_spellings() {
    let words = iommu::isolation::hazardous_words();
    assert!(words.iter().any(|word| word == "nointremap"));
    for word in words {
        let (key, value) = word.split_at(word.find('=').unwrap_or(word.len()));
        let other = format!("{}{value}", key.replace('_', "-"));
        for word in [word.as_str(), &other] {
            let (root, _) = scrubbed(&[("proc/cmdline", format!("{word} x=y\n").as_bytes())]);
            let text = root.read_text("proc/cmdline").unwrap();
            assert_eq!(text, format!("{word} scrubbed"));
        }
    }
}

#[test]
fn nvme_subsystems_are_told_apart_by_numbers_only() {
    let lines = "cntlid 0\nserial S3KR1T\nmodel Fast Disk\nsubnqn nqn.2014.com.x:S3KR1T\n\
                 namespace 1 size 512 block 512 private nguid 0123456789abcdef0123456789abcdef attached 0\n\
                 namespace 2 size 512 block 512 shared eui64 0123456789abcdef\n";
    let (root, said) = scrubbed(&[("narrows/nvme/nvme0", lines.as_bytes())]);
    let text = root.read_text("narrows/nvme/nvme0").unwrap();
    assert_eq!(
        text,
        "cntlid 0\nserial scrubbed\nmodel Fast Disk\nsubnqn scrubbed\n\
         namespace 1 size 512 block 512 private nguid 00000000000000000000000000000001 attached 0\n\
         namespace 2 size 512 block 512 shared eui64 0000000000000002"
    );
    assert_eq!(said.len(), 1);
}

#[test]
fn addresses_keep_their_prefix_and_nothing_else() {
    let lines = "2 10.9.8.7/24 global\n2 fe80::1234/64 link\nwhat is this\n";
    let (root, said) = scrubbed(&[("narrows/addresses", lines.as_bytes())]);
    assert_eq!(
        root.read_text("narrows/addresses").unwrap(),
        "2 198.18.0.1/24 global\n2 2001:db8::2/64 link"
    );
    assert_eq!(said.len(), 1);
    let permanent = "52:54:00:12:34:56\n";
    let (root, _) = scrubbed(&[("narrows/permanent-address/eth0", permanent.as_bytes())]);
    let text = root.read_text("narrows/permanent-address/eth0").unwrap();
    assert_eq!(text, "00:00:00:00:00:01");
}
