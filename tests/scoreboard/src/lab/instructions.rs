//! The way to the guest's first instructions, in a host whose clock counts instructions.

use std::{error::Error, io};

use crate::{
    mark,
    record::{Case, Record},
    vmm::Vmm,
    watch::trace,
};

use super::{
    Bench,
    case::Shape,
    session::{Session, Whom},
    window,
};

/// All of it, for each VMM and interface.
pub(super) fn run(bench: &mut Bench) -> Result<(), Box<dyn Error>> {
    bench.all(
        Case::Instructions,
        "instructions",
        |bench, vmm, shape, run| {
            let record = instructions(bench, vmm, shape, run)?;
            bench.put(&record)
        },
    )?;
    Ok(())
}

fn instructions(bench: &Bench, vmm: &dyn Vmm, shape: Shape, run: u32) -> io::Result<Record> {
    let functions = bench.functions(shape)?;
    let cmdline = shape.cmdline("");
    let setup = shape.setup(&bench.place, &cmdline, &functions);
    let mut session = Session::start(vmm, setup, Whom::All, &[trace::SWITCHES, trace::ENTRIES])?;
    session.await_mark(mark::INIT)?;
    let (_, events) = session.stop()?;
    let (exec, entry) = (window::exec_at(&events)?, window::entry_at(&events)?);
    let init = window::mark_at(&events, mark::INIT)?;
    let mut record = shape.record(Case::Instructions, vmm, run);
    window::put(&mut record, "entry_ns", entry - exec);
    window::put(&mut record, "init_ns", init - exec);
    let busy = |to: u64| to - exec - window::idle_ns(&events, exec, to);
    window::put(&mut record, "entry_busy_ns", busy(entry));
    window::put(&mut record, "init_busy_ns", busy(init));
    Ok(record)
}
