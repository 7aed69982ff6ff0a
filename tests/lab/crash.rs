//! SIGKILL at every step of a run, to each of its processes; then `narrows recover`, and the host is as it was before.
//! What the keeper's death leaves has to be recovered; whichever other process dies, the keeper takes all down itself.
//!
//! On a lab host whose programs have crash points: the feature `breakout`. The steps are asked of the program, so that a
//! new one is walked, too; a step at which no run crashes fails.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use iommu::{clean::ConfigSnapshot, sysfs::SysRoot};
use narrows::state::ProcessId;
use rustix::fs::{FlockOperation, flock};

use crate::{
    guest::{Guest, GuestFile},
    host::{self, PROGRAMS},
};

const STATE: &str = "/var/lib/narrows";
const CGROUPS: &str = "/sys/fs/cgroup";
/// What has the attacker's machine reboot: the reset register and its value.
const REBOOT: &str = "out 1 0x602 1";
/// Counters of pinned pages are added up lazily; the guest has 16384.
const PIN_NOISE: i64 = 1000;

/// What a run may change of the host.
#[derive(Debug)]
struct Scene {
    functions: Vec<Function>,
    /// Files that outlive runs.
    state: Vec<String>,
    cgroups: Vec<String>,
    hugepages: String,
    pinned: i64,
}

#[derive(Debug)]
struct Function {
    bdf: String,
    driver: Option<String>,
    driver_override: String,
    config: ConfigSnapshot,
}

impl Scene {
    fn read() -> Self {
        let functions = [host::nic(0), host::nvme(0)].map(|bdf| Function {
            driver: host::driver(&bdf),
            driver_override: host::driver_override(&bdf),
            config: ConfigSnapshot::read(&SysRoot::default(), bdf.parse().unwrap()).unwrap(),
            bdf,
        });
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
        Self {
            functions: functions.into(),
            state: files(Path::new(STATE)),
            cgroups: folders(Path::new(CGROUPS))
                .into_iter()
                // It stays, for the next guests.
                .filter(|path| !path.ends_with("/narrows"))
                .collect(),
            hugepages: meminfo
                .lines()
                .filter(|line| line.starts_with("HugePages_"))
                .collect(),
            pinned: host::pinned_pages(),
        }
    }

    /// Fails unless the host is now as it was.
    fn assert_as_before(&self, case: &str) {
        let now = Self::read();
        for program in PROGRAMS {
            assert_eq!(host::processes(program), [0; 0], "{case}: {program}");
        }
        for (before, now) in self.functions.iter().zip(&now.functions) {
            let bdf = &now.bdf;
            assert_eq!(before.driver, now.driver, "{case}: {bdf}");
            assert_eq!(before.driver_override, now.driver_override, "{case}: {bdf}");
            assert_eq!(now.config.noise(), [""; 0], "{case}: {bdf}");
            let differs = before.config.differences(&now.config);
            assert_eq!(differs, [""; 0], "{case}: {bdf}");
        }
        assert_eq!(self.state, now.state, "{case}");
        assert_eq!(self.cgroups, now.cgroups, "{case}");
        assert_eq!(self.hugepages, now.hugepages, "{case}");
        let pinned = now.pinned - self.pinned;
        assert!(pinned < PIN_NOISE, "{case}: {pinned} pages are pinned");
    }
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let below = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<String> = below
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => vec![path.display().to_string()],
        })
        .collect();
    found.sort();
    found
}

/// The folders below a folder.
fn folders(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let below = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<String> = below
        .filter(|path| path.is_dir() && !path.is_symlink())
        .flat_map(|path| {
            let mut own = folders(&path);
            own.push(path.display().to_string());
            own
        })
        .collect();
    found.sort();
    found
}

/// A guest that does nothing until it is told, with a VF of each kind.
fn victim(name: &str) -> GuestFile {
    GuestFile::attacker(name)
        .device(&host::nic(0))
        .device(&host::nvme(0))
}

