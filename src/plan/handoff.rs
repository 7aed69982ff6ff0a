//! The plan and the facts of the opened devices, as V and D read them.

use jailed::{
    handoff::{self, Handoff, InterruptKind},
    machine::CONFIG_BYTES,
    manifest::layer,
};

use super::types::{Bar, Function, Interrupts, Plan};
use crate::{
    error::{ErrorId, Report},
    spec::{ConsoleSpec, RootMode},
};

/// A region of an opened device, as `VFIO_DEVICE_GET_REGION_INFO` reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Its offset in the device's descriptor.
    pub offset: u64,
    /// Its size in bytes; 0 where there is none.
    pub len_bytes: u64,
}

/// What is known of a function only once it is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenedFunction {
    /// BARs 0 to 5.
    pub bars: [Region; 6],
    /// Configuration space.
    pub config: Region,
    /// `VFIO_DEVICE_FLAGS_RESET`.
    pub can_reset: bool,
    /// The count of the MSI-X interrupt index, or of MSI where the function has no MSI-X.
    pub vectors: u32,
}

impl Plan {
    /// The handoff of this plan, given what the opened devices say, in the order of [`super::Contents::functions`].
    ///
    /// # Errors
    ///
    /// `device-changed`: a device is not what the plan was made from. `bug`: something does not fit into a handoff.
    pub fn handoff(&self, opened: &[OpenedFunction]) -> Result<Box<Handoff>, Report> {
        let mut out = Box::new(Handoff::empty());
        if opened.len() != self.functions.len() {
            return Err(too_big("opened devices"));
        }
        out.vcpu_count = self.vcpus;
        out.has_console = u32::from(self.console != ConsoleSpec::Off);
        out.has_initramfs = u32::from(self.initramfs.is_some());
        // The last layers are those of the supervisor's side, of which V and D know nothing.
        let known = (layer::CORE_SCHEDULING << 1) - 1;
        out.layers_absent = self.sandbox.absent.bits() & known;
        let ram = self.memory.ranges.iter().map(|ram| handoff::RamRange {
            gpa: ram.at.start().raw(),
            len_bytes: ram.at.len_bytes(),
            file_offset: ram.file_offset,
        });
        out.ram_count = fill(&mut out.ram, ram, "ranges of RAM")?;
        let images = self.images.iter().map(|image| handoff::ImageRange {
            gpa: image.at.start().raw(),
            len_bytes: image.at.len_bytes(),
            writable: u64::from(image.mode == RootMode::Copy),
        });
        out.image_count = fill(&mut out.images, images, "images")?;
        let functions = self
            .functions
            .iter()
            .zip(opened)
            .map(|(planned, opened)| function(planned, opened))
            .collect::<Result<Vec<_>, _>>()?;
        out.function_count = fill(&mut out.functions, functions.into_iter(), "functions")?;
        out.cmdline_len = fill(&mut out.cmdline, self.cmdline.bytes(), "command line")?;
        out.acpi_len = fill(&mut out.acpi, self.acpi.iter().copied(), "ACPI tables")?;
        if !out.check() {
            return Err(too_big("counts"));
        }
        Ok(out)
    }
}

