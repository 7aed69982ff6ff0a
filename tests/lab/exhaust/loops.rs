//! Guests that end and begin again without end: what is left each time adds up.

use std::{thread, time::Duration};

use super::leaks::{self, COUNTED, Counts};
use crate::{
    attack::{Attacker, hardware},
    guest::GuestFile,
    host,
};

const REBOOT: &str = "out 1 0x602 1";
/// How often a guest reboots, unless `NARROWS_LAB_REBOOTS` says otherwise. One that reboots faster than eight times in ten
/// seconds is held for a second each time, so a thousand times would be half an hour.
const REBOOTS: usize = 24;
/// The attacker's RAM, in pages: what is pinned while it runs.
const RAM_PAGES: i64 = (64 << 20) / 4096;
/// How often before anything is counted.
const WARM: usize = 4;
/// What each reboot may write to the log of the run, and to the kernel's: each function is reset, and that is told.
const LINES: usize = 8;
/// How often a guest is started, and ended in the ways below by turns.
const STARTS: usize = 50;

fn reboots() -> usize {
    let asked = std::env::var("NARROWS_LAB_REBOOTS").ok();
    asked.map_or(REBOOTS, |number| number.parse().unwrap())
}

/// Claim: a guest that reboots without end leaves nothing behind each time. Attack: G08. Control: the same things are
/// counted while the guest lives, and are not zero.
#[test]
#[ignore = "needs a lab host"]
fn reboots_without_end_leave_nothing_behind() {
    let reboots = reboots();
    let pinned = leaks::exactly_pinned();
    let file = GuestFile::attacker("exhaust-reboots")
        .device(&host::nvme(0))
        .device(&host::nic(0));
    let mut guest = Attacker::start(&file);
    let supervisor = guest.guest.pid();
    let arm = |guest: &mut Attacker| {
        // The NVMe function's vectors, in the first slot.
        let vectors = guest.capability(0xE000_8000, 0x11);
        guest.write(2, vectors + 2, 0x8000);
    };
    let reboot = |guest: &mut Attacker| {
        guest.begin(REBOOT);
        guest.guest.wait_for("GUEST init=");
        arm(guest);
    };
    for _ in 0..WARM {
        reboot(&mut guest);
    }
    let before = Counts::of(Some(supervisor));
    println!("{before:?}");
    for what in COUNTED {
        assert!(before.numbers[what] > 0, "the control failed: no {what}");
    }
    let pins = before.numbers["pinned pages"] - pinned;
    assert!(pins >= RAM_PAGES, "the control failed: {pins} pages");
    let log = hardware::LogMark::now();
    for _ in 0..reboots {
        reboot(&mut guest);
    }
    let lines = log.lines().len();
    println!("{lines} lines of the kernel for {reboots} reboots");
    assert!(lines <= LINES * reboots, "{lines} lines of the kernel");
    leaks::assert_none(&before, Some(supervisor), reboots);
    let text = guest.off().text();
    let lines = text.lines().filter(|line| line.starts_with("narrows["));
    let lines = lines.count();
    println!("{lines} lines of the run");
    assert!(lines <= LINES * (reboots + WARM), "{text}");
    assert_eq!(leaks::exactly_pinned(), pinned, "LEAK: pages are pinned");
}

/// Claim: guests that begin and end without end, in any way, leave nothing behind. Attack: G08, G09: power-off, crash by
/// triple fault, and SIGKILL of V, of D and of the supervisor. Control: as above.
#[test]
#[ignore = "needs a lab host"]
fn starts_and_ends_without_end_leave_nothing_behind() {
    let ways = ["off", "crash", "narrows-vcpu", "narrows-device", "narrows"];
    let once = |way: &str| {
        let file = GuestFile::attacker("exhaust-starts");
        let mut guest = Attacker::start(&file);
        match way {
            "off" | "crash" => guest.begin(way),
            "narrows" => host::shell(&format!("kill -KILL {}", guest.guest.pid())).clear(),
            program => {
                let pid = guest.guest.child_pid(program);
                host::shell(&format!("kill -KILL {pid}"));
            }
        }
        let (status, transcript) = guest.guest.end();
        assert_ne!(status.code(), Some(1), "{}", transcript.text());
    };
    for way in ways {
        once(way);
    }
    settle();
    let before = Counts::of(None);
    println!("{before:?}");
    for nth in 0..STARTS {
        once(ways[nth % ways.len()]);
    }
    settle();
    leaks::assert_none(&before, None, STARTS);
}

/// Lets the kernel end what it ends later.
fn settle() {
    for _ in 0..200 {
        let left = ["narrows", "narrows-device", "narrows-vcpu"]
            .iter()
            .map(|program| host::processes(program).len())
            .sum::<usize>();
        if left == 0 {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_secs(1));
}
