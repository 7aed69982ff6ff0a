//! One VFIO device: what it offers, its configuration space, its reset.
//!
//! Everything works on the device's fd alone, whichever interface opened it.

use std::{
    fs::File,
    io,
    mem::offset_of,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    thread,
    time::Duration,
};

use vfio_bindings::bindings::vfio as abi;

use crate::{
    addr::ByteLen,
    bdf::Bdf,
    error::{Errno, IommuError, Result},
    space::Sealed,
    sys::{
        ioctl::{u32_at, u64_at},
        vfio,
    },
};

/// A device that belongs to this process.
#[derive(Debug)]
pub struct Device {
    bdf: Bdf,
    file: File,
    config: Region,
}

/// `VFIO_DEVICE_GET_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Whether the kernel can reset it.
    pub can_reset: bool,
    /// Whether it is a PCI device.
    pub is_pci: bool,
    /// How many regions it has.
    pub regions: u32,
    /// How many kinds of interrupt it has.
    pub irqs: u32,
}

/// `VFIO_DEVICE_GET_REGION_INFO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// 0 to 5 BARs, 6 ROM, 7 configuration space.
    pub index: u32,
    /// Its size; zero where the region does not exist.
    pub len: ByteLen,
    /// Where it starts in the device's file, in bytes.
    pub offset: u64,
    /// Whether it can be read.
    pub can_read: bool,
    /// Whether it can be written.
    pub can_write: bool,
    /// Whether it can be mapped, or the areas of it can.
    pub can_mmap: bool,
    /// The only areas of it that can be mapped; `None` where the whole can.
    pub sparse: Option<Vec<MmapArea>>,
    /// Whether the kernel lets the MSI-X table be mapped along with the rest. The mapper must leave it out.
    pub is_msix_mappable: bool,
}

impl Region {
    /// Reads a region out of what the kernel wrote for `index`. An area that is empty, leaves the region or overlaps
    /// another makes the whole malformed.
    ///
    /// # Errors
    /// What of it is malformed.
    pub fn parse(index: u32, bytes: &[u8]) -> std::result::Result<Self, &'static str> {
        const SHORT: &str = "the answer";
        const SPARSE: &str = "the list of areas";
        let flags = u32_at(bytes, offset_of!(abi::vfio_region_info, flags)).ok_or(SHORT)?;
        let chain = u32_at(bytes, offset_of!(abi::vfio_region_info, cap_offset)).ok_or(SHORT)?;
        let len = u64_at(bytes, offset_of!(abi::vfio_region_info, size)).ok_or(SHORT)?;
        let offset = u64_at(bytes, offset_of!(abi::vfio_region_info, offset)).ok_or(SHORT)?;
        offset.checked_add(len).ok_or("the size")?;
        let capability = |id| {
            let chain = (flags & abi::VFIO_REGION_INFO_FLAG_CAPS != 0).then_some(chain)?;
            vfio::find_capability(bytes, chain, id)
        };
        let mut sparse = None;
        if let Some(at) = capability(abi::VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
            let count = at.checked_add(8).and_then(|at| u32_at(bytes, at));
            let pairs = at
                .checked_add(16)
                .zip(count)
                .and_then(|(at, count)| vfio::pairs(bytes, at, count))
                .ok_or(SPARSE)?;
            if !are_areas(&pairs, len) {
                return Err(SPARSE);
            }
            let area = |(offset, len)| MmapArea {
                offset,
                len: ByteLen::new(len),
            };
            sparse = Some(pairs.into_iter().map(area).collect());
        }
        Ok(Self {
            index,
            len: ByteLen::new(len),
            offset,
            can_read: flags & abi::VFIO_REGION_INFO_FLAG_READ != 0,
            can_write: flags & abi::VFIO_REGION_INFO_FLAG_WRITE != 0,
            can_mmap: flags & abi::VFIO_REGION_INFO_FLAG_MMAP != 0,
            sparse,
            is_msix_mappable: capability(abi::VFIO_REGION_INFO_CAP_MSIX_MAPPABLE).is_some(),
        })
    }
}

/// A part of a region that can be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmapArea {
    /// Offset in the region, in bytes.
    pub offset: u64,
    /// Its size.
    pub len: ByteLen,
}

/// `VFIO_DEVICE_GET_IRQ_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Irq {
    /// 0 `INTx`, 1 MSI, 2 MSI-X, 3 error, 4 request.
    pub index: u32,
    /// How many vectors; zero where the device has none of the kind.
    pub vectors: u32,
    /// Whether an eventfd can be told of it.
    pub can_signal_eventfd: bool,
    /// Whether it can be masked.
    pub can_mask: bool,
    /// Whether all vectors must be set up at once.
    pub is_fixed_size: bool,
}

