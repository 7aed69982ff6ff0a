//! What to change in firmware set-up and on the kernel's command line when a host cannot fence devices.

use iommu::{
    isolation::Verdict,
    topology::{Remapping, Topology},
};

use super::{Examination, Scene};
use crate::host::{BootLoader, CpuMaker, Platform};

/// Parameters that take away what a fence needs, with the values that do.
const HARMFUL: [(&str, &[&str]); 9] = [
    ("intel_iommu", &["off", "igfx_off"]),
    ("amd_iommu", &["off"]),
    ("iommu", &["off", "pt", "soft", "noforce"]),
    ("iommu.passthrough", &["1", "on", "y"]),
    ("intremap", &["off", "nosid"]),
    ("nointremap", &[]),
    (
        "vfio_iommu_type1.allow_unsafe_interrupts",
        &["1", "Y", "y", "on"],
    ),
    ("iommufd.allow_unsafe_interrupts", &["1", "Y", "y", "on"]),
    ("vfio.enable_unsafe_noiommu_mode", &["1", "Y", "y", "on"]),
];

/// The steps, in order; none where the host is fit.
pub(super) fn steps(scene: &Scene<'_>, found: &Examination) -> Vec<String> {
    let (topology, platform) = (scene.topology, scene.platform);
    let mut steps = Vec::new();
    if found.host_verdict() == Verdict::Refuse {
        let lacks_iommu = topology.iommus.is_empty();
        let lacks_remapping = matches!(topology.host.remapping, Remapping::Off { .. });
        if lacks_iommu || lacks_remapping {
            steps.push(switch_on(platform, lacks_iommu));
        }
        steps.extend(command_line(topology, platform, lacks_iommu));
    }
    let is_restart = !steps.is_empty();
    steps.extend(kvm(topology, platform));
    if found.host_verdict() != Verdict::Refuse {
        steps.extend(make_vfs(topology));
    }
    match (is_restart, steps.is_empty()) {
        (_, true) => {}
        (true, false) => {
            steps.push("start the host anew, and ask again: narrows doctor".to_owned())
        }
        (false, false) => steps.push("ask again: narrows doctor".to_owned()),
    }
    steps
}

/// What to switch on below the kernel.
fn switch_on(platform: &Platform, lacks_iommu: bool) -> String {
    if platform.is_virtual {
        return inside_a_virtual_machine(platform);
    }
    let names = match (platform.cpu, lacks_iommu) {
        (CpuMaker::Intel, true) => "VT-d (\"Intel VT for Directed I/O\")",
        (CpuMaker::Intel, false) => "interrupt remapping (often beside VT-d) and x2APIC",
        (CpuMaker::Amd, true) => "the IOMMU (\"IOMMU\" under NBIO or AMD CBS: Enabled, not Auto)",
        (CpuMaker::Amd, false) => "interrupt remapping (beside \"IOMMU\") and x2APIC",
        (CpuMaker::Unknown, true) => "the IOMMU (Intel: VT-d; AMD: AMD-Vi, \"IOMMU\")",
        (CpuMaker::Unknown, false) => "interrupt remapping",
    };
    match (lacks_iommu, platform.has_iommu_table) {
        (true, Some(true)) => format!(
            "firmware set-up is right: {} is on (/sys/firmware/acpi/tables has {}); it is the kernel that does \
             not use it",
            match platform.cpu {
                CpuMaker::Intel => "VT-d",
                CpuMaker::Amd => "AMD-Vi",
                CpuMaker::Unknown => "the IOMMU",
            },
            match platform.cpu {
                CpuMaker::Intel => "DMAR",
                CpuMaker::Amd => "IVRS",
                CpuMaker::Unknown => "DMAR or IVRS",
            }
        ),
        (true, Some(false)) => format!(
            "firmware set-up: switch on {names}; it is off or missing: /sys/firmware/acpi/tables has neither DMAR nor \
             IVRS"
        ),
        (true, None) | (false, _) => format!("firmware set-up: switch on {names}"),
    }
}

