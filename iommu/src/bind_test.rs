use std::path::Path;

use super::*;
use crate::fake::FakeHost;

// What only a kernel can do, binding and unbinding, is run in the lab by `examples/probe.rs`.

const VF: &str = "0000:01:10.0";

fn vf() -> Bdf {
    VF.parse().unwrap()
}

fn host(folder: &Path) -> FakeHost {
    FakeHost::new(folder)
        .pf("0000:01:00.0", 12)
        .vf(VF, "0000:01:00.0", 13)
}

fn override_of(root: &SysRoot) -> String {
    root.read_text(function_path(vf()).join("driver_override"))
        .unwrap()
}

#[test]
fn a_function_in_use_by_the_host_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = host(folder.path()).driver("igbvf").write().unwrap();
    let error = Binding::bind(&root, vf(), VFIO_PCI).unwrap_err();
    assert_eq!(
        error.to_string(),
        "0000:01:10.0 is in use by the host's driver igbvf"
    );
    assert_eq!(override_of(&root), "(null)");
    assert_eq!(
        root.read_text("sys/bus/pci/drivers/igbvf/unbind").unwrap(),
        ""
    );
}

#[test]
fn a_function_already_bound_keeps_its_driver() {
    let folder = tempfile::tempdir().unwrap();
    let root = host(folder.path()).vfio("vfio0").write().unwrap();
    let binding = Binding::bind(&root, vf(), VFIO_PCI).unwrap();
    assert_eq!(binding.driver_before(), Some(VFIO_PCI));
    assert_eq!(override_of(&root), VFIO_PCI);
    assert_eq!(
        root.read_text("sys/bus/pci/drivers/vfio-pci/unbind")
            .unwrap(),
        ""
    );
    assert_eq!(root.read_text("sys/bus/pci/drivers_probe").unwrap(), "");
    binding.restore(&root).unwrap();
    assert_eq!(override_of(&root), "");
}

#[test]
fn a_kernel_that_does_not_bind_is_noticed_and_the_override_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = host(folder.path())
        .attribute("driver_override", "pci-stub")
        .write()
        .unwrap();
    let error = Binding::bind(&root, vf(), VFIO_PCI).unwrap_err();
    assert_eq!(
        error.to_string(),
        "0000:01:10.0 is bound to no driver instead of vfio-pci"
    );
    assert_eq!(root.read_text("sys/bus/pci/drivers_probe").unwrap(), VF);
    assert_eq!(override_of(&root), "pci-stub");
}

#[test]
fn a_function_that_is_not_there_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = FakeHost::new(folder.path()).write().unwrap();
    let error = Binding::bind(&root, vf(), VFIO_PCI).unwrap_err();
    assert_eq!(error.id(), "no-such-function");
}

#[test]
fn a_binding_survives_being_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let root = host(folder.path()).vfio("vfio0").write().unwrap();
    let binding = Binding::plan(&root, vf(), VFIO_PCI).unwrap();
    let text = serde_json::to_string(&binding).unwrap();
    assert_eq!(serde_json::from_str::<Binding>(&text).unwrap(), binding);
}

#[test]
fn only_drivers_that_hold_nothing_of_the_host_are_placeholders() {
    for driver in ["vfio-pci", "pci-stub", "mlx5_vfio_pci", "hisi_acc_vfio_pci"] {
        assert!(is_placeholder(driver), "{driver}");
    }
    for driver in [
        "igbvf",
        "nvme",
        "uio_pci_generic",
        "pcieport",
        "vfio-pci-core",
        "",
        "vfio",
    ] {
        assert!(!is_placeholder(driver), "{driver}");
    }
}
