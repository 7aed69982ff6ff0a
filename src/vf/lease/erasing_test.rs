//! Namespaces: what is on them, how they lie, and who may have them.

use super::{model_test::*, *};
use crate::{
    error::ErrorId,
    spec::host::Eraser,
    sriov::{Anchor, Event, LeasedNamespace, NamespaceState, PfRecords, VfState, to_leased},
    state::State,
};

/// A guest with a namespace that it gives another format.
fn reformatting(machine: &mut Machine, state: &State, terms: &LeaseTerms) {
    claim(state, "web", &holder(), terms).unwrap();
    take(machine, state, "web", terms).unwrap();
    bound(state, terms).unwrap();
    machine.nvme(|nvme| {
        let namespace = nvme.namespaces.get_mut(&2).unwrap();
        (namespace.size, namespace.block) = (15 << 20, 4096);
    });
}

#[test]
fn a_format_that_the_guest_has_changed_is_restored_whatever_is_erased() {
    for erase in [
        Eraser::Auto,
        Eraser::Format,
        Eraser::Overwrite,
        Eraser::None,
    ] {
        let (_folder, state) = Folder::new("format");
        let mut machine = Machine::new();
        let terms = LeaseTerms {
            erase,
            ..disk_terms()
        };
        reformatting(&mut machine, &state, &terms);
        let evidence = give(&mut machine, &state, &terms);
        assert_eq!(evidence, Vec::<String>::new(), "{erase:?}");
        let is = machine.nvme(|nvme| nvme.namespaces[&2].format());
        assert_eq!(is, terms.namespaces[0].format, "{erase:?}");
        assert_eq!(record(&state, &terms), (VfState::Clean, None));
        assert_eq!(machine.attached(2), Vec::<u16>::new());
    }
}

#[test]
fn a_format_that_cannot_be_restored_is_evidence() {
    for (can_format, ignores, says) in [
        (false, false, "nothing restores"),
        (true, true, "should have 16777216 bytes in blocks of 512"),
    ] {
        let (_folder, state) = Folder::new("unformatted");
        let mut machine = Machine::new();
        let terms = disk_terms();
        reformatting(&mut machine, &state, &terms);
        machine.nvme(|nvme| nvme.can.format = can_format);
        machine.ignores = ignores.then_some(|step| matches!(step, Step::Erase { .. }));
        let evidence = give(&mut machine, &state, &terms);
        assert!(evidence[0].contains(says), "{evidence:?}");
        assert!(evidence[0].contains("in blocks of 4096"), "{evidence:?}");
        assert_eq!(of_namespace(&state), NamespaceState::Sanitising);
    }
}

#[test]
fn a_namespace_in_another_format_than_declared_goes_to_no_guest() {
    let (_folder, state) = Folder::new("declared");
    let mut machine = Machine::new();
    let terms = disk_terms();
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().block = 4096);
    claim(&state, "web", &holder(), &terms).unwrap();
    let report = take(&mut machine, &state, "web", &terms).unwrap_err();
    assert!(report.why[0].contains("in blocks of 4096"), "{report:?}");
    // It was another's format also for one who is to keep it; what he has made of it later he has again.
    let kept = LeaseTerms {
        keep: true,
        ..terms
    };
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().block = 512);
    assert_eq!(
        give(&mut machine, &state, &disk_terms()),
        Vec::<String>::new()
    );
    assert_eq!(run(&mut machine, &state, &kept), Vec::<String>::new());
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().block = 4096);
    claim(&state, "web", &holder(), &kept).unwrap();
    take(&mut machine, &state, "web", &kept).unwrap();
}

