//! What is made up of the host as a whole.

use std::{collections::BTreeMap, path::PathBuf};

use super::FakeHost;

/// The IOMMU of a made-up host, with its registers.
#[derive(Clone, Debug)]
pub(super) enum FakeIommu {
    Intel { cap: u64, ecap: u64 },
    Amd { cap: u64, features: u64 },
}

impl Default for FakeIommu {
    /// A server's: interrupts are remapped, snooping can be enforced.
    fn default() -> Self {
        Self::Intel {
            cap: 0x00d2_008c_4066_0462,
            ecap: 0x00f0_20df,
        }
    }
}

/// The files of a host that is set up with care.
pub(super) fn healthy_files() -> BTreeMap<PathBuf, String> {
    HEALTHY
        .iter()
        .map(|(path, text)| (PathBuf::from(path), (*text).to_owned()))
        .collect()
}

const HEALTHY: &[(&str, &str)] = &[
    (
        "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
        "N",
    ),
    ("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N"),
    ("sys/bus/pci/drivers_probe", ""),
    ("dev/vfio/vfio", ""),
    (
        "proc/cmdline",
        "BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro intel_iommu=on iommu.strict=1",
    ),
    (
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n\
         Max locked memory         unlimited            unlimited            bytes     ",
    ),
    ("proc/swaps", "Filename\tType\tSize\tUsed\tPriority"),
    ("proc/sys/kernel/tainted", "0"),
    ("proc/sys/kernel/kptr_restrict", "2"),
    ("proc/sys/kernel/dmesg_restrict", "1"),
    ("proc/sys/kernel/perf_event_paranoid", "3"),
    ("proc/sys/kernel/unprivileged_bpf_disabled", "2"),
    ("proc/sys/kernel/kexec_load_disabled", "1"),
    ("proc/sys/kernel/yama/ptrace_scope", "2"),
    ("proc/sys/kernel/io_uring_disabled", "2"),
    ("proc/sys/kernel/core_pattern", "|/bin/false"),
    ("proc/sys/kernel/randomize_va_space", "2"),
    ("proc/sys/vm/unprivileged_userfaultfd", "0"),
    ("proc/sys/fs/suid_dumpable", "0"),
    (
        "sys/kernel/security/lockdown",
        "none [integrity] confidentiality",
    ),
    ("sys/kernel/mm/ksm/run", "0"),
    ("sys/devices/system/cpu/smt/control", "off"),
    (
        "sys/devices/system/cpu/vulnerabilities/meltdown",
        "Not affected",
    ),
    (
        "sys/devices/system/cpu/vulnerabilities/spectre_v1",
        "Mitigation: usercopy/swapgs barriers and __user pointer sanitization",
    ),
    (
        "sys/devices/system/cpu/vulnerabilities/spectre_v2",
        "Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; BHI: BHI_DIS_S",
    ),
];

/// What the kernel of a made-up host was built with.
pub(super) const KERNEL_CONFIG: &str = "\
CONFIG_IOMMUFD=y
CONFIG_VFIO_DEVICE_CDEV=y
CONFIG_VFIO_GROUP=y
# CONFIG_VFIO_NOIOMMU is not set
# CONFIG_IOMMU_DEFAULT_PASSTHROUGH is not set
# CONFIG_IOMMU_DEBUGFS is not set
CONFIG_IRQ_REMAP=y
CONFIG_INIT_ON_ALLOC_DEFAULT_ON=y
CONFIG_INIT_ON_FREE_DEFAULT_ON=y
CONFIG_PCIEAER=y";

impl FakeHost {
    /// Gives it `/dev/iommu`, and iommufd's module parameter.
    #[must_use]
    pub fn iommufd(mut self) -> Self {
        self.has_iommufd = true;
        self.file("sys/module/iommufd/parameters/allow_unsafe_interrupts", "N")
    }

    /// Takes the IOMMU away: no groups, nothing in `/sys/class/iommu`, no table of the firmware, interrupts unchecked.
    #[must_use]
    pub fn no_iommu(mut self) -> Self {
        self.iommu = None;
        self
    }

    /// Gives it VT-d with these registers.
    #[must_use]
    pub fn intel_iommu(mut self, cap: u64, ecap: u64) -> Self {
        self.iommu = Some(FakeIommu::Intel { cap, ecap });
        self
    }

    /// Gives it AMD-Vi with these registers.
    #[must_use]
    pub fn amd_iommu(mut self, cap: u64, features: u64) -> Self {
        self.iommu = Some(FakeIommu::Amd { cap, features });
        self
    }

    /// Says whether the IOMMU checks interrupts.
    #[must_use]
    pub fn interrupt_remapping(mut self, on: bool) -> Self {
        self.remapping = Some(on);
        self
    }

    /// Sets the kernel's release, whose configuration is in `/boot`.
    #[must_use]
    pub fn kernel(mut self, release: &str) -> Self {
        release.clone_into(&mut self.kernel);
        self
    }

    /// Sets the kernel's command line.
    #[must_use]
    pub fn cmdline(self, words: &str) -> Self {
        self.file("proc/cmdline", words)
    }

    /// Sets a file of [`crate::topology::SETTINGS`].
    #[must_use]
    pub fn setting(self, path: &str, text: &str) -> Self {
        self.file(path, text)
    }

    /// Sets the kernel's word on a vulnerability of the processors.
    #[must_use]
    pub fn cpu_vulnerability(self, name: &str, text: &str) -> Self {
        self.file(
            &format!("sys/devices/system/cpu/vulnerabilities/{name}"),
            text,
        )
    }

    /// Adds a device node, or changes who may open one; a mode is permission bits such as `0o600`.
    #[must_use]
    pub fn node(mut self, path: &str, mode: u32) -> Self {
        self.modes.insert(PathBuf::from(path), mode);
        self
    }

    /// Sets any file, e.g. a module parameter.
    #[must_use]
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(PathBuf::from(path), text.to_owned());
        self
    }

    /// `/proc/interrupts`: those of the IOMMU, and of the first function that has a driver of the host's.
    pub(super) fn interrupts(&self) -> String {
        let is_remapped = self.remapping.unwrap_or(self.iommu.is_some());
        let prefix = if is_remapped { "IR-" } else { "" };
        let mut lines = vec![
            "            CPU0       CPU1".to_owned(),
            format!("   1:          0          9  {prefix}IO-APIC    1-edge      i8042"),
        ];
        match self.iommu {
            Some(FakeIommu::Intel { .. }) => {
                lines.push("  24:          0          0  DMAR-MSI    0-edge      dmar0".to_owned());
            }
            Some(FakeIommu::Amd { .. }) => lines.push(
                "  24:          0          0  PCI-MSI-0000:00:00.2    0-edge      AMD-Vi"
                    .to_owned(),
            ),
            None => {}
        }
        lines.push(format!(
            "  25:        172         38  {prefix}PCI-MSIX-0000:00:1f.0    0-edge      nvme0q0"
        ));
        lines.push(" LOC:     577933     543419   Local timer interrupts".to_owned());
        lines.join("\n")
    }
}
