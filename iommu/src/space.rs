//! One guest's IOMMU context, from its first device to its seal.
//!
//! ```text
//! open ─▶ AddressSpace<Attaching> ─attach…─▶ attached() ─▶ AddressSpace<Attached> ─map…─▶ seal() ─▶ Sealed
//! ```
//! Every device narrows what can be mapped, so all are attached before anything is mapped; a device may start DMA
//! only once the map is sealed ([`crate::device::Device::set_bus_master`]). Any other order does not compile:
//!
//! ```compile_fail,E0599
//! # use iommu::space::{AddressSpace, Attaching, Mapping};
//! fn map_before_all_are_attached(mut space: AddressSpace<Attaching>, ram: &Mapping<'_>) {
//!     space.map(ram);
//! }
//! ```
//! ```compile_fail,E0599
//! # use iommu::space::{AddressSpace, Attached, DeviceNode};
//! fn attach_after_mapping(mut space: AddressSpace<Attached>, node: &DeviceNode) {
//!     space.attach(node);
//! }
//! ```
//! ```compile_fail,E0382
//! # use iommu::space::{AddressSpace, Attached, Mapping};
//! fn map_after_sealing(mut space: AddressSpace<Attached>, ram: &Mapping<'_>) {
//!     let sealed = space.seal();
//!     space.map(ram);
//! }
//! ```
//! ```compile_fail,E0308
//! # use iommu::{device::Device, space::{AddressSpace, Attached}};
//! fn start_dma_before_sealing(space: AddressSpace<Attached>, device: &Device) {
//!     device.set_bus_master(&space);
//! }
//! ```
//!
//! On entry: the functions are bound to a VFIO driver. On exit: the device fds hold the IOMMU domain, and no handle
//! remains, here or elsewhere, with which its mappings could be changed.

use std::{fmt, os::fd::BorrowedFd};

use serde::Serialize;

use crate::{
    addr::{ByteLen, IovaRange},
    bdf::Bdf,
    device::Device,
    error::{IommuError, Result},
    iommufd::Iommufd,
    ledger::{Bars, Entry, Kind, Ledger, Limits, Permission},
    sysfs::SysRoot,
    topology::{self, Group, GroupId, ReservedRegion, Topology},
    type1::Type1,
};

/// Which of the kernel's two interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interface {
    /// `/dev/iommu` and `/dev/vfio/devices/vfioN`.
    Iommufd,
    /// `/dev/vfio/vfio` and `/dev/vfio/GROUP`.
    Type1,
}

impl Interface {
    /// The better one that all of `functions`, already bound to a VFIO driver, can use.
    #[must_use]
    pub fn detect(topology: &Topology, functions: &[Bdf]) -> Self {
        let has_node = |bdf| {
            let function = topology.functions.get(bdf);
            function.is_some_and(|function| function.vfio_cdev.is_some())
        };
        if topology.has_iommufd && functions.iter().all(has_node) {
            Self::Iommufd
        } else {
            Self::Type1
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iommufd => "iommufd",
            Self::Type1 => "type1",
        })
    }
}

/// A secret that the owner of a PF in user space and the users of its VFs share: a UUID.
#[derive(Clone, PartialEq, Eq)]
pub struct VfToken([u8; 16]);

impl VfToken {
    /// The token of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for VfToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VfToken(…)")
    }
}

impl fmt::Display for VfToken {
    /// As the kernel reads it: `83d8f4f2-509f-382f-3c1e-e6bfe0fa1001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// How a device is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// Its address.
    pub bdf: Bdf,
    /// Its group.
    pub group: GroupId,
    /// Its node in `/dev/vfio/devices`.
    pub cdev: Option<String>,
    /// The token of its PF, where that is a VFIO user too.
    pub vf_token: Option<VfToken>,
}

impl DeviceNode {
    /// The node of a function that is bound to a VFIO driver.
    ///
    /// # Errors
    /// `no-such-function`, `no-iommu-group`.
    pub fn of(topology: &Topology, bdf: Bdf) -> Result<Self> {
        let function = topology
            .functions
            .get(&bdf)
            .ok_or(IommuError::NoFunction { bdf })?;
        Ok(Self {
            bdf,
            group: function.group.ok_or(IommuError::NoGroup { bdf })?,
            cdev: function.vfio_cdev.clone(),
            vf_token: None,
        })
    }

    /// The same as it is now, with its group.
    ///
    /// # Errors
    /// `no-such-function`, `no-iommu-group`, `sysfs-io`, `sysfs-malformed`.
    pub fn read(root: &SysRoot, bdf: Bdf) -> Result<(Self, Group)> {
        let (cdev, id, group) = topology::read_node(root, bdf)?;
        let node = Self {
            bdf,
            group: id,
            cdev,
            vf_token: None,
        };
        Ok((node, group))
    }
}

