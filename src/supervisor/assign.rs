//! Devices taken from the host for one guest.
//!
//! On entry: functions that the plan has checked, unbound or bound to vfio-pci. On exit of [`Assigned::open`]: each is
//! attached to the guest's own IOMMU context, reset, and silent, which was read back from the hardware. They are given
//! back by [`Assigned::release`].

use std::os::fd::{AsFd, BorrowedFd};

use iommu::{
    IommuError as Error,
    bdf::Bdf,
    bind::{Binding, VFIO_PCI},
    clean::ConfigSnapshot,
    device::{CONFIG_REGION, Device, MSI_IRQ, MSIX_IRQ},
    space::{AddressSpace, DeviceNode, VfToken},
    sysfs::SysRoot,
    topology::Topology,
};

use super::{fault::Fault, log::Log, refusal::failed, space::Space};
use crate::{
    error::{ErrorId, Report},
    plan::{self, Interface, OpenedFunction, Plan, Region},
    state::{InUse, State},
};

/// What was taken so far.
#[derive(Debug)]
pub(super) struct Assigned<'a> {
    pub(super) plan: &'a Plan,
    pub(super) root: &'a SysRoot,
    /// Given back last, so that no other run begins with a function before this one is through with it.
    pub(super) reserved: Vec<InUse>,
    pub(super) bound: Vec<Binding>,
    pub(super) devices: Vec<Opened>,
    /// Functions that are not clean, and what was found.
    pub(super) unclean: Vec<(Bdf, Vec<String>)>,
}

/// An open device.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) device: Device,
    /// What its configuration space was after the reset before the guest; `None` until it was read.
    pub(super) before: Option<ConfigSnapshot>,
}

impl<'a> Assigned<'a> {
    /// Nothing taken yet.
    #[must_use]
    pub(super) fn none(plan: &'a Plan, root: &'a SysRoot) -> Self {
        Self {
            plan,
            root,
            reserved: Vec::new(),
            bound: Vec::new(),
            devices: Vec::new(),
            unclean: Vec::new(),
        }
    }

    /// Keeps other runs from the functions, and shows that each could be quarantined. Touches no device.
    ///
    /// # Errors
    /// `device-in-use`, `state-unwritable`.
    pub(super) fn reserve(&mut self, state: &State, log: &Log) -> Result<(), Fault> {
        if self.plan.functions.is_empty() {
            return Ok(());
        }
        if let Some(usual) = state.usual() {
            log.warn(&format!(
                "warning: the state is not kept in {}: runs that keep it there do not know of this one",
                usual.display()
            ));
        }
        state.check_writable()?;
        for function in &self.plan.functions {
            let taken = InUse::take(state, function.bdf, &self.plan.name)?;
            if let Some(who) = taken.killed_before() {
                log.warn(&format!(
                    "the last run of {} ({who}) was killed and did not see it come back: it is reset and read back now",
                    taken.bdf()
                ));
            }
            self.reserved.push(taken);
        }
        Ok(())
    }

    /// Binds the functions to vfio-pci.
    ///
    /// # Errors
    /// `device-bind-failed`, `device-host-driver`, `host-not-restored`.
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
    /// `device-open-failed`, `vf-token-wrong`, `no-interrupt-remapping`, `group-shared`, `device-reset-failed`.
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
            let failed = |error: Error| failed(function.bdf, &error);
            let mut node = DeviceNode::of(&topology, function.bdf).map_err(failed)?;
            if let Some(group) = topology.groups.get(&node.group) {
                reserved.extend(group.reserved.iter().cloned());
            }
            node.vf_token = function
                .vf_token
                .as_ref()
                .map(|uuid| VfToken::new(uuid.bytes()));
            let device = space.attach(&node).map_err(failed)?;
            let silenced = self.silence(&device);
            self.devices.push(Opened {
                device,
                before: silenced.as_ref().ok().cloned(),
            });
            silenced?;
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
            .map(|(opened, function)| {
                facts(&opened.device, function).map_err(|error| failed(function.bdf, &error))
            })
            .collect()
    }

    /// The devices' descriptors, in the plan's order.
    #[must_use]
    pub(super) fn devices(&self) -> Vec<BorrowedFd<'_>> {
        self.devices.iter().map(|d| d.device.as_fd()).collect()
    }

    /// Stops the devices and resets them, for the same guest's next life.
    ///
    /// # Errors
    /// `device-reset-failed`.
    pub(super) fn reset_for_reboot(&mut self) -> Result<(), Fault> {
        let devices = std::mem::take(&mut self.devices);
        stop_all(&devices);
        let silenced = devices
            .iter()
            .try_for_each(|opened| self.silence(&opened.device).map(drop));
        self.devices = devices;
        silenced
    }

    /// Makes a device silent and resets it, and reads back from the hardware that it is so. One that is not is unclean.
    fn silence(&mut self, device: &Device) -> Result<ConfigSnapshot, Fault> {
        let bdf = device.bdf();
        if let Err(error) = quiesce(device) {
            self.unclean.push((bdf, vec![error.to_string()]));
            return Err(failed(bdf, &error));
        }
        let snapshot = ConfigSnapshot::read(self.root, bdf).map_err(|error| failed(bdf, &error))?;
        let noise = snapshot.noise();
        let Some(first) = noise.first() else {
            return Ok(snapshot);
        };
        let report = Report::new(
            ErrorId::DeviceResetFailed,
            format!("cannot assign {bdf}"),
            format!("after its reset, {first}"),
            "reset the PF or the host; the device must not go to another guest in this state",
        );
        self.unclean.push((bdf, noise));
        Err(report.into())
    }
}

/// Keeps every device from starting DMA, before the first of them is reset: one may have the BARs of another mapped, and
/// write to what was just reset. What fails here fails again in [`quiesce`], which tells of it.
pub(super) fn stop_all(devices: &[Opened]) {
    for opened in devices {
        opened.device.clear_bus_master().ok();
    }
}

/// Leaves the device unable to start DMA or send an interrupt, in its state after a reset where it has one.
///
/// A step that fails does not keep the next ones from being tried: a device that misbehaves needs the reset most.
pub(super) fn quiesce(device: &Device) -> Result<(), Error> {
    // The order matters: first no more DMA, then no more messages, and the reset finds a device at rest.
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
