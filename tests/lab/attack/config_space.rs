//! A guest that writes whatever configuration space and BARs take, compared with what the hardware then has.

use std::{fs, time::Instant};

use super::{
    Attacker,
    guest::{RESULT, SOURCE, TARGET},
    hardware::{self, LogMark, Registers},
    physical::GuestRam,
};
use crate::{guest::GuestFile, host};

/// Configuration space of the guest's first function.
const CONFIG: u64 = 0xE000_8000;
const COMMAND: u64 = CONFIG + 4;
const EXPRESS: u8 = 0x10;
const POWER: u8 = 0x01;
const MSIX: u8 = 0x11;

/// The bits of the hardware's configuration space that may change while a guest writes, of a VF whose MSI-X capability is at
/// `msix`: the guest's own wish for memory and bus master, and what the host's kernel writes when it arms vectors.
fn allowed(msix: usize) -> [(usize, u8); 3] {
    [(4, 0x06), (5, 0x04), (msix + 3, 0xC0)]
}

/// The snapshots of a VF, its PF, and the VF beside it.
struct Snapshots([(String, Vec<u8>); 3]);

impl Snapshots {
    fn take(functions: [String; 3]) -> Self {
        Self(functions.map(|bdf| {
            let config = hardware::config(&bdf);
            assert_eq!(
                config.len(),
                4096,
                "{bdf}: not all of configuration space is seen"
            );
            (bdf, config)
        }))
    }

    /// Fails where anything differs now but the allowed bits of the first.
    fn assert_kept(&self, msix: usize, what: &str) {
        for (index, (bdf, before)) in self.0.iter().enumerate() {
            let allowed = if index == 0 {
                allowed(msix).to_vec()
            } else {
                Vec::new()
            };
            let found = hardware::differences(before, &hardware::config(bdf), &allowed);
            assert!(
                found.is_empty(),
                "LEAK: {what} changed the hardware of {bdf}: {found:#?}"
            );
        }
    }
}

/// Claim: whatever a guest writes to configuration space, in any width and at any place, the hardware's changes in nothing
/// but memory enable, bus master and the kernel's arming of vectors; PF and sibling not at all. Attacks: E02, E06, E07,
/// E09 to E15, E17. Control: root's write of the same kind does change the hardware, and the comparison finds it.
#[test]
#[ignore = "needs a lab host"]
fn no_write_of_configuration_space_reaches_the_hardware() {
    // Whole space with ones and zeros; single bits where the guest can see registers.
    sweep(
        [host::nic(0), host::fact("NIC_PF"), host::nic(1)],
        &[(0, 4096, 32)],
    );
    sweep(
        [host::nvme(0), host::fact("NVME_PF"), host::nvme(1)],
        &[(0, 256, 1)],
    );

    let (vf, msix) = (host::nvme(0), hardware::capability(&host::nvme(0), MSIX));
    let before = hardware::config(&vf);
    let control = u64::try_from(msix).unwrap() + 3;
    hardware::write_config(&vf, control, &[before[msix + 3] ^ 0x40]);
    hardware::write_config(&vf, 4, &[before[4] ^ 4]);
    let found = hardware::differences(&before, &hardware::config(&vf), &[]);
    hardware::write_config(&vf, control, &[before[msix + 3]]);
    hardware::write_config(&vf, 4, &[before[4]]);
    assert_eq!(found.len(), 2, "the control failed: {found:#?}");
}

/// Writes to the spaces of a guest's one function: each of `areas` is first offset, end, and the distance of single bits.
fn sweep(functions: [String; 3], areas: &[(u64, u64, u32)]) {
    let bdf = functions[0].clone();
    let msix = hardware::capability(&bdf, MSIX);
    let mut guest = Attacker::start(&GuestFile::attacker("config-sweep").device(&bdf));
    let (log, alarms) = (LogMark::now(), hardware::alarms());
    let before = Snapshots::take(functions);
    for (first, end, step) in areas {
        let bits = (0..32).step_by(*step as usize).map(|bit| 1_u64 << bit);
        for value in bits.chain([u64::MAX, 0]) {
            // Single bits only where something answers; all ones and zeros everywhere.
            let end = if value.count_ones() == 1 {
                256.min(*end)
            } else {
                *end
            };
            guest.tell(&format!("config-sweep 1 {first} {end} {value:#x}"));
            before.assert_kept(msix, &format!("writing {value:#x} to configuration space"));
        }
    }
    log.assert_calm();
    assert_eq!(hardware::alarms(), alarms);
    guest.off();
    host::assert_returned(&bdf);
}