/// Runs `narrows` with these words: status, standard output, standard error.
fn narrows(words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new("narrows").args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The steps of this program, with how they are reached.
fn steps() -> Vec<(String, String)> {
    let (status, text, error) = narrows(&["crash-steps"]);
    assert_eq!(
        status,
        Some(0),
        "the programs have no crash points: {error}"
    );
    let steps = text.lines().map(|line| {
        let (name, how) = line.split_once(' ').unwrap();
        (name.to_owned(), how.to_owned())
    });
    steps.collect()
}

/// Waits until no process of a run is left.
fn await_end(case: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while PROGRAMS
        .iter()
        .any(|name| !host::processes(name).is_empty())
    {
        assert!(Instant::now() < deadline, "{case}: a process is left");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a dead run has left its journal.
fn has_journal() -> bool {
    fs::read_dir(format!("{STATE}/journal")).is_ok_and(|entries| entries.count() > 0)
}

/// Has what was left put right, by a single `narrows recover`: the next one finds nothing to do.
fn recover(case: &str) {
    if has_journal() {
        let (status, said, text) = narrows(&["recover"]);
        assert_eq!(status, Some(0), "{case}: {said}{text}");
        assert!(said.contains(": recovered"), "{case}: {said}");
    }
    let (status, said, text) = narrows(&["recover"]);
    assert_eq!(status, Some(0), "{case}: {text}");
    assert_eq!(said.trim(), "nothing to recover", "{case}");
}

/// A run that ends without a crash leaves the files that stay for ever, so that scenes can be compared.
fn scene() -> Scene {
    let mut guest = victim("crash").start();
    type_in(&mut guest, "off");
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(0), "{}", transcript.text());
    recover("before");
    Scene::read()
}

fn type_in(guest: &mut Guest, line: &str) {
    use std::io::Write as _;
    guest.wait_for("GUEST init=");
    writeln!(guest.take_input(), "{line}").unwrap();
}

/// A guest that ends, reboots, or is never reached, with its keeper killed at `at`.
fn crash_at(at: &str, how: &str) {
    let (status, text) = die_at(at, how, "keeper");
    assert_eq!(status, Some(1), "{at}: {text}");
    assert!(text.contains("error[keeper-lost]"), "{at}: {text}");
    assert!(
        text.contains("signal 9") || text.contains("SIGKILL"),
        "{at}: {text}"
    );
}

/// The same for whichever process: status, and all that was said.
fn die_at(at: &str, how: &str, who: &str) -> (Option<i32>, String) {
    let file = victim("crash")
        .env("NARROWS_CRASH_AT", at)
        .env("NARROWS_CRASH_WHO", who);
    let mut guest = file.start();
    if how == "reboot" {
        type_in(&mut guest, REBOOT);
    } else if is_behind_the_start(at) {
        type_in(&mut guest, "off");
    }
    let (status, transcript) = guest.end();
    await_end(at);
    (status.code(), transcript.text())
}

/// Whether a step is reached only when the guest has ended.
fn is_behind_the_start(at: &str) -> bool {
    let name = at.split(':').next().unwrap();
    let steps = steps();
    let place = |name: &str| steps.iter().position(|(step, _)| step == name).unwrap();
    place(name) > place("gone")
}

#[test]
#[ignore = "needs a lab host"]
fn host_is_as_before_whichever_step_a_run_is_killed_at() {
    let before = scene();
    let mut walked = 0;
    for (name, how) in steps() {
        let times = match how.as_str() {
            "once" | "reboot" => 1,
            "each" => 2,
            // Leases, and changes of the host, are walked by `vf_killed`.
            "unclean" | "stall" | "lease" | "host" | "host-each" => continue,
            other => panic!("{name} is reached in a way that this test does not know: {other}"),
        };
        for number in 1..=times {
            let at = format!("{name}:{number}");
            crash_at(&at, &how);
            recover(&at);
            before.assert_as_before(&at);
            walked += 1;
        }
    }
    assert!(walked >= 24, "only {walked} steps were walked");
    assert_next_guest_runs();
}

#[test]
#[ignore = "needs a lab host"]
fn keeper_takes_all_down_at_whichever_step_the_supervisor_is_killed() {
    let before = scene();
    for (name, how) in steps() {
        if !matches!(how.as_str(), "once" | "each" | "reboot") {
            continue;
        }
        let at = format!("{name}:1");
        let (status, text) = die_at(&at, &how, "supervisor");
        assert_eq!(status, None, "{at}: {text}");
        assert!(!has_journal(), "{at}: {text}");
        before.assert_as_before(&at);
    }
}

/// The functions are of use: a guest of another kind finds both, and reads and writes.
fn assert_next_guest_runs() {
    let transcript = GuestFile::small("heir", "net:10.9.0.2/24,ping:10.9.0.1,nvme")
        .device(&host::nic(0))
        .device(&host::nvme(0))
        .run();
    assert_eq!(transcript.facts("ping", "10.9.0.1")["received"], "3");
}

#[test]
#[ignore = "needs a lab host"]
fn host_is_as_before_whichever_process_is_killed_while_the_guest_runs() {
    let before = scene();
    for (who, status) in [
        ("supervisor", None),
        ("keeper", Some(1)),
        ("narrows-vcpu", Some(23)),
        ("narrows-device", Some(23)),
    ] {
        let case = format!("{who} while the guest runs");
        let mut guest = victim("crash").start();
        guest.wait_for("GUEST init=");
        host::shell(&format!("kill -KILL {}", guest.pid_of(who)));
        let (ended, transcript) = guest.end();
        assert_eq!(ended.code(), status, "{case}: {}", transcript.text());
        await_end(&case);
        assert_eq!(has_journal(), who == "keeper", "{case}");
        recover(&case);
        before.assert_as_before(&case);
    }
    assert_next_guest_runs();
}

#[test]
#[ignore = "needs a lab host"]
fn run_gives_all_back_itself_when_a_process_is_killed_as_it_is_set_up() {
    let before = scene();
    for (who, at) in [
        ("device", "device-started"),
        ("device", "device-ready"),
        ("device", "vcpu-started"),
        ("vcpu", "vcpu-started"),
        ("vcpu", "vcpu-ready"),
        ("vcpu", "inspected"),
        ("device", "gone"),
        ("vcpu", "gone"),
    ] {
        let case = format!("{who} at {at}");
        let file = victim("crash")
            .env("NARROWS_CRASH_AT", at)
            .env("NARROWS_CRASH_WHO", who);
        let (status, transcript) = file.start().end();
        let text = transcript.text();
        await_end(&case);
        assert!(
            matches!(status.code(), Some(1 | 23)),
            "{case}: {status}: {text}"
        );
        assert!(!has_journal(), "{case}: {text}");
        before.assert_as_before(&case);
    }
}

#[test]
#[ignore = "needs a lab host"]
fn host_is_as_before_wherever_in_their_set_up_v_and_d_are_killed() {
    let before = scene();
    let points = steps().into_iter().filter(|(_, how)| how == "stall");
    for (turn, (point, _)) in points.enumerate() {
        let program = match point.split(':').next().unwrap() {
            "v" => "narrows-vcpu",
            _ => "narrows-device",
        };
        let file = victim("crash").cmdline(&format!("narrows.stall={point}"));
        let guest = file.start();
        let pid = stalled(&guest, program);
        // By turns the process itself, and those over it.
        let (who, killed, ended) = match turn % 3 {
            0 => (program, pid, Some(1)),
            1 => ("keeper", guest.keeper_pid(), Some(1)),
            _ => ("supervisor", guest.pid(), None),
        };
        let case = format!("{point}, {who}");
        host::shell(&format!("kill -KILL {killed}"));
        let (status, transcript) = guest.end();
        let text = transcript.text();
        await_end(&case);
        // Locked, it counts as built, and the guest may have been told to go.
        if who == program && point.ends_with(":locked") && status.code() == Some(23) {
            assert!(text.contains("was killed by signal 9"), "{case}: {text}");
        } else {
            assert_eq!(status.code(), ended, "{case}: {text}");
        }
        if who == program && status.code() == Some(1) {
            assert!(
                text.contains("error[guest-set-up-failed]"),
                "{case}: {text}"
            );
        }
        assert_eq!(has_journal(), who == "keeper", "{case}: {text}");
        recover(&case);
        before.assert_as_before(&case);
    }
}

/// The process id of a guest's V or D, once it does nothing any more but to spin.
fn stalled(guest: &Guest, program: &str) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut last = None;
    loop {
        assert!(Instant::now() < deadline, "{program} does not stall");
        thread::sleep(Duration::from_millis(60));
        let keeper = child_of(guest.pid(), "narrows");
        let Some(pid) = keeper.and_then(|keeper| child_of(keeper, program)) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        // Behind the name: state, then faults and times in user and kernel mode.
        let words: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let (faults, user, kernel) = (number(7), number(11), number(12));
        if let Some((of, were, user_was, kernel_was)) = last
            && (of, were, kernel_was) == (pid, faults, kernel)
            && user > user_was + 2
        {
            return pid;
        }
        last = Some((pid, faults, user, kernel));
    }
}

fn child_of(parent: u32, program: &str) -> Option<u32> {
    let line = format!("PPid:\t{parent}");
    host::processes(program).into_iter().find(|pid| {
        fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|status| status.lines().any(|found| found == line))
    })
}

