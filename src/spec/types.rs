//! What the operator asked for, once every value has been checked on its own.

use std::{fmt, path::PathBuf};

use iommu::{addr::ByteLen, bdf::Bdf};
use serde::{Deserialize, Serialize};

use crate::error::{ErrorId, Location};

/// A guest file whose values are each well-formed; whether host and files can satisfy it is not known yet.
#[derive(Clone, Debug, Serialize)]
pub struct GuestSpec {
    /// The guest's name: 1 to 64 of `a` to `z`, `0` to `9` and `-`.
    pub name: String,
    /// vCPUs, 1 to 64.
    pub vcpus: u32,
    /// RAM.
    pub memory: MemorySpec,
    /// The kernel: a bzImage or an ELF file with a PVH entry.
    pub kernel: PathBuf,
    /// The initial RAM file system.
    pub initramfs: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// What follows when the guest asks for a reboot.
    pub on_reboot: OnReboot,
    /// By which kernel interface devices are assigned.
    pub interface: InterfaceChoice,
    /// The image that the guest sees as `/dev/pmem0`.
    pub root: Option<RootSpec>,
    /// The serial console.
    pub console: ConsoleSpec,
    /// The functions to assign, in the order in which the guest finds them.
    pub devices: Vec<DeviceSpec>,
    /// Where the keys stand that the plan may have to point at.
    #[serde(skip)]
    pub places: Places,
}

/// Where the guest file asks for what only the host can grant.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `vcpus`.
    pub vcpus: Option<Location>,
    /// `memory`, or `memory.size`.
    pub memory: Option<Location>,
    /// `memory.hugepages`.
    pub hugepages: Option<Location>,
    /// `memory.numa_node`.
    pub numa_node: Option<Location>,
    /// `interface`.
    pub interface: Option<Location>,
    /// `kernel`.
    pub kernel: Option<Location>,
    /// `initramfs`.
    pub initramfs: Option<Location>,
    /// `root.image`.
    pub root: Option<Location>,
}

/// RAM as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemorySpec {
    /// Size, a multiple of the page or huge page size.
    pub size: ByteLen,
    /// Back it by huge pages of this size.
    pub hugepages: Option<HugepageSize>,
    /// Take it from this NUMA node.
    pub numa_node: Option<u32>,
}

/// A size of huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HugepageSize {
    /// 2 MiB.
    #[serde(rename = "2M")]
    TwoMib,
    /// 1 GiB.
    #[serde(rename = "1G")]
    OneGib,
}

impl HugepageSize {
    /// The size in bytes.
    #[must_use]
    pub const fn len(self) -> ByteLen {
        match self {
            Self::TwoMib => ByteLen::new(2 << 20),
            Self::OneGib => ByteLen::new(1 << 30),
        }
    }
}

/// What follows when the guest asks for a reboot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnReboot {
    /// A new guest from the same plan, with fresh memory and reset devices.
    #[default]
    Restart,
    /// The end of `narrows run`.
    Exit,
}

/// The kernel interface as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceChoice {
    /// iommufd where the host has it, else type1.
    #[default]
    Auto,
    /// iommufd and device files.
    Iommufd,
    /// VFIO groups in a type1 container.
    Type1,
}

/// The image that the guest sees as `/dev/pmem0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RootSpec {
    /// The image file.
    pub image: PathBuf,
    /// What the guest may do with it.
    pub mode: RootMode,
}

/// What the guest may do with its root image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootMode {
    /// Read the file itself.
    #[default]
    ReadOnly,
    /// Write to a private copy that ends with the guest.
    Copy,
}

/// Where the guest's serial console goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "mode", content = "path", rename_all = "kebab-case")]
pub enum ConsoleSpec {
    /// There is none.
    #[default]
    Off,
    /// Standard input and output of `narrows run`.
    Stdio,
    /// Output is appended to this file; there is no input.
    File(PathBuf),
}

/// A function to assign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceSpec {
    /// Its address on the host.
    pub bdf: Bdf,
    /// The most interrupt vectors the guest gets, 1 to 256.
    pub max_vectors: u32,
    /// The refusals that the operator has opted out of.
    pub accept: Vec<OptOut>,
    /// The token shared by a PF and its VFs, where the PF is bound to vfio-pci.
    pub vf_token: Option<Uuid>,
    /// Where the guest file names it.
    #[serde(skip)]
    pub place: Option<Location>,
}

/// A refusal that an operator may opt out of, for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptOut {
    /// [`ErrorId::DeviceNotAVf`].
    NotAVf,
    /// [`ErrorId::DeviceNoReset`].
    NoReset,
    /// [`ErrorId::IoBar`]: the BAR is hidden from the guest.
    IoBar,
    /// [`ErrorId::ReservedDirectRelaxable`].
    DirectRelaxable,
}

impl OptOut {
    /// Every one.
    pub const ALL: [Self; 4] = [
        Self::NotAVf,
        Self::NoReset,
        Self::IoBar,
        Self::DirectRelaxable,
    ];

    /// As the guest file spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAVf => "not-a-vf",
            Self::NoReset => "no-reset",
            Self::IoBar => "io-bar",
            Self::DirectRelaxable => "direct-relaxable",
        }
    }

    /// The refusal it turns into a warning.
    #[must_use]
    pub const fn refusal(self) -> ErrorId {
        match self {
            Self::NotAVf => ErrorId::DeviceNotAVf,
            Self::NoReset => ErrorId::DeviceNoReset,
            Self::IoBar => ErrorId::IoBar,
            Self::DirectRelaxable => ErrorId::ReservedDirectRelaxable,
        }
    }
}

/// A UUID as VFIO takes it: text of the form `00112233-4455-6677-8899-aabbccddeeff`, lower case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Uuid(String);

impl Uuid {
    /// Reads a UUID in its usual text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_uuid = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        is_uuid.then(|| Self(text.to_ascii_lowercase()))
    }

    /// Its 16 bytes, in the order of the text.
    #[must_use]
    pub fn bytes(&self) -> [u8; 16] {
        let mut digits = self.0.chars().filter_map(|c| c.to_digit(16));
        std::array::from_fn(|_| {
            let mut digit = || u8::try_from(digits.next().unwrap_or(0)).unwrap_or(0);
            digit() << 4 | digit()
        })
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
