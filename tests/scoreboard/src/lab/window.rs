//! Counts of a part of a trace.

use std::{collections::BTreeMap, io};

use crate::{
    mark,
    record::Record,
    watch::{
        calls,
        event::{Event, What},
    },
};

/// When the VMM's program began.
pub(super) fn exec_at(events: &[Event]) -> io::Result<u64> {
    let mut execs = events
        .iter()
        .filter(|event| matches!(event.what, What::Exec { .. }));
    execs
        .next()
        .map(|event| event.at_ns)
        .ok_or_else(|| absent("the VMM's exec"))
}

/// When the guest ran first.
pub(super) fn entry_at(events: &[Event]) -> io::Result<u64> {
    let mut entries = events.iter().filter(|event| event.what == What::Entry);
    entries
        .next()
        .map(|event| event.at_ns)
        .ok_or_else(|| absent("the guest's first entry"))
}

/// When the guest made a mark first.
pub(super) fn mark_at(events: &[Event], wanted: u32) -> io::Result<u64> {
    let mut marks = events
        .iter()
        .filter(|event| event.what == What::Mark(wanted));
    marks
        .next()
        .map(|event| event.at_ns)
        .ok_or_else(|| absent(&format!("the guest's mark {wanted:#x}")))
}

fn absent(what: &str) -> io::Error {
    io::Error::other(format!("the trace does not have {what}"))
}

/// The events from `from` on and before `to`.
pub(super) fn between(events: &[Event], from: u64, to: u64) -> impl Iterator<Item = &Event> {
    events
        .iter()
        .filter(move |event| (from..to).contains(&event.at_ns))
}

/// The events of the work `index`.
pub(super) fn of_work(events: &[Event], index: u32) -> io::Result<Vec<Event>> {
    let from = mark_at(events, mark::begin(index))?;
    let to = mark_at(events, mark::begin(index) + 1)?;
    let mut events: Vec<Event> = between(events, from + 1, to).cloned().collect();
    // The end's own exit comes just before the event that tells its mark.
    let of_mark = events
        .iter()
        .rposition(|event| matches!(&event.what, What::Exit(reason) if reason == "cpuid"));
    if let Some(at) = of_mark {
        events.remove(at);
    }
    Ok(events)
}

/// What the exits among `events` were for, into a record.
pub(super) fn exits<'a>(events: impl Iterator<Item = &'a Event>, record: &mut Record) {
    let (mut kernel, mut user) = (BTreeMap::new(), BTreeMap::new());
    let (mut interrupts, mut console) = (0, 0);
    for event in events {
        if let What::Exit(reason) = &event.what {
            *kernel.entry(reason.clone()).or_default() += 1;
        } else if let What::UserExit(reason) = &event.what {
            *user.entry(reason.clone()).or_default() += 1;
        } else if event.what == What::Interrupt {
            interrupts += 1;
        } else if let What::PortWrite { port: 0x3F8, count } = event.what {
            console += count;
        }
    }
    put(record, "exits", kernel.values().sum());
    put(record, "user_exits", user.values().sum());
    put(record, "interrupts", interrupts);
    put(record, "console_bytes", console);
    record.counts.insert("exits".to_owned(), kernel);
    record.counts.insert("user-exits".to_owned(), user);
}

/// The calls among `events`, by name.
pub(super) fn calls<'a>(events: impl Iterator<Item = &'a Event>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for event in events {
        if let What::Call { number, second, .. } = event.what {
            *counts.entry(calls::name(number, second)).or_default() += 1;
        }
    }
    counts
}

/// The memory slots that KVM has at the end of `events`.
pub(super) fn slots<'a>(events: impl Iterator<Item = &'a Event>) -> u64 {
    let mut live = BTreeMap::new();
    for event in events {
        if let What::Slot { number, bytes } = event.what {
            live.insert(number, bytes);
        }
    }
    live.retain(|_, bytes| *bytes != 0);
    live.len() as u64
}

/// The time in which nobody ran, between two moments; of a host with one processor.
pub(super) fn idle_ns(events: &[Event], from: u64, to: u64) -> u64 {
    let (mut since, mut sum) = (None, 0);
    for event in events.iter().take_while(|event| event.at_ns < to) {
        if let What::Switch { next } = event.what {
            let at = event.at_ns.max(from);
            if let Some(begin) = since.take() {
                sum += at - begin;
            }
            since = (next == 0).then_some(at);
        }
    }
    sum + since.map_or(0, |begin: u64| to.saturating_sub(begin))
}

/// Puts a figure into a record. Counts and times here are far below the 2^53 up to which a float is exact.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(super) fn put(record: &mut Record, name: &str, value: u64) {
    record.figures.insert(name.to_owned(), value as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at_ns: u64, what: What) -> Event {
        Event {
            at_ns,
            tid: 1,
            what,
        }
    }

    #[test]
    fn a_window_has_neither_of_its_marks() {
        let events = [
            at(1, What::Exit("npf".into())),
            at(5, What::Exit("cpuid".into())),
            at(6, What::Mark(mark::begin(2))),
            at(8, What::Exit("io".into())),
            at(9, What::Exit("cpuid".into())),
            at(10, What::Mark(mark::begin(2) + 1)),
            at(11, What::Exit("msr".into())),
        ];
        let window = of_work(&events, 2).unwrap();
        assert_eq!(window, events[3..4]);
        assert!(of_work(&events, 3).is_err());
    }

    #[test]
    fn a_slot_without_bytes_is_none() {
        let slot = |number, bytes| at(0, What::Slot { number, bytes });
        let events = [slot(0, 10), slot(1, 10), slot(0, 0), slot(1, 20)];
        assert_eq!(slots(events.iter()), 1);
    }

    #[test]
    fn idle_time_is_what_nobody_has_between_the_two() {
        let switch = |at_ns, next| at(at_ns, What::Switch { next });
        let events = [
            switch(0, 0),
            switch(10, 7),
            switch(20, 0),
            switch(26, 9),
            switch(30, 0),
        ];
        assert_eq!(idle_ns(&events, 5, 40), 5 + 6 + 10);
        assert_eq!(idle_ns(&events, 0, 10), 10);
        assert_eq!(idle_ns(&[], 0, 10), 0);
    }
}
