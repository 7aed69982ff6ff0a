//! Registers of a device: what its next owner finds.

use super::canary;
use crate::{
    attack::{
        Attacker,
        hardware::{self, Registers},
    },
    guest::GuestFile,
    host,
};

/// Registers that may differ after a guest from what they were before the first, and why.
struct Kept {
    first: usize,
    last: usize,
    why: &'static str,
}

const fn kept(first: usize, last: usize, why: &'static str) -> Kept {
    Kept { first, last, why }
}

/// A function, and what its reset leaves. Narrows resets it before and after each guest and reads configuration space
/// back; what a reset clears of the registers behind the BARs is the device's own doing.
struct Device {
    bdf: String,
    len: usize,
    /// The BAR of the MSI-X table, and where in it.
    table: (usize, usize),
    kept: &'static [Kept],
}

const NVME_KEPT: &[Kept] = &[
    kept(
        0x24,
        0x34,
        "AQA, ASQ, ACQ: the emulator's reset leaves them, as NVMe lets a reset by CC.EN do",
    ),
    kept(0x50, 0x54, "CMBMSC: the emulator's reset leaves it"),
];

const NIC_KEPT: &[Kept] = &[
    kept(
        0x800,
        0x83C,
        "VMBMEM, memory of the mailbox: no reset clears it",
    ),
    kept(
        0xC40,
        0xC40,
        "the mailbox's own state, which the PF's driver changes as well",
    ),
    kept(0xF04, 0xFFC, "counts of packets"),
    kept(
        0x1524,
        0x1530,
        "masks of interrupts: the emulator's reset leaves them",
    ),
    kept(
        0x1680,
        0x1688,
        "rates of interrupts: the emulator's reset leaves them",
    ),
    kept(
        0x1700,
        0x1740,
        "which vector is for what: the emulator's reset leaves it",
    ),
    kept(
        0x2800,
        0x2928,
        "receive queues: the emulator's reset switches them off and leaves the rest",
    ),
    kept(
        0x3800,
        0x393C,
        "transmit queues: the emulator's reset switches them off and leaves the rest",
    ),
];

/// The words of a BAR.
fn snapshot(bdf: &str, bar: usize, len: usize) -> Vec<u32> {
    // Without decoding, which a function without a driver has off, everything reads zero.
    hardware::write_config(bdf, 4, &[2, 0]);
    let registers = Registers::map(bdf, bar);
    (0..len).step_by(4).map(|at| registers.read32(at)).collect()
}

/// Claim: a function comes back reset: no queue is on, no vector is armed, and what its registers hold is what they held
/// before, but for what the emulator's reset is known to leave. Attack: H03, H04: the guest writes a word to every register
/// that it reaches. Control: while it runs, the registers hold it; some of them do afterwards, which the table of this file
/// names one by one.
#[test]
#[ignore = "needs a lab host"]
fn registers_of_a_function_come_back_reset() {
    let devices = [
        Device {
            bdf: host::nvme(0),
            len: 0x1000,
            table: (0, 0x2000),
            kept: NVME_KEPT,
        },
        Device {
            bdf: host::nic(0),
            len: 0x4000,
            table: (3, 0),
            kept: NIC_KEPT,
        },
    ];
    let word = u32::try_from(canary() & 0xFFFF_FFFF).unwrap();
    for device in devices {
        let bdf = &device.bdf;
        host::shell(&format!("echo 1 >/sys/bus/pci/devices/{bdf}/reset"));
        let before = snapshot(bdf, 0, device.len);
        let vectors =
            snapshot(bdf, device.table.0, device.table.1 + 64).split_off(device.table.1 / 4);
        assert_ne!(before, vec![0; before.len()], "{bdf} shows no registers");

        let mut guest = Attacker::start(&GuestFile::attacker("registers").device(bdf));
        guest.enable(1);
        let bar = guest.bar(1, 0);
        let len = device.len;
        guest.tell(&format!("fill-registers {bar:#x} {len:#x} {word:#x}"));
        let during = snapshot_of_running(bdf, len);
        let taken = during.iter().filter(|value| **value == word).count();
        guest.off();
        host::assert_returned(bdf);

        let after = snapshot(bdf, 0, len);
        let left = after.iter().filter(|value| **value == word).count();
        println!("{bdf}: {taken} registers held the word, {left} hold it after the release");
        assert!(
            taken > 4,
            "the control failed: {taken} registers took the word"
        );
        let is_known = |at: usize| {
            let rows = device.kept.iter();
            rows.filter(|row| (row.first..=row.last).contains(&at))
                .count()
                == 1
        };
        let unknown: Vec<String> = (0..len)
            .step_by(4)
            .zip(before.iter().zip(&after))
            .filter(|(at, (before, after))| before != after && !is_known(*at))
            .map(|(at, (before, after))| format!("{at:#x}: {before:#x}, now {after:#x}"))
            .collect();
        assert_eq!(unknown, Vec::<String>::new(), "LEAK: registers of {bdf}");
        for row in device.kept {
            assert!(!row.why.is_empty());
        }
        let now = snapshot(bdf, device.table.0, device.table.1 + 64).split_off(device.table.1 / 4);
        assert_eq!(now, vectors, "LEAK: the interrupt table of {bdf}");
    }
}

/// As [`snapshot`], where a guest has the function: nothing of it is changed.
fn snapshot_of_running(bdf: &str, len: usize) -> Vec<u32> {
    let registers = Registers::map(bdf, 0);
    (0..len).step_by(4).map(|at| registers.read32(at)).collect()
}

/// Claim: what the PF keeps of a VF (its address, VLAN, trust and rates) is after a guest what the operator made it.
/// Attack: H04: a guest with a driver of its own, which sets its address and filters by the mailbox. Control: the guest's
/// driver works.
#[test]
#[ignore = "needs a lab host"]
fn what_the_pf_keeps_of_a_vf_is_the_operators() {
    let shown = || {
        let nic = host::fact("NIC_IF");
        let text = host::shell(&format!("/usr/bin/ip -d link show dev {nic}"));
        let lines = text.lines().filter(|line| line.trim().starts_with("vf "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = shown();
    assert_eq!(before.len(), 2, "{before:?}");
    let transcript = GuestFile::small("pf-keeps", "net:10.9.0.2/24,ping:10.9.0.1")
        .device(&host::nic(0))
        .run();
    assert_eq!(transcript.facts("ping", "10.9.0.1")["received"], "3");
    assert_eq!(shown(), before, "LEAK: the PF keeps what the guest set");
}

/// Claim: a device that cannot be reset, whose buffers keep what a guest left, is refused unless it is accepted by name.
/// Attack: H03: `edu` has a buffer of 4 KiB and no reset. Control: accepted, it does keep what a guest left for the next.
#[test]
#[ignore = "needs a lab host"]
fn device_that_keeps_what_a_guest_left_is_refused() {
    const WORD: u8 = 0xD7;
    let edu = host::fact("EDU");
    let text = GuestFile::attacker("edu-refused")
        .device_with(&edu, "accept = [\"device-not-a-vf\"]")
        .refused(3);
    assert!(text.contains("device-no-reset"), "{text}");
    let mut first = Attacker::start(&crate::attack::with_edu("edu-first"));
    first.enable(1);
    first.edu_load(WORD);
    first.off();
    let mut second = Attacker::start(&crate::attack::with_edu("edu-second"));
    second.enable(1);
    second.edu_out(crate::attack::TARGET, 0, 4096);
    let seen = second.read(1, crate::attack::TARGET);
    assert_eq!(
        seen,
        u64::from(WORD),
        "the control failed: the device has forgotten what the guest left"
    );
    second.off();
}
