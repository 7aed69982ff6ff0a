//! The main job on the lab kernel, which has both kernel interfaces: the same tests on each.

mod doctor;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use crate::{
    guest::{Guest, GuestFile, Transcript},
    host, machine,
};

const TYPE1: &str = "interface = \"type1\"";
const IOMMUFD: &str = "interface = \"iommufd\"";
/// The transfer in each direction.
const TRANSFER_BYTES: usize = 4 << 20;

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

#[test]
#[ignore = "needs a lab host"]
fn nic_vf_carries_traffic_both_ways_by_type1() {
    nic_carries_traffic(TYPE1);
}

#[test]
#[ignore = "needs a lab host"]
fn nic_vf_carries_traffic_both_ways_by_iommufd() {
    nic_carries_traffic(IOMMUFD);
}

/// Ping, and 4 MiB each way by TCP with checksums, between the guest's VF and the host's PF.
fn nic_carries_traffic(interface: &str) {
    let words = "lspci,net:10.9.0.2/24,ping:10.9.0.1,send:10.9.0.1:5001:4,recv:5002,irq";
    let file = GuestFile::small("nic", words)
        .key(interface)
        .device(&host::nic(0));
    check_traffic(file.start());
}

/// Plays the peer of a guest with the words above and checks what both sides saw.
pub(crate) fn check_traffic(guest: Guest) {
    let listener = TcpListener::bind("10.9.0.1:5001").unwrap();
    let received = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let pattern: Vec<u8> = (0..TRANSFER_BYTES)
        .map(|i| ((i * 7919) >> 8).to_le_bytes()[0])
        .collect();
    let sent = pattern.clone();
    let sender = thread::spawn(move || connect("10.9.0.2:5002").write_all(&sent).unwrap());

    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(0), "{}", transcript.text());
    let from_guest = received.join().unwrap();
    sender.join().unwrap();

    let net = transcript.facts("net", "");
    assert_eq!(net["driver"], "igbvf");
    assert_eq!(net["carrier"], "1");
    assert_eq!(transcript.facts("ping", "10.9.0.1")["received"], "3");
    let send = transcript.facts("send", "");
    assert_eq!(from_guest.len(), TRANSFER_BYTES);
    assert_eq!(
        send["sha256"],
        sha256(&from_guest),
        "what the guest sent is not what arrived"
    );
    let recv = transcript.facts("recv", "");
    assert_eq!(recv["bytes"], TRANSFER_BYTES.to_string());
    assert_eq!(
        recv["sha256"],
        sha256(&pattern),
        "what the guest received is not what was sent"
    );
    assert_only_vfs(&transcript, &["8086:10ca"]);
    let interrupts: u64 = transcript.facts("irq", net["net"].as_str())["count"]
        .parse()
        .unwrap();
    assert!(
        interrupts > 0,
        "no interrupt of the NIC:\n{}",
        transcript.text()
    );
}

/// Fails unless the guest saw these functions and no other.
fn assert_only_vfs(transcript: &Transcript, ids: &[&str]) {
    assert_eq!(transcript.count("pci"), ids.len(), "{}", transcript.text());
    for id in ids {
        transcript.facts("pci", &format!("id={id}"));
    }
}

