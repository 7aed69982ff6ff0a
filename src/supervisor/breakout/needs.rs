//! What a probe needs of the harness: the environments it is tried in, and devices that are reset behind it.

use jailed::breakout::{
    record::Left,
    table::{Leaves, Probe},
};

use super::{environment::Environment, outcome::End};

/// Whether a probe has a claim in an environment. An attack on the other process meets that one's own checks and no layer:
/// it is tried in the whole sandbox, and once more without any.
pub(super) fn is_tried_in(environment: &Environment, probe: &Probe) -> bool {
    probe.leaves != Leaves::Other || environment.is_full() || environment.is_bare()
}

/// Whether devices have to be reset after a probe: not where the filter ended it at its first call, as it mostly does in
/// the whole sandbox. A reset takes three times as long as a launch.
pub(super) fn reset(probe: &Probe, left: Option<Left<'_>>, end: End) -> bool {
    match probe.leaves {
        Leaves::Nothing => false,
        Leaves::Other => true,
        Leaves::Device => {
            let has_answers = left.is_none_or(|left| left.answered().next().is_some());
            has_answers || end != End::Signal(libc::SIGSYS)
        }
    }
}

#[cfg(test)]
mod tests {
    use jailed::breakout::{record::BYTES, table::PROBES};

    use super::*;

    fn probe(id: &str) -> &'static Probe {
        PROBES.iter().find(|probe| probe.id == id).unwrap()
    }

    #[test]
    fn devices_are_left_alone_only_where_the_filter_came_before_them() {
        const BLOCKED: u8 = 4;
        let mut bytes = vec![0; BYTES];
        // Running, two tries, the first one answered or begun.
        bytes[0] = 1;
        bytes[4] = 2;
        let filter = End::Signal(libc::SIGSYS);
        let mut needs = |first: u8, id: &str, end| {
            bytes[8] = first;
            reset(probe(id), Left::new(&bytes), end)
        };
        assert!(!needs(1, "B03", filter));
        assert!(needs(BLOCKED, "B03", filter), "one call got through");
        for end in [End::Signal(libc::SIGSEGV), End::Exited(60), End::Hung] {
            assert!(needs(1, "B03", end), "{end:?}");
        }
        assert!(!needs(BLOCKED, "A01", End::Exited(60)), "it has no device");
        assert!(needs(1, "C20", filter), "the other works");
        assert!(reset(probe("B03"), None, filter), "nothing tells");
    }

    #[test]
    fn all_but_attacks_on_the_other_are_tried_everywhere() {
        for one in Environment::all() {
            assert!(is_tried_in(&one, probe("B03")));
            let is_tried = is_tried_in(&one, probe("C20"));
            assert_eq!(is_tried, ["full", "none"].contains(&one.name.as_str()));
        }
    }
}
