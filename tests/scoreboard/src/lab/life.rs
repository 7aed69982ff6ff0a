//! Start and stop of a guest that only marks, over and over, with one VF that is reset each time.

use std::{error::Error, io};

use crate::{
    mark,
    record::{Case, Record},
    vmm::{Setup, Vmm},
    watch::trace,
};

use super::{
    Bench,
    case::Shape,
    session::{Session, Whom},
    window,
};

/// Starts and stops in one run.
const CYCLES: u32 = 5;

/// All of it, for each VMM and interface.
pub(super) fn run(bench: &mut Bench) -> Result<(), Box<dyn Error>> {
    bench.all(Case::Life, "life", |bench, vmm, shape, run| {
        let record = life(bench, vmm, shape, run)?;
        bench.put(&record)
    })?;
    Ok(())
}

fn life(bench: &Bench, vmm: &dyn Vmm, shape: Shape, run: u32) -> io::Result<Record> {
    let functions = bench.functions(shape)?;
    let setup = Setup {
        kernel: &bench.place.tiny,
        initramfs: None,
        ..shape.setup(&bench.place, "", &functions)
    };
    let (mut start_ns, mut stop_ns) = (0, 0);
    for _ in 0..CYCLES {
        let mut session = Session::start(vmm, setup, Whom::Vmm, &[trace::ENTRIES])?;
        session.await_mark(mark::INIT)?;
        let (stopped, events) = session.stop()?;
        start_ns += window::mark_at(&events, mark::INIT)? - window::exec_at(&events)?;
        stop_ns += u64::try_from(stopped.as_nanos()).map_err(io::Error::other)?;
    }
    // A cycle is from exec to the end of the last process, without the time in between that is the scoreboard's: the guest
    // has made its mark and stands still until that is seen.
    let mut record = shape.record(Case::Life, vmm, run);
    let of_one = |sum: u64| sum / u64::from(CYCLES);
    window::put(&mut record, "start_ns", of_one(start_ns));
    window::put(&mut record, "stop_ns", of_one(stop_ns));
    let cycle_ns = of_one(start_ns + stop_ns).max(1);
    window::put(&mut record, "cycles_per_minute", 60_000_000_000 / cycle_ns);
    Ok(record)
}
