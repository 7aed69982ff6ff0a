//! Each kind of mismatch with the fact that makes it, and no other topic that it touches.

use std::sync::Mutex;

use jailed::{
    handoff::Handoff,
    manifest::{Instruction, Role as Jailed, layer},
};

use super::{Finding, Look, State, calls, judge};
use crate::inspect::{
    compare::{
        Comparison,
        compare_test::{filters, guest, supervisors, watched},
    },
    expected::{CgroupLimit, Expected, FileId, GivenFile, Held, Holding, Kind, Mapped, Place},
    facts::{
        CgroupFile, Descriptor, Facts, IdRange, Known, Limit, Map, Mount, NAMESPACES, Status,
        Thread, Unread,
    },
    filter::{Live, ThreadFilters},
};

const UID: u32 = 0x7000_0006;
const PARENT: u32 = 50;
const PID: u32 = 71;

/// A process with all that is known of it.
pub(in crate::inspect) struct Process {
    pub(in crate::inspect) facts: Facts,
    live: Live,
    expected: Expected,
    others: Vec<(String, Vec<Result<u64, Unread>>)>,
    partner_cookie: Option<Result<Option<u64>, Unread>>,
    landlock_offered: Known<u32>,
}

/// The file of every descriptor here.
const FILE: FileId = FileId {
    device: (0, 1),
    inode: 77,
};
/// Another one of the same name.
const OTHER: FileId = FileId {
    device: (0, 1),
    inode: 78,
};
/// The thread that reads.
const READER: u32 = 60;

fn given(number: Option<u32>) -> GivenFile {
    GivenFile {
        number,
        file: Some(FILE),
        keepers: Some(5),
        is_kept: true,
        may_be_closed: false,
    }
}

fn cgroup_limits() -> Vec<CgroupLimit> {
    let limit = |is_guests, file: &str, value: &str, is_optional| CgroupLimit {
        is_guests,
        file: file.to_owned(),
        value: value.to_owned(),
        is_optional,
    };
    vec![
        limit(true, "memory.max", "314572800", false),
        limit(true, "memory.swap.max", "0", true),
        limit(false, "pids.max", "2", false),
        limit(false, "cpu.max", "100000 100000", false),
    ]
}

fn status() -> Status {
    Status {
        parent: PARENT,
        tracer: 0,
        pids: vec![PID, 1],
        uids: [UID; 4],
        gids: [UID; 4],
        groups: Vec::new(),
        capabilities: [0; 5],
        no_new_privs: 1,
        seccomp: 2,
        filters: Some(2),
    }
}

fn thread(tid: u32) -> Thread {
    Thread {
        tid,
        status: Ok(status()),
        is_worker: Ok(false),
    }
}

fn map(at: &mut u64, len_bytes: u64, protection: &str, path: &str, is_sealed: bool) -> Map {
    let start = *at;
    *at += len_bytes;
    let has = |c| protection.contains(c);
    Map {
        start,
        end: *at,
        is_readable: has('r'),
        is_writable: has('w'),
        is_executable: has('x'),
        is_shared: has('s'),
        offset: 0,
        file: ((0, 1), 77),
        path: path.to_owned(),
        is_sealed,
    }
}

fn target(kind: &Kind) -> (String, u32) {
    let (name, flags) = match kind {
        Kind::KvmVm => ("anon_inode:kvm-vm".to_owned(), 0o2_000_002),
        Kind::KvmVfio => ("anon_inode:kvm-vfio".to_owned(), 0o2_000_002),
        Kind::KvmVcpu(index) => (format!("anon_inode:kvm-vcpu:{index}"), 0o2_000_002),
        Kind::VfioDevice => ("anon_inode:[vfio-device]".to_owned(), 0o2),
        Kind::Eventfd => ("anon_inode:[eventfd]".to_owned(), 0o4_002),
        Kind::PipeIn => ("pipe:[911]".to_owned(), 0o4_001),
        Kind::PipeOut => ("pipe:[912]".to_owned(), 0o4_000),
        Kind::Given => ("pipe:[913]".to_owned(), 0),
    };
    (name, flags)
}

