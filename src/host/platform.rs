//! What kind of machine it is, so that advice on it names the right switches.

use iommu::{error::Result, sysfs::SysRoot};
use serde::Serialize;

/// The machine below the kernel. A file that is not there leaves its fact out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Platform {
    /// Who made the processor.
    pub cpu: CpuMaker,
    /// Whether the processor offers VMX or SVM, from the flags in `/proc/cpuinfo`.
    pub has_virtualization: Option<bool>,
    /// Whether it is itself a virtual machine, from the flag `hypervisor`.
    pub is_virtual: bool,
    /// What the firmware calls the machine, e.g. `QEMU Standard PC (Q35 + ICH9, 2009)`.
    pub product: Option<String>,
    /// Whether the firmware describes an IOMMU: `DMAR` or `IVRS` is among its ACPI tables; `None` where they
    /// cannot be listed.
    pub has_iommu_table: Option<bool>,
    /// What seems to start the kernel.
    pub boot_loader: Option<BootLoader>,
}

/// Who made the processor, and so whose words its IOMMU goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CpuMaker {
    /// VT-x and VT-d.
    Intel,
    /// SVM and AMD-Vi; Hygon's processors are alike.
    Amd,
    /// Neither.
    #[default]
    Unknown,
}

/// A boot loader whose settings Narrows knows how to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootLoader {
    /// `/etc/default/grub` exists.
    Grub,
    /// `/boot/loader/entries` or `/efi/loader/entries` exists, and no settings of GRUB.
    SystemdBoot,
}

impl Platform {
    /// Reads what `root` tells.
    ///
    /// # Errors
    /// `sysfs-io`.
    pub fn read(root: &SysRoot) -> Result<Self> {
        let cpuinfo = root.read_text_if_any("proc/cpuinfo")?.unwrap_or_default();
        let flags = value(&cpuinfo, "flags").map(|text| text.split(' ').collect::<Vec<_>>());
        let has = |flag| flags.as_ref().map(|flags| flags.contains(&flag));
        let tables = root.list("sys/firmware/acpi/tables")?;
        Ok(Self {
            cpu: match value(&cpuinfo, "vendor_id") {
                Some("GenuineIntel") => CpuMaker::Intel,
                Some("AuthenticAMD" | "HygonGenuine") => CpuMaker::Amd,
                Some(_) | None => CpuMaker::Unknown,
            },
            has_virtualization: has("vmx").zip(has("svm")).map(|(vmx, svm)| vmx || svm),
            is_virtual: has("hypervisor").unwrap_or(false),
            product: read_product(root)?,
            has_iommu_table: (!tables.is_empty())
                .then(|| tables.iter().any(|name| name == "DMAR" || name == "IVRS")),
            boot_loader: find_boot_loader(root),
        })
    }
}

/// The value behind `key` and a colon, of the first processor.
fn value<'a>(cpuinfo: &'a str, key: &str) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}

fn read_product(root: &SysRoot) -> Result<Option<String>> {
    let mut words = Vec::new();
    for file in ["sys_vendor", "product_name"] {
        words.extend(root.read_text_if_any(format!("sys/class/dmi/id/{file}"))?);
    }
    words.retain(|word| !word.is_empty());
    Ok((!words.is_empty()).then(|| words.join(" ")))
}

fn find_boot_loader(root: &SysRoot) -> Option<BootLoader> {
    if root.exists("etc/default/grub") {
        return Some(BootLoader::Grub);
    }
    ["boot/loader/entries", "efi/loader/entries"]
        .iter()
        .any(|folder| root.exists(folder))
        .then_some(BootLoader::SystemdBoot)
}
