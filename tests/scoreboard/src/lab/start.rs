//! From power-on to the guest's first instruction in user space.

use std::{collections::BTreeSet, error::Error, fs, io, process::Command};

use serde_json::Value;

use crate::{
    mark, plan,
    record::{Case, Record},
    vmm::Vmm,
    watch::{calls, processes, trace},
};

use super::{
    Bench,
    case::Shape,
    session::{Session, Whom},
    window,
};

/// All of them, for each VMM and interface.
pub(super) fn run(bench: &mut Bench) -> Result<(), Box<dyn Error>> {
    if let Err(error) = trace::define_slots() {
        bench.missing(&format!("memory slots in use: {error}"))?;
    }
    bench.all(Case::Start, "start", |bench, vmm, shape, run| {
        let (record, surface) = start(bench, vmm, shape, run)?;
        bench.put(&record)?;
        // What it may do is the same in every run.
        if run == 1 && shape.guest == plan::NIC {
            bench.put(&surface)?;
        }
        Ok(())
    })?;
    bench.all(Case::Calls, "calls", |bench, vmm, shape, run| {
        let record = traced(bench, vmm, shape, run)?;
        bench.put(&record)
    })?;
    Ok(())
}

/// Memory and exits; and what the running VMM may do.
pub(super) fn start(
    bench: &Bench,
    vmm: &dyn Vmm,
    shape: Shape,
    run: u32,
) -> io::Result<(Record, Record)> {
    let functions = bench.functions(shape)?;
    let cmdline = shape.cmdline("");
    let setup = shape.setup(&bench.place, &cmdline, &functions);
    let has_slots = trace::define_slots().is_ok();
    let mut events = vec![trace::EXITS];
    events.extend(has_slots.then_some(trace::SLOTS));
    let mut session = Session::start(vmm, setup, Whom::Vmm, &events)?;
    session.await_mark(mark::INIT)?;
    let pids = session.processes()?;
    let held = processes::held(&pids, |name| vmm.is_ram(name))?;
    let mut surface = shape.record(Case::Surface, vmm, run);
    may(vmm, &pids, &mut surface)?;
    let (_, events) = session.stop()?;

    let init = window::mark_at(&events, mark::INIT)?;
    let mut record = shape.record(Case::Start, vmm, run);
    window::exits(window::between(&events, 0, init), &mut record);
    record.figures.remove("interrupts");
    let figures = [
        ("rss_kib", held.memory.rss_kib),
        ("pss_kib", held.memory.pss_kib),
        ("anonymous_kib", held.memory.anonymous_kib),
        ("page_tables_kib", held.page_tables_kib),
        ("processes", held.processes),
        ("threads", held.threads),
        ("fds", held.fds),
    ];
    for (name, value) in figures {
        window::put(&mut record, name, value);
    }
    if has_slots {
        window::put(
            &mut record,
            "memory_slots",
            window::slots(window::between(&events, 0, init)),
        );
    }
    Ok((record, surface))
}

/// System calls from exec on.
pub(super) fn traced(bench: &Bench, vmm: &dyn Vmm, shape: Shape, run: u32) -> io::Result<Record> {
    let functions = bench.functions(shape)?;
    let cmdline = shape.cmdline("");
    let setup = shape.setup(&bench.place, &cmdline, &functions);
    let mut session = Session::start(vmm, setup, Whom::Vmm, &[trace::CALLS, trace::ENTRIES])?;
    session.await_mark(mark::INIT)?;
    let (_, events) = session.stop()?;
    let (exec, entry) = (window::exec_at(&events)?, window::entry_at(&events)?);
    let init = window::mark_at(&events, mark::INIT)?;
    let mut record = shape.record(Case::Calls, vmm, run);
    let before = window::calls(window::between(&events, exec, entry));
    let after = window::calls(window::between(&events, entry, init));
    window::put(&mut record, "calls_to_entry", before.values().sum());
    window::put(
        &mut record,
        "calls_to_init",
        before.values().chain(after.values()).sum(),
    );
    window::put(
        &mut record,
        "different_calls_after_entry",
        after.len() as u64,
    );
    record.counts.insert("calls-to-entry".to_owned(), before);
    record.counts.insert("calls-after-entry".to_owned(), after);
    Ok(record)
}

/// What its threads may do.
fn may(vmm: &dyn Vmm, pids: &BTreeSet<u32>, record: &mut Record) -> io::Result<()> {
    let (mut unfiltered, mut capabilities, mut runner) = (0, 0, Vec::new());
    for pid in pids {
        let threads = processes::threads(*pid)?;
        unfiltered += threads.iter().filter(|thread| !thread.is_filtered).count() as u64;
        if runs_guest(*pid)? {
            let most = threads
                .iter()
                .map(|thread| thread.capabilities.count_ones())
                .max();
            capabilities = capabilities.max(u64::from(most.unwrap_or(0)));
            runner = threads;
        }
    }
    window::put(record, "unfiltered_threads", unfiltered);
    window::put(record, "capabilities", capabilities);
    let all = u64::from(calls::ALL);
    if vmm.name() == "narrows" {
        for (role, count) in reachable()? {
            window::put(record, &format!("allowed_calls_{role}"), count);
        }
    } else if runner.iter().any(|thread| !thread.is_filtered) {
        window::put(record, "allowed_calls_vcpu", all);
    }
    if unfiltered > 0 {
        window::put(record, "allowed_calls", all);
    }
    Ok(())
}

/// Whether a process has a vCPU.
fn runs_guest(pid: u32) -> io::Result<bool> {
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor may be closed meanwhile.
        let Ok(link) = fs::read_link(entry?.path()) else {
            continue;
        };
        if link.to_string_lossy().contains("kvm-vcpu") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many system calls each process of Narrows can make, as its own inspection reads it from the live filters.
fn reachable() -> io::Result<Vec<(String, u64)>> {
    let output = Command::new("narrows")
        .args(["inspect", "scoreboard", "--json"])
        .output()?;
    let wrong = |what: &str| {
        io::Error::other(format!(
            "narrows inspect: {what}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    };
    let record: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| wrong(&error.to_string()))?;
    let processes = record
        .get("processes")
        .and_then(Value::as_array)
        .ok_or_else(|| wrong("no processes"))?;
    let of = |process: &Value| {
        let role = process.get("role")?.as_str()?.to_owned();
        Some((role, process.get("reachable")?.as_array()?.len() as u64))
    };
    processes
        .iter()
        .map(|process| of(process).ok_or_else(|| wrong("a process without a list")))
        .collect()
}
