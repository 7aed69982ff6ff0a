//! Each check on a host that makes it fire; all of them on one that does not.

use proptest::prelude::*;

use super::*;
use crate::fake::FakeHost;

const PORT: &str = "0000:00:02.0";
const PF: &str = "0000:01:00.0";
const VF: &str = "0000:01:10.0";

/// A change of a host in the making.
type Change = fn(FakeHost) -> FakeHost;

fn same(host: FakeHost) -> FakeHost {
    host
}

/// A host with a free VF, where every check passes unless one of its parts is changed.
fn host(port: Change, pf: Change, vf: Change) -> FakeHost {
    let host = port(FakeHost::new("").file("dev/kvm", "").bridge(PORT, 1));
    let host = host
        .pf(PF, 12)
        .under(PORT)
        .attribute("sriov_drivers_autoprobe", "0");
    vf(pf(host).vf(VF, PF, 13))
}

fn read(host: &FakeHost) -> Topology {
    let folder = tempfile::tempdir().unwrap();
    let root = host.clone().at(folder.path()).write().unwrap();
    Topology::read(&root).unwrap()
}

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

fn judge(host: &FakeHost) -> Vec<Finding> {
    let topology = read(host);
    let mut findings = judge_host(&topology);
    findings.extend(judge_function(&topology, bdf(VF), &[bdf(VF)]));
    findings
}

fn of(host: &FakeHost, id: CheckId) -> Finding {
    let mut findings = judge(host).into_iter();
    findings.find(|finding| finding.check == id).unwrap()
}

/// `source: said` of all evidence.
fn evidence(finding: &Finding) -> String {
    let lines = finding.evidence.iter();
    lines
        .map(|evidence| format!("{}: {}\n", evidence.source.display(), evidence.said))
        .collect()
}

/// A host on which a check finds something, what it means, its value, and a part of the evidence. A check without an
/// arm does not compile.
fn fires(id: CheckId) -> (FakeHost, Verdict, &'static str, &'static str) {
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
            }),
            Warn,
            "2 of 8",
            "/proc/sys/kernel/kptr_restrict: 0, not 1 or more: ",
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
            "1 others",
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

#[test]
fn a_healthy_host_passes_every_check() {
    let findings = judge(&host(same, same, same));
    let ids: Vec<CheckId> = findings.iter().map(|finding| finding.check).collect();
    let wanted: Vec<CheckId> = CheckId::all().collect();
    assert_eq!(
        ids, wanted,
        "one finding for each, in the order of the table"
    );
    for finding in findings {
        assert_eq!(finding.verdict, Verdict::Pass, "{finding:#?}");
        assert!(!finding.evidence.is_empty(), "{}", finding.check);
        let subject = match finding.check.scope() {
            Scope::Host => Subject::Host,
            Scope::Function => Subject::Function(bdf(VF)),
        };
        assert_eq!(finding.subject, subject);
    }
}

#[test]
fn the_table_is_the_golden_one() {
    let rows: String = CheckId::all()
        .map(|id| {
            let check = id.check();
            let verdict = format!("{:?}", check.worst).to_lowercase();
            let accepted = check.accepted.unwrap_or("nobody may");
            let why = check.why;
            format!("{id}: {verdict}\n  otherwise: {why}\n  accepting it: {accepted}\n")
        })
        .collect();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/isolation/table.golden");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, &rows).unwrap();
    }
    let wanted = std::fs::read_to_string(golden).unwrap_or_default();
    assert_eq!(rows, wanted, "UPDATE_GOLDEN=1 writes it");
}

#[test]
fn every_row_is_complete() {
    for id in CheckId::all() {
        let check = id.check();
        assert_eq!(check.id, id);
        assert_eq!(CheckId::from_name(id.name()), Some(id));
        let kebab: String = format!("{id:?}")
            .chars()
            .flat_map(|c| {
                let dash = c.is_uppercase().then_some('-');
                dash.into_iter().chain(c.to_lowercase())
            })
            .collect();
        assert_eq!(kebab.trim_start_matches('-'), id.name());
        for text in [check.title, check.why, check.remedy] {
            assert!(!text.is_empty() && !text.ends_with('.'), "{id}: {text}");
        }
        assert!(!check.sources.is_empty(), "{id} has no source");
        assert!(
            check.accepted.is_none() || check.worst == Verdict::Refuse,
            "{id}"
        );
    }
    assert_eq!(CheckId::from_name("everything"), None);
    assert_eq!(CheckId::all().count(), CheckId::COUNT);
}

