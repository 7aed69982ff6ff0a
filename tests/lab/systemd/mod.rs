//! The shipped units under systemd itself, which is process 1 of this lab host: a guest starts, ends, is stopped and is
//! refused by `systemctl`, and its processes are where the units put them.

mod networkd;

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{guest::GuestFile, host};

/// Nothing here takes this long, unless it hangs or the machine that emulates this one is busy.
const PATIENCE: Duration = Duration::from_secs(300);

/// A guest whose file is where its unit looks for it.
struct Unit {
    name: &'static str,
}

impl Unit {
    fn new(name: &'static str, words: &str, device: &str) -> Self {
        Self::of(name, &GuestFile::small(name, words).device(device))
    }

    fn of(name: &'static str, file: &GuestFile) -> Self {
        fs::create_dir_all("/etc/narrows").unwrap();
        fs::copy(file.write(), format!("/etc/narrows/{name}.toml")).unwrap();
        Self { name }
    }

    fn supervisor(&self) -> String {
        format!("narrows@{}.service", self.name)
    }

    fn keeper(&self) -> String {
        format!("narrows-keeper@{}.service", self.name)
    }

    fn systemctl(&self, verb: &str) -> bool {
        let unit = self.supervisor();
        let arguments = ["--no-ask-password", verb, &unit];
        Command::new("systemctl")
            .args(arguments)
            .status()
            .unwrap()
            .success()
    }

    /// Waits until `is_so`, and fails with the journal where it does not come to be.
    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < PATIENCE, "{what}\n{}", self.journal());
            // Asking systemd is dear where the processor is emulated.
            thread::sleep(Duration::from_secs(2));
        }
    }

    fn is_over(&self) -> bool {
        [self.supervisor(), self.keeper()]
            .iter()
            .all(|unit| ["inactive", "failed"].contains(&property(unit, "ActiveState").as_str()))
    }

    /// Waits until the guest runs.
    fn running(&self) {
        self.until("the guest does not run", || {
            self.journal().contains("GUEST init=yes")
        });
    }

    fn journal(&self) -> String {
        host::shell(&format!(
            "journalctl --no-pager -o cat -u {} -u {}",
            self.supervisor(),
            self.keeper()
        ))
    }
}

fn property(unit: &str, key: &str) -> String {
    let text = host::shell(&format!("systemctl show -P {key} {unit}"));
    text.trim().to_owned()
}

/// A line of `/proc/PID/status`.
fn status(pid: u32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{key}: {text}"))
        .trim()
        .to_owned()
}

#[test]
#[ignore = "needs a lab host"]
fn a_guest_runs_to_its_end_as_a_service() {
    let unit = Unit::new("web", "lspci,sleep:10", &host::nic(0));
    assert!(unit.systemctl("start"), "{}", unit.journal());
    unit.running();

    let main = |unit: &str| property(unit, "MainPID").parse::<u32>().unwrap();
    let (supervisor, keeper) = (main(&unit.supervisor()), main(&unit.keeper()));
    assert_ne!(status(supervisor, "Uid").split('\t').next(), Some("0"));
    for key in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(supervisor, key), "0000000000000000", "{key}");
    }
    assert_eq!(status(supervisor, "NoNewPrivs"), "1");
    assert_eq!(status(supervisor, "Seccomp"), "2");
    // It could not read live filters otherwise.
    assert_eq!(status(keeper, "Seccomp"), "0");
    let own = property(&unit.keeper(), "ControlGroup");
    assert!(own.starts_with("/narrows.slice/"), "{own}");
    for program in ["narrows-device", "narrows-vcpu"] {
        for pid in host::processes(program) {
            let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            assert!(
                cgroup.trim().trim_start_matches("0::").starts_with(&own),
                "{program}: {cgroup}"
            );
        }
    }

    unit.until("the guest does not end", || unit.is_over());
    let journal = unit.journal();
    assert!(
        journal.contains("GUEST done") && journal.contains("the guest powered off"),
        "{journal}"
    );
    assert!(journal.contains("driver=igbvf"), "{journal}");
    for unit in [unit.supervisor(), unit.keeper()] {
        assert_eq!(property(&unit, "Result"), "success", "{unit}");
        assert_eq!(property(&unit, "ExecMainStatus"), "0", "{unit}");
    }
    let figures = fs::read_to_string("/run/narrows/web/stats.json").unwrap();
    let figures: serde_json::Value = serde_json::from_str(&figures).unwrap();
    assert_eq!(figures["pids"]["supervisor"], supervisor);
    assert_eq!(figures["pids"]["keeper"], keeper);
    host::assert_returned(&host::nic(0));
}

#[test]
#[ignore = "needs a lab host"]
fn a_stop_gives_the_devices_back() {
    for stopped in ["supervisor", "keeper"] {
        let unit = Unit::new(
            if stopped == "supervisor" {
                "stop"
            } else {
                "stop-keeper"
            },
            "sleep:500",
            &host::nvme(0),
        );
        assert!(unit.systemctl("start"), "{}", unit.journal());
        unit.running();
        let which = match stopped {
            "supervisor" => unit.supervisor(),
            _ => unit.keeper(),
        };
        host::shell(&format!("systemctl --no-ask-password stop {which}"));
        unit.until("it does not stop", || unit.is_over());
        // systemd forgets the status of a unit that ended well; 25 is one that did, by the unit.
        assert_eq!(property(&unit.supervisor(), "ActiveState"), "inactive");
        assert!(
            unit.journal().contains("the operator stopped the guest"),
            "{}",
            unit.journal()
        );
        assert_eq!(property(&unit.supervisor(), "Result"), "success");
        assert!(
            unit.journal().contains("is given back"),
            "{}",
            unit.journal()
        );
        host::assert_returned(&host::nvme(0));
    }
}

