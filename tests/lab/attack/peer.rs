//! DMA from one device of a guest to the BARs of another: closed, unless the guest file names the pair.

use serde_json::Value;

use super::{
    Attacker,
    guest::{RESULT, SOURCE, with_edu},
    hardware,
    oracle::assert_tables,
    physical::GuestRam,
};
use crate::{guest::GuestFile, host};

/// What is in edu's buffer before it reads.
const OWN: u8 = 0xE5;
/// What the test puts into the hardware's MSI-X table.
const MARK: u32 = 0x5A5A_5A5A;
/// The NVMe controller's registers. *Source:* `NVM Express Base Specification 2.0, section 3.1.4`.
const ADMIN_QUEUE_ATTRIBUTES: u64 = 0x24;
/// The guest's slots of the two.
const EDU: u64 = 1;
const NVME: u64 = 2;

/// edu and an NVMe VF in one guest, with these `[[peer]]` tables.
fn file(name: &str, pairs: &[(&str, &str)]) -> GuestFile {
    let file = with_edu(name).device(&host::nvme(0));
    pairs.iter().fold(file, |file, (from, to)| {
        file.table(&format!("[[peer]]\nfrom = \"{from}\"\nto = \"{to}\""))
    })
}

/// The first bytes that edu finds at an address.
fn edu_reads(guest: &mut Attacker, iova: u64, len: usize) -> Vec<u8> {
    guest.edu_load(OWN);
    guest.edu_in(iova, 0, u64::try_from(len).unwrap());
    guest.edu_out(RESULT, 0, 4096);
    GuestRam::of(&guest.guest).bytes(RESULT, len)
}

/// The first three registers of 32 bits as the guest's processor reads them.
fn cpu_reads(guest: &mut Attacker, at: u64) -> Vec<u8> {
    [0, 4, 8]
        .into_iter()
        .flat_map(|offset| guest.read(4, at + offset).to_le_bytes()[..4].to_vec())
        .collect()
}

/// Whether what edu wrote to the queues' register is there, by the guest's own reading.
fn edu_writes_register(guest: &mut Attacker, bar: u64) -> bool {
    let register = bar + ADMIN_QUEUE_ATTRIBUTES;
    guest.write(4, register, 0x0001_0001);
    assert_eq!(guest.read(4, register), 0x0001_0001, "not the register");
    guest.fill(SOURCE, 2);
    guest.edu_in(SOURCE, 0, 4096);
    guest.edu_out(register, 0, 4);
    guest.read(4, register) == 0x0202_0202
}

fn is_nothing(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| [0, OWN].contains(byte))
}

fn kinds(guest: &Attacker) -> Vec<String> {
    let figures = guest.guest.figures();
    let entries = figures.pointer("/dma/entries").and_then(Value::as_array);
    let kind = |entry: &Value| entry["kind"].as_str().unwrap().to_owned();
    entries.unwrap().iter().map(kind).collect()
}

/// Claim: no device reaches the BAR of another device of its guest, by either kernel interface. Attack: edu reads and writes
/// the registers of an NVMe VF at the guest's address of its BAR. Control: the next test, in which the pair is named.
#[test]
#[ignore = "needs a lab host"]
fn bar_of_another_device_is_out_of_reach() {
    for interface in ["iommufd", "type1"] {
        let file = file("peer-closed", &[]).key(&format!("interface = \"{interface}\""));
        let mut guest = Attacker::start(&file);
        guest.enable(EDU);
        guest.enable(NVME);
        let bar = guest.bar(NVME, 0);
        let own = cpu_reads(&mut guest, bar);
        assert!(!is_nothing(&own), "the guest itself reads no registers");
        for at in [bar, hardware::bar_address(&host::nvme(0), 0)] {
            let read = edu_reads(&mut guest, at, own.len());
            assert!(is_nothing(&read), "LEAK: edu reads {read:02x?} at {at:#x}");
        }
        assert!(!edu_writes_register(&mut guest, bar), "LEAK: edu writes it");
        assert!(!kinds(&guest).contains(&"peer-bar".to_owned()));
        let said = guest.off().text();
        assert!(!said.contains("peer-dma"), "{said}");
    }
}