/// Connects to a guest, whose listener comes up some time after its link.
fn connect(address: &str) -> TcpStream {
    for _ in 0..1200 {
        if let Ok(stream) = TcpStream::connect(address) {
            return stream;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("nobody listens at {address}");
}

fn sha256(bytes: &[u8]) -> String {
    fs::write("/tmp/sum", bytes).unwrap();
    let line = host::shell("sha256sum /tmp/sum");
    line.split_whitespace().next().unwrap().to_owned()
}

#[test]
#[ignore = "needs a lab host"]
fn nvme_vf_keeps_what_the_guest_writes_by_type1() {
    nvme_keeps_data(TYPE1);
}

#[test]
#[ignore = "needs a lab host"]
fn nvme_vf_keeps_what_the_guest_writes_by_iommufd() {
    nvme_keeps_data(IOMMUFD);
}

fn nvme_keeps_data(interface: &str) {
    let transcript = GuestFile::small("nvme", "lspci,nvme")
        .key(interface)
        .device(&host::nvme(0))
        .run();
    assert_nvme(&transcript, 0);
    assert_only_vfs(&transcript, &["1b36:0010"]);
    host::assert_returned(&host::nvme(0));
}

/// Fails unless the guest read what it wrote, and the host reads the same bytes from the namespace afterwards.
pub(crate) fn assert_nvme(transcript: &Transcript, index: usize) {
    let nvme = transcript.facts("nvme", "same=");
    assert_eq!(nvme["same"], "yes", "{}", transcript.text());
    let device = host::namespace(index);
    let line = host::shell(&format!(
        "dd if={} bs=64k skip=1 count=16 iflag=direct 2>/dev/null | sha256sum",
        device.display()
    ));
    assert_eq!(
        line.split_whitespace().next(),
        Some(nvme["wrote"].as_str()),
        "the host sees other bytes"
    );
}

#[test]
#[ignore = "needs a lab host"]
fn two_guests_with_two_vfs_each_talk_to_each_other() {
    let words = "net:10.9.0.3/24,recv:5003,nvme";
    let mut listener = GuestFile::small("second", words)
        .device(&host::nic(1))
        .device(&host::nvme(1))
        .start();
    listener.wait_for("GUEST net=");
    let words = "net:10.9.0.2/24,ping:10.9.0.3,send:10.9.0.3:5003:4,nvme";
    let talker = GuestFile::small("first", words)
        .device(&host::nic(0))
        .device(&host::nvme(0))
        .start();
    let (status, first) = talker.end();
    assert_eq!(status.code(), Some(0), "{}", first.text());
    let (status, second) = listener.end();
    assert_eq!(status.code(), Some(0), "{}", second.text());
    assert_eq!(first.facts("ping", "10.9.0.3")["received"], "3");
    assert_eq!(
        first.facts("send", "")["sha256"],
        second.facts("recv", "")["sha256"]
    );
    assert_nvme(&first, 0);
    assert_nvme(&second, 1);
    for bdf in [host::nic(0), host::nvme(0), host::nic(1), host::nvme(1)] {
        host::assert_returned(&bdf);
    }
}

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

#[test]
#[ignore = "needs a lab host"]
fn guest_with_sixteen_vcpus_has_them_all() {
    let transcript = GuestFile::small("sixteen", "cpus,nvme")
        .vcpus(16)
        .memory("256M")
        .device(&host::nvme(0))
        .run();
    assert_eq!(transcript.facts("cpus", "")["cpus"], "16");
    assert_nvme(&transcript, 0);
}

#[test]
#[ignore = "needs a lab host"]
fn guest_with_64_mib_runs() {
    let transcript = GuestFile::small("tiny", "mem,nvme")
        .memory("64M")
        .device(&host::nvme(0))
        .run();
    let kib: u64 = transcript.facts("mem-kib", "")["mem-kib"].parse().unwrap();
    assert!((24 << 10..64 << 10).contains(&kib), "{kib} KiB");
    assert_nvme(&transcript, 0);
}

#[test]
#[ignore = "needs a lab host"]
fn guest_on_huge_pages_takes_and_returns_them() {
    let free = || {
        host::shell("sed -n 's/^HugePages_Free: *//p' /proc/meminfo")
            .trim()
            .to_owned()
    };
    let before = free();
    let mut guest = GuestFile::small("huge", "nvme,sleep:3")
        .huge_memory("128M", "2M")
        .device(&host::nvme(0))
        .start();
    guest.wait_for("GUEST nvme=nvme0n1 bytes");
    let during = free();
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(0), "{}", transcript.text());
    assert_nvme(&transcript, 0);
    let count = |text: &str| -> u64 { text.parse().unwrap() };
    assert_eq!(
        count(&before) - count(&during),
        64,
        "128 MiB are 64 pages of 2 MiB"
    );
    assert_eq!(free(), before);
}

#[test]
#[ignore = "needs a lab host"]
fn compressed_kernel_starts_by_its_64_bit_entry() {
    // The other guests here start an ELF file by PVH, which saves the decompression.
    let transcript = GuestFile::small("bzimage", "nvme")
        .kernel("/lab/guest/vmlinuz-lab")
        .device(&host::nvme(0))
        .run();
    assert_nvme(&transcript, 0);
}

#[test]
#[ignore = "needs a lab host"]
fn function_level_reset_by_the_guest_leaves_the_vf_usable() {
    let transcript = GuestFile::small("flr", "flr,nvme")
        .device(&host::nvme(0))
        .run();
    assert_eq!(transcript.facts("flr", "")["status"], "ok");
    assert_nvme(&transcript, 0);
    assert!(transcript.stat("/counters/resets") >= 1);
}

#[test]
#[ignore = "needs a lab host"]
fn data_moves_without_exits_to_user_space() {
    let words = "net:10.9.0.2/24,nvme-read:1000000";
    let guest = GuestFile::small("quiet", words)
        .silent()
        .device(&host::nic(0))
        .device(&host::nvme(0))
        .start();
    let answers =
        host::shell("ping -c 100 -W 2 10.9.0.2 | grep -m 3 'bytes from'; ping -c 2 -W 5 10.9.0.2");
    assert!(answers.contains(" 2 packets received"), "{answers}");
    // Reads of the namespace go on from here to the end; each is one interrupt.
    let commands = || host::interrupts(&host::nvme(0));
    while commands() < 100 {
        thread::sleep(Duration::from_millis(100));
    }
    let (before, commands_before) = (guest.exits(), commands());
    let answers = host::shell("ping -c 500 -i 0.005 -W 5 10.9.0.2 | tail -3");
    let (after, commands_after) = (guest.exits(), commands());
    guest.signal("TERM");
    let (_, transcript) = guest.end();
    assert!(answers.contains(" 0% packet loss"), "{answers}");
    assert!(
        commands_after - commands_before >= 100,
        "{commands_before} {commands_after}"
    );
    assert_eq!(
        after - before,
        0,
        "data cost exits to user space:\n{}",
        transcript.text()
    );
}

#[test]
#[ignore = "needs a lab host"]
fn image_is_persistent_memory_that_the_guest_reads_only() {
    let sum = make_image();
    let before = host::shell("sha256sum </tmp/image");
    let transcript = GuestFile::small("image", "pmem-raw,pmem-write,pmem")
        .table("[root]\nimage = \"/tmp/image\"")
        .run();
    let raw = transcript.facts("pmem-raw", "");
    assert_eq!(raw["bytes"], "8388608");
    assert!(
        before.starts_with(raw["sha256"].as_str()),
        "{}",
        transcript.text()
    );
    assert_eq!(
        transcript.facts("pmem-write", "")["changed"],
        "no",
        "{}",
        transcript.text()
    );
    assert_eq!(
        host::shell("sha256sum </tmp/image"),
        before,
        "the guest wrote to the image itself"
    );
    let file = transcript.facts("pmem-file", "");
    assert_eq!(
        (file["pmem-file"].as_str(), file["sha256"].as_str()),
        ("claim", sum.as_str())
    );
}

#[test]
#[ignore = "needs a lab host"]
fn private_copy_of_an_image_leaves_the_image_alone() {
    let sum = make_image();
    let before = host::shell("sha256sum </tmp/image");
    let transcript = GuestFile::small("image-copy", "pmem,pmem-write")
        .table("[root]\nimage = \"/tmp/image\"\nmode = \"copy\"")
        .run();
    assert_eq!(transcript.facts("pmem-file", "")["sha256"], sum);
    assert_eq!(
        transcript.facts("pmem-write", "")["status"],
        "ok",
        "{}",
        transcript.text()
    );
    assert_eq!(
        host::shell("sha256sum </tmp/image"),
        before,
        "the guest wrote to the image itself"
    );
}

/// Makes an image of 8 MiB with one file, and gives the file's checksum.
fn make_image() -> String {
    host::shell(
        "cd /tmp && head -c 8388608 /dev/zero >image && mke2fs -F image >/dev/null 2>&1 && mkdir -p tree && \
         mount -t ext2 -o loop image tree && head -c 300000 /dev/urandom >tree/claim && \
         sha256sum tree/claim | cut -c 1-64 && umount tree",
    )
    .trim()
    .to_owned()
}

#[test]
#[ignore = "needs a lab host"]
fn msi_only_device_delivers_its_interrupts() {
    // `edu` is no VF and cannot be reset: both have to be accepted by name.
    let accept = "accept = [\"device-not-a-vf\", \"device-no-reset\"]";
    let transcript = GuestFile::small("edu", "lspci,edu")
        .device_with(&host::fact("EDU"), accept)
        .run();
    let edu = transcript.facts("edu", "");
    assert_eq!(edu["fired"], "8", "{}", transcript.text());
    assert_eq!(edu["delivered"], "8", "{}", transcript.text());
}

#[test]
#[ignore = "needs a lab host"]
fn device_that_cannot_be_reset_is_refused() {
    let text = GuestFile::small("edu-refused", "lspci")
        .device(&host::fact("EDU"))
        .refused(3);
    for id in ["device-not-a-vf", "device-no-reset"] {
        assert!(text.contains(&format!("error[{id}]")), "{text}");
    }
    assert_eq!(host::driver(&host::fact("EDU")), None);
}

#[test]
#[ignore = "needs a lab host"]
fn vf_in_use_by_the_host_is_refused_and_left_alone() {
    let bdf = host::nic(1);
    host::shell(&format!(
        "echo igbvf >/sys/bus/pci/devices/{bdf}/driver_override; echo {bdf} >/sys/bus/pci/drivers_probe"
    ));
    assert_eq!(host::driver(&bdf).as_deref(), Some("igbvf"));
    let text = GuestFile::small("busy", "lspci").device(&bdf).refused(3);
    assert!(
        text.contains("error[device-host-driver]") && text.contains("igbvf"),
        "{text}"
    );
    assert_eq!(host::driver(&bdf).as_deref(), Some("igbvf"));
    host::shell(&format!(
        "echo {bdf} >/sys/bus/pci/drivers/igbvf/unbind; echo >/sys/bus/pci/devices/{bdf}/driver_override"
    ));
}

#[test]
#[ignore = "needs a lab host"]
fn a_capture_reads_as_the_live_host() {
    machine::assert_capture_reads_as_live();
}

/// This kernel was built without audit.
#[test]
#[ignore = "needs a lab host"]
fn a_forbidden_call_without_audit_is_told_so() {
    let text = crate::violation::thread_is_forbidden();
    let sentence = "killed for a forbidden call, which one is not known: the kernel has no audit";
    assert!(text.contains(sentence), "{text}");
}
