//! Made-up hosts, and what the verbs see of them.

use std::{fs, path::PathBuf, process};

use iommu::{fake::FakeHost, sysfs::SysRoot, topology::Topology};
use narrows::{
    error::Color,
    host::{Layers, PciNames, Platform},
    view::{self, Examination, Scene, Wish},
};

/// What `pci.ids` says of the devices below.
const PCI_IDS: &str = "\
1000  Broadcom / LSI
\tc010  PEX880xx PCIe Gen 4 Switch
144d  Samsung Electronics Co Ltd
\ta824  NVMe SSD Controller PM173X
15b3  Mellanox Technologies
\t101d  MT2892 Family [ConnectX-6 Dx]
\t101e  ConnectX Family mlx5Gen Virtual Function
8086  Intel Corporation
\t10c9  82576 Gigabit Network Connection
\t10ca  82576 Virtual Function
\t3420  5520/5500/X58 I/O Hub PCI Express Root Port 1
";
const INTEL: &str = "vendor_id : GenuineIntel\nflags : fpu vmx\naddress sizes : 46 bits physical, 48 bits virtual\n";
const AMD: &str = "vendor_id : AuthenticAMD\nflags : fpu svm\naddress sizes : 48 bits physical, 48 bits virtual\n";

/// A made-up host as the verbs see it; its folder is removed at the end.
pub(crate) struct Look {
    pub(crate) folder: PathBuf,
    pub(crate) topology: Topology,
    pub(crate) names: PciNames,
    pub(crate) platform: Platform,
    pub(crate) layers: Layers,
}

impl Look {
    pub(crate) fn at(name: &str, host: FakeHost) -> Self {
        let folder = std::env::temp_dir().join(format!("narrows-view-{name}-{}", process::id()));
        let root: SysRoot = host.at(&folder).write().unwrap();
        // Read as if it stood at `/`: where lines break does not depend on a folder of the moment.
        let recording = SysRoot::recording(root.as_path());
        Topology::read(&recording).unwrap();
        let at_root = SysRoot::captured("/", recording.recorded().unwrap());
        let topology = Topology::read(&at_root).unwrap();
        Self {
            names: PciNames::read(&root, &topology).unwrap(),
            platform: Platform::read(&root).unwrap(),
            layers: Layers::read(&at_root),
            folder,
            topology,
        }
    }

