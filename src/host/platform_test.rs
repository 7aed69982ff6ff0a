use std::{fs, path::PathBuf, process};

use iommu::{fake::FakeHost, topology::Topology};

use super::{BootLoader, CpuMaker, PciNames, Platform};

/// A folder for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("narrows-platform-{name}-{}", process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn a_platform_is_told_by_its_files() {
    let folder = Folder::new("amd");
    let root = FakeHost::new(&folder.0)
        .file(
            "proc/cpuinfo",
            "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu svm hypervisor\n",
        )
        .file("sys/firmware/acpi/tables/IVRS", "")
        .file("sys/class/dmi/id/sys_vendor", "QEMU")
        .file("sys/class/dmi/id/product_name", "Standard PC")
        .file("boot/loader/entries/linux.conf", "")
        .write()
        .unwrap();
    let platform = Platform::read(&root).unwrap();
    assert_eq!(
        platform,
        Platform {
            cpu: CpuMaker::Amd,
            has_virtualization: Some(true),
            is_virtual: true,
            product: Some("QEMU Standard PC".to_owned()),
            has_iommu_table: Some(true),
            boot_loader: Some(BootLoader::SystemdBoot),
        }
    );
}

#[test]
fn what_no_file_tells_is_not_known() {
    let folder = Folder::new("bare");
    let root = FakeHost::new(&folder.0).no_iommu().write().unwrap();
    assert_eq!(Platform::read(&root).unwrap(), Platform::default());
}

#[test]
fn names_are_read_for_what_the_host_has() {
    let folder = Folder::new("names");
    let root = FakeHost::new(&folder.0)
        .pf("0000:01:00.0", 12)
        .file(
            "usr/share/misc/pci.ids",
            "# comment\n8086  Intel Corporation\n\t10c9  82576 Gigabit\n\t\t8086 0001  A board\n\t1234  other\n\
             1234  Nobody\n\t11e8  elsewhere\nC 02  Network controller\n\t00  Ethernet controller\n",
        )
        .write()
        .unwrap();
    let topology = Topology::read(&root).unwrap();
    let names = PciNames::read(&root, &topology).unwrap();
    assert_eq!(names.vendor(0x8086), Some("Intel Corporation"));
    assert_eq!(names.device(0x8086, 0x10c9), Some("82576 Gigabit"));
    assert_eq!(names.device(0x8086, 0x1234), None);
    assert_eq!(names.vendor(0x1234), None);
}
