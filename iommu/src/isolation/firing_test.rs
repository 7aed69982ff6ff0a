//! For each check a host on which it finds something.

use super::fixture_test::{Change, PF, VF, evidence, host, of, same};
use crate::{
    fake::FakeHost,
    isolation::{CheckId, NOT_READ, Verdict},
};

/// A host on which a check finds something, what it means, its value, and a part of the evidence. A check without an
/// arm does not compile.
pub(super) fn fires(id: CheckId) -> (FakeHost, Verdict, &'static str, &'static str) {
    use CheckId as Id;
    use Verdict::{Fixable, Refuse, Warn};
    let on_host = |change: Change| change(host(same, same, same));
    let on_port = |change| host(change, same, same);
    let on_pf = |change| host(same, change, same);
    let on_vf = |change| host(same, same, change);
    match id {
        Id::KvmAbsent => (
            FakeHost::new("").pf(PF, 12).vf(VF, PF, 13),
            Refuse,
            "absent",
            "/dev/kvm: does not exist",
        ),
        Id::NoIommu => (
            on_host(FakeHost::no_iommu),
            Refuse,
            "none",
            "/sys/class/iommu: empty, the kernel uses no IOMMU",
        ),
        Id::NoInterruptRemapping => (
            on_host(|host| host.interrupt_remapping(false)),
            Refuse,
            "off",
            "/proc/interrupts: ",
        ),
        Id::UnsafeInterrupts => (
            on_host(|host| {
                host.iommufd()
                    .file("sys/module/iommufd/parameters/allow_unsafe_interrupts", "Y")
            }),
            Refuse,
            "on",
            "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts: N\n\
             /sys/module/iommufd/parameters/allow_unsafe_interrupts: Y\n",
        ),
        Id::NoiommuMode => (
            on_host(|host| host.node("dev/vfio/noiommu-0", 0o600)),
            Refuse,
            "on",
            "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode: N\n/dev/vfio/noiommu-0: exists\n",
        ),
        Id::NoSnoopControl => (
            on_host(|host| host.intel_iommu(0, 0xf_005f)),
            Warn,
            "1 without",
            "/sys/class/iommu/dmar0/intel-iommu/ecap: f005f",
        ),
        Id::NoPrebootProtection => (
            on_host(|host| host.file("sys/firmware/acpi/tables/DMAR", &"\u{1}".repeat(60))),
            Warn,
            "off",
            "/sys/firmware/acpi/tables/DMAR: firmware does not opt in",
        ),
        Id::VfioNodeOpen => (
            on_host(|host| host.node("dev/vfio/devices/vfio0", 0o660)),
            Warn,
            "1 open",
            "/dev/vfio/devices/vfio0: mode 0660",
        ),
        Id::CmdlineHazard => (
            on_host(|host| {
                host.cmdline("quiet iommu=pt pci=realloc,noaer intel-iommu=on,igfx_off vfio.enable_unsafe_noiommu_mode")
            }),
            Warn,
            "iommu=pt pci=realloc,noaer intel-iommu=on,igfx_off vfio.enable_unsafe_noiommu_mode",
            "/proc/cmdline: iommu=pt: the host's devices are not translated\n",
        ),
        Id::KernelConfig => (
            on_host(|host| {
                host.kernel("6.12.95").file("proc/sys/kernel/osrelease", "6.12.95").file(
                    "boot/config-6.12.95",
                    "CONFIG_IOMMUFD=m\nCONFIG_VFIO_DEVICE_CDEV=y\nCONFIG_IRQ_REMAP=y\nCONFIG_VFIO_NOIOMMU=y\n\
                     CONFIG_INIT_ON_FREE_DEFAULT_ON=y\nCONFIG_PCIEAER=y\n",
                )
            }),
            Warn,
            "1 of 9",
            "/boot/config-6.12.95: CONFIG_VFIO_NOIOMMU=y: ",
        ),
        Id::KernelLockdown => (
            on_host(|host| {
                host.setting(
                    "sys/kernel/security/lockdown",
                    "[none] integrity confidentiality",
                )
            }),
            Warn,
            "none",
            "/sys/kernel/security/lockdown: [none] integrity confidentiality",
        ),
        Id::KernelSysctls => (
            on_host(|host| {
                host.setting("proc/sys/kernel/kptr_restrict", "0")
                    .setting("proc/sys/vm/unprivileged_userfaultfd", "1")
                    .setting("proc/sys/kernel/randomize_va_space", "1")
                    .setting("proc/sys/fs/suid_dumpable", "1")
            }),
            Warn,
            "4 of 10",
            "/proc/sys/kernel/randomize_va_space: 1, not 2: a process's addresses can be guessed\n\
             /proc/sys/fs/suid_dumpable: 1, not 0 or 2: ",
        ),
        Id::KernelTainted => (
            on_host(|host| host.setting("proc/sys/kernel/tainted", "524352")),
            Warn,
            "524352",
            "/proc/sys/kernel/tainted: bit 6: user space asked for it: VFIO in no-IOMMU mode does, when a device is \
             opened\n/proc/sys/kernel/tainted: bit 19: ",
        ),
        Id::CpuVulnerable => (
            on_host(|host| {
                host.cpu_vulnerability("l1tf", "Mitigation: PTE Inversion; VMX: vulnerable")
                    .cpu_vulnerability("mds", "Mitigation: Clear CPU buffers; SMT vulnerable")
            }),
            Warn,
            "1 of 5",
            "/sys/devices/system/cpu/vulnerabilities/l1tf: Mitigation: PTE Inversion; VMX: vulnerable",
        ),
        Id::SmtOn => (
            on_host(|host| host.setting("sys/devices/system/cpu/smt/control", "on")),
            Warn,
            "on",
            "/sys/devices/system/cpu/smt/control: on",
        ),
        Id::MemlockLimit => (
            on_host(|host| {
                host.file(
                    "proc/self/limits",
                    "Max locked memory         8388608              8388608              bytes",
                )
            }),
            Warn,
            "8 MiB",
            "/proc/self/limits: Max locked memory: 8388608 bytes",
        ),
        Id::KsmRunning => (
            on_host(|host| host.setting("sys/kernel/mm/ksm/run", "1")),
            Warn,
            "on",
            "/sys/kernel/mm/ksm/run: 1",
        ),
        Id::SwapOn => (
            on_host(|host| {
                host.setting(
                    "proc/swaps",
                    "Filename\tType\tSize\tUsed\tPriority\n/dev/sda2 partition 1 0 -2",
                )
            }),
            Warn,
            "1 areas",
            "/proc/swaps: /dev/sda2",
        ),
        Id::CoreDumps => (
            on_host(|host| host.setting("proc/sys/kernel/core_pattern", "|/usr/lib/apport %p")),
            Warn,
            "to a program",
            "/proc/sys/kernel/core_pattern: |/usr/lib/apport %p",
        ),
        Id::DeviceNotAVf => (
            FakeHost::new("").device(VF, 13),
            Refuse,
            "no VF",
            "/sys/bus/pci/devices/0000:01:10.0/physfn: does not exist",
        ),
        Id::LegacyBridge => (
            on_vf(|vf| vf.ids(0x8086, 0x7a04, 0x06_0100)),
            Refuse,
            "ISA bridge",
            "0000:01:10.0/class: 0x060100",
        ),
        Id::DeviceHostDriver => (
            on_vf(|vf| vf.driver("igbvf").interface("eth7")),
            Refuse,
            "igbvf",
            "0000:01:10.0/driver: the host's driver igbvf has it, as eth7",
        ),
        Id::DriverOverrideSet => (
            on_vf(|vf| vf.attribute("driver_override", "igbvf")),
            Refuse,
            "igbvf",
            "0000:01:10.0/driver_override: names igbvf",
        ),
        Id::VfAutoprobe => (
            on_pf(|pf| pf.attribute("sriov_drivers_autoprobe", "1")),
            Warn,
            "on",
            "0000:01:00.0/sriov_drivers_autoprobe: 1",
        ),
        Id::PfDriverKnownBad => (
            on_pf(|pf| pf.driver("i40e").kernel("6.12.48+deb13-amd64")),
            Refuse,
            "i40e of 6.12.48+deb13-amd64",
            "/proc/sys/kernel/osrelease: 6.12.48+deb13-amd64\n\
             /sys/bus/pci/devices/0000:01:00.0/driver: i40e, CVE-2025-39968: ",
        ),
        Id::NicVfTrusted => (
            on_vf(|vf| vf.vf_policy("trust on")),
            Refuse,
            "trusted",
            "ip link show pf01000, vf 0: trust on",
        ),
        Id::NicVfSpoofCheck => (
            on_vf(|vf| vf.vf_policy("spoofchk off")),
            Refuse,
            "off",
            "ip link show pf01000, vf 0: spoofchk off",
        ),
        Id::NicVfMac => (
            on_vf(|vf| vf.vf_policy("mac none")),
            Warn,
            "not set",
            "ip link show pf01000, vf 0: mac 00:00:00:00:00:00",
        ),
        Id::NicVfRssQuery => (
            on_vf(|vf| vf.vf_policy("query_rss on")),
            Warn,
            "on",
            "ip link show pf01000, vf 0: query_rss on",
        ),
        Id::DeviceNoGroup => (
            on_vf(FakeHost::no_group),
            Refuse,
            "no group",
            "0000:01:10.0/iommu_group: does not exist",
        ),
        Id::GroupShared => (
            on_vf(|vf| {
                vf.vf("0000:01:10.2", PF, 13)
                    .driver("igbvf")
                    .other_member(13, "serial8250")
            }),
            Refuse,
            "3 members",
            "/sys/kernel/iommu_groups/13/devices: IOMMU group 13 also holds 0000:01:10.2 (driver igbvf), serial8250",
        ),
        Id::PfIdentity => (
            on_pf(|pf| {
                pf.device("0000:01:00.1", 14)
                    .driver("igb")
                    .group_type(12, "identity")
                    .group_type(14, "identity")
            }),
            Refuse,
            "identity",
            "/sys/kernel/iommu_groups/12/type: identity, of 0000:01:00.0 (driver igb)\n\
             /sys/kernel/iommu_groups/14/type: identity, of 0000:01:00.1 (driver igb)\n",
        ),
        Id::LazyInvalidation => (
            on_host(|host| host.group_type(12, "DMA-FQ")),
            Warn,
            "lazy",
            "/sys/kernel/iommu_groups/12/type: DMA-FQ",
        ),
        Id::ReservedDirect => (
            on_host(|host| host.reserved(13, 0x8000_0000, 0x8000_ffff, "direct")),
            Refuse,
            "1 regions",
            "/sys/kernel/iommu_groups/13/reserved_regions: direct [0x80000000, 0x80010000)",
        ),
        Id::ReservedDirectRelaxable => (
            on_host(|host| host.reserved(13, 0x8000_0000, 0x8000_ffff, "direct-relaxable")),
            Refuse,
            "1 regions",
            "reserved_regions: direct-relaxable [0x80000000, 0x80010000)",
        ),
        Id::FirmwareShared => (
            on_vf(|vf| vf.vf("0000:01:10.2", PF, 14).vfio("vfio0")),
            Warn,
            "1 other",
            "/sys/bus/pci/devices/0000:01:10.2/driver: vfio-pci",
        ),
        Id::AcsMissing => (
            on_port(|port| port.acs(0x5f, 0x19)),
            Refuse,
            "ACS off",
            "/sys/bus/pci/devices/0000:00:02.0/config: ACS capability 0x005f, control 0x0019: request redirect is off\n",
        ),
        Id::AcsOverride => (
            on_host(|host| host.cmdline("quiet pcie_acs_override=downstream,multifunction")),
            Refuse,
            "set",
            "/proc/cmdline: pcie_acs_override=downstream,multifunction: ",
        ),
        Id::AtsEnabled => (
            on_pf(|pf| pf.ats(true)),
            Refuse,
            "on",
            "0000:01:00.0/config: ATS is switched on",
        ),
        Id::PriEnabled => (
            on_pf(|pf| pf.pri(true)),
            Refuse,
            "on",
            "0000:01:00.0/config: PRI is switched on",
        ),
        Id::PasidEnabled => (
            on_vf(|vf| vf.pasid(true)),
            Refuse,
            "on",
            "0000:01:10.0/config: PASID is switched on",
        ),
        Id::PhantomFunctions => (
            on_vf(FakeHost::phantom_functions_on),
            Refuse,
            "on",
            "0000:01:10.0/config: Device Control has bit 9",
        ),
        Id::DeviceNoReset => (
            on_vf(|vf| vf.reset_methods("pm bus")),
            Refuse,
            "pm bus",
            "0000:01:10.0/reset_method: pm bus, and none of flr, af_flr, device_specific",
        ),
        Id::ConfigUnreadable => (
            on_vf(|vf| vf.config(&[0; 64])),
            Refuse,
            NOT_READ,
            "0000:01:10.0/config: ",
        ),
        Id::BusMasterOn => (
            on_vf(|vf| vf.command(0x0406)),
            Fixable,
            "on",
            "0000:01:10.0/config: command 0x0406",
        ),
        Id::DeviceErrors => (
            on_vf(|vf| vf.errors(7, 2, 1)),
            Warn,
            "3 uncorrectable",
            "0000:01:10.0/aer_dev_fatal: 1 in total",
        ),
        Id::IoBar => (
            on_vf(|vf| {
                vf.attribute(
                    "resource",
                    "0x0 0x0 0x0\n0x000000000000e000 0x000000000000e01f 0x0000000000040101",
                )
            }),
            Refuse,
            "BAR 1",
            "0000:01:10.0/resource: BAR 1 lies in I/O space, 32 B at 0xe000",
        ),
        Id::BarBelowPage => (
            on_vf(|vf| vf.bar(0, 0xfd00_0000, 0x800)),
            Refuse,
            "BAR 0",
            "0000:01:10.0/resource: BAR 0 has 2 KiB at 0xfd000000",
        ),
        Id::BarShared => (
            on_vf(|vf| {
                vf.bar(0, 0xfd00_0000, 0x1000)
                    .device("0000:00:1f.5", 9)
                    .rom(0xfd00_0800, 0x800)
            }),
            Refuse,
            "0000:00:1f.5 ROM",
            "0000:01:10.0/resource: BAR 0 shares a page with ROM of 0000:00:1f.5\n\
             /sys/bus/pci/devices/0000:00:1f.5/resource: ROM at 0xfd000800",
        ),
        Id::MsixOutsideBar => (
            on_vf(|vf| vf.msix(2048)),
            Refuse,
            "outside",
            "the MSI-X table of 2048 vectors would be at 0x0 of BAR 3, which is 0x4000 bytes long",
        ),
        Id::RomPresent => (
            on_vf(|vf| vf.rom(0xfd00_0000, 0x1_0000)),
            Fixable,
            "hidden",
            "0000:01:10.0/resource: ROM of 64 KiB at 0xfd000000",
        ),
    }
}

#[test]
fn every_check_finds_what_it_is_for_and_shows_it() {
    for id in CheckId::all() {
        let (host, verdict, value, said) = fires(id);
        let found = of(&host, id);
        let shown = evidence(&found);
        assert_eq!(found.verdict, verdict, "{id}: {found:#?}");
        assert_eq!(verdict, id.check().worst, "{id}");
        assert_eq!(found.value, value, "{id}: {shown}");
        assert!(shown.contains(said), "{id}: {shown}");
        assert_eq!(found.fix.is_some(), verdict >= Verdict::Warn, "{id}");
    }
}
