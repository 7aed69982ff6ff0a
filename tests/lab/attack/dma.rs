//! DMA by a device that the guest owns wholly, against what the guest's addresses lead to.
//!
//! A transfer that the IOMMU stops reads as zeros here and writes nothing; the device says that it is done all the same.

use std::{fs, os::unix::fs::FileExt};

use super::{
    Attacker,
    bare_edu::BareEdu,
    guest::{RESULT, SOURCE, TARGET, add_edu, goes_on, with_edu},
    hardware,
    physical::{Canary, GuestRam},
};
use crate::{guest::GuestFile, host};

const MIB: u64 = 1 << 20;
/// The attackers' RAM: from 0 to here.
const RAM_END: u64 = 64 * MIB;
/// What is in edu's buffer before it reads, and what it writes.
const OWN: u8 = 0xE5;

/// Claim: a device without a reset, or that is no VF, is refused by name. Attacks: the precondition of group D.
/// Control: every other test here accepts both by name, and runs.
#[test]
#[ignore = "needs a lab host"]
fn hostile_device_is_refused_unless_accepted_by_name() {
    let edu = host::fact("EDU");
    let text = GuestFile::attacker("edu-refused").device(&edu).refused(3);
    for id in ["device-not-a-vf", "device-no-reset"] {
        assert!(text.contains(&format!("error[{id}]")), "{text}");
    }
}

/// Claim: a device reads and writes its guest's RAM, and at addresses where the guest has none it reads nothing and
/// writes nothing, and the host's kernel logs who tried. Attacks: D00, D01, D02, by edu and by an NVMe VF.
/// Control: D00 here; the same programs reach memory without the layer in `physical_memory_of_the_host_is_out_of_reach`.
#[test]
#[ignore = "needs a lab host"]
fn nothing_answers_outside_of_ram() {
    let (edu, nvme) = (host::fact("EDU"), host::nvme(0));
    let mut guest = Attacker::start(&with_edu("dma-walk").device(&nvme));
    let ram = GuestRam::of(&guest.guest);
    guest.enable(1);
    guest.edu_load(0x5A);
    guest.edu_out(RESULT, 0, 4096);
    assert_eq!(
        ram.bytes(RESULT, 4096),
        [0x5A; 4096],
        "the control failed: no DMA to own RAM"
    );

    // 16 reads, each to its own place of the buffer.
    guest.edu_load(OWN);
    guest.tell(&format!(
        "edu-walk-in {:#x} {:#x} 16",
        16 * RAM_END,
        61 * MIB + 4096
    ));
    guest.edu_out(RESULT, 0, 4096);
    assert_only_own_bytes("IOVAs outside of RAM", &ram.bytes(RESULT, 4096));
    guest.tell(&format!(
        "edu-walk-out {:#x} {:#x} 16",
        16 * RAM_END,
        61 * MIB + 4096
    ));
    hardware::assert_fault_is_logged(&edu, || guest.edu_out(16 * RAM_END, 0, 16));

    guest.start_nvme(2);
    assert_eq!(guest.value(&format!("nvme-identify {TARGET:#x}")), 0);
    assert_ne!(
        ram.bytes(TARGET, 4096),
        [0; 4096],
        "the control failed: no DMA to own RAM"
    );
    let before = ram.bytes(0x40_0000, 0x40_0000);
    guest.tell(&format!(
        "nvme-walk-out {:#x} {:#x} 256",
        2 * RAM_END,
        0x10_1000
    ));
    assert_eq!(
        ram.bytes(0x40_0000, 0x40_0000),
        before,
        "a write outside of RAM landed in it"
    );
    guest.fill(SOURCE, 0x77);
    for nth in 0..8 {
        let iova = 2 * RAM_END + nth * 0x10_1000;
        guest.fill(RESULT, OWN);
        guest.tell(&format!("nvme-in {iova:#x} 2 {} {RESULT:#x}", 64 + 8 * nth));
        assert_only_own_bytes(&format!("IOVA {iova:#x}"), &ram.bytes(RESULT, 4096));
    }
    hardware::assert_fault_is_logged(&nvme, || {
        guest.tell(&format!("nvme-identify {:#x}", 4 * RAM_END));
    });
    guest.off();
}

