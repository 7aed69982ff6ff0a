//! The plan as text and as JSON, for the operator.

use std::{
    fmt::{self, Write},
    path::Path,
};

use iommu::isolation::{CheckId, Verdict};
use serde::Serialize;

use super::types::{Binding, Function, Interrupts, Plan};
use crate::{
    error::printable,
    layers::Layer,
    spec::{ConsoleSpec, OnDmaFault, RootMode},
};

impl Plan {
    /// The plan as a JSON document; new fields may be added, none changes its meaning.
    ///
    /// # Errors
    ///
    /// A path of the guest file is not UTF-8.
    pub fn to_json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Document<'a> {
            api_version: &'static str,
            kind: &'static str,
            plan: &'a Plan,
        }
        serde_json::to_string_pretty(&Document {
            api_version: "v1alpha1",
            kind: "Plan",
            plan: self,
        })
    }
}

/// What will be done, line by line.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "guest {}: {} vCPU, {}",
            self.name, self.vcpus, self.memory.size
        )?;
        writeln!(f, "  kernel     {}", shown(&self.kernel))?;
        if let Some(initramfs) = &self.initramfs {
            writeln!(f, "  initramfs  {}", shown(initramfs))?;
        }
        writeln!(f, "  cmdline    {}", printable(&self.cmdline))?;
        for row in &self.machine_words {
            writeln!(f, "             {}: {}", row.word, row.why)?;
        }
        match &self.console {
            ConsoleSpec::Off => writeln!(f, "  console    off")?,
            ConsoleSpec::Stdio => writeln!(f, "  console    stdio")?,
            ConsoleSpec::File(path) => writeln!(f, "  console    {}", shown(path))?,
        }
        match self.on_dma_fault {
            OnDmaFault::Stop => {}
            OnDmaFault::Log => writeln!(f, "  DMA fault  is only logged")?,
        }
        let interface = self.interface;
        let groups: Vec<String> = self.groups.iter().map(|g| g.0.to_string()).collect();
        match groups.is_empty() {
            true => writeln!(f, "  devices    none")?,
            false => writeln!(
                f,
                "  devices    by {interface}, IOMMU group {}",
                groups.join(", ")
            )?,
        }
        for peer in &self.peers {
            writeln!(
                f,
                "  peer       {} -> {}: every device reaches its BARs by DMA",
                peer.from, peer.to
            )?;
        }
        if !self.sandbox.absent.is_empty() {
            let names: Vec<&str> = self.sandbox.absent.iter().map(Layer::name).collect();
            writeln!(f, "  sandbox    without {}", names.join(", "))?;
        }
        match self.verdict {
            Verdict::Pass | Verdict::Fixable => writeln!(f, "  verdict    pass")?,
            Verdict::Warn | Verdict::Refuse => writeln!(f, "  verdict    warn")?,
        }
        writeln!(f, "memory")?;
        for ram in &self.memory.ranges {
            writeln!(f, "  {}  RAM, DMA at the same addresses", ram.at)?;
        }
        for image in &self.images {
            let mode = match image.mode {
                RootMode::ReadOnly => "read-only",
                RootMode::Copy => "private copy",
            };
            writeln!(f, "  {}  image {}, {mode}", image.at, shown(&image.path))?;
        }
        for function in &self.functions {
            write_function(f, function)?;
        }
        Ok(())
    }
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

fn write_function(f: &mut fmt::Formatter<'_>, function: &Function) -> fmt::Result {
    let kind = match function.interrupts {
        Interrupts::None => "no interrupts".to_owned(),
        Interrupts::Msi => format!("{} MSI vectors", function.vectors),
        Interrupts::Msix { .. } => format!("{} MSI-X vectors", function.vectors),
    };
    writeln!(
        f,
        "device {} -> 00:{:02x}.0: group {}, {kind}",
        function.bdf, function.guest_slot, function.group.0
    )?;
    match &function.binding {
        Binding::Bound { .. } => writeln!(f, "  bound to vfio-pci")?,
        Binding::ToBind { .. } => {
            writeln!(f, "  will be bound to vfio-pci and unbound at the end")?
        }
    }
    if let Some(lease) = &function.lease {
        let until = match lease.keep {
            true => "kept when the guest ends",
            false => "given back when the guest ends",
        };
        writeln!(
            f,
            "  VF {} of {}, leased of pool {}, {until}",
            lease.index, lease.pf, lease.pool
        )?;
    }
    for (index, bar) in function.bars.iter().enumerate() {
        let Some(bar) = bar else { continue };
        let mut spans = String::new();
        for span in &bar.spans {
            write!(
                spans,
                " +{:#x}..{:#x}",
                span.offset,
                span.offset + span.len_bytes
            )?;
        }
        let spans = if spans.is_empty() { " nothing" } else { &spans };
        writeln!(f, "  {}  BAR {index}, mapped:{spans}", bar.at)?;
    }
    if !function.accepted.is_empty() {
        let names: Vec<&str> = function
            .accepted
            .iter()
            .map(|id| CheckId::name(*id))
            .collect();
        writeln!(f, "  accepted: {}", names.join(", "))?;
    }
    Ok(())
}
