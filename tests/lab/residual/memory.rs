//! RAM: what the next guest finds, and what the host's root finds.

use std::{collections::HashSet, fs, thread, time::Duration};

use super::{INVERSE, canary, physical};
use crate::{
    attack::{Attacker, GuestRam},
    guest::GuestFile,
    host,
};

/// Below this the guest has its own code and stack, which it cannot fill.
const FREE_START: u64 = 4 << 20;
const MIB: u64 = 1 << 20;

/// Fills all of a guest's RAM; how many words that are.
fn fill(guest: &mut Attacker, mib: u64) -> u64 {
    let len = mib * MIB - FREE_START;
    guest.tell(&format!(
        "fill-words {FREE_START:#x} {len:#x} {:#x}",
        canary()
    ));
    len / 8
}

/// How many words of a guest's RAM, its own code and stack among them, are the canary.
fn found_by(guest: &mut Attacker, mib: u64) -> u64 {
    let words = guest.tell(&format!("count-words 0 {:#x} {INVERSE:#x}", mib * MIB));
    u64::from_str_radix(words["hits"].trim_start_matches("0x"), 16).unwrap()
}

/// Ends a guest in the named way, and waits until nothing of it is left.
fn end(guest: Attacker, way: &str) {
    match way {
        "power-off" => drop(guest.off()),
        "SIGTERM" => {
            guest.guest.signal("TERM");
            guest.guest.end();
        }
        program => {
            let pid = if program == "narrows" {
                guest.guest.pid()
            } else {
                guest.guest.child_pid(program)
            };
            host::shell(&format!("kill -KILL {pid}"));
            guest.guest.end();
        }
    }
    for program in ["narrows", "narrows-device", "narrows-vcpu"] {
        for _ in 0..200 {
            if host::processes(program).is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(host::processes(program), Vec::<u32>::new());
    }
}

/// Claim: a guest finds nothing in its RAM of the guest that had the same memory before, however that one ended. Attack:
/// H01: the first fills all of its RAM, the second searches all of its RAM before it has written to it. Control: the first
/// finds all of it, and the two did have memory in common.
#[test]
#[ignore = "needs a lab host"]
fn next_guest_finds_nothing_of_the_last_one_in_its_memory() {
    const MEMORY_MIB: u64 = 256;
    for way in [
        "power-off",
        "SIGTERM",
        "narrows-vcpu",
        "narrows-device",
        "narrows",
    ] {
        let file = |name: &str| GuestFile::attacker(name).memory(&format!("{MEMORY_MIB}M"));
        let mut first = Attacker::start(&file("residue-first"));
        let frames: HashSet<u64> = GuestRam::of(&first.guest).frames().into_iter().collect();
        let words = fill(&mut first, MEMORY_MIB);
        assert_eq!(
            found_by(&mut first, MEMORY_MIB),
            words,
            "the control failed: the guest does not find its own"
        );
        end(first, way);

        let mut second = Attacker::start(&file("residue-second"));
        let later = GuestRam::of(&second.guest).frames();
        let same = later.iter().filter(|at| frames.contains(at)).count();
        println!(
            "{way}: {same} of {} pages were the last guest's",
            later.len()
        );
        assert!(
            same > 256,
            "the two had {same} pages in common: the test tells nothing"
        );
        assert_eq!(
            found_by(&mut second, MEMORY_MIB),
            0,
            "LEAK: the next guest finds what the last one left ({way})"
        );
        second.off();
    }
}

/// Claim: what is documented: a guest that reboots finds its own memory as it was, as on a machine, and nobody else does.
/// It is the control of the test above: where the pages are not given up, the word is found.
#[test]
#[ignore = "needs a lab host"]
fn guest_that_reboots_finds_its_own_memory_as_it_was() {
    const MEMORY_MIB: u64 = 64;
    const REBOOT: &str = "out 1 0x602 1";
    let mut guest = Attacker::start(&GuestFile::attacker("residue-reboot"));
    let words = fill(&mut guest, MEMORY_MIB);
    guest.begin(REBOOT);
    guest.guest.wait_for("GUEST init=");
    assert_eq!(found_by(&mut guest, MEMORY_MIB), words);
    guest.off();
}

/// Claim: when a run has ended, nothing of the guest's RAM is left anywhere in the host's memory, which in the lab is all
/// files too: free pages, huge pages in their pool, cores, logs, shared memory. Attack: H02, H09: root searches all of it,
/// after the guest powered off, was stopped, or lost V or D; not after the supervisor was killed. Control: while the guest runs, its pages are found, all of
/// them; and so are pages that another process gave back as they were.
#[test]
#[ignore = "needs a lab host"]
fn nothing_of_a_guest_is_left_in_the_hosts_memory() {
    const MEMORY_MIB: u64 = 64;
    const IMAGE: u64 = 0x1_0000_0000;
    const IMAGE_BYTES: u64 = 16 * MIB;
    const IMAGE_FILE: &str = "/tmp/residue-image";
    // A supervisor that was killed, by the test before, wiped nothing.
    let before: HashSet<u64> = physical::search().pages.into_iter().collect();
    println!("{} pages of earlier guests", before.len());
    for (way, kind) in [
        ("power-off", "small pages"),
        ("power-off", "huge pages"),
        ("SIGTERM", "private copy"),
        ("narrows-vcpu", "huge pages"),
        ("narrows-device", "small pages"),
    ] {
        let file = GuestFile::attacker("residue-host").device(&host::nvme(0));
        let file = match kind {
            "huge pages" => file.huge_memory("64M", "2M"),
            "private copy" => {
                fs::write(IMAGE_FILE, vec![0; usize::try_from(IMAGE_BYTES).unwrap()]).unwrap();
                file.table(&format!(
                    "[root]\nimage = \"{IMAGE_FILE}\"\nmode = \"copy\""
                ))
            }
            _ => file,
        };
        let mut guest = Attacker::start(&file);
        let mut words = fill(&mut guest, MEMORY_MIB);
        if kind == "private copy" {
            guest.tell(&format!(
                "fill-words {IMAGE:#x} {IMAGE_BYTES:#x} {:#x}",
                canary()
            ));
            words += IMAGE_BYTES / 8;
        }
        let found = physical::search();
        println!(
            "{way}, {kind}: searched {} MiB; {} pages while it ran",
            found.searched_bytes >> 20,
            found.pages.len()
        );
        assert!(
            found.words >= words,
            "the control failed: {} of {words} words are found while the guest runs",
            found.words
        );
        end(guest, way);
        let left = physical::search().pages;
        let new = left.iter().filter(|page| !before.contains(page)).count();
        assert_eq!(new, 0, "LEAK: pages of the guest are left ({way}, {kind})");
        host::assert_returned(&host::nvme(0));
    }
    let path = "/tmp/residue";
    let mib = canary().to_le_bytes().repeat(1 << 17);
    fs::write(path, mib.repeat(16)).unwrap();
    fs::remove_file(path).unwrap();
    let found = physical::search().pages;
    let found = found.iter().filter(|page| !before.contains(page)).count();
    println!("{found} pages of a file of 4096 that was removed");
    assert!(found > 0, "the control failed: free memory shows nothing");
}
