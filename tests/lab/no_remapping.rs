//! A host whose IOMMU does not remap interrupts: Narrows refuses by what the kernel shows, before it touches a device.

use crate::{guest::GuestFile, host};

#[test]
#[ignore = "needs a lab host"]
fn host_without_interrupt_remapping_is_refused() {
    let text = GuestFile::small("no-remapping", "lspci")
        .device(&host::nic(0))
        .refused(3);
    assert!(text.contains("error[no-interrupt-remapping]"), "{text}");
    assert_eq!(
        host::driver(&host::nic(0)),
        None,
        "the VF was not given back"
    );
}

#[test]
#[ignore = "needs a lab host"]
fn unsafe_interrupts_are_refused_even_where_the_kernel_would_allow_them() {
    let parameter = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
    host::shell(&format!("echo Y >{parameter}"));
    let path = GuestFile::small("unsafe", "lspci")
        .device(&host::nic(0))
        .write();
    let output = std::process::Command::new("narrows")
        .args(["run", &path])
        .output()
        .unwrap();
    host::shell(&format!("echo N >{parameter}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.contains("error[unsafe-interrupts]") && text.contains(parameter),
        "{text}"
    );
}
