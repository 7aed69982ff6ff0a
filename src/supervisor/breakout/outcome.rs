//! What came of a probe in one environment, put together from the processes that ran it.

use std::collections::{BTreeMap, BTreeSet};

use iommu::Errno;
use jailed::breakout::{
    record::{Left, Tried},
    sweep::{PAST_EVERY_FILTER, Swept, Way, swept},
    table::Probe,
    words::letter,
};
use jailed::{
    handoff::Ending,
    manifest::{Role, Rules},
};
use serde::Serialize;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// No try worked.
    Prevented,
    /// A try worked.
    Reached,
    /// It ended in the middle of a try by a signal that neither the filter sends nor its row names: whatever stopped it
    /// was no layer, and what would have come of it is not known.
    Crashed,
    /// This kernel has nothing to try.
    Absent,
    /// The probe did not run, or not to its end.
    Inconclusive,
}

/// What came of a probe.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    #[serde(skip)]
    probe: &'static Probe,
    /// Its id.
    pub id: &'static str,
    /// Its title.
    pub title: &'static str,
    /// `v` or `d`.
    pub role: &'static str,
    /// The environment.
    pub environment: String,
    /// In one word.
    pub verdict: Verdict,
    /// How many tries were made.
    pub tries: usize,
    /// The tries that worked, by index.
    pub reached: Vec<usize>,
    /// How many tries were refused, by what refused them: `filter`, an errno, `signal N`.
    pub blocked: BTreeMap<String, usize>,
    /// The tries in which the process crashed, with the signal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub crashed: BTreeMap<usize, i32>,
    /// How many the kernel knows nothing of.
    pub absent: usize,
    /// Of the sweep: the calls that the kernel knows and let through, by whether the manifest allows them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub calls: BTreeMap<String, BTreeSet<u32>>,
    /// How many processes it took.
    pub launches: usize,
    /// What was strange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With this status.
    Exited(i32),
    /// By this signal, not ours.
    Signal(i32),
    /// It had to be killed.
    Hung,
}

impl Outcome {
    pub(super) fn new(probe: &'static Probe, role: Role, environment: &str) -> Self {
        Self {
            probe,
            id: probe.id,
            title: probe.title,
            role: letter(role),
            environment: environment.to_owned(),
            verdict: Verdict::Inconclusive,
            tries: 0,
            reached: Vec::new(),
            blocked: BTreeMap::new(),
            crashed: BTreeMap::new(),
            absent: 0,
            calls: BTreeMap::new(),
            launches: 0,
            remark: None,
        }
    }

    /// Adds what one process left behind; the try to go on with, where the process ended in the middle of one.
    pub(super) fn add(
        &mut self,
        left: Option<Left<'_>>,
        end: End,
        is_filtered: bool,
    ) -> Option<usize> {
        self.launches += 1;
        let Some(left) = left.filter(Left::has_begun) else {
            self.remark = Some(format!("the probe did not begin: {end:?}"));
            return None;
        };
        for (index, tried) in left.answered() {
            self.tries += 1;
            match tried {
                Tried::Reached => self.reached.push(index),
                Tried::Absent => self.absent += 1,
                Tried::Blocked(errno) => self.block(refusal(errno)),
            }
        }
        let pending = left.pending();
        match (pending, end) {
            (None, _) if left.is_done() => return None,
            (None, _) => self.remark = Some(format!("ended between two tries: {end:?}")),
            (Some(_), End::Signal(libc::SIGSYS)) if is_filtered => self.block("filter".to_owned()),
            (Some(index), End::Signal(signal)) => match self.probe.reason_of(index, signal) {
                Some(reason) => self.block(format!("signal {signal}: {reason}")),
                None => {
                    self.crashed.insert(index, signal);
                }
            },
            // It runs another program, waits in the kernel, or has left.
            (Some(index), End::Exited(_) | End::Hung) => self.reached.push(index),
        }
        self.tries += 1;
        pending.map(|index| index + 1)
    }

    /// In the sweep, to make a call as the manifest allows it is no break-out: it tells the surface.
    pub(super) fn judge_sweep(&mut self, rules: &Rules) {
        let all: Vec<Swept<'_>> = swept(rules).collect();
        for index in std::mem::take(&mut self.reached) {
            let Some(try_made) = all.get(index) else {
                continue;
            };
            let is_allowed = try_made.way == Way::Allowed || rules.allows(&try_made.data());
            let kind = if is_allowed {
                "allowed"
            } else if try_made.way == Way::Ones && PAST_EVERY_FILTER.contains(&try_made.number) {
                "past-every-filter"
            } else {
                self.reached.push(index);
                "not-allowed"
            };
            let calls = self.calls.entry(kind.to_owned()).or_default();
            calls.insert(try_made.number);
        }
    }

    /// Where the other process is attacked, its end decides: it goes on, or it ends as one does whose peer breaks the
    /// protocol, whose guest ends, or whose device fails. Anything else is a crash.
    pub(super) fn judge_other(&mut self, end: End) {
        const STRICT: [Ending; 7] = [
            Ending::PeerBroken,
            Ending::DeviceCallFailed,
            Ending::PoweredOff,
            Ending::RebootRequested,
            Ending::TripleFault,
            Ending::Panicked,
            Ending::KvmFailed,
        ];
        let ended = match end {
            End::Exited(code) => u8::try_from(code).ok().and_then(Ending::from_status),
            End::Signal(_) | End::Hung => None,
        };
        self.reached.clear();
        match (end, ended) {
            (End::Hung, _) => self.block("the other goes on".to_owned()),
            (_, Some(ending)) if STRICT.contains(&ending) => {
                self.block(format!("the other ended: {ending:?}"));
            }
            (end, _) => {
                self.reached.push(0);
                self.remark = Some(format!("the other crashed: {end:?}"));
            }
        }
    }

