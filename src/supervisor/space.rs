//! A guest's IOMMU context, from its devices to its seal.
//!
//! On entry: the devices are attached and not bus master. On exit: exactly the guest's RAM and images are mapped, and of
//! BARs what the guest file opens by name; no handle is left with which that could be changed, and no view of a BAR.

use std::{io, os::fd::AsFd};

use iommu::{
    IommuError as Error,
    addr::{ByteLen, IovaRange},
    ledger::{Bars, Kind, Permission},
    space::{AddressSpace, Attaching, Mapping},
    topology::ReservedRegion,
};
use jailed::addr::GpaRange;

use super::{assign::Assigned, fault::Fault, files::Files, log::Log, ram::Ram, stats::Dma};
use crate::{
    error::{ErrorId, Report},
    plan::{OpenedFunction, Plan, iova_of},
    spec::RootMode,
    sys::crash::{self, Step},
};

/// A guest's IOMMU context with all devices in it and nothing mapped.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) space: AddressSpace<Attaching>,
    pub(super) reserved: Vec<ReservedRegion>,
}

impl Space {
    /// Maps exactly the guest's RAM and images, and what the guest file opens of BARs, then closes every handle with
    /// which the map could be changed. `opened` has been compared with the plan.
    ///
    /// # Errors
    /// `dma-map-failed`.
    pub(super) fn map_and_seal(
        self,
        plan: &Plan,
        ram: &Ram,
        files: &Files,
        assigned: &Assigned<'_>,
        opened: &[OpenedFunction],
        log: &Log,
    ) -> Result<Dma, Fault> {
        let failed = |error: Error| Fault::from(not_mapped(plan, &error));
        let mut space = self
            .space
            .attached(self.reserved, bars(plan)?)
            .map_err(failed)?;
        for range in &plan.memory.ranges {
            let mapping = Mapping {
                range: iova_range(range.at)?,
                file: ram.file(),
                offset: range.file_offset,
                permission: Permission::ReadWrite,
                kind: Kind::Ram,
            };
            space.map(&mapping).map_err(failed)?;
            crash::point(Step::Mapped);
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
        for part in plan.open_parts() {
            let devices = assigned.taken.devices.iter().zip(opened);
            let mut of_function = devices.filter(|(d, _)| d.device.bdf() == part.function.bdf);
            let region = of_function.next().and_then(|(opened, facts)| {
                let offset = facts.bars.get(part.bar)?.offset.checked_add(part.offset)?;
                Some((opened.device.as_fd(), offset))
            });
            let Some((file, offset)) = region else {
                let doing = format!("mapping BAR {} of {}", part.bar, part.function.bdf);
                return Err(Fault::io(doing)(io::Error::other("the device is not open")));
            };
            let mapping = Mapping {
                range: iova_range(part.at)?,
                file,
                offset,
                permission: Permission::ReadWrite,
                kind: Kind::PeerBar,
            };
            space.map(&mapping).map_err(failed)?;
            log.say(&format!(
                "BAR {} of {} from {:#x} on is open to DMA of every device of the guest, at {}",
                part.bar, part.function.bdf, part.offset, part.at
            ));
        }
        let sealed = space.seal();
        crash::point(Step::Sealed);
        let dma = Dma {
            mappings: sealed.ledger().entries().len() as u64,
            bytes: sealed.ledger().total().raw(),
            ioctls: sealed.calls().map.into(),
            entries: sealed.ledger().entries().to_vec(),
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

/// Where the guest has BARs, and what of them is opened.
fn bars(plan: &Plan) -> Result<Bars, Fault> {
    let all = plan.functions.iter().flat_map(|f| f.bars.iter().flatten());
    Ok(Bars {
        all: all
            .map(|bar| iova_range(bar.at))
            .collect::<Result<_, _>>()?,
        open: plan
            .open_parts()
            .map(|part| iova_range(part.at))
            .collect::<Result<_, _>>()?,
    })
}

/// Where devices see a range of the guest's addresses: at the same numbers.
fn iova_range(at: GpaRange) -> Result<IovaRange, Fault> {
    IovaRange::new(iova_of(at.start()), ByteLen::new(at.len_bytes())).ok_or_else(|| {
        let doing = format!("mapping {at}");
        Fault::io(doing)(io::Error::other("the range wraps"))
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
