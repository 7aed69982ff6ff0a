//! A guest at work: for each kind of work a window between two marks of the guest.

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
    echo,
    session::{Session, Whom},
    window,
};

/// A kind of work and how many units of it, most and in a quick run.
const WORKS: [(&str, u64, u64); 8] = [
    ("config-read", 1024, 1024),
    ("config-write", 1000, 200),
    ("nvme-read", 1000, 1000),
    ("nvme-write", 1000, 200),
    ("packets-small", 1000, 500),
    ("packets-large", 1000, 500),
    ("idle", 5, 2),
    ("interrupts", 1000, 200),
];

/// Those that need an NVMe controller.
const OF_NVME: [&str; 3] = ["nvme-read", "nvme-write", "interrupts"];

/// All of it, for each VMM and interface.
pub(super) fn run(bench: &mut Bench) -> Result<(), Box<dyn Error>> {
    echo::start()?;
    bench.all(Case::Steady, "work", |bench, vmm, shape, run| {
        for record in steady(bench, vmm, shape, run)? {
            bench.put(&record)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// One guest that does all the works for which it has devices: a record for each.
pub(super) fn steady(
    bench: &Bench,
    vmm: &dyn Vmm,
    shape: Shape,
    run: u32,
) -> io::Result<Vec<Record>> {
    let functions = bench.functions(shape)?;
    let count = |(name, most, quick): (&'static str, u64, u64)| {
        (name, if bench.is_quick { quick } else { most })
    };
    let has_nvme = shape.guest.nvmes > 0;
    let works: Vec<_> = WORKS
        .into_iter()
        .filter(|(name, ..)| has_nvme || !OF_NVME.contains(name))
        .map(count)
        .collect();
    let steps: String = works
        .iter()
        .map(|(name, units)| format!("pause:1,{name}:{units},"))
        .collect();
    let cmdline = shape.cmdline(&steps);
    let setup = shape.setup(&bench.place, &cmdline, &functions);
    let mut session = Session::start(vmm, setup, Whom::Vmm, &[trace::EXITS, trace::CALLS])?;
    session.await_mark(mark::DONE)?;
    let (_, events) = session.stop()?;

    let mut records = Vec::new();
    for (name, units) in works {
        let index = mark::WORKS.iter().position(|known| *known == name);
        let index = index.and_then(|index| u32::try_from(index).ok());
        let index = index.ok_or_else(|| io::Error::other(format!("no work is called {name}")))?;
        let events = window::of_work(&events, index)?;
        let mut record = shape.record(Case::Steady, vmm, run);
        name.clone_into(&mut record.work);
        window::exits(events.iter(), &mut record);
        record.figures.remove("console_bytes");
        let mut calls = window::calls(events.iter());
        let runs = calls.remove("ioctl KVM_RUN").unwrap_or(0);
        window::put(&mut record, "units", units);
        window::put(&mut record, "kvm_run_calls", runs);
        window::put(&mut record, "calls", calls.values().sum());
        record.counts.insert("calls".to_owned(), calls);
        records.push(record);
    }
    Ok(records)
}