    /// Says in one word what came of all.
    pub(super) fn judge(&mut self) {
        self.verdict = if !self.reached.is_empty() {
            Verdict::Reached
        } else if !self.crashed.is_empty() {
            Verdict::Crashed
        } else if self.remark.is_some() || self.tries == 0 {
            Verdict::Inconclusive
        } else if self.absent == self.tries {
            Verdict::Absent
        } else {
            Verdict::Prevented
        };
    }

    fn block(&mut self, by: String) {
        *self.blocked.entry(by).or_default() += 1;
    }
}

fn refusal(errno: u32) -> String {
    match i32::try_from(errno) {
        // What was read told nothing: no address, an empty folder.
        Ok(0) | Err(_) => "nothing there".to_owned(),
        Ok(errno) => Errno::new(errno).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use jailed::{
        breakout::{record::BYTES, table::PROBES},
        handoff::Handoff,
        manifest::Phase,
    };

    use super::*;

    fn outcome(reached: Vec<usize>) -> Outcome {
        let mut outcome = Outcome::new(&PROBES[0], Role::Vcpu, "full");
        outcome.tries = 600;
        outcome.reached = reached;
        outcome
    }

    #[test]
    fn a_call_that_the_manifest_does_not_allow_is_a_break_out() {
        let mut handoff = Handoff::empty();
        handoff.vcpu_count = 1;
        let rules = Rules::of(Role::Vcpu, Phase::Run, &handoff);
        let at = |number, way| {
            let mut all = swept(&rules);
            all.position(|s| s.number == number && s.way == way)
                .unwrap()
        };
        let mut fine = outcome(vec![at(202, Way::Allowed), at(336, Way::Ones)]);
        fine.judge_sweep(&rules);
        fine.judge();
        assert_eq!(fine.verdict, Verdict::Prevented);
        assert_eq!(fine.calls["allowed"], BTreeSet::from([202]));
        assert_eq!(fine.calls["past-every-filter"], BTreeSet::from([336]));
        for bad in [
            at(2, Way::Ones),
            at(202, Way::Ones),
            at(202, Way::X32),
            at(3, Way::Bits32),
        ] {
            let mut out = outcome(vec![bad]);
            out.judge_sweep(&rules);
            out.judge();
            assert_eq!(out.verdict, Verdict::Reached, "{bad}");
        }
    }

    /// What a process leaves that was ended in the middle of its first try.
    fn left_in_first_try() -> Vec<u8> {
        let mut bytes = vec![0; BYTES];
        // Running, one try, begun.
        bytes[0] = 1;
        bytes[4] = 1;
        bytes[8] = 1;
        bytes
    }

    #[test]
    fn only_the_filters_signal_stops_a_probe_and_only_where_there_is_one() {
        let bytes = left_in_first_try();
        for (id, signal, is_filtered, verdict) in [
            ("C12", libc::SIGSYS, true, Verdict::Prevented),
            ("C12", libc::SIGSYS, false, Verdict::Crashed),
            ("C12", libc::SIGSEGV, true, Verdict::Crashed),
            ("C12", libc::SIGKILL, true, Verdict::Crashed),
            ("C12", libc::SIGILL, false, Verdict::Crashed),
            // Its row names this one, and no other.
            ("A38", libc::SIGILL, false, Verdict::Prevented),
            ("A38", libc::SIGBUS, false, Verdict::Crashed),
        ] {
            let probe = PROBES.iter().find(|probe| probe.id == id).unwrap();
            let mut outcome = Outcome::new(probe, Role::Vcpu, "full");
            let next = outcome.add(Left::new(&bytes), End::Signal(signal), is_filtered);
            outcome.judge();
            assert_eq!(outcome.verdict, verdict, "{id} {signal} {is_filtered}");
            assert_eq!(next, Some(1), "the next try is made");
        }
    }

    /// An attacker that crashes has not attacked, however well the other process did.
    #[test]
    fn an_attack_on_the_other_process_that_crashed_shows_nothing() {
        let mut outcome = outcome(Vec::new());
        outcome.crashed.insert(0, libc::SIGSEGV);
        outcome.judge_other(End::Hung);
        outcome.judge();
        assert_eq!(outcome.verdict, Verdict::Crashed);
    }

    #[test]
    fn the_other_process_may_end_strictly_and_may_not_crash() {
        for (end, verdict) in [
            (End::Hung, Verdict::Prevented),
            (End::Exited(Ending::PeerBroken as i32), Verdict::Prevented),
            (End::Exited(Ending::Bug as i32), Verdict::Reached),
            (End::Signal(libc::SIGSEGV), Verdict::Reached),
            (End::Signal(libc::SIGSYS), Verdict::Reached),
        ] {
            let mut outcome = outcome(vec![0]);
            outcome.judge_other(end);
            outcome.judge();
            assert_eq!(outcome.verdict, verdict, "{end:?}");
        }
    }
}
