//! A guest that leaves its VF of a pool in the worst state that it can reach, in as many ways as a device has.

use crate::{
    attack::{Attacker, RESULT, SOURCE, TARGET},
    guest::GuestFile,
};

/// Registers of the NIC's VF. *Source:* Intel 82576 datasheet 2.61, section 8.28 (VF registers), and Linux
/// `drivers/net/ethernet/intel/igbvf/{regs,mbx}.h`.
const MAILBOX: u64 = 0xC40;
const MAILBOX_MEMORY: u64 = 0x800;
const MAILBOX_REQUEST: u64 = 1;
const MAILBOX_ACKNOWLEDGE: u64 = 2;
const MAILBOX_OF_VF: u64 = 4;
const MAILBOX_HAS_ANSWER: u64 = 0x30;
const REFUSED: u64 = 0x4000_0000;
const RESET: u64 = 1;
const SET_MAC: u64 = 2;
const SET_VLAN: u64 = 4 | 1 << 16;
const SET_PROMISCUOUS: u64 = 6 | 1 << 16;
/// First of a ring's registers, and where its length, tail and control are from there.
const RINGS: [u64; 2] = [0x2800, 0x3800];
const RING_LEN: u64 = 0x08;
const RING_TAIL: u64 = 0x18;
const RING_CONTROL: u64 = 0x28;
const RING_IS_ON: u64 = 1 << 25;

/// *Source:* NVM Express Base Specification 2.0, section 3.1.3.
const CONFIGURATION: u64 = 0x14;
const SHUTDOWN_BEGUN: u64 = 1 << 14;

/// A word that is in no register by itself.
const GARBAGE: u64 = 0x5A5A_5A5A;

/// What a VF is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nic,
    /// With this namespace.
    Nvme(u32),
}

/// An attacker that goes on when its devices' DMA goes where it may not.
pub(crate) fn file(name: &str) -> GuestFile {
    GuestFile::attacker(name).key("on_dma_fault = \"log\"")
}

/// Does its worst with the VF in `slot`; `how` picks the state in which it is left.
pub(crate) fn spoil(guest: &mut Attacker, slot: u64, kind: Kind, how: usize) {
    guest.tell(&format!("config-sweep {slot} 0 256 0xFFFFFFFFFFFFFFFF"));
    guest.enable(slot);
    match kind {
        Kind::Nic => spoil_nic(guest, slot, how),
        Kind::Nvme(nsid) => spoil_nvme(guest, slot, nsid, how),
    }
}

fn spoil_nic(guest: &mut Attacker, slot: u64, how: usize) {
    let bar = guest.bar(slot, 0);
    post(guest, bar, &[RESET]);
    let mac = post(guest, bar, &[SET_MAC, 0xADDE_0200 | 0xEF, 0x01BE]);
    assert_ne!(mac & REFUSED, 0, "the PF let it take another address");
    post(guest, bar, &[SET_VLAN, 102]);
    post(guest, bar, &[SET_PROMISCUOUS]);
    for ring in RINGS {
        guest.write(4, bar + ring, RESULT);
        guest.write(4, bar + ring + RING_LEN, 4096);
        guest.write(4, bar + ring + RING_CONTROL, RING_IS_ON);
        guest.write(4, bar + ring + RING_TAIL, 200);
    }
    if how % 2 == 1 {
        guest.tell(&format!("fill-registers {bar:#x} 0x4000 {GARBAGE:#x}"));
    }
}

/// Sends words to the PF's driver; the first word of its answer.
fn post(guest: &mut Attacker, bar: u64, words: &[u64]) -> u64 {
    let is_had = |guest: &mut Attacker| {
        guest.write(4, bar + MAILBOX, MAILBOX_OF_VF);
        guest.read(4, bar + MAILBOX) & MAILBOX_OF_VF != 0
    };
    assert!((0..50).any(|_| is_had(guest)), "the mailbox is the PF's");
    for (word, at) in words.iter().zip((0..).step_by(4)) {
        guest.write(4, bar + MAILBOX_MEMORY + at, *word);
    }
    guest.write(4, bar + MAILBOX, MAILBOX_REQUEST);
    let is_answered = |guest: &mut Attacker| {
        guest.tell("wait 20");
        guest.read(4, bar + MAILBOX) & MAILBOX_HAS_ANSWER != 0
    };
    assert!(
        (0..50).any(|_| is_answered(guest)),
        "the PF does not answer {words:#x?}"
    );
    guest.tell("wait 20");
    let answer = guest.read(4, bar + MAILBOX_MEMORY);
    guest.write(4, bar + MAILBOX, MAILBOX_ACKNOWLEDGE);
    answer
}

fn spoil_nvme(guest: &mut Attacker, slot: u64, nsid: u32, how: usize) {
    guest.start_nvme(slot);
    guest.fill(SOURCE, 0xA5);
    let written = guest.tell(&format!("nvme-in {SOURCE:#x} {nsid} 0 {TARGET:#x}"));
    assert_eq!(written["read"], "0x0", "its namespace cannot be written");
    let bar = guest.bar(slot, 0);
    match how % 4 {
        // Queues on, a command in flight for ever.
        0 => guest.begin(&format!("nvme-storm {RESULT:#x}")),
        1 => guest.write(4, bar + CONFIGURATION, 0),
        2 => {
            let is = guest.read(4, bar + CONFIGURATION);
            guest.write(4, bar + CONFIGURATION, is | SHUTDOWN_BEGUN);
        }
        _ => {
            guest.tell(&format!("fill-registers {bar:#x} 0x1000 {GARBAGE:#x}"));
        }
    }
}