#[test]
#[ignore = "needs a lab host"]
fn device_that_is_not_clean_is_in_quarantine_also_when_the_run_is_killed_before_it_is_written() {
    let bdf = host::nvme(0);
    let method = format!("/sys/bus/pci/devices/{bdf}/reset_method");
    scene();
    let steps = steps().into_iter().filter(|(_, how)| how == "unclean");
    for (at, _) in steps {
        let file = victim("crash").env("NARROWS_CRASH_AT", &at);
        let mut guest = file.start();
        guest.wait_for("GUEST init=");
        host::shell(&format!("echo > {method}"));
        guest.signal("TERM");
        let (status, transcript) = guest.end();
        let text = transcript.text();
        assert_eq!(status.code(), Some(1), "{at}: {text}");
        assert!(text.contains("error[keeper-lost]"), "{at}: {text}");
        await_end(&at);
        let (status, said, text) = narrows(&["recover", "--json"]);
        assert_eq!(status, Some(1), "{at}: {said}{text}");
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            said.pointer("/runs/0/left/0/id").unwrap(),
            "device-not-clean",
            "{at}: {said}"
        );
        // What is to be known of it is in the quarantine; nothing is left to put right.
        assert!(!has_journal(), "{at}");
        host::assert_returned(&bdf);
        host::assert_returned(&host::nic(0));
        host::shell(&format!("echo default > {method}"));
        let (_, list, _) = narrows(&["quarantine"]);
        assert!(list.contains(&bdf), "{at}: {list}");
        let (status, _, text) = narrows(&["quarantine", "release", &bdf]);
        assert_eq!(status, Some(0), "{at}: {text}");
    }
}

