//! What holds of V and D: what matches, what is absent, what cannot be read, and changes of several facts at once.

use jailed::manifest::{Instruction, Role as Jailed, layer};

use super::{
    State,
    sound_test::{OTHER, PID, Process, READER, sound, thread},
};
use crate::inspect::{
    expected::Held,
    facts::{Map, Unread},
};

type Change = fn(&mut Process);

#[test]
fn what_is_as_it_is_meant_to_be_matches() {
    for role in [Jailed::Vcpu, Jailed::Device] {
        let process = sound(role);
        assert_eq!(process.wrong(), [], "{role:?}");
        for finding in process.judged() {
            let is_told = matches!(finding.id.as_str(), "mdwe" | "landlock");
            let state = if is_told { State::Told } else { State::On };
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(!finding.evidence.is_empty(), "{finding:?}");
        }
    }
}

#[test]
fn a_thread_without_a_filter_is_noticed_by_all_that_look_at_filters() {
    let mut process = sound(Jailed::Device);
    process.live.filters.as_mut().unwrap()[1].filters.clear();
    process.status().seccomp = 0;
    let wrong = process.wrong();
    let ids: Vec<&str> = wrong.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["seccomp", "system-calls"], "{wrong:#?}");
    assert!(
        wrong[1].1.contains("is meant to be forbidden"),
        "{wrong:#?}"
    );
}

/// One more request in a live filter: `VFIO_DEVICE_FEATURE` on D's devices.
#[test]
fn one_more_ioctl_is_noticed_and_named() {
    let mut process = sound(Jailed::Device);
    for thread in process.live.filters.as_mut().unwrap() {
        let filter = thread.filters.pop().unwrap();
        // In front of it: if (number == ioctl && request == VFIO_DEVICE_FEATURE) allow.
        let mut loose = vec![
            Instruction::new(0x20, 0, 0, 0),
            Instruction::new(0x15, 0, 3, 16),
            Instruction::new(0x20, 0, 0, 24),
            Instruction::new(0x15, 0, 1, 0x3B75),
            Instruction::new(0x06, 0, 0, 0x7FFF_0000),
        ];
        loose.extend(filter);
        // And the one before it lets everything pass.
        thread.filters = vec![vec![Instruction::new(0x06, 0, 0, 0x7FFF_0000)], loose];
    }
    let wrong = process.wrong();
    let (_, said) = wrong.iter().find(|(id, _)| id == "system-calls").unwrap();
    assert!(said.contains("ioctl(") && said.contains("0x3b75"), "{said}");
}

#[test]
fn guest_ram_in_d_is_noticed() {
    let mut process = sound(Jailed::Device);
    let mut ram = process.map("narrows-ring").clone();
    ram.path = "/memfd:narrows-ram (deleted)".to_owned();
    process.maps().push(ram);
    assert_eq!(process.wrong()[0].0, "mappings");
    // And in V more or less of it than there is.
    let mut process = sound(Jailed::Vcpu);
    process.map("narrows-ram").end += 0x1000;
    let wrong = process.wrong();
    assert!(wrong[0].1.contains("guest RAM: "), "{wrong:?}");
}

#[test]
fn configuration_space_that_v_could_write_is_noticed() {
    let is_what_the_guest_reads = |map: &&mut Map| map.path.contains("ring") && !map.is_writable;
    let mut process = sound(Jailed::Vcpu);
    let mut maps = process.maps().iter_mut();
    maps.find(is_what_the_guest_reads).unwrap().is_writable = true;
    let (id, said) = &process.wrong()[0];
    assert_eq!(id, "mappings");
    assert!(said.contains("configuration space"), "{said}");
    // And in D a mapping of the ring that cannot be written.
    let mut process = sound(Jailed::Device);
    process.map("narrows-ring").is_writable = false;
    assert_eq!(process.wrong()[0].0, "mappings");
}

#[test]
fn one_thread_more_is_noticed_but_for_the_kernels_own_in_v() {
    for (role, is_fine) in [(Jailed::Vcpu, true), (Jailed::Device, false)] {
        let mut process = sound(role);
        let mut worker = thread(PID + 20);
        worker.is_worker = Ok(true);
        process.facts.threads.as_mut().unwrap().push(worker);
        assert_eq!(process.wrong().is_empty(), is_fine, "{:?}", process.wrong());

        let mut process = sound(role);
        process
            .facts
            .threads
            .as_mut()
            .unwrap()
            .push(thread(PID + 20));
        assert_eq!(process.wrong()[0].0, "threads");
    }
}

