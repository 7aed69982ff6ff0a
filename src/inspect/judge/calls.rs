//! What calls a process can make, and with whom it shares a core.

use std::collections::BTreeSet;

use super::{Answer, FILTER_READABLE, Look, Mismatches, unread};
use crate::inspect::{
    compare::{Agreement, Comparison, compare},
    expected::{Expected, Programs},
    facts::Known,
    filter::Live,
    names,
};

/// Every thread is under the same filters: instruction by instruction the ones that were meant.
pub(super) fn filters(look: &Look<'_>) -> Answer {
    let threads = match &look.facts.threads {
        Ok(threads) => threads,
        Err(fact) => return unread(fact),
    };
    let (meant, is_exact) = match &look.expected.filters {
        Programs::Exactly(meant) => (meant.as_slice(), true),
        Programs::NoMore => (&[] as &[_], false),
    };
    let count = meant.len();
    // A service manager's stand below the one of the program itself.
    let is_count = |filters: usize| match is_exact {
        true => filters == count,
        false => filters >= 1,
    };
    let wanted = match is_exact {
        true => count.to_string(),
        false => "at least one".to_owned(),
    };
    let mut mismatches = Mismatches::default();
    for thread in threads {
        match &thread.status {
            Ok(status) => {
                mismatches.unless(status.seccomp == 2, || {
                    format!("thread {}: Seccomp is {}", thread.tid, status.seccomp)
                });
                // Also where the filters themselves cannot be read: the first alone would allow what building needs.
                if let Some(filters) = status.filters {
                    mismatches.unless(usize::try_from(filters).is_ok_and(is_count), || {
                        format!("thread {}: {filters} filters, not {wanted}", thread.tid)
                    });
                }
            }
            Err(fact) => mismatches.0.extend(unread(fact).1),
        }
    }
    let live = match &look.live.filters {
        Ok(live) => live,
        // That they are on is known all the same; what they say is another topic.
        Err(_) if look.expected.place.layers_absent & FILTER_READABLE != 0 => {
            let evidence = "Seccomp: 2 in every thread; this kernel gives no filter to be read";
            return (evidence.to_owned(), mismatches.0);
        }
        Err(fact) => return unread(fact),
    };
    mismatches.unless(!live.is_empty(), || "it has no thread".to_owned());
    for own in live {
        let tid = own.tid;
        let filters = own.filters.len();
        mismatches.unless(is_count(filters), || {
            format!("thread {tid}: it has {filters} filters, not {wanted}")
        });
        for (index, (own, meant)) in own.filters.iter().zip(meant).enumerate() {
            if own == meant {
                continue;
            }
            let same = own.iter().zip(meant).take_while(|(a, b)| a == b).count();
            mismatches.0.push(format!(
                "thread {tid}: filter {index} is another one from instruction {same} of {} on",
                own.len()
            ));
        }
    }
    let lengths: Vec<String> = meant.iter().map(|f| f.len().to_string()).collect();
    let evidence = match is_exact {
        false => {
            let filters = live.iter().map(|own| own.filters.len().to_string());
            let filters: Vec<String> = filters.collect();
            format!(
                "{} filters, of a service manager and its own: they are no program that is known here",
                filters.join(", ")
            )
        }
        true => format!(
            "{} threads, each under the filters of this build: {} instructions",
            live.len(),
            lengths.join(" and ")
        ),
    };
    (evidence, mismatches.0)
}

/// What the filters do is what the rules say, whatever they are made of.
pub(super) fn system_calls(look: &Look<'_>) -> Answer {
    let comparisons = match look.comparisons {
        Ok(comparisons) => comparisons,
        Err(fact) => return unread(fact),
    };
    let (mut mismatches, mut tried) = (Vec::new(), 0);
    for (tid, comparison) in comparisons {
        tried += comparison.tried;
        let told = comparison.differences.iter();
        mismatches.extend(told.map(|said| format!("thread {tid}: {said}")));
        let more = comparison.different - comparison.differences.len();
        if more > 0 {
            mismatches.push(format!("thread {tid}: and {more} calls more"));
        }
    }
    let names: Vec<String> = reachable(comparisons)
        .into_iter()
        .map(names::call)
        .collect();
    let how = match look.expected.filters {
        Programs::Exactly(_) => "",
        Programs::NoMore => ", compared by call and not by argument",
    };
    let evidence = format!(
        "{} system calls can be made{how}: {}; {tried} calls were tried",
        names.len(),
        names.join(", ")
    );
    (evidence, mismatches)
}

/// The numbers of the calls that some thread can make.
pub(in crate::inspect) fn reachable(comparisons: &[(u32, Comparison)]) -> Vec<u32> {
    let all = comparisons.iter().flat_map(|(_, c)| &c.reachable);
    let all: BTreeSet<u32> = all.copied().collect();
    all.into_iter().collect()
}

/// Each different stack of filters, with one of the threads that have it, held against the rules.
pub(in crate::inspect) fn comparisons(
    live: &Live,
    expected: &Expected,
) -> Known<Vec<(u32, Comparison)>> {
    let live = live.filters.as_ref().map_err(Clone::clone)?;
    let mut seen: Vec<&Vec<_>> = Vec::new();
    let mut comparisons = Vec::new();
    for thread in live {
        if !seen.contains(&&thread.filters) {
            seen.push(&thread.filters);
            let agreement = match expected.filters {
                Programs::Exactly(_) => Agreement::Exact,
                Programs::NoMore => Agreement::NoMore,
            };
            let (rules, behind) = (&expected.rules, expected.behind);
            let compared = compare(&thread.filters, rules, behind, agreement);
            comparisons.push((thread.tid, compared));
        }
    }
    Ok(comparisons)
}

/// V and D of one guest share a cookie that is not zero; nothing is needed where no core is shared.
pub(super) fn core_scheduling(look: &Look<'_>) -> Answer {
    let own = match &look.live.cookie {
        Ok(own) => own,
        Err(fact) => return unread(fact),
    };
    let Some(own) = own else {
        return (
            "no two threads share a core on this host".to_owned(),
            Vec::new(),
        );
    };
    let mut mismatches = Mismatches::default();
    mismatches.unless(*own != 0, || "it shares cores with everybody".to_owned());
    match look.partner_cookie {
        None => {}
        Some(Ok(theirs)) => mismatches.unless(*theirs == Some(*own), || {
            "V and D do not have the same cookie".to_owned()
        }),
        Some(Err(fact)) => mismatches.0.extend(unread(fact).1),
    }
    (
        format!("cookie {own:#x}, of this guest alone"),
        mismatches.0,
    )
}