#[test]
fn a_namespace_whose_erase_fails_or_was_cut_off_is_not_left_to_the_host() {
    let (_folder, state) = Folder::new("half-erased");
    let mut machine = Machine::new();
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    machine.fails = Some(|step| matches!(step, Step::Erase { .. }));
    let evidence = give(&mut machine, &state, &terms);
    assert!(evidence[0].contains("not erased"), "{evidence:?}");
    assert_eq!(machine.attached(2), Vec::<u16>::new());
    // Killed in the middle of it: the primary controller has it.
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().attached = [0].into());
    machine.fails = None;
    let kept = LeaseTerms {
        erase: Eraser::None,
        ..terms
    };
    assert_eq!(give(&mut machine, &state, &kept), Vec::<String>::new());
    assert_eq!(machine.attached(2), Vec::<u16>::new());
    assert_eq!(record(&state, &kept), (VfState::Clean, None));
}

#[test]
fn a_dirty_namespace_goes_to_nobody_not_even_to_one_of_its_last_guests_name() {
    let (_folder, state) = Folder::new("foreign-data");
    dirty(&state, 2, Some("db"));
    for guest in ["web", "db"] {
        let report = claim(&state, guest, &holder(), &disk_terms()).unwrap_err();
        assert_eq!(report.id, ErrorId::RecoverNeeded);
        assert!(report.why[0].contains("db"), "{report:?}");
    }
}

#[test]
fn a_dirty_namespace_that_is_nobodys_is_erased_by_its_record() {
    let (_folder, state) = Folder::new("ownerless");
    let mut machine = Machine::new();
    machine.observed.borrow_mut().boot = "boot".to_owned();
    dirty(&state, 2, None);
    machine.nvme(|nvme| nvme.namespaces.get_mut(&1).unwrap().attached.clear());
    let kept = LeaseTerms {
        namespaces: vec![LeasedNamespace {
            nsid: 1,
            ..disk_terms().namespaces[0].clone()
        }],
        keep: true,
        ..disk_terms()
    };
    assert_eq!(run(&mut machine, &state, &kept), Vec::<String>::new());
    let told = erase_ownerless(&mut machine, &state, true, &mut |_| {}).unwrap();
    assert_eq!((told.0.len(), machine.erased.borrow().len()), (1, 0));
    let (steps, left) = erase_ownerless(&mut machine, &state, false, &mut |_| {}).unwrap();
    assert_eq!((steps, left), (told.0, Vec::new()));
    assert_eq!(*machine.erased.borrow(), [2], "and not what a guest keeps");
    let again = erase_ownerless(&mut machine, &state, false, &mut |_| {}).unwrap();
    assert_eq!(again, (Vec::new(), Vec::new()));
    assert_eq!(of_namespace(&state), NamespaceState::Clean);
}

#[test]
fn what_is_on_a_namespace_of_another_stays_dirty_when_a_vf_is_returned() {
    let (_folder, state) = Folder::new("anothers");
    let mut machine = Machine::new();
    let terms = LeaseTerms {
        keep: true,
        ..disk_terms()
    };
    assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
    dirty(&state, 1, Some("db"));
    let returned = return_lease(&mut machine, &state, terms.vf, &mut |_| {});
    assert_eq!(returned, Ok("web".to_owned()));
    assert_eq!(*machine.erased.borrow(), [2], "what the lease has");
    let records = records(&mut machine, &state, "boot");
    let one = &records.pfs[&disk()].namespaces[&1];
    assert_eq!(one.state, NamespaceState::Dirty);
}

