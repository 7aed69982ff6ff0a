//! One test per refusal: its id, what it says, and that nothing else is refused.

use iommu::{fake::FakeHost, isolation::CheckId};

use super::{
    checks,
    plan_test::{PF, VF, VF2, device, host, planned},
};
use crate::error::{ErrorId, Exit, Id, Report, exit_of};

/// The one refusal of a guest with the free VF on `host`, and its message without the line of the guest file.
fn refusal(host: &FakeHost, more: &str) -> (Id, String) {
    let mut reports = planned(host, more).unwrap_err();
    assert_eq!(reports.len(), 1, "{reports:#?}");
    let report = reports.remove(0);
    assert_eq!(exit_of(std::slice::from_ref(&report)), report.id.exit());
    (report.id, text(report))
}

/// The message without its place, with paths as on a host whose root is `/`.
fn text(report: Report) -> String {
    let text = report.at(None).to_string();
    let root = std::env::temp_dir()
        .join("narrows-plan-")
        .display()
        .to_string();
    let mut parts = text.split(&root);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-')
    })
}

#[track_caller]
fn refuses(host: &FakeHost, more: &str, message: &str) {
    let (_, found) = refusal(host, more);
    // Two spaces begin each further line; the last line is the renderer's.
    let id = found.split(['[', ']']).nth(1).unwrap().to_owned();
    let link = format!("\n  more: narrows explain {id}");
    assert_eq!(found.strip_suffix(&link).unwrap(), message);
}

#[test]
fn kvm_absent() {
    let root = host().write().unwrap();
    std::fs::remove_file(root.path("dev/kvm")).unwrap();
    let mut inventory = crate::host::Inventory::read(&root).unwrap();
    inventory.topology.functions.clear();
    let files = crate::spec::Files {
        kernel: crate::spec::KernelFormat::Elf,
        root: None,
    };
    let reports = super::plan(&inventory, &super::plan_test::spec(""), &files).unwrap_err();
    std::fs::remove_dir_all(root.as_path()).unwrap();
    assert_eq!(reports[0].id, CheckId::KvmAbsent);
    assert_eq!(exit_of(&reports), Exit::Failed);
}

#[test]
fn no_iommu() {
    refuses(
        &host().no_iommu(),
        &device(VF),
        "error[no-iommu]: cannot assign devices on this host\n  \
           why: /sys/class/iommu: empty, the kernel uses no IOMMU\n  \
           why: otherwise a device could read and write all of the host's memory\n  \
           fix: enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on (AMD: on by default)",
    );
}

#[test]
fn noiommu_mode() {
    let host = host().file("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y");
    let (id, text) = refusal(&host, &device(VF));
    assert_eq!(id, CheckId::NoiommuMode);
    assert!(
        text.contains("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode: Y"),
        "{text}"
    );
}

#[test]
fn unsafe_interrupts() {
    let host = host().file(
        "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
        "Y",
    );
    let (id, text) = refusal(&host, &device(VF));
    assert_eq!(id, CheckId::UnsafeInterrupts);
    assert!(
        text.contains("vfio_iommu_type1/parameters/allow_unsafe_interrupts: Y"),
        "{text}"
    );
    assert_eq!(id.exit(), Exit::Refused);
}

#[test]
fn interface_absent() {
    let more = format!("interface = \"iommufd\"\n{}", device(VF));
    let (id, text) = refusal(&host(), &more);
    assert_eq!(id, ErrorId::InterfaceAbsent);
    assert!(text.contains("why: there is no /dev/iommu"), "{text}");
    let (_, text) = refusal(&host().vfio_without_node("vfio0").iommufd(), &more);
    assert!(
        text.contains("0000:01:10.0 is bound to vfio-pci, but has no device file"),
        "{text}"
    );
}

