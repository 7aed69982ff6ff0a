//! What holds of S, in its own jail and as a service.

use jailed::manifest::{Instruction, layer};

use super::{
    State,
    sound_test::{OTHER, Process, UID, supervisor},
};
use crate::inspect::{expected::Held, facts::Status};

type Change = fn(&mut Process);

#[test]
fn the_supervisor_is_its_table_and_its_list_of_descriptors() {
    let sound = || supervisor(false);
    assert_eq!(sound().wrong(), []);
    let not_asked = sound()
        .judged()
        .into_iter()
        .filter(|f| f.state == State::NotAsked);
    let not_asked: Vec<String> = not_asked.map(|f| f.id).collect();
    assert_eq!(
        not_asked,
        [
            "user-namespace",
            "pid-namespace",
            "time-namespace",
            "mseal",
            "core-scheduling"
        ]
    );
    let changes: [(&str, &str, Change); 7] = [
        ("descriptors", "descriptor 10 is one too many", |p| {
            let mut more = p.descriptors()[0].clone();
            more.number = 10;
            p.descriptors().push(more);
        }),
        ("descriptors", "is not there", |p| {
            drop(p.descriptors().pop())
        }),
        ("descriptors", "not the one that it was given", |p| {
            p.descriptors()[1].file = Ok(OTHER)
        }),
        // What has no inode of its own is known by its name.
        ("descriptors", "not the one that it was given", |p| {
            let Held::Exactly(meant) = &mut p.expected.descriptors else {
                panic!("S in its own jail has an exact list");
            };
            let given = meant[1].given.as_mut().unwrap();
            given.file = None;
            given.name = Some("anon_inode:[signalfd]".to_owned());
            p.descriptors()[1].target = "anon_inode:kvm-vm".to_owned();
        }),
        ("seccomp", "filter 0 is another one", |p| {
            let filter = &mut p.live.filters.as_mut().unwrap()[0].filters[0];
            let last = filter[filter.len() - 1];
            filter.push(last);
        }),
        ("rlimits", "Max processes", |p| {
            let mut limits = p.facts.limits.as_mut().unwrap().iter_mut();
            limits.find(|l| l.name == "Max processes").unwrap().hard = None;
        }),
        ("landlock", "did not say", |p| {
            p.expected.place.layers_told &= !layer::LANDLOCK
        }),
    ];
    for (topic, said, change) in changes {
        let mut process = sound();
        change(&mut process);
        let wrong = process.wrong();
        assert_eq!(wrong.len(), 1, "{topic}: {wrong:?}");
        assert_eq!(wrong[0].0, topic);
        assert!(wrong[0].1.contains(said), "{wrong:?}");
    }
    // A log that cannot be read is given up while the guest runs.
    let mut process = sound();
    if let Held::Exactly(held) = &mut process.expected.descriptors {
        held.last_mut()
            .unwrap()
            .given
            .as_mut()
            .unwrap()
            .may_be_closed = true;
    }
    drop(process.descriptors().pop());
    assert_eq!(process.wrong(), []);
}

#[test]
fn of_a_service_no_more_is_claimed_than_was_compared() {
    let sound = || {
        let mut process = supervisor(true);
        // Its manager's user, groups, filter, root and limits.
        let threads = process.facts.threads.as_mut().unwrap();
        let status = threads[0].status.as_mut().unwrap();
        status.groups = vec![UID];
        status.filters = Some(2);
        process.facts.root = Ok(vec!["usr".to_owned()]);
        process.facts.cgroup = Ok("/system.slice/narrows@web.service".to_owned());
        let filters = &mut process.live.filters.as_mut().unwrap()[0].filters;
        filters.insert(0, vec![Instruction::new(0x06, 0, 0, 0x7FFF_0000)]);
        process
    };
    assert_eq!(sound().wrong(), []);
    for finding in sound().judged() {
        let claims = !matches!(
            finding.id.as_str(),
            "pid-namespace"
                | "cgroup-namespace"
                | "time-namespace"
                | "cgroup"
                | "cgroup-limits"
                | "rlimits"
                | "not-dumpable"
                | "mdwe"
                | "mseal"
                | "landlock"
                | "core-scheduling"
        );
        assert_eq!(finding.state == State::On, claims, "{finding:?}");
        assert_eq!(finding.state == State::NotAsked, !claims, "{finding:?}");
        if finding.id == "system-calls" {
            assert!(finding.evidence.contains("by call and not by argument"));
        }
        if finding.id == "mount-namespace" {
            assert!(finding.evidence.contains("its root is not empty"));
        }
    }
    let changes: [(&str, Change); 7] = [
        ("uid", |p| p.expected.place.uid = 0),
        ("capabilities", |p| first(p).capabilities[3] = 1),
        ("no-new-privs", |p| first(p).no_new_privs = 0),
        ("net-namespace", |p| p.namespace("net", 4_026_531_003)),
        ("descriptors", |p| {
            p.descriptors()[3].target = "anon_inode:kvm-vm".to_owned()
        }),
        ("descriptors", |p| p.descriptors()[4].file = Ok(OTHER)),
        ("system-calls", |p| {
            p.live.filters.as_mut().unwrap()[0].filters.truncate(1)
        }),
    ];
    for (topic, change) in changes {
        let mut process = sound();
        change(&mut process);
        let wrong = process.wrong();
        assert_eq!(wrong.len(), 1, "{topic}: {wrong:?}");
        assert_eq!(wrong[0].0, topic);
    }
}

fn first(process: &mut Process) -> &mut Status {
    let threads = process.facts.threads.as_mut().unwrap();
    threads[0].status.as_mut().unwrap()
}