#[test]
fn what_one_has_alone_is_not_shared_and_what_was_shared_is_not_one_s_alone() {
    let (_folder, state) = Folder::new("shared");
    let mut machine = Machine::new();
    machine.observed.borrow_mut().boot = "boot".to_owned();
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().is_shared = true);
    let of = |index: u32, is_shared| {
        let mut terms = disk_terms();
        terms.namespaces[0].is_shared = is_shared;
        if index > 0 {
            (terms.vf, terms.index, terms.cntlid) = (bdf("0000:02:00.2"), index, Some(2));
        }
        terms
    };
    let second = |records: &mut PfRecords| {
        records.step(1, bdf("0000:02:00.2"), Event::Created, "t")?;
        records.step(1, bdf("0000:02:00.2"), Event::ResetSeen, "t")
    };
    let (pf, anchor) = (disk(), Anchor::Slot(disk()));
    state.change_pf(pf, &anchor, second).unwrap();
    claim(&state, "web", &holder(), &of(0, false)).unwrap();
    take(&mut machine, &state, "web", &of(0, false)).unwrap();
    let refused = claim(&state, "db", &holder(), &of(1, true)).unwrap_err();
    assert_eq!(refused.id, ErrorId::LeaseForeign);
    assert_eq!(
        give(&mut machine, &state, &of(0, false)),
        Vec::<String>::new()
    );
    // Both share it, and leave it: it is nobody's to erase, and nobody's alone.
    claim(&state, "web", &holder(), &of(0, true)).unwrap();
    take(&mut machine, &state, "web", &of(0, true)).unwrap();
    check_free(&state, "db", "boot", &of(1, true)).unwrap();
    let refused = check_free(&state, "db", "boot", &of(1, false)).unwrap_err();
    assert_eq!(refused.id, ErrorId::LeaseForeign);
    assert_eq!(
        give(&mut machine, &state, &of(0, true)),
        Vec::<String>::new()
    );
    let erased = machine.erased.borrow().len();
    let left = erase_ownerless(&mut machine, &state, false, &mut |_| {}).unwrap();
    assert_eq!(
        (left, machine.erased.borrow().len()),
        ((vec![], vec![]), erased)
    );
    check_free(&state, "db", "boot", &of(1, true)).unwrap();
    let refused = check_free(&state, "db", "boot", &of(1, false)).unwrap_err();
    assert_eq!(refused.id, ErrorId::RecoverNeeded);
}

#[test]
fn what_is_nobodys_is_not_taken_from_a_controller_that_runs() {
    let (_folder, state) = Folder::new("busy");
    let mut machine = Machine::new();
    machine.observed.borrow_mut().boot = "boot".to_owned();
    dirty(&state, 1, None);
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    machine.nvme(|nvme| nvme.namespaces.get_mut(&1).unwrap().attached = [1].into());
    let (_, left) = erase_ownerless(&mut machine, &state, false, &mut |_| {}).unwrap();
    assert!(left[0].why[0].contains("controller 1"), "{left:?}");
    assert!(machine.erased.borrow().is_empty());
}

#[test]
fn a_namespace_that_was_attached_before_is_erased_too() {
    let (_folder, state) = Folder::new("attached");
    let mut machine = Machine::new();
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().attached = [1].into());
    assert_eq!(
        run(&mut machine, &state, &disk_terms()),
        Vec::<String>::new()
    );
    assert_eq!(*machine.erased.borrow(), [2]);
}

#[test]
fn a_namespace_that_another_controller_has_is_leased_only_as_shared() {
    let mut machine = Machine::new();
    machine.nvme(|nvme| {
        let namespace = nvme.namespaces.get_mut(&2).unwrap();
        (namespace.is_shared, namespace.attached) = (true, [5].into());
    });
    let mut terms = disk_terms();
    let why = to_leased(&terms, &machine.observe().unwrap()).unwrap_err();
    assert!(why.contains("controller 5"), "{why}");
    terms.namespaces[0].is_shared = true;
    assert!(to_leased(&terms, &machine.observe().unwrap()).is_ok());
}

#[test]
fn a_format_with_metadata_is_another_format() {
    let (_folder, state) = Folder::new("metadata");
    let mut machine = Machine::new();
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().metadata = 8);
    let none = LeaseTerms {
        erase: Eraser::None,
        ..terms.clone()
    };
    assert_eq!(give(&mut machine, &state, &none), Vec::<String>::new());
    assert_eq!(*machine.erased.borrow(), [2]);
    let is = machine.nvme(|nvme| nvme.namespaces[&2].format());
    assert_eq!(is, terms.namespaces[0].format);
}

#[test]
fn a_namespace_that_is_gone_keeps_nobody_from_its_vf() {
    let (_folder, state) = Folder::new("deleted");
    let mut machine = Machine::new();
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    machine.nvme(|nvme| nvme.namespaces.remove(&2));
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
}