/// A process that is what it is meant to be.
pub(in crate::inspect) fn sound(role: Jailed) -> Process {
    let handoff: Handoff = guest(2, 1);
    let place = Place {
        uid: UID,
        parent: Some(PARENT),
        program: "/usr/bin/narrows-x".into(),
        cgroup: Some("/narrows/web/x".to_owned()),
        images: Vec::new(),
        layers_absent: 0,
        layers_told: layer::OWN,
        landlock: 6,
        cgroup_limits: cgroup_limits(),
        // D's console and device, which the keeper has, too.
        given: [7, 8, 9].map(|number| given(Some(number))).into(),
        memory: vec![("/memfd:narrows-ring (deleted)".to_owned(), FILE)],
        watched: None,
    };
    let expected = Expected::jailed(role, &handoff, place);
    let mut at = 0x1000;
    let mut maps = Vec::new();
    for (len_bytes, protection, path, is_sealed) in [
        (0x1000, "r--p", "/usr/bin/narrows-x", true),
        (0x9000, "r-xp", "/usr/bin/narrows-x", true),
        (0x1000, "rw-p", "/usr/bin/narrows-x", false),
        (0x2_0000, "rw-p", "", false),
        (0x2_1000, "rw-p", "[stack]", false),
        (0x4000, "r--p", "[vvar]", false),
        (0x2000, "r-xp", "[vdso]", false),
        (0x1000, "rw-s", "/memfd:narrows-start (deleted)", true),
    ] {
        maps.push(map(&mut at, len_bytes, protection, path, is_sealed));
    }
    let (Holding::Exactly(rows), Held::Exactly(held)) = (&expected.maps, &expected.descriptors)
    else {
        panic!("V and D hold exactly what is listed");
    };
    let fixed = rows.iter().filter(|e| e.len_bytes.is_some()).skip(1);
    for row in fixed {
        let path = match &row.of {
            Mapped::Named(name) => name.as_str(),
            Mapped::VfioDevice => "/dev/vfio/devices/vfio3",
            Mapped::Nothing | Mapped::Like(_) => "",
        };
        maps.push(map(&mut at, row.len_bytes.unwrap(), "rw-s", path, true));
    }
    if role == Jailed::Vcpu {
        maps.push(map(&mut at, 0x3000, "rw-s", "anon_inode:kvm-vcpu:0", true));
    }
    let limits = expected.limits.iter().map(|limit| Limit {
        name: limit.name.to_owned(),
        soft: limit.value,
        hard: limit.value,
    });
    let threads: Vec<Thread> = (0..expected.threads).map(|i| thread(PID + i)).collect();
    let tids: Vec<u32> = threads.iter().map(|t| t.tid).collect();
    let live = tids.into_iter().map(|tid| ThreadFilters {
        tid,
        filters: filters(role, &handoff),
    });
    let alone = IdRange {
        inside: UID,
        outside: UID,
        count: 1,
    };
    let descriptors = held.iter().map(|d| {
        let (target, flags) = target(&d.kind);
        Descriptor {
            number: d.number,
            target,
            flags,
            file: Ok(FILE),
        }
    });
    Process {
        facts: Facts {
            pid: PID,
            status: Ok(status()),
            descriptors: Ok(descriptors.collect()),
            maps: Ok(maps),
            limits: Ok(limits.collect()),
            namespaces: (0..8).map(|i| Ok(4_026_532_000 + i)).collect(),
            cgroup: Ok("/narrows/web/x".to_owned()),
            cgroup_files: cgroup_limits()
                .into_iter()
                .map(|limit| CgroupFile {
                    is_guests: limit.is_guests,
                    file: match limit.file.as_str() {
                        "memory.max" => "memory.max",
                        "memory.swap.max" => "memory.swap.max",
                        "pids.max" => "pids.max",
                        _ => "cpu.max",
                    },
                    content: Ok(Some(limit.value)),
                })
                .collect(),
            root: Ok(Vec::new()),
            mounts: Ok(vec![Mount {
                place: "/".to_owned(),
                kind: "tmpfs".to_owned(),
                options: ["ro", "nosuid", "nodev", "noexec", "relatime"]
                    .map(str::to_owned)
                    .to_vec(),
            }]),
            uid_map: Ok(vec![alone]),
            gid_map: Ok(vec![alone]),
            owner: Ok(0),
            coredump_filter: Ok(Some(0)),
            threads: Ok(threads),
        },
        live: Live {
            filters: Ok(live.collect()),
            cookie: Ok(Some(0xC00C)),
            same: [7, 8, 9].map(|number| (number, Ok(Some(true)))).into(),
        },
        expected,
        others: [("the host", 4_026_531_000), ("the other", 4_026_533_000)]
            .map(|(whose, first)| (whose.to_owned(), (first..first + 8).map(Ok).collect()))
            .to_vec(),
        partner_cookie: Some(Ok(Some(0xC00C))),
        landlock_offered: Ok(6),
    }
}

