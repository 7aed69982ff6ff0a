//! The jail of V and D, as the host sees it: read from `/proc` and from the cgroup file system while a guest runs, and
//! what is left of it afterwards.

mod inspect;
mod resets;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::{
        fd::AsFd,
        unix::{fs::MetadataExt, process::ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use narrows::{
    jail::{
        Descriptors, Ids, Jail, Member, Program, Size, Wish,
        own::{self, KEEPER, Own},
        seccomp::{self, SupervisorFds},
    },
    layers::LayerSet,
    state::State,
};
use rustix::{
    fs::{XattrFlags, setxattr},
    thread::CapabilitySet,
};

use crate::{
    guest::{Guest, GuestFile},
    host,
};

const PROGRAMS: [&str; 2] = ["narrows-vcpu", "narrows-device"];
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
/// The first uid that guests get.
const FIRST_ID: u32 = 0x7000_0000;
const CGROUPS: &str = "/sys/fs/cgroup";

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn of_process(pid: u32, name: &str) -> String {
    read(format!("/proc/{pid}/{name}"))
}

/// The words behind a key of `/proc/PID/status`.
fn status(pid: u32, key: &str) -> Vec<String> {
    let text = of_process(pid, "status");
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let line = line.unwrap_or_else(|| panic!("no {key} in {text}"));
    line.split_whitespace().map(str::to_owned).collect()
}

/// The soft and hard limit in a line of `/proc/PID/limits`.
fn limit(pid: u32, key: &str) -> (String, String) {
    let text = of_process(pid, "limits");
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let line = line.unwrap_or_else(|| panic!("no {key} in {text}"));
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

/// How many processors the cgroup `folder` may use: a busy kernel doubles quota and period of `cpu.max` alike.
fn processors_of(folder: &Path) -> u64 {
    let text = read(folder.join("cpu.max"));
    let numbers: Vec<u64> = text
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    let [quota, period] = numbers[..] else {
        panic!("{text}")
    };
    assert_eq!(quota % period, 0, "{text}");
    quota / period
}

fn namespace(pid: u32, name: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap()
}

/// A guest that runs, with the ids of V and D.
fn running(file: &GuestFile) -> (Guest, [u32; 2]) {
    let mut guest = file.start();
    guest.wait_for("GUEST init=yes");
    let pids = PROGRAMS.map(|program| guest.child_pid(program));
    (guest, pids)
}

fn stop(guest: Guest) {
    guest.signal("TERM");
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(25), "{}", transcript.text());
}

/// Fails unless no cgroup of guests is there, and nobody has the first users.
fn assert_all_given_back() {
    let left = host::shell("find /sys/fs/cgroup/narrows -mindepth 1 -type d 2>/dev/null || true");
    assert_eq!(left, "");
    let slot = fs::File::open("/var/lib/narrows/uids/0").unwrap();
    let locked = rustix::fs::flock(&slot, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    assert_eq!(locked, Ok(()), "the first users are still taken");
}

#[test]
#[ignore = "needs a lab host"]
fn processes_have_users_of_their_own_and_no_privilege() {
    let file = GuestFile::small("jail-user", "sleep:60").device(&host::nic(0));
    let (guest, pids) = running(&file);
    for (pid, role) in pids.into_iter().zip([2, 1]) {
        let id = (FIRST_ID + role).to_string();
        for key in ["Uid:", "Gid:"] {
            assert_eq!(status(pid, key), vec![id.clone(); 4], "{key}");
        }
        assert_eq!(status(pid, "Groups:"), Vec::<String>::new());
        for key in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(status(pid, key), ["0000000000000000"], "{key}");
        }
        assert_eq!(status(pid, "NoNewPrivs:"), ["1"]);
        assert_eq!(status(pid, "Seccomp:"), ["2"]);
        // Not dumpable: its files in /proc are root's, and not its own.
        let owner = fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid();
        assert_eq!(owner, 0);
        for map in ["uid_map", "gid_map"] {
            let words: Vec<String> = of_process(pid, map)
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            assert_eq!(words, [id.as_str(), id.as_str(), "1"], "{map}");
        }
        assert_eq!(of_process(pid, "setgroups").trim(), "deny");
    }
    stop(guest);
    host::assert_returned(&host::nic(0));
    assert_all_given_back();
}

#[test]
#[ignore = "needs a lab host"]
fn processes_share_no_namespace_with_the_host_or_each_other() {
    let (guest, pids) = running(&GuestFile::small("jail-namespaces", "sleep:60"));
    let host = NAMESPACES.map(|name| namespace(1, name));
    for (name, host) in NAMESPACES.iter().zip(&host) {
        let mut seen = BTreeSet::from([host.clone()]);
        for pid in pids {
            assert!(seen.insert(namespace(pid, name)), "{name} of {pid}");
        }
    }
    for pid in pids {
        // Its own number, last, is that of the first process of its namespace, and there is no other.
        assert_eq!(status(pid, "NSpid:").last().unwrap(), "1");
        let net = of_process(pid, "net/dev");
        let interfaces: Vec<&str> = net.lines().skip(2).collect();
        assert_eq!(interfaces.len(), 1, "{net}");
        let flags = host::shell(&format!("nsenter -t {pid} -n ip link show lo"));
        assert!(flags.contains("<LOOPBACK>"), "{flags}");
    }
    stop(guest);
    assert_all_given_back();
}

#[test]
#[ignore = "needs a lab host"]
fn the_root_is_empty_and_cannot_be_written() {
    let (guest, pids) = running(&GuestFile::small("jail-root", "sleep:60"));
    for pid in pids {
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        let error = fs::write(root.join("x"), "").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/cwd")).unwrap(),
            Path::new("/")
        );
        let mounts = of_process(pid, "mountinfo");
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        for word in ["ro", "nosuid", "nodev", "noexec"] {
            let options = mounts.split_whitespace().nth(5).unwrap();
            assert!(options.split(',').any(|o| o == word), "{mounts}");
        }
    }
    stop(guest);
}

#[test]
#[ignore = "needs a lab host"]
fn limits_hold_each_process_to_what_it_needs() {
    let file = GuestFile::small("jail-limits", "sleep:60").vcpus(2);
    let (guest, pids) = running(&file);
    for (pid, threads) in pids.into_iter().zip(["3", "2"]) {
        let zero = ("0".to_owned(), "0".to_owned());
        for key in [
            "Max file size",
            "Max core file size",
            "Max locked memory",
            "Max msgqueue size",
            "Max pending signals",
            "Max realtime priority",
        ] {
            assert_eq!(limit(pid, key), zero, "{key}");
        }
        let files: u32 = limit(pid, "Max open files").1.parse().unwrap();
        assert!(files <= 64, "{files} descriptors");
        let processes: u32 = limit(pid, "Max processes").1.parse().unwrap();
        assert!(processes <= threads.parse().unwrap(), "{processes} threads");
    }
    for (member, threads, processors) in [("vcpu", "3", 2), ("device", "2", 1)] {
        let folder = Path::new(CGROUPS).join("narrows/jail-limits").join(member);
        assert_eq!(read(folder.join("pids.max")).trim(), threads);
        assert_eq!(processors_of(&folder), processors);
        assert_eq!(read(folder.join("memory.oom.group")).trim(), "1");
        let most: u64 = read(folder.join("memory.max")).trim().parse().unwrap();
        assert!(most < 64 << 20, "{member}: {most}");
    }
    // S and K; V and D started in cgroups of their own.
    let folder = Path::new(CGROUPS).join("narrows/jail-limits/supervisor");
    assert_eq!(read(folder.join("pids.max")).trim(), "2");
    assert_eq!(processors_of(&folder), 2);
    let whole = Path::new(CGROUPS).join("narrows/jail-limits/memory.max");
    let most: u64 = read(whole).trim().parse().unwrap();
    assert!(most > 128 << 20 && most < 300 << 20, "{most}");
    for (pid, member) in pids.into_iter().zip(["vcpu", "device"]) {
        let expected = format!("0::/narrows/jail-limits/{member}\n");
        assert_eq!(of_process(pid, "cgroup"), expected);
    }
    assert_eq!(
        of_process(guest.pid(), "cgroup"),
        "0::/narrows/jail-limits/supervisor\n"
    );
    // RAM is charged to the guest, and not to whoever started it.
    let charged = Path::new(CGROUPS).join("narrows/jail-limits/supervisor/memory.current");
    let charged: u64 = read(charged).trim().parse().unwrap();
    assert!(charged > 128 << 20, "{charged}");
    stop(guest);
    assert_all_given_back();
}

#[test]
#[ignore = "needs a lab host"]
fn two_guests_are_different_users() {
    let (one, first) = running(&GuestFile::small("jail-one", "sleep:90"));
    let (other, second) = running(&GuestFile::small("jail-other", "sleep:90"));
    let users: BTreeSet<String> = first
        .into_iter()
        .chain(second)
        .flat_map(|pid| status(pid, "Uid:"))
        .collect();
    assert_eq!(users.len(), 4, "{users:?}");
    // A third of the same name has no cgroup to go to, and is refused before it looks for one.
    let text = GuestFile::small("jail-one", "sleep:90").refused(3);
    assert!(text.contains("error[guest-name-taken]"), "{text}");
    stop(one);
    stop(other);
    assert_all_given_back();
}

#[test]
#[ignore = "needs a lab host"]
fn what_a_killed_keeper_leaves_is_taken_over_by_the_next_run() {
    let file = GuestFile::small("jail-killed", "sleep:90");
    let (guest, pids) = running(&file);
    host::shell(&format!("kill -KILL {}", guest.keeper_pid()));
    let (status, transcript) = guest.end();
    assert_ne!(status.code(), Some(0), "{}", transcript.text());
    for pid in pids {
        // The supervisor may see the keeper's end before the kernel has taken these apart.
        let folder = format!("/proc/{pid}");
        for _ in 0..400 {
            if !Path::new(&folder).exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        assert!(!Path::new(&folder).exists(), "{pid} outlives K");
    }
    // Nobody was there to remove it.
    assert!(Path::new(CGROUPS).join("narrows/jail-killed").exists());
    let (guest, _) = running(&file);
    stop(guest);
    assert_all_given_back();
}

/// Sets a limit of namespaces for as long as it lives.
struct NamespaceLimit {
    path: String,
    before: String,
}

impl NamespaceLimit {
    fn of(kind: &str, most: &str) -> Self {
        let path = format!("/proc/sys/user/max_{kind}_namespaces");
        let before = read(&path);
        fs::write(&path, most).unwrap();
        Self { path, before }
    }
}

impl Drop for NamespaceLimit {
    fn drop(&mut self) {
        fs::write(&self.path, &self.before).unwrap();
    }
}

#[test]
#[ignore = "needs a lab host"]
fn absent_layer_is_refused_and_nothing_is_touched() {
    let limit = NamespaceLimit::of("time", "0");
    let file = GuestFile::small("jail-absent", "sleep:60").device(&host::nic(0));
    let text = file.refused(3);
    assert!(text.contains("error[layer-absent]"), "{text}");
    assert!(text.contains("max_time_namespaces: 0"), "{text}");
    host::assert_returned(&host::nic(0));
    // Named in the guest file, it is told at every start and nothing else changes.
    let file = file.table("[sandbox]\nwithout = [\"time-namespace\"]");
    let mut guest = file.start();
    guest.wait_for("warning[layer-absent]");
    guest.wait_for("GUEST init=yes");
    let pid = guest.child_pid("narrows-vcpu");
    assert_eq!(namespace(pid, "time"), namespace(1, "time"));
    assert_ne!(namespace(pid, "mnt"), namespace(1, "mnt"));
    stop(guest);
    // On a kernel that has it, it is there all the same.
    drop(limit);
    let (guest, [pid, _]) = running(&file);
    assert_ne!(namespace(pid, "time"), namespace(1, "time"));
    stop(guest);
    // What every kernel has is not to be given up.
    let limit = NamespaceLimit::of("net", "0");
    let text = GuestFile::small("jail-net", "sleep:60").refused(3);
    assert!(text.contains("no guest may run without it"), "{text}");
    drop(limit);
}

/// S and D get the last network namespaces, V none: the step is named, and all is given back.
#[test]
#[ignore = "needs a lab host"]
fn a_step_that_fails_is_named_and_all_is_given_back() {
    let limit = NamespaceLimit::of("net", "2");
    let text = GuestFile::small("jail-step", "sleep:60")
        .device(&host::nic(0))
        .refused(1);
    drop(limit);
    assert!(text.contains("error[jail-failed]"), "{text}");
    assert!(text.contains("narrows-vcpu"), "{text}");
    assert!(text.contains("unshare of the network namespace"), "{text}");
    host::assert_returned(&host::nic(0));
    assert_all_given_back();
}

/// Runs one of the functions below, which are tests by name only, in a process of its own.
fn alone(name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("jail::{name}"), "--include-ignored"])
        .args(["--nocapture", "--test-threads=1"])
        .env("NARROWS_ALONE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn is_alone() -> bool {
    std::env::var_os("NARROWS_ALONE").is_some()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Waits for a line that holds `text`.
fn until_line(child: &mut Child, text: &str) {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let found = lines.map_while(Result::ok).any(|line| line.contains(text));
    assert!(
        found,
        "the process ended before {text:?}: {:?}",
        child.try_wait()
    );
}

#[test]
#[ignore = "needs a lab host"]
fn enters_the_supervisors_jail_and_waits() {
    if !is_alone() {
        return;
    }
    let own = Own {
        id: FIRST_ID + 400,
        descriptors: 3,
        absent: LayerSet::default(),
    };
    own::enter(&own).unwrap();
    let fds = SupervisorFds {
        read: vec![0],
        write: vec![1, 2],
        ..SupervisorFds::default()
    };
    seccomp::install(&seccomp::supervisor_filter(&fds).unwrap()).unwrap();
    say("entered");
    let mut byte = [0];
    drop(std::io::stdin().read(&mut byte));
    // Not in the table: the process ends here.
    drop(fs::File::open("/proc/self/status"));
    say("still there");
}

#[test]
#[ignore = "needs a lab host"]
fn the_supervisors_jail_leaves_it_nothing() {
    let mut child = alone("enters_the_supervisors_jail_and_waits");
    until_line(&mut child, "entered");
    // The test harness may run it in a thread of its own: that is the one that is jailed.
    let tasks = format!("/proc/{}/task", child.id());
    let user = (FIRST_ID + 400).to_string();
    let pid = fs::read_dir(tasks)
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| status(*pid, "Uid:").first() == Some(&user))
        .expect("no thread is jailed");
    assert_eq!(status(pid, "Gid:"), vec![user; 4]);
    assert_eq!(status(pid, "Groups:"), Vec::<String>::new());
    for key in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(status(pid, key), ["0000000000000000"], "{key}");
    }
    assert_eq!(status(pid, "NoNewPrivs:"), ["1"]);
    assert_eq!(status(pid, "Seccomp:"), ["2"]);
    for name in ["cgroup", "ipc", "mnt", "net", "uts"] {
        assert_ne!(namespace(pid, name), namespace(1, name), "{name}");
    }
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    assert_eq!(limit(pid, "Max open files").1, "3");
    let owner = fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid();
    assert_eq!(owner, 0, "it can be traced by others of its user");
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
}

