//! Plans that are made: on a host of two VFs and on variations of it. Also the fixtures of the other tests.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use iommu::{
    addr::ByteLen,
    fake::FakeHost,
    isolation::{CheckId, Verdict},
};

use super::{Binding, Interface, Interrupts, Plan, plan};
use crate::{
    error::Report,
    host::Inventory,
    spec::{Files, GuestSpec, KernelFormat},
};

pub(super) const PF: &str = "0000:01:00.0";
pub(super) const VF: &str = "0000:01:10.0";
pub(super) const VF2: &str = "0000:01:10.2";

/// A host that a plan can be made for, with a PF and two free VFs in groups of their own.
pub(super) fn host() -> FakeHost {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "narrows-plan-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    on(FakeHost::new(std::env::temp_dir().join(name)))
        .pf(PF, 12)
        .attribute("sriov_drivers_autoprobe", "0")
        .vf(VF2, PF, 14)
        .vf(VF, PF, 13)
}

/// The files of a host besides its PCI functions.
pub(super) fn on(host: FakeHost) -> FakeHost {
    host.file(
        "proc/cpuinfo",
        "address sizes\t: 39 bits physical, 48 bits virtual\n",
    )
    .file("proc/meminfo", "MemAvailable: 8388608 kB\n")
    .file("sys/devices/system/cpu/online", "0-3\n")
    .file("dev/kvm", "")
}

pub(super) fn spec(more: &str) -> GuestSpec {
    let text = format!("name = \"a\"\nmemory = \"512M\"\nkernel = \"k\"\n{more}");
    GuestSpec::parse(Path::new("/g/guest.toml"), &text).unwrap()
}

pub(super) fn device(bdf: &str) -> String {
    format!("[[device]]\nbdf = \"{bdf}\"\n")
}

/// What `plan` makes of a guest file's further lines on a host.
pub(super) fn planned(host: &FakeHost, more: &str) -> Result<Plan, Vec<Report>> {
    let root = host.write().unwrap();
    let inventory = Inventory::read(&root).unwrap();
    fs::remove_dir_all(root.as_path()).unwrap();
    let files = Files {
        kernel: KernelFormat::BzImage,
        root: Some(ByteLen::new(64 << 20)),
    };
    plan(&inventory, &spec(more), &files)
}

#[test]
fn a_plan_names_everything_the_supervisor_does() {
    let more = format!(
        "vcpus = 2\n[root]\nimage = \"r\"\n{}{}",
        device(VF),
        device(VF2)
    );
    let plan = planned(&host(), &more).unwrap();
    assert_eq!(
        (plan.name.as_str(), plan.vcpus, plan.interface),
        ("a", 2, Interface::Type1)
    );
    assert_eq!(
        plan.groups.iter().map(|g| g.0).collect::<Vec<_>>(),
        [13, 14]
    );
    let [first, second] = plan.functions.as_slice() else {
        panic!("two functions")
    };
    assert_eq!((first.bdf.to_string().as_str(), first.guest_slot), (VF, 1));
    assert_eq!(
        (second.bdf.to_string().as_str(), second.guest_slot),
        (VF2, 2)
    );
    assert_eq!(first.binding, Binding::ToBind { set_override: true });
    assert_eq!((first.vectors, first.has_reset), (3, true));
    let msix = Interrupts::Msix {
        entries: 3,
        table_bar: 3,
        table_offset: 0,
        pba_bar: 3,
        pba_offset: 0x2000,
    };
    assert_eq!(first.interrupts, msix);
    let spans = |bar: usize| -> Vec<(u64, u64)> {
        let bar = first.bars[bar].as_ref().unwrap();
        bar.spans.iter().map(|s| (s.offset, s.len_bytes)).collect()
    };
    assert_eq!(spans(0), [(0, 0x4000)]);
    assert_eq!(spans(3), [(0x1000, 0x1000), (0x3000, 0x1000)]);
    assert_eq!(plan.images[0].at.len_bytes(), 64 << 20);
    assert!(plan.warnings.is_empty());
}

#[test]
fn the_text_of_a_plan_is_what_will_be_done() {
    let plan = planned(&host(), &device(VF)).unwrap();
    assert_eq!(
        plan.to_string(),
        "guest a: 1 vCPU, 512 MiB\n  \
           kernel     /g/k\n  \
           cmdline    pci=noearly\n             \
                      pci=noearly: nothing answers at ports 0xcf8 and 0xcfc, where Linux looks for chipsets before it \
         knows of ECAM\n  \
           console    off\n  \
           devices    by type1, IOMMU group 13\n  \
           verdict    pass\n\
         memory\n  \
           [0x0, 0x20000000)  RAM, DMA at the same addresses\n\
         device 0000:01:10.0 -> 00:01.0: group 13, 3 MSI-X vectors\n  \
           will be bound to vfio-pci and unbound at the end\n  \
           [0x100000000, 0x100004000)  BAR 0, mapped: +0x0..0x4000\n  \
           [0x100004000, 0x100008000)  BAR 3, mapped: +0x1000..0x2000 +0x3000..0x4000\n"
    );
    let json: serde_json::Value = serde_json::from_str(&plan.to_json().unwrap()).unwrap();
    assert_eq!(
        (json["apiVersion"].as_str(), json["kind"].as_str()),
        (Some("v1alpha1"), Some("Plan"))
    );
    let bar = &json["plan"]["functions"][0]["bars"][0];
    assert_eq!(bar["at"]["start"], "0x100000000");
}

