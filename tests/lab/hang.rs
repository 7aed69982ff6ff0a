//! What is to be known of a run that does not go on: the states of its processes, its figures, and the last exits of its
//! vCPUs as KVM traces them.

use std::{fmt::Write as _, fs, path::Path, thread, time::Duration};

/// KVM's counters of a vCPU that tell a guest that sleeps from one that spins.
const COUNTERS: [&str; 6] = [
    "exits",
    "halt_exits",
    "halt_wakeup",
    "io_exits",
    "irq_injections",
    "nmi_injections",
];
const TRACING: &str = "/sys/kernel/tracing";

/// What `scripts/test` looks for: the guest's only processor spins with its interrupts off, so nothing of Narrows is
/// asked and nothing of it can help. Seen now and then under load; lab.d/README.md tells more.
const SPINS: &str = "HUNG GUEST: its kernel spins at one instruction and asks nothing of anybody";

/// Looks twice at a run, so that what moves can be told from what stands still.
pub(crate) fn look(supervisor: u32) -> String {
    let mut text = String::new();
    let mut places = Vec::new();
    for _ in 0..2 {
        for pid in family(supervisor) {
            threads(&mut text, pid);
        }
        vcpus(&mut text);
        places.extend(trace(&mut text));
    }
    places.dedup();
    if places.len() == 1 {
        writeln!(text, "{SPINS}").unwrap();
    }
    text
}

/// The supervisor, its keeper, and the keeper's children.
fn family(supervisor: u32) -> Vec<u32> {
    let mut family = vec![supervisor];
    for program in ["narrows", "narrows-vcpu", "narrows-device"] {
        let parents: Vec<String> = family.iter().map(|pid| format!("PPid:\t{pid}")).collect();
        let is_child = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/status"))
                .is_ok_and(|status| status.lines().any(|line| parents.iter().any(|p| p == line)))
        };
        family.extend(super::host::processes(program).into_iter().filter(is_child));
    }
    family
}

fn threads(text: &mut String, pid: u32) {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        writeln!(text, "process {pid} is gone").unwrap();
        return;
    };
    for task in tasks.flatten().map(|task| task.path()) {
        let read = |name| read(&task.join(name));
        let stat = read("stat");
        // Behind the name: state, then times in user and kernel mode.
        let words: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
        let word = |at: usize| words.get(at).copied().unwrap_or("?");
        writeln!(
            text,
            "{} {}: {} user {} kernel {} in {} ({})",
            task.display(),
            read("comm"),
            word(0),
            word(11),
            word(12),
            read("wchan"),
            read("syscall")
        )
        .unwrap();
    }
}

fn vcpus(text: &mut String) {
    let folders = |path: &Path| -> Vec<_> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .map(|e| e.path())
            .filter(|path| path.is_dir())
            .collect()
    };
    for vm in folders(Path::new("/sys/kernel/debug/kvm")) {
        for vcpu in folders(&vm) {
            let counters = COUNTERS.map(|name| format!("{name}={}", read(&vcpu.join(name))));
            writeln!(text, "{}: {}", vcpu.display(), counters.join(" ")).unwrap();
        }
    }
}

/// What KVM does within a second; the last lines of it. Where the guest was each time that the host interrupted it; a
/// place that is none where it left for another reason.
fn trace(text: &mut String) -> Vec<String> {
    let set = |name: &str, value: &str| fs::write(format!("{TRACING}/{name}"), value);
    if set("trace", "").and(set("events/kvm/enable", "1")).is_err() {
        writeln!(text, "KVM cannot be traced here").unwrap();
        return Vec::new();
    }
    thread::sleep(Duration::from_secs(1));
    set("events/kvm/enable", "0").unwrap();
    let lines = read(Path::new(&format!("{TRACING}/trace")));
    let lines: Vec<&str> = lines
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    writeln!(text, "{} events of KVM in a second", lines.len()).unwrap();
    for line in lines.iter().rev().take(10).rev() {
        writeln!(text, "{line}").unwrap();
    }
    let mut places: Vec<String> = lines
        .iter()
        .filter_map(|line| line.split_once("kvm_exit: ")?.1.split_once(" reason "))
        .map(|(_, rest)| match rest.strip_prefix("interrupt rip ") {
            Some(rest) => rest.split(' ').next().unwrap_or("").to_owned(),
            None => "elsewhere".to_owned(),
        })
        .collect();
    places.sort_unstable();
    places.dedup();
    places
}

fn read(path: &Path) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) => error.to_string(),
    }
}