fn function(planned: &Function, opened: &OpenedFunction) -> Result<handoff::Function, Report> {
    let mut out = handoff::Function {
        host_bdf: planned.bdf.packed(),
        vectors: planned.vectors,
        can_reset: u32::from(opened.can_reset),
        config_offset: opened.config.offset,
        config_bytes: opened.config.len_bytes,
        ..handoff::Function::default()
    };
    let changed = |why: String| {
        Report::new(
            ErrorId::DeviceChanged,
            format!("device {} is not what the plan was made from", planned.bdf),
            why,
            "run it again; if it stays, the device's firmware or driver is at fault",
        )
    };
    if opened.config.len_bytes != 256 && opened.config.len_bytes != CONFIG_BYTES as u64 {
        return Err(changed(format!(
            "VFIO reports {} bytes of configuration space",
            opened.config.len_bytes
        )));
    }
    if opened.vectors < planned.vectors {
        return Err(changed(format!(
            "VFIO reports {} interrupt vectors, sysfs promised {}",
            opened.vectors, planned.vectors
        )));
    }
    if planned.has_reset && !opened.can_reset {
        return Err(changed(
            "VFIO reports no reset, sysfs reset_method promised one".to_owned(),
        ));
    }
    out.interrupt_kind = match planned.interrupts {
        Interrupts::None => InterruptKind::None,
        Interrupts::Msi => InterruptKind::Msi,
        Interrupts::Msix {
            entries,
            table_bar,
            table_offset,
            pba_bar,
            pba_offset,
        } => {
            // What was fenced is what sysfs told of: a larger table would lie in pages that are mapped.
            if opened.vectors != entries {
                return Err(changed(format!(
                    "VFIO reports {} entries of the MSI-X table, sysfs {entries}",
                    opened.vectors
                )));
            }
            out.msix_entries = entries;
            out.msix_table_bar = table_bar.into();
            out.msix_table_offset = table_offset;
            out.msix_pba_bar = pba_bar.into();
            out.msix_pba_offset = pba_offset;
            InterruptKind::Msix
        }
    } as u32;
    for (index, (place, (bar, region))) in out
        .bars
        .iter_mut()
        .zip(planned.bars.iter().zip(opened.bars))
        .enumerate()
    {
        let Some(bar) = bar else { continue };
        let has_upper_half = index < 5 && planned.bars.get(index + 1).is_some_and(Option::is_none);
        if bar.is_64bit && !has_upper_half {
            return Err(changed(format!(
                "BAR {index} is of 64 bits, and its upper half is another BAR or none"
            )));
        }
        if region.len_bytes != bar.at.len_bytes() {
            return Err(changed(format!(
                "VFIO reports {:#x} bytes of BAR {index}, sysfs {:#x}",
                region.len_bytes,
                bar.at.len_bytes()
            )));
        }
        *place = handoff_bar(bar, region)?;
    }
    match overlap(opened) {
        Some((one, other)) => Err(changed(format!(
            "VFIO reports {one} and {other} at the same place of the device's file"
        ))),
        None => Ok(out),
    }
}

/// Two regions of a device that overlap or wrap: a write to a BAR would be one to configuration space.
fn overlap(opened: &OpenedFunction) -> Option<(String, String)> {
    let bars = opened.bars.iter().enumerate();
    let mut regions: Vec<(u64, Option<u64>, String)> = bars
        .map(|(index, region)| (region, format!("BAR {index}")))
        .chain([(&opened.config, "configuration space".to_owned())])
        .filter(|(region, _)| region.len_bytes > 0)
        .map(|(region, name)| {
            (
                region.offset,
                region.offset.checked_add(region.len_bytes),
                name,
            )
        })
        .collect();
    regions.sort();
    regions
        .iter()
        .zip(regions.iter().skip(1))
        .find_map(|((_, end, one), (start, _, other))| {
            let do_meet = end.is_none_or(|end| end > *start);
            do_meet.then(|| (one.clone(), other.clone()))
        })
}

fn handoff_bar(bar: &Bar, region: Region) -> Result<handoff::Bar, Report> {
    let mut out = handoff::Bar {
        gpa: bar.at.start().raw(),
        len_bytes: bar.at.len_bytes(),
        region_offset: region.offset,
        is_64bit: bar.is_64bit.into(),
        is_prefetchable: bar.is_prefetchable.into(),
        ..handoff::Bar::default()
    };
    let spans = bar.spans.iter().map(|span| handoff::Span {
        offset: span.offset,
        len_bytes: span.len_bytes,
    });
    out.span_count = fill(&mut out.spans, spans, "spans of a BAR")?.into();
    Ok(out)
}

/// Writes `items` to the front of `array` and counts them.
fn fill<T>(array: &mut [T], items: impl Iterator<Item = T>, what: &str) -> Result<u32, Report> {
    let mut places = array.iter_mut();
    let mut count = 0;
    for item in items {
        *places.next().ok_or_else(|| too_big(what))? = item;
        count += 1;
    }
    Ok(count)
}

fn too_big(what: &str) -> Report {
    Report::new(
        ErrorId::Bug,
        "the plan cannot be handed over",
        format!("{what}: the plan and the handoff do not agree"),
        "report this with the output of `narrows plan --json`",
    )
}
