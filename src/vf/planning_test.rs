use std::path::Path;

use super::{
    Applied, Job, Planner, Verb, import,
    machine_test::{Dies, Folder, Mortal, NIC, bdf, ids, machine},
    planning, recover_host, releasing, run,
};
use crate::{
    error::Report,
    spec::host::{HostSpec, Mbps, Profiles},
    sriov::{Event, Hands, KindFacts, Lease, Observed, Step, Use, Used, VfState, model::Machine},
    state::{Left, State},
};

const FILE: &str = r#"apiVersion = "v1alpha1"
[[pool]]
name = "tenant"
kind = "nic"
[[pool]]
name = "fast"
kind = "nvme"
accept = ["nvme-vf-manages"]
[[pf]]
bdf = "0000:01:00.0"
vfs = 3
pools = { tenant = "0-1" }
[[pf]]
serial = "one"
vfs = 2
pools = { fast = "0-1" }
[[pf.namespace]]
name = "a"
size = "1M"
block = 512
vfs = "0"
"#;

fn host() -> Machine {
    let mut host = machine();
    for facts in host.now.pfs.values_mut() {
        facts.driver = Some(match &mut facts.kind {
            KindFacts::Nic(nic) => {
                nic.link = Some(Mbps(1000));
                "igb".to_owned()
            }
            KindFacts::Nvme(_) | KindFacts::Other => "nvme".to_owned(),
        });
    }
    host
}

fn applied(
    hands: &mut dyn Hands,
    state: &State,
    verb: Verb,
    planner: &Planner<'_>,
) -> Result<Applied, Vec<Report>> {
    let job = Job {
        planner,
        shown: None,
        verb,
        file: (verb == Verb::Apply).then_some((Path::new("host.toml"), FILE)),
        is_stopped: &|| false,
    };
    loop {
        match run(hands, state, &job, &mut |_| {}) {
            // Another test's child may have the lock's descriptor for a moment.
            Err(reports) if reports.iter().any(|report| report.id.name() == "host-busy") => {
                std::thread::yield_now();
            }
            result => return result,
        }
    }
}

fn spec(text: &str) -> HostSpec {
    HostSpec::parse(Path::new("host.toml"), text).unwrap()
}

#[test]
fn file_is_applied_once_and_released_to_what_was_before() {
    let folder = Folder::new("real");
    let (state, mut machine) = (folder.state(), host());
    let (spec, profiles) = (spec(FILE), Profiles::built_in());
    let before = machine.now.clone();
    let plan = planning(&spec, &profiles);
    let first = applied(&mut machine, &state, Verb::Apply, &plan).unwrap();
    assert!(first.steps > 10, "{}", first.steps);
    let again = applied(&mut machine, &state, Verb::Apply, &plan).unwrap();
    assert_eq!(again.plan.steps, []);
    let kept = state.baseline().unwrap().unwrap();
    let back = releasing(&kept, &profiles, Some(&spec));
    applied(&mut machine, &state, Verb::Release, &back).unwrap();
    let counts = |of: &Observed| of.pfs.values().map(|pf| pf.count).collect::<Vec<_>>();
    assert_eq!(counts(&machine.now), counts(&before));
}

#[test]
fn release_crosses_what_the_applied_file_accepts_and_says_so() {
    let (folder, mut machine) = (Folder::new("accepts"), host());
    let (state, profiles) = (folder.state(), Profiles::built_in());
    let strict = spec(FILE);
    let text = FILE.replace("vfs = 3", "vfs = 3\naccept = [\"pf-only-route\"]");
    let lenient = spec(&text);
    let plan = planning(&lenient, &profiles);
    machine.now.uses.default_routes.push(Use {
        of: Used::Interface("eth0".to_owned()),
        who: "default via 10.9.0.1".to_owned(),
        source: "proc/net/route".to_owned(),
    });
    applied(&mut machine, &state, Verb::Apply, &plan).unwrap();
    let kept = state.baseline().unwrap().unwrap();
    for none in [None, Some(&strict)] {
        let back = releasing(&kept, &profiles, none);
        let reports = applied(&mut machine, &state, Verb::Release, &back).unwrap_err();
        assert_eq!(ids(&reports), ["pf-only-route"].into());
    }
    let back = releasing(&kept, &profiles, Some(&lenient));
    let done = applied(&mut machine, &state, Verb::Release, &back).unwrap();
    assert!(
        ids(&done.plan.warnings).contains("pf-only-route"),
        "it is said"
    );
    assert!(machine.now.pfs.values().all(|pf| pf.count == 0));
}

