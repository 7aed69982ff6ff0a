//! Leases that outlive a run, a VF or a boot.

use super::{model_test::*, *};
use crate::{
    error::ErrorId,
    sriov::{Event, Holder, PfRecords, VfState},
    vf::recover::unfinished,
};

#[test]
fn a_kept_lease_erases_nothing_and_is_nobody_elses() {
    let (_folder, state) = Folder::new("kept");
    let mut machine = Machine::new();
    let terms = LeaseTerms {
        keep: true,
        ..disk_terms()
    };
    assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
    assert!(machine.erased.borrow().is_empty());
    assert_eq!(
        record(&state, &terms),
        (VfState::Leased, Some("web".to_owned()))
    );
    let other = claim(&state, "db", &holder(), &terms).unwrap_err();
    assert_eq!(other.id, ErrorId::LeaseForeign);
    assert!(other.what.contains("web"), "{other:?}");
    assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
    let returned = return_lease(&mut machine, &state, terms.vf, &mut |_| {});
    assert_eq!(returned, Ok("web".to_owned()));
    assert_eq!(*machine.erased.borrow(), [2]);
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
}

/// A guest that has kept its data is started to keep it no more, and does not come so far as to run.
#[test]
fn a_start_that_fails_costs_a_guest_nothing_that_it_keeps() {
    let (_folder, state) = Folder::new("failed-start");
    let mut machine = Machine::new();
    let kept = LeaseTerms {
        keep: true,
        ..disk_terms()
    };
    assert_eq!(run(&mut machine, &state, &kept), Vec::<String>::new());
    // It has formatted what it keeps.
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().block = 4096);
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert!(machine.erased.borrow().is_empty());
    assert_eq!(
        record(&state, &terms),
        (VfState::Leased, Some("web".to_owned()))
    );
    // Once it has run it is as it wished.
    assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(*machine.erased.borrow(), [2]);
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
}

/// The power is cut while the guest runs, and the next boot's apply makes the VFs again before anybody recovers.
#[test]
fn what_is_owed_to_the_next_guest_outlives_an_apply_after_a_reboot() {
    let (_folder, state) = Folder::new("owed");
    let mut machine = Machine::new();
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    let remade = |records: &mut PfRecords| {
        records.enter("next", true, "t");
        for event in [Event::Gone, Event::Created, Event::ResetSeen] {
            records.step(0, terms.vf, event, "t")?;
        }
        Ok(())
    };
    state.change_pf(disk(), &terms.anchor, remade).unwrap();
    assert_eq!(
        record(&state, &terms),
        (VfState::Clean, Some("web".to_owned()))
    );
    let later = Holder {
        boot: "next".to_owned(),
        ..holder()
    };
    for guest in ["web", "db"] {
        claim(&state, guest, &later, &terms).unwrap_err();
    }
    machine.observed.borrow_mut().boot = "next".to_owned();
    let found = unfinished(&records(&mut machine, &state, "next"), &|_| false);
    let evidence = finish(&mut machine, &state, &found[0], true, &mut |_| {}).unwrap();
    assert_eq!(evidence, Vec::<String>::new());
    assert_eq!(*machine.erased.borrow(), [2]);
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
    assert_eq!(
        unfinished(&records(&mut machine, &state, "next"), &|_| false),
        []
    );
}

#[test]
fn a_kept_lease_is_returned_in_whichever_state_another_boot_has_left_its_vf() {
    let created = [Event::Created].as_slice();
    let clean = [Event::Created, Event::ResetSeen].as_slice();
    let failed = [Event::Created, Event::Failed].as_slice();
    for events in [&[], created, clean, failed] {
        let (_folder, state) = Folder::new("kept-boot");
        let mut machine = Machine::new();
        machine.observed.borrow_mut().boot = "next".to_owned();
        let terms = LeaseTerms {
            keep: true,
            ..disk_terms()
        };
        assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
        let remade = |records: &mut PfRecords| {
            records.enter("next", true, "t");
            for event in events {
                records.step(0, terms.vf, *event, "t")?;
            }
            Ok(())
        };
        state.change_pf(disk(), &terms.anchor, remade).unwrap();
        let returned = return_lease(&mut machine, &state, terms.vf, &mut |_| {});
        assert_eq!(returned, Ok("web".to_owned()), "{events:?}");
        assert_eq!(*machine.erased.borrow(), [2], "{events:?}");
        assert_eq!(record(&state, &terms), (VfState::Clean, None), "{events:?}");
    }
}

/// The record says that it ends before anything is done for that.
#[test]
fn the_return_of_a_kept_lease_that_was_cut_off_is_finished() {
    let (_folder, state) = Folder::new("cut-return");
    let mut machine = Machine::new();
    machine.observed.borrow_mut().boot = "boot".to_owned();
    let terms = LeaseTerms {
        keep: true,
        ..disk_terms()
    };
    assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
    machine.fails = Some(|step| matches!(step, Step::Erase { .. }));
    return_lease(&mut machine, &state, terms.vf, &mut |_| {}).unwrap_err();
    machine.fails = None;
    let found = unfinished(&records(&mut machine, &state, "boot"), &|_| false);
    let evidence = finish(&mut machine, &state, &found[0], true, &mut |_| {}).unwrap();
    assert_eq!(evidence, Vec::<String>::new());
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
}

#[test]
fn a_kept_vf_with_other_namespaces_than_its_guest_keeps_is_not_leased() {
    let (_folder, state) = Folder::new("moved");
    let mut machine = Machine::new();
    let terms = LeaseTerms {
        keep: true,
        ..disk_terms()
    };
    assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
    let mut moved = terms.clone();
    moved.namespaces[0].nsid = 1;
    let refused = claim(&state, "web", &holder(), &moved).unwrap_err();
    assert_eq!(refused.id, ErrorId::LeaseForeign);
    assert!(refused.why[0].contains("namespace 2"), "{refused:?}");
}

#[test]
fn after_a_reboot_namespaces_are_erased_and_leases_end_unless_they_are_kept() {
    let (_folder, state) = Folder::new("boot");
    for (terms, is_erased) in [
        (disk_terms(), true),
        (
            LeaseTerms {
                keep: true,
                ..disk_terms()
            },
            false,
        ),
    ] {
        let mut machine = Machine::new();
        claim(&state, "web", &holder(), &terms).unwrap();
        take(&mut machine, &state, "web", &terms).unwrap();
        bound(&state, &terms).unwrap();
        // The power is cut: no VF, and the drive has kept what was attached.
        machine
            .observed
            .borrow_mut()
            .pfs
            .get_mut(&disk())
            .unwrap()
            .vfs
            .clear();
        let again = |machine: &mut Machine| {
            give_back_gone(machine, &state, "web", "next", &terms, &mut |_| {})
        };
        assert_eq!(again(&mut machine), Vec::<String>::new());
        assert_eq!(
            *machine.erased.borrow(),
            if is_erased { vec![2] } else { vec![] }
        );
        let lease = (!is_erased).then(|| "web".to_owned());
        assert_eq!(record(&state, &terms), (VfState::Absent, lease));
        assert_eq!(again(&mut machine), Vec::<String>::new(), "twice");
        assert!(machine.erased.borrow().len() <= 1);
        let clean = |records: &mut PfRecords| {
            "boot".clone_into(&mut records.boot);
            records.vfs.get_mut(&0).unwrap().state = VfState::Clean;
            Ok(())
        };
        state.change_pf(terms.pf, &terms.anchor, clean).unwrap();
    }
}
