use super::{
    Job, Planned, Verb,
    apply::run,
    machine_test::{Ask, Dies, Folder, Mortal, NIC, NVME, bdf, die, ids, machine, plan},
    recover_host, unfinished,
};
use crate::{
    error::Report,
    sriov::{
        Desired, EraseHow, Event, Hands, Holder, HostPlan, KindFacts, Lease, NamespaceId, Records,
        Step, VfState, model::Machine,
    },
    state::{HostRemains, Left, State},
};

/// The journal that the dead have left: nobody's, but that of this process, which lives.
fn remains(state: &State) -> HostRemains {
    let left = state
        .left_behind(&iommu::sysfs::SysRoot::new("/nonexistent"))
        .unwrap();
    let [Left::Host(remains)] = left.as_slice() else {
        panic!("{left:?}");
    };
    remains.clone()
}

fn recover(machine: &mut Machine, state: &State) -> Vec<Report> {
    let remains = remains(state);
    let dry = recover_host(machine, state, &remains, true, &mut |_| {}).unwrap();
    let steps = machine.given;
    assert_eq!(machine.given, steps);
    assert!(dry.left.is_empty());
    loop {
        match recover_host(machine, state, &remains, false, &mut |_| {}) {
            // Another test's child may have the lock's descriptor for a moment.
            Err(report) if report.id == crate::error::ErrorId::HostBusy => {
                std::thread::yield_now();
            }
            recovered => return recovered.unwrap().left,
        }
    }
}

fn apply(machine: &mut Machine, state: &State, count: u32, generation: u8) {
    while let Err(reports) = Ask::of(count, generation).run(machine, state) {
        assert_eq!(ids(&reports), ["host-busy"].into(), "{reports:?}");
        std::thread::yield_now();
    }
}

/// Each moment at which a process can die over `steps` steps.
fn deaths(steps: usize) -> impl Iterator<Item = Dies> {
    (0..steps).flat_map(|at| [Dies::Before(at), Dies::After(at)])
}

#[test]
fn death_at_each_step_then_recover_is_the_machine_before() {
    for (from, to) in [(0, 2), (2, 3)] {
        let mut steps = 20;
        for (number, dies) in deaths(64).enumerate() {
            if number >= 2 * steps {
                break;
            }
            let folder = Folder::new(&format!("dies-{from}-{number}"));
            let (state, mut machine) = (folder.state(), machine());
            if from > 0 {
                apply(&mut machine, &state, from, 0);
            }
            steps = plan(&mut machine, &state, to, 1).steps.len();
            let before = machine.now.clone();
            assert!(die(&mut machine, &state, Ask::of(to, 1), dies), "{dies:?}");
            let reports = recover(&mut machine, &state);
            assert!(reports.is_empty(), "{dies:?}: {reports:?}");
            assert_eq!(folder.journals(), 0);
            for (pf, facts) in &before.pfs {
                let now = &machine.now.pfs[pf];
                assert_eq!(facts.vfs, now.vfs, "{dies:?}");
                assert_eq!(
                    (facts.nic(), facts.count),
                    (now.nic(), now.count),
                    "{dies:?}"
                );
                let namespaces = |facts: &crate::sriov::PfFacts| {
                    facts.nvme().map(|nvme| nvme.namespaces.clone())
                };
                assert_eq!(namespaces(facts), namespaces(now), "{dies:?}");
            }
            apply(&mut machine, &state, to, 1);
            assert!(plan(&mut machine, &state, to, 1).steps.is_empty());
        }
    }
}

#[test]
fn half_done_apply_keeps_others_from_beginning() {
    let folder = Folder::new("half");
    let (state, mut machine) = (folder.state(), machine());
    assert!(die(&mut machine, &state, Ask::of(2, 0), Dies::After(4)));
    let remains = remains(&state);
    let changes = remains.changes();
    assert!(changes.names(bdf(NIC)) && changes.names(bdf(NVME)));
    let vf = machine.now.pfs[&bdf(NIC)].vfs[1].bdf;
    let nowhere = iommu::sysfs::SysRoot::new("/nonexistent");
    let refusal = state.withheld(&nowhere, vf).unwrap();
    assert_eq!(refusal.id.name(), "recover-needed");
    assert!(state.withheld(&nowhere, bdf("0000:7f:00.1")).is_none());
}