/// Fails if the device has read anything: zeros and what its buffer held before are not read.
pub(super) fn assert_only_own_bytes(what: &str, bytes: &[u8]) {
    let foreign = bytes.iter().position(|byte| *byte != 0 && *byte != OWN);
    assert_eq!(
        foreign,
        None,
        "LEAK: the device read {what}: {:02x?}",
        &bytes[..64]
    );
}

/// Claim: the map ends where RAM ends, to the byte. Attacks: D03, D04 (for a guest above 4 GiB, see `large`).
/// Control: the last page, and the part of a transfer that lies in RAM, do arrive.
#[test]
#[ignore = "needs a lab host"]
fn ram_is_reached_to_its_last_byte_and_no_further() {
    let mut guest = Attacker::start(&with_edu("dma-edges"));
    guest.enable(1);
    let edges = [
        ("the page behind RAM", RAM_END),
        ("the end of low RAM", 0xC000_0000),
        ("the guest's ECAM", 0xE000_0000),
        ("the page below 4 GiB", 0xFFFF_F000),
        ("4 GiB", 0x1_0000_0000),
    ];
    check_edges(&mut guest, RAM_END, &edges);
    // Below 1 MiB is RAM, whatever a PC has there.
    guest.edu_load(0x21);
    guest.edu_out(0xA_0000, 0, 4096);
    let ram = GuestRam::of(&guest.guest);
    assert_eq!(ram.bytes(0xA_0000, 4096), [0x21; 4096]);
    guest.off();
}

/// Fails unless DMA works up to `end` and not at the named addresses, nor in what of a transfer lies behind `end`.
pub(crate) fn check_edges(guest: &mut Attacker, end: u64, edges: &[(&str, u64)]) {
    let ram = GuestRam::of(&guest.guest);
    guest.edu_load(0x21);
    guest.edu_out(end - 4096, 0, 4096);
    assert_eq!(
        ram.bytes(end - 4096, 4096),
        [0x21; 4096],
        "the last page is not reached"
    );
    for (name, iova) in edges {
        guest.edu_load(OWN);
        guest.edu_in(*iova, 0, 4096);
        guest.edu_out(RESULT, 0, 4096);
        assert_only_own_bytes(name, &ram.bytes(RESULT, 4096));
    }
    // 100 bytes of RAM, then 100 behind it.
    guest.edu_load(OWN);
    guest.edu_in(end - 100, 0, 200);
    guest.edu_out(RESULT, 0, 4096);
    let read = ram.bytes(RESULT, 200);
    assert_eq!(read[..100], [0x21; 100], "what lies in RAM is not read");
    assert_only_own_bytes("bytes behind the end of RAM", &read[100..]);
    guest.edu_load(OWN);
    guest.edu_out(end - 100, 0, 200);
    assert_eq!(
        ram.bytes(end - 100, 100),
        [OWN; 100],
        "what lies in RAM is not written"
    );
}

/// Claim: without bus master, which only the guest's own write of the command register grants, a device moves nothing.
/// Attack: D12. Control: the same transfer after the bit is set.
#[test]
#[ignore = "needs a lab host"]
fn dma_before_bus_master_moves_nothing() {
    const MEMORY: u64 = 2;
    let mut guest = Attacker::start(&with_edu("dma-master"));
    let ram = GuestRam::of(&guest.guest);
    guest.tell(&format!("command 1 {MEMORY}"));
    assert!(!host::is_bus_master(&host::fact("EDU")));
    guest.fill(TARGET, 0x44);
    guest.edu_out(TARGET, 0, 4096);
    assert_eq!(
        ram.bytes(TARGET, 4096),
        [0x44; 4096],
        "LEAK: DMA before bus master"
    );
    guest.enable(1);
    guest.edu_load(0x55);
    guest.edu_out(TARGET, 0, 4096);
    assert_eq!(
        ram.bytes(TARGET, 4096),
        [0x55; 4096],
        "the control failed: no DMA with bus master"
    );
    guest.tell(&format!("command 1 {MEMORY}"));
    guest.fill(TARGET, 0x66);
    guest.edu_out(TARGET, 0, 4096);
    assert_eq!(
        ram.bytes(TARGET, 4096),
        [0x66; 4096],
        "LEAK: DMA after bus master was taken"
    );
    guest.off();
}

