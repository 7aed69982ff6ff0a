//! A host without an IOMMU: Narrows refuses, and says what is missing.

use crate::{guest::GuestFile, host};

#[test]
#[ignore = "needs a lab host"]
fn host_without_iommu_is_refused() {
    let path = GuestFile::small("no-iommu", "lspci")
        .device(&host::nic(0))
        .write();
    let output = std::process::Command::new("narrows")
        .args(["run", &path])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
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
