//! Devices taken from the host for one guest, and given back.
//!
//! On entry: functions that the plan has checked, unbound or bound to vfio-pci. On exit of [`Assigned::open`]: each is
//! attached to the guest's own IOMMU context, reset, and not bus master. On exit of [`Assigned::release`]: each is
//! reset, closed, and bound as it was before, or a report says which is not and why.

use std::os::fd::{AsFd, BorrowedFd};

use iommu::{
    IommuError as Error,
    addr::{ByteLen, IovaRange},
    bdf::Bdf,
    bind::{Binding, VFIO_PCI},
    device::Device,
    isolation::CheckId,
    ledger::{Kind, Permission},
    space::{AddressSpace, Attaching, DeviceNode, Mapping, VfToken},
    sysfs::SysRoot,
    topology::{ReservedRegion, Topology},
};

use jailed::addr::GpaRange;

use super::{fault::Fault, files::Files, log::Log, ram::Ram, stats::Dma};
use crate::{
    error::{ErrorId, Id, Report},
    plan::{self, Interface, OpenedFunction, Plan, Region, iova_of},
    spec::RootMode,
};

/// VFIO's numbers of a PCI device's regions and interrupts. *Source:* `include/uapi/linux/vfio.h` (v6.12).
const CONFIG_REGION: u32 = 7;
const MSI_IRQ: u32 = 1;
const MSIX_IRQ: u32 = 2;

/// What was taken so far.
#[derive(Debug)]
pub(super) struct Assigned<'a> {
    plan: &'a Plan,
    root: &'a SysRoot,
    bound: Vec<Binding>,
    devices: Vec<Device>,
}

/// A guest's IOMMU context with all devices in it and nothing mapped.
#[derive(Debug)]
pub(super) struct Space {
    space: AddressSpace<Attaching>,
    reserved: Vec<ReservedRegion>,
}

impl<'a> Assigned<'a> {
    /// Nothing taken yet.
    #[must_use]
    pub(super) fn none(plan: &'a Plan, root: &'a SysRoot) -> Self {
        Self {
            plan,
            root,
            bound: Vec::new(),
            devices: Vec::new(),
        }
    }

    /// Binds the functions to vfio-pci.
    ///
    /// # Errors
    /// `device-bind-failed`, `device-host-driver`.
    pub(super) fn bind(&mut self, log: &Log) -> Result<(), Fault> {
        for function in &self.plan.functions {
            let bdf = function.bdf;
            let binding =
                Binding::bind(self.root, bdf, VFIO_PCI).map_err(|error| failed(bdf, &error))?;
            log.say(&format!(
                "{bdf} is bound to vfio-pci (before: {})",
                binding.driver_before().unwrap_or("no driver")
            ));
            self.bound.push(binding);
        }
        Ok(())
    }

    /// Opens, attaches and resets the functions; `None` for a guest without any.
    ///
    /// # Errors
    /// `device-open-failed`, `no-interrupt-remapping`, `group-shared`, `device-reset-failed`.
    pub(super) fn open(&mut self, interface: Interface) -> Result<Option<Space>, Fault> {
        let Some(first) = self.plan.functions.first() else {
            return Ok(None);
        };
        // Nodes of device files exist only since the functions are bound.
        let topology = Topology::read(self.root).map_err(|error| failed(first.bdf, &error))?;
        let mut space =
            AddressSpace::open(interface, self.root).map_err(|error| failed(first.bdf, &error))?;
        let mut reserved = Vec::new();
        for function in &self.plan.functions {
            let bdf = function.bdf;
            let failed = |error: Error| failed(bdf, &error);
            let mut node = DeviceNode::of(&topology, bdf).map_err(failed)?;
            if let Some(group) = topology.groups.get(&node.group) {
                reserved.extend(group.reserved.iter().cloned());
            }
            node.vf_token = function
                .vf_token
                .as_ref()
                .map(|uuid| VfToken::new(uuid.bytes()));
            let device = space.attach(&node).map_err(failed)?;
            let result = quiesce(&device);
            self.devices.push(device);
            result.map_err(failed)?;
        }
        Ok(Some(Space { space, reserved }))
    }