#[test]
fn what_cannot_be_read_is_a_mismatch() {
    let unread = || Unread {
        source: "/proc/71/x".to_owned(),
        why: "permission denied".to_owned(),
    };
    let changes: [(&str, Change); 8] = [
        ("descriptors", |p| {
            p.facts.descriptors = Err(p.facts.cgroup.clone().unwrap_err())
        }),
        ("mappings", |p| {
            p.facts.maps = Err(p.facts.cgroup.clone().unwrap_err())
        }),
        ("threads", |p| {
            p.facts.threads = Err(p.facts.cgroup.clone().unwrap_err())
        }),
        ("rlimits", |p| {
            p.facts.limits = Err(p.facts.cgroup.clone().unwrap_err())
        }),
        ("net-namespace", |p| {
            p.facts.namespaces[3] = Err(p.facts.cgroup.clone().unwrap_err())
        }),
        ("not-dumpable", |p| {
            p.facts.owner = Err(p.facts.cgroup.clone().unwrap_err())
        }),
        ("seccomp", |p| {
            p.live.filters = Err(p.facts.cgroup.clone().unwrap_err())
        }),
        ("core-scheduling", |p| {
            p.live.cookie = Err(p.facts.cgroup.clone().unwrap_err())
        }),
    ];
    for (topic, change) in changes {
        let mut process = sound(Jailed::Vcpu);
        process.facts.cgroup = Err(unread());
        change(&mut process);
        let wrong = process.wrong();
        for id in ["cgroup", topic] {
            let found = wrong.iter().find(|(own, _)| own == id);
            let (_, said) = found.unwrap_or_else(|| panic!("{id}: {wrong:?}"));
            assert!(said.contains("permission denied"), "{id}: {said}");
        }
    }
}

#[test]
fn an_accepted_absence_is_told_and_no_mismatch() {
    let mut process = sound(Jailed::Vcpu);
    for map in process.maps() {
        map.is_sealed = false;
    }
    process.live.cookie = Ok(Some(0));
    assert_eq!(process.wrong().len(), 2);
    process.expected.place.layers_absent = layer::MSEAL | layer::CORE_SCHEDULING;
    assert_eq!(process.wrong(), []);
    let absent = process
        .judged()
        .into_iter()
        .filter(|f| f.state == State::Absent);
    let absent: Vec<String> = absent.map(|f| f.id).collect();
    assert_eq!(absent, ["mseal", "core-scheduling"]);
    // A kernel that gives no filter back: that it is on is still known.
    process.live.filters = Err(Unread {
        source: "ptrace".to_owned(),
        why: "invalid argument".to_owned(),
    });
    assert_eq!(process.wrong().len(), 2);
    process.expected.place.layers_absent |= layer::CORE_SCHEDULING << 1;
    assert_eq!(process.wrong(), []);
    process.status().seccomp = 1;
    assert_eq!(process.wrong()[0].0, "seccomp");
}

#[test]
fn no_core_is_shared_without_siblings() {
    let mut process = sound(Jailed::Vcpu);
    process.live.cookie = Ok(None);
    process.partner_cookie = Some(Ok(None));
    assert_eq!(process.wrong(), []);
}

#[test]
fn a_kernel_without_swap_has_no_limit_of_it() {
    let mut process = sound(Jailed::Vcpu);
    process.cgroup_file("memory.swap.max", None);
    assert_eq!(process.wrong(), []);
}

/// Who stops a process to look at it is the one that traces it then.
#[test]
fn the_reader_alone_may_trace() {
    let mut process = sound(Jailed::Vcpu);
    process.status().tracer = READER;
    assert_eq!(process.wrong(), []);
    process.status().tracer = READER + 1;
    assert_eq!(process.wrong()[0].0, "relations");
}

/// A descriptor of the right kind that is not the keeper's own: another device, another pipe.
#[test]
fn a_descriptor_of_another_file_is_noticed_though_its_kind_fits() {
    let evidence = |process: &Process| {
        let judged = process.judged().into_iter();
        let found = judged.into_iter().find(|f| f.id == "descriptors");
        found.unwrap().evidence
    };
    let mut process = sound(Jailed::Device);
    assert!(evidence(&process).contains("3 the keeper's own (kcmp)"));
    process.live.same[2].1 = Ok(Some(false));
    let wrong = process.wrong();
    assert_eq!(wrong[0].0, "descriptors");
    assert!(
        wrong[0]
            .1
            .contains("not the file that the keeper has opened")
    );

    let mut process = sound(Jailed::Device);
    process.descriptors()[0].file = Ok(OTHER);
    let wrong = process.wrong();
    assert!(
        wrong[0].1.contains("not the one that it was given"),
        "{wrong:?}"
    );

    // Without kcmp the inode is what is left, and of what has none the kind: that is said.
    let mut process = sound(Jailed::Device);
    process
        .live
        .same
        .iter_mut()
        .for_each(|(_, same)| *same = Ok(None));
    if let Held::Exactly(held) = &mut process.expected.descriptors {
        for descriptor in held.iter_mut().filter(|d| d.number == 9) {
            descriptor.given.as_mut().unwrap().file = None;
        }
    }
    assert_eq!(process.wrong(), []);
    let said = evidence(&process);
    assert!(said.contains("2 by device and inode"), "{said}");
    assert!(
        said.contains("1 by kind alone: this kernel has no kcmp"),
        "{said}"
    );
}