#[test]
#[ignore = "needs a lab host"]
fn every_state_between_two_steps_of_binding_is_put_right() {
    let before = scene();
    let bdf = host::nvme(0);
    let folder = format!("/sys/bus/pci/devices/{bdf}");
    let over = format!("echo vfio-pci > {folder}/driver_override");
    let bind = format!("{over}; echo {bdf} > /sys/bus/pci/drivers_probe");
    let unbind = format!("{bind}; echo {bdf} > /sys/bus/pci/drivers/vfio-pci/unbind");
    for (case, between) in [
        ("only the override is written", over.as_str()),
        ("bound", &bind),
        ("unbound, with the override", &unbind),
    ] {
        crash_at("journal-written", "once");
        host::shell(between);
        assert_withheld(case);
        recover(case);
        before.assert_as_before(case);
    }
    // The last step before the guest, with everything of the host taken.
    crash_at("gone", "once");
    assert_withheld("gone");
    recover("gone");
    before.assert_as_before("gone");
    // What an operator has given to another driver since is not taken from it.
    crash_at("gone", "once");
    host::shell(&format!(
        "echo {bdf} > /sys/bus/pci/drivers/vfio-pci/unbind; \
         echo nvme > {folder}/driver_override; echo {bdf} > /sys/bus/pci/drivers_probe"
    ));
    let (status, said, text) = narrows(&["recover"]);
    assert_eq!(status, Some(0), "{said}{text}");
    assert!(
        said.contains(&format!("{bdf} was given to the host's driver nvme since")),
        "{said}"
    );
    assert_eq!(host::driver(&bdf).as_deref(), Some("nvme"));
    host::shell(&format!(
        "echo {bdf} > /sys/bus/pci/drivers/nvme/unbind; echo > {folder}/driver_override"
    ));
    host::assert_returned(&bdf);
    host::assert_returned(&host::nic(0));
}

