//! What happens to a host between two readings of it is found by the second, although that reads only a part.

use super::{
    Finding, Verdict,
    firing_test::fires,
    fixture_test::{Change, PF, PORT, VF, bdf, host, same},
    judge_function, judge_host,
};
use crate::{
    fake::FakeHost,
    isolation::CheckId,
    sysfs::SysRoot,
    topology::{GroupId, Topology},
};

/// A host in a folder of its own.
pub(super) struct Written {
    pub(super) root: SysRoot,
    _folder: tempfile::TempDir,
}

pub(super) fn write(host: &FakeHost) -> Written {
    let folder = tempfile::tempdir().unwrap();
    Written {
        root: host.clone().at(folder.path()).write().unwrap(),
        _folder: folder,
    }
}

/// All that counts when a function is assigned: what is found of it, and what is refused of the host.
pub(super) fn what_counts(topology: &Topology) -> Vec<Finding> {
    let mut findings = judge_host(topology);
    findings.retain(|finding| finding.verdict == Verdict::Refuse);
    findings.extend(judge_function(topology, bdf(VF), &[bdf(VF)]));
    findings
}

/// What was `before`, read again when it has become `after`; the same read from the start.
fn again(before: &FakeHost, after: &FakeHost) -> (Topology, Topology) {
    let (before, after) = (write(before), write(after));
    let new = Topology::read_to_assign(&after.root).unwrap();
    let mut old = Topology::read_to_assign(&before.root).unwrap();
    // These stay until the next boot.
    old.host.kernel.clone_from(&new.host.kernel);
    old.host.cmdline.clone_from(&new.host.cmdline);
    let again = old.read_again(&after.root, &[bdf(VF)]).unwrap();
    (again, new)
}

fn healthy() -> FakeHost {
    host(same, same, same)
}

#[test]
fn a_check_that_fires_between_two_readings_is_found_by_the_second() {
    for id in CheckId::all() {
        let (fired, ..) = fires(id);
        for (before, after) in [(healthy(), fired.clone()), (fired, healthy())] {
            let (again, new) = again(&before, &after);
            assert_eq!(what_counts(&again), what_counts(&new), "{id}");
        }
    }
}

#[test]
fn what_is_left_out_to_assign_only_warns_of_the_host() {
    for id in CheckId::all() {
        let fired = write(&fires(id).0);
        let whole = Topology::read(&fired.root).unwrap();
        let short = Topology::read_to_assign(&fired.root).unwrap();
        assert_eq!(what_counts(&short), what_counts(&whole), "{id}");
    }
}

/// A host with a second card, and changes of it that are no check's own example.
#[test]
fn changes_around_a_function_are_found() {
    const OTHER_PF: &str = "0000:01:00.1";
    const OTHER_VF: &str = "0000:01:10.1";
    let with = |change: Change| {
        let host = host(same, same, same)
            .pf(OTHER_PF, 14)
            .under(PORT)
            .attribute("sriov_drivers_autoprobe", "0")
            .vf(OTHER_VF, OTHER_PF, 15)
            .device("0000:00:1f.5", 9)
            .bar(0, 0xfd00_0000, 0x1000);
        change(host)
    };
    let before = with(same);
    let changes: &[(&str, Change)] = &[
        ("a member of its group", |host| {
            host.device("0000:00:1e.0", 13)
        }),
        ("the bridge is in a group", |host| {
            host.device("0000:00:02.1", 13)
        }),
        ("a driver of a VF of its card", |host| {
            host.vf("0000:01:10.2", PF, 16).vfio("vfio4")
        }),
        ("a VF of the other PF is identity", |host| {
            host.group_type(15, "identity")
        }),
        ("the other PF is identity", |host| {
            host.group_type(14, "identity")
        }),
        ("a neighbour gets a ROM", |host| {
            host.device("0000:00:1e.0", 8).rom(0xfd00_0800, 0x800)
        }),
    ];
    for (what, change) in changes {
        let (again, new) = again(&before, &with(*change));
        assert_eq!(what_counts(&again), what_counts(&new), "{what}");
    }
}

#[test]
fn what_a_function_is_is_read_anew() {
    let moved = |pf: &str, group| {
        FakeHost::new("")
            .file("dev/kvm", "")
            .bridge(PORT, 1)
            .pf(PF, 12)
            .under(PORT)
            .pf("0000:01:00.1", 14)
            .under(PORT)
            .vf(VF, pf, group)
    };
    let (again, _) = again(&moved(PF, 13), &moved("0000:01:00.1", 17).vfio("vfio9"));
    let vf = &again.functions[&bdf(VF)];
    assert_eq!(vf.physfn, Some(bdf("0000:01:00.1")));
    assert_eq!(vf.group, Some(GroupId(17)));
    assert_eq!(vf.driver.as_deref(), Some("vfio-pci"));
    assert_eq!(vf.vfio_cdev.as_deref(), Some("vfio9"));
    assert_eq!(again.groups[&GroupId(17)].members, [bdf(VF)]);
}

#[test]
fn neighbours_come_go_and_move() {
    let with = |change: Change| change(host(same, same, same));
    let beside: Change = |host| {
        host.device("0000:00:1f.5", 9)
            .bar(0, 0xfe00_0000, 0x1000)
            .device("0000:00:1f.6", 10)
    };
    let moved: Change = |host| host.device("0000:00:1f.5", 9).bar(0, 0xfd00_0000, 0x1000);
    let (again, new) = again(&with(beside), &with(moved));
    let names = |topology: &Topology| topology.functions.keys().copied().collect::<Vec<_>>();
    assert_eq!(names(&again), names(&new));
    let start = |topology: &Topology| topology.functions[&bdf("0000:00:1f.5")].bars[0];
    assert_eq!(start(&again), start(&new));
    assert!(start(&again).is_some());
}

#[test]
fn a_function_that_is_gone_is_not_there_any_more() {
    let without = FakeHost::new("").file("dev/kvm", "").pf(PF, 12);
    let (again, _) = again(&healthy(), &without);
    assert!(!again.functions.contains_key(&bdf(VF)));
    assert!(judge_function(&again, bdf(VF), &[bdf(VF)]).is_empty());
}

#[test]
fn a_host_is_read_again_with_a_fraction_of_the_questions() {
    let many = (0..40).fold(healthy(), |host, at| {
        let address = format!("0000:0{}:{:02x}.0", 2 + at / 20, at % 20);
        host.device(&address, 100 + at)
    });
    let written = write(&many);
    let before = Topology::read_to_assign(&written.root).unwrap();
    let questions = |read: &dyn Fn(&SysRoot)| {
        let root = SysRoot::recording(written.root.as_path());
        read(&root);
        root.questions().unwrap()
    };
    let all = questions(&|root| drop(Topology::read_to_assign(root).unwrap()));
    let few = questions(&|root| drop(before.read_again(root, &[bdf(VF)]).unwrap()));
    assert!(few * 3 < all, "{few} of {all}");
}