/// S in its own jail, or as a service.
fn supervisor(is_service: bool) -> Process {
    let mut process = sound(Jailed::Device);
    let place = Place {
        parent: None,
        memory: Vec::new(),
        watched: (!is_service).then(watched),
        given: match is_service {
            true => vec![given(None)],
            false => watched()
                .numbers()
                .into_iter()
                .map(|number| given(Some(number)))
                .collect(),
        },
        ..process.expected.place
    };
    process.expected = Expected::supervisor(place);
    let facts = &mut process.facts;
    facts.threads = Ok(vec![Thread {
        status: Ok(Status {
            filters: Some(1),
            ..status()
        }),
        ..thread(PID)
    }]);
    process.live.filters = Ok(vec![ThreadFilters {
        tid: PID,
        filters: supervisors(),
    }]);
    process.live.same = Vec::new();
    let mut at = 0x1000;
    facts.maps = Ok(vec![map(
        &mut at,
        0x9000,
        "r-xp",
        "/usr/bin/narrows",
        false,
    )]);
    let limits = process.expected.limits.iter().map(|limit| Limit {
        name: limit.name.to_owned(),
        soft: limit.value,
        hard: limit.value,
    });
    facts.limits = Ok(limits.collect());
    let numbers = watched().numbers().into_iter();
    let descriptors = numbers.map(|number| Descriptor {
        number,
        target: "pipe:[77]".to_owned(),
        flags: 0o2,
        file: Ok(FILE),
    });
    facts.descriptors = Ok(descriptors.collect());
    process
}

/// What filters come to, remembered: most changes below leave them as they are.
fn compared(live: &Live, expected: &Expected) -> Known<Vec<(u32, Comparison)>> {
    type Remembered = (Vec<ThreadFilters>, usize, Vec<(u32, Comparison)>);
    static SEEN: Mutex<Vec<Remembered>> = Mutex::new(Vec::new());
    let filters = live.filters.clone()?;
    let rules = expected.rules.len();
    let mut seen = SEEN.lock().unwrap();
    if let Some((.., known)) = seen.iter().find(|s| s.0 == filters && s.1 == rules) {
        return Ok(known.clone());
    }
    let found = calls::comparisons(live, expected)?;
    seen.push((filters, rules, found.clone()));
    Ok(found)
}

impl Process {
    fn judged(&self) -> Vec<Finding> {
        let comparisons = compared(&self.live, &self.expected);
        judge(&Look {
            facts: &self.facts,
            live: &self.live,
            comparisons: &comparisons,
            expected: &self.expected,
            others: &self.others,
            partner_cookie: self.partner_cookie.as_ref(),
            landlock_offered: &self.landlock_offered,
            reader: READER,
        })
    }

    /// The topics that do not match, with what they say.
    fn wrong(&self) -> Vec<(String, String)> {
        let wrong = self
            .judged()
            .into_iter()
            .filter(|f| f.state == State::Mismatch);
        wrong.map(|f| (f.id, f.mismatches.join("; "))).collect()
    }

    fn status(&mut self) -> &mut Status {
        let threads = self.facts.threads.as_mut().unwrap();
        threads[1].status.as_mut().unwrap()
    }

    fn maps(&mut self) -> &mut Vec<Map> {
        self.facts.maps.as_mut().unwrap()
    }

    fn map(&mut self, path: &str) -> &mut Map {
        self.maps()
            .iter_mut()
            .find(|map| map.path.contains(path))
            .unwrap()
    }

    fn descriptors(&mut self) -> &mut Vec<Descriptor> {
        self.facts.descriptors.as_mut().unwrap()
    }

    fn cgroup_file(&mut self, name: &str, content: Option<&str>) {
        let mut files = self.facts.cgroup_files.iter_mut();
        let file = files.find(|file| file.file == name).unwrap();
        file.content = Ok(content.map(str::to_owned));
    }

    fn namespace(&mut self, name: &str, inode: u64) {
        let index = NAMESPACES.iter().position(|known| *known == name).unwrap();
        self.facts.namespaces[index] = Ok(inode);
    }
}

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
    let changes: [(&str, &str, Change); 6] = [
        ("descriptors", "descriptor 9 is one too many", |p| {
            let mut more = p.descriptors()[0].clone();
            more.number = 9;
            p.descriptors().push(more);
        }),
        ("descriptors", "is not there", |p| {
            drop(p.descriptors().pop())
        }),
        ("descriptors", "not the one that it was given", |p| {
            p.descriptors()[1].file = Ok(OTHER)
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
