//! Guests of many GiB until their first instruction, beside the time to zero that much memory once.

use std::{error::Error, fs, io};

use crate::{
    mark, plan,
    record::{Case, Guest, Pages, Record},
    vmm::Vmm,
    watch::{calls, event::What, populate, trace},
};

use super::{
    Bench,
    case::Shape,
    session::{Session, Whom},
    window,
};

/// Besides the guest's memory the host needs some.
const SPARE_MIB: u64 = 1200;

/// All of it, for each VMM.
pub(super) fn run(bench: &mut Bench) -> Result<(), Box<dyn Error>> {
    for wanted in plan::wanted(Case::Mapping, bench.is_quick, bench.runs) {
        let shape = Shape::of(wanted);
        let Guest {
            memory_mib, pages, ..
        } = shape.guest;
        if let Err(why) = make_room(memory_mib, pages) {
            bench.missing(&format!("{}: {why}", shape.title("mapping", 1)))?;
            continue;
        }
        // The machine that emulates the host gives it memory at its first touch, which is nobody's cost here.
        populate::time(memory_mib, pages)?;
        for run in 1..=wanted.runs {
            let zero = populate::time(memory_mib, pages)?;
            let zero_ns = u64::try_from(zero.as_nanos())?;
            bench.each(shape, "mapping", run, |bench, vmm| {
                let mut record = mapping(bench, vmm, shape, run)?;
                window::put(&mut record, "zero_ns", zero_ns);
                bench.put(&record)
            })?;
        }
    }
    Ok(())
}

/// Reserves huge pages, or gives them back, so that the guest's memory is there in the pages that are wanted.
fn make_room(mib: u32, pages: Pages) -> Result<(), String> {
    const RESERVED: &str = "/proc/sys/vm/nr_hugepages";
    const SHARED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let text = |error: io::Error| error.to_string();
    let wanted = if pages == Pages::TwoMib { mib / 2 } else { 0 };
    fs::write(
        SHARED,
        if pages == Pages::Small {
            "never"
        } else {
            "advise"
        },
    )
    .map_err(text)?;
    fs::write(RESERVED, wanted.to_string()).map_err(text)?;
    let got = fs::read_to_string(RESERVED).map_err(text)?;
    if got.trim() != wanted.to_string() {
        return Err(format!(
            "the lab host has {} of {wanted} pages of 2 MiB",
            got.trim()
        ));
    }
    let free = fs::read_to_string("/proc/meminfo").map_err(text)?;
    let line = free
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let free_kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    let needed_mib = SPARE_MIB
        + if pages == Pages::TwoMib {
            0
        } else {
            u64::from(mib)
        };
    if free_kib.unwrap_or(0) / 1024 < needed_mib {
        return Err(format!("the lab host has no {needed_mib} MiB to spare"));
    }
    Ok(())
}

fn mapping(bench: &Bench, vmm: &dyn Vmm, shape: Shape, run: u32) -> io::Result<Record> {
    let functions = bench.functions(shape)?;
    let mut setup = shape.setup(&bench.place, "", &functions);
    setup.kernel = &bench.place.tiny;
    setup.initramfs = None;
    let mut session = Session::start(vmm, setup, Whom::Vmm, &[trace::CALLS, trace::ENTRIES])?;
    session.await_mark(mark::INIT)?;
    let (_, events) = session.stop()?;
    let (exec, entry) = (window::exec_at(&events)?, window::entry_at(&events)?);
    let (mut count, mut sum, mut last) = (0, 0, exec);
    for (at, event) in events.iter().enumerate() {
        let What::Call {
            number: calls::IOCTL,
            second,
            ..
        } = event.what
        else {
            continue;
        };
        if event.at_ns > entry || !calls::is_map(second) {
            continue;
        }
        let mut behind = events
            .iter()
            .skip(at)
            .filter(|later| later.tid == event.tid);
        let end = behind.find(|later| later.what == What::Return);
        let end = end
            .ok_or_else(|| io::Error::other("a call that maps does not return"))?
            .at_ns;
        count += 1;
        sum += end - event.at_ns;
        last = last.max(end);
    }
    let mut record = shape.record(Case::Mapping, vmm, run);
    window::put(&mut record, "map_calls", count);
    window::put(&mut record, "map_ns", sum);
    window::put(&mut record, "present_ns", last - exec);
    window::put(&mut record, "entry_ns", entry - exec);
    Ok(record)
}