    pub(crate) fn scene(&self, is_unfolded: bool) -> Scene<'_> {
        Scene {
            topology: &self.topology,
            names: &self.names,
            platform: &self.platform,
            layers: &self.layers,
            is_unfolded,
        }
    }

    pub(crate) fn examine(&self, wish: &Wish) -> Examination {
        view::examine(&self.topology, wish, |_| None).unwrap()
    }

    pub(crate) fn doctor(&self, wish: &Wish, is_verbose: bool) -> String {
        let found = self.examine(wish);
        let scene = self.scene(wish.is_all);
        view::doctor_text(&scene, &found, None, is_verbose, Color::Never)
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

pub(crate) fn empty() -> FakeHost {
    FakeHost::new("")
        .file("usr/share/misc/pci.ids", PCI_IDS)
        .file("proc/cpuinfo", INTEL)
        .file("sys/firmware/acpi/tables/DMAR", "")
        .file("etc/default/grub", "")
        .file("dev/kvm", "")
}

/// A NIC and an NVMe controller, each with VFs, on two nodes.
pub(crate) fn healthy() -> FakeHost {
    let mut host = empty()
        .iommufd()
        .bridge("0000:00:02.0", 1)
        .numa_node(0)
        .pf("0000:01:00.0", 12)
        .under("0000:00:02.0")
        .numa_node(0)
        .interface("enp1s0")
        .link("5.0 GT/s PCIe", "4");
    for (index, bdf) in ["10.0", "10.2", "10.4", "10.6", "11.0"].iter().enumerate() {
        let group = 13 + u32::try_from(index).unwrap();
        host = host
            .vf(&format!("0000:01:{bdf}"), "0000:01:00.0", group)
            .numa_node(0);
        if index == 0 {
            host = host.vfio("vfio0");
        }
    }
    host.bridge("0000:80:01.0", 30)
        .numa_node(1)
        .pf("0000:81:00.0", 31)
        .under("0000:80:01.0")
        .ids(0x144d, 0xa824, 0x01_0802)
        .driver("nvme")
        .controller("nvme0")
        .attribute("sriov_totalvfs", "32")
        .numa_node(1)
        .link("16.0 GT/s PCIe", "4")
        .vf("0000:81:00.1", "0000:81:00.0", 32)
        .ids(0x144d, 0xa824, 0x01_0802)
        .numa_node(1)
        .device("0000:80:05.0", 33)
        .numa_node(1)
        .reset_methods("")
}

pub(crate) fn shared_group() -> FakeHost {
    empty()
        .bridge("0000:00:02.0", 1)
        .pf("0000:01:00.0", 12)
        .under("0000:00:02.0")
        .vf("0000:01:10.0", "0000:01:00.0", 13)
        .vf("0000:01:10.2", "0000:01:00.0", 14)
        .vf("0000:01:10.4", "0000:01:00.0", 14)
        .driver("igbvf")
        .interface("enp1s0v2")
        .device("0000:00:1f.0", 20)
        .device("0000:00:1f.3", 20)
        .other_member(20, "INT3450:00")
}

/// A switch with two cards; the kernel has seen that its ports let them reach each other.
pub(crate) fn switch_without_acs() -> FakeHost {
    let port = |host: FakeHost, bdf: &str, kind: u8| {
        host.bridge(bdf, 5)
            .ids(0x1000, 0xc010, 0x06_0400)
            .express(kind)
            .no_acs()
    };
    let host = empty().bridge("0000:00:01.0", 1);
    let host = port(host, "0000:01:00.0", 5).under("0000:00:01.0");
    let host = port(host, "0000:02:00.0", 6).under("0000:01:00.0");
    let host = port(host, "0000:02:01.0", 6).under("0000:01:00.0");
    host.pf("0000:03:00.0", 5)
        .under("0000:02:00.0")
        .interface("enp3s0")
        .vf("0000:03:10.0", "0000:03:00.0", 5)
        .vf("0000:03:10.2", "0000:03:00.0", 5)
        .pf("0000:04:00.0", 5)
        .under("0000:02:01.0")
        .ids(0x144d, 0xa824, 0x01_0802)
        .driver("nvme")
        .controller("nvme0")
        .bar(0, 0xfd00_0000, 0x4000)
        .device("0000:00:1c.0", 7)
}

/// Two ports of 100 Gbit/s with 64 VFs each, on a host with two nodes.
pub(crate) fn large() -> FakeHost {
    let mut host = empty().iommufd();
    for (node, bus) in [(0_u32, 0x3b_u32), (1, 0xaf)] {
        let (root, pf) = (
            format!("0000:{:02x}:00.0", bus - 1),
            format!("0000:{bus:02x}:00.0"),
        );
        host = host
            .bridge(&root, 10 + node)
            .numa_node(node)
            .pf(&pf, 20 + node)
            .under(&root)
            .ids(0x15b3, 0x101d, 0x02_0000)
            .driver("mlx5_core")
            .attribute("sriov_totalvfs", "127")
            .interface(&format!("ens{node}f0"))
            .link("16.0 GT/s PCIe", "16")
            .numa_node(node);
        for vf in 0..64_u32 {
            let (device, function) = (2 + vf / 8, vf % 8);
            host = host
                .vf(
                    &format!("0000:{bus:02x}:{device:02x}.{function}"),
                    &pf,
                    100 + node * 64 + vf,
                )
                .ids(0x15b3, 0x101e, 0x02_0000)
                .numa_node(node);
            if vf < 60 {
                host = host.vfio(&format!("vfio{}", node * 60 + vf));
            }
        }
    }
    host
}

/// A PF that has no VFs yet.
pub(crate) fn without_vfs() -> FakeHost {
    empty()
        .bridge("0000:00:02.0", 1)
        .pf("0000:01:00.0", 12)
        .under("0000:00:02.0")
}

pub(crate) fn no_iommu_intel() -> FakeHost {
    FakeHost::new("")
        .no_iommu()
        .cmdline("root=/dev/sda1 quiet")
        .file("proc/cpuinfo", INTEL)
        .file("sys/firmware/acpi/tables/FACP", "")
        .file("etc/default/grub", "")
        .pf("0000:01:00.0", 12)
        .vf("0000:01:10.0", "0000:01:00.0", 13)
}

pub(crate) fn no_iommu_amd() -> FakeHost {
    FakeHost::new("")
        .no_iommu()
        .cmdline("root=/dev/sda1 amd_iommu=off quiet")
        .file("proc/cpuinfo", AMD)
        .file("sys/firmware/acpi/tables/IVRS", "")
        .file("boot/loader/entries/linux.conf", "")
        .file("dev/kvm", "")
        .pf("0000:01:00.0", 12)
}

pub(crate) fn remapping_off() -> FakeHost {
    healthy()
        .cmdline("root=/dev/sda1 intel_iommu=on intremap=off")
        .interrupt_remapping(false)
}

/// How a host is made up.
/// How a host is made.
pub(crate) type Made = fn() -> FakeHost;

/// Every made-up host, by the name of its goldens.
pub(crate) fn all() -> Vec<(&'static str, Look)> {
    let all: [(&str, Made); 9] = [
        ("healthy", healthy),
        ("shared-group", shared_group),
        ("switch-without-acs", switch_without_acs),
        ("large", large),
        ("without-vfs", without_vfs),
        ("no-iommu-intel", no_iommu_intel),
        ("no-iommu-amd", no_iommu_amd),
        ("remapping-off", remapping_off),
        ("empty", || FakeHost::new("")),
    ];
    // Tests run side by side: each call has folders of its own.
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let call = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    all.into_iter()
        .map(|(name, host)| (name, Look::at(&format!("{call}-{name}"), host())))
        .collect()
}
