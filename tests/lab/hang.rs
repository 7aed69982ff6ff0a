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

/// Looks twice at a run, so that what moves can be told from what stands still.
pub(crate) fn look(supervisor: u32) -> String {
    let mut text = String::new();
    for _ in 0..2 {
        for pid in family(supervisor) {
            threads(&mut text, pid);
        }
        vcpus(&mut text);
        trace(&mut text);
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

/// What KVM does within a second; the last lines of it.
fn trace(text: &mut String) {
    let set = |name: &str, value: &str| fs::write(format!("{TRACING}/{name}"), value);
    if set("trace", "").and(set("events/kvm/enable", "1")).is_err() {
        writeln!(text, "KVM cannot be traced here").unwrap();
        return;
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
}

fn read(path: &Path) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) => error.to_string(),
    }
}
