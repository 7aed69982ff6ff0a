//! A lease from the claim to the return.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Barrier,
    thread,
};

use super::{model_test::*, *};
use crate::{
    error::ErrorId,
    sriov::{AttributeValue, Holder, NamespaceState, Seen, Unread, VfState},
    state::{Identity, Record},
    vf::finish_leases,
};

#[test]
fn a_vf_is_as_leased_while_a_guest_has_it_and_at_rest_afterwards() {
    let (_folder, state) = Folder::new("life");
    let mut machine = Machine::new();
    let terms = nic_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    assert_eq!(
        record(&state, &terms),
        (VfState::Leased, Some("web".to_owned()))
    );
    take(&mut machine, &state, "web", &terms).unwrap();
    assert_eq!(machine.vf(), leased());
    assert_eq!(machine.asked.get(), 2, "what is so already is not set");
    bound(&state, &terms).unwrap();
    assert_eq!(record(&state, &terms).0, VfState::InUse);
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(machine.vf(), rest());
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(machine.asked.get(), 4, "the second return does nothing");
}

#[test]
fn a_namespace_is_attached_for_the_guest_and_erased_after_it() {
    let (_folder, state) = Folder::new("nvme");
    let mut machine = Machine::new();
    let terms = disk_terms();
    // The primary controller was reset, and somebody left a foreign namespace attached.
    machine.nvme(|nvme| {
        (
            nvme.secondaries[0].is_online,
            nvme.secondaries[0].queues,
            nvme.secondaries[0].vectors,
        ) = (false, 0, 0);
        nvme.namespaces.get_mut(&1).unwrap().attached = [1].into();
    });
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    assert_eq!(
        (machine.attached(1), machine.attached(2)),
        (vec![], vec![1])
    );
    let secondary = machine.nvme(|nvme| nvme.secondaries[0]);
    assert!(secondary.is_online && (secondary.queues, secondary.vectors) == (3, 2));
    assert_eq!(of_namespace(&state), NamespaceState::Dirty);
    bound(&state, &terms).unwrap();
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(machine.attached(2), Vec::<u16>::new());
    assert_eq!(*machine.erased.borrow(), [2]);
    assert_eq!(of_namespace(&state), NamespaceState::Clean);
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
}

#[test]
fn a_claim_in_a_boot_that_cannot_be_told_is_refused() {
    let (_folder, state) = Folder::new("no-boot");
    let unknown = Holder {
        boot: String::new(),
        ..holder()
    };
    let terms = nic_terms();
    let report = claim(&state, "web", &unknown, &terms).unwrap_err();
    assert_eq!(report.id, ErrorId::HostUnreadable);
    let report = check_free(&state, "web", "", &terms).unwrap_err();
    assert_eq!(report.id, ErrorId::HostUnreadable);
}