#[test]
fn the_worst_verdict_counts_and_nothing_is_no_pass() {
    let findings = judge(&host(same, same, same));
    assert_eq!(worst(&findings), Verdict::Pass);
    assert_eq!(worst(&[]), Verdict::Refuse);
    let (host, _, _, _) = fires(CheckId::BusMasterOn);
    assert_eq!(worst(&judge(&host)), Verdict::Fixable);
    let (host, _, _, _) = fires(CheckId::SmtOn);
    assert_eq!(worst(&judge(&host)), Verdict::Warn);
}

#[test]
fn a_function_that_is_not_there_has_no_finding() {
    let topology = read(&host(same, same, same));
    assert!(judge_function(&topology, bdf("0000:77:00.0"), &[]).is_empty());
}

/// What could not be read is never taken for good where it decides.
#[test]
fn what_was_not_read_does_not_pass() {
    let unread: [(CheckId, FakeHost); 9] = [
        (
            CheckId::PfIdentity,
            host(same, same, |vf| vf.group_type(12, "unknown")),
        ),
        (
            CheckId::AcsMissing,
            host(|port| port.config(&[0; 64]), same, same),
        ),
        (CheckId::AcsOverride, host(same, same, |vf| vf.cmdline(""))),
        (
            CheckId::AtsEnabled,
            host(same, |pf| pf.config(&[0; 64]), same),
        ),
        (
            CheckId::PriEnabled,
            host(same, same, |vf| vf.config(&[0; 64])),
        ),
        (
            CheckId::PasidEnabled,
            host(same, same, |vf| vf.config(&[0; 64])),
        ),
        (
            CheckId::PhantomFunctions,
            host(same, same, |vf| vf.config(&[0; 64])),
        ),
        (
            CheckId::ConfigUnreadable,
            host(same, same, |vf| vf.config(&[0xff; 4096])),
        ),
        (
            CheckId::PfDriverKnownBad,
            host(same, same, |vf| vf.kernel("custom")),
        ),
    ];
    for (id, host) in unread {
        let found = of(&host, id);
        assert_eq!(found.verdict, Verdict::Refuse, "{found:#?}");
        assert_eq!(found.value, NOT_READ, "{found:#?}");
    }
    let warned = [
        CheckId::KernelTainted,
        CheckId::KernelLockdown,
        CheckId::CoreDumps,
        CheckId::SmtOn,
        CheckId::CpuVulnerable,
        CheckId::KernelConfig,
        CheckId::NoPrebootProtection,
        CheckId::CmdlineHazard,
    ];
    let nothing = judge_host(&Topology::read(&crate::sysfs::SysRoot::new("/nowhere")).unwrap());
    for finding in nothing
        .iter()
        .filter(|finding| warned.contains(&finding.check))
    {
        assert_eq!(finding.verdict, Verdict::Warn, "{finding:#?}");
        assert_eq!(finding.value, NOT_READ, "{finding:#?}");
    }
}

#[test]
fn interrupt_remapping_that_was_not_seen_is_a_warning_and_the_kernel_decides() {
    let empty = host(same, same, |vf| {
        vf.file("proc/interrupts", " LOC: 1 Local timer interrupts")
    });
    let found = of(&empty, CheckId::NoInterruptRemapping);
    assert_eq!(
        (found.verdict, found.value.as_str()),
        (Verdict::Warn, "not seen")
    );
    assert!(evidence(&found).contains("the kernel decides"));
}

#[test]
fn a_group_that_one_guest_gets_whole_is_not_shared() {
    let host = host(same, same, |vf| vf.vf("0000:01:10.2", PF, 13));
    let topology = read(&host);
    let both = [bdf(VF), bdf("0000:01:10.2")];
    for vf in both {
        let findings = judge_function(&topology, vf, &both);
        let shared = findings
            .iter()
            .find(|finding| finding.check == CheckId::GroupShared);
        assert_eq!(shared.unwrap().verdict, Verdict::Pass);
    }
}