/// Claim: an image is read by the guest's devices and never written, neither in memory nor on disk. Attack: D15.
/// Control: it is read; and a private copy of the same image, mapped for writing, is written by the same transfer.
#[test]
#[ignore = "needs a lab host"]
fn image_is_not_written_by_dma() {
    const AT: u64 = 0x1_0000_0000;
    let pattern: Vec<u8> = (0..2 * MIB)
        .map(|i| (i / 4096 % 251).to_le_bytes()[0] | 1)
        .collect();
    for (mode, is_written) in [("read-only", false), ("copy", true)] {
        fs::write("/tmp/attacked-image", &pattern).unwrap();
        let table = format!("[root]\nimage = \"/tmp/attacked-image\"\nmode = \"{mode}\"");
        let mut guest = Attacker::start(&with_edu("dma-image").table(&table));
        let ram = GuestRam::of(&guest.guest);
        guest.enable(1);
        guest.edu_in(AT + 4096, 0, 4096);
        guest.edu_out(RESULT, 0, 4096);
        assert_eq!(
            ram.bytes(RESULT, 4096),
            pattern[4096..8192],
            "the control failed: {mode} is not read"
        );
        guest.edu_load(OWN);
        guest.edu_out(AT + 4096, 0, 4096);
        let seen = guest.read(1, AT + 4096);
        assert_eq!(
            seen == u64::from(OWN),
            is_written,
            "a {mode} image now has {seen:#x}"
        );
        assert!(
            fs::read("/tmp/attacked-image").unwrap() == pattern,
            "LEAK: the device wrote the image"
        );
        guest.off();
    }
}

/// Claim: addresses beyond the IOMMU's width are not cut to ones that are mapped. Attack: D16.
/// Control: the page of which they would be aliases is reached by its own address.
#[test]
#[ignore = "needs a lab host"]
fn high_addresses_are_no_aliases_of_low_ones() {
    let mut guest = Attacker::start(&with_edu("dma-high"));
    let ram = GuestRam::of(&guest.guest);
    guest.enable(1);
    guest.edu_load(0x31);
    guest.edu_out(TARGET, 0, 4096);
    assert_eq!(ram.bytes(TARGET, 4096), [0x31; 4096], "the control failed");
    for bit in [32, 36, 39, 46, 47, 48, 52, 57, 63] {
        let alias = 1_u64 << bit | TARGET;
        guest.edu_load(OWN);
        guest.edu_in(alias, 0, 4096);
        guest.edu_out(RESULT, 0, 4096);
        assert_only_own_bytes(&format!("{alias:#x}"), &ram.bytes(RESULT, 4096));
        guest.edu_load(0x32);
        guest.edu_out(alias, 0, 4096);
        assert_eq!(
            ram.bytes(TARGET, 4096),
            [0x31; 4096],
            "a write to {alias:#x} landed at {TARGET:#x}"
        );
    }
    // The last page there is; and a transfer that wraps, whose second half is one to address zero, which is RAM.
    let first = ram.bytes(0, 256);
    guest.edu_load(OWN);
    guest.edu_out(u64::MAX - 4095, 0, 4096);
    assert_eq!(
        ram.bytes(0, 256),
        first,
        "a write to the last page landed at address zero"
    );
    guest.edu_in(u64::MAX - 127, 0, 128);
    guest.edu_out(u64::MAX - 127, 0, 256);
    assert_eq!(
        ram.bytes(128, 128),
        first[128..],
        "a write that wraps went further than its length"
    );
    guest.off();
}

