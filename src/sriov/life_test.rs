use std::fmt::Write as _;

use super::life::{Event, Forbidden, VfState, next};

fn table() -> String {
    let mut text = String::new();
    for state in VfState::ALL {
        for event in Event::ALL {
            let after = match next(state, event) {
                Ok(after) => after.to_string(),
                Err(Forbidden { .. }) => continue,
            };
            let (state, event) = (state.to_string(), format!("{event:?}"));
            writeln!(text, "{state:<12} {event:<12} {after}").unwrap();
        }
    }
    text
}

/// What is not in the table is forbidden. A change of it is a line in a diff.
#[test]
fn the_life_of_a_vf_is_the_golden_one() {
    let golden = "\
absent       Created      created
absent       Gone         absent
created      ResetSeen    clean
created      Failed       quarantined
created      Gone         absent
clean        ResetSeen    clean
clean        Leased       leased
clean        Failed       quarantined
clean        Gone         absent
leased       Leased       leased
leased       Bound        in use
leased       Ended        dirty
leased       Failed       quarantined
leased       Gone         absent
in use       Ended        dirty
in use       Failed       quarantined
in use       Gone         absent
dirty        Ended        dirty
dirty        RestedDirty  sanitising
dirty        Rested       clean
dirty        RestedKept   leased
dirty        Failed       quarantined
dirty        Gone         absent
sanitising   Ended        sanitising
sanitising   RestedDirty  sanitising
sanitising   Erased       clean
sanitising   Failed       quarantined
sanitising   Gone         absent
quarantined  Failed       quarantined
quarantined  Freed        created
quarantined  Gone         absent
";
    assert_eq!(table(), golden, "\n{}", table());
}

#[test]
fn what_a_guest_had_is_leased_again_only_by_way_of_a_reset_or_by_its_keeper() {
    // From each state, every sequence of events without one that reads a reset back.
    let is_proof = |event| {
        matches!(
            event,
            Event::ResetSeen
                | Event::Rested
                | Event::RestedKept
                | Event::RestedDirty
                | Event::Erased
        )
    };
    let mut seen = vec![VfState::Dirty];
    let mut at = 0;
    while let Some(state) = seen.get(at).copied() {
        at += 1;
        for event in Event::ALL.into_iter().filter(|event| !is_proof(*event)) {
            if let Ok(after) = next(state, event)
                && !seen.contains(&after)
            {
                seen.push(after);
            }
        }
    }
    for unclean in [VfState::Clean, VfState::Leased, VfState::InUse] {
        assert!(
            !seen.contains(&unclean),
            "{unclean} without a reset: {seen:?}"
        );
    }
}

#[test]
fn nobody_leases_what_is_not_clean_or_its_own() {
    for state in VfState::ALL {
        let leased = next(state, Event::Leased).is_ok();
        assert_eq!(
            leased,
            matches!(state, VfState::Clean | VfState::Leased),
            "{state}"
        );
    }
}