/// The firmware of a card owns the requester ids of all its functions and of all their VFs.
#[test]
fn any_identity_mapped_function_of_the_same_device_refuses() {
    let sibling = host(same, same, |vf| {
        vf.vf("0000:01:10.2", PF, 14).group_type(14, "identity")
    });
    let found = of(&sibling, CheckId::PfIdentity);
    assert_eq!(found.verdict, Verdict::Refuse);
    assert!(evidence(&found).contains("groups/14/type: identity, of 0000:01:10.2 (no driver)"));
    let other_card = host(same, same, |vf| {
        vf.device("0000:01:01.0", 14).group_type(14, "identity")
    });
    assert_eq!(of(&other_card, CheckId::PfIdentity).verdict, Verdict::Pass);
    let itself = host(same, same, |vf| vf.group_type(13, "identity"));
    assert_eq!(of(&itself, CheckId::PfIdentity).verdict, Verdict::Refuse);
}

#[test]
fn each_kind_of_port_is_judged_by_what_it_can_have() {
    let value = |port: Change| {
        let found = of(&host(port, same, same), CheckId::AcsMissing);
        (found.verdict, found.value)
    };
    let refused = |value: &str| (Verdict::Refuse, value.to_owned());
    let passed = |value: &str| (Verdict::Pass, value.to_owned());
    assert_eq!(value(same), passed("1 ports"));
    assert_eq!(value(FakeHost::no_acs), refused("no ACS"));
    // The kernel takes a missing bit for wired on; here it has to be seen.
    assert_eq!(value(|port| port.acs(0x1c, 0x1c)), refused("ACS off"));
    assert_eq!(
        value(|port| port.acs(0x5f, 0x5d)),
        refused("ACS off"),
        "direct translated"
    );
    assert_eq!(value(|port| port.express(7)), refused("conventional PCI"));
    assert_eq!(
        value(|port| port.config(&[0; 256])),
        refused("conventional PCI")
    );
    assert_eq!(value(|port| port.express(6)), passed("1 ports"));
    assert_eq!(
        value(|port| port.express(5).no_acs()),
        passed("1 ports"),
        "alone in its device"
    );
    let two: Change = |port| port.express(5).no_acs().device("0000:00:02.1", 3);
    let found = of(&host(two, same, same), CheckId::AcsMissing);
    assert_eq!(
        found.value, "no ACS",
        "an upstream port with a second function"
    );
}

#[test]
fn every_port_of_the_path_is_judged_and_a_root_bus_has_none() {
    let deep: Change = |port| {
        port.device("0000:02:00.0", 2)
            .express(5)
            .under(PORT)
            .no_acs()
            .device("0000:03:00.0", 3)
            .express(6)
            .acs(0x1f, 0)
            .under("0000:02:00.0")
    };
    let host = deep(FakeHost::new("").bridge(PORT, 1))
        .pf(PF, 12)
        .under("0000:03:00.0")
        .vf(VF, PF, 13);
    let found = of(&host, CheckId::AcsMissing);
    assert_eq!(
        evidence(&found),
        "/sys/bus/pci/devices/0000:03:00.0/config: ACS capability 0x001f, control 0x0000: source validation is off, \
         request redirect is off, completion redirect is off, upstream forwarding is off\n"
    );
    let root_bus = FakeHost::new("").pf(PF, 12).vf(VF, PF, 13);
    let found = of(&root_bus, CheckId::AcsMissing);
    assert_eq!(
        (found.verdict, found.value.as_str()),
        (Verdict::Pass, "root bus")
    );
}

#[test]
fn a_reset_that_the_device_denies_is_a_warning() {
    let found = of(
        &host(same, same, FakeHost::no_flr_bit),
        CheckId::DeviceNoReset,
    );
    assert_eq!(found.verdict, Verdict::Warn, "{found:#?}");
    assert!(evidence(&found).contains("bit 28 (FLR) clear"));
    let other = host(same, same, |vf| {
        vf.no_flr_bit().reset_methods("device_specific")
    });
    assert_eq!(of(&other, CheckId::DeviceNoReset).verdict, Verdict::Pass);
}

#[test]
fn bars_of_one_function_share_no_page_either() {
    let host = host(same, same, |vf| {
        vf.bar(0, 0xfd00_0000, 0x2000).bar(2, 0xfd00_1000, 0x1000)
    });
    let found = of(&host, CheckId::BarShared);
    assert_eq!(found.value, "0000:01:10.0 BAR 2");
}

