use super::{
    attempt::attempt,
    record::{Left, OFFSET, Record, Tried},
    table::{PROBES, find},
    tries::Tries,
    words,
};
use crate::{
    handoff::Handoff,
    manifest::{
        Role,
        start_page::{BYTES, WINDOW},
    },
};

fn asked(words: &str) -> Handoff {
    let mut handoff = Handoff::empty();
    handoff.cmdline[..words.len()].copy_from_slice(words.as_bytes());
    handoff.cmdline_len = u32::try_from(words.len()).unwrap();
    handoff
}

#[test]
fn each_process_finds_its_own_probe_and_where_to_go_on() {
    let handoff = asked("console=ttyS0 narrows.probe=v:C04#12 narrows.probe=d:A22");
    assert_eq!(words::probe(&handoff, Role::Vcpu), Some(("C04", 12)));
    assert_eq!(words::probe(&handoff, Role::Device), Some(("A22", 0)));
    let none = asked("console=ttyS0 xnarrows.probe=v:C04 narrows.probe=v");
    assert_eq!(words::probe(&none, Role::Vcpu), None);
    assert_eq!(
        words::probe(&asked("narrows.probe=v:C04#x"), Role::Vcpu),
        None
    );
}

#[test]
fn a_layer_is_left_away_by_its_whole_name_only() {
    let handoff = asked("narrows.ablate=mseal,mdwe narrows.ablate=landlock");
    for layer in ["mseal", "mdwe", "landlock"] {
        assert!(words::is_ablated(&handoff, layer), "{layer}");
    }
    for layer in ["seccomp", "mse", ""] {
        assert!(!words::is_ablated(&handoff, layer), "{layer}");
    }
}

#[test]
fn every_probe_has_an_id_of_its_own_and_a_process() {
    for probe in PROBES {
        assert!(!probe.roles.is_empty(), "{}", probe.id);
        for role in probe.roles {
            assert_eq!(find(probe.id, *role).unwrap().title, probe.title);
        }
    }
    assert!(find("C06", Role::Vcpu).is_none());
    assert!(PROBES.is_sorted_by_key(|probe| probe.id));
}

/// A signal that no row names is a crash: a row is for the tries it says, and says why.
#[test]
fn a_signal_answers_only_the_tries_that_its_row_names() {
    const SIGILL: i32 = 4;
    const SIGSEGV: i32 = 11;
    for ended in PROBES.iter().flat_map(|probe| probe.signals) {
        assert!(!ended.reason.is_empty() && ended.tries.0 <= ended.tries.1);
    }
    let sweep = find("B01", Role::Vcpu).unwrap();
    assert!(sweep.reason_of(335, SIGILL).is_some());
    assert_eq!(sweep.reason_of(334, SIGILL), None);
    assert_eq!(sweep.reason_of(336, SIGILL), None);
    assert_eq!(sweep.reason_of(335, SIGSEGV), None);
    assert_eq!(find("C20", Role::Vcpu).unwrap().reason_of(0, SIGSEGV), None);
}

/// One test for all that writes: the record lies at a fixed address.
#[test]
fn record_tells_what_came_of_each_try_and_which_was_not_answered() {
    const FIXED_PRIVATE_ANONYMOUS: usize = 0x10_0022;
    let window = usize::try_from(WINDOW).unwrap();
    let args = [window, BYTES, 3, FIXED_PRIVATE_ANONYMOUS, usize::MAX, 0];
    assert_eq!(attempt(super::calls::MMAP, args), Ok(window));
    let left = || -> Vec<u8> {
        (OFFSET..BYTES)
            .map(|at| {
                super::attempt::byte_at(window + at).load(core::sync::atomic::Ordering::SeqCst)
            })
            .collect()
    };
    let bytes = left();
    assert!(!Left::new(&bytes).unwrap().has_begun());

    let handoff = asked("");
    Record.begin();
    let mut tries = Tries::new(&handoff, Role::Vcpu, Record, 1);
    tries.one(|| panic!("made before"));
    tries.one(|| Tried::Reached);
    tries.one(|| Tried::Blocked(13));
    tries.one(|| Tried::Absent);
    tries.call(super::calls::CLOSE, [usize::MAX, 0, 0, 0, 0, 0]);
    Record.start(5);
    let bytes = left();
    let seen = Left::new(&bytes).unwrap();
    assert!(seen.has_begun() && !seen.is_done());
    assert_eq!(seen.pending(), Some(5));
    let answers = [
        (1, Tried::Reached),
        (2, Tried::Blocked(13)),
        (3, Tried::Absent),
        (4, Tried::Blocked(9)),
    ];
    assert_eq!(seen.answered().collect::<Vec<_>>(), answers);

    let one_only = asked("narrows.tries=first");
    let mut tries = Tries::new(&one_only, Role::Vcpu, Record, 7);
    for _ in 0..7 {
        tries.one(|| panic!("made before"));
    }
    tries.one(|| Tried::Reached);
    tries.one(|| panic!("one is enough"));
    Record.done();
    let bytes = left();
    assert!(Left::new(&bytes).unwrap().is_done());
    assert!(Left::new(&bytes[..100]).is_none());
}