#[test]
fn of_eight_claims_of_one_vf_one_succeeds_and_the_others_are_told_by_whom() {
    let (_folder, state) = Folder::new("race");
    for round in 0..20 {
        let start = Barrier::new(8);
        let claims: Vec<Result<(), Report>> = thread::scope(|scope| {
            let claim = |number: usize| {
                let (state, start) = (&state, &start);
                scope.spawn(move || {
                    start.wait();
                    claim(state, &format!("guest-{number}"), &holder(), &nic_terms())
                })
            };
            let threads: Vec<_> = (0..8).map(claim).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let winners: Vec<usize> = (0..8).filter(|number| claims[*number].is_ok()).collect();
        assert_eq!(winners.len(), 1, "round {round}");
        let winner = format!("guest-{}", winners[0]);
        for refused in claims.into_iter().filter_map(Result::err) {
            assert_eq!(refused.id, ErrorId::LeaseForeign);
            assert!(refused.what.contains(&winner), "{refused:?}");
        }
        let evidence = give_back(
            &mut Machine::new(),
            &state,
            &winner,
            &nic_terms(),
            &mut |_| {},
        );
        assert_eq!(evidence, Vec::<String>::new());
    }
}

#[test]
fn a_lease_that_was_cut_off_after_any_step_is_given_back_whole() {
    for terms in [nic_terms(), disk_terms()] {
        for at in 1.. {
            let (_folder, state) = Folder::new("cut");
            let mut machine = Machine::new();
            machine.left.set(Some(at));
            let cut = catch_unwind(AssertUnwindSafe(|| run(&mut machine, &state, &terms)));
            machine.left.set(None);
            assert_eq!(
                give(&mut machine, &state, &terms),
                Vec::<String>::new(),
                "step {at}"
            );
            assert_eq!(record(&state, &terms), (VfState::Clean, None), "step {at}");
            assert_eq!(
                (machine.vf(), machine.attached(2)),
                (rest(), vec![]),
                "step {at}"
            );
            if terms.controller.is_some() {
                assert_eq!(of_namespace(&state), NamespaceState::Clean, "step {at}");
                assert!(machine.erased.borrow().contains(&2), "step {at}");
            }
            // And it can be leased again.
            assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
            if cut.is_ok() {
                assert!(at > 4, "there are more steps than {at}");
                break;
            }
        }
    }
}

#[test]
fn a_vf_whose_reset_failed_is_not_clean_before_it_was_released_and_reset() {
    let (_folder, state) = Folder::new("quarantined");
    let mut machine = Machine::new();
    let terms = nic_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    let found = vec!["VFIO_DEVICE_RESET failed".to_owned()];
    let why = Record::new(terms.vf, Identity::default(), "not clean", found, "web");
    state.put_into_quarantine(&why).unwrap();
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(record(&state, &terms), (VfState::Quarantined, None));
    assert_eq!(
        state.mark_freed(terms.vf).unwrap(),
        Some(VfState::Created),
        "released"
    );
    state.release(terms.vf, None).unwrap();
    let refused = claim(&state, "db", &holder(), &terms).unwrap_err();
    assert_eq!(refused.id, ErrorId::PoolExhausted);
    assert_eq!(refused.fix, "narrows host apply");
    let reset = Step::Reset {
        pf: nic(),
        index: 0,
        vf: Some(terms.vf),
    };
    let observed = machine.observe().unwrap();
    let seen = Seen::Function(terms.vf);
    crate::vf::marks::after(&mut machine, &state, &observed, &reset, seen).unwrap();
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
}

#[test]
fn what_does_not_come_to_rest_is_evidence_and_stays_dirty() {
    let (_folder, state) = Folder::new("ignored");
    let mut machine = Machine::new();
    let terms = nic_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    machine.ignores = Some(|step| {
        matches!(
            step,
            Step::Attribute {
                to: AttributeValue::Vlan(_),
                ..
            }
        )
    });
    let evidence = give(&mut machine, &state, &terms);
    assert!(evidence[0].contains("not at rest"), "{evidence:?}");
    assert_eq!(
        record(&state, &terms),
        (VfState::Dirty, Some("web".to_owned()))
    );
    machine.ignores = None;
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
}

#[test]
fn a_driver_that_ignores_an_attribute_keeps_the_guest_from_starting() {
    let (_folder, state) = Folder::new("deaf");
    let mut machine = Machine::new();
    machine.ignores = Some(|step| matches!(step, Step::Attribute { .. }));
    let terms = nic_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    let report = take(&mut machine, &state, "web", &terms).unwrap_err();
    assert_eq!(report.id, ErrorId::StepNotDone);
}

#[test]
fn what_a_controller_does_not_tell_is_neither_leased_nor_at_rest() {
    let (_folder, state) = Folder::new("unread");
    let mut machine = Machine::new();
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    let one = Unread {
        place: "dev/nvme0".to_owned(),
        reason: "CNS 12h of namespace 2: 0/84".to_owned(),
        bdf: Some(disk()),
    };
    machine.observed.borrow_mut().unread.push(one);
    let evidence = give(&mut machine, &state, &terms);
    assert!(evidence[0].contains("does not tell all"), "{evidence:?}");
    assert_eq!(record(&state, &terms).0, VfState::Dirty);
    let refused = take(&mut machine, &state, "web", &terms).unwrap_err();
    assert!(refused.why[0].contains("0/84"), "{refused:?}");
    machine.observed.borrow_mut().unread.clear();
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
}

#[test]
fn an_address_that_a_guest_has_set_is_not_there_for_the_next() {
    let (_folder, state) = Folder::new("no-mac");
    let mut machine = Machine::new();
    machine.set(AttributeValue::Mac(None));
    let mut terms = LeaseTerms {
        no_mac: true,
        ..nic_terms()
    };
    (terms.rest.mac, terms.leased.mac) = (None, None);
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    let own = Some("02:de:ad:be:ef:01".parse().unwrap());
    machine.set(AttributeValue::Mac(own));
    let verified = |tenancy| {
        let observed = machine.observed.borrow().clone();
        crate::vf::verify(|| Ok(observed), [&terms], tenancy)
    };
    verified(crate::vf::Tenancy::Begins).unwrap_err();
    verified(crate::vf::Tenancy::GoesOn).unwrap();
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(machine.vf().mac, None);
    // A driver that takes no address away: it is in quarantine.
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    machine.set(AttributeValue::Mac(own));
    machine.fails = Some(|step| matches!(step, Step::Attribute { .. }));
    let evidence = give(&mut machine, &state, &terms);
    assert!(evidence[0].contains("not at rest"), "{evidence:?}");
}

/// While one recovery erases, another finishes the next VF on its list, and a guest has it since.
#[test]
fn a_recovery_finishes_nothing_that_was_given_away_since_it_looked() {
    let (_folder, state) = Folder::new("stale");
    let mut machine = Machine::new();
    machine.observed.borrow_mut().boot = "boot".to_owned();
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    let kept = LeaseTerms {
        keep: true,
        ..terms.clone()
    };
    let nic = nic_terms();
    claim(&state, "first", &holder(), &nic).unwrap();
    let mut finished = 0;
    finish_leases(&mut machine, &state, false, &mut |_, one| {
        finished += 1;
        assert_eq!(one.pf, nic.pf, "the second was finished by another");
        let mut other = Machine::new();
        other.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().attached = [1].into());
        assert_eq!(give(&mut other, &state, &terms), Vec::<String>::new());
        assert_eq!(run(&mut other, &state, &kept), Vec::<String>::new());
        Vec::new()
    })
    .unwrap();
    assert_eq!(finished, 1);
    assert_eq!(
        record(&state, &terms),
        (VfState::Leased, Some("web".to_owned()))
    );
}