#[test]
fn recovery_that_dies_is_recovered() {
    for at in 0..24 {
        let folder = Folder::new(&format!("again-{at}"));
        let (state, mut machine) = (folder.state(), machine());
        apply(&mut machine, &state, 2, 0);
        let before = machine.now.clone();
        let steps = plan(&mut machine, &state, 3, 1).steps.len();
        let dies = Dies::Before(steps - 1);
        assert!(die(&mut machine, &state, Ask::of(3, 1), dies));
        let remains = remains(&state);
        let mut hands = Mortal {
            machine: &mut machine,
            dies: Dies::After(at),
            steps: 0,
        };
        let first = std::panic::AssertUnwindSafe(|| {
            recover_host(&mut hands, &state, &remains, false, &mut |_| {})
        });
        let has_died = std::panic::catch_unwind(first).is_err();
        if has_died {
            let reports = recover(&mut machine, &state);
            assert!(reports.is_empty(), "{at}: {reports:?}");
        }
        for (pf, facts) in &before.pfs {
            assert_eq!(facts.vfs, machine.now.pfs[pf].vfs, "{at}");
        }
        assert_eq!(folder.journals(), 0);
    }
}

#[test]
fn after_a_reboot_only_what_lasts_is_undone() {
    let folder = Folder::new("boot");
    let (state, mut made) = (folder.state(), machine());
    let all = plan(&mut made, &state, 2, 0).steps;
    let create = |step: &Step| matches!(step, Step::NamespaceCreate { .. });
    let at = all.iter().position(create).unwrap();
    assert!(die(&mut made, &state, Ask::of(2, 0), Dies::After(at)));
    // The power comes back: no VFs, no settings, but the namespace.
    let mut machine = machine();
    machine.now.boot = "boot-2".to_owned();
    let namespaces = made.now.pfs[&bdf(NVME)].nvme().unwrap().namespaces.clone();
    assert_eq!(namespaces.len(), 1);
    let facts = machine.now.pfs.get_mut(&bdf(NVME)).unwrap();
    if let KindFacts::Nvme(nvme) = &mut facts.kind {
        nvme.namespaces = namespaces;
    }
    assert!(recover(&mut machine, &state).is_empty());
    assert_eq!(machine.done.len(), 1, "{:?}", machine.done);
    assert!(
        machine.now.pfs[&bdf(NVME)]
            .nvme()
            .unwrap()
            .namespaces
            .is_empty()
    );
}

#[test]
fn boot_that_cannot_be_told_undoes_nothing_and_forgets_nothing() {
    let folder = Folder::new("no-boot");
    let (state, mut machine) = (folder.state(), machine());
    let before = machine.now.clone();
    assert!(die(&mut machine, &state, Ask::of(2, 0), Dies::After(6)));
    let half = machine.now.clone();
    machine.now.boot = String::new();
    let reports = recover(&mut machine, &state);
    assert_eq!(ids(&reports), ["host-unreadable"].into());
    machine.now.boot.clone_from(&half.boot);
    assert_eq!(machine.now, half);
    assert_eq!(folder.journals(), 1, "it is known still");
    assert!(recover(&mut machine, &state).is_empty());
    assert_eq!(machine.now.pfs[&bdf(NIC)], before.pfs[&bdf(NIC)]);
}

#[test]
fn what_a_guest_has_by_now_is_not_undone() {
    let folder = Folder::new("used");
    let (state, mut machine) = (folder.state(), machine());
    let steps = plan(&mut machine, &state, 2, 0).steps.len();
    let last = Dies::After(steps - 1);
    assert!(die(&mut machine, &state, Ask::of(2, 0), last));
    // Its journal does not keep every guest from starting: one was started before, or names no pool.
    let leased = |pf: &str, keep| {
        let facts = machine.now.pfs[&bdf(pf)].clone();
        let vf = facts.vfs[0].bdf;
        state
            .change_pf(bdf(pf), &facts.anchor, |kept| {
                kept.step(0, vf, Event::Leased, "t")?;
                let lease = kept.vfs.get_mut(&0).unwrap();
                lease.lease = Some(Lease {
                    guest: "web".to_owned(),
                    keep,
                    since: "t".to_owned(),
                    run: None,
                    terms: crate::sriov::LeaseTerms::plain(bdf(pf), vf, 0),
                });
                if let Some(namespace) = kept.namespaces.get_mut(&1) {
                    namespace.state = crate::sriov::NamespaceState::Dirty;
                    namespace.last_guest = Some("web".to_owned());
                }
                Ok(vf)
            })
            .unwrap()
    };
    let vf = leased(NVME, true);
    let before = machine.now.clone();
    let reports = recover(&mut machine, &state);
    let text: String = reports.iter().map(ToString::to_string).collect();
    assert_eq!(ids(&reports), ["undo-incomplete"].into(), "{text}");
    assert!(text.contains(&format!("guest web has {vf}")), "{text}");
    assert!(text.contains("namespace 1 has data of guest web"), "{text}");
    assert_eq!(folder.journals(), 0, "said once");
    let (was, is) = (&before.pfs[&bdf(NVME)], &machine.now.pfs[&bdf(NVME)]);
    assert_eq!((is.count, &is.vfs), (was.count, &was.vfs));
    let namespaces =
        |facts: &crate::sriov::PfFacts| facts.nvme().unwrap().namespaces.keys().count();
    assert_eq!((namespaces(is), namespaces(was)), (1, 1));
    let kept = &state.records(&machine.now).unwrap().pfs[&bdf(NVME)];
    assert!(kept.vfs[&0].lease.is_some() && kept.vfs[&0].state == VfState::Leased);
    // The other PF is nobody's.
    assert_eq!(machine.now.pfs[&bdf(NIC)].count, 0);
    apply(&mut machine, &state, 2, 0);
}