#[test]
fn device_absent() {
    refuses(
        &host(),
        &device("0000:01:10.1"),
        "error[device-absent]: there is no device 0000:01:10.1\n  \
           why: /sys/bus/pci/devices/0000:01:10.1 does not exist\n  \
           why: otherwise there is nothing to assign\n  \
           fix: did you mean 0000:01:10.0 or 0000:01:10.2 or 0000:01:00.0?",
    );
    let (_, text) = refusal(&host(), &device("0000:77:01.1"));
    assert!(text.contains("fix: create the VF first"), "{text}");
}

#[test]
fn device_listed_twice() {
    let reports = planned(&host(), &format!("{0}{0}{0}", device(VF))).unwrap_err();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].id, ErrorId::DeviceListedTwice);
    assert_eq!(
        reports[0].location.as_ref().map(|l| l.line),
        Some(7),
        "the second one"
    );
}

#[test]
fn too_many_devices_and_vectors() {
    let mut crowd = host();
    let mut more = String::new();
    for index in 0..17 {
        let bdf = format!("0000:02:{index:02x}.0");
        crowd = crowd.vf(&bdf, PF, 100 + index).msix(100);
        more += &format!("{}max_vectors = 100\n", device(&bdf));
    }
    let ids: Vec<_> = planned(&crowd, &more)
        .unwrap_err()
        .iter()
        .map(|r| r.id)
        .collect();
    assert_eq!(ids, [ErrorId::TooManyDevices, ErrorId::TooManyVectors]);
}

#[test]
fn numa_node_absent() {
    let host = host().file("sys/devices/system/node/online", "0\n").file(
        "sys/devices/system/node/node0/meminfo",
        "Node 0 MemTotal: 8388608 kB\n",
    );
    let spec = "[memory]\nsize = \"512M\"\nnuma_node = 3\n";
    let (id, text) = refused_memory(&host, spec);
    assert_eq!(id, ErrorId::NumaNodeAbsent);
    assert!(
        text.contains("there is no NUMA node 3") && text.contains("node: 0"),
        "{text}"
    );
    let (id, text) = refused_memory(
        &host.file(
            "sys/devices/system/node/node0/meminfo",
            "Node 0 MemTotal: 1024 kB\n",
        ),
        "[memory]\nsize = \"512M\"\nnuma_node = 0\n",
    );
    assert_eq!(id, ErrorId::MemoryInsufficient);
    assert!(
        text.contains("NUMA node 0 has 1 MiB, the guest asks for 512 MiB"),
        "{text}"
    );
}

#[test]
fn hugepages_insufficient() {
    let host = host().file(
        "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
        "255\n",
    );
    let (id, text) = refused_memory(&host, "[memory]\nsize = \"512M\"\nhugepages = \"2M\"\n");
    assert_eq!(id, ErrorId::HugepagesInsufficient);
    assert!(
        text.contains("it takes 256 huge pages of 2 MiB, 255 are free"),
        "{text}"
    );
    assert!(
        text.contains("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"),
        "{text}"
    );
}

#[test]
fn memory_insufficient() {
    let host = host().file("proc/meminfo", "MemAvailable: 524287 kB\n");
    let (id, text) = refused_memory(&host, "memory = \"512M\"\n");
    assert_eq!(id, ErrorId::MemoryInsufficient);
    assert!(
        text.contains("it takes 524288 KiB, of which the host has 524287"),
        "{text}"
    );
}

/// The one refusal of a guest with this memory and no device.
fn refused_memory(host: &FakeHost, memory: &str) -> (Id, String) {
    let root = host.write().unwrap();
    let inventory = crate::host::Inventory::read(&root).unwrap();
    std::fs::remove_dir_all(root.as_path()).unwrap();
    let text = format!("name = \"a\"\nkernel = \"k\"\n{memory}");
    let spec = crate::spec::GuestSpec::parse(std::path::Path::new("g"), &text).unwrap();
    let files = crate::spec::Files {
        kernel: crate::spec::KernelFormat::Elf,
        root: None,
    };
    let mut reports = super::plan(&inventory, &spec, &files).unwrap_err();
    assert_eq!(reports.len(), 1, "{reports:#?}");
    let report = reports.remove(0);
    (report.id, self::text(report))
}

