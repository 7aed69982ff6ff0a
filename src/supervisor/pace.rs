//! How often a word of the supervisor is acted upon, whoever says it how often.
//!
//! The supervisor may be in hostile hands, and an operator may ask by a loop. What is asked again before its interval is over
//! is not lost: one of it waits.

use std::time::{Duration, Instant};

/// What the keeper does for the supervisor again and again. Every other word ends the guest, or answers a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Hears a word.
    Word,
    /// Writes the figures.
    Figures,
}

struct Row {
    work: Work,
    /// From the beginning of one to the beginning of the next.
    interval: Duration,
    #[cfg_attr(not(test), expect(dead_code, reason = "for who reads the table"))]
    why: &'static str,
}

const ROWS: [Row; 2] = [
    Row {
        work: Work::Word,
        interval: Duration::from_millis(5),
        why: "a word of 8 KiB is read in microseconds: who says nothing but words gets a hundredth of a processor, and a \
              queue that is full of them is heard within two seconds",
    },
    Row {
        work: Work::Figures,
        interval: Duration::from_secs(1),
        why: "a file is written and renamed, on the host's disk as a rule; nobody reads them more often",
    },
];

/// After a word that nothing was done about, where no [`Pace`] is kept: as long as until the next may be heard.
pub(super) fn breathe() {
    std::thread::sleep(ROWS[Work::Word as usize].interval);
}

// Every row stands at its work's place.
const _: () = assert!(
    matches!(ROWS[Work::Word as usize].work, Work::Word)
        && matches!(ROWS[Work::Figures as usize].work, Work::Figures)
);

/// When each work was last done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace([Option<Instant>; ROWS.len()]);

impl Pace {
    /// How long until the work may be done.
    #[must_use]
    pub(super) fn left(&self, work: Work, now: Instant) -> Duration {
        self.0[work as usize].map_or(Duration::ZERO, |last| {
            (last + ROWS[work as usize].interval).saturating_duration_since(now)
        })
    }

    /// Whether the work may be done now; then it counts as done.
    #[must_use]
    pub(super) fn take(&mut self, work: Work, now: Instant) -> bool {
        let may = self.left(work, now).is_zero();
        if may {
            self.0[work as usize] = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_work_has_its_own_interval_and_a_reason() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert!(pace.take(Work::Word, start) && pace.take(Work::Figures, start));
        assert!(!pace.take(Work::Word, at(4)));
        assert!(pace.take(Work::Word, at(5)));
        assert!(!pace.take(Work::Figures, at(999)));
        assert_eq!(pace.left(Work::Figures, at(999)), Duration::from_millis(1));
        assert!(pace.take(Work::Figures, at(1000)));
        assert!(ROWS.iter().all(|row| !row.why.is_empty()));
    }
}