fn inside_a_virtual_machine(platform: &Platform) -> String {
    let product = match &platform.product {
        Some(product) => format!(" ({product})"),
        None => String::new(),
    };
    format!(
        "this host is itself a virtual machine{product}: no firmware set-up helps, its own host has to give it an IOMMU \
         that remaps interrupts. QEMU: -machine q35,kernel-irqchip=split -device \
         intel-iommu,intremap=on,caching-mode=on; libvirt: <iommu model='intel'><driver intremap='on' \
         caching_mode='on'/></iommu>. Where that is not to be had, as in most clouds, use a machine of metal"
    )
}

/// The words to add and to remove, and how.
fn command_line(topology: &Topology, platform: &Platform, lacks_iommu: bool) -> Vec<String> {
    let words = &topology.host.cmdline;
    let remove: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|word| is_harmful(word))
        .collect();
    // The kernel's default depends on how it was built; AMD-Vi is on unless switched off.
    let is_on = words.iter().any(|word| word == "intel_iommu=on");
    let add = lacks_iommu && platform.cpu != CpuMaker::Amd && !is_on;
    let change = match (add, remove.is_empty()) {
        (false, true) => return Vec::new(),
        (true, true) => "add intel_iommu=on".to_owned(),
        (true, false) => format!("add intel_iommu=on, remove {}", remove.join(" ")),
        (false, false) => format!("remove {}", remove.join(" ")),
    };
    let grub = "GRUB: GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub (Debian, Ubuntu) or \
                grub2-mkconfig -o /boot/grub2/grub.cfg (Fedora, RHEL, SUSE)";
    let systemd_boot = "systemd-boot: /etc/kernel/cmdline, then kernel-install add \"$(uname -r)\" \
                        \"/lib/modules/$(uname -r)/vmlinuz\", or the line \"options\" in /boot/loader/entries/*.conf";
    let how = match platform.boot_loader {
        Some(BootLoader::Grub) => grub.to_owned(),
        Some(BootLoader::SystemdBoot) => systemd_boot.to_owned(),
        None => format!("{grub}; {systemd_boot}"),
    };
    vec![format!("kernel command line: {change}. {how}")]
}

/// Whether a word of the command line switches protection off; of a list, whether one of its values does.
fn is_harmful(word: &str) -> bool {
    let (key, values) = word.split_once('=').unwrap_or((word, ""));
    HARMFUL.iter().any(|(name, bad)| {
        *name == key && (bad.is_empty() || values.split(',').any(|value| bad.contains(&value)))
    })
}

/// How to come by VFs where there are none.
fn make_vfs(topology: &Topology) -> Option<String> {
    let mut functions = topology.functions.values();
    if functions.clone().any(|function| function.physfn.is_some()) {
        return None;
    }
    let pf = functions.find(|function| function.sriov.is_some_and(|s| s.total > 0))?;
    let folder = format!("/sys/bus/pci/devices/{}", pf.bdf);
    Some(format!(
        "make VFs that no driver of the host takes: echo 0 > {folder}/sriov_drivers_autoprobe, then echo N > \
         {folder}/sriov_numvfs"
    ))
}

/// What guests need beside a fence.
fn kvm(topology: &Topology, platform: &Platform) -> Option<String> {
    if topology.host.has_kvm {
        return None;
    }
    let (name, module) = match platform.cpu {
        CpuMaker::Intel => (
            "VT-x (\"Intel Virtualization Technology\", VMX)",
            "kvm_intel",
        ),
        CpuMaker::Amd => ("SVM (\"SVM Mode\")", "kvm_amd"),
        CpuMaker::Unknown => ("VT-x or SVM", "kvm_intel, or kvm_amd"),
    };
    Some(match (platform.has_virtualization, platform.is_virtual) {
        (Some(true), _) => format!("KVM: /dev/kvm does not exist; load its module: modprobe {module}"),
        (_, true) => "KVM: the processor shows neither vmx nor svm; switch on nested virtualization for this machine \
                      on its own host (QEMU: -cpu host)"
            .to_owned(),
        (_, false) => format!("KVM: switch on {name} in firmware set-up; /dev/kvm does not exist"),
    })
}
