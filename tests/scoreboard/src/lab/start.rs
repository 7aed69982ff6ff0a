//! From power-on to the guest's first instruction in user space.

use std::{error::Error, io};

use crate::{
    mark, plan,
    record::{Case, Record},
    vmm::Vmm,
    watch::{processes, trace},
};

use super::{
    Bench,
    case::Shape,
    session::{Session, Whom},
    surface, window,
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
    let mut surface_record = shape.record(Case::Surface, vmm, run);
    let vcpu = session.marked_by(mark::INIT)?;
    surface::may(vmm, &pids, vcpu, &mut surface_record)?;
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
    Ok((record, surface_record))
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