/// A guest of edu and an NVMe VF, paired both ways, and where the guest has the BARs of the two, which are where edu finds
/// them: what it reads there and writes is what the guest's processor reads.
pub(crate) fn start_paired() -> (Attacker, u64, u64) {
    let (edu, nvme) = (host::fact("EDU"), host::nvme(0));
    let mut guest = Attacker::start(&file("peer-open", &[(&edu, &nvme), (&nvme, &edu)]));
    guest.enable(EDU);
    guest.enable(NVME);
    let (bar, own_bar) = (guest.bar(NVME, 0), guest.bar(EDU, 0));
    let own = cpu_reads(&mut guest, bar);
    assert!(!is_nothing(&own), "the guest itself reads no registers");
    assert_eq!(edu_reads(&mut guest, bar, own.len()), own);
    assert!(edu_writes_register(&mut guest, bar), "edu does not write");
    // The pair's direction is not kept: edu is only the second of the other pair.
    let id = guest.read(4, own_bar).to_le_bytes()[..4].to_vec();
    assert!(!is_nothing(&id));
    assert_eq!(edu_reads(&mut guest, own_bar, 4), id);
    (guest, bar, own_bar)
}

/// Claim: a named pair opens the BARs of its second device at the guest's addresses, to every device of the guest, and
/// nothing else: not the pages of the MSI-X table, not the BAR's physical address; the IOMMU's tables say the same.
/// A reset of the device changes nothing of it. Control: the test before.
#[test]
#[ignore = "needs a lab host"]
fn named_pair_opens_a_bar_without_its_interrupt_pages() {
    const MSIX: u8 = 0x11;
    const EXPRESS: u8 = 0x10;
    const ECAM_SLOT: u64 = 0xE000_0000 + NVME * 0x8000;
    let (edu, nvme) = (host::fact("EDU"), host::nvme(0));
    let (mut guest, bar, own_bar) = start_paired();

    let config = hardware::config(&nvme);
    let msix = hardware::capability(&nvme, MSIX);
    let table = u32::from_le_bytes(config[msix + 4..msix + 8].try_into().unwrap());
    assert_eq!(table & 7, 0, "the table is in another BAR");
    // The data of the second entry, which nobody has armed.
    let offset = usize::try_from(table & !7).unwrap() + 16 + 8;
    let registers = hardware::Registers::map(&nvme, 0);
    let before = registers.read32(offset);
    registers.write32(offset, MARK);
    assert_eq!(registers.read32(offset), MARK, "not the table");
    let at = bar + u64::try_from(offset).unwrap();
    let read = edu_reads(&mut guest, at, 4);
    assert!(
        is_nothing(&read),
        "LEAK: edu reads the MSI-X table: {read:02x?}"
    );
    guest.edu_load(OWN);
    guest.edu_out(at, 0, 4);
    assert_eq!(registers.read32(offset), MARK, "LEAK: edu writes it");
    registers.write32(offset, before);

    let physical = [
        hardware::bar_address(&nvme, 0),
        hardware::bar_address(&edu, 0),
    ];
    for at in physical {
        let read = edu_reads(&mut guest, at, 4);
        assert!(is_nothing(&read), "LEAK: edu reads {read:02x?} at {at:#x}");
    }
    let bars = [(bar, physical[0]), (own_bar, physical[1])];
    assert_tables(&guest.guest, &edu, None, &bars);
    assert_tables(&guest.guest, &nvme, None, &bars);
    assert_eq!(guest.guest.figures()["interface"], "type1");

    let express = u64::try_from(hardware::capability(&nvme, EXPRESS)).unwrap();
    guest.write(2, ECAM_SLOT + express + 8, 0x8000);
    guest.tell("wait 200");
    guest.enable(NVME);
    let own = cpu_reads(&mut guest, bar);
    assert_eq!(edu_reads(&mut guest, bar, own.len()), own, "after a reset");
    assert_tables(&guest.guest, &nvme, None, &bars);
    let said = guest.off().text();
    let warning =
        format!("warning[peer-dma]: DMA of {edu} may reach the BARs of {nvme}, and so may");
    assert!(said.contains(&warning), "{said}");
    host::assert_returned(&nvme);
}

/// Claim: what cannot be kept is refused: a pair with a device of nobody, and iommufd, which maps no BARs. Control: the
/// test before, with a file that differs in that alone.
#[test]
#[ignore = "needs a lab host"]
fn pair_that_cannot_be_had_is_refused() {
    let (edu, nvme, other) = (host::fact("EDU"), host::nvme(0), host::nvme(1));
    let text = file("peer-foreign", &[(&edu, &other)]).refused(1);
    assert!(text.contains("error[bad-peer]"), "{text}");
    let text = file("peer-iommufd", &[(&edu, &nvme)])
        .key("interface = \"iommufd\"")
        .refused(1);
    assert!(text.contains("error[peer-interface]"), "{text}");
}
