//! What V, D and S are, read from the kernel, and how that differs from what they are meant to be.
//!
//! On entry: privilege to trace them, and no filter on the caller. On exit: nothing has changed, whatever was found; a
//! thread stood still for as long as its filters were copied.

mod bpf;
mod compare;
mod expected;
mod facts;
mod filter;
mod judge;
mod names;
mod paths;
mod record;
mod running;

pub use self::{
    expected::{
        Expected, ExpectedDescriptor, ExpectedLimit, ExpectedMap, Holding, Kind, Mapped, Place,
        Programs, Role,
    },
    facts::{Proc, Unread},
    judge::{Finding, State},
    record::{AllowedRule, Inspection, ProcessRecord, ReachableCall, Verdict},
    running::{RunningGuest, RunningProcess},
};
use self::{facts::Facts, filter::Live, judge::Look};

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
    // All are read before any is judged: what one is held against is the other as it was then.
    let read: Vec<(Facts, Live)> = subjects
        .iter()
        .map(|subject| {
            let facts = proc.read(subject.pid);
            let live = Live::read(&facts);
            (facts, live)
        })
        .collect();
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
        };
        ProcessRecord::new(&look)
    });
    Inspection::new(guest, at, processes.collect())
}
