//! Folders like `/proc/PID`, made here, and what is read from them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{
    CgroupFile, Descriptor, FileId, IdRange, Limit, Mount, NAMESPACES, Proc, Status, maps, places,
    status,
};

use crate::sys::filtered::sleeper;

const STATUS: &str = "Name:\tnarrows-device\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t71\nNgid:\t0\nPid:\t71\nPPid:\t50\n\
TracerPid:\t0\nUid:\t9\t9\t9\t9\nGid:\t8\t8\t8\t8\nFDSize:\t64\nGroups:\t \nNStgid:\t71\t1\nNSpid:\t71\t1\n\
NSpgid:\t71\t1\nThreads:\t2\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000001\nCapEff:\t0000000000000002\n\
CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000004\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n";
/// A program may call itself what it likes.
const STAT: &str = "71 (a) R 1 (b)) S 50 71 71 0 -1 4194560 85 0 0 0 0 0 0 0 20 0 2 0 4711 1 2 3\n";
const WORKER: &str =
    "72 (kvm-nx-lpage-re) S 50 71 71 0 -1 16640 85 0 0 0 0 0 0 0 20 0 2 0 4712 1 2 3\n";
const SMAPS: &str = "5000-7000 r-xp 00001000 fe:00 77                    /usr/bin/a program\nSize: 8 kB\n\
VmFlags: rd ex mr mw me sl \n200000000000-200000001000 rw-s 00000000 00:01 2050     /memfd:narrows-start (deleted)\n\
KernelPageSize: 4 kB\nVmFlags: rd wr sh mr mw me ms \n7000000-7001000 ---p 00000000 00:00 0 \nVmFlags: mr mw me\n";
const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
Max cpu time              unlimited            unlimited            seconds   \n\
Max open files            37                   4096                 files     \n";

/// What `maps` has of `smaps`.
fn heads(smaps: &str) -> String {
    let is_head = |line: &&str| !line.split(' ').next().unwrap().ends_with(':');
    smaps
        .lines()
        .filter(is_head)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Process `pid` of `root`, with the seals that it had before.
fn read(root: &Path, pid: u32) -> super::Facts {
    let proc = Proc::new(root, root.join("cgroups"));
    proc.read(pid, &proc.seals(pid))
}

/// A folder with process 71.
fn made(name: &str) -> PathBuf {
    let root = std::env::temp_dir().join(format!("narrows-facts-{name}-{}", std::process::id()));
    drop(fs::remove_dir_all(&root));
    let process = root.join("71");
    for folder in ["fd", "fdinfo", "ns", "task/71", "task/72", "root"] {
        fs::create_dir_all(process.join(folder)).unwrap();
    }
    let write = |name: &str, text: &str| fs::write(process.join(name), text).unwrap();
    for place in ["", "task/71/", "task/72/"] {
        write(&format!("{place}status"), STATUS);
    }
    write("stat", STAT);
    write("task/71/stat", STAT);
    write("task/72/stat", WORKER);
    write("smaps", SMAPS);
    write("maps", &heads(SMAPS));
    write("limits", LIMITS);
    write("cgroup", "1:name=x:/elsewhere\n0::/narrows/web/device\n");
    write(
        "mountinfo",
        "43 42 0:31 / / ro,nosuid,nodev,noexec,relatime - tmpfs narrows ro,size=4k\n",
    );
    write("uid_map", "         9          9          1\n");
    write("gid_map", "         8          8          1\n");
    write("coredump_filter", "00000033\n");
    write("fdinfo/9", "pos:\t0\nflags:\t0104001\nmnt_id:\t15\n");
    symlink("pipe:[911]", process.join("fd/9")).unwrap();
    let own = root.join("cgroups/narrows/web/device");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("pids.max"), "2\n").unwrap();
    fs::write(own.join("cpu.max"), "100000 100000\n").unwrap();
    fs::write(own.join("../memory.max"), "4096\n").unwrap();
    write("fdinfo/10", "pos:\t0\nflags:\t02\n");
    symlink("anon_inode:[eventfd]", process.join("fd/10")).unwrap();
    for (index, name) in NAMESPACES.iter().enumerate() {
        symlink(format!("{name}:[{index}]"), process.join("ns").join(name)).unwrap();
    }
    root
}

