//! What the host has of guests, counted before and after: numbers that must be equal, and memory that may grow by a bound.

use std::{collections::BTreeMap, fs, path::Path, thread, time::Duration};

use super::load::family;
use crate::{attack::hardware, host};

/// What the kernel's memory may grow by whatever is done, in KiB: its caches fill.
const KERNEL_KIB: i64 = 256;
/// And each time. A page for each time would be a leak, so this is less than one.
const KERNEL_KIB_A_TIME: i64 = 3;
/// What supervisor and keeper may grow by, in KiB: their allocators settle. And each time: 80 after 24 reboots and 128 after
/// 100 were measured, pages that are touched for the first time.
const OWN_KIB: i64 = 192;
const OWN_KIB_A_TIME: i64 = 1;
/// The counts that a control finds, or they say nothing.
pub(super) const COUNTED: [&str; 5] = [
    "processes",
    "descriptors",
    "eventfds",
    "vectors",
    "machines",
];

/// What the host counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// What must be equal afterwards.
    pub(super) numbers: BTreeMap<&'static str, i64>,
    /// Memory that the kernel holds for itself: what it cannot give up, page tables, stacks.
    kernel_kib: i64,
    /// Memory of supervisor and keeper that is in no file.
    own_kib: i64,
}

impl Counts {
    /// Of a run's processes, or of all but this one; pages and vectors are the whole host's.
    pub(super) fn of(supervisor: Option<u32>) -> Self {
        let own = std::process::id();
        let pids: Vec<u32> = match supervisor {
            Some(supervisor) => family(supervisor),
            None => processes().into_iter().filter(|pid| *pid != own).collect(),
        };
        let descriptors: Vec<String> = pids.iter().flat_map(|pid| links(*pid)).collect();
        let eventfds = descriptors.iter().filter(|to| to.contains("[eventfd]"));
        let rows = hardware::interrupts();
        let vectors = rows.keys().filter(|row| row.contains("vfio"));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let numbers = [
            ("processes", pids.len()),
            ("descriptors", descriptors.len()),
            ("eventfds", eventfds.count()),
            ("vectors", vectors.count()),
            ("groups", folders(Path::new("/sys/fs/cgroup"))),
            ("machines", folders(Path::new("/sys/kernel/debug/kvm"))),
            ("mounts", mounts.lines().count()),
        ];
        let numbers = numbers.map(|(what, number)| (what, i64::try_from(number).unwrap()));
        let pins = [("pinned pages", exactly_pinned())];
        let watchers = supervisor.map(|pid| [pid, family(pid)[1]]);
        Self {
            numbers: numbers.into_iter().chain(pins).collect(),
            kernel_kib: kernel_kib(),
            own_kib: watchers.into_iter().flatten().map(anonymous_kib).sum(),
        }
    }

    /// What is more, or less, after doing something so many times.
    pub(super) fn leaks(&self, after: &Self, times: usize) -> Vec<String> {
        let times = i64::try_from(times).unwrap();
        let mut leaks = Vec::new();
        for (what, before) in &self.numbers {
            let now = after.numbers[what];
            if now != *before {
                leaks.push(format!(
                    "{what}: {before} before, {now} after {times} times"
                ));
            }
        }
        let kernel = after.kernel_kib - self.kernel_kib;
        let most = KERNEL_KIB + KERNEL_KIB_A_TIME * times;
        if kernel > most {
            leaks.push(format!(
                "the kernel's own memory: {kernel} KiB more after {times} times, {most} are allowed"
            ));
        }
        let own = after.own_kib - self.own_kib;
        if own > OWN_KIB + OWN_KIB_A_TIME * times {
            leaks.push(format!(
                "supervisor and keeper: {own} KiB more after {times} times"
            ));
        }
        leaks
    }

    /// The growth of memory, for who reads the output.
    pub(super) fn growth(&self, after: &Self) -> String {
        format!(
            "the kernel's own memory: {} KiB, and {} KiB more; supervisor and keeper: {} KiB, and {} KiB more",
            self.kernel_kib,
            after.kernel_kib - self.kernel_kib,
            self.own_kib,
            after.own_kib - self.own_kib
        )
    }
}

/// Fails if anything has been left since, but for what the kernel still takes apart.
pub(super) fn assert_none(before: &Counts, of: Option<u32>, times: usize) {
    const LOOKS: usize = 20;
    let mut after = Counts::of(of);
    for _ in 0..LOOKS {
        if before.leaks(&after, times).is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(500));
        after = Counts::of(of);
    }
    println!("{} after {times} times", before.growth(&after));
    let leaks = before.leaks(&after, times);
    assert!(leaks.is_empty(), "LEAK:\n{}", leaks.join("\n"));
}

/// Pages that are pinned, to the page: each processor adds to the sum when it is told to.
pub(super) fn exactly_pinned() -> i64 {
    fs::write("/proc/sys/vm/stat_refresh", "1").unwrap();
    host::pinned_pages()
}

fn links(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|to| to.to_string_lossy().into_owned())
        .collect()
}

/// Processes that are none of the kernel's own threads.
fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .filter(|pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok())
        .collect()
}

/// The folders below a folder.
fn folders(at: &Path) -> usize {
    let entries = fs::read_dir(at).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below.map(|entry| 1 + folders(&entry.path())).sum()
}

fn kernel_kib() -> i64 {
    let rows = [
        "SUnreclaim:",
        "PageTables:",
        "KernelStack:",
        "VmallocUsed:",
        "Percpu:",
    ];
    rows.iter().map(|row| kib("/proc/meminfo", row)).sum()
}

fn anonymous_kib(pid: u32) -> i64 {
    kib(&format!("/proc/{pid}/status"), "RssAnon:")
}

fn kib(path: &str, row: &str) -> i64 {
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(row));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.unwrap_or_else(|| panic!("{path} has no {row}"))
        .parse()
        .unwrap()
}

/// Control of the others: one more of anything is a leak, and so is a page for each time.
#[test]
#[ignore = "needs a lab host"]
fn one_of_anything_that_is_left_is_a_leak() {
    let before = Counts::of(None);
    assert_eq!(before.leaks(&before, 24), Vec::<String>::new());
    for what in before.numbers.keys() {
        for more in [1, -1] {
            let mut after = before.clone();
            *after.numbers.get_mut(what).unwrap() += more;
            assert_eq!(before.leaks(&after, 24).len(), 1, "{what} {more}");
        }
    }
    let grown = |kernel_kib, own_kib| Counts {
        kernel_kib: before.kernel_kib + kernel_kib,
        own_kib: before.own_kib + own_kib,
        ..before.clone()
    };
    // A page for each of a thousand times, and less than that of few.
    assert_eq!(before.leaks(&grown(4 * 1100, 0), 1000).len(), 1);
    assert!(before.leaks(&grown(200, 200), 24).is_empty());
    assert_eq!(before.leaks(&grown(0, 300), 24).len(), 1);
}