#[test]
fn layout_impossible() {
    let host = host().reserved(13, 0x1000, 0x1FFF, "reserved");
    let (id, text) = refusal(&host, &device(VF));
    assert_eq!(id, ErrorId::LayoutImpossible);
    assert!(text.contains("why: reserved: group 13 msi [0xfee00000, 0xfef00000), group 13 reserved [0x1000, 0x2000)"), "{text}");
}

#[test]
fn device_not_a_vf() {
    let host = host()
        .pf("0000:03:00.0", 30)
        .bar(0, 0xfe90_0000, 0x2_0000)
        .no_driver();
    refuses(
        &host,
        &device("0000:03:00.0"),
        "error[device-not-a-vf]: cannot assign device 0000:03:00.0\n  \
           why: /sys/bus/pci/devices/0000:03:00.0/physfn: does not exist\n  \
           why: otherwise the guest could change what the next user gets: firmware, link, VFs\n  \
           fix: assign a VF, or write `accept = [\"device-not-a-vf\"]`",
    );
}

#[test]
fn device_host_driver() {
    refuses(
        &host().driver("igbvf"),
        &device(VF),
        "error[device-host-driver]: cannot assign VF 0000:01:10.0\n  \
           why: /sys/bus/pci/devices/0000:01:10.0/driver: the host's driver igbvf has it\n  \
           why: otherwise a device in use would be taken away from the host\n  \
           fix: echo 0000:01:10.0 > /sys/bus/pci/drivers/igbvf/unbind",
    );
}

#[test]
fn driver_override_set() {
    let (id, text) = refusal(&host().attribute("driver_override", "igbvf"), &device(VF));
    assert_eq!(id, CheckId::DriverOverrideSet);
    assert!(text.contains("driver_override: names igbvf"), "{text}");
    assert!(
        planned(
            &host().attribute("driver_override", "vfio-pci"),
            &device(VF)
        )
        .is_ok()
    );
}

#[test]
fn device_no_group() {
    let (id, text) = refusal(&host().no_group(), &device(VF));
    assert_eq!(id, CheckId::DeviceNoGroup);
    assert!(
        text.contains("0000:01:10.0/iommu_group: does not exist"),
        "{text}"
    );
}

#[test]
fn group_shared() {
    let host = host()
        .bridge("0000:00:02.0", 13)
        .vf("0000:01:10.4", PF, 13)
        .driver("igbvf")
        .vf("0000:01:10.6", PF, 13);
    refuses(
        &host,
        &device(VF),
        "error[group-shared]: cannot assign VF 0000:01:10.0\n  \
           why: /sys/kernel/iommu_groups/13/devices: IOMMU group 13 also holds 0000:00:02.0 (driver pcieport), 0000:01:10.4 (driver igbvf), 0000:01:10.6 (no driver)\n  \
           why: otherwise the guest could reach the other devices of the group by DMA\n  \
           fix: assign all of them to this guest, or have them told apart: ACS on the ports above them",
    );
}

#[test]
fn pf_identity() {
    let (id, text) = refusal(&host().group_type(12, "identity"), &device(VF));
    assert_eq!(id, CheckId::PfIdentity);
    assert!(
        text.contains("/sys/kernel/iommu_groups/12/type: identity, of 0000:01:00.0 (driver igb)"),
        "{text}"
    );
}

#[test]
fn reserved_direct() {
    let of = |kind| host().reserved(13, 0x8000_0000, 0x8000_FFFF, kind);
    let (id, text) = refusal(&of("direct"), &device(VF));
    assert_eq!(id, CheckId::ReservedDirect);
    assert!(
        text.contains("iommu_groups/13/reserved_regions: direct [0x80000000, 0x80010000)"),
        "{text}"
    );
    let (id, _) = refusal(&of("direct-relaxable"), &device(VF));
    assert_eq!(id, CheckId::ReservedDirectRelaxable);
    let accepted = format!("{}accept = [\"reserved-direct-relaxable\"]\n", device(VF));
    assert!(planned(&of("direct-relaxable"), &accepted).is_ok());
    assert!(planned(&of("direct"), &accepted).is_err());
}