#[test]
fn vfs_with_a_run_are_not_destroyed_whatever_records_say() {
    let folder = Folder::new("runs");
    let (state, mut machine) = (folder.state(), machine());
    let steps = plan(&mut machine, &state, 2, 0).steps.len();
    let last = Dies::After(steps - 1);
    assert!(die(&mut machine, &state, Ask::of(2, 0), last));
    let vf = machine.now.pfs[&bdf(NIC)].vfs[1].bdf;
    let run = crate::state::InUse::take(&state, vf, "web").unwrap();
    let reports = recover(&mut machine, &state);
    let text: String = reports.iter().map(ToString::to_string).collect();
    assert!(text.contains("guest web, process"), "{text}");
    let nic = &machine.now.pfs[&bdf(NIC)];
    assert!(nic.count == 2 && nic.nic().unwrap().is_up, "its link, too");
    assert_eq!(machine.now.pfs[&bdf(NVME)].count, 0);
    drop(run);
}

#[test]
fn release_that_dies_goes_on() {
    for at in 0..6 {
        let folder = Folder::new(&format!("release-{at}"));
        let (state, mut machine) = (folder.state(), machine());
        apply(&mut machine, &state, 2, 0);
        let release = Ask {
            verb: Verb::Release,
            ..Ask::of(0, 0)
        };
        let dies = match at % 2 {
            0 => Dies::Before(at / 2),
            _ => Dies::After(at / 2),
        };
        if !die(&mut machine, &state, release, dies) {
            continue;
        }
        assert!(recover(&mut machine, &state).is_empty());
        assert!(machine.now.pfs.values().all(|facts| facts.count == 0));
        assert!(state.baseline().unwrap().is_none());
        assert_eq!(folder.journals(), 0);
    }
}

#[test]
fn what_cannot_be_undone_is_named_and_tried_again() {
    let folder = Folder::new("stuck");
    let (state, mut machine) = (folder.state(), machine());
    assert!(die(&mut machine, &state, Ask::of(1, 0), Dies::Before(4)));
    machine.fail_at = Some(machine.given);
    let reports = recover(&mut machine, &state);
    assert_eq!(ids(&reports), ["undo-incomplete"].into());
    assert_eq!(folder.journals(), 1);
    machine.fail_at = None;
    assert!(recover(&mut machine, &state).is_empty());
    assert_eq!(folder.journals(), 0);
}

