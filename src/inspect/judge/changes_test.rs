//! Each kind of mismatch with the fact that makes it, and no other topic that it touches.

use jailed::manifest::{Role as Jailed, layer};

use super::sound_test::{FILE, PID, Process, UID, sound};
use crate::inspect::facts::Descriptor;

type Change = fn(&mut Process);

/// Changes that one topic has to notice, and what it says.
const CHANGES: &[(&str, &str, Change)] = &[
    (
        "descriptors",
        "descriptor 99 is one too many: /etc/shadow",
        |p| {
            p.descriptors().push(Descriptor {
                number: 99,
                target: "/etc/shadow".to_owned(),
                flags: 0,
                file: Ok(FILE),
            });
        },
    ),
    ("descriptors", "is not there", |p| {
        drop(p.descriptors().remove(0))
    }),
    ("descriptors", "is anon_inode:kvm-vm", |p| {
        p.descriptors()[1].target = "anon_inode:kvm-vm".to_owned();
    }),
    ("descriptors", "is pipe:[", |p| {
        for d in p.descriptors() {
            d.target = "pipe:[7]".to_owned();
            d.flags |= 2;
        }
    }),
    ("mappings", "can be written and run", |p| {
        p.map("[stack]").is_executable = true
    }),
    (
        "mappings",
        "rw-s /memfd:other (deleted) is not meant to be there",
        |p| {
            let mut other = p.map("narrows-ring").clone();
            other.path = "/memfd:other (deleted)".to_owned();
            p.maps().push(other);
        },
    ),
    ("mappings", "shared with the other: ", |p| {
        let ring = p.map("narrows-ring").clone();
        p.maps().push(ring);
    }),
    ("mseal", "is not sealed", |p| {
        p.map("narrows-ring").is_sealed = false
    }),
    ("mseal", "is not sealed", |p| {
        p.map("narrows-x").is_sealed = false
    }),
    ("capabilities", "CapPrm is 0000000000200000", |p| {
        p.status().capabilities[1] = 1 << 21
    }),
    ("capabilities", "CapBnd is 000001ffffffffff", |p| {
        p.status().capabilities[3] = 0x1FF_FFFF_FFFF
    }),
    ("no-new-privs", "NoNewPrivs is 0", |p| {
        p.status().no_new_privs = 0
    }),
    ("uid", "its users are [0, ", |p| p.status().uids[0] = 0),
    ("uid", "its groups are", |p| p.status().gids[3] = 5),
    ("uid", "it is in the groups [4, 27]", |p| {
        p.status().groups = vec![4, 27]
    }),
    ("user-namespace", "is that of the host", |p| {
        p.namespace("user", 4_026_531_000)
    }),
    ("user-namespace", "its uid_map has", |p| {
        p.facts.uid_map.as_mut().unwrap()[0].inside = 0;
    }),
    ("user-namespace", "its gid_map has", |p| {
        p.facts.gid_map = Ok(Vec::new())
    }),
    ("mount-namespace", "is that of the other", |p| {
        p.namespace("mnt", 4_026_533_001)
    }),
    ("mount-namespace", "its root is not empty: etc", |p| {
        p.facts.root = Ok(vec!["etc".to_owned()])
    }),
    ("mount-namespace", "is not ro", |p| {
        drop(p.facts.mounts.as_mut().unwrap()[0].options.remove(0));
    }),
    ("mount-namespace", "it sees 2 mounts", |p| {
        let mounts = p.facts.mounts.as_mut().unwrap();
        mounts.push(mounts[0].clone());
    }),
    ("pid-namespace", "is that of the host", |p| {
        p.namespace("pid", 4_026_531_002)
    }),
    ("pid-namespace", "its ids are [71, 2]", |p| {
        p.facts.status.as_mut().unwrap().pids = vec![PID, 2]
    }),
    ("net-namespace", "is that of the host", |p| {
        p.namespace("net", 4_026_531_003)
    }),
    ("ipc-namespace", "is that of the other", |p| {
        p.namespace("ipc", 4_026_533_004)
    }),
    ("uts-namespace", "is that of the host", |p| {
        p.namespace("uts", 4_026_531_005)
    }),
    ("cgroup-namespace", "is that of the host", |p| {
        p.namespace("cgroup", 4_026_531_006)
    }),
    ("time-namespace", "is that of the host", |p| {
        p.namespace("time", 4_026_531_007)
    }),
    ("cgroup", "it is in /, not in /narrows/web/x", |p| {
        p.facts.cgroup = Ok("/".to_owned())
    }),
    ("cgroup", "it has none of its own", |p| {
        p.expected.place.cgroup = None
    }),
    ("rlimits", "can be raised to 1024", |p| {
        p.facts.limits.as_mut().unwrap()[0].hard = Some(1024)
    }),
    ("rlimits", "is unlimited", |p| {
        p.facts.limits.as_mut().unwrap()[3].soft = None
    }),
    ("rlimits", "is not listed", |p| {
        drop(p.facts.limits.as_mut().unwrap().pop())
    }),
    ("not-dumpable", "belong to user", |p| {
        p.facts.owner = Ok(UID)
    }),
    ("not-dumpable", "mappings of the kinds 0x33", |p| {
        p.facts.coredump_filter = Ok(Some(0x33))
    }),
    (
        "cgroup-limits",
        "pids.max is max; it is meant to be 2",
        |p| p.cgroup_file("pids.max", Some("max")),
    ),
    ("cgroup-limits", "cpu.max is not there", |p| {
        p.cgroup_file("cpu.max", None)
    }),
    ("cgroup-limits", "the guest's memory.max is max", |p| {
        p.cgroup_file("memory.max", Some("max"))
    }),
    ("cgroup-limits", "the guest's memory.swap.max is max", |p| {
        p.cgroup_file("memory.swap.max", Some("max"))
    }),
    ("cgroup-limits", "it has none", |p| {
        p.expected.place.cgroup_limits.clear()
    }),
    ("mappings", "is another file of this name", |p| {
        p.map("narrows-ring").file.1 = 78
    }),
    ("landlock", "this kernel offers 7", |p| {
        p.landlock_offered = Ok(7)
    }),
    ("landlock", "it is under version 1", |p| {
        p.expected.place.landlock = 1
    }),
    ("mdwe", "did not say", |p| {
        p.expected.place.layers_told &= !layer::MDWE
    }),
    ("landlock", "did not say", |p| {
        p.expected.place.layers_told &= !layer::LANDLOCK
    }),
    ("core-scheduling", "shares cores with everybody", |p| {
        p.live.cookie = Ok(Some(0));
        p.partner_cookie = Some(Ok(Some(0)));
    }),
    ("core-scheduling", "do not have the same cookie", |p| {
        p.partner_cookie = Some(Ok(Some(1)))
    }),
    ("relations", "its parent is 1, not 50", |p| {
        p.status().parent = 1
    }),
    ("relations", "process 300 traces it", |p| {
        p.status().tracer = 300
    }),
    ("seccomp", "Seccomp is 0", |p| p.status().seccomp = 0),
    ("seccomp", "it has 1 filters, not 2", |p| {
        // The last filter alone says all that is said: only the count differs.
        drop(p.live.filters.as_mut().unwrap()[1].filters.remove(0));
    }),
    ("seccomp", "filter 0 is another one from instruction", |p| {
        let filter = &mut p.live.filters.as_mut().unwrap()[0].filters[0];
        let last = filter[filter.len() - 1];
        filter.push(last);
    }),
];

#[test]
fn each_mismatch_is_noticed_by_its_topic_alone() {
    for role in [Jailed::Vcpu, Jailed::Device] {
        for (topic, said, change) in CHANGES {
            let mut process = sound(role);
            change(&mut process);
            let wrong = process.wrong();
            let [(id, mismatches)] = wrong.as_slice() else {
                panic!("{role:?}, {topic}: {said}: {wrong:#?}");
            };
            assert_eq!(id, topic, "{mismatches}");
            assert!(mismatches.contains(said), "{topic}: {mismatches}");
        }
    }
}