/// A part of a file to be mapped: memory, whose pages are pinned, or a device's BAR. Nothing of it stays in this
/// process's address space.
#[derive(Clone, Copy, Debug)]
pub struct Mapping<'a> {
    /// At which addresses devices see it.
    pub range: IovaRange,
    /// The memory: a memfd, or a file that can be mapped shared; for a BAR, the device's file.
    pub file: BorrowedFd<'a>,
    /// Where it starts in the file, in bytes.
    pub offset: u64,
    /// What devices may do.
    pub permission: Permission,
    /// What it is.
    pub kind: Kind,
}

impl Mapping<'_> {
    /// The line it becomes in the ledger.
    #[must_use]
    pub const fn entry(&self) -> Entry {
        Entry {
            range: self.range,
            permission: self.permission,
            kind: self.kind,
        }
    }
}

/// The sizes of page an IOMMU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PageSizes {
    /// What mappings must be multiples of.
    pub smallest: ByteLen,
    /// One bit for each size; `None` where the interface does not tell (iommufd).
    pub bitmap: Option<u64>,
}

/// The host's page; no mapping is finer, whatever the IOMMU could do.
const HOST_PAGE: u64 = 4096;

impl PageSizes {
    pub(crate) fn from_bitmap(bitmap: u64) -> Self {
        let smallest = 1_u64.checked_shl(bitmap.trailing_zeros()).unwrap_or(0);
        Self {
            smallest: ByteLen::new(smallest.max(HOST_PAGE)),
            bitmap: Some(bitmap),
        }
    }

    pub(crate) fn from_alignment(alignment: u64) -> Self {
        Self {
            smallest: ByteLen::new(alignment.max(HOST_PAGE)),
            bitmap: None,
        }
    }
}

/// How many ioctls a context took. A call repeated with more room for the answer counts once, and asking a device about
/// itself does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// For the context.
    pub setup: u32,
    /// For devices and groups.
    pub attach: u32,
    /// For mappings, refused ones included.
    pub map: u32,
}

#[derive(Debug)]
enum Backend {
    Type1(Type1),
    Iommufd(Iommufd),
}

/// State of a space that takes devices.
#[derive(Debug)]
pub struct Attaching(());

/// State of a space that has its devices and takes mappings.
#[derive(Debug)]
pub struct Attached {
    ledger: Ledger,
    page_sizes: PageSizes,
}

/// One guest's IOMMU context. Dropped unsealed, it takes the mappings with it when its devices are closed.
#[derive(Debug)]
pub struct AddressSpace<State> {
    root: SysRoot,
    backend: Backend,
    devices: Vec<Bdf>,
    calls: Calls,
    state: State,
}

impl AddressSpace<Attaching> {
    /// Opens an empty context.
    ///
    /// # Errors
    /// `vfio-node-open`, `vfio-node-busy`, `vfio-unsupported`, `iommu-call`.
    pub fn open(interface: Interface, root: &SysRoot) -> Result<Self> {
        let mut calls = Calls::default();
        let backend = match interface {
            Interface::Type1 => Backend::Type1(Type1::open(root, &mut calls)?),
            Interface::Iommufd => Backend::Iommufd(Iommufd::open(root)?),
        };
        Ok(Self {
            root: root.clone(),
            backend,
            devices: Vec::new(),
            calls,
            state: Attaching(()),
        })
    }

    /// Opens a device and puts it behind this context: from now on it reaches nothing but what is mapped here.
    ///
    /// # Errors
    /// `attached-twice`, `no-vfio-cdev`, `vfio-node-open`, `vfio-node-busy`, `group-not-viable`, `attach-forbidden`,
    /// `device-call`, `iommu-call`, `region-malformed`.
    pub fn attach(&mut self, node: &DeviceNode) -> Result<Device> {
        if self.devices.contains(&node.bdf) {
            return Err(IommuError::AttachedTwice { bdf: node.bdf });
        }
        let fd = match &mut self.backend {
            Backend::Type1(type1) => type1.attach(&self.root, node, &mut self.calls)?,
            Backend::Iommufd(iommufd) => iommufd.attach(&self.root, node, &mut self.calls)?,
        };
        let device = Device::from_fd(node.bdf, fd)?;
        self.devices.push(node.bdf);
        Ok(device)
    }