#[test]
fn no_bar_is_open_unless_a_pair_names_it_and_then_without_the_pages_of_its_interrupts() {
    let pair = |from: &str, to: &str| format!("[[peer]]\nfrom = \"{from}\"\nto = \"{to}\"\n");
    let both = format!("{}{}", device(VF), device(VF2));
    let open = |plan: &Plan| -> Vec<(String, usize, String)> {
        plan.open_parts()
            .map(|part| (part.function.bdf.to_string(), part.bar, part.at.to_string()))
            .collect()
    };
    let plan = planned(&host().iommufd(), &both).unwrap();
    assert_eq!(open(&plan), []);
    assert_eq!(
        (plan.verdict, plan.interface),
        (Verdict::Pass, Interface::Iommufd)
    );

    let plan = planned(&host().iommufd(), &format!("{both}{}", pair(VF, VF2))).unwrap();
    let bars: Vec<String> = [0, 3]
        .map(|bar: usize| plan.functions[1].bars[bar].as_ref().unwrap().at.to_string())
        .to_vec();
    assert_eq!(
        bars,
        ["[0x100008000, 0x10000c000)", "[0x10000c000, 0x100010000)"]
    );
    let part = |bar, at: &str| (VF2.to_owned(), bar, at.to_owned());
    // Table at 0 and pending bits at 0x2000 of BAR 3.
    let expected = [
        part(0, "[0x100008000, 0x10000c000)"),
        part(3, "[0x10000d000, 0x10000e000)"),
        part(3, "[0x10000f000, 0x100010000)"),
    ];
    assert_eq!(open(&plan), expected);
    assert_eq!(
        (plan.verdict, plan.interface),
        (Verdict::Warn, Interface::Type1)
    );
    let [warning] = plan.warnings.as_slice() else {
        panic!("one warning: {:?}", plan.warnings)
    };
    assert_eq!(warning.id.name(), "peer-dma");
    assert_eq!(
        warning.what,
        "DMA of 0000:01:10.0 may reach the BARs of 0000:01:10.2, and so may DMA of every device of this guest"
    );
    assert!(
        warning
            .why
            .iter()
            .any(|why| why.starts_with("type1 is used"))
    );
    assert!(plan.to_string().contains(
        "  peer       0000:01:10.0 -> 0000:01:10.2: every device reaches its BARs by DMA\n"
    ));

    // A second pair to the same device opens nothing more; without iommufd nothing is said of it.
    let third = "0000:01:10.4";
    let more = format!(
        "{both}{}{}{}",
        device(third),
        pair(VF, VF2),
        pair(third, VF2)
    );
    let plan = planned(&host().vf(third, PF, 15), &more).unwrap();
    assert_eq!(open(&plan), expected);
    assert_eq!(plan.warnings.len(), 2);
    assert!(!plan.warnings[0].why.iter().any(|why| why.contains("type1")));
}

#[test]
fn iommufd_is_the_first_choice() {
    let auto = |host: FakeHost| planned(&host, &device(VF)).unwrap().interface;
    assert_eq!(auto(host().iommufd()), Interface::Iommufd);
    assert_eq!(auto(host().vfio("vfio0").iommufd()), Interface::Iommufd);
    assert_eq!(
        auto(host().vfio_without_node("vfio0").iommufd()),
        Interface::Type1
    );
    let more = format!("interface = \"type1\"\n{}", device(VF));
    assert_eq!(
        planned(&host().iommufd(), &more).unwrap().interface,
        Interface::Type1
    );
}

#[test]
fn a_bound_function_stays_bound() {
    let plan = planned(&host().vfio("vfio7"), &device(VF)).unwrap();
    let cdev = Some("vfio7".to_owned());
    assert_eq!(plan.functions[0].binding, Binding::Bound { cdev });
}

#[test]
fn vectors_are_limited_by_file_and_function() {
    let vectors = |host: FakeHost, max: u32| {
        let more = format!("{}max_vectors = {max}\n", device(VF));
        planned(&host, &more).unwrap().functions[0].vectors
    };
    assert_eq!(vectors(host(), 2), 2);
    assert_eq!(vectors(host(), 200), 3);
    assert_eq!(vectors(host().msi(4), 200), 16);
    assert_eq!(vectors(host().msi(4), 7), 4);
    assert_eq!(vectors(host().config(&[0; 256]), 7), 0);
}

