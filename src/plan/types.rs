//! The plan: everything the supervisor does, decided before it touches anything.

use std::{ops::Deref, path::PathBuf};

use iommu::{
    addr::ByteLen,
    bdf::Bdf,
    isolation::{CheckId, Verdict},
    space::Interface,
    topology::GroupId,
};
use jailed::addr::GpaRange;
use serde::{Serialize, Serializer};

use super::cmdline::MachineWord;
use crate::{
    error::Report,
    layers::LayerSet,
    spec::{ConsoleSpec, HugepageSize, OnDmaFault, OnReboot, RootMode, Uuid},
    sriov::LeaseTerms,
};

/// A plan that passed every check. Only [`super::plan`] makes one, and nothing changes one afterwards; its fields are
/// read through [`Contents`].
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Plan(pub(super) Contents);

impl Deref for Plan {
    type Target = Contents;

    fn deref(&self) -> &Contents {
        &self.0
    }
}

impl Plan {
    /// The same, with more that is worth knowing.
    #[must_use]
    pub fn warned(mut self, warnings: Vec<Report>) -> Self {
        self.0.warnings.extend(warnings);
        self
    }

    /// What of the BARs devices may reach by DMA: the mapped parts of each function that is the second of a pair, once.
    pub fn open_parts(&self) -> impl Iterator<Item = OpenPart<'_>> {
        let is_open = |function: &&Function| self.peers.iter().any(|peer| peer.to == function.bdf);
        let open = self.functions.iter().filter(is_open);
        open.flat_map(|function| {
            function
                .bars
                .iter()
                .enumerate()
                .map(move |bar| (function, bar))
        })
        .filter_map(|(function, (index, bar))| Some((function, index, bar.as_ref()?)))
        .flat_map(|(function, index, bar)| {
            bar.spans.iter().filter_map(move |span| {
                let start = bar.at.start().checked_add(span.offset)?;
                Some(OpenPart {
                    function,
                    bar: index,
                    offset: span.offset,
                    at: GpaRange::new(start, span.len_bytes)?,
                })
            })
        })
    }

    /// The leases of its functions.
    pub fn leases(&self) -> impl Iterator<Item = &LeaseTerms> {
        self.functions.iter().filter_map(|f| f.lease.as_ref())
    }

    /// Whether another plan of the same guest file assigns the same functions in the same way, whatever they are bound
    /// to by now. The address of one that differs.
    ///
    /// # Errors
    /// The address of the first function that is not what it was.
    pub fn agrees_with(&self, later: &Self) -> Result<(), Bdf> {
        let same = |one: &Function, other: &Function| {
            let other = Function {
                binding: one.binding.clone(),
                ..other.clone()
            };
            *one == other
        };
        // One that only one of them has was not checked by both: the guest file may be another one by now.
        let mut others = later.functions.iter();
        for one in &self.functions {
            if !others.next().is_some_and(|other| same(one, other)) {
                return Err(one.bdf);
            }
        }
        others.next().map_or(Ok(()), |more| Err(more.bdf))
    }
}

/// What a [`Plan`] says.
#[derive(Clone, Debug, Serialize)]
pub struct Contents {
    /// The guest's name.
    pub name: String,
    /// vCPUs, 1 to 64.
    pub vcpus: u32,
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initial RAM file system.
    pub initramfs: Option<PathBuf>,
    /// The kernel's command line, at most 2047 bytes, with the machine's words.
    pub cmdline: String,
    /// The words of it that the machine implies.
    pub machine_words: Vec<MachineWord>,
    /// What follows when the guest asks for a reboot.
    pub on_reboot: OnReboot,
    /// What follows when the IOMMU stops a request of a device.
    pub on_dma_fault: OnDmaFault,
    /// The serial console.
    pub console: ConsoleSpec,
    /// RAM.
    pub memory: Memory,
    /// Images that the guest sees as persistent memory, in the order of their descriptors.
    pub images: Vec<Image>,
    /// By which kernel interface the functions are assigned.
    pub interface: Interface,
    /// The IOMMU groups that are opened whole, each once.
    pub groups: Vec<GroupId>,
    /// The functions, in the order in which the guest finds them.
    pub functions: Vec<Function>,
    /// The pairs of them of which one may reach the BARs of the other by DMA, as the guest file names them.
    pub peers: Vec<Peer>,
    /// The jail of the guest's processes.
    pub sandbox: Sandbox,
    /// The ACPI tables, to be copied to [`jailed::machine::ACPI_START`].
    #[serde(serialize_with = "length")]
    pub acpi: Vec<u8>,
    /// How well the functions are isolated: [`Verdict::Pass`], or [`Verdict::Warn`] where a check warns or its refusal is
    /// accepted.
    pub verdict: Verdict,
    /// Refusals that were accepted and other things worth knowing.
    pub warnings: Vec<Report>,
}

