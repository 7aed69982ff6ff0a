//! Secondary controllers and namespaces, by admin commands to the primary controller.
//!
//! One controller a command: a list is carried out entry by entry, and stops at the first that fails. What is asked for
//! is looked up first: firmware is least tried where a command asks for what is so already.

use std::{collections::BTreeSet, fs::File, os::unix::fs::OpenOptionsExt};

use iommu::{error::Errno, error::IommuError};

use super::{
    fault::{self, Call, await_that, while_busy},
    hands::KernelHands,
    holders::holders,
};
use crate::{
    host::sriov::{controller::Controller, namespace_devices},
    sriov::{ResourceKind, Secondary, StepFault},
    sys::nvme::{Command, CommandFault, Page},
};

impl KernelHands {
    /// Sets a secondary controller online or offline.
    pub(super) fn secondary_online(
        &self,
        name: &str,
        cntlid: u16,
        online: bool,
    ) -> Result<(), StepFault> {
        let word = if online { "online" } else { "offline" };
        let doing = format!("set secondary controller {cntlid} of {name} {word}");
        let controller = self.open(&doing, name)?;
        if secondary(&controller, &doing, cntlid)?.is_online == online {
            return Ok(());
        }
        self.order(
            &controller,
            &doing,
            &Command::secondary_online(cntlid, online),
            None,
        )?;
        let after = secondary(&controller, &doing, cntlid)?;
        match after.is_online == online {
            true => Ok(()),
            false => Err(fault::ignored(doing, format!("reads {after:?}"))),
        }
    }

    /// Gives an offline secondary controller resources.
    pub(super) fn assign(
        &self,
        name: &str,
        cntlid: u16,
        kind: ResourceKind,
        count: u16,
    ) -> Result<(), StepFault> {
        let word = match kind {
            ResourceKind::Queues => "queues",
            ResourceKind::Vectors => "vectors",
        };
        let doing = format!("give secondary controller {cntlid} of {name} {count} {word}");
        let controller = self.open(&doing, name)?;
        let has = |one: Secondary| match kind {
            ResourceKind::Queues => one.queues,
            ResourceKind::Vectors => one.vectors,
        };
        if has(secondary(&controller, &doing, cntlid)?) == count {
            return Ok(());
        }
        let is_interrupts = kind == ResourceKind::Vectors;
        self.order(
            &controller,
            &doing,
            &Command::secondary_assign(cntlid, is_interrupts, count),
            None,
        )?;
        let after = secondary(&controller, &doing, cntlid)?;
        match has(after) == count {
            true => Ok(()),
            false => Err(fault::ignored(doing, format!("reads {after:?}"))),
        }
    }

    /// Gives a namespace to a controller, or takes it from it.
    pub(super) fn attachment(
        &self,
        name: &str,
        nsid: u32,
        cntlid: u16,
        attached: bool,
    ) -> Result<(), StepFault> {
        let word = if attached { "attach" } else { "detach" };
        let doing = format!("{word} namespace {nsid}, controller {cntlid}, through {name}");
        let controller = self.open(&doing, name)?;
        if self.attached(&controller, &doing, nsid)?.contains(&cntlid) == attached {
            return Ok(());
        }
        let own = controller.identity();
        let own = own.map_err(|f| fault::command(&doing, &f))?.cntlid;
        // Neither the kernel nor the controller keeps a mounted namespace from being detached: this does.
        let claim = match own == cntlid && !attached {
            true => self.claim(&doing, name, nsid, false)?,
            false => None,
        };
        let mut list = Page::zeroed();
        for (place, byte) in list.0.iter_mut().zip(one_controller(cntlid)) {
            *place = byte;
        }
        let command = Command::attachment(nsid, attached);
        self.order(&controller, &doing, &command, Some(&mut list))?;
        drop(claim);
        let after = self.attached(&controller, &doing, nsid)?;
        if after.contains(&cntlid) != attached {
            let evidence = format!("it is attached to {after:?}");
            return Err(fault::ignored(doing, evidence));
        }
        if own == cntlid {
            self.await_device(&doing, name, nsid, attached)?;
        }
        Ok(())
    }

