//! What the operator asked for, once every value has been checked on its own.

use std::{fmt, path::PathBuf};

use iommu::{addr::ByteLen, bdf::Bdf, isolation::CheckId};
use serde::{Deserialize, Serialize, Serializer};

use super::{host::Mbps, sandbox::SandboxSpec};
use crate::error::Location;

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
    /// Whether the words that the machine implies are put before it.
    pub machine_words: bool,
    /// What follows when the guest asks for a reboot.
    pub on_reboot: OnReboot,
    /// What follows when the IOMMU stops a request of a device.
    pub on_dma_fault: OnDmaFault,
    /// By which kernel interface devices are assigned.
    pub interface: InterfaceChoice,
    /// The image that the guest sees as `/dev/pmem0`.
    pub root: Option<RootSpec>,
    /// The serial console.
    pub console: ConsoleSpec,
    /// The functions to assign, in the order in which the guest finds them; without those that are still to be chosen.
    pub devices: Vec<DeviceSpec>,
    /// VFs that are asked of pools, in the order of the file; empty once each is chosen.
    pub pool_devices: Vec<PoolDevice>,
    /// The pairs of them of which one may reach the BARs of the other by DMA.
    pub peers: Vec<PeerSpec>,
    /// The jail of its processes.
    pub sandbox: SandboxSpec,
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
    /// A new life of the same guest: devices are reset, memory keeps what it held, as on a machine.
    #[default]
    Restart,
    /// The end of `narrows run`.
    Exit,
}

/// What follows when a device of the guest tries to reach memory that is not the guest's, and the IOMMU stops it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDmaFault {
    /// The end of the guest.
    #[default]
    Stop,
    /// A line in the log.
    Log,
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
    /// The checks whose refusal the operator accepts; each may be accepted.
    pub accept: Vec<CheckId>,
    /// The token shared by a PF and its VFs, where the PF is bound to vfio-pci.
    pub vf_token: Option<Uuid>,
    /// Where the guest file names it.
    #[serde(skip)]
    pub place: Option<Location>,
}

/// A VF that is asked of a pool of the host, and has no address before one is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolDevice {
    /// Its number among all devices of the file, from 0.
    pub at: usize,
    /// What is asked.
    pub wish: PoolWish,
    /// The most interrupt vectors the guest gets, 1 to 256.
    pub max_vectors: u32,
    /// The checks whose refusal the operator accepts; each may be accepted.
    pub accept: Vec<CheckId>,
    /// Where the guest file names the pool.
    #[serde(skip)]
    pub place: Option<Location>,
}

/// Which VF of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolWish {
    /// The pool, by the name that the host file gives it.
    pub pool: String,
    /// Only of this NUMA node.
    pub numa: Option<u32>,
    /// The node of the guest's RAM: VFs of it come first.
    pub home: Option<u32>,
    /// Only where the PF's link is as fast as this now.
    pub min_link: Option<Mbps>,
    /// Whether the guest keeps the VF when it ends.
    pub keep: bool,
}

/// The VF that was chosen for a [`PoolDevice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The device's number in the file.
    pub at: usize,
    /// The VF.
    pub bdf: Bdf,
}

impl GuestSpec {
    /// The same guest with addresses in place of wishes: each chosen VF is at its place among the devices.
    #[must_use]
    pub fn with_chosen(mut self, chosen: &[Chosen]) -> Self {
        let wishes = std::mem::take(&mut self.pool_devices);
        // Ascending, so that each finds those before it at their places.
        for wish in wishes {
            let Some(found) = chosen.iter().find(|chosen| chosen.at == wish.at) else {
                self.pool_devices.push(wish);
                continue;
            };
            let at = wish.at.min(self.devices.len());
            let device = DeviceSpec {
                bdf: found.bdf,
                max_vectors: wish.max_vectors,
                accept: wish.accept,
                vf_token: None,
                place: wish.place,
            };
            self.devices.insert(at, device);
        }
        self
    }
}

/// Two devices of the guest: DMA of the first may reach the BARs of the second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerSpec {
    /// Who asks.
    pub from: Bdf,
    /// Whose BARs are opened.
    pub to: Bdf,
    /// Where the guest file names it.
    #[serde(skip)]
    pub place: Option<Location>,
}

/// A token of VFIO: a UUID, and a secret, so that neither a plan nor a message shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// Reads a UUID in its usual text form, `00112233-4455-6677-8899-aabbccddeeff`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let groups: Vec<usize> = text.split('-').map(str::len).collect();
        if groups != [8, 4, 4, 4, 12] {
            return None;
        }
        let mut digits = text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16));
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let (high, low) = (digits.next()??, digits.next()??);
            *byte = u8::try_from(high << 4 | low).ok()?;
        }
        Some(Self(bytes))
    }

    /// Its 16 bytes, in the order of the text.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Uuid(secret)")
    }
}

impl Serialize for Uuid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("secret")
    }
}
