//! Registers of the processor, on which one guest runs after another, or beside it.

use super::{INVERSE, canary};
use crate::{attack::Attacker, guest::GuestFile};

fn number(word: &str) -> u64 {
    u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap()
}

/// Claim: no register has at a guest's first instruction what another guest left in it: general, floating-point, vector and
/// debug registers, and those that hold addresses of the kernel. Attack: H11: one guest fills them and stays; another begins
/// meanwhile, and a third when the first has ended, on the same processor. Control: the first finds its word in them.
#[test]
#[ignore = "needs a lab host"]
fn registers_of_the_processor_hold_nothing_of_another_guest() {
    let mut first = Attacker::start(&GuestFile::attacker("registers-first"));
    let kept = first.value(&format!("keep {:#x} 10", canary()));
    println!("{kept} registers and parts of registers take the word");
    assert!(kept >= 40, "the control failed: {kept} registers hold it");
    first.begin(&format!("keep {:#x} 4000", canary()));
    let mut beside = Attacker::start(&GuestFile::attacker("registers-beside"));
    assert_none(&mut beside);
    let again = number(&first.answer()["value"]);
    assert!(again >= 40, "the control failed: {again} registers hold it");
    first.off();
    let mut after = Attacker::start(&GuestFile::attacker("registers-after"));
    assert_none(&mut after);
    beside.off();
    after.off();
}

fn assert_none(guest: &mut Attacker) {
    let words = guest.tell(&format!("kept {INVERSE:#x}"));
    println!("{} of {} registers looked at", words["hits"], words["of"]);
    assert_eq!(
        number(&words["hits"]),
        0,
        "LEAK: a register of another guest"
    );
}
