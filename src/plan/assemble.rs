//! Puts a plan together from what passed the checks.

use iommu::{bind::VFIO_PCI, isolation::CheckId, space::Interface, topology};
use jailed::{addr::GpaRange, handoff::MAX_VECTORS, machine};

use super::{
    acpi,
    checks::{Asked, Case, Verdict},
    cmdline,
    layout::{BarRequest, Fault, Layout, Request, gpa_range_of, lay_out, spans},
    types::{Bar, Binding, Contents, Function, Image, Interrupts, Memory, Peer, Plan, Sandbox},
};
use crate::{
    error::{ErrorId, Report},
    spec::{ConsoleSpec, GuestSpec, HugepageSize, InterfaceChoice},
};

/// The plan; nothing stands against it but that its parts may find no room.
///
/// # Errors
/// `layout-impossible`, `bug`.
pub(super) fn assemble(case: &Case<'_>, verdict: Verdict) -> Result<Plan, Report> {
    let spec = case.spec;
    let layout = lay_out(&request(case)).map_err(|fault| no_layout(case, &fault))?;
    let vcpus = spec.vcpus.to_le_bytes()[0];
    let acpi = acpi::tables(acpi::Machine {
        vcpus,
        window64: layout.window64,
        has_console: spec.console != ConsoleSpec::Off,
    })
    .ok_or_else(|| bug("the ACPI tables are too long"))?;
    let mut at = layout.bars.iter().copied();
    let mut functions = Vec::new();
    for (index, (asked, accepted)) in case.asked.iter().zip(verdict.accepted).enumerate() {
        let slot = machine::slot_of(u8::try_from(index).map_err(|e| bug(&e.to_string()))?);
        functions.push(function(asked, slot, accepted, &mut at)?);
    }
    let mut groups: Vec<_> = functions.iter().map(|function| function.group).collect();
    groups.sort_unstable();
    groups.dedup();
    let has_console = spec.console != ConsoleSpec::Off;
    let machine_words = match spec.machine_words {
        true => cmdline::machine_words(&spec.cmdline, has_console),
        false => Vec::new(),
    };
    Ok(Plan(Contents {
        name: spec.name.clone(),
        vcpus: spec.vcpus,
        kernel: spec.kernel.clone(),
        initramfs: spec.initramfs.clone(),
        cmdline: cmdline::whole(&machine_words, &spec.cmdline),
        machine_words,
        on_reboot: spec.on_reboot,
        on_dma_fault: spec.on_dma_fault,
        console: spec.console.clone(),
        images: images(case, &layout),
        interface: interface(case),
        memory: Memory {
            size: spec.memory.size,
            hugepages: spec.memory.hugepages,
            numa_node: spec.memory.numa_node,
            ranges: layout.ram,
        },
        groups,
        functions,
        peers: peers(spec),
        sandbox: Sandbox {
            absent: case.host.layers.absent_set(),
            cpu_percent: spec.sandbox.cpu_percent.unwrap_or(spec.vcpus * 100),
            memory_overhead: spec.sandbox.memory_overhead,
        },
        acpi,
        verdict: verdict.isolation,
        warnings: verdict.warnings,
    }))
}

/// What has to be placed; BARs in the order of functions and indices.
fn request(case: &Case<'_>) -> Request {
    let reserved = case.asked.iter().filter_map(|asked| asked.group);
    Request {
        ram: case.spec.memory.size,
        hugepage: case.spec.memory.hugepages.map(HugepageSize::len),
        images: case
            .spec
            .root
            .iter()
            .filter_map(|_| case.files.root)
            .collect(),
        bars: case
            .asked
            .iter()
            .flat_map(|asked| memory_bars(asked.function))
            .map(|(_, bar)| BarRequest {
                len: bar.len,
                is_64bit: bar.is_64bit,
            })
            .collect(),
        reserved: reserved
            .flat_map(|(_, group)| &group.reserved)
            .filter_map(|region| gpa_range_of(region.range))
            .collect(),
        phys_bits: case.host.phys_bits,
    }
}

fn images(case: &Case<'_>, layout: &Layout) -> Vec<Image> {
    let roots = case.spec.root.iter().zip(&layout.images);
    roots
        .map(|(root, at)| Image {
            path: root.image.clone(),
            mode: root.mode,
            at: *at,
        })
        .collect()
}

fn peers(spec: &GuestSpec) -> Vec<Peer> {
    let pairs = spec.peers.iter();
    pairs
        .map(|pair| Peer {
            from: pair.from,
            to: pair.to,
        })
        .collect()
}

/// iommufd where the host has it, no function is already bound without a device file, and no BAR has to be mapped.
fn interface(case: &Case<'_>) -> Interface {
    let can_iommufd = case.host.topology.has_iommufd
        && !case.asked.iter().any(Asked::lacks_cdev)
        && case.spec.peers.is_empty();
    match case.spec.interface {
        InterfaceChoice::Iommufd => Interface::Iommufd,
        InterfaceChoice::Type1 => Interface::Type1,
        InterfaceChoice::Auto if can_iommufd => Interface::Iommufd,
        InterfaceChoice::Auto => Interface::Type1,
    }
}

