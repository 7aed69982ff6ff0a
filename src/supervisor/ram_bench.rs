//! How long RAM takes to be made present, against the least that it can take: zeroing as much that is there, on as many
//! processors. `scripts/bench-host` runs it.

use std::{
    hint::black_box,
    io::{self, Write as _},
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use iommu::sysfs::SysRoot;

use super::{Log, Pages, Ram, parallel, populate, sized_file};
use crate::{spec::HugepageSize, sys::map::Mapping};

const LEN: usize = 1 << 30;
const ROUNDS: usize = 7;

fn took(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

/// Zeroes memory that is there.
fn zeroed(there: &mut [u8], threads: usize) -> Duration {
    let took = took(|| {
        thread::scope(|scope| {
            for part in there.chunks_mut(LEN.div_ceil(threads)) {
                scope.spawn(|| black_box(part).fill(0));
            }
        });
    });
    black_box(there);
    took
}

/// Makes RAM of this kind and leaves it again, as a start does; `None` where this host has not that much of the kind.
fn made(pages: &Pages, threads: usize) -> Option<Duration> {
    let size = match pages {
        Pages::Huge(size) => Some(*size),
        Pages::Large | Pages::Small { .. } => None,
    };
    let file = sized_file(LEN as u64, size).ok()?;
    let view = Mapping::read_write(&file, LEN).ok()?;
    if *pages == Pages::Large && !view.prefer_large_pages() {
        return None;
    }
    let log = Log::keeping("bench", true);
    let mut made = Ok(());
    let mut ram = None;
    let took = took(|| {
        made = populate(&file, &view, pages, threads, &log, &AtomicBool::new(true));
        let (view, pages) = (Some(view), pages.clone());
        let ram = ram.insert(Ram { file, view, pages });
        ram.forget_view().unwrap();
    });
    made.is_ok().then_some(took)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
#[ignore = "needs 2 GiB of memory and a quiet machine; it prints figures"]
fn ram_is_made_present_at_this_multiple_of_zeroing_it() {
    let small = Pages::Small {
        why: "the benchmark says so".to_owned(),
    };
    let shared = Pages::of(&SysRoot::new("/"), None);
    let kinds = [
        ("2m-reserved", Some(Pages::Huge(HugepageSize::TwoMib))),
        ("2m-transparent", (shared == Pages::Large).then_some(shared)),
        ("4k", Some(small)),
    ];
    let mut there = vec![1_u8; LEN];
    let mut out = io::stdout();
    for (name, pages) in kinds {
        let all = parallel::processors();
        for threads in 1..=all {
            // A machine that is itself a guest gets its own memory at the first touch, which is nobody's cost here.
            let warm = pages.as_ref().and_then(|pages| made(pages, threads));
            let Some(pages) = pages.as_ref().filter(|_| warm.is_some()) else {
                writeln!(out, "bench absent {name}").unwrap();
                break;
            };
            let rounds = (0..ROUNDS).map(|_| {
                let least = zeroed(&mut there, threads);
                (least, made(pages, threads).unwrap())
            });
            let (least, made): (Vec<_>, Vec<_>) = rounds.unzip();
            let ms = |times: Vec<Duration>| median(times).as_secs_f64() * 1000.0;
            let (least, made) = (ms(least), ms(made));
            let ratio = made / least;
            writeln!(
                out,
                "bench ram {name} {threads} {least:.1} {made:.1} {ratio:.2}"
            )
            .unwrap();
        }
    }
}
