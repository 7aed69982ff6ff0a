//! The runs whose counts tests hold to budgets: Narrows alone.

use std::error::Error;

use crate::{
    plan::{INTERFACES, guest},
    record::Guest,
};

use super::{Bench, case::Shape, echo, start, steady};

/// All of it.
pub(super) fn run(bench: &mut Bench) -> Result<(), Box<dyn Error>> {
    // The same windows with fewer units: what is to be zero is zero in these, too.
    bench.is_quick = true;
    let shape = Shape {
        interface: INTERFACES[0],
        guest: guest(1, 1),
    };
    echo::start()?;
    bench.each(shape, "start", 1, |bench, vmm| {
        let (record, surface) = start::start(bench, vmm, shape, 1)?;
        bench.put(&record)?;
        bench.put(&surface)
    })?;
    let console = Shape {
        guest: Guest {
            console: true,
            ..guest(0, 1)
        },
        ..shape
    };
    bench.each(console, "start", 1, |bench, vmm| {
        let (record, _) = start::start(bench, vmm, console, 1)?;
        bench.put(&record)
    })?;
    bench.each(shape, "calls", 1, |bench, vmm| {
        let record = start::traced(bench, vmm, shape, 1)?;
        bench.put(&record)
    })?;
    bench.each(shape, "work", 1, |bench, vmm| {
        for record in steady::steady(bench, vmm, shape, 1)? {
            bench.put(&record)?;
        }
        Ok(())
    })?;
    Ok(())
}