    /// What the opened devices say of themselves, in the plan's order.
    ///
    /// # Errors
    /// `device-open-failed`.
    pub(super) fn opened(&self) -> Result<Vec<OpenedFunction>, Fault> {
        self.devices
            .iter()
            .zip(&self.plan.functions)
            .map(|(device, function)| {
                facts(device, function).map_err(|error| failed(function.bdf, &error))
            })
            .collect()
    }

    /// The devices' descriptors, in the plan's order.
    #[must_use]
    pub(super) fn devices(&self) -> Vec<BorrowedFd<'_>> {
        self.devices.iter().map(AsFd::as_fd).collect()
    }

    /// Stops the devices and resets them, for the same guest's next life.
    ///
    /// # Errors
    /// `device-reset-failed`.
    pub(super) fn reset_for_reboot(&self) -> Result<(), Fault> {
        for device in &self.devices {
            quiesce(device).map_err(|error| failed(device.bdf(), &error))?;
        }
        Ok(())
    }

    /// Gives everything back: bus master off, interrupts off, reset, closed, bound as before. What fails does not
    /// keep the rest from being given back.
    #[must_use]
    pub(super) fn release(self, log: &Log) -> Vec<Report> {
        let mut left = Vec::new();
        for device in self.devices {
            if let Err(error) = quiesce(&device) {
                left.push(not_restored(device.bdf(), &error));
            }
        }
        for binding in self.bound.into_iter().rev() {
            match binding.restore(self.root) {
                Ok(()) => log.say(&format!("{} is given back", binding.bdf())),
                Err(error) => left.push(not_restored(binding.bdf(), &error)),
            }
        }
        left
    }
}

impl Space {
    /// Maps exactly the guest's RAM and images, then closes every handle with which the map could be changed.
    ///
    /// # Errors
    /// `dma-map-failed`.
    pub(super) fn map_and_seal(
        self,
        plan: &Plan,
        ram: &Ram,
        files: &Files,
        log: &Log,
    ) -> Result<Dma, Fault> {
        let failed = |error: Error| Fault::from(not_mapped(plan, &error));
        let mut space = self.space.attached(self.reserved).map_err(failed)?;
        for range in &plan.memory.ranges {
            let mapping = Mapping {
                range: iova_range(range.at)?,
                file: ram.file(),
                offset: range.file_offset,
                permission: Permission::ReadWrite,
                kind: Kind::Ram,
            };
            space.map(&mapping).map_err(failed)?;
        }
        for (image, file) in plan.images.iter().zip(files.images()) {
            let (permission, kind) = match image.mode {
                RootMode::ReadOnly => (Permission::ReadOnly, Kind::Image),
                // A private copy is memory of this guest alone.
                RootMode::Copy => (Permission::ReadWrite, Kind::Ram),
            };
            let mapping = Mapping {
                range: iova_range(image.at)?,
                file,
                offset: 0,
                permission,
                kind,
            };
            space.map(&mapping).map_err(failed)?;
        }
        let sealed = space.seal();
        let dma = Dma {
            mappings: sealed.ledger().entries().len() as u64,
            bytes: sealed.ledger().total().raw(),
            ioctls: sealed.calls().map.into(),
        };
        log.say(&format!(
            "DMA map sealed ({}): {} mappings, {} bytes, {} calls",
            sealed.interface(),
            dma.mappings,
            dma.bytes,
            dma.ioctls
        ));
        Ok(dma)
    }
}

/// Leaves the device unable to start DMA or send an interrupt, in its state after a reset where it has one.
///
/// A step that fails does not keep the next ones from being tried: a device that misbehaves needs the reset most.
fn quiesce(device: &Device) -> Result<(), Error> {
    let quiet = [
        device.clear_bus_master(),
        device.disable_irqs(MSIX_IRQ).map(drop),
        device.disable_irqs(MSI_IRQ).map(drop),
    ];
    if device.info()?.can_reset {
        device.reset()?;
    }
    // Read back: a reset that did not happen would leave the bit as a guest had set it.
    device.clear_bus_master()?;
    quiet.into_iter().collect()
}

