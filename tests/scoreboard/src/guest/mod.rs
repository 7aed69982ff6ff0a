//! What the measured Linux guest does, as its kernel's command line says it:
//!
//! * `bench.do=WORK:COUNT,...`: the works of [`crate::mark::WORKS`] in that order, each between its two marks; and
//!   `pause:SECONDS`, which has none
//! * `bench.net=ADDRESS/PREFIX`: the address of its first network interface, which then is up before the first work
//!
//! A work counts its units by itself, so that the host need not ask: it is done or it has failed.

mod config;
mod disk;
mod net;
mod words;

use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountFlags, mount},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use thiserror::Error;

use crate::mark;
use words::{Step, Words};

/// Where the host's side of packets is, and answers each datagram by itself.
pub const ECHO: (&str, u16) = ("10.9.0.1", 9009);
/// Drivers look for their devices while process 1 runs already.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a guest stopped.
#[derive(Debug, Error)]
pub enum Failure {
    /// A system call.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What came of it.
        source: io::Error,
    },
    /// The command line.
    #[error("{0}")]
    Words(String),
    /// Something did not come in time.
    #[error("{0} did not appear")]
    Absent(&'static str),
}

impl Failure {
    fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::System { what, source }
    }
}

/// Executes CPUID with a leaf that KVM's trace shows, and no processor has.
pub fn mark(what: u32) {
    std::hint::black_box(std::arch::x86_64::__cpuid_count(mark::LEAF, what));
}

/// Does what the command line says.
///
/// # Errors
/// The first thing that could not be done.
pub fn work() -> Result<(), Failure> {
    mount_all()?;
    leave_console()?;
    let line = fs::read_to_string("/proc/cmdline").map_err(Failure::system("/proc/cmdline"))?;
    let words = Words::parse(&line).map_err(Failure::Words)?;
    if let Some((address, prefix)) = words.net {
        net::bring_up(address, prefix)?;
    }
    for step in &words.steps {
        match *step {
            Step::Pause(seconds) => thread::sleep(Duration::from_secs(seconds)),
            Step::Work(index, count) => run(index, count)?,
        }
    }
    Ok(())
}

/// One work, from everything that it needs to its second mark.
fn run(index: u32, count: u64) -> Result<(), Failure> {
    let begin = || mark(mark::begin(index));
    let name = usize::try_from(index)
        .ok()
        .and_then(|index| mark::WORKS.get(index));
    match name.copied() {
        Some("config-read") => config::Registers::open()?.read(count, begin)?,
        Some("config-write") => config::Registers::open()?.write(count, begin)?,
        Some("nvme-read" | "interrupts") => disk::Disk::open()?.read(count, begin)?,
        Some("nvme-write") => disk::Disk::open()?.write(count, begin)?,
        Some("packets-small") => net::exchange::<64>(count, begin)?,
        Some("packets-large") => net::exchange::<1400>(count, begin)?,
        Some("idle") => {
            begin();
            thread::sleep(Duration::from_secs(count));
        }
        _ => return Err(Failure::Words(format!("no work has the number {index}"))),
    }
    mark(mark::begin(index) + 1);
    Ok(())
}

fn mount_all() -> Result<(), Failure> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(place).map_err(Failure::system(place))?;
        mount(kind, place, kind, MountFlags::empty(), None)
            .map_err(|errno| Failure::system(format!("mount {kind}"))(errno.into()))?;
    }
    Ok(())
}

/// Lets go of the console that the kernel opened for process 1: a serial driver without an interrupt polls while its port
/// is open, and each poll leaves the guest.
fn leave_console() -> Result<(), Failure> {
    let null = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(Failure::system("/dev/null"))?;
    dup2_stdin(&null)
        .and_then(|()| dup2_stdout(&null))
        .and_then(|()| dup2_stderr(&null))
        .map_err(|errno| Failure::system("dup2")(errno.into()))
}

/// One line on the kernel's console, if there is one. Nobody is left to hear that it failed.
pub fn tell(failure: &Failure) {
    let _unheard = fs::write("/dev/kmsg", format!("<0>GUEST error={failure}\n"));
}

/// Waits until something is there.
fn await_some<T>(what: &'static str, mut find: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    let begin = Instant::now();
    loop {
        if let Some(found) = find() {
            return Ok(found);
        }
        if begin.elapsed() > PATIENCE {
            return Err(Failure::Absent(what));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The names in a folder, in their order; none where it is absent.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