/// Fails unless no run gets the functions, and what recovery would do is told without being done.
fn assert_withheld(case: &str) {
    let path = victim("crash").write();
    for verb in ["plan", "run"] {
        let (status, _, text) = narrows(&[verb, &path]);
        assert_eq!(status, Some(3), "{case}: {text}");
        assert!(text.contains("error[recover-needed]"), "{case}: {text}");
    }
    let (status, said, text) = narrows(&["recover", "--dry-run"]);
    assert_eq!(status, Some(0), "{case}: {text}");
    assert!(said.contains("to be recovered"), "{case}: {said}");
    assert!(has_journal(), "{case}");
}

#[test]
#[ignore = "needs a lab host"]
fn recovery_takes_nothing_from_a_run_that_lives() {
    let mut guest = victim("alive").start();
    guest.wait_for("GUEST init=");
    assert!(has_journal());
    let (status, said, text) = narrows(&["recover"]);
    assert_eq!(
        (status, said.trim()),
        (Some(0), "nothing to recover"),
        "{text}"
    );
    for bdf in [host::nic(0), host::nvme(0)] {
        assert_eq!(host::driver(&bdf).as_deref(), Some("vfio-pci"));
    }
    guest.signal("TERM");
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(25), "{}", transcript.text());
    host::assert_returned(&host::nvme(0));
    assert!(!has_journal());
}

#[test]
#[ignore = "needs a lab host"]
fn each_process_is_in_the_journal_from_when_it_exists() {
    let before = scene();
    for (at, count) in [("device-started:1", 1), ("vcpu-started:1", 2)] {
        crash_at(at, "once");
        let mut journals = fs::read_dir(format!("{STATE}/journal")).unwrap();
        let path = journals.next().unwrap().unwrap().path();
        let text = fs::read_to_string(path).unwrap();
        let journal: serde_json::Value = serde_json::from_str(&text).unwrap();
        let processes = journal["processes"].as_array().unwrap();
        assert_eq!(processes.len(), count, "{at}: {text}");
        recover(at);
        before.assert_as_before(at);
    }
}

/// Whether another run could have the users of the only guest.
fn are_users_free() -> bool {
    let file = fs::File::open(format!("{STATE}/uids/0")).unwrap();
    flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[test]
#[ignore = "needs a lab host"]
fn users_of_a_guest_are_its_own_as_long_as_its_supervisor_lives() {
    let mut guest = victim("users").start();
    guest.wait_for("GUEST init=");
    let root = SysRoot::default();
    let keeper = ProcessId::of(&root, guest.keeper_pid()).unwrap().unwrap();
    let vcpu = guest.child_pid("narrows-vcpu");
    guest.signal("STOP");
    host::shell(&format!("kill -KILL {vcpu}"));
    // It waits a little for the supervisor's answers, and goes on without.
    let deadline = Instant::now() + Duration::from_secs(120);
    while keeper.runs(&root).unwrap() {
        assert!(Instant::now() < deadline, "the keeper does not end");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(!has_journal());
    assert!(!are_users_free(), "the supervisor is one of them still");
    guest.signal("CONT");
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(23), "{}", transcript.text());
    assert!(are_users_free());
}