#[test]
#[ignore = "needs a lab host"]
fn keeper_of_a_running_guest_has_the_capabilities_of_its_table_and_no_other() {
    let mut guest = GuestFile::small("keeper-caps", "sleep:600").start();
    guest.wait_for("GUEST init=yes");
    let kept = KEEPER
        .iter()
        .fold(CapabilitySet::empty(), |all, (one, _)| all | *one)
        .bits();
    let status = fs::read_to_string(format!("/proc/{}/status", guest.keeper_pid())).unwrap();
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
    };
    for (key, expected) in [
        ("CapInh:", 0),
        ("CapPrm:", kept),
        ("CapEff:", kept),
        ("CapBnd:", kept),
        ("CapAmb:", 0),
        ("NoNewPrivs:", 1),
    ] {
        assert_eq!(value(key), expected, "{key}\n{status}");
    }
    guest.signal("TERM");
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(25), "{}", transcript.text());
}

#[test]
#[ignore = "needs a lab host"]
fn spawns_and_ends_a_life_with_the_keepers_capabilities() {
    if !is_alone() {
        return;
    }
    let program = Program::open(Path::new("/usr/bin/narrows-device")).unwrap();
    let null = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    let size = Size {
        vcpus: 1,
        ram_bytes: 64 << 20,
        images_bytes: 0,
        cpu_percent: 100,
        overhead_bytes: 64 << 20,
    };
    let wish = Wish {
        guest: "keeper",
        size,
        absent: LayerSet::default(),
        processes: &[std::process::id()],
    };
    let jail = Jail::make(Ids::take(&State::new("/tmp/keeper-state")).unwrap(), &wish).unwrap();
    own::keep_capabilities(false).unwrap();
    let capabilities = rustix::thread::capabilities(None).unwrap();
    let kept = KEEPER
        .iter()
        .fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
    assert_eq!(
        (capabilities.effective, capabilities.permitted),
        (kept, kept)
    );
    assert!(capabilities.inheritable.is_empty());
    let descriptors = Descriptors {
        first: 3,
        fds: &[],
        null: null.as_fd(),
        more: 0,
    };
    for _ in 0..2 {
        let mut child = jail.spawn(Member::Device, &program, &descriptors).unwrap();
        child.kill().unwrap();
        // It has no handoff, and so may have ended itself before.
        let status = child.wait().unwrap();
        assert!(!status.success(), "{status}");
    }
    jail.close().unwrap();
    say("kept and closed");
}