    /// Ends attaching, and asks the kernel what can be mapped for all devices together.
    ///
    /// `reserved` are the regions of the devices' groups as sysfs has them; they stay unmapped even where the kernel
    /// would allow it. `bars` are the BARs of the guest's functions; of them, only what is open can be mapped.
    ///
    /// # Errors
    /// `nothing-attached`, `iommu-call`, `vfio-unsupported`.
    pub fn attached(
        mut self,
        reserved: Vec<ReservedRegion>,
        bars: Bars,
    ) -> Result<AddressSpace<Attached>> {
        if self.devices.is_empty() {
            let interface = self.interface();
            return Err(IommuError::NothingAttached { interface });
        }
        let (usable, page_sizes) = match &mut self.backend {
            Backend::Type1(type1) => type1.limits(&mut self.calls)?,
            Backend::Iommufd(iommufd) => iommufd.limits(&mut self.calls)?,
        };
        let ledger = Ledger::new(Limits {
            page: page_sizes.smallest,
            reserved,
            usable: Some(usable),
            bars,
        });
        Ok(AddressSpace {
            root: self.root,
            backend: self.backend,
            devices: self.devices,
            calls: self.calls,
            state: Attached { ledger, page_sizes },
        })
    }
}

impl AddressSpace<Attached> {
    /// What the IOMMU can translate for all devices together.
    #[must_use]
    pub fn usable_ranges(&self) -> &[IovaRange] {
        self.ledger().limits().usable.as_deref().unwrap_or_default()
    }

    /// The sizes of page.
    #[must_use]
    pub const fn page_sizes(&self) -> PageSizes {
        self.state.page_sizes
    }

    /// What is mapped so far.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.state.ledger
    }

    /// Maps memory, or an open part of a BAR. It is in the ledger if and only if the kernel accepted it.
    ///
    /// What the IOMMU maps of a BAR is its place in physical memory: it stays mapped while the device is reset or does
    /// not answer, when the kernel takes the pages from every process.
    ///
    /// # Errors
    /// `map-…` from the ledger, before the kernel is asked; `peer-unsupported`; `map-failed`.
    ///
    /// *Source:* Linux v6.12: `follow_fault_pfn` in `drivers/vfio/vfio_iommu_type1.c` takes the pages of a BAR;
    /// `pfn_reader_user_pin` in `drivers/iommu/iommufd/pages.c` pins memory only.
    pub fn map(&mut self, mapping: &Mapping<'_>) -> Result<()> {
        let entry = mapping.entry();
        self.state.ledger.check(&entry)?;
        match &mut self.backend {
            Backend::Iommufd(_) if mapping.kind == Kind::PeerBar => {
                return Err(IommuError::PeerUnsupported {
                    range: mapping.range,
                });
            }
            Backend::Type1(type1) => type1.map(mapping, &mut self.calls)?,
            Backend::Iommufd(iommufd) => iommufd.map(mapping, &mut self.calls)?,
        }
        self.state.ledger.insert(entry)?;
        Ok(())
    }

    /// Closes container, groups and iommufd. The devices keep what is mapped, and nothing can change it any more.
    #[must_use]
    pub fn seal(self) -> Sealed {
        Sealed {
            interface: self.interface(),
            devices: self.devices,
            ledger: self.state.ledger,
            page_sizes: self.state.page_sizes,
            calls: self.calls,
        }
    }
}

impl<State> AddressSpace<State> {
    /// Which interface it uses.
    #[must_use]
    pub const fn interface(&self) -> Interface {
        match self.backend {
            Backend::Type1(_) => Interface::Type1,
            Backend::Iommufd(_) => Interface::Iommufd,
        }
    }

    /// The devices attached, in order.
    #[must_use]
    pub fn devices(&self) -> &[Bdf] {
        &self.devices
    }

    /// How many ioctls were made so far.
    #[must_use]
    pub const fn calls(&self) -> Calls {
        self.calls
    }
}

/// A map that cannot change any more: evidence for whoever lets a device start DMA, and a record for reports.
#[derive(Debug, Serialize)]
pub struct Sealed {
    interface: Interface,
    devices: Vec<Bdf>,
    ledger: Ledger,
    page_sizes: PageSizes,
    calls: Calls,
}

impl Sealed {
    /// Which interface made it.
    #[must_use]
    pub const fn interface(&self) -> Interface {
        self.interface
    }

    /// The devices behind it.
    #[must_use]
    pub fn devices(&self) -> &[Bdf] {
        &self.devices
    }

    /// What is mapped.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The sizes of page.
    #[must_use]
    pub const fn page_sizes(&self) -> PageSizes {
        self.page_sizes
    }

    /// How many ioctls it took.
    #[must_use]
    pub const fn calls(&self) -> Calls {
        self.calls
    }
}

pub(crate) fn writable(permission: Permission) -> bool {
    match permission {
        Permission::ReadWrite => true,
        Permission::ReadOnly => false,
    }
}

#[cfg(test)]
#[path = "space_test.rs"]
mod tests;