#[test]
fn vfs_that_no_run_gave_back_are_found() {
    let mut machine = machine();
    let mut records = Records::default();
    let mut kept = crate::sriov::PfRecords::new(
        machine.observe().unwrap().pfs[&bdf(NIC)].anchor.clone(),
        "boot-1".to_owned(),
    );
    let lease = |keep, pid: Option<u32>| Lease {
        guest: "web".to_owned(),
        keep,
        since: "t".to_owned(),
        run: pid.map(|pid| Holder {
            pid,
            start: 1,
            boot: "boot-1".to_owned(),
        }),
        terms: crate::sriov::LeaseTerms::plain(
            bdf(NIC),
            crate::sriov::model::vf_address(bdf(NIC), 0),
            0,
        ),
    };
    // (keep, run's process; 1 lives), state before, whether it is to be finished.
    let cases = [
        (lease(false, Some(1)), VfState::InUse, false),
        (lease(false, Some(2)), VfState::InUse, true),
        (lease(false, Some(2)), VfState::Leased, true),
        (lease(true, None), VfState::Leased, false),
        (lease(true, Some(2)), VfState::Leased, true),
        (lease(true, Some(2)), VfState::Dirty, true),
        (lease(false, Some(2)), VfState::Sanitising, true),
        // Made again while its guest's data is still to be erased.
        (lease(false, Some(2)), VfState::Clean, true),
        (lease(true, None), VfState::Clean, false),
    ];
    for (index, (lease, state, _)) in (0..).zip(&cases) {
        let vf = crate::sriov::model::vf_address(bdf(NIC), index);
        let path: &[Event] = match state {
            VfState::Clean => &[],
            VfState::Leased => &[Event::Leased],
            VfState::InUse => &[Event::Leased, Event::Bound],
            VfState::Dirty => &[Event::Leased, Event::Bound, Event::Ended],
            VfState::Absent | VfState::Created | VfState::Sanitising | VfState::Quarantined => &[
                Event::Leased,
                Event::Bound,
                Event::Ended,
                Event::RestedDirty,
            ],
        };
        for event in [Event::Created, Event::ResetSeen].iter().chain(path) {
            kept.step(index, vf, *event, "t").unwrap();
        }
        assert_eq!(kept.vfs[&index].state, *state);
        kept.vfs.get_mut(&index).unwrap().lease = Some(lease.clone());
    }
    records.pfs.insert(bdf(NIC), kept);
    let found: Vec<u32> = unfinished(&records, &|holder| holder.pid == 1)
        .iter()
        .map(|one| one.index)
        .collect();
    let expected: Vec<u32> = (0..)
        .zip(&cases)
        .filter(|(_, case)| case.2)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn namespace_that_was_made_without_a_note_is_found_by_being_new() {
    let folder = Folder::new("unnoted");
    let (state, mut machine) = (folder.state(), machine());
    let all = plan(&mut machine, &state, 1, 0).steps;
    let create = |step: &Step| matches!(step, Step::NamespaceCreate { .. });
    let at = all.iter().position(create).unwrap();
    assert!(die(&mut machine, &state, Ask::of(1, 0), Dies::After(at)));
    let facts = machine.now.pfs.get_mut(&bdf(NVME)).unwrap();
    let KindFacts::Nvme(nvme) = &mut facts.kind else {
        panic!("{facts:?}");
    };
    let (nsid, mut other) = nvme
        .namespaces
        .first_key_value()
        .map(|(a, b)| (*a, b.clone()))
        .unwrap();
    assert_eq!(nsid, 1);
    // Somebody else's, made meanwhile: it is in use.
    other.attached.insert(0);
    other.id = NamespaceId::None;
    nvme.namespaces.insert(2, other);
    assert!(recover(&mut machine, &state).is_empty());
    let left: Vec<u32> = machine.now.pfs[&bdf(NVME)]
        .nvme()
        .unwrap()
        .namespaces
        .keys()
        .copied()
        .collect();
    assert_eq!(left, [2]);
}

#[test]
fn namespace_whose_erase_was_cut_off_is_not_left_to_the_host() {
    let folder = Folder::new("cut-erase");
    let (state, mut machine) = (folder.state(), machine());
    apply(&mut machine, &state, 1, 0);
    let erase = Step::Erase {
        pf: bdf(NVME),
        controller: "nvme0".to_owned(),
        nsid: 1,
        how: EraseHow::Overwrite,
        block: 512,
    };
    let job = Job {
        planner: &|_, _| {
            let steps = vec![erase.clone()];
            Ok(Planned {
                desired: Desired::default(),
                plan: HostPlan {
                    steps,
                    ..HostPlan::default()
                },
            })
        },
        shown: None,
        verb: Verb::Apply,
        file: None,
        is_stopped: &|| false,
    };
    let mut hands = Mortal {
        machine: &mut machine,
        dies: Dies::Before(0),
        steps: 0,
    };
    let dead = std::panic::AssertUnwindSafe(|| run(&mut hands, &state, &job, &mut |_| {}).is_ok());
    assert!(std::panic::catch_unwind(dead).is_err());
    // Its hands had attached it to the primary controller, which alone formats it.
    let facts = machine.now.pfs.get_mut(&bdf(NVME)).unwrap();
    if let KindFacts::Nvme(nvme) = &mut facts.kind {
        nvme.namespaces.get_mut(&1).unwrap().attached = [0].into();
    }
    let reports = recover(&mut machine, &state);
    assert_eq!(ids(&reports), ["undo-incomplete"].into());
    let nvme = machine.now.pfs[&bdf(NVME)].nvme().unwrap();
    assert!(nvme.namespaces[&1].attached.is_empty(), "{nvme:?}");
}
