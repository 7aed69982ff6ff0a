//! Devices that are reset, that have only MSI, that are refused; and the host as a file.

use super::assert_nvme;
use crate::{guest::GuestFile, host, machine};

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