/// Claim: a guest sees the header and the capabilities of the table, and nothing that reaches the fabric. Attack: E16 (and
/// E09: no ROM). Control: the host sees more of the same function.
#[test]
#[ignore = "needs a lab host"]
fn guest_sees_no_capability_that_is_not_in_the_table() {
    for bdf in [host::nic(0), host::nvme(0)] {
        let mut guest = Attacker::start(&GuestFile::attacker("config-visible").device(&bdf));
        let mut at = guest.read(1, CONFIG + 0x34);
        let mut seen = Vec::new();
        while at != 0 && seen.len() < 16 {
            seen.push(guest.read(1, CONFIG + at));
            at = guest.read(1, CONFIG + at + 1);
        }
        assert!(
            seen.iter()
                .all(|id| [u64::from(POWER), u64::from(EXPRESS), u64::from(MSIX)].contains(id)),
            "{bdf}: capabilities {seen:#x?}"
        );
        assert!(
            seen.contains(&u64::from(MSIX)),
            "{bdf}: capabilities {seen:#x?}"
        );
        guest.write(4, CONFIG + 0x30, 0xFFFF_FFFF);
        assert_eq!(guest.read(4, CONFIG + 0x30), 0, "{bdf}: a ROM");
        assert_eq!(
            guest.read(4, CONFIG + 0x100),
            0,
            "{bdf}: an extended capability"
        );
        let host_sees = hardware::config(&bdf)[0x100..0x104].to_vec();
        assert_ne!(
            host_sees, [0; 4],
            "the control failed: {bdf} has no extended capability"
        );
        guest.off();
    }
}

/// Claim: a BAR that the guest moves, sizes or switches off moves nothing: RAM stays RAM, the registers stay where they
/// were, the hardware keeps its address. Attacks: E01, E02, E03. Control: the device works by its registers before and after.
#[test]
#[ignore = "needs a lab host"]
fn bar_moves_move_nothing() {
    let bdf = host::nvme(0);
    let msix = hardware::capability(&bdf, MSIX);
    let mut guest = Attacker::start(&GuestFile::attacker("config-bars").device(&bdf));
    let ram = GuestRam::of(&guest.guest);
    guest.start_nvme(1);
    let bar = guest.bar(1, 0);
    let version = guest.read(4, bar + 8);
    assert!(
        version != 0 && version != 0xFFFF_FFFF,
        "the registers do not answer: {version:#x}"
    );
    let resources = || fs::read_to_string(format!("/sys/bus/pci/devices/{bdf}/resource")).unwrap();
    let (hardware_bars, alarms, log) = (resources(), hardware::alarms(), LogMark::now());
    let before = Snapshots::take([bdf.clone(), host::fact("NVME_PF"), host::nvme(1)]);
    let pid = guest.guest.child_pid("narrows-vcpu");
    let maps = || fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mapped = maps();
    guest.fill(SOURCE, 0x5C);
    for address in [
        0,
        SOURCE,
        0xFEE0_0000,
        CONFIG,
        0xC000_0000,
        0xFFFF_F000,
        bar + 0x1000,
    ] {
        // The upper half last, then first, decoding all the while.
        guest.write(4, CONFIG + 0x10, address & 0xFFFF_FFFF);
        guest.write(4, CONFIG + 0x14, address >> 32);
        assert_eq!(
            ram.bytes(SOURCE, 4096),
            [0x5C; 4096],
            "the BAR at {address:#x} lies over RAM"
        );
        assert_eq!(
            guest.read(4, bar + 8),
            version,
            "the BAR left its place for {address:#x}"
        );
        guest.write(4, CONFIG + 0x14, 0xFFFF_FFFF);
        guest.write(4, CONFIG + 0x10, 0xFFFF_FFFF);
        let size = guest.read(4, CONFIG + 0x10);
        assert_eq!(size & !0xF, 0xFFFF_C000, "sizing gives {size:#x}");
        assert_eq!(guest.read(4, CONFIG + 0x14), 0xFFFF_FFFF);
    }
    guest.write(2, COMMAND, 0);
    guest.read(4, bar + 8);
    guest.write(4, bar + 0x24, 0);
    assert_eq!(
        resources(),
        hardware_bars,
        "LEAK: the hardware's BARs have moved"
    );
    assert_eq!(maps(), mapped, "what V maps has changed");
    before.assert_kept(msix, "moving BARs");
    guest.write(4, CONFIG + 0x10, bar & 0xFFFF_FFFF);
    guest.write(4, CONFIG + 0x14, bar >> 32);
    guest.start_nvme(1);
    assert_eq!(guest.value(&format!("nvme-identify {TARGET:#x}")), 0);
    log.assert_calm();
    assert_eq!(hardware::alarms(), alarms);
    guest.off();
}

