//! Devices taken from the host for one guest.
//!
//! On entry: functions that the plan has checked, unbound or bound to vfio-pci. On exit of [`Assigned::open`]: each is
//! attached to the guest's own IOMMU context, reset, and silent, which was read back from the hardware. They are given
//! back by [`Taken::release`].

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
};

use iommu::{
    IommuError as Error,
    bdf::Bdf,
    bind::{Binding, VFIO_PCI},
    clean::ConfigSnapshot,
    device::{CONFIG_REGION, Device, MSI_IRQ, MSIX_IRQ},
    space::{AddressSpace, DeviceNode, VfToken},
    sysfs::SysRoot,
};

use super::{
    fault::Fault,
    log::Log,
    noting::Noting,
    quiet::{Reset, quiesce_all, stop_all},
    refusal::failed,
    release::identity,
    reserved::Functions,
    space::Space,
};
use crate::{
    error::{ErrorId, Report},
    plan::{self, Interface, OpenedFunction, Plan, Region},
    sriov::{Holder, LeaseTerms},
    state::{self, Changes, HostLock, InUse, Journal, ProcessId, State},
    sys::crash::{self, Step},
    vf::{KernelHands, lease},
};

/// What is taken from the host for a plan.
#[derive(Debug)]
pub(super) struct Assigned<'a> {
    pub(super) plan: &'a Plan,
    pub(super) taken: Taken<'a>,
}

