//! What V, D and S are, read from the kernel, and how that differs from what they are meant to be.
//!
//! On entry: privilege to trace them, and no filter on the caller. On exit: nothing has changed, whatever was found.
//!
//! What is read is one moment of all of them: every thread stands still from before the first file is read until after the
//! last, so that nobody is one thing while its files are read and another while its filters are. Reading twice would not
//! show what changes and changes back. Only seals are read before, by `smaps`, which goes through all page tables and would
//! hold a guest with much memory for long: a seal is for good, so what was sealed then is sealed now, and a mapping that is
//! not the same as then counts as not sealed. Judging comes after, when they run again.

mod alike;
mod bpf;
mod compare;
mod expected;
mod facts;
mod filter;
mod judge;
mod moment;
mod names;
mod paths;
mod reach;
mod record;
mod running;
mod stranger;

pub use self::{
    expected::{
        CgroupLimit, Expected, ExpectedDescriptor, ExpectedLimit, ExpectedMap, FileId, GivenFile,
        Held, Holding, Kind, Mapped, Place, Programs, Role, memory_file,
    },
    facts::{Proc, Unread},
    judge::{Finding, State},
    record::{AllowedRule, Inspection, ProcessRecord, ReachableCall, Verdict},
    running::{RunningGuest, RunningProcess},
    stranger::reachable_calls,
};
use self::{facts::Facts, filter::Live, judge::Look, moment::Still};
use crate::sys::landlock;

/// A process to be inspected.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Which process.
    pub pid: u32,
    /// What it is meant to be.
    pub expected: Expected,
}

/// Reads every one of `subjects` and judges it; none may share a namespace with another, nor with `hosts`.
#[must_use]
pub fn inspect(
    proc: &Proc,
    guest: &str,
    at: String,
    subjects: &[Subject],
    hosts: &[(&str, u32)],
) -> Inspection {
    let seals: Vec<_> = subjects.iter().map(|s| proc.seals(s.pid)).collect();
    let still: Vec<_> = subjects.iter().map(|s| Still::stop(proc, s.pid)).collect();
    let read = subjects.iter().zip(&seals).zip(&still);
    let read = read.map(|((subject, seals), still)| {
        let place = &subject.expected.place;
        let live = Live::read(subject.pid, still, place.parent, &place.given);
        (proc.read(subject.pid, seals), live)
    });
    let mut read: Vec<(Facts, Live)> = read.collect();
    for ((_, live), still) in read.iter_mut().zip(still) {
        // One that cannot be let go is not what it was.
        if let Err(fact) = still.and_then(Still::release) {
            live.filters = Err(fact);
        }
    }
    let offered = landlock::version().map_err(|errno| Unread {
        source: "landlock_create_ruleset".to_owned(),
        why: std::io::Error::from(errno).to_string(),
    });
    let hosts = hosts
        .iter()
        .map(|(whose, pid)| ((*whose).to_owned(), proc.namespaces(*pid)));
    let hosts: Vec<_> = hosts.collect();
    let processes = subjects.iter().zip(&read).map(|(subject, (facts, live))| {
        let others = subjects
            .iter()
            .zip(&read)
            .filter(|(o, _)| o.pid != subject.pid);
        let role = |s: &Subject| s.expected.role;
        let partner = others
            .clone()
            .find(|(o, _)| role(o) != Role::Supervisor && role(subject) != Role::Supervisor);
        let others = others.map(|(o, (facts, _))| {
            let whose = format!("the {}", role(o).name());
            (whose, facts.namespaces.clone())
        });
        let others: Vec<_> = hosts.iter().cloned().chain(others).collect();
        let comparisons = judge::calls::comparisons(live, &subject.expected);
        let look = Look {
            facts,
            live,
            comparisons: &comparisons,
            expected: &subject.expected,
            others: &others,
            partner_cookie: partner.map(|(_, (_, live))| &live.cookie),
            landlock_offered: &offered,
            reader: rustix::thread::gettid()
                .as_raw_nonzero()
                .get()
                .unsigned_abs(),
        };
        ProcessRecord::new(&look)
    });
    Inspection::new(guest, at, processes.collect())
}
