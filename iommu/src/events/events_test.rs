use std::{
    fs::File,
    io::Write,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
};

use proptest::prelude::*;

use super::*;
use crate::sysfs::SysRoot;

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

/// Line, function, access, address, start of the reason.
const LINES: &[(&str, &str, Access, u64, &str)] = &[
    (
        "DMAR: [DMA Write NO_PASID] Request device [04:00.0] fault addr 0x50000000 [fault reason 0x05] PTE Write access is not set",
        "0000:04:00.0",
        Access::Write,
        0x5000_0000,
        "reason 0x05, PTE Write access is not set",
    ),
    (
        "DMAR: [DMA Read PASID 0x1f] Request device [3b:02.1] fault addr 0xfffffffff000 [fault reason 0x71] SM: Present bit in first-level paging entry is clear",
        "0000:3b:02.1",
        Access::Read,
        0xffff_ffff_f000,
        "reason 0x71, SM: Present",
    ),
    (
        "DMAR: [DMA Read] Request device [00:02.0] fault addr 6df084000 [fault reason 06] PTE Read access is not set",
        "0000:00:02.0",
        Access::Read,
        0x6_df08_4000,
        "reason 0x06",
    ),
    (
        "DMAR: [DMA Read] Request device [00:02.0] PASID ffffffff fault addr 6df084000 [fault reason 06] PTE Read access is not set",
        "0000:00:02.0",
        Access::Read,
        0x6_df08_4000,
        "reason 0x06",
    ),
    (
        "DMAR: [DMA Write NO_PASID] Request device [0x04:0x00.1] fault addr 0x0 [fault reason 0x02] Present bit in context entry is clear",
        "0000:04:00.1",
        Access::Write,
        0,
        "reason 0x02",
    ),
    (
        "DMAR: [DMA Write NO_PASID] Request device [0001:04:00.0] fault addr 0x50000000 [fault reason 0x05] PTE Write access is not set",
        "0001:04:00.0",
        Access::Write,
        0x5000_0000,
        "reason 0x05, PTE Write access is not set",
    ),
    (
        "DMAR: [INTR-REMAP] Request device [04:00.0] fault index 0x10 [fault reason 0x22] Present field in the IRTE entry is clear",
        "0000:04:00.0",
        Access::Interrupt,
        0x10,
        "reason 0x22",
    ),
    (
        "vfio-pci 0000:04:10.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0037 address=0x7b657064 flags=0x0000]",
        "0000:04:10.0",
        Access::Read,
        0x7b65_7064,
        "IO_PAGE_FAULT, flags 0x0000",
    ),
    (
        "AMD-Vi: Event logged [IO_PAGE_FAULT device=0001:04:10.0 domain=0x0037 address=0x7b657064 flags=0x0020]",
        "0001:04:10.0",
        Access::Write,
        0x7b65_7064,
        "IO_PAGE_FAULT",
    ),
    (
        "vfio-pci 0000:04:10.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0037 address=0xfee00000 flags=0x0008 vflags=0x1]",
        "0000:04:10.0",
        Access::Interrupt,
        0xfee0_0000,
        "IO_PAGE_FAULT",
    ),
    (
        "pci 0000:00:00.2: AMD-Vi: Event logged [INVALID_DEVICE_REQUEST device=0000:04:00.0 pasid=0x00000 address=0xfffffffdf8000000 flags=0x0a00]",
        "0000:04:00.0",
        Access::Request,
        0xffff_fffd_f800_0000,
        "INVALID_DEVICE_REQUEST",
    ),
];

#[test]
fn the_lines_of_both_drivers_are_read() {
    for (line, function, access, address, reason) in LINES {
        let fault = DmaFault::parse(line).unwrap_or_else(|| panic!("{line}"));
        assert!(fault.requester.is(bdf(function)), "{line}");
        assert_eq!((fault.access, fault.address), (*access, *address), "{line}");
        assert!(fault.reason.starts_with(reason), "{}", fault.reason);
    }
}

#[test]
fn a_fault_is_put_down_to_its_function_and_to_no_other() {
    let intel = DmaFault::parse(LINES[0].0).unwrap().requester;
    let requester_of = |text: &str| {
        let (line, ..) = LINES.iter().find(|(line, ..)| line.contains(text)).unwrap();
        DmaFault::parse(line).unwrap().requester
    };
    let amd = requester_of("vfio-pci 0000:04:10.0: AMD-Vi");
    let newer_intel = requester_of("[0001:04:00.0]");
    for other in ["0000:04:00.1", "0000:05:00.0", "0000:04:01.0"] {
        assert!(!intel.is(bdf(other)) && !amd.is(bdf(other)), "{other}");
    }
    assert!(!amd.is(bdf("0001:04:10.0")), "AMD-Vi tells the domain");
    assert!(newer_intel.is(bdf("0001:04:00.0")));
    assert!(
        !newer_intel.is(bdf("0000:04:00.0")),
        "a domain that VT-d's driver tells counts"
    );
    assert!(
        intel.is(bdf("0001:04:00.0")),
        "where it tells none, any will do"
    );
}