#[test]
fn device_no_reset() {
    let (id, text) = refusal(&host().reset_methods(""), &device(VF));
    assert_eq!(id, CheckId::DeviceNoReset);
    assert!(
        text.contains("reset_method: empty") && text.contains("accept = [\"device-no-reset\"]"),
        "{text}"
    );
}

#[test]
fn config_unreadable() {
    // 64 bytes, as without privilege, with a capability list that begins behind them.
    let mut config = [0; 64];
    config[6] = 0x10;
    config[0x34] = 0x70;
    let (id, text) = refusal(&host().config(&config), &device(VF));
    assert_eq!(id, CheckId::ConfigUnreadable);
    assert!(text.contains("0000:01:10.0/config: "), "{text}");
}

#[test]
fn io_bar() {
    let lines = format!(
        "{}\n0x000000000000e000 0x000000000000e01f 0x0000000000040101\n",
        "0x0 0x0 0x0"
    );
    let host = host().attribute("resource", &lines).config(&[0; 256]);
    let (id, text) = refusal(&host, &device(VF));
    assert_eq!(id, CheckId::IoBar);
    assert!(
        text.contains("BAR 1 lies in I/O space, 32 B at 0xe000"),
        "{text}"
    );
    let accepted = format!("{}accept = [\"io-bar\"]\n", device(VF));
    let plan = planned(&host, &accepted).unwrap();
    assert!(
        plan.functions[0].bars.iter().all(Option::is_none),
        "the BAR is hidden"
    );
}

#[test]
fn bar_below_page() {
    for (start, len) in [
        (0xfd00_0000, 0x800),
        (0xfd00_0800, 0x1000),
        (0xfd00_0000, 0x3000),
    ] {
        let (id, text) = refusal(&host().bar(0, start, len), &device(VF));
        assert_eq!(id, CheckId::BarBelowPage, "{start:#x} {len:#x}");
        assert!(text.contains("BAR 0 has "), "{text}");
    }
}

#[test]
fn msix_outside_bar() {
    let (id, text) = refusal(&host().msix(2048), &device(VF));
    assert_eq!(id, CheckId::MsixOutsideBar);
    assert!(
        text.contains(
            "the MSI-X table of 2048 vectors would be at 0x0 of BAR 3, which is 0x4000 bytes long"
        ),
        "{text}"
    );
    let (_, text) = refusal(&host().bar(3, 0, 0), &device(VF));
    assert!(text.contains("BAR 3, which is no memory BAR"), "{text}");
    let (_, text) = refusal(&host().msix(600), &device(VF));
    assert!(text.contains("overlap"), "{text}");
}

#[test]
fn all_refusals_come_at_once() {
    let host = host()
        .reset_methods("")
        .driver("igbvf")
        .file("proc/meminfo", "MemAvailable: 1 kB\n");
    let more = format!("{}{}{}", device(VF), device(VF2), device("0000:01:10.7"));
    let reports = planned(&host, &more).unwrap_err();
    let ids: Vec<_> = reports.iter().map(|r| r.id.name()).collect();
    assert_eq!(
        ids,
        [
            "device-absent",
            "memory-insufficient",
            "device-host-driver",
            "device-no-reset"
        ]
    );
    assert_eq!(
        exit_of(&reports),
        Exit::Failed,
        "not only safety checks stood in the way"
    );
}

#[test]
fn the_table_of_checks_is_this() {
    let ids: Vec<_> = checks::table()
        .into_iter()
        .map(|(id, _)| id.name())
        .collect();
    assert_eq!(
        ids,
        [
            "interface-absent",
            "device-absent",
            "device-listed-twice",
            "too-many-devices",
            "too-many-vectors",
            "too-many-vcpus",
            "numa-node-absent",
            "hugepages-insufficient",
            "memory-insufficient",
        ],
        "what checks the host and its devices is iommu::isolation's"
    );
    assert!(checks::table().iter().all(|(_, reason)| !reason.is_empty()));
}
