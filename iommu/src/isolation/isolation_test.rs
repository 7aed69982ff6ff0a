//! What the tables promise, and single checks where one host does not show all of what they do.

use super::{
    firing_test::fires,
    fixture_test::{Change, PF, PORT, VF, bdf, evidence, host, judge, of, read, same, without},
    *,
};
use crate::fake::FakeHost;

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
    let unread: [(CheckId, FakeHost); 12] = [
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
        (
            CheckId::PhantomFunctions,
            host(same, |pf| pf.config(&[0; 16]), same),
        ),
        (
            CheckId::IoBar,
            host(same, same, |vf| vf.attribute("resource", "")),
        ),
        (
            CheckId::BarShared,
            host(|port| port.attribute("resource", ""), same, same),
        ),
    ];
    for (id, host) in unread {
        let found = of(&host, id);
        assert_eq!(found.verdict, Verdict::Refuse, "{found:#?}");
        assert_eq!(found.value, NOT_READ, "{found:#?}");
    }
    let regions = "sys/kernel/iommu_groups/13/reserved_regions";
    let resource = "sys/bus/pci/devices/0000:01:10.0/resource";
    let of_a_neighbour = "sys/bus/pci/devices/0000:00:02.0/resource";
    for (id, file) in [
        (CheckId::ReservedDirect, regions),
        (CheckId::ReservedDirectRelaxable, regions),
        (CheckId::IoBar, resource),
        (CheckId::BarBelowPage, resource),
        (CheckId::BarShared, resource),
        (CheckId::BarShared, of_a_neighbour),
    ] {
        let found = without(file, id);
        assert_eq!(found.verdict, Verdict::Refuse, "{found:#?}");
        assert_eq!(found.value, NOT_READ, "{found:#?}");
        assert!(evidence(&found).contains(file), "{found:#?}");
    }
    let warned = [
        CheckId::MemlockLimit,
        CheckId::KsmRunning,
        CheckId::SwapOn,
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

/// A kernel before 5.15 shows no `reset_method`; later ones show none where they cannot reset.
#[test]
fn a_kernel_that_tells_of_no_reset_is_not_one_that_cannot() {
    let file = "sys/bus/pci/devices/0000:01:10.0/reset_method";
    let found = without(file, CheckId::DeviceNoReset);
    assert_eq!(
        (found.verdict, found.value.as_str()),
        (Verdict::Refuse, "none")
    );
    assert!(evidence(&found).contains("reset_method: does not exist, the kernel cannot"));
    let folder = tempfile::tempdir().unwrap();
    let old = host(same, same, |vf| vf.kernel("5.10.0-28-amd64"));
    let root = old.at(folder.path()).write().unwrap();
    std::fs::remove_file(root.path(file)).unwrap();
    let topology = Topology::read(&root).unwrap();
    let findings = judge_function(&topology, bdf(VF), &[]);
    let found = findings
        .iter()
        .find(|finding| finding.check == CheckId::DeviceNoReset);
    let found = found.unwrap();
    assert_eq!(
        (found.verdict, found.value.as_str()),
        (Verdict::Refuse, NOT_READ)
    );
    assert!(found.fix.as_deref().unwrap().contains("5.15"), "{found:#?}");
    let empty = host(same, same, |vf| vf.reset_methods(""));
    assert!(evidence(&of(&empty, CheckId::DeviceNoReset)).contains("reset_method: empty"));
}

#[test]
fn phantom_functions_of_the_pf_refuse_its_vf() {
    let host = host(same, FakeHost::phantom_functions_on, same);
    let found = of(&host, CheckId::PhantomFunctions);
    assert_eq!(
        (found.verdict, found.value.as_str()),
        (Verdict::Refuse, "on")
    );
    assert!(evidence(&found).contains("0000:01:00.0/config: Device Control has bit 9"));
}

/// Swap and KSM are files of a kernel that has them.
#[test]
fn what_is_not_built_passes_and_what_may_not_be_read_warns() {
    for (id, file) in [
        (CheckId::SwapOn, "proc/swaps"),
        (CheckId::KsmRunning, "sys/kernel/mm/ksm/run"),
    ] {
        let found = without(file, id);
        assert_eq!(
            (found.verdict, found.value.as_str()),
            (Verdict::Pass, "not built")
        );
        let mut topology = read(&host(same, same, same));
        topology.host.settings.remove(file).unwrap();
        topology.host.unread.insert(file);
        let findings = judge_host(&topology);
        let found = findings.iter().find(|finding| finding.check == id).unwrap();
        assert_eq!(
            (found.verdict, found.value.as_str()),
            (Verdict::Warn, NOT_READ)
        );
    }
    let found = without("proc/self/limits", CheckId::MemlockLimit);
    assert_eq!(
        (found.verdict, found.value.as_str()),
        (Verdict::Warn, NOT_READ)
    );
}

#[test]
fn a_leak_of_which_the_kernel_knows_nothing_is_no_closed_one() {
    let of = |text: &'static str| {
        let host = host(same, same, same).cpu_vulnerability("mmio_stale_data", text);
        let found = of(&host, CheckId::CpuVulnerable);
        (found.verdict, found.value)
    };
    for text in [
        "Unknown: No mitigations",
        "Unknown: Dependent on hypervisor status",
        "Unknown (XEN PV detected, hypervisor mitigation required)",
        "",
    ] {
        assert_eq!(of(text), (Verdict::Warn, NOT_READ.to_owned()), "{text}");
    }
    assert_eq!(
        of("Vulnerable, BHI: Unknown"),
        (Verdict::Warn, "1 of 4".to_owned())
    );
    assert_eq!(of("Mitigation: Clear CPU buffers").0, Verdict::Pass);
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

const NIC: [CheckId; 4] = [
    CheckId::NicVfTrusted,
    CheckId::NicVfSpoofCheck,
    CheckId::NicVfMac,
    CheckId::NicVfRssQuery,
];

#[test]
fn a_nics_policy_that_was_not_read_is_a_warning() {
    let hosts = [
        (
            host(same, |pf| pf.no_driver(), same),
            "0000:01:00.0/net: the PF has no network interface",
        ),
        (
            host(same, same, FakeHost::no_vf_policies),
            "0000:01:00.0/net: pf01000: the driver tells nothing of VFs",
        ),
        (
            host(same, same, |vf| {
                vf.file("narrows/vf-info/pf01000", "vf 1 mac none")
            }),
            "ip link show pf01000: tells nothing of VF 0",
        ),
        (
            host(same, same, |vf| vf.vf_policy("trust maybe")),
            "is no line of a VF",
        ),
    ];
    for (host, said) in hosts {
        for id in NIC {
            let found = of(&host, id);
            assert_eq!(found.verdict, Verdict::Warn, "{found:#?}");
            assert_eq!(found.value, NOT_READ, "{found:#?}");
            assert!(evidence(&found).contains(said), "{found:#?}");
        }
    }
}

/// Of the drivers for hardware one alone has a switch for RSS; those without trust or spoof check decide unseen.
#[test]
fn a_switch_that_the_driver_does_not_tell_is_a_warning_but_for_that_of_rss() {
    let host = host(same, same, |vf| {
        vf.vf_policy("trust ? spoofchk ? query_rss ?")
    });
    for id in [CheckId::NicVfTrusted, CheckId::NicVfSpoofCheck] {
        let found = of(&host, id);
        assert_eq!(
            (found.verdict, found.value.as_str()),
            (Verdict::Warn, NOT_READ)
        );
        assert!(evidence(&found).contains("is not told by the driver"));
    }
    let found = of(&host, CheckId::NicVfRssQuery);
    assert_eq!(
        (found.verdict, found.value.as_str()),
        (Verdict::Pass, "no such switch")
    );
}

#[test]
fn a_function_that_is_no_nic_has_no_policy_to_judge() {
    let host = host(same, same, |vf| {
        vf.ids(0x1b36, 0x0010, 0x01_0802).vf_policy("trust on")
    });
    for id in NIC {
        let found = of(&host, id);
        assert_eq!(
            (found.verdict, found.value.as_str()),
            (Verdict::Pass, "no network device")
        );
    }
}

/// A card may have two ports on one function: each has its own switch.
#[test]
fn every_interface_of_the_pf_is_asked() {
    let second = "parent 0000:01:00.0\nvf 0 mac none spoofchk off trust off";
    let host = host(same, |pf| pf.interface("port0").interface("port1"), same)
        .file("narrows/vf-info/port1", second);
    let found = of(&host, CheckId::NicVfSpoofCheck);
    assert_eq!(found.verdict, Verdict::Refuse);
    assert_eq!(
        found.fix.as_deref(),
        Some("ip link set port1 vf 0 spoofchk on")
    );
    assert_eq!(
        evidence(&found),
        "ip link show port0, vf 0: spoofchk on\nip link show port1, vf 0: spoofchk off\n"
    );
    assert_eq!(of(&host, CheckId::NicVfTrusted).verdict, Verdict::Pass);
}
