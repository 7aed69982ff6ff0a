//! Processes that are what they are meant to be, made up, for tests that change one fact.

use std::sync::Mutex;

use jailed::{
    handoff::Handoff,
    manifest::{Role as Jailed, layer},
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

pub(super) const UID: u32 = 0x7000_0006;
const PARENT: u32 = 50;
pub(super) const PID: u32 = 71;

/// A process with all that is known of it.
pub(super) struct Process {
    pub(super) facts: Facts,
    pub(super) live: Live,
    pub(super) expected: Expected,
    pub(super) others: Vec<(String, Vec<Result<u64, Unread>>)>,
    pub(super) partner_cookie: Option<Result<Option<u64>, Unread>>,
    pub(super) landlock_offered: Known<u32>,
}

/// The file of every descriptor here.
pub(super) const FILE: FileId = FileId {
    device: (0, 1),
    inode: 77,
};
/// Another one of the same name.
pub(super) const OTHER: FileId = FileId {
    device: (0, 1),
    inode: 78,
};
/// The thread that reads.
pub(super) const READER: u32 = 60;

fn given(number: Option<u32>) -> GivenFile {
    GivenFile {
        number,
        file: Some(FILE),
        name: None,
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

pub(super) fn status() -> Status {
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

pub(super) fn thread(tid: u32) -> Thread {
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
pub(super) fn sound(role: Jailed) -> Process {
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
        let [protection] = row.protections else {
            panic!("what has a length has one protection");
        };
        maps.push(map(&mut at, row.len_bytes.unwrap(), protection, path, true));
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
pub(super) fn supervisor(is_service: bool) -> Process {
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
    pub(super) fn judged(&self) -> Vec<Finding> {
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
    pub(super) fn wrong(&self) -> Vec<(String, String)> {
        let wrong = self
            .judged()
            .into_iter()
            .filter(|f| f.state == State::Mismatch);
        wrong.map(|f| (f.id, f.mismatches.join("; "))).collect()
    }

    pub(super) fn status(&mut self) -> &mut Status {
        let threads = self.facts.threads.as_mut().unwrap();
        threads[1].status.as_mut().unwrap()
    }

    pub(super) fn maps(&mut self) -> &mut Vec<Map> {
        self.facts.maps.as_mut().unwrap()
    }

    pub(super) fn map(&mut self, path: &str) -> &mut Map {
        self.maps()
            .iter_mut()
            .find(|map| map.path.contains(path))
            .unwrap()
    }

    pub(super) fn descriptors(&mut self) -> &mut Vec<Descriptor> {
        self.facts.descriptors.as_mut().unwrap()
    }

    pub(super) fn cgroup_file(&mut self, name: &str, content: Option<&str>) {
        let mut files = self.facts.cgroup_files.iter_mut();
        let file = files.find(|file| file.file == name).unwrap();
        file.content = Ok(content.map(str::to_owned));
    }

    pub(super) fn namespace(&mut self, name: &str, inode: u64) {
        let index = NAMESPACES.iter().position(|known| *known == name).unwrap();
        self.facts.namespaces[index] = Ok(inode);
    }
}