#[test]
fn a_folder_is_read_into_facts() {
    let root = made("whole");
    let facts = read(&root, 71);
    assert_eq!(Proc::new(&root, "").started(71), Ok(4711));
    let expected = Status {
        parent: 50,
        tracer: 0,
        pids: vec![71, 1],
        uids: [9; 4],
        gids: [8; 4],
        groups: Vec::new(),
        capabilities: [0, 1, 2, 0x1FF_FFFF_FFFF, 4],
        no_new_privs: 1,
        seccomp: 2,
        filters: Some(2),
    };
    assert_eq!(facts.status.as_ref(), Ok(&expected));
    let threads = facts.threads.unwrap();
    let workers: Vec<_> = threads
        .iter()
        .map(|t| (t.tid, t.is_worker.clone()))
        .collect();
    assert_eq!(workers, [(71, Ok(false)), (72, Ok(true))]);
    let descriptors = [
        (9, "pipe:[911]", 0o104_001),
        (10, "anon_inode:[eventfd]", 0o2),
    ];
    for (found, (number, target, flags)) in facts.descriptors.unwrap().iter().zip(descriptors) {
        let Descriptor { file, .. } = found;
        // The links of this folder lead nowhere, which is told of the file alone.
        assert!(file.is_err(), "{file:?}");
        let found = (found.number, found.target.as_str(), found.flags);
        assert_eq!(found, (number, target, flags));
    }
    let maps = facts.maps.unwrap();
    assert_eq!(maps.len(), 3);
    assert_eq!(maps[0].path, "/usr/bin/a program");
    assert_eq!(
        (maps[0].start, maps[0].end, maps[0].offset),
        (0x5000, 0x7000, 0x1000)
    );
    assert!(maps[0].is_executable && maps[0].is_sealed && !maps[0].is_writable);
    assert_eq!(maps[1].path, "/memfd:narrows-start (deleted)");
    assert!(maps[1].is_shared && maps[1].is_writable && !maps[1].is_sealed);
    assert_eq!(maps[2].path, "");
    let limits = facts.limits.unwrap();
    assert_eq!(
        limits[0],
        Limit {
            name: "Max cpu time".to_owned(),
            soft: None,
            hard: None
        }
    );
    assert_eq!(
        limits[1],
        Limit {
            name: "Max open files".to_owned(),
            soft: Some(37),
            hard: Some(4096)
        }
    );
    assert_eq!(facts.namespaces, (0..8).map(Ok).collect::<Vec<_>>());
    assert_eq!(facts.cgroup.as_deref(), Ok("/narrows/web/device"));
    let limit = |is_guests, file, content: Option<&str>| CgroupFile {
        is_guests,
        file,
        content: Ok(content.map(str::to_owned)),
    };
    for meant in [
        limit(false, "pids.max", Some("2")),
        limit(false, "cpu.max", Some("100000 100000")),
        limit(false, "memory.max", None),
        limit(true, "memory.max", Some("4096")),
        limit(true, "memory.swap.max", None),
    ] {
        assert!(
            facts.cgroup_files.contains(&meant),
            "{:?}",
            facts.cgroup_files
        );
    }
    assert_eq!(facts.root, Ok(Vec::new()));
    let options = ["ro", "nosuid", "nodev", "noexec", "relatime"];
    let mount = Mount {
        place: "/".to_owned(),
        kind: "tmpfs".to_owned(),
        options: options.map(str::to_owned).to_vec(),
    };
    assert_eq!(facts.mounts, Ok(vec![mount]));
    assert_eq!(
        facts.uid_map,
        Ok(vec![IdRange {
            inside: 9,
            outside: 9,
            count: 1
        }])
    );
    assert_eq!(facts.coredump_filter, Ok(Some(0x33)));
    fs::remove_file(root.join("71/coredump_filter")).unwrap();
    let facts = read(&root, 71);
    assert_eq!(facts.coredump_filter, Ok(None));
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_process_that_is_not_there_is_unread_in_everything() {
    let root = made("absent");
    let facts = read(&root, 70);
    let unread = facts.status.unwrap_err();
    assert!(unread.source.ends_with("/70/status"), "{unread:?}");
    assert!(facts.maps.is_err() && facts.threads.is_err() && facts.root.is_err());
    assert!(facts.coredump_filter.is_err());
    assert!(facts.namespaces.iter().all(Result::is_err));
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn what_is_longer_than_it_can_be_is_unread() {
    let root = made("long");
    fs::write(root.join("71/cgroup"), vec![b'x'; 300 << 10]).unwrap();
    let facts = read(&root, 71);
    let why = facts.cgroup.unwrap_err().why;
    assert!(why.contains("longer than"), "{why}");
    assert!(facts.cgroup_files.iter().all(|file| file.content.is_err()));
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_name_that_is_no_number_is_unread() {
    let root = made("names");
    fs::write(root.join("71/fd/x"), "").unwrap();
    let why = read(&root, 71).descriptors.unwrap_err().why;
    assert!(why.contains("no number"), "{why}");
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn what_reads_otherwise_is_not_guessed() {
    for (from, to) in [
        ("PPid:\t50", "PPid:\tx"),
        ("TracerPid:\t0\n", ""),
        ("Uid:\t9\t9\t9\t9", "Uid:\t9\t9\t9"),
        ("CapEff:\t0000000000000002", "CapEff:\tnone"),
        ("Seccomp:\t2\n", ""),
        ("Seccomp_filters:\t2", "Seccomp_filters:\t-1"),
        ("NoNewPrivs:\t1", "NoNewPrivs:\t1 1"),
    ] {
        assert!(STATUS.contains(from));
        assert_eq!(Status::parse(&STATUS.replace(from, to)), None, "{from}");
    }
    // A kernel before 5.9 does not count filters.
    let older = Status::parse(&STATUS.replace("Seccomp_filters:\t2\n", ""));
    assert_eq!(older.unwrap().filters, None);
    for (from, to) in [
        ("VmFlags: rd ex mr mw me sl \n", ""),
        ("r-xp", "r-xz"),
        ("5000-7000", "7000-7000"),
        ("5000-7000", "50007000"),
        ("fe:00", "fe00"),
    ] {
        assert!(
            maps::with_flags(&SMAPS.replacen(from, to, 1)).is_none(),
            "{from}"
        );
    }
    assert!(maps::with_flags("VmFlags: rd\n").is_none());
    assert!(maps::parse("VmFlags: rd\n").is_none());
    assert!(places::limits("Max open files 1 2\n").is_none());
    assert!(places::limits(&LIMITS.replace("4096", "many")).is_none());
    assert!(places::cgroup("1:name=x:/a\n").is_none());
    assert!(places::cgroup("0::a\n").is_none());
    assert!(places::mounts("43 42 0:31 / / ro\n").is_none());
    assert!(places::id_ranges("0 0\n").is_none());
    assert!(places::namespace("net", "mnt:[5]").is_none());
    assert!(places::descriptor_flags("pos: 0\n").is_none());
    assert!(status::started("71 (x) S 50\n").is_none());
    assert!(status::is_worker("").is_none());
}

/// A seal that was read before counts for the very same mapping, and for no other at its place.
#[test]
fn a_seal_is_that_of_the_mapping_it_was_read_of() {
    let root = made("seals");
    let sealed = |maps: &str| {
        fs::write(root.join("71/maps"), maps).unwrap();
        let maps = read(&root, 71).maps.unwrap();
        maps.iter().map(|map| map.is_sealed).collect::<Vec<_>>()
    };
    let heads = heads(SMAPS);
    assert_eq!(sealed(&heads), [true, false, false]);
    for (from, to) in [
        ("r-xp", "rwxp"),
        ("/usr/bin/a program", "/usr/bin/another"),
        ("fe:00 77", "fe:00 78"),
        ("5000-7000", "5000-6000"),
    ] {
        assert!(heads.contains(from));
        assert!(!sealed(&heads.replace(from, to))[0], "{from}");
    }
    fs::remove_file(root.join("71/smaps")).unwrap();
    assert!(read(&root, 71).maps.is_err());
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_file_is_known_by_device_and_inode() {
    let root = made("files");
    fs::write(root.join("one"), "").unwrap();
    fs::write(root.join("other"), "").unwrap();
    fs::hard_link(root.join("one"), root.join("again")).unwrap();
    let of = |name: &str| FileId::of(&root.join(name)).unwrap();
    assert_eq!(of("one"), of("again"));
    assert_ne!(of("one"), of("other"));
    fs::remove_dir_all(root).unwrap();
}

/// Everything of a process can be read: of a child that does nothing, and not of this process, in which the threads of other
/// tests begin, end, map and open while it is read.
#[test]
fn a_process_can_be_read_from_the_kernel() {
    let mut child = sleeper(&[]).unwrap();
    let proc = Proc::new("/proc", "/sys/fs/cgroup");
    let facts = proc.read(child.id(), &proc.seals(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        facts.status.unwrap().uids[0],
        rustix::process::getuid().as_raw()
    );
    let maps = facts.maps.unwrap();
    assert!(maps.iter().any(|map| map.is_executable && map.file.1 != 0));
    let limits = facts.limits.unwrap();
    assert!(limits.iter().any(|limit| limit.name == "Max open files"));
    let threads = facts.threads.unwrap();
    assert_eq!(threads.len(), 1);
    assert!(threads[0].status.is_ok() && threads[0].is_worker == Ok(false));
    for descriptor in facts.descriptors.unwrap() {
        assert!(descriptor.file.is_ok(), "{descriptor:?}");
    }
    assert!(facts.mounts.is_ok() && facts.uid_map.is_ok() && facts.gid_map.is_ok());
    assert!(facts.root.is_ok() && facts.owner.is_ok() && facts.coredump_filter.is_ok());
    let namespaces = facts.namespaces.iter().flatten();
    assert!(namespaces.count() >= 6, "{:?}", facts.namespaces);
}