fn function(
    asked: &Asked<'_>,
    guest_slot: u8,
    accepted: Vec<CheckId>,
    placed: &mut impl Iterator<Item = GpaRange>,
) -> Result<Function, Report> {
    let host = asked.function;
    let (interrupts, vectors) = interrupts_of(host, asked.wish.max_vectors);
    let mut bars = [const { None }; 6];
    for (index, bar) in memory_bars(host) {
        let at = placed.next().ok_or_else(|| bug("a BAR has no place"))?;
        let place = bars.get_mut(index).ok_or_else(|| bug("a seventh BAR"))?;
        *place = Some(Bar {
            at,
            is_64bit: bar.is_64bit,
            is_prefetchable: bar.is_prefetchable,
            spans: spans(bar.len, &trapped(host, index)),
        });
    }
    let group = asked.group.ok_or_else(|| bug("a function has no group"))?;
    Ok(Function {
        bdf: host.bdf,
        path: host.path.clone(),
        guest_slot,
        group: group.0,
        binding: match host.driver.as_deref() {
            Some(VFIO_PCI) => Binding::Bound {
                cdev: host.vfio_cdev.clone(),
            },
            _ => Binding::ToBind {
                set_override: host.driver_override.as_deref() != Some(VFIO_PCI),
            },
        },
        has_reset: !host.reset_methods.is_empty(),
        vf_token: asked.wish.vf_token,
        vectors,
        interrupts,
        bars,
        accepted,
        lease: None,
    })
}

/// The BARs of memory, with their indices.
pub(super) fn memory_bars(
    function: &topology::Function,
) -> impl Iterator<Item = (usize, &topology::HostBar)> {
    let bars = function.bars.iter().enumerate();
    bars.filter_map(|(index, bar)| Some((index, bar.as_ref().filter(|bar| bar.is_memory)?)))
}

/// The interrupts of a function and how many of its vectors the guest gets.
pub(super) fn interrupts_of(function: &topology::Function, max_vectors: u32) -> (Interrupts, u32) {
    let most = max_vectors.min(u32::try_from(MAX_VECTORS).unwrap_or(0));
    match function.interrupts {
        topology::Interrupts::None | topology::Interrupts::Unknown { .. } => (Interrupts::None, 0),
        // MSI hands out powers of two.
        topology::Interrupts::Msi { vectors } => {
            let vectors = vectors.min(most).checked_ilog2().map_or(0, |log| 1 << log);
            (Interrupts::Msi, vectors)
        }
        topology::Interrupts::Msix {
            vectors,
            table_bar,
            table_offset,
            pba_bar,
            pba_offset,
        } => {
            let interrupts = Interrupts::Msix {
                entries: vectors,
                table_bar,
                table_offset,
                pba_bar,
                pba_offset,
            };
            (interrupts, vectors.min(most))
        }
    }
}

/// Offsets and lengths in BAR `index` that the guest must not reach: the whole table and all pending bits of the
/// hardware, however few vectors the guest gets.
fn trapped(function: &topology::Function, index: usize) -> Vec<(u64, u64)> {
    let topology::Interrupts::Msix {
        vectors,
        table_bar,
        table_offset,
        pba_bar,
        pba_offset,
    } = function.interrupts
    else {
        return Vec::new();
    };
    [
        (table_bar, table_offset, u64::from(vectors) * 16),
        (pba_bar, pba_offset, u64::from(vectors.div_ceil(64)) * 8),
    ]
    .into_iter()
    .filter(|(bar, _, _)| usize::from(*bar) == index)
    .map(|(_, offset, len)| (offset.into(), len))
    .collect()
}

fn no_layout(case: &Case<'_>, fault: &Fault) -> Report {
    if matches!(fault, Fault::Overlap(..)) {
        return bug(&fault.to_string());
    }
    let regions = case.asked.iter().filter_map(|asked| asked.group);
    let regions: Vec<String> = regions
        .flat_map(|(id, group)| group.reserved.iter().map(move |r| (id, r)))
        .map(|(id, region)| format!("group {} {} {}", id.0, region.kind, region.range))
        .collect();
    let report = Report::new(
        ErrorId::LayoutImpossible,
        "the guest's memory and devices find no room",
        fault.to_string(),
        "ask for less memory, smaller pages or fewer devices",
    )
    .and(format!(
        "the CPU has {} physical address bits",
        case.host.phys_bits
    ));
    match regions.is_empty() {
        true => report,
        false => report.and(format!("reserved: {}", regions.join(", "))),
    }
}

fn bug(why: &str) -> Report {
    Report::new(
        ErrorId::Bug,
        "the plan contradicts itself",
        why,
        "report this with the guest file and the output of `narrows plan`",
    )
}