/// The jail of the guest's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sandbox {
    /// The layers that this kernel lacks and the guest file does without.
    pub absent: LayerSet,
    /// Processor time of all vCPUs together, in hundredths of a processor.
    pub cpu_percent: u32,
    /// Memory of its processes besides RAM, images and page tables.
    pub memory_overhead: ByteLen,
}

/// Guest RAM: one file, laid out in ranges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The size of the file; the ranges add up to it.
    pub size: ByteLen,
    /// The huge pages that back it.
    pub hugepages: Option<HugepageSize>,
    /// The NUMA node it is taken from.
    pub numa_node: Option<u32>,
    /// The ranges, ascending, the first from 0; they follow each other in the file.
    pub ranges: Vec<Ram>,
}

/// A range of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ram {
    /// Where the guest has it.
    #[serde(serialize_with = "range")]
    pub at: GpaRange,
    /// Where it lies in the RAM file, in bytes.
    pub file_offset: u64,
}

/// An image that the guest sees as persistent memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Image {
    /// The file.
    pub path: PathBuf,
    /// What the guest may do with it.
    pub mode: RootMode,
    /// Where the guest has it; its length is the file's.
    #[serde(serialize_with = "range")]
    pub at: GpaRange,
}

/// A function to assign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Function {
    /// Its address on the host.
    pub bdf: Bdf,
    /// Its folder in sysfs.
    pub path: PathBuf,
    /// The guest's slot on bus 0.
    pub guest_slot: u8,
    /// Its IOMMU group.
    pub group: GroupId,
    /// What has to be done before it can be opened.
    pub binding: Binding,
    /// Whether the kernel says that it can reset it (`reset_method`).
    pub has_reset: bool,
    /// The token shared by a PF and its VFs.
    pub vf_token: Option<Uuid>,
    /// How many interrupt vectors the guest gets.
    pub vectors: u32,
    /// Which interrupts those are.
    pub interrupts: Interrupts,
    /// BARs 0 to 5.
    pub bars: [Option<Bar>; 6],
    /// The checks that refuse it, and that the guest file accepts.
    pub accepted: Vec<CheckId>,
    /// On which terms it is leased, where it is a VF of a pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseTerms>,
}

/// What has to be done before a function can be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Binding {
    /// Nothing: it is bound to vfio-pci.
    Bound {
        /// The name of its device file under `/dev/vfio/devices`, where the kernel has those.
        cdev: Option<String>,
    },
    /// Bind it to vfio-pci; no driver has it and `driver_override` is empty or names vfio-pci.
    ToBind {
        /// Whether `driver_override` has to be written first, and emptied afterwards.
        set_override: bool,
    },
}

/// The interrupts of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Interrupts {
    /// None.
    None,
    /// MSI.
    Msi,
    /// MSI-X, with its table and pending bits inside of memory BARs.
    Msix {
        /// Entries of the device's own table, 1 to 2048.
        entries: u32,
        /// BAR of the table.
        table_bar: u8,
        /// Offset of the table in its BAR, in bytes.
        table_offset: u32,
        /// BAR of the pending bits.
        pba_bar: u8,
        /// Offset of the pending bits in their BAR, in bytes.
        pba_offset: u32,
    },
}

/// A memory BAR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bar {
    /// Where the guest finds it.
    #[serde(serialize_with = "range")]
    pub at: GpaRange,
    /// 64-bit: it takes the next index as well.
    pub is_64bit: bool,
    /// Prefetchable.
    pub is_prefetchable: bool,
    /// What is mapped into the guest: the BAR without the pages of the MSI-X table and the pending bits.
    pub spans: Vec<Span>,
}

/// A mapped part of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Offset in the BAR in bytes, page aligned.
    pub offset: u64,
    /// Length in bytes, a multiple of the page size.
    pub len_bytes: u64,
}

/// Two devices of the guest: DMA of the first may reach the BARs of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Who asks.
    pub from: Bdf,
    /// Whose BARs are opened: to every device of the guest, because all have one address space.
    pub to: Bdf,
}

/// A part of a BAR that devices may reach by DMA.
#[derive(Clone, Copy, Debug)]
pub struct OpenPart<'a> {
    /// Whose it is.
    pub function: &'a Function,
    /// Which BAR, 0 to 5.
    pub bar: usize,
    /// Where it begins in the BAR, in bytes.
    pub offset: u64,
    /// Where the guest has it, and so where devices find it.
    pub at: GpaRange,
}

fn range<S: Serializer>(range: &GpaRange, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Range {
        start: String,
        end: String,
    }
    Range {
        start: range.start().to_string(),
        end: range.end().to_string(),
    }
    .serialize(serializer)
}

#[expect(clippy::ptr_arg, reason = "serde calls it with the type of the field")]
fn length<S: Serializer>(bytes: &Vec<u8>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{} bytes", bytes.len()))
}
