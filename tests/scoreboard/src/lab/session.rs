//! One run of one VMM: started, awaited, stopped; whatever becomes of it, nothing of it is left.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::PathBuf,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use crate::{
    mark,
    vmm::{Setup, Vmm},
    watch::{
        ends::Ends,
        event::{Event, What},
        processes,
        trace::{self, Trace},
    },
};

/// How long a mark may take: a VMM with a firmware takes a minute here.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long a VMM may take to stop.
const STOP: Duration = Duration::from_secs(60);
/// And for each GiB of its guest's memory, which a VMM may wipe.
const STOP_OF_A_GIB: Duration = Duration::from_secs(10);

/// A VMM that runs.
pub(super) struct Session<'a> {
    vmm: &'a dyn Vmm,
    setup: Setup<'a>,
    child: Child,
    trace: Trace,
    /// Marks alone: this is looked at again and again, and the other one not before the end.
    marks: Trace,
    log: PathBuf,
}

/// Which processes a trace is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// The VMM's.
    Vmm,
    /// All of the host's.
    All,
}

impl<'a> Session<'a> {
    /// Starts it with `events` traced, beside marks.
    pub(super) fn start(
        vmm: &'a dyn Vmm,
        setup: Setup<'a>,
        whom: Whom,
        events: &[&[&str]],
    ) -> io::Result<Self> {
        const BUFFER_KIB: u32 = 60_000;
        if let Some(why) = vmm.refuses(&setup) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let events: Vec<_> = events.iter().copied().chain([trace::MARKS]).collect();
        let mut trace = Trace::new("scoreboard", BUFFER_KIB, &events)?;
        let mut marks = Trace::new("scoreboard-marks", 1024, &[trace::MARKS])?;
        vmm.prepare(&setup)?;
        let log = setup.scratch.join("log");
        let output = File::create(&log)?;
        marks.follow_children()?;
        if whom == Whom::Vmm {
            trace.follow_children()?;
        }
        let mut command = vmm.command(&setup);
        command.stdout(output.try_clone()?).stderr(output);
        trace.start()?;
        marks.start()?;
        let child = command.spawn()?;
        Ok(Self {
            vmm,
            setup,
            child,
            trace,
            marks,
            log,
        })
    }

    /// The VMM's processes.
    pub(super) fn processes(&self) -> io::Result<BTreeSet<u32>> {
        processes::tree(self.child.id())
    }

    /// Waits until the guest has made `wanted`.
    pub(super) fn await_mark(&mut self, wanted: u32) -> io::Result<()> {
        self.await_event(|what| *what == What::Mark(wanted))
    }

    /// The thread that ran the guest as it made `wanted`: a vCPU.
    pub(super) fn marked_by(&self, wanted: u32) -> io::Result<u32> {
        let events = self.marks.read()?;
        let mark = events.iter().find(|event| event.what == What::Mark(wanted));
        mark.map(|event| event.tid)
            .ok_or_else(|| self.failed("the guest's mark is in no trace"))
    }

    /// Waits until there was an event in the trace of marks.
    fn await_event(&mut self, is_it: impl Fn(&What) -> bool) -> io::Result<()> {
        let begin = Instant::now();
        loop {
            let events = self.marks.read()?;
            if events.iter().any(|event| is_it(&event.what)) {
                return Ok(());
            }
            if events
                .iter()
                .any(|event| event.what == What::Mark(mark::FAILED))
            {
                return Err(self.failed("the guest says that it failed"));
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failed(&format!("the VMM has ended: {status}")));
            }
            if begin.elapsed() > PATIENCE {
                let last = events.iter().rev().find_map(|event| {
                    let What::Mark(mark) = event.what else {
                        return None;
                    };
                    Some(format!("its last mark is {mark:#x}"))
                });
                let last = last.unwrap_or_else(|| "it has made no mark".to_owned());
                return Err(self.failed(&format!("the guest did not come so far in time; {last}")));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// An error with what the VMM said last.
    fn failed(&self, why: &str) -> io::Error {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<_> = text
            .lines()
            .rev()
            .take(12)
            .map(|line| line.chars().take(300).collect::<String>())
            .collect();
        let last: Vec<_> = last.into_iter().rev().collect();
        io::Error::other(format!("{why}; its last words:\n{}", last.join("\n")))
    }

    /// Stops it: how long that took, and what was traced.
    pub(super) fn stop(mut self) -> io::Result<(Duration, Vec<Event>)> {
        let taken = self.end()?;
        let events = self.trace.stop()?;
        Ok((taken, events))
    }

    /// Asks it to stop, and waits until no process of it is left.
    fn end(&mut self) -> io::Result<Duration> {
        let ends = Ends::of(&self.processes()?)?;
        let begin = Instant::now();
        self.signal(rustix::process::Signal::TERM)?;
        let gib = self.setup.guest.memory_mib.div_ceil(1024);
        if !ends.wait(STOP + STOP_OF_A_GIB * gib)? {
            return Err(self.failed("the VMM does not stop when it is told to"));
        }
        let taken = begin.elapsed();
        self.child.wait()?;
        self.vmm.clean_up(&self.setup)?;
        Ok(taken)
    }

    fn signal(&self, signal: rustix::process::Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }
}

impl Drop for Session<'_> {
    /// A run that failed must not be in the way of the next.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let all = self.processes().unwrap_or_default();
        let _gone = self.signal(rustix::process::Signal::TERM);
        thread::sleep(Duration::from_secs(3));
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        for pid in all {
            let pid = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            let _gone =
                pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
        thread::sleep(Duration::from_secs(1));
        let _left = self.vmm.clean_up(&self.setup);
    }
}
