//! The main job with the distribution's kernel, on the host and in the guest, unmodified.

use crate::{
    attack,
    guest::GuestFile,
    host, machine,
    small::{assert_nvme, check_traffic},
    violation,
};

#[test]
#[ignore = "needs a lab host"]
fn stock_guest_runs_on_a_nic_vf_and_an_nvme_vf() {
    assert!(
        !host::has_iommufd(),
        "this kernel was thought to have type1 only"
    );
    let words = "lspci,nvme,net:10.9.0.2/24,ping:10.9.0.1,irq";
    let transcript = GuestFile::stock("stock", words)
        .vcpus(2)
        .device(&host::nic(0))
        .device(&host::nvme(0))
        .run();
    assert_nvme(&transcript, 0);
    assert_eq!(transcript.facts("ping", "10.9.0.1")["received"], "3");
    assert_eq!(transcript.count("pci"), 2, "{}", transcript.text());
    for bdf in [host::nic(0), host::nvme(0)] {
        host::assert_returned(&bdf);
    }
}

#[test]
#[ignore = "needs a lab host"]
fn stock_guest_moves_data_both_ways() {
    // One vCPU: the nested emulator gives two no more time than one.
    let words = "lspci,net:10.9.0.2/24,ping:10.9.0.1,send:10.9.0.1:5001:4,recv:5002,irq";
    check_traffic(
        GuestFile::stock("stock-tcp", words)
            .device(&host::nic(0))
            .start(),
    );
}

/// Without a console a guest is told not to scan ports that nothing answers: it finds its devices all the same.
#[test]
#[ignore = "needs a lab host"]
fn stock_guest_without_a_console_finds_its_devices() {
    let file = GuestFile::stock("stock-silent", "net:10.9.0.2/24,sleep:600")
        .silent()
        .device(&host::nic(0))
        .device(&host::nvme(0));
    let plan = host::shell(&format!("narrows plan {}", file.write()));
    assert!(plan.contains("pci=noearly"), "{plan}");
    let guest = file.start();
    let answers =
        host::shell("ping -c 200 -W 1 10.9.0.2 | grep -m 3 'bytes from'; ping -c 2 -W 5 10.9.0.2");
    assert!(answers.contains(" 2 packets received"), "{answers}");
    // The command line names a serial port that is not there: looking for it, and writing to it, is some 137. The scan would
    // be 142 more, and the line of text that the word costs 66 less.
    let ports = guest.figures()["counters"]["port_exits"].as_u64().unwrap();
    assert!(ports < 180, "{ports} exits by ports");
    guest.signal("TERM");
    guest.end();
    host::assert_returned(&host::nic(0));
}

#[test]
#[ignore = "needs a lab host"]
fn iommufd_is_refused_where_the_kernel_has_none() {
    let text = GuestFile::stock("no-iommufd", "lspci")
        .key("interface = \"iommufd\"")
        .device(&host::nic(0))
        .refused(1);
    assert!(text.contains("error[interface-absent]"), "{text}");
    assert_eq!(host::driver(&host::nic(0)), None);
}

#[test]
#[ignore = "needs a lab host"]
fn panic_is_reported_by_the_guests_own_driver() {
    // Debian's kernel has the pvpanic driver; without it a panic with panic=-1 would be a reboot.
    let file = GuestFile::stock("stock-panic", "panic").device(&host::nvme(0));
    let (status, transcript) = file.start().end();
    assert_eq!(status.code(), Some(21), "{}", transcript.text());
    assert!(
        transcript.text().contains("its kernel reported a panic"),
        "{}",
        transcript.text()
    );
    host::assert_returned(&host::nvme(0));
}

#[test]
#[ignore = "needs a lab host"]
fn a_capture_reads_as_the_live_host() {
    machine::assert_capture_reads_as_live();
}

/// BARs of a named pair, on a kernel of another age: see `attack::peer`.
#[test]
#[ignore = "needs a lab host"]
fn named_pair_reaches_a_bar() {
    let (guest, ..) = attack::start_paired();
    guest.off();
    host::assert_returned(&host::nvme(0));
}

#[test]
#[ignore = "needs a lab host"]
fn a_forbidden_call_is_told_by_name_and_number() {
    let text = violation::thread_is_forbidden();
    assert!(
        text.contains("killed for a forbidden call: clone (56)"),
        "{text}"
    );
}