#[test]
fn a_line_that_only_holds_a_fault_is_none() {
    for (line, ..) in LINES {
        for before in ["x ", " ", "audit: ", "comm: ", "a b c: "] {
            assert_eq!(
                DmaFault::parse(&format!("{before}{line}")),
                None,
                "{before}{line}"
            );
        }
    }
    for line in [
        "",
        "DMAR: [",
        "DMAR: DRHD: handling fault status reg 2",
        "DMAR: [DMA Erase] Request device [04:00.0] fault addr 0x1 [fault reason 0x05] x",
        "DMAR: [DMA Write] Request device [04:20.0] fault addr 0x1 [fault reason 0x05] x",
        "DMAR: [DMA Write] Request device [04:00.0] fault addr 0x11111111111111111 [fault reason 0x05] x",
        "DMAR: [DMA Write] Request device [04:00.0] fault addr  [fault reason 0x05] x",
        "AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x1 address=0x1 flags=0x0]",
        "AMD-Vi: Event logged [IO_PAGE_FAULT device=zz:00.0 domain=0x1 address=0x1 flags=0x0]",
        "AMD-Vi: Event logged [COMMAND_HARDWARE_ERROR address=0x1 flags=0x0]",
    ] {
        assert_eq!(DmaFault::parse(line), None, "{line}");
    }
}

#[test]
fn a_record_is_read_whole() {
    let text = b"3,1234,5678,-;DMAR: x\n SUBSYSTEM=pci\n DEVICE=+pci:0000:04:00.0\n";
    let record = Record::parse(text).unwrap();
    assert_eq!(
        (record.sequence, record.facility, record.text),
        (1234, 0, "DMAR: x")
    );
    assert!(record.is_of_the_kernel());
    assert!(
        !Record::parse(b"11,1,1,-;DMAR: x\n")
            .unwrap()
            .is_of_the_kernel()
    );
    assert!(Record::parse(b"3,1,1,-,caller=T1,more;x").is_some());
    for bad in [
        &b""[..],
        b"3",
        b"3,1;x",
        b"-3,1,1,-;x",
        b"3,1,1;",
        b"99999999999,1,1,-;x",
        b"\xff,1,1,-;x",
    ] {
        assert_eq!(Record::parse(bad), None, "{bad:?}");
    }
}

/// A kernel log that says these records.
fn log(records: &[&str]) -> (KernelLog, UnixDatagram) {
    let (kernel, reader) = UnixDatagram::pair().unwrap();
    reader.set_nonblocking(true).unwrap();
    for record in records {
        kernel.send(record.as_bytes()).unwrap();
    }
    (KernelLog::of(File::from(OwnedFd::from(reader))), kernel)
}

#[test]
fn what_a_process_writes_to_the_kernel_log_is_no_fault() {
    let fault = LINES[0].0;
    // The kernel replaces facility 0 of a process by 1, so 8 to 15 is what a forger gets.
    for priority in [8, 11, 15, 16, 24, 191] {
        let (mut log, _kernel) = log(&[&format!("{priority},7,1,-;{fault}\n")]);
        assert_eq!(log.read().unwrap(), Next::Other, "{priority}");
        assert_eq!(log.read().unwrap(), Next::Nothing);
    }
    for priority in 0..8 {
        let (mut log, _kernel) = log(&[&format!("{priority},7,1,-;{fault}\n")]);
        assert!(matches!(log.read().unwrap(), Next::Fault(_)), "{priority}");
    }
}

#[test]
fn lost_records_are_counted_also_before_a_fault() {
    let fault = format!("3,12,1,-;{}", LINES[0].0);
    let (mut log, _kernel) = log(&["6,7,1,-;a", "6,9,1,-;b", &fault]);
    assert_eq!(log.read().unwrap(), Next::Other);
    assert_eq!(log.lost(), 0);
    assert_eq!(log.read().unwrap(), Next::Other);
    assert_eq!(log.lost(), 1);
    assert!(matches!(log.read().unwrap(), Next::Fault(_)));
    assert_eq!(log.lost(), 3);
}

#[test]
fn a_log_that_is_not_there_is_an_error_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let root = SysRoot::new(folder.path());
    let error = KernelLog::open_at_end(&root).unwrap_err();
    assert_eq!(error.id(), "vfio-node-open");
    std::fs::create_dir(folder.path().join("dev")).unwrap();
    let mut file = File::create(folder.path().join("dev/kmsg")).unwrap();
    file.write_all(format!("3,1,1,-;{}", LINES[0].0).as_bytes())
        .unwrap();
    let mut log = KernelLog::open_at_end(&root).unwrap();
    assert_eq!(
        log.read().unwrap(),
        Next::Nothing,
        "what was there before is not read"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_record_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
        if let Some(record) = Record::parse(&bytes) {
            prop_assert!(record.text.len() <= Record::MAX_BYTES);
        }
    }

    #[test]
    fn any_text_is_a_fault_or_none(text in "\\PC{0,300}") {
        for front in ["", "DMAR: [", "DMAR: [DMA Read] Request device [", "AMD-Vi: Event logged [IO_PAGE_FAULT "] {
            if let Some(fault) = DmaFault::parse(&format!("{front}{text}")) {
                prop_assert!(fault.reason.len() <= 80);
            }
        }
    }

    /// One character of a true line changed: read or not, but never a panic, and never an unprintable reason.
    #[test]
    fn a_mangled_line_is_read_totally(line in 0..LINES.len(), at in 0_usize..200, with in any::<char>()) {
        let mangled: String = LINES[line].0.chars().enumerate()
            .map(|(i, c)| if i == at { with } else { c }).collect();
        if let Some(fault) = DmaFault::parse(&mangled) {
            prop_assert!(fault.reason.chars().all(|c| c.is_ascii_graphic() || c == ' '));
        }
    }
}