/// Claim: toggling bus master and power states hundreds of times changes nothing that stays, and other guests go on.
/// Attacks: E04, E14. Control: the bit does follow the guest (`dma_before_bus_master_moves_nothing`).
#[test]
#[ignore = "needs a lab host"]
fn flapping_registers_disturb_nobody() {
    let bdf = host::nvme(0);
    let (msix, power) = (
        hardware::capability(&bdf, MSIX),
        hardware::capability(&bdf, POWER),
    );
    let mut guest = Attacker::start(&GuestFile::attacker("config-flap").device(&bdf));
    let mut neighbour =
        Attacker::start(&GuestFile::attacker("config-neighbour").device(&host::nvme(1)));
    neighbour.start_nvme(1);
    let before = Snapshots::take([bdf.clone(), host::fact("NVME_PF"), host::nvme(1)]);
    let alarms = hardware::alarms();
    guest.begin(&format!("alternate 2 {COMMAND:#x} 6 2 200"));
    assert_eq!(neighbour.value(&format!("nvme-identify {TARGET:#x}")), 0);
    guest.answer();
    assert!(
        !host::is_bus_master(&bdf),
        "the last write took bus master away"
    );
    let control = CONFIG + u64::try_from(power).unwrap() + 4;
    guest.tell(&format!("alternate 2 {control:#x} 3 0 200"));
    before.assert_kept(msix, "flapping");
    guest.start_nvme(1);
    assert_eq!(guest.value(&format!("nvme-identify {TARGET:#x}")), 0);
    assert_eq!(hardware::alarms(), alarms);
    guest.off();
    neighbour.off();
}

/// Claim: what a guest writes to its MSI-X table does not reach the hardware's. Attack: E05.
/// Control: the same write by root, past the hypervisor, does.
#[test]
#[ignore = "needs a lab host"]
fn msix_table_of_the_hardware_is_out_of_reach() {
    let bdf = host::nvme(0);
    let msix = hardware::capability(&bdf, MSIX);
    let table = usize::try_from(u32::from_le_bytes(
        hardware::config(&bdf)[msix + 4..msix + 8]
            .try_into()
            .unwrap(),
    ))
    .unwrap();
    assert_eq!(table & 7, 0, "the table is in BAR 0");
    let mut guest = Attacker::start(&GuestFile::attacker("config-msix").device(&bdf));
    guest.enable(1);
    let bar = guest.bar(1, 0);
    // Armed, so that the hardware's table has the host's messages.
    guest.write(2, CONFIG + u64::try_from(msix).unwrap() + 2, 0x8000);
    let registers = Registers::map(&bdf, 0);
    let dwords = |registers: &Registers| -> Vec<u32> {
        (0..8)
            .map(|index| registers.read32(table + 4 * index))
            .collect()
    };
    let before = dwords(&registers);
    assert!(
        before[0] & 0xFFF0_0000 == 0xFEE0_0000,
        "the hardware has no message: {before:#x?}"
    );
    let in_guest = bar + u64::try_from(table).unwrap();
    for (dword, value) in [
        (0, 0xFEE5_5000),
        (1, 0),
        (2, 0x66),
        (3, 1),
        (4, 0xFEE5_5000),
        (6, 0x67),
    ] {
        guest.write(4, in_guest + 4 * dword, value);
        let seen = guest.read(4, in_guest + 4 * dword);
        assert_eq!(seen, value, "the guest does not see its own table");
        // Other ways to the same dword.
        guest.write(8, in_guest + ((4 * dword) & !7), u64::MAX);
        guest.write(1, in_guest + 4 * dword, 0xAA);
        guest.tell(&format!("odd movsb-out {:#x} {RESULT:#x}", in_guest & !0xF));
    }
    // Messages; the mask of each vector is the kernel's, and stays clear.
    assert_eq!(
        dwords(&registers),
        before,
        "LEAK: the guest wrote the hardware's MSI-X table"
    );
    guest.off();
    // The device was reset: its table holds nothing, and nobody uses it.
    hardware::write_config(&bdf, 4, &[2]);
    registers.write32(table + 8, 0x66);
    assert_eq!(
        registers.read32(table + 8),
        0x66,
        "the control failed: root does not write the table"
    );
    registers.write32(table + 8, 0);
}

