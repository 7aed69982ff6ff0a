use std::{fs, path::Path};

use super::{
    SavedPlan, Shown, Verb,
    machine_test::{Ask, Folder, NIC, NVME, bdf, desired, ids, machine, plan},
};
use crate::{
    error::{ErrorId, Report},
    sriov::{AttributeName, Event, Hands, HostPlan, Lease, NamespaceId, NamespaceState, VfState},
    state::{InUse, State, now},
};

fn why(reports: &[Report]) -> String {
    reports.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_planned_is_done_and_then_there_is_nothing_to_do() {
    let folder = Folder::new("twice");
    let (state, mut machine) = (folder.state(), machine());
    let before = machine.now.clone();
    let applied = Ask::of(3, 0).run(&mut machine, &state).unwrap();
    assert!(applied.steps > 15, "{}", applied.steps);
    let again = Ask::of(3, 0).run(&mut machine, &state).unwrap();
    assert_eq!(again.steps, 0);
    assert_eq!(folder.journals(), 0);

    let records = state.records(&machine.now).unwrap();
    for pf in [NIC, NVME] {
        let kept = &records.pfs[&bdf(pf)];
        let states: Vec<VfState> = kept.vfs.values().map(|vf| vf.state).collect();
        assert_eq!(states, [VfState::Clean; 3]);
        assert!(
            kept.vfs
                .values()
                .all(|vf| vf.pool.as_deref() == Some("pool"))
        );
    }
    let nic = &records.pfs[&bdf(NIC)];
    assert_eq!(nic.vfs[&2].mac.unwrap().to_string(), "02:4e:57:00:00:02");
    let made = &records.pfs[&bdf(NVME)].namespaces[&1];
    assert!(made.is_made && made.state == NamespaceState::Clean);
    // What was there before the first is kept over the second.
    let baseline = state.baseline().unwrap().unwrap();
    assert_eq!(baseline.pfs, before.pfs);
    assert_eq!(state.applied().unwrap().unwrap().text, "text");
}

#[test]
fn failure_at_each_step_is_undone() {
    for (from, to) in [(0, 3), (3, 2)] {
        for at in 0.. {
            let folder = Folder::new(&format!("fail-{from}-{at}"));
            let (state, mut machine) = (folder.state(), machine());
            if from > 0 {
                Ask::of(from, 0).run(&mut machine, &state).unwrap();
            }
            let before = machine.now.clone();
            machine.given = 0;
            machine.fail_at = Some(at);
            let Err(reports) = Ask::of(to, 1).run(&mut machine, &state) else {
                assert!(at > 10, "all were tried: {at}");
                break;
            };
            let text = why(&reports);
            assert_eq!(ids(&reports), ["step-failed"].into(), "{at}: {text}");
            assert!(text.contains("EIO"), "{text}");
            same_settings(&before, &machine.now, at);
            assert_eq!(folder.journals(), 0, "{at}");
            machine.fail_at = None;
            Ask::of(to, 1).run(&mut machine, &state).unwrap();
            assert!(plan(&mut machine, &state, to, 1).steps.is_empty());
        }
    }
}

/// All but what a destroyed VF cannot get back: who it was.
fn same_settings(before: &crate::sriov::Observed, now: &crate::sriov::Observed, at: usize) {
    for (pf, facts) in &before.pfs {
        let now = &now.pfs[pf];
        assert_eq!(facts.count, now.count, "{at}");
        assert_eq!(facts.is_probed, now.is_probed, "{at}");
        assert_eq!(facts.vfs, now.vfs, "{at}");
        assert_eq!(facts.nic(), now.nic(), "{at}");
        let namespaces =
            |facts: &crate::sriov::PfFacts| facts.nvme().map(|nvme| nvme.namespaces.clone());
        assert_eq!(namespaces(facts), namespaces(now), "{at}");
    }
}

#[test]
fn busy_device_is_asked_again() {
    let folder = Folder::new("busy");
    let (state, mut machine) = (folder.state(), machine());
    machine.busy = 3;
    Ask::of(1, 0).run(&mut machine, &state).unwrap();
}

#[test]
fn what_the_driver_ignores_is_told_and_undone() {
    let folder = Folder::new("ignored");
    let (state, mut machine) = (folder.state(), machine());
    let before = machine.now.clone();
    machine.ignored.insert((bdf(NIC), AttributeName::Mac));
    let reports = Ask::of(2, 0).run(&mut machine, &state).unwrap_err();
    assert_eq!(ids(&reports), ["step-not-done"].into());
    assert_eq!(machine.now, before);
}

#[test]
fn signal_finishes_the_step_and_undoes_all() {
    let folder = Folder::new("signal");
    let (state, mut machine) = (folder.state(), machine());
    let before = machine.now.clone();
    let ask = Ask {
        stop_after: Some(4),
        ..Ask::of(2, 0)
    };
    let reports = ask.run(&mut machine, &state).unwrap_err();
    assert!(why(&reports).contains("signal"));
    assert!(machine.done.len() > 4, "it had begun");
    assert_eq!(machine.now, before);
    assert_eq!(folder.journals(), 0);
}

#[test]
fn another_plan_than_the_one_that_was_shown_is_not_carried_out() {
    let folder = Folder::new("stale");
    let (state, mut machine) = (folder.state(), machine());
    let shown = plan(&mut machine, &state, 2, 0);
    let ask = Ask {
        shown: Some(Shown::Plan(&shown)),
        ..Ask::of(3, 0)
    };
    let reports = ask.run(&mut machine, &state).unwrap_err();
    assert_eq!(ids(&reports), ["plan-stale"].into());
    assert!(machine.done.is_empty());
    let ask = Ask {
        shown: Some(Shown::Plan(&shown)),
        ..Ask::of(2, 0)
    };
    ask.run(&mut machine, &state).unwrap();
}

#[test]
fn saved_plan_is_honoured_on_the_machine_it_was_made_for_only() {
    let folder = Folder::new("saved");
    let (state, mut machine) = (folder.state(), machine());
    let steps = plan(&mut machine, &state, 2, 0).steps;
    let saved = SavedPlan::new(Path::new("host.toml"), "text", machine.now.clone(), steps);
    let text = saved.to_text().unwrap();
    let read = SavedPlan::parse(Path::new("plan.json"), &text).unwrap();
    assert_eq!(read, saved);
    for bad in [
        "{}".to_owned(),
        text.replace("\"version\": 1", "\"version\": 2"),
    ] {
        let report = SavedPlan::parse(Path::new("plan.json"), &bad).unwrap_err();
        assert_eq!(report.id, ErrorId::PlanStale);
    }
    let run = |machine: &mut crate::sriov::model::Machine, saved: &SavedPlan| {
        let ask = Ask {
            shown: Some(Shown::Saved(saved)),
            ..Ask::of(2, 0)
        };
        ask.run(machine, &state)
    };
    let mut other = saved.clone();
    other.config = "another text".to_owned();
    let reports = run(&mut machine, &other).unwrap_err();
    assert!(why(&reports).contains("host file was changed"));

    let mut changed = machine.clone();
    changed.now.pfs.get_mut(&bdf(NVME)).unwrap().driver = Some("other".to_owned());
    let reports = run(&mut changed, &saved).unwrap_err();
    assert_eq!(ids(&reports), ["plan-stale"].into());
    assert!(why(&reports).contains(NVME), "{}", why(&reports));

    run(&mut machine, &saved).unwrap();
    // Once: by now there is nothing of it to do.
    assert!(run(&mut machine, &saved).is_err());
}

#[test]
fn refused_plan_has_touched_nothing() {
    let folder = Folder::new("refused");
    let (state, mut machine) = (folder.state(), machine());
    let planner = |_: &_, _: &_| {
        let refusal = Report::new(ErrorId::PfLogin, "no", "because", "do not");
        let plan = HostPlan {
            refusals: vec![refusal],
            ..HostPlan::default()
        };
        Ok(super::Planned {
            plan,
            ..Default::default()
        })
    };
    let job = super::Job {
        planner: &planner,
        shown: None,
        verb: Verb::Apply,
        file: None,
        is_stopped: &|| false,
    };
    let reports = super::run(&mut machine, &state, &job, &mut |_| {}).unwrap_err();
    assert_eq!(ids(&reports), ["pf-login"].into());
    assert!(machine.done.is_empty());
    assert!(state.baseline().unwrap().is_none());
}

#[test]
fn locked_host_is_refused_with_who_has_it() {
    let folder = Folder::new("locked");
    let (state, mut machine) = (folder.state(), machine());
    let lock = state.lock_host("release").unwrap();
    let reports = Ask::of(1, 0).run(&mut machine, &state).unwrap_err();
    let text = why(&reports);
    assert_eq!(ids(&reports), ["host-busy"].into());
    assert!(text.contains("narrows release, process "), "{text}");
    assert!(state.share_host().is_err());
    drop(lock);
    // Another test's child may have the descriptor for a moment.
    while state.share_host().is_err() {
        std::thread::yield_now();
    }
}

/// VF 0 of the NIC, with a guest that runs.
fn in_use(state: &State, machine: &mut crate::sriov::model::Machine) -> InUse {
    let facts = &machine.observe().unwrap().pfs[&bdf(NIC)];
    let vf = facts.vfs[0].bdf;
    let lease = Lease {
        guest: "web".to_owned(),
        keep: false,
        since: now(),
        run: None,
        terms: crate::sriov::LeaseTerms::plain(bdf(NIC), vf, 0),
    };
    state
        .change_pf(bdf(NIC), &facts.anchor, |kept| {
            kept.step(0, vf, Event::Leased, "t")?;
            kept.vfs.get_mut(&0).unwrap().lease = Some(lease);
            kept.step(0, vf, Event::Bound, "t")
        })
        .unwrap();
    InUse::take(state, vf, "web").unwrap()
}

#[test]
fn vf_of_a_run_stops_all_but_single_attributes() {
    let folder = Folder::new("in-use");
    let (state, mut machine) = (folder.state(), machine());
    Ask::of(2, 0).run(&mut machine, &state).unwrap();
    let run = in_use(&state, &mut machine);
    let steps = machine.done.len();
    let reports = Ask::of(1, 0).run(&mut machine, &state).unwrap_err();
    assert_eq!(ids(&reports), ["vf-in-use"].into());
    assert!(why(&reports).contains("guest web"), "{}", why(&reports));
    assert_eq!(machine.done.len(), steps, "nothing was touched");

    // Attributes of a VF in use are in a plan only where they may be set.
    Ask::of(2, 1).run(&mut machine, &state).unwrap();
    let mac = machine.now.pfs[&bdf(NIC)].vfs[0].nic.unwrap().mac.unwrap();
    assert_eq!(mac.to_string(), "02:4e:57:00:01:00");

    // Its guest has ended, and its keeper puts it to rest: nobody else sets anything then.
    let facts = machine.now.pfs[&bdf(NIC)].clone();
    let vf = facts.vfs[0].bdf;
    let records = state.records(&machine.now).unwrap();
    let mut stale = records.clone();
    state
        .change_pf(bdf(NIC), &facts.anchor, |kept| {
            kept.step(0, vf, Event::Ended, "t")
        })
        .unwrap();
    stale.running.clear();
    let steps = plan(&mut machine, &state, 2, 2).steps;
    let live = super::users::check(
        &state,
        &machine.now,
        &stale,
        &crate::sriov::Desired::default(),
        &steps,
    );
    assert_eq!(live.unwrap().len(), 1, "as it was a moment before");
    let reports = Ask::of(2, 2).run(&mut machine, &state).unwrap_err();
    assert_eq!(ids(&reports), ["vf-in-use"].into());
    drop(run);
}

#[test]
fn release_is_refused_as_long_as_there_is_a_lease() {
    let folder = Folder::new("release");
    let (state, mut machine) = (folder.state(), machine());
    Ask::of(2, 0).run(&mut machine, &state).unwrap();
    drop(in_use(&state, &mut machine));
    let release = || Ask {
        verb: Verb::Release,
        ..Ask::of(0, 0)
    };
    let reports = release().run(&mut machine, &state).unwrap_err();
    assert_eq!(ids(&reports), ["vf-in-use"].into());
    let facts = machine.now.pfs[&bdf(NIC)].clone();
    let vf = facts.vfs[0].bdf;
    state
        .change_pf(bdf(NIC), &facts.anchor, |kept| {
            kept.step(0, vf, Event::Ended, "t")?;
            kept.step(0, vf, Event::Rested, "t")
        })
        .unwrap();
    release().run(&mut machine, &state).unwrap();
    assert!(state.baseline().unwrap().is_none());
    assert!(state.applied().unwrap().is_none());
    assert!(state.recorded_pfs().unwrap().is_empty());
    assert_eq!(machine.now.pfs[&bdf(NIC)].count, 0);
}

#[test]
fn what_was_forgotten_counts_as_dirty() {
    let folder = Folder::new("forgotten");
    let (state, mut machine) = (folder.state(), machine());
    Ask::of(2, 0).run(&mut machine, &state).unwrap();
    let wanted = desired(&mut machine, &state, 2);
    assert_eq!(wanted.pfs[&bdf(NVME)].namespaces[0].nsid, Some(1));
    state.forget_pf(bdf(NVME), &machine.now, &[]).unwrap();
    super::marks::settle(&state, &machine.now, &wanted).unwrap();
    let kept = &state.records(&machine.now).unwrap().pfs[&bdf(NVME)];
    assert_eq!(kept.namespaces[&1].state, NamespaceState::Dirty);
    assert!(kept.vfs.values().all(|vf| vf.state == VfState::Created));
}

#[test]
fn dirty_namespace_is_not_clean_under_another_id() {
    let folder = Folder::new("renamed");
    let (state, mut machine) = (folder.state(), machine());
    Ask::of(2, 0).run(&mut machine, &state).unwrap();
    let wanted = desired(&mut machine, &state, 2);
    let anchor = machine.now.pfs[&bdf(NVME)].anchor.clone();
    for (was, expected) in [
        (NamespaceState::Dirty, NamespaceState::Dirty),
        (NamespaceState::Sanitising, NamespaceState::Dirty),
        (NamespaceState::Clean, NamespaceState::Clean),
    ] {
        let other = NamespaceId::Nguid(format!("{was:?}"));
        state
            .change_pf(bdf(NVME), &anchor, |kept| {
                let record = kept.namespaces.get_mut(&1).unwrap();
                record.state = was;
                record.id = other.clone();
                Ok(())
            })
            .unwrap();
        super::marks::settle(&state, &machine.now, &wanted).unwrap();
        let kept = &state.records(&machine.now).unwrap().pfs[&bdf(NVME)];
        assert_ne!(kept.namespaces[&1].id, other);
        assert_eq!(kept.namespaces[&1].state, expected, "{was:?}");
    }
}

#[test]
fn boot_that_cannot_be_told_is_not_another_one() {
    let folder = Folder::new("no-boot");
    let (state, mut machine) = (folder.state(), machine());
    Ask::of(2, 0).run(&mut machine, &state).unwrap();
    let before = machine.now.clone();
    machine.now.boot = String::new();
    let reports = Ask::of(3, 0).run(&mut machine, &state).unwrap_err();
    assert_eq!(ids(&reports), ["host-unreadable"].into());
    machine.now.boot.clone_from(&before.boot);
    assert_eq!(machine.now, before, "nothing was touched");
}

#[test]
fn apply_without_steps_can_be_released_like_any_other() {
    let folder = Folder::new("no-steps");
    let (state, mut machine) = (folder.state(), machine());
    Ask::of(2, 0).run(&mut machine, &state).unwrap();
    // The host is as the file says before anything is kept of it.
    fs::remove_file(folder.0.join("state/host/baseline.json")).unwrap();
    fs::remove_file(folder.0.join("state/host/applied.json")).unwrap();
    let before = machine.now.clone();
    let applied = Ask::of(2, 0).run(&mut machine, &state).unwrap();
    assert_eq!(applied.steps, 0);
    assert!(state.applied().unwrap().is_some());
    let baseline = state
        .baseline()
        .unwrap()
        .expect("there is something to go back to");
    assert_eq!(baseline.pfs, before.pfs);
}