    /// Has the host look for namespaces, and waits until it shows this one, or shows it no more.
    pub(super) fn await_device(
        &self,
        doing: &str,
        name: &str,
        nsid: u32,
        is_shown: bool,
    ) -> Result<(), StepFault> {
        let place = format!("sys/class/nvme/{name}/rescan_controller");
        self.root
            .write_text(place, "1")
            .map_err(|e| fault::unread(Call::Command, doing, &e))?;
        let is_so = await_that(self.patience, || {
            Ok(self.device(doing, name, nsid)?.is_some() == is_shown)
        })?;
        match is_so {
            true => Ok(()),
            false => Err(fault::ignored(
                doing,
                "the host's kernel has not followed within 10 s",
            )),
        }
    }

    /// The block device of a namespace.
    pub(super) fn device(
        &self,
        doing: &str,
        name: &str,
        nsid: u32,
    ) -> Result<Option<String>, StepFault> {
        let devices = match namespace_devices(&self.root, name) {
            // It came or went while the list was read.
            Err(IommuError::Sysfs { errno, .. }) if errno == Errno::new(libc::ENOENT) => Vec::new(),
            other => other.map_err(|e| fault::unread(Call::Command, doing, &e))?,
        };
        let found = devices.into_iter().find(|(_, id)| *id == nsid);
        Ok(found.map(|(device, _)| device))
    }

    /// Opens the block device of a namespace so that nobody else can mount it or build on it; `None` where the host has
    /// no device of it.
    pub(super) fn claim(
        &self,
        doing: &str,
        name: &str,
        nsid: u32,
        for_writing: bool,
    ) -> Result<Option<File>, StepFault> {
        let Some(device) = self.device(doing, name, nsid)? else {
            return Ok(None);
        };
        let path = self.root.path(format!("dev/{device}"));
        while_busy(self.patience, || {
            File::options()
                .read(true)
                .write(for_writing)
                .custom_flags(libc::O_EXCL | libc::O_DIRECT)
                .open(&path)
                .map(Some)
                .map_err(|error| {
                    let doing = format!("{doing}: take {} for oneself", path.display());
                    fault::refused(Call::Claim, doing, Errno::of(&error))
                })
        })
        .map_err(|fault| match fault.is_busy {
            true => self.held(fault, &device),
            false => fault,
        })
    }

    /// The fault with who has the device.
    fn held(&self, fault: StepFault, device: &str) -> StepFault {
        let who = match holders(&self.root, device) {
            Ok(found) if found.is_empty() => {
                "nothing is built on it: it is mounted, or a program has it".to_owned()
            }
            Ok(found) => found.join(", "),
            Err(error) => format!("who has it cannot be told: {error}"),
        };
        StepFault {
            evidence: format!("{}: {who}", fault.evidence),
            ..fault
        }
    }

    /// Makes a namespace: its id.
    pub(super) fn create_namespace(
        &self,
        name: &str,
        size: u64,
        block: u32,
        shared: bool,
    ) -> Result<u32, StepFault> {
        let doing = format!("make a namespace of {size} bytes on {name}");
        let controller = self.open(&doing, name)?;
        let failed = |f: CommandFault| fault::command(&doing, &f);
        // What all namespaces of the controller have in common: its formats.
        let common = controller.identify(0x00, u32::MAX, 0).map_err(failed)?;
        let Some(format) = format_of(&common, block) else {
            let evidence = format!("it has no format with blocks of {block} bytes and no metadata");
            return Err(fault::found(doing, evidence));
        };
        let before = controller.namespaces(0x10).map_err(failed)?;
        let mut page = Page::zeroed();
        let wish = wish(size / u64::from(block.max(1)), format, shared);
        for (place, byte) in page.0.iter_mut().zip(wish) {
            *place = byte;
        }
        let command = Command::create_namespace();
        let nsid = self.order(&controller, &doing, &command, Some(&mut page))?;
        let layout = controller.layout(nsid).map_err(failed)?;
        let is_made = layout
            .as_ref()
            .is_some_and(|made| made.len_bytes() >= size && made.block == block);
        match is_made && !before.contains(&nsid) {
            true => Ok(nsid),
            false => Err(fault::ignored(
                doing,
                format!("namespace {nsid} reads {layout:?}"),
            )),
        }
    }

    /// Deletes a namespace that nobody has.
    pub(super) fn delete_namespace(&self, name: &str, nsid: u32) -> Result<(), StepFault> {
        let doing = format!("delete namespace {nsid} of {name}");
        let controller = self.open(&doing, name)?;
        let failed = |f: CommandFault| fault::command(&doing, &f);
        if !controller.namespaces(0x10).map_err(failed)?.contains(&nsid) {
            return Ok(());
        }
        let attached = self.attached(&controller, &doing, nsid)?;
        if !attached.is_empty() {
            let evidence = format!("it is attached to {attached:?}");
            return Err(fault::found(doing, evidence));
        }
        self.order(&controller, &doing, &Command::delete_namespace(nsid), None)?;
        match controller.namespaces(0x10).map_err(failed)?.contains(&nsid) {
            false => Ok(()),
            true => Err(fault::ignored(doing, "it is still listed")),
        }
    }

