//! Whether interrupts are remapped, from the names of chips in `/proc/interrupts`.

use super::{Remapping, file};
use crate::{error::Result, sysfs::SysRoot};

pub(super) fn read(root: &SysRoot) -> Result<Remapping> {
    // A line is as long as there are processors: 512 of them with a thousand interrupts take some megabytes.
    let text = file::bytes(root, "proc/interrupts", 64 << 20)?.unwrap_or_default();
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// Judges by the message interrupts in use. One that goes straight to a processor counts more than any that does not:
/// nobody checks what its device sends.
///
/// A remapped chip has the prefix `IR-`, or `vIR-` where the IOMMU is a virtual one. Functions have the chip `PCI-MSI`
/// (kernels before 6.2), or `PCI-MSI-` or `PCI-MSIX-` with their address. The IOMMUs' own interrupts are remapped on no
/// host: those of VT-d and of newer AMD-Vi have chips of their own, `DMAR-MSI` and `IOMMU-MSI`; those of older AMD-Vi are
/// `PCI-MSI`, and known by what they are for. An IO-APIC says nothing of what devices may send.
///
/// *Source:* `drivers/iommu/intel/irq_remapping.c` and `drivers/iommu/amd/iommu.c`, `msi_parent_ops`;
/// `drivers/pci/msi/irqdomain.c` (v6.12).
fn parse(text: &str) -> Remapping {
    let mut on = None;
    for line in text.lines() {
        let Some(interrupt) = Interrupt::parse(line) else {
            continue;
        };
        let evidence = || interrupt.words.join(" ");
        match interrupt.chip {
            Chip::Plain => {
                return Remapping::Off {
                    evidence: evidence(),
                };
            }
            Chip::Remapped if on.is_none() => on = Some(evidence()),
            Chip::Remapped | Chip::Other => {}
        }
    }
    match on {
        Some(evidence) => Remapping::On { evidence },
        None => Remapping::Unknown,
    }
}

struct Interrupt<'a> {
    chip: Chip,
    /// From the chip's name on.
    words: Vec<&'a str>,
}

enum Chip {
    Remapped,
    Plain,
    Other,
}

impl<'a> Interrupt<'a> {
    /// Reads a line `NUMBER: COUNT... CHIP HWIRQ-TYPE ACTION...`; `None` for any other.
    fn parse(line: &'a str) -> Option<Self> {
        let (number, rest) = line.split_once(':')?;
        number.trim().parse::<u32>().ok()?;
        let words: Vec<&str> = rest
            .split_whitespace()
            .skip_while(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
            .collect();
        let chip = *words.first()?;
        let is_of_iommu = words.iter().any(|word| word.starts_with("AMD-Vi"));
        let remapped = chip
            .strip_prefix("IR-")
            .or_else(|| chip.strip_prefix("vIR-"));
        let chip = match remapped {
            Some(name) if name.starts_with("PCI-MSI") || name.starts_with("HPET") => Chip::Remapped,
            None if chip.starts_with("PCI-MSI") && !is_of_iommu => Chip::Plain,
            _ => Chip::Other,
        };
        Some(Self { chip, words })
    }
}

#[cfg(test)]
#[path = "remapping_test.rs"]
mod tests;