/// Index of configuration space among the regions.
pub const CONFIG_REGION: u32 = abi::VFIO_PCI_CONFIG_REGION_INDEX;
/// Index of MSI among the interrupts.
pub const MSI_IRQ: u32 = abi::VFIO_PCI_MSI_IRQ_INDEX;
/// Index of MSI-X among the interrupts.
pub const MSIX_IRQ: u32 = abi::VFIO_PCI_MSIX_IRQ_INDEX;

/// `PCIe` r6.0 §7.5.1.1.3.
const COMMAND: u64 = 0x04;
const COMMAND_BUS_MASTER: u16 = 1 << 2;

impl Device {
    /// Takes over the fd of an open VFIO device.
    ///
    /// # Errors
    /// `device-call`, `region-malformed`.
    pub fn from_fd(bdf: Bdf, fd: OwnedFd) -> Result<Self> {
        let config = read_region(bdf, fd.as_fd(), CONFIG_REGION)?;
        if config.len.raw() < 64 {
            return Err(IommuError::BadRegion {
                bdf,
                index: CONFIG_REGION,
                what: "the size",
            });
        }
        Ok(Self {
            bdf,
            file: File::from(fd),
            config,
        })
    }

    /// Its address on the host.
    #[must_use]
    pub const fn bdf(&self) -> Bdf {
        self.bdf
    }

    /// Where configuration space is in the device's file: offset and size.
    #[must_use]
    pub const fn config_region(&self) -> &Region {
        &self.config
    }

    /// Asks what it offers.
    ///
    /// # Errors
    /// `device-call`.
    pub fn info(&self) -> Result<DeviceInfo> {
        let info = vfio::device_get_info(self.as_fd())
            .map_err(|error| failed(self.bdf, vfio::name::DEVICE_GET_INFO, &error))?;
        Ok(DeviceInfo {
            can_reset: info.flags & abi::VFIO_DEVICE_FLAGS_RESET != 0,
            is_pci: info.flags & abi::VFIO_DEVICE_FLAGS_PCI != 0,
            regions: info.num_regions,
            irqs: info.num_irqs,
        })
    }

    /// Asks about a region.
    ///
    /// # Errors
    /// `device-call` (EINVAL: there is no such region), `region-malformed`.
    pub fn region(&self, index: u32) -> Result<Region> {
        read_region(self.bdf, self.as_fd(), index)
    }

    /// Asks about a kind of interrupt.
    ///
    /// # Errors
    /// `device-call`.
    pub fn irq(&self, index: u32) -> Result<Irq> {
        let (flags, vectors) = vfio::device_get_irq(self.as_fd(), index)
            .map_err(|error| failed(self.bdf, vfio::name::DEVICE_GET_IRQ_INFO, &error))?;
        Ok(Irq {
            index,
            vectors,
            can_signal_eventfd: flags & abi::VFIO_IRQ_INFO_EVENTFD != 0,
            can_mask: flags & abi::VFIO_IRQ_INFO_MASKABLE != 0,
            is_fixed_size: flags & abi::VFIO_IRQ_INFO_NORESIZE != 0,
        })
    }

    /// Resets it; the kernel restores configuration space, with the bus master bit off.
    ///
    /// The kernel only tries to lock the function, and somebody who reads its files in sysfs may hold that lock for a
    /// moment: so it is asked again for half a second.
    ///
    /// # Errors
    /// `device-call`.
    pub fn reset(&self) -> Result<()> {
        const TRIES: u32 = 100;
        const PAUSE: Duration = Duration::from_millis(5);
        let mut tries = 0;
        loop {
            tries += 1;
            match vfio::device_reset(self.as_fd()) {
                Ok(()) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && tries < TRIES => {
                    thread::sleep(PAUSE);
                }
                Err(error) => return Err(failed(self.bdf, vfio::name::DEVICE_RESET, &error)),
            }
        }
    }

    /// Turns all interrupts of a kind off. Returns whether any were on.
    ///
    /// # Errors
    /// `device-call`.
    pub fn disable_irqs(&self, index: u32) -> Result<bool> {
        if self.irq(index)?.vectors == 0 {
            return Ok(false);
        }
        match vfio::device_disable_irqs(self.as_fd(), index) {
            Ok(()) => Ok(true),
            // The request is well-formed, so this can only mean that the kind is not in use.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(failed(self.bdf, vfio::name::DEVICE_SET_IRQS, &error)),
        }
    }