/// Claim: a device that makes nothing but faults harms neither the host nor another guest, nor fills the log.
/// Attack: D17. Control: the faults are counted by the kernel's log, and the neighbour's DMA works before and after.
#[test]
#[ignore = "needs a lab host"]
fn fault_storm_disturbs_nobody() {
    let file = goes_on(GuestFile::attacker("dma-storm")).device(&host::nvme(0));
    let mut storm = Attacker::start(&file);
    let mut neighbour =
        Attacker::start(&add_edu(GuestFile::attacker("dma-neighbour")).device(&host::nvme(1)));
    storm.start_nvme(1);
    neighbour.start_nvme(2);
    let (mark, alarms) = (hardware::LogMark::now(), hardware::alarms());
    let storm_started = std::time::Instant::now();
    storm.begin(&format!("nvme-storm {:#x}", 4 * RAM_END));
    let ram = GuestRam::of(&neighbour.guest);
    let started = std::time::Instant::now();
    let mut rounds = 0;
    while started.elapsed().as_secs() < 2 {
        neighbour.fill(TARGET, 0);
        assert_eq!(neighbour.value(&format!("nvme-identify {TARGET:#x}")), 0);
        assert_ne!(
            ram.bytes(TARGET, 64),
            [0; 64],
            "the neighbour's DMA does not arrive"
        );
        rounds += 1;
    }
    // Any line ends the storm, and is then obeyed as the next command.
    storm.begin("wait 1");
    let faults = u64::from_str_radix(storm.answer()["value"].trim_start_matches("0x"), 16).unwrap();
    storm.answer();
    assert!(
        faults > 100 && rounds > 5,
        "{faults} faults, {rounds} rounds of the neighbour"
    );
    let lines = mark.lines();
    assert!(
        lines.iter().any(|line| line.contains("DMAR:")),
        "no fault was logged: {lines:#?}"
    );
    // VT-d's driver logs ten faults in five seconds, each with a line on the unit's status, and says how many it left out.
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();
    let bound = (seconds / 5 + 2) * 25;
    assert!(
        lines.len() <= bound,
        "{} lines in the kernel's log for {faults} faults, not {bound}: {lines:#?}",
        lines.len()
    );
    mark.assert_calm();
    assert_eq!(hardware::alarms(), alarms);
    let lasted = storm_started.elapsed().as_secs();
    let transcript = storm.off();
    let text = transcript.text();
    let own = |words: &str| {
        let is_own = |line: &&str| line.starts_with("narrows[") && line.contains(words);
        text.lines().filter(is_own).count()
    };
    // Eight a minute, and one for all others of that minute, whatever the number of faults.
    let windows = usize::try_from(lasted / 60).unwrap() + 1;
    let (said, summed) = (own("DMA fault of"), own("more DMA faults were stopped"));
    assert!(
        (1..=8 * windows).contains(&said) && summed <= windows,
        "{said} faults were said and {summed} sums, of {faults} faults in {lasted} s:\n{text}"
    );
    assert!(own("") < 60, "{} lines of the supervisor:\n{text}", own(""));
    neighbour.off();
}

/// Claim: what a device had mapped for one guest it does not reach for the next. Attack: D14.
/// Control: the first guest reads its secret by the same address; without the layer see `dma_host`.
#[test]
#[ignore = "needs a lab host"]
fn next_guest_does_not_reach_what_the_last_one_had() {
    const SECRET: u8 = 0xB7;
    let far = 2 * RAM_END;
    let mut first = Attacker::start(&with_edu("dma-first").memory("256M"));
    first.enable(1);
    first.fill(far, SECRET);
    first.edu_in(far, 0, 4096);
    first.edu_out(RESULT, 0, 4096);
    let ram = GuestRam::of(&first.guest);
    assert_eq!(
        ram.bytes(RESULT, 4096),
        [SECRET; 4096],
        "the control failed"
    );
    // The page stays in memory after the guest, as long as this mapping of its file does. It is wiped at the end.
    let (file, frame) = (GuestRam::file_of(&first.guest), ram.physical(far));
    first.off();
    assert_eq!(
        ram.bytes(far, 4096),
        [0; 4096],
        "the run's memory is not wiped"
    );
    file.write_all_at(&[SECRET; 4096], GuestRam::offset(far))
        .unwrap();
    assert_eq!(ram.physical(far), frame, "the page has moved");
    let mut next = Attacker::start(&with_edu("dma-next"));
    let own = GuestRam::of(&next.guest);
    next.enable(1);
    for iova in [far, frame] {
        next.edu_load(OWN);
        next.edu_in(iova, 0, 4096);
        next.edu_out(RESULT, 0, 4096);
        assert_only_own_bytes("the last guest's RAM", &own.bytes(RESULT, 4096));
        next.edu_out(iova, 0, 4096);
        assert_eq!(
            ram.bytes(far, 4096),
            [SECRET; 4096],
            "LEAK: the next guest wrote the last one's RAM"
        );
    }
    next.off();
    let edu = BareEdu::without_iommu();
    let canary = Canary::new(1, 0);
    edu.read(frame, 0, 4096);
    edu.write(canary.physical(0), 0, 4096);
    assert!(
        canary.holds(SECRET),
        "the control failed: without the IOMMU the page is not read"
    );
}