/// What was taken so far, and is to be given back.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    pub(super) guest: &'a str,
    pub(super) functions: Vec<Bdf>,
    pub(super) root: &'a SysRoot,
    /// Given back last, so that no other run begins with a function before this one is through with it.
    pub(super) reserved: Vec<InUse>,
    /// Keeps the host's VFs from being changed until the guest runs with its own.
    pub(super) host: Option<HostLock>,
    /// Leases that were claimed.
    pub(super) leases: Vec<LeaseTerms>,
    /// There from before the first change until all is undone.
    pub(super) journal: Option<Journal>,
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
        let functions = plan.functions.iter().map(|function| function.bdf);
        Self {
            plan,
            taken: Taken::none(&plan.name, functions.collect(), root),
        }
    }

    /// Has what was reserved from here on, and leases what is of pools. Touches no device.
    ///
    /// # Errors
    /// `state-unwritable`; `lease-foreign`, `pool-exhausted`.
    pub(super) fn reserve(
        &mut self,
        functions: Functions,
        state: &State,
        log: &Log,
    ) -> Result<(), Fault> {
        if self.plan.functions.is_empty() {
            return Ok(());
        }
        if let Some(usual) = state.usual() {
            log.warn(&format!(
                "warning: the state is not kept in {}: runs that keep it there do not know of this one",
                usual.display()
            ));
        }
        for taken in &functions.locked {
            if let Some(who) = taken.killed_before() {
                log.warn(&format!(
                    "the last run of {} ({who}) was killed and did not see it come back: it is reset and read back now",
                    taken.bdf()
                ));
            }
        }
        self.taken.reserved = functions.locked;
        self.taken.host = functions.host;
        crash::point(Step::Reserved);
        if self.plan.leases().next().is_none() {
            return Ok(());
        }
        let (owner, boot) = self.owner()?;
        let holder = Holder {
            pid: owner.pid,
            start: owner.start,
            boot,
        };
        for terms in self.plan.leases() {
            lease::claim(state, &self.plan.name, &holder, terms)?;
            self.taken.leases.push(terms.clone());
            log.say(&format!("{} of pool {} is leased", terms.vf, terms.pool));
        }
        Ok(())
    }

    /// Makes the leased functions what their pools say, as it was written down.
    ///
    /// # Errors
    /// `step-failed`, `step-not-done`.
    pub(super) fn take_leases(&self, state: &State) -> Result<(), Fault> {
        let mut hands = KernelHands::new(self.taken.root.clone());
        for terms in &self.taken.leases {
            lease::take(&mut hands, state, &self.plan.name, terms)?;
        }
        Ok(())
    }

    /// Writes down that the guest runs with its leased functions. From now on the host's VFs may be changed, but for these.
    ///
    /// # Errors
    /// What keeps the records from being changed.
    pub(super) fn leases_in_use(&mut self, state: &State) -> Result<(), Fault> {
        for terms in &self.taken.leases {
            lease::bound(state, terms)?;
            crash::point(Step::InUseWritten);
        }
        self.taken.host = None;
        Ok(())
    }

    /// This process, and the host's boot.
    fn owner(&self) -> Result<(ProcessId, String), Fault> {
        let root = self.taken.root;
        let doing = || Fault::io("finding this process");
        let owner = ProcessId::of(root, std::process::id())
            .and_then(|own| own.ok_or(io::ErrorKind::NotFound.into()))
            .map_err(doing())?;
        let boot = state::boot(root)
            .map_err(io::Error::other)
            .map_err(doing())?;
        Ok((owner, boot))
    }

    /// Writes down what is about to change of the host: `cgroup` is the guest's folder, below the host's root. Nothing was
    /// changed before.
    ///
    /// # Errors
    /// `device-bind-failed`, `device-host-driver`, `state-unwritable`.
    pub(super) fn write_down(
        &mut self,
        state: &State,
        cgroup: Option<PathBuf>,
    ) -> Result<(), Fault> {
        if self.plan.functions.is_empty() && cgroup.is_none() {
            return Ok(());
        }
        let root = self.taken.root;
        let mut functions = Vec::new();
        for function in &self.plan.functions {
            let bdf = function.bdf;
            functions.push(state::Taken {
                binding: Binding::plan(root, bdf, VFIO_PCI).map_err(|error| failed(bdf, &error))?,
                device: identity(root, bdf),
                before: None,
                lease: function.lease.clone(),
            });
        }
        let (owner, boot) = self.owner()?;
        let changes = Changes::new(&self.plan.name, owner, boot, functions, cgroup);
        self.taken.journal = Some(Journal::begin(state, changes)?);
        crash::point(Step::JournalWritten);
        Ok(())
    }

    /// The devices' descriptors, in the plan's order, and where the processes that get them are written down. What was
    /// written down of an earlier life is replaced.
    pub(super) fn for_launch(&mut self) -> (Vec<BorrowedFd<'_>>, Noting<'_>) {
        let noting = Noting::new(self.taken.journal.as_mut(), self.taken.root);
        let devices = self.taken.devices.iter();
        (devices.map(|d| d.device.as_fd()).collect(), noting)
    }

    /// Writes down what the functions are like before the guest.
    fn note_snapshots(&mut self) -> Result<(), Fault> {
        let Taken {
            journal, devices, ..
        } = &mut self.taken;
        let Some(journal) = journal else {
            return Ok(());
        };
        let note = |changes: &mut Changes| {
            for (taken, opened) in changes.functions.iter_mut().zip(devices) {
                taken.before = opened.before.as_ref().map(ConfigSnapshot::to_hex);
            }
        };
        journal
            .update(note)
            .map_err(Fault::io("writing the devices' state into the journal"))?;
        crash::point(Step::SnapshotsWritten);
        Ok(())
    }

    /// Binds the functions to vfio-pci, as it was written down.
    ///
    /// # Errors
    /// `device-bind-failed`, `device-host-driver`.
    pub(super) fn bind(&mut self, log: &Log) -> Result<(), Fault> {
        let journal = self.taken.journal.as_ref();
        let planned = journal.map_or(&[][..], |journal| &journal.changes().functions);
        for binding in planned.iter().map(|taken| taken.binding.clone()) {
            let bdf = binding.bdf();
            let before = binding.driver_before().unwrap_or("no driver").to_owned();
            // A failure on the way is undone, too.
            let applied = binding.apply(self.taken.root);
            self.taken.bound.push(binding);
            applied.map_err(|error| failed(bdf, &error))?;
            log.say(&format!("{bdf} is bound to vfio-pci (before: {before})"));
            crash::point(Step::Bound);
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
        let mut space = AddressSpace::open(interface, self.taken.root)
            .map_err(|error| failed(first.bdf, &error))?;
        let mut reserved = Vec::new();
        for function in &self.plan.functions {
            let failed = |error: Error| failed(function.bdf, &error);
            // Nodes of device files exist only since the functions are bound.
            let (mut node, group) =
                DeviceNode::read(self.taken.root, function.bdf).map_err(failed)?;
            reserved.extend(group.reserved);
            node.vf_token = function
                .vf_token
                .as_ref()
                .map(|uuid| VfToken::new(uuid.bytes()));
            let device = space.attach(&node).map_err(failed)?;
            let before = None;
            self.taken.devices.push(Opened { device, before });
            crash::point(Step::Attached);
        }
        self.silence(Reset::WhenOpened)?;
        self.note_snapshots()?;
        Ok(Some(Space { space, reserved }))
    }

    /// What the opened devices say of themselves, in the plan's order.
    ///
    /// # Errors
    /// `device-open-failed`.
    pub(super) fn opened(&self) -> Result<Vec<OpenedFunction>, Fault> {
        self.taken
            .devices
            .iter()
            .zip(&self.plan.functions)
            .map(|(opened, function)| {
                facts(&opened.device, function).map_err(|error| failed(function.bdf, &error))
            })
            .collect()
    }

    /// Stops the devices and resets them, for the same guest's next life.
    ///
    /// # Errors
    /// `device-reset-failed`.
    pub(super) fn reset_for_reboot(&mut self) -> Result<(), Fault> {
        stop_all(&self.taken.devices);
        let silenced = self.silence(Reset::Now);
        crash::point(Step::ResetForReboot);
        silenced
    }

    /// Makes the devices silent, resets them where they were not yet, and reads back from the hardware that they are so. One that is not is
    /// unclean; the error is the first one's.
    fn silence(&mut self, reset: Reset) -> Result<(), Fault> {
        let Taken {
            root,
            devices,
            unclean,
            ..
        } = &mut self.taken;
        let quiesced = quiesce_all(devices, reset);
        let mut first = Ok(());
        for (opened, quiesced) in devices.iter_mut().zip(quiesced) {
            let bdf = opened.device.bdf();
            let silenced = silenced(root, bdf, quiesced, unclean);
            match silenced {
                // What it was before its guest's first life.
                Ok(snapshot) => _ = opened.before.get_or_insert(snapshot),
                Err(fault) => first = first.and(Err(fault)),
            }
            crash::point(Step::Silenced);
        }
        first
    }
}

impl<'a> Taken<'a> {
    /// Nothing of `functions` so far.
    #[must_use]
    pub(super) const fn none(guest: &'a str, functions: Vec<Bdf>, root: &'a SysRoot) -> Self {
        Self {
            guest,
            functions,
            root,
            reserved: Vec::new(),
            host: None,
            leases: Vec::new(),
            journal: None,
            bound: Vec::new(),
            devices: Vec::new(),
            unclean: Vec::new(),
        }
    }
}

/// The configuration space of a function after its reset, if it is silent. What is not is noted in `unclean`.
fn silenced(
    root: &SysRoot,
    bdf: Bdf,
    quiesced: Result<(), Error>,
    unclean: &mut Vec<(Bdf, Vec<String>)>,
) -> Result<ConfigSnapshot, Fault> {
    if let Err(error) = quiesced {
        unclean.push((bdf, vec![error.to_string()]));
        return Err(failed(bdf, &error));
    }
    let snapshot = ConfigSnapshot::read(root, bdf).map_err(|error| failed(bdf, &error))?;
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
    unclean.push((bdf, noise));
    Err(report.into())
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