#[test]
#[ignore = "needs a lab host"]
fn a_refused_guest_is_tried_again_because_a_refusal_may_pass() {
    // A physical function is no guest's: this one does not pass, but systemd sees the status alone.
    let unit = Unit::new("refused", "lspci", &host::fact("NIC_PF"));
    unit.systemctl("start");
    // Not `NRestarts`: the keeper's word to the socket is a start of its own, which begins that count anew.
    let refused = || unit.journal().matches("error[device-not-a-vf]").count();
    unit.until("it is not tried again", || refused() >= 3);
    assert!(unit.systemctl("stop"), "{}", unit.journal());
    unit.until("it does not stop", || unit.is_over());
}

#[test]
#[ignore = "needs a lab host"]
fn a_guest_of_which_a_half_is_killed_is_started_again() {
    let unit = Unit::new("killed", "sleep:500", &host::nic(1));
    assert!(unit.systemctl("start"), "{}", unit.journal());
    unit.running();
    for (times, killed, sign) in [
        (2, unit.supervisor(), "is given back"),
        // What it left is put right by `narrows recover`, or the guest would be refused.
        (3, unit.keeper(), "error[keeper-lost]"),
    ] {
        let pid = property(&killed, "MainPID");
        host::shell(&format!("kill -KILL {pid}"));
        unit.until("it does not run again", || {
            unit.journal().matches("GUEST init=yes").count() == times
        });
        assert!(unit.journal().contains(sign), "{}", unit.journal());
    }
    assert!(unit.systemctl("stop"));
    unit.until("it does not stop", || unit.is_over());
    host::assert_returned(&host::nic(1));
}

/// A filter of the service, which V inherits: it alone starts threads.
#[test]
#[ignore = "needs a lab host"]
fn a_forbidden_call_is_told_by_name() {
    let unit = Unit::of(
        "forbidden",
        &GuestFile::small("forbidden", "lspci")
            .vcpus(2)
            .device(&host::nic(0)),
    );
    let folder = format!("/run/systemd/system/{}.d", unit.keeper());
    fs::create_dir_all(&folder).unwrap();
    fs::write(
        format!("{folder}/filter.conf"),
        "[Service]\nSystemCallFilter=~clone\n",
    )
    .unwrap();
    host::shell("systemctl daemon-reload");
    unit.systemctl("start");
    let sentence = "killed for a forbidden call: clone (56)";
    unit.until("it is not told", || unit.journal().contains(sentence));
    unit.systemctl("stop");
    fs::remove_dir_all(&folder).unwrap();
    host::shell("systemctl daemon-reload");
    unit.until("it does not stop", || unit.is_over());
    host::assert_returned(&host::nic(0));
}

/// The last one by its name: it makes the NIC's VFs anew.
#[test]
#[ignore = "needs a lab host"]
fn vfs_of_the_host_file_are_there_before_a_guest_wants_one_of_a_pool() {
    let interface = host::fact("NIC_IF");
    let numvfs = format!("/sys/bus/pci/devices/{}/sriov_numvfs", host::fact("NIC_PF"));
    let count = || fs::read_to_string(&numvfs).unwrap().trim().to_owned();
    assert_eq!(count(), "2");
    fs::create_dir_all("/etc/narrows").unwrap();
    fs::write(
        "/etc/narrows/host.toml",
        format!(
            "apiVersion = \"v1alpha1\"\n[[pool]]\nname = \"tenant\"\nkind = \"nic\"\nvlan = 101\n\
             [[pool]]\nname = \"disk\"\nkind = \"nvme\"\naccept = [\"nvme-vf-manages\"]\n\
             [[pf]]\ninterface = \"{interface}\"\nvfs = 4\npools = {{ tenant = \"0-3\" }}\n\
             [[pf]]\nserial = \"lab-sriov\"\nvfs = 2\npools = {{ disk = \"0\" }}\n\
             [[pf.namespace]]\nname = \"disk\"\nnsid = 2\nvfs = \"0\"\n"
        ),
    )
    .unwrap();
    let said = || host::shell("journalctl --no-pager -o cat -u narrows-host.service");
    let started = Command::new("systemctl")
        .args(["--no-ask-password", "start", "narrows-host.service"])
        .status()
        .unwrap();
    assert!(started.success(), "{}", said());
    assert_eq!(property("narrows-host.service", "ActiveState"), "active");
    assert_eq!(count(), "4", "{}", said());

    let file = GuestFile::small("pooled", "lspci,nvme")
        .pool("tenant")
        .pool("disk");
    let unit = Unit::of("pooled", &file);
    assert!(unit.systemctl("start"), "{}", unit.journal());
    unit.until("the guest does not end", || unit.is_over());
    let journal = unit.journal();
    assert!(journal.contains("GUEST done"), "{journal}");
    assert!(journal.contains("is given back"), "{journal}");
    let vfs = host::shell("narrows vf ls");
    assert_eq!(vfs.matches(" clean ").count(), 5, "{vfs}\n{journal}");
    host::shell("narrows host release");
    assert_eq!(count(), "2");
}
