//! Guests that end and begin again without end: what is left each time adds up.

use std::{collections::BTreeMap, fs, path::Path, thread, time::Duration};

use super::load::family;
use crate::{
    attack::{Attacker, hardware},
    guest::GuestFile,
    host,
};

const REBOOT: &str = "out 1 0x602 1";
/// How often a guest reboots, unless `NARROWS_LAB_REBOOTS` says otherwise. One that reboots faster than eight times in ten
/// seconds is held for a second each time, so a thousand times would be half an hour.
const REBOOTS: usize = 24;
/// How often before anything is counted.
const WARM: usize = 4;
/// What each reboot may write to the log of the run, and to the kernel's: each function is reset, and that is told.
const LINES: usize = 8;
/// How often a guest is started, and ended in the ways below by turns.
const STARTS: usize = 50;
/// What the kernel's memory may grow by each time: caches fill, and a page for each time would be a leak.
const GROWTH_KIB: i64 = 64;

fn reboots() -> usize {
    let asked = std::env::var("NARROWS_LAB_REBOOTS").ok();
    asked.map_or(REBOOTS, |number| number.parse().unwrap())
}

/// What the host counts.
fn counts(of: Option<u32>) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    let links = |pid: &str| -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd"));
        let entries = entries.into_iter().flatten().flatten();
        entries
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .map(|to| to.to_string_lossy().into_owned())
            .collect()
    };
    let own = std::process::id();
    let pids: Vec<String> = match of {
        Some(supervisor) => family(supervisor).iter().map(u32::to_string).collect(),
        None => processes()
            .into_iter()
            .filter(|pid| *pid != own.to_string())
            .collect(),
    };
    let descriptors: Vec<String> = pids.iter().flat_map(|pid| links(pid)).collect();
    counts.insert("processes", pids.len());
    counts.insert("descriptors", descriptors.len());
    let eventfds = descriptors.iter().filter(|to| to.contains("[eventfd]"));
    counts.insert("eventfds", eventfds.count());
    let rows = hardware::interrupts();
    let vectors = rows.keys().filter(|row| row.contains("vfio"));
    counts.insert("vectors", vectors.count());
    counts.insert("groups", folders(Path::new("/sys/fs/cgroup")));
    counts.insert("machines", folders(Path::new("/sys/kernel/debug/kvm")));
    counts.insert(
        "mounts",
        fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .count(),
    );
    counts
}

/// Processes that are none of the kernel's own threads.
fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.chars().all(|c| c.is_ascii_digit()))
        .filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok())
        .collect()
}

/// The folders below a folder.
fn folders(at: &Path) -> usize {
    let entries = fs::read_dir(at).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below.map(|entry| 1 + folders(&entry.path())).sum()
}

/// Memory that the kernel holds for itself, in KiB: what it cannot give up, page tables, stacks.
fn kernel_kib() -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let rows = [
        "SUnreclaim:",
        "PageTables:",
        "KernelStack:",
        "VmallocUsed:",
        "Percpu:",
    ];
    text.lines()
        .filter(|line| rows.iter().any(|row| line.starts_with(row)))
        .map(|line| {
            line.split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<i64>()
                .unwrap()
        })
        .sum()
}

/// Fails if memory has grown since by more than so many times what one time may leave.
fn assert_bounded(before: i64, times: usize) {
    let grown = kernel_kib() - before;
    println!("the kernel's own memory: {before} KiB, and {grown} KiB more after {times} times");
    let most = GROWTH_KIB * i64::try_from(times).unwrap();
    assert!(grown < most, "LEAK: {grown} KiB in {times} times");
}

/// Claim: a guest that reboots without end leaves nothing behind each time. Attack: G08. Control: the same things are
/// counted while the guest lives, and are not zero.
#[test]
#[ignore = "needs a lab host"]
fn reboots_without_end_leave_nothing_behind() {
    let reboots = reboots();
    let pinned = host::pinned_pages();
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
    let (before, kib, pins) = (counts(Some(supervisor)), kernel_kib(), host::pinned_pages());
    println!("{before:?}");
    for what in [
        "processes",
        "descriptors",
        "eventfds",
        "vectors",
        "machines",
    ] {
        assert!(before[what] > 0, "the control failed: no {what}");
    }
    let log = hardware::LogMark::now();
    for _ in 0..reboots {
        reboot(&mut guest);
    }
    let lines = log.lines().len();
    println!("{lines} lines of the kernel for {reboots} reboots");
    assert!(lines <= LINES * reboots, "{lines} lines of the kernel");
    assert_eq!(
        counts(Some(supervisor)),
        before,
        "LEAK after {reboots} reboots"
    );
    let more = host::pinned_pages() - pins;
    assert!(more.abs() < 1000, "LEAK: {more} pages more are pinned");
    assert_bounded(kib, reboots);
    let text = guest.off().text();
    let lines = text.lines().filter(|line| line.starts_with("narrows["));
    let lines = lines.count();
    println!("{lines} lines of the run");
    assert!(lines <= LINES * (reboots + WARM), "{text}");
    let left = host::pinned_pages() - pinned;
    assert!(left < 1000, "LEAK: {left} pages are still pinned");
}

/// Claim: guests that begin and end without end, in any way, leave nothing behind. Attack: G08, G09: power-off, crash by
/// triple fault, and SIGKILL of V, of D and of the supervisor. Control: as above.
#[test]
#[ignore = "needs a lab host"]
fn starts_and_ends_without_end_leave_nothing_behind() {
    let pinned = host::pinned_pages();
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
    let (before, kib) = (counts(None), kernel_kib());
    println!("{before:?}");
    for nth in 0..STARTS {
        once(ways[nth % ways.len()]);
    }
    settle();
    assert_eq!(counts(None), before, "LEAK after {STARTS} starts");
    assert_bounded(kib, STARTS);
    let left = host::pinned_pages() - pinned;
    assert!(left < 1000, "LEAK: {left} pages are still pinned");
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