fn facts(device: &Device, function: &plan::Function) -> Result<OpenedFunction, Error> {
    let mut out = OpenedFunction {
        can_reset: device.info()?.can_reset,
        ..OpenedFunction::default()
    };
    let region = |index: u32| -> Result<Region, Error> {
        let region = device.region(index)?;
        Ok(Region {
            offset: region.offset,
            len_bytes: region.len.raw(),
        })
    };
    out.config = region(CONFIG_REGION)?;
    for (place, index) in out.bars.iter_mut().zip(0..) {
        *place = region(index)?;
    }
    let kind = match function.interrupts {
        plan::Interrupts::None => return Ok(out),
        plan::Interrupts::Msi => MSI_IRQ,
        plan::Interrupts::Msix { .. } => MSIX_IRQ,
    };
    out.vectors = device.irq(kind)?.vectors;
    Ok(out)
}

/// The error of a device's set-up, in the tool's own words and ids.
fn failed(bdf: Bdf, error: &Error) -> Fault {
    let (id, fix): (Id, _) = match error {
        Error::HostDriver { .. } => (
            CheckId::DeviceHostDriver.into(),
            "it was free when the plan was made; find out who bound it, then run again",
        ),
        Error::AttachForbidden { .. } => (
            CheckId::NoInterruptRemapping.into(),
            "switch on interrupt remapping in the firmware (VT-d or AMD-Vi) and remove intremap=off from the kernel's \
             command line; see /sys/kernel/iommu_groups/*/reserved_regions for firmware's own claims",
        ),
        Error::GroupNotViable { .. } => (
            CheckId::GroupShared.into(),
            "assign all members of the group to this guest, or move the device to a slot behind a port with ACS",
        ),
        Error::BindMismatch { .. } | Error::NodeTimeout { .. } | Error::Sysfs { .. } => (
            ErrorId::DeviceBindFailed.into(),
            "load vfio-pci (modprobe vfio-pci) and see the kernel log",
        ),
        Error::RegisterStuck { .. } => (
            ErrorId::DeviceResetFailed.into(),
            "reset the PF or the host; the device must not go to another guest in this state",
        ),
        Error::DeviceCall { call, .. } if call.contains("RESET") => (
            ErrorId::DeviceResetFailed.into(),
            "reset the PF or the host; the device must not go to another guest in this state",
        ),
        Error::ReadOnlyMachine { .. } => (
            ErrorId::MachineReadOnly.into(),
            "leave --root out, to use this host",
        ),
        Error::Malformed { .. }
        | Error::NoFunction { .. }
        | Error::NoGroup { .. }
        | Error::NoCdev { .. }
        | Error::Open { .. }
        | Error::NodeBusy { .. }
        | Error::Unsupported { .. }
        | Error::DeviceCall { .. }
        | Error::SpaceCall { .. }
        | Error::MapFailed { .. }
        | Error::Unmappable(_)
        | Error::NothingAttached { .. }
        | Error::AttachedTwice { .. }
        | Error::NotOfThisSpace { .. }
        | Error::ShortConfig { .. }
        | Error::BadRegion { .. } => (
            ErrorId::DeviceOpenFailed.into(),
            "see the kernel log, and who else has the device open (fuser /dev/vfio/*)",
        ),
    };
    Report::new(id, format!("cannot assign {bdf}"), error.to_string(), fix).into()
}

/// Where devices see a range of the guest's addresses: at the same numbers.
fn iova_range(at: GpaRange) -> Result<IovaRange, Fault> {
    IovaRange::new(iova_of(at.start()), ByteLen::new(at.len_bytes())).ok_or_else(|| {
        let doing = format!("mapping {at}");
        Fault::io(doing)(std::io::Error::other("the range wraps"))
    })
}

fn not_mapped(plan: &Plan, error: &Error) -> Report {
    Report::new(
        ErrorId::DmaMapFailed,
        format!(
            "cannot map the memory of guest {} for its devices",
            plan.name
        ),
        error.to_string(),
        "raise RLIMIT_MEMLOCK (LimitMEMLOCK=infinity in a unit) or the host's free memory; see the kernel log",
    )
}

fn not_restored(bdf: Bdf, error: &Error) -> Report {
    Report::new(
        ErrorId::HostNotRestored,
        format!("{bdf} is not as it was before the guest"),
        error.to_string(),
        "do not give it to another guest; reset the PF or the host, then unbind it from vfio-pci by hand",
    )
}