#[test]
fn msix_tables_are_refused_where_they_cannot_be_kept_from_the_guest() {
    let said = |vf: Change| evidence(&of(&host(same, same, vf), CheckId::MsixOutsideBar));
    assert!(said(|vf| vf.bar(3, 0, 0)).contains("BAR 3, which is no memory BAR"));
    assert!(said(|vf| vf.msix(600)).contains("overlap"));
    assert!(said(|vf| vf.msi(3)).contains("no MSI-X capability"));
}

#[test]
fn a_driver_from_elsewhere_is_not_judged_by_the_kernels_version() {
    let found = |host| of(&host, CheckId::PfDriverKnownBad);
    let own = host(
        same,
        |pf| {
            pf.driver("i40e")
                .driver_version("2.8.20-k")
                .kernel("6.18.1")
        },
        same,
    );
    assert_eq!(found(own).verdict, Verdict::Pass);
    let made_elsewhere = host(
        same,
        |pf| pf.driver("i40e").driver_version("2.28.13").kernel("6.18.1"),
        same,
    );
    assert_eq!(found(made_elsewhere).verdict, Verdict::Warn);
    let unknown = host(same, |pf| pf.driver("mlx5_core").kernel("4.4.0"), same);
    assert_eq!(found(unknown).verdict, Verdict::Pass);
}

#[test]
fn snooping_is_always_forced_by_amd() {
    let host = host(same, same, |vf| vf.amd_iommu(0, 0));
    assert_eq!(of(&host, CheckId::NoSnoopControl).verdict, Verdict::Pass);
}

/// A function of a made-up host, whatever it is.
#[derive(Clone, Debug)]
struct Any {
    place: (u8, u8),
    group: u32,
    kind: u8,
    under: bool,
    config: Vec<u8>,
    bar: (usize, u64, u64),
    driver: u8,
}

fn any_function() -> impl Strategy<Value = Any> {
    let config = prop_oneof![
        Just(Vec::new()),
        proptest::collection::vec(any::<u8>(), 0..300),
        proptest::collection::vec(any::<u8>(), 4096..4097),
    ];
    let bar = (0_usize..6, any::<u32>(), any::<u32>());
    (
        (0_u8..4, 0_u8..8),
        0_u32..4,
        0_u8..4,
        any::<bool>(),
        config,
        bar,
        0_u8..4,
    )
        .prop_map(
            |(place, group, kind, under, config, (index, start, len), driver)| Any {
                place,
                group,
                kind,
                under,
                config,
                bar: (index, start.into(), len.into()),
                driver,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn judging_ends_with_one_finding_for_each_check_on_any_host(
        functions in proptest::collection::vec(any_function(), 0..6),
        cmdline in "[ -~]{0,60}",
        release in "[0-9.a-z+-]{0,12}",
        kind in "(DMA|DMA-FQ|identity|blocked|[a-z]{0,5})",
    ) {
        let mut host = FakeHost::new("").bridge(PORT, 1).cmdline(&cmdline).kernel(&format!("x{release}"));
        let mut seen = std::collections::BTreeSet::new();
        for function in functions {
            let (device, number) = function.place;
            if !seen.insert(function.place) {
                continue;
            }
            let name = format!("0000:01:{device:02x}.{number}");
            host = match function.kind {
                0 => host.pf(&name, function.group),
                1 => host.bridge(&name, function.group),
                _ => host.device(&name, function.group),
            };
            let (index, start, len) = function.bar;
            host = host.bar(index, start, len).group_type(function.group, &kind);
            if function.under {
                host = host.under(PORT);
            }
            if !function.config.is_empty() {
                host = host.config(&function.config);
            }
            host = match function.driver {
                0 => host.no_driver(),
                1 => host.driver("i40e"),
                2 => host.vfio_without_node("vfio0"),
                _ => host,
            };
        }
        let topology = read(&host);
        let of_host = CheckId::all().filter(|id| id.scope() == Scope::Host).count();
        prop_assert_eq!(judge_host(&topology).len(), of_host);
        for bdf in topology.functions.keys() {
            let findings = judge_function(&topology, *bdf, &[*bdf]);
            prop_assert_eq!(findings.len(), CheckId::COUNT - of_host);
            for finding in findings {
                prop_assert!(!finding.evidence.is_empty(), "{:?}", finding);
            }
        }
    }
}
