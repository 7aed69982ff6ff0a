//! Requests of the guest's devices that the IOMMU stopped: seen in the kernel log, counted, said, and acted upon.
//!
//! The log is opened before the devices are, so that nothing is missed, and every line of it may have been caused by
//! somebody hostile: see [`iommu::events`].

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use iommu::{
    bdf::Bdf,
    events::{DmaFault, KernelLog, Next},
    sysfs::SysRoot,
};

use super::{
    fault::Fault,
    link::{Seen, Stopped},
    log::Log,
};
use crate::{
    error::{ErrorId, Report},
    plan::Plan,
    spec::OnDmaFault,
};

/// How much is said of a thing that can happen any number of times.
struct Limit {
    /// Lines within a window; what comes after them is counted, and told in one line at its end.
    lines: u32,
    window: Duration,
}

/// A device can cause faults as fast as its bus goes.
const FAULTS: Limit = Limit {
    lines: 8,
    window: Duration::from_secs(60),
};

/// The kernel log is overwritten as fast as anybody in the host writes to it.
const LOSSES: Limit = Limit {
    lines: 1,
    window: Duration::from_secs(60),
};

/// How much of the kernel's words about one fault is told: they are of one line, and that line is somebody else's.
pub(super) const REASON_CHARS: usize = 256;

/// Records read at a time, so that a log that never ends does not keep the console and the end of the guest waiting.
const TURN: usize = 256;

/// The watch over one guest's devices.
#[derive(Debug)]
pub(super) struct DmaFaults {
    log: Option<KernelLog>,
    policy: OnDmaFault,
    functions: Vec<Counted>,
    said: Throttle,
    said_lost: Throttle,
    /// Records that were overwritten before they were read, as far as they were said.
    lost: u64,
}

/// The faults of one function.
#[derive(Clone, Copy, Debug)]
struct Counted {
    bdf: Bdf,
    /// How many the kernel has logged; it leaves out many of a storm.
    count: u64,
    last_address: Option<u64>,
}

impl DmaFaults {
    /// No watch yet.
    #[must_use]
    pub(super) fn none(plan: &Plan) -> Self {
        let functions = plan.functions.iter().map(|function| function.bdf);
        Self::of(plan.on_dma_fault, functions, None)
    }

    /// The watch over `functions` by a kernel log that is open already.
    #[must_use]
    pub(super) fn of(
        policy: OnDmaFault,
        functions: impl IntoIterator<Item = Bdf>,
        log: Option<File>,
    ) -> Self {
        let functions = functions.into_iter().map(|bdf| Counted {
            bdf,
            count: 0,
            last_address: None,
        });
        Self {
            log: log.map(KernelLog::of),
            policy,
            functions: functions.collect(),
            said: Throttle::new(&FAULTS),
            said_lost: Throttle::new(&LOSSES),
            lost: 0,
        }
    }

    /// Begins to watch, if the guest has a device.
    ///
    /// # Errors
    /// `faults-unseen`, unless the guest file asks only for a log.
    pub(super) fn arm(&mut self, root: &SysRoot, log: &Log) -> Result<(), Fault> {
        if self.functions.is_empty() {
            return Ok(());
        }
        match KernelLog::open_at_end(root) {
            Ok(opened) => self.log = Some(opened),
            Err(error) if self.policy == OnDmaFault::Log => {
                log.warn(&format!("DMA faults will not be seen: {error}"));
            }
            Err(error) => {
                return Err(Report::new(
                    ErrorId::FaultsUnseen,
                    "cannot watch for DMA faults",
                    error.to_string(),
                    "run as root, with /dev/kmsg; or write `on_dma_fault = \"log\"`: then the guest runs unwatched",
                )
                .into());
            }
        }
        Ok(())
    }