#[test]
fn adopted_vf_that_a_guest_keeps_is_reset_after_a_boot() {
    let (folder, mut machine) = (Folder::new("adopted"), host());
    let (state, profiles) = (folder.state(), Profiles::built_in());
    let made = spec(FILE);
    applied(
        &mut machine,
        &state,
        Verb::Apply,
        &planning(&made, &profiles),
    )
    .unwrap();
    // From here on another manager makes the VFs, before each apply.
    let adopting = spec(&FILE.replace("vfs = 3", "vfs = 3\nadopt = true"));
    let plan = planning(&adopting, &profiles);
    applied(&mut machine, &state, Verb::Apply, &plan).unwrap();
    let nic = bdf(NIC);
    let facts = machine.now.pfs[&nic].clone();
    let vf = facts.vfs[0].bdf;
    state
        .change_pf(nic, &facts.anchor, |kept| {
            kept.step(0, vf, Event::Leased, "t")?;
            kept.vfs.get_mut(&0).unwrap().lease = Some(Lease {
                guest: "web".to_owned(),
                keep: true,
                since: "t".to_owned(),
                run: None,
                terms: crate::sriov::LeaseTerms::plain(nic, vf, 0),
            });
            Ok(())
        })
        .unwrap();
    machine.now.boot = "boot-2".to_owned();
    let resets = |applied: &Applied| {
        let steps = applied.plan.steps.iter();
        steps
            .filter(|step| matches!(step, Step::Reset { pf, index: 0, .. } if *pf == nic))
            .count()
    };
    let first = applied(&mut machine, &state, Verb::Apply, &plan).unwrap();
    assert_eq!(resets(&first), 1);
    let kept = &state.records(&machine.now).unwrap().pfs[&nic].vfs[&0];
    assert_eq!(kept.state, VfState::Clean);
    assert!(
        kept.lease
            .as_ref()
            .is_some_and(|lease| lease.guest == "web")
    );
    let again = applied(&mut machine, &state, Verb::Apply, &plan).unwrap();
    assert_eq!(resets(&again), 0, "once a boot");
}

#[test]
fn death_at_each_step_of_a_planned_apply_is_recovered() {
    let (spec, profiles) = (spec(FILE), Profiles::built_in());
    let plan = planning(&spec, &profiles);
    for number in 0.. {
        let folder = Folder::new(&format!("real-dies-{number}"));
        let (state, mut machine) = (folder.state(), host());
        let before = machine.now.clone();
        let dies = match number % 2 {
            0 => Dies::Before(number / 2),
            _ => Dies::After(number / 2),
        };
        let mut hands = Mortal {
            machine: &mut machine,
            dies,
            steps: 0,
        };
        let first = std::panic::AssertUnwindSafe(|| {
            applied(&mut hands, &state, Verb::Apply, &plan).unwrap();
        });
        if std::panic::catch_unwind(first).is_ok() {
            assert!(number > 20, "{number}");
            break;
        }
        let nowhere = iommu::sysfs::SysRoot::new("/nonexistent");
        let left = state.left_behind(&nowhere).unwrap();
        let [Left::Host(remains)] = left.as_slice() else {
            panic!("{left:?}");
        };
        let recovered = loop {
            match recover_host(&mut machine, &state, remains, false, &mut |_| {}) {
                Err(_) => std::thread::yield_now(),
                Ok(recovered) => break recovered,
            }
        };
        assert!(recovered.left.is_empty(), "{dies:?}: {:?}", recovered.left);
        for (pf, facts) in &before.pfs {
            let now = &machine.now.pfs[pf];
            assert_eq!(facts.kind, now.kind, "{dies:?}");
            assert_eq!(
                (&facts.vfs, facts.is_probed),
                (&now.vfs, now.is_probed),
                "{dies:?}"
            );
        }
        applied(&mut machine, &state, Verb::Apply, &plan).unwrap();
    }
}

#[test]
fn import_parses_and_plans_nothing() {
    let folder = Folder::new("import");
    let (state, mut machine) = (folder.state(), host());
    let profiles = Profiles::built_in();
    for text in [None, Some(FILE)] {
        if let Some(text) = text {
            let spec = spec(text);
            applied(
                &mut machine,
                &state,
                Verb::Apply,
                &planning(&spec, &profiles),
            )
            .unwrap();
        }
        // As on a host that Narrows has never seen.
        let observed = machine.observe().unwrap();
        let records = Folder::new("import-new")
            .state()
            .records(&observed)
            .unwrap();
        let text = import(&observed, &records);
        let spec = spec(&text);
        let planned = planning(&spec, &profiles)(&observed, &records).unwrap();
        assert_eq!(planned.plan.steps, [], "{text}");
        assert!(
            planned.plan.refusals.is_empty(),
            "{:?}",
            planned.plan.refusals
        );
    }
}
