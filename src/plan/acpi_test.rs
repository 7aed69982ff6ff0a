use jailed::{
    addr::{Gpa, GpaRange},
    handoff::ACPI_BYTES,
    machine::{ACPI_START, ECAM_START},
};

use super::acpi::{Machine, tables};

fn machine() -> Machine {
    Machine {
        vcpus: 2,
        window64: GpaRange::new(Gpa::new(5 << 30), 1 << 30),
        has_console: true,
    }
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut raw = [0; 8];
    raw[..len].copy_from_slice(&bytes[at..at + len]);
    u64::from_le_bytes(raw)
}

/// The table at the guest-physical `address`, its checksum verified.
fn table(area: &[u8], address: u64) -> &[u8] {
    let from = usize::try_from(address - ACPI_START.raw()).unwrap();
    let len = usize::try_from(number(area, from + 4, 4)).unwrap();
    let table = &area[from..from + len];
    assert_eq!(sum(table), 0, "checksum of {:?}", &table[..4]);
    table
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The table with `signature` that the XSDT lists.
fn listed<'a>(area: &'a [u8], signature: &[u8; 4]) -> &'a [u8] {
    let xsdt = table(area, number(area, 24, 8));
    let found: Vec<&[u8]> = (36..xsdt.len())
        .step_by(8)
        .map(|at| table(area, number(xsdt, at, 8)))
        .filter(|table| &table[..4] == signature)
        .collect();
    assert_eq!(found.len(), 1);
    found[0]
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[test]
fn the_rsdp_comes_first_and_leads_to_every_table() {
    let area = tables(machine()).unwrap();
    assert_eq!(&area[..8], b"RSD PTR ");
    assert_eq!((sum(&area[..20]), sum(&area[..36]), area[15]), (0, 0, 2));
    let xsdt = table(&area, number(&area, 24, 8));
    assert_eq!((&xsdt[..4], xsdt.len()), (b"XSDT".as_slice(), 36 + 3 * 8));
    for signature in [b"FACP", b"APIC", b"MCFG"] {
        listed(&area, signature);
    }
}

#[test]
fn the_fadt_describes_hardware_reduced_acpi() {
    let area = tables(machine()).unwrap();
    let fadt = listed(&area, b"FACP");
    assert_eq!((fadt.len(), fadt[8]), (276, 6));
    let flags = number(fadt, 112, 4);
    let has = |bit: u32| flags >> bit & 1 == 1;
    assert!(
        has(20) && has(10) && has(19) && has(12),
        "hardware reduced, reset, physical, headless"
    );
    // No 8042 (1), no legacy devices (0), MSI supported (3); no VGA (2), no ASPM control (4), no CMOS clock (5).
    assert_eq!(number(fadt, 109, 2), 0b11_0100);
    // Reset, sleep control and sleep status: I/O space, 8 bits, byte access.
    assert_eq!(&fadt[116..128], [1, 8, 0, 1, 0x02, 0x06, 0, 0, 0, 0, 0, 0]);
    assert_eq!(fadt[128], 1);
    assert_eq!(&fadt[244..256], [1, 8, 0, 1, 0x00, 0x06, 0, 0, 0, 0, 0, 0]);
    assert_eq!(&fadt[256..268], [1, 8, 0, 1, 0x01, 0x06, 0, 0, 0, 0, 0, 0]);
    let dsdt = table(&area, number(fadt, 140, 8));
    assert_eq!(&dsdt[..4], b"DSDT");
}

#[test]
fn the_madt_lists_local_apics_and_nothing_else() {
    let area = tables(machine()).unwrap();
    let madt = listed(&area, b"APIC");
    assert_eq!(number(madt, 36, 4), 0xFEE0_0000);
    assert_eq!(number(madt, 40, 4), 0, "PCAT_COMPAT is off");
    assert_eq!(
        &madt[44..],
        [0, 8, 0, 0, 1, 0, 0, 0, 0, 8, 1, 1, 1, 0, 0, 0]
    );
}

#[test]
fn the_mcfg_names_ecam_of_bus_0() {
    let area = tables(machine()).unwrap();
    let mcfg = listed(&area, b"MCFG");
    assert_eq!(mcfg.len(), 36 + 8 + 16);
    assert_eq!(number(mcfg, 44, 8), ECAM_START.raw());
    assert_eq!(
        &mcfg[52..60],
        [0, 0, 0, 0, 0, 0, 0, 0],
        "segment 0, buses 0 to 0"
    );
}

#[test]
fn the_dsdt_describes_what_there_is() {
    let dsdt_of = |machine| {
        let area = tables(machine).unwrap();
        let fadt = listed(&area, b"FACP");
        table(&area, number(fadt, 140, 8)).to_vec()
    };
    let dsdt = dsdt_of(machine());
    // Name (_S5, Package (4) { 5, 0, 0, 0 })
    assert!(
        find(
            &dsdt,
            &[0x5C, b'_', b'S', b'5', b'_', 0x12, 7, 4, 0x0A, 5, 0, 0, 0]
        )
        .is_some()
    );
    assert!(find(&dsdt, b"PCI0").is_some() && find(&dsdt, b"ECAM").is_some());
    assert!(find(&dsdt, b"QEMU0001").is_some());
    // IO (Decode16, 0x03F8, 0x03F8, 1, 8), end tag: no interrupt behind it.
    let uart = [0x47, 1, 0xF8, 3, 0xF8, 3, 1, 8, 0x79];
    assert!(find(&dsdt, &uart).is_some());
    // QWordMemory from 5 GiB to 6 GiB - 1.
    let mut window = (5_u64 << 30).to_le_bytes().to_vec();
    window.extend(((6_u64 << 30) - 1).to_le_bytes());
    assert!(find(&dsdt, &window).is_some());

    let bare = dsdt_of(Machine {
        has_console: false,
        window64: None,
        vcpus: 1,
    });
    assert!(find(&bare, &uart).is_none() && find(&bare, b"COM1").is_none());
    assert!(find(&bare, &window).is_none());
}

#[test]
fn the_largest_machine_fits_into_the_handoff() {
    let area = tables(Machine {
        vcpus: 64,
        ..machine()
    })
    .unwrap();
    assert!(area.len() <= ACPI_BYTES / 4);
}