    /// Reads configuration space.
    ///
    /// # Errors
    /// `device-call`, `config-short`.
    pub fn read_config(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let at = self.config_at("pread", offset, bytes.len())?;
        let got = self
            .file
            .read_at(bytes, at)
            .map_err(|error| failed(self.bdf, "pread", &error))?;
        self.whole("pread", offset, bytes.len(), got)
    }

    /// Writes configuration space.
    ///
    /// # Errors
    /// `device-call`, `config-short`.
    pub fn write_config(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let at = self.config_at("pwrite", offset, bytes.len())?;
        let got = self
            .file
            .write_at(bytes, at)
            .map_err(|error| failed(self.bdf, "pwrite", &error))?;
        self.whole("pwrite", offset, bytes.len(), got)
    }

    /// Whether the device may start DMA and send interrupts.
    ///
    /// # Errors
    /// `device-call`, `config-short`.
    pub fn is_bus_master(&self) -> Result<bool> {
        Ok(self.read_command()? & COMMAND_BUS_MASTER != 0)
    }

    /// Lets the device start DMA: only once nothing can change the map any more, which `sealed` shows.
    ///
    /// # Errors
    /// `not-of-this-space`, `device-call`, `config-short`, `register-stuck`.
    pub fn set_bus_master(&self, sealed: &Sealed) -> Result<()> {
        if !sealed.devices().contains(&self.bdf) {
            return Err(IommuError::NotOfThisSpace { bdf: self.bdf });
        }
        self.write_bus_master(true)
    }

    /// Keeps the device from starting DMA, and reads back that it is so.
    ///
    /// # Errors
    /// `device-call`, `config-short`, `register-stuck`.
    pub fn clear_bus_master(&self) -> Result<()> {
        self.write_bus_master(false)
    }

    /// Opens a second handle on the same open file.
    ///
    /// # Errors
    /// `device-call`.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            bdf: self.bdf,
            file: self
                .file
                .try_clone()
                .map_err(|error| failed(self.bdf, "dup", &error))?,
            config: self.config.clone(),
        })
    }

    /// Gives the fd away.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }

    fn write_bus_master(&self, on: bool) -> Result<()> {
        let before = self.read_command()?;
        let written = if on {
            before | COMMAND_BUS_MASTER
        } else {
            before & !COMMAND_BUS_MASTER
        };
        if written != before {
            self.write_config(COMMAND, &written.to_le_bytes())?;
        }
        let found = self.read_command()?;
        if (found ^ written) & COMMAND_BUS_MASTER != 0 {
            return Err(IommuError::RegisterStuck {
                bdf: self.bdf,
                register: "COMMAND",
                written: u32::from(written),
                found: u32::from(found),
            });
        }
        Ok(())
    }

    fn read_command(&self) -> Result<u16> {
        let mut bytes = [0; 2];
        self.read_config(COMMAND, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// Where configuration space's `offset` is in the file, if all `len` bytes are within it.
    fn config_at(&self, call: &'static str, offset: u64, len: usize) -> Result<u64> {
        let end = u64::try_from(len)
            .ok()
            .and_then(|len| offset.checked_add(len));
        match (end, self.config.offset.checked_add(offset)) {
            (Some(end), Some(at)) if end <= self.config.len.raw() => Ok(at),
            _ => Err(IommuError::ShortConfig {
                bdf: self.bdf,
                call,
                offset,
                wanted: len,
                got: 0,
            }),
        }
    }

    fn whole(&self, call: &'static str, offset: u64, wanted: usize, got: usize) -> Result<()> {
        if got == wanted {
            return Ok(());
        }
        Err(IommuError::ShortConfig {
            bdf: self.bdf,
            call,
            offset,
            wanted,
            got,
        })
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn read_region(bdf: Bdf, device: BorrowedFd<'_>, index: u32) -> Result<Region> {
    let bytes = vfio::device_get_region(device, index)
        .map_err(|error| failed(bdf, vfio::name::DEVICE_GET_REGION_INFO, &error))?;
    Region::parse(index, &bytes).map_err(|what| IommuError::BadRegion { bdf, index, what })
}

/// Whether these are parts of a region of `len` bytes, none empty, no two of them overlapping.
fn are_areas(pairs: &[(u64, u64)], len: u64) -> bool {
    let mut sorted = pairs.to_vec();
    sorted.sort_unstable();
    let mut free = 0;
    sorted.into_iter().all(|(start, size)| {
        let is_apart = start >= free && size > 0;
        free = start.saturating_add(size);
        is_apart && start.checked_add(size).is_some_and(|end| end <= len)
    })
}

fn failed(bdf: Bdf, call: &'static str, error: &io::Error) -> IommuError {
    IommuError::DeviceCall {
        bdf,
        call,
        errno: Errno::of(error),
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