/// Claim: resets that a guest asks for without end are slow by themselves and leave sibling and PF alone. Attack: E08.
/// Control: the reset is real, for the guest's own registers are as after power-on.
#[test]
#[ignore = "needs a lab host"]
fn reset_storm_leaves_siblings_alone() {
    const RESETS: u64 = 20;
    let bdf = host::nvme(0);
    let (msix, express) = (
        hardware::capability(&bdf, MSIX),
        hardware::capability(&bdf, EXPRESS),
    );
    let mut guest = Attacker::start(&GuestFile::attacker("config-reset").device(&bdf));
    let mut neighbour =
        Attacker::start(&GuestFile::attacker("config-sibling").device(&host::nvme(1)));
    neighbour.start_nvme(1);
    guest.start_nvme(1);
    let bar = guest.bar(1, 0);
    assert_ne!(
        guest.read(4, bar + 0x14) & 1,
        0,
        "the controller is not enabled"
    );
    let before = Snapshots::take([bdf.clone(), host::fact("NVME_PF"), host::nvme(1)]);
    let started = Instant::now();
    let control = CONFIG + u64::try_from(express).unwrap() + 8;
    guest.begin(&format!(
        "alternate 2 {control:#x} 0x8000 0x8000 {}",
        RESETS / 2
    ));
    for _ in 0..10 {
        assert_eq!(neighbour.value(&format!("nvme-identify {TARGET:#x}")), 0);
    }
    guest.answer();
    let per_second = 1000 * u128::from(RESETS) / started.elapsed().as_millis().max(1);
    assert!(per_second <= 10, "{per_second} resets a second");
    guest.enable(1);
    assert_eq!(
        guest.read(4, bar + 0x14) & 1,
        0,
        "the control failed: the controller was not reset"
    );
    before.assert_kept(msix, "resetting");
    guest.start_nvme(1);
    assert_eq!(neighbour.value(&format!("nvme-identify {TARGET:#x}")), 0);
    let resets = guest
        .guest
        .figures()
        .pointer("/counters/resets")
        .unwrap()
        .as_u64();
    assert_eq!(resets, Some(RESETS));
    guest.off();
    neighbour.off();
    host::assert_returned(&bdf);
}

/// Claim: what is nobody's reads as ones and takes every write, by ports and by ECAM beyond the bus, and instructions that
/// emulators find hard end the guest at worst. Attack: E18. Control: the same instructions work on RAM.
#[test]
#[ignore = "needs a lab host"]
fn nothing_answers_where_nothing_is() {
    const KINDS: [&str; 10] = [
        "movsb-in",
        "movsq-in",
        "movsb-out",
        "stosq",
        "sse-in",
        "sse-out",
        "xchg",
        "lock-or",
        "push",
        "insb",
    ];
    let (log, alarms) = (LogMark::now(), hardware::alarms());
    let mut guest = Attacker::start(&GuestFile::attacker("config-odd"));
    guest.tell("out 4 0xcf8 0x80000800");
    assert_eq!(guest.value("in 4 0xcfc"), 0xFFFF_FFFF);
    guest.tell("out 4 0xcfc 0xffffffff");
    for at in [CONFIG, 0xE00F_F000, 0xE010_0000, 0xEFFF_F000] {
        assert_eq!(
            guest.read(4, at),
            0xFFFF_FFFF,
            "something answers at {at:#x}"
        );
        guest.write(4, at, 0);
    }
    for kind in KINDS {
        guest.tell(&format!("odd {kind} {SOURCE:#x} {RESULT:#x}"));
    }
    for at in [0xD000_0000_u64, 0xE010_0000, 0x40_0000_0000] {
        for kind in KINDS {
            guest.begin(&format!("odd {kind} {at:#x} {RESULT:#x}"));
            guest.answer();
        }
    }
    guest.off();
    log.assert_calm();
    assert_eq!(hardware::alarms(), alarms);
}