#[test]
fn an_opt_out_becomes_a_warning_and_is_recorded() {
    let more = format!(
        "{}accept = [\"device-no-reset\", \"device-not-a-vf\"]\n",
        device(VF)
    );
    let plan = planned(&host().reset_methods(""), &more).unwrap();
    assert_eq!(
        plan.functions[0].accepted,
        [CheckId::DeviceNoReset],
        "the one that was needed"
    );
    assert_eq!(plan.verdict, Verdict::Warn);
    let warnings: Vec<_> = plan
        .warnings
        .iter()
        .map(|w| (w.id.name(), w.what.as_str()))
        .collect();
    assert_eq!(
        warnings,
        [
            (
                "device-no-reset",
                "assigning VF 0000:01:10.0 as the guest file accepts it"
            ),
            (
                "accept-unused",
                "the guest file accepts device-not-a-vf for VF 0000:01:10.0, which does not apply"
            ),
        ]
    );
    assert!(plan.to_string().contains("  verdict    warn\n"));
    let json: serde_json::Value = serde_json::from_str(&plan.to_json().unwrap()).unwrap();
    assert_eq!(json["plan"]["verdict"], "warn");
    assert_eq!(
        json["plan"]["functions"][0]["accepted"][0],
        "device-no-reset"
    );
}

#[test]
fn what_a_check_warns_of_is_a_warning_of_the_plan() {
    let plan = planned(&host().group_type(12, "DMA-FQ"), &device(VF)).unwrap();
    let ids: Vec<_> = plan
        .warnings
        .iter()
        .map(|warning| warning.id.name())
        .collect();
    assert_eq!(ids, ["lazy-invalidation"]);
    assert_eq!(plan.verdict, Verdict::Warn);
    // What is wrong with the host as a whole is told by other commands, not with each guest.
    let plan = planned(&host().setting("proc/sys/kernel/tainted", "1"), &device(VF)).unwrap();
    assert!(plan.warnings.is_empty());
    assert_eq!(plan.verdict, Verdict::Pass);
}

#[test]
fn what_one_refusal_says_is_not_said_again() {
    let ids = |host: &FakeHost| -> Vec<&'static str> {
        let reports = planned(host, &device(VF)).unwrap_err();
        reports.iter().map(|report| report.id.name()).collect()
    };
    assert_eq!(ids(&host().no_iommu()), ["no-iommu"]);
    let folder = format!("narrows-no-acs-{}", std::process::id());
    let without_acs = on(FakeHost::new(std::env::temp_dir().join(folder)))
        .bridge("0000:00:02.0", 1)
        .acs(0x5f, 0)
        .pf(PF, 12)
        .under("0000:00:02.0")
        .vf(VF, PF, 13);
    assert!(ids(&without_acs).contains(&"acs-missing"));
    assert_eq!(ids(&without_acs.no_iommu()), ["no-iommu"]);
    assert_eq!(ids(&host().config(&[0; 64])), ["config-unreadable"]);
    assert_eq!(ids(&host().no_group()), ["device-no-group"]);
    let both = host().no_group().group_type(12, "identity");
    assert_eq!(ids(&both), ["device-no-group", "pf-identity"]);
}

#[test]
fn a_whole_group_may_be_assigned_together() {
    let host = on(FakeHost::new(
        std::env::temp_dir().join(format!("narrows-group-{}", std::process::id())),
    ))
    .pf(PF, 12)
    .vf(VF, PF, 13)
    .vf(VF2, PF, 13);
    let plan = planned(&host, &format!("{}{}", device(VF), device(VF2))).unwrap();
    assert_eq!(plan.groups.len(), 1);
}

#[test]
fn ram_keeps_clear_of_the_groups_reserved_regions() {
    let host = host().reserved(13, 0x1000_0000, 0x1000_FFFF, "reserved");
    let plan = planned(&host, &device(VF)).unwrap();
    let ranges: Vec<String> = plan
        .memory
        .ranges
        .iter()
        .map(|r| r.at.to_string())
        .collect();
    assert_eq!(ranges, ["[0x0, 0x10000000)", "[0x10200000, 0x20200000)"]);
}

#[test]
fn a_guest_without_devices_needs_no_iommu() {
    assert!(
        planned(&host().no_iommu(), "")
            .unwrap()
            .functions
            .is_empty()
    );
}

#[test]
fn too_many_vcpus_for_the_host_are_a_warning() {
    let plan = planned(&host(), "vcpus = 5\n").unwrap();
    assert_eq!(plan.warnings[0].why, ["5 vCPUs, 4 CPUs are online"]);
}
