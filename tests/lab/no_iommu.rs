//! A host without an IOMMU: Narrows refuses, and says what is missing.

use crate::{guest::GuestFile, host, machine};

#[test]
#[ignore = "needs a lab host"]
fn host_without_iommu_is_refused() {
    let text = GuestFile::small("no-iommu", "lspci")
        .device(&host::nic(0))
        .refused(3);
    assert!(
        text.contains("error[no-iommu]") && text.contains("fix:"),
        "{text}"
    );
    assert_eq!(
        host::driver(&host::nic(0)),
        None,
        "the refusal came after something was touched"
    );
}

#[test]
#[ignore = "needs a lab host"]
fn guest_without_devices_runs_all_the_same() {
    // No device, no DMA: there is nothing an IOMMU would have to hold back.
    GuestFile::small("no-devices", "lspci,mem").run();
}

#[test]
#[ignore = "needs a lab host"]
fn a_capture_reads_as_the_live_host() {
    machine::assert_capture_reads_as_live();
}