    /// What to wait for.
    #[must_use]
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.log.as_ref().map(AsFd::as_fd)
    }

    /// Reads no more.
    pub(super) fn close(&mut self) {
        self.log = None;
    }

    /// How long at most until [`Self::look`] has something to say without a new fault.
    #[must_use]
    pub(super) fn patience(&self) -> Option<Duration> {
        self.said.left(Instant::now())
    }

    /// The figures.
    #[must_use]
    pub(super) fn seen(&self) -> Seen {
        let functions = self.functions.iter();
        Seen {
            functions: functions.map(|f| (f.count, f.last_address)).collect(),
            lost: self.lost,
        }
    }

    /// Reads what there is. What was stopped first, where the policy is to stop the guest for it.
    ///
    /// # Errors
    /// The errno of reading the kernel log.
    pub(super) fn look(&mut self, log: &Log) -> io::Result<Option<Stopped>> {
        let mut end = None;
        let now = Instant::now();
        for _ in 0..TURN {
            let Some(kernel) = &mut self.log else {
                return Ok(None);
            };
            match kernel.read()? {
                Next::Nothing => break,
                Next::Other => {}
                Next::Fault(fault) => {
                    let found = self.note(&fault, now, log);
                    end = end.or(found);
                }
            }
        }
        self.tell_lost(now, log);
        if let Some(more) = self.said.summary(now) {
            log.warn(&format!("{more} more DMA faults were stopped"));
        }
        Ok(end.filter(|_| self.policy == OnDmaFault::Stop))
    }

    /// Says at the end of the run what was only counted so far.
    pub(super) fn finish(&mut self, log: &Log) {
        if let Some(more) = self.said.rest() {
            log.warn(&format!("{more} more DMA faults were stopped"));
        }
    }

    /// Counts and says a fault of this guest; that of another is none of ours.
    fn note(&mut self, fault: &DmaFault, now: Instant, log: &Log) -> Option<Stopped> {
        let (function, counted) = self
            .functions
            .iter_mut()
            .enumerate()
            .find(|(_, counted)| fault.requester.is(counted.bdf))?;
        counted.count += 1;
        counted.last_address = Some(fault.address);
        let bdf = counted.bdf;
        let DmaFault {
            access,
            address,
            reason,
            ..
        } = fault;
        if self.said.may_say(now) {
            log.warn(&format!(
                "DMA fault of {bdf}: {access} at {address:#x} ({reason})"
            ));
        }
        Some(Stopped {
            function,
            access: *access,
            address: *address,
            reason: reason.chars().take(REASON_CHARS).collect(),
        })
    }

    fn tell_lost(&mut self, now: Instant, log: &Log) {
        let lost = self.log.as_ref().map_or(0, KernelLog::lost);
        if lost > self.lost && self.said_lost.may_say(now) {
            log.warn(&format!(
                "{lost} records of the kernel log were overwritten before they could be read; DMA faults among them \
                 are not known"
            ));
        }
        self.lost = lost;
    }
}

/// Keeps lines within a [`Limit`].
#[derive(Debug)]
struct Throttle {
    lines: u32,
    window: Duration,
    since: Option<Instant>,
    said: u32,
    hushed: u64,
}

impl Throttle {
    const fn new(limit: &Limit) -> Self {
        Self {
            lines: limit.lines,
            window: limit.window,
            since: None,
            said: 0,
            hushed: 0,
        }
    }

    /// Whether one more line may be written.
    fn may_say(&mut self, now: Instant) -> bool {
        if self.left(now).is_none() && self.hushed == 0 {
            self.said = 0;
            self.since = Some(now);
        }
        if self.said < self.lines {
            self.said += 1;
            return true;
        }
        self.hushed += 1;
        false
    }

    /// How many were not said, once their window is over.
    fn summary(&mut self, now: Instant) -> Option<u64> {
        let is_over = self.hushed > 0 && self.left(now).is_none_or(|left| left.is_zero());
        is_over.then(|| self.rest())?
    }

    /// How many were not said.
    fn rest(&mut self) -> Option<u64> {
        let hushed = std::mem::take(&mut self.hushed);
        if hushed > 0 {
            self.since = None;
        }
        (hushed > 0).then_some(hushed)
    }

    /// Time left of the window: nothing where there is no window, zero where it is over and something was hushed.
    fn left(&self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.since?);
        match self.window.checked_sub(passed) {
            Some(left) if !left.is_zero() => Some(left),
            _ if self.hushed > 0 => Some(Duration::ZERO),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_a_few_lines_and_a_sum() {
        let mut throttle = Throttle::new(&FAULTS);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let said = (0..1_000_000).filter(|_| throttle.may_say(start)).count();
        assert_eq!(said, 8);
        assert_eq!(throttle.summary(at(59)), None, "the window is not over");
        assert_eq!(throttle.left(at(59)), Some(Duration::from_secs(1)));
        assert_eq!(throttle.summary(at(60)), Some(999_992));
        assert_eq!(throttle.summary(at(60)), None, "told once");
        // The next window.
        let said = (0..100).filter(|_| throttle.may_say(at(61))).count();
        assert_eq!(said, 8);
        assert_eq!(throttle.rest(), Some(92));
        assert_eq!(throttle.rest(), None);
    }

    #[test]
    fn faults_far_apart_are_all_said() {
        let mut throttle = Throttle::new(&FAULTS);
        let start = Instant::now();
        for minute in 0..100 {
            assert!(throttle.may_say(start + Duration::from_secs(60 * minute)));
        }
        assert_eq!(throttle.rest(), None);
    }
}
