//! Traffic of NIC VFs: between guest and host, between guests, and what it costs.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use super::{IOMMUFD, TYPE1, assert_nvme, assert_only_vfs};
use crate::{
    guest::{Guest, GuestFile},
    host,
};

/// The transfer in each direction.
const TRANSFER_BYTES: usize = 4 << 20;

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
    // On a loaded machine the guest may stand still for longer than its ring has room: what it did not take does not count.
    let received = answers
        .split(", ")
        .find_map(|part| part.strip_suffix(" packets received"));
    let received: u32 = received.unwrap().parse().unwrap();
    assert!(received >= 250, "{answers}");
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