    pub(super) fn open(&self, doing: &str, name: &str) -> Result<Controller, StepFault> {
        Controller::open(&self.root, name).map_err(|error| {
            let doing = format!("{doing}: open /dev/{name}");
            fault::refused(Call::Command, doing, Errno::of(&error))
        })
    }

    pub(super) fn order(
        &self,
        controller: &Controller,
        doing: &str,
        command: &Command,
        mut data: Option<&mut Page>,
    ) -> Result<u32, StepFault> {
        while_busy(self.patience, || {
            controller
                .order(command, data.as_deref_mut())
                .map_err(|f| fault::command(doing, &f))
        })
    }

    /// The controllers that a namespace is attached to.
    pub(super) fn attached(
        &self,
        controller: &Controller,
        doing: &str,
        nsid: u32,
    ) -> Result<BTreeSet<u16>, StepFault> {
        while_busy(self.patience, || {
            controller
                .attached(nsid)
                .map_err(|f| fault::command(format!("{doing}: CNS 12h"), &f))
        })
    }
}

fn secondary(controller: &Controller, doing: &str, cntlid: u16) -> Result<Secondary, StepFault> {
    let list = controller
        .secondaries()
        .map_err(|f| fault::command(format!("{doing}: CNS 15h"), &f))?;
    list.into_iter()
        .find(|one| one.cntlid == cntlid)
        .ok_or_else(|| fault::found(doing, "it is no secondary controller"))
}

/// A controller list with one entry.
fn one_controller(cntlid: u16) -> [u8; 4] {
    let [low, high] = cntlid.to_le_bytes();
    [1, 0, low, high]
}

/// The number of the format with this size of blocks and without metadata.
pub(super) fn format_of(common: &Page, block: u32) -> Option<u8> {
    let count = common.0.get(25).copied()?.min(63);
    (0..=count).find(|number| {
        let at = 128 + 4 * usize::from(*number);
        let format = common.0.get(at..at + 4);
        let exponent = block.trailing_zeros();
        matches!(format, Some([0, 0, log, _]) if block.is_power_of_two() && u32::from(*log) == exponent)
    })
}

/// The data of Namespace Management, create: NSZE, NCAP, FLBAS, NMIC.
fn wish(blocks: u64, format: u8, shared: bool) -> [u8; 31] {
    let mut data = [0; 31];
    let (head, rest) = data.split_at_mut(16);
    for (place, byte) in head
        .iter_mut()
        .zip(blocks.to_le_bytes().into_iter().cycle())
    {
        *place = byte;
    }
    for (at, byte) in [(26, flbas_of(format)), (30, u8::from(shared))] {
        if let Some(place) = rest.get_mut(at - 16) {
            *place = byte;
        }
    }
    data
}

/// FLBAS of a format without metadata: the upper two bits of its number stand above the bit for metadata.
pub(super) const fn flbas_of(format: u8) -> u8 {
    format & 0xf | (format >> 4 & 3) << 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_is_found_by_its_blocks_and_has_no_metadata() {
        let mut page = Page::zeroed();
        page.0[25] = 3;
        // 512 with 8 bytes of metadata, 512, 4096 with 64, 4096.
        page.0[128..144].copy_from_slice(&[8, 0, 9, 0, 0, 0, 9, 0, 64, 0, 12, 0, 0, 0, 12, 0]);
        assert_eq!(format_of(&page, 512), Some(1));
        assert_eq!(format_of(&page, 4096), Some(3));
        assert_eq!(format_of(&page, 1024), None);
        assert_eq!(format_of(&page, 0), None);
    }

    #[test]
    fn wish_for_a_namespace_has_the_offsets_of_the_specification() {
        let data = wish(0x0102_0304, 0x12, true);
        assert_eq!(data[..8], 0x0102_0304_u64.to_le_bytes());
        assert_eq!(data[8..16], 0x0102_0304_u64.to_le_bytes());
        assert_eq!((data[26], data[29], data[30]), (0x22, 0, 1));
        assert_eq!(one_controller(0x0102), [1, 0, 2, 1]);
    }
}
