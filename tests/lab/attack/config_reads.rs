//! Configuration space as the guest has it mapped: read without an exit, and by nobody's leave written.

use std::{fs, path::Path};

use super::{
    Attacker,
    guest::RESULT,
    hardware::{self, LogMark},
};
use crate::{guest::GuestFile, host};

const ECAM: u64 = 0xE000_0000;
/// Configuration space of the guest's first function.
const CONFIG: u64 = ECAM + 0x8000;
/// All of the bus, in dwords.
const BUS: u64 = 0x10_0000 / 4;
/// Instructions that write, one way or another; those that read are harmless here.
const WRITES: [&str; 7] = [
    "movsb-out",
    "stosq",
    "sse-out",
    "xchg",
    "lock-or",
    "push",
    "insb",
];

/// KVM's own count of exits to user space for memory, of the VM of `guest`.
fn memory_exits(guest: &Attacker) -> u64 {
    let vcpu = format!("{}-", guest.guest.child_pid("narrows-vcpu"));
    let machines = fs::read_dir("/sys/kernel/debug/kvm").unwrap();
    let machine = machines
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&vcpu))
        })
        .unwrap();
    number(&machine.join("mmio_exits"))
}

fn number(path: &Path) -> u64 {
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

/// Claim: a read of configuration space never reaches V, be it of a function or of none, and what was written is what the
/// next read gives. Control: each write is one exit more.
#[test]
#[ignore = "needs a lab host"]
fn reads_of_configuration_space_cost_no_exit() {
    const READS: u64 = 1024;
    const ROUNDS: u64 = 100;
    let mut guest = Attacker::start(&GuestFile::attacker("config-reads").device(&host::nvme(0)));
    let before = memory_exits(&guest);
    // Function 0 of slot 0, which is none.
    let ones = guest.value(&format!("config-sum {READS}"));
    // Up to the end of the first function of slot 1, which is the guest's.
    guest.value(&format!("config-sum {}", 9 * READS));
    for (width, wanted) in [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFF_FFFF), (8, u64::MAX)] {
        for at in [ECAM, ECAM + 0x9001, ECAM + 0xF_FFF8] {
            assert_eq!(guest.read(width, at), wanted, "{width} bytes at {at:#x}");
        }
    }
    assert_eq!(memory_exits(&guest), before, "reads left the kernel");
    assert_eq!(ones, guest.value(&format!("config-sum {READS}")));

    assert_eq!(guest.value(&format!("config-echo 1 0x4000 {ROUNDS}")), 0);
    let after = memory_exits(&guest);
    assert_eq!(after, before + ROUNDS, "the control failed");
    guest.off();
}

/// Claim: what a guest writes where no function is, or to bytes that cannot be written, changes nothing that it reads, in
/// whatever way it writes. Control: a register that can be written changes the same sum.
#[test]
#[ignore = "needs a lab host"]
fn no_write_changes_what_is_nobodys_or_fixed() {
    let bdf = host::nvme(0);
    let (log, alarms) = (LogMark::now(), hardware::alarms());
    let mut guest = Attacker::start(&GuestFile::attacker("config-fixed").device(&bdf));
    let sum = |guest: &mut Attacker| guest.value(&format!("config-sum {BUS}"));
    let before = sum(&mut guest);
    // Slot 0, a second function, an empty slot, the last function; and the ids of the guest's own function.
    let nobodys = [0, 0x9000, 0x1_0000, 0xF_F000].map(|offset| ECAM + offset);
    for at in nobodys.into_iter().chain([CONFIG]) {
        for width in [1, 2, 4, 8] {
            for offset in 0..3 {
                guest.write(width, at + offset, 0);
            }
        }
    }
    for at in nobodys {
        for kind in WRITES {
            guest.tell(&format!("odd {kind} {at:#x} {RESULT:#x}"));
        }
    }
    // Behind the registers that there are.
    guest.tell("config-sweep 1 256 512 0xaaaaaaaaaaaaaaaa");
    assert_eq!(
        sum(&mut guest),
        before,
        "LEAK: a write has changed what is fixed"
    );
    guest.write(4, CONFIG + 0x10, 0xFFFF_FFFF);
    assert_ne!(sum(&mut guest), before, "the control failed");
    guest.off();
    log.assert_calm();
    assert_eq!(hardware::alarms(), alarms);
    host::assert_returned(&bdf);
}
