//! As whom a process runs, and whether anybody but root may look into it.

use super::{Answer, Look, Mismatches, unread};
use crate::inspect::facts::{Status, Thread, Unread};

/// The status of every thread; what could not be read otherwise.
fn statuses<'a>(look: &Look<'a>) -> Result<Vec<(u32, &'a Status)>, &'a Unread> {
    let threads = look.facts.threads.as_ref()?;
    let of = |thread: &'a Thread| Ok((thread.tid, thread.status.as_ref()?));
    threads.iter().map(of).collect()
}

/// Asks the same of every thread.
fn each(
    look: &Look<'_>,
    evidence: impl FnOnce(usize) -> String,
    ask: impl Fn(&mut Mismatches, u32, &Status),
) -> Answer {
    let statuses = match statuses(look) {
        Ok(statuses) => statuses,
        Err(fact) => return unread(fact),
    };
    let mut mismatches = Mismatches::default();
    mismatches.unless(!statuses.is_empty(), || "it has no thread".to_owned());
    for (tid, status) in &statuses {
        ask(&mut mismatches, *tid, status);
    }
    (evidence(statuses.len()), mismatches.0)
}

pub(super) fn no_new_privs(look: &Look<'_>) -> Answer {
    let evidence = |count| format!("NoNewPrivs: 1 in {count} threads");
    each(look, evidence, |mismatches, tid, status| {
        mismatches.unless(status.no_new_privs == 1, || {
            format!("thread {tid}: NoNewPrivs is {}", status.no_new_privs)
        });
    })
}

pub(super) fn capabilities(look: &Look<'_>) -> Answer {
    const NAMES: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let evidence = |count| format!("all five sets are empty in {count} threads");
    each(look, evidence, |mismatches, tid, status| {
        for (name, set) in NAMES.iter().zip(status.capabilities) {
            mismatches.unless(set == 0, || format!("thread {tid}: {name} is {set:016x}"));
        }
    })
}

pub(super) fn uid(look: &Look<'_>) -> Answer {
    let own = look.expected.place.uid;
    if look.expected.is_service() {
        return service_user(look, own);
    }
    let evidence = |_| format!("user and group {own}, no other group");
    each(look, evidence, |mismatches, tid, status| {
        mismatches.unless(status.uids == [own; 4], || {
            format!("thread {tid}: its users are {:?}, not {own}", status.uids)
        });
        mismatches.unless(status.gids == [own; 4], || {
            format!("thread {tid}: its groups are {:?}, not {own}", status.gids)
        });
        mismatches.unless(status.groups.is_empty(), || {
            format!("thread {tid}: it is in the groups {:?}", status.groups)
        });
    })
}

/// A service manager chose the user, who is whom the keeper hears, and its groups: none is root or root's.
fn service_user(look: &Look<'_>, own: u32) -> Answer {
    let evidence = |_| format!("user {own}, which is not root, in no group of root's");
    each(look, evidence, |mismatches, tid, status| {
        mismatches.unless(own != 0 && status.uids == [own; 4], || {
            format!("thread {tid}: its users are {:?}, not {own}", status.uids)
        });
        let mut groups = status.gids.iter().chain(&status.groups);
        mismatches.unless(groups.all(|group| *group != 0), || {
            format!("thread {tid}: it is in root's group")
        });
    })
}

/// Files of a process that leaves no core belong to root: nobody else may trace it or read its memory.
pub(super) fn not_dumpable(look: &Look<'_>) -> Answer {
    let (owner, cores) = match (&look.facts.owner, &look.facts.coredump_filter) {
        (Ok(owner), Ok(cores)) => (*owner, cores.unwrap_or(0)),
        (Err(fact), _) | (_, Err(fact)) => return unread(fact),
    };
    let mut mismatches = Mismatches::default();
    mismatches.unless(owner == 0, || {
        format!("its files below /proc belong to user {owner}: it can be traced and leaves cores")
    });
    mismatches.unless(cores == 0, || {
        format!("a core would hold mappings of the kinds {cores:#x}")
    });
    let cores = match look.facts.coredump_filter {
        Ok(None) => "this kernel writes no cores",
        _ => "a core would hold nothing",
    };
    let evidence = format!("its files below /proc are root's, and {cores}");
    (evidence, mismatches.0)
}

/// Whose child it is, and that nobody traces it but the reader, for whom it stands still.
pub(super) fn relations(look: &Look<'_>) -> Answer {
    let meant = look.expected.place.parent;
    let evidence = |_| match meant {
        Some(parent) => format!("child of {parent}, traced by nobody else"),
        None => "traced by nobody else".to_owned(),
    };
    each(look, evidence, |mismatches, tid, status| {
        if let Some(parent) = meant {
            mismatches.unless(status.parent == parent, || {
                let own = status.parent;
                format!("thread {tid}: its parent is {own}, not {parent}")
            });
        }
        mismatches.unless([0, look.reader].contains(&status.tracer), || {
            format!("thread {tid}: process {} traces it", status.tracer)
        });
    })
}