/// Claim: what the keeper gives up it does not need for the next life of a guest, nor for its end.
#[test]
#[ignore = "needs a lab host"]
fn the_keepers_capabilities_are_enough() {
    let mut child = alone("spawns_and_ends_a_life_with_the_keepers_capabilities");
    until_line(&mut child, "kept and closed");
    assert!(child.wait().unwrap().success());
    assert!(!Path::new(CGROUPS).join("narrows/keeper").exists());
}

/// As a service manager does it: the unit's cgroup is marked as the unit's own.
#[test]
#[ignore = "needs a lab host"]
fn guests_cgroups_go_below_a_delegated_one() {
    let unit = Path::new(CGROUPS).join("unit.service");
    fs::create_dir(&unit).unwrap();
    fs::write(
        Path::new(CGROUPS).join("cgroup.subtree_control"),
        "+cpu +memory +pids",
    )
    .unwrap();
    setxattr(&unit, "trusted.delegate", b"1", XattrFlags::empty()).unwrap();
    let path = GuestFile::small("jail-unit", "poweroff").write();
    let script = format!(
        "echo $$ >{}/cgroup.procs && exec narrows run {path}",
        unit.display()
    );
    let watched = std::thread::spawn({
        let folder = unit.join("narrows/jail-unit/vcpu");
        move || {
            for _ in 0..4000 {
                if fs::read_to_string(folder.join("cgroup.procs")).is_ok_and(|p| !p.is_empty()) {
                    return true;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            false
        }
    });
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(watched.join().unwrap(), "V was not below the unit's cgroup");
    for gone in ["vcpu", "device"] {
        assert!(
            !unit.join("narrows/jail-unit").join(gone).exists(),
            "{gone}"
        );
    }
    host::shell(&format!(
        "find {} -depth -type d -exec rmdir {{}} +",
        unit.display()
    ));
    assert_all_given_back();
}
