//! How a guest lives on and ends: reboots, crashes, kills, and what is left then.

use std::{fs, thread, time::Duration};

use super::assert_nvme;
use crate::{guest::GuestFile, host};

#[test]
#[ignore = "needs a lab host"]
fn guest_reboots_ten_times_and_its_vfs_work_each_time() {
    let file = GuestFile::small("reboots", "nvme,reboot").device(&host::nvme(0));
    let mut guest = file.start();
    for _ in 0..=10 {
        let line = guest.wait_for("same=");
        assert!(line.contains("same=yes"), "{line}");
        guest.wait_for("GUEST done");
    }
    guest.signal("TERM");
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(25), "{}", transcript.text());
    host::assert_returned(&host::nvme(0));
}

#[test]
#[ignore = "needs a lab host"]
fn reboot_ends_the_run_when_the_file_says_so() {
    let file = GuestFile::small("reboot-exit", "reboot").key("on_reboot = \"exit\"");
    let (status, transcript) = file.start().end();
    assert_eq!(status.code(), Some(20), "{}", transcript.text());
    assert!(
        transcript.text().contains("the guest asked for a reboot"),
        "{}",
        transcript.text()
    );
}

#[test]
#[ignore = "needs a lab host"]
fn killed_supervisor_ends_the_guest_and_the_keeper_gives_its_devices_back() {
    kill_in_traffic("supervisor");
}

#[test]
#[ignore = "needs a lab host"]
fn killed_keeper_takes_all_with_it_and_its_devices_are_recovered() {
    kill_in_traffic("keeper");
}

#[test]
#[ignore = "needs a lab host"]
fn killed_vcpu_process_ends_the_run_and_the_next_guest_works() {
    kill_in_traffic("narrows-vcpu");
}

#[test]
#[ignore = "needs a lab host"]
fn killed_device_process_ends_the_run_and_the_next_guest_works() {
    kill_in_traffic("narrows-device");
}

/// SIGKILL to one process while packets flow; then the VFs are free, nothing is pinned, and a new guest uses them.
fn kill_in_traffic(who: &str) {
    let pinned = host::pinned_pages();
    let devices = |file: GuestFile| file.device(&host::nic(0)).device(&host::nvme(0));
    let file = devices(GuestFile::small(
        "victim",
        "net:10.9.0.2/24,loop-ping:10.9.0.1:1000",
    ));
    let mut guest = file.start();
    guest.wait_for("GUEST net=");
    let answers = host::shell("ping -c 2 -W 5 10.9.0.2");
    assert!(answers.contains(" 2 packets received"), "{answers}");
    let all = ["supervisor", "keeper", "narrows-vcpu", "narrows-device"].map(|w| guest.pid_of(w));
    host::shell(&format!("kill -KILL {}", guest.pid_of(who)));
    let (status, transcript) = guest.end();
    let text = transcript.text();
    match who {
        "supervisor" => {
            assert_eq!(status.code(), None, "{status}");
            assert!(text.contains("the supervisor is gone"), "{text}");
        }
        "keeper" => {
            assert_eq!(status.code(), Some(1), "{text}");
            assert!(text.contains("error[keeper-lost]"), "{text}");
            // The kernel ends these when the keeper has ended, and takes them apart in its own time.
            let [.., vcpu, device] = all;
            assert_ends(vcpu);
            assert_ends(device);
            // Nobody was left to unbind the VFs; the kernel reset them, and no bus master is left on.
            for bdf in [host::nic(0), host::nvme(0)] {
                assert!(!host::is_bus_master(&bdf));
                assert_eq!(host::driver(&bdf).as_deref(), Some("vfio-pci"));
            }
            let text = file.refused(3);
            assert!(text.contains("error[recover-needed]"), "{text}");
            host::shell("narrows recover");
        }
        program => {
            assert_eq!(status.code(), Some(23), "{text}");
            let told = format!("{program} was killed by signal 9");
            assert!(text.contains(&told), "{text}");
        }
    }
    for pid in all {
        assert_ends(pid);
    }
    host::assert_returned(&host::nic(0));
    host::assert_returned(&host::nvme(0));
    // The kernel adds its counters up lazily, so a few pages more or less say nothing; the guest had 32768.
    let left = host::pinned_pages() - pinned;
    assert!(left < 1000, "{left} pages are still pinned");

    let transcript = devices(GuestFile::small(
        "heir",
        "net:10.9.0.2/24,ping:10.9.0.1,nvme",
    ))
    .run();
    assert_eq!(transcript.facts("ping", "10.9.0.1")["received"], "3");
    assert_nvme(&transcript, 0);
    host::assert_returned(&host::nic(0));
    host::assert_returned(&host::nvme(0));
}

/// Fails unless the process is gone soon.
fn assert_ends(pid: u32) {
    for _ in 0..100 {
        if !fs::exists(format!("/proc/{pid}")).unwrap() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("process {pid} outlives its guest");
}

#[test]
#[ignore = "needs a lab host"]
fn panicking_guest_is_told_from_a_rebooting_one() {
    // Nothing but the kernel's last word is needed: a panic with panic=-1 ends in a reboot by triple fault here.
    let file = GuestFile::small("panic", "panic")
        .cmdline("reboot=triple")
        .device(&host::nvme(0));
    let (status, transcript) = file.start().end();
    assert_eq!(status.code(), Some(21), "{}", transcript.text());
    assert!(
        transcript.text().contains("the guest crashed"),
        "{}",
        transcript.text()
    );
    host::assert_returned(&host::nvme(0));
}

#[test]
#[ignore = "needs a lab host"]
fn terminated_run_returns_the_vf() {
    let mut guest = GuestFile::small("terminated", "sleep:1000")
        .device(&host::nic(0))
        .start();
    guest.wait_for("GUEST init=");
    guest.signal("TERM");
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(25), "{}", transcript.text());
    host::assert_returned(&host::nic(0));
}

/// Its RAM is the guest's own business: neither a file nor a program in `core_pattern` gets any of it.
#[test]
#[ignore = "needs a lab host"]
fn no_process_of_a_guest_leaves_a_core() {
    let mut guest = GuestFile::small("no-core", "sleep:60").start();
    guest.wait_for("GUEST init=yes");
    let read = |pid: u32, name| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    for pid in [
        guest.pid(),
        guest.keeper_pid(),
        guest.child_pid("narrows-vcpu"),
        guest.child_pid("narrows-device"),
    ] {
        let limits = read(pid, "limits");
        let core = limits.lines().find(|line| line.starts_with("Max core"));
        let words: Vec<&str> = core.unwrap().split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{limits}");
        // The lab kernel writes no cores at all, and then there is no such file.
        if fs::exists("/proc/self/coredump_filter").unwrap() {
            let filter = read(pid, "coredump_filter");
            assert!(filter.trim().chars().all(|c| c == '0'), "{filter}");
        }
    }
    guest.signal("TERM");
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(25), "{}", transcript.text());
}

/// This kernel was built without audit.
#[test]
#[ignore = "needs a lab host"]
fn a_forbidden_call_without_audit_is_told_so() {
    let text = crate::violation::thread_is_forbidden();
    let sentence = "killed for a forbidden call, which one is not known: the kernel has no audit";
    assert!(text.contains(sentence), "{text}");
}
