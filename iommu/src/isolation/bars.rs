//! Checks of a function's BARs: what the guest would reach with them besides the function.

use super::{
    Check, CheckId, Verdict,
    row::{Case, Find, Found, NOT_READ, Row, attribute},
};
use crate::{
    bdf::Bdf,
    error::Blame,
    topology::{Function, HostBar, Interrupts},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        check: Check {
            id: CheckId::IoBar,
            worst: Verdict::Refuse,
            title: "it has no ports",
            why: "the guest would miss the BAR: it is never shown one in I/O space",
            remedy: "choose a device without I/O ports; VFs have none",
            sources: &["PCIe r6.0 §9.3.4 (a VF's BARs are in memory space)"],
            accepted: Some("the guest does not see the BAR"),
            blame: Blame::Device,
        },
        find: Find::Function(io_bar),
    },
    Row {
        check: Check {
            id: CheckId::BarBelowPage,
            worst: Verdict::Refuse,
            title: "its BARs are whole pages",
            why: "mapping it would map a neighbour's registers, too",
            remedy: "boot with pci=resource_alignment=12@BDF for this device, or choose another",
            sources: PAGES,
            accepted: None,
            blame: Blame::Device,
        },
        find: Find::Function(bar_below_page),
    },
    Row {
        check: Check {
            id: CheckId::BarShared,
            worst: Verdict::Refuse,
            title: "its pages hold no other BAR",
            why: "the guest could reach the registers of the other function",
            remedy: "boot with pci=resource_alignment=12@BDF for both, or choose another",
            sources: PAGES,
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Function(bar_shared),
    },
    Row {
        check: Check {
            id: CheckId::MsixOutsideBar,
            worst: Verdict::Refuse,
            title: "its MSI-X table can be kept from the guest",
            why: "the interrupt table could not be kept from the guest",
            remedy: "the device is broken or lies; choose another",
            sources: &["PCIe r6.0 §7.7.2 (MSI-X)", "XSA-337, CVE-2020-25595"],
            accepted: None,
            blame: Blame::Device,
        },
        find: Find::Function(msix_outside_bar),
    },
    Row {
        check: Check {
            id: CheckId::RomPresent,
            worst: Verdict::Fixable,
            title: "its ROM is kept from the guest",
            why: "the guest could read, or run, firmware that another user of the device has changed",
            remedy: "nothing: no guest is shown a ROM",
            sources: &["PCIe r6.0 §7.5.1.2.4 (expansion ROM)"],
            accepted: None,
            blame: Blame::Device,
        },
        find: Find::Function(rom_present),
    },
];

const PAGES: &[&str] = &[
    "XSA-461, CVE-2024-31146",
    "Documentation/admin-guide/kernel-parameters.txt, pci=resource_alignment= (Linux 6.12)",
];

/// The page of every x86 host, and of every guest.
const PAGE_BYTES: u64 = 4096;

/// Bytes of an entry of the MSI-X table, and of the pending bits of 64 entries.
const MSIX_ENTRY_BYTES: u64 = 16;
const MSIX_PENDING_BYTES: u64 = 8;

/// What is said of a function whose BARs nobody knows.
fn unread(function: &Function) -> Option<Found> {
    function.is_resource_unread.then(|| {
        Found::refuse(NOT_READ, "mount /sys; it must show where the BARs are").saw(
            attribute(function.bdf, "resource"),
            "does not exist, or is empty",
        )
    })
}

fn io_bar(case: &Case<'_>) -> Found {
    if let Some(unread) = unread(case.function) {
        return unread;
    }
    let file = attribute(case.function.bdf, "resource");
    match bars(case.function).find(|(_, bar)| !bar.is_memory) {
        None => Found::pass("none").saw(file, "no BAR in I/O space"),
        Some((index, bar)) => Found::refuse(
            format!("BAR {index}"),
            "choose a device without I/O ports; VFs have none",
        )
        .saw(
            file,
            format!(
                "BAR {index} lies in I/O space, {} at {:#x}",
                bar.len, bar.start
            ),
        ),
    }
}

fn bar_below_page(case: &Case<'_>) -> Found {
    if let Some(unread) = unread(case.function) {
        return unread;
    }
    let bdf = case.function.bdf;
    let file = attribute(bdf, "resource");
    let is_whole = |bar: &HostBar| {
        let len = bar.len.raw();
        len >= PAGE_BYTES && len.is_power_of_two() && bar.start.is_multiple_of(PAGE_BYTES)
    };
    match memory_bars(case.function).find(|(_, bar)| !is_whole(bar)) {
        None => Found::pass("whole pages").saw(
            file,
            format!("{} memory BARs", memory_bars(case.function).count()),
        ),
        Some((index, bar)) => Found::refuse(
            format!("BAR {index}"),
            format!("boot with pci=resource_alignment=12@{bdf}, or choose another device"),
        )
        .saw(
            file,
            format!(
                "BAR {index} has {} at {:#x}: not whole pages of its own",
                bar.len, bar.start
            ),
        ),
    }
}

fn bar_shared(case: &Case<'_>) -> Found {
    let function = case.function;
    let file = attribute(function.bdf, "resource");
    let neighbours = || case.topology.functions.values().flat_map(windows);
    let shared = memory_bars(function).find_map(|(index, bar)| {
        let pages = pages_of(bar)?;
        neighbours()
            .filter(|window| {
                (window.bdf, window.name.as_str())
                    != (function.bdf, format!("BAR {index}").as_str())
            })
            .find(|window| window.pages.0 < pages.1 && pages.0 < window.pages.1)
            .map(|window| (index, window))
    });
    // Of which page a neighbour's BARs are is not known either, where its file is missing.
    let mut functions = std::iter::once(function).chain(case.topology.functions.values());
    if let (None, Some(unread)) = (&shared, functions.find_map(unread)) {
        return unread;
    }
    match shared {
        None => Found::pass("no").saw(file, "no other BAR or ROM in its pages"),
        Some((index, other)) => Found::refuse(
            format!("{} {}", other.bdf, other.name),
            format!(
                "boot with pci=resource_alignment=12@{};12@{}, or choose another device",
                function.bdf, other.bdf
            ),
        )
        .saw(
            file,
            format!(
                "BAR {index} shares a page with {} of {}",
                other.name, other.bdf
            ),
        )
        .saw(
            attribute(other.bdf, "resource"),
            format!("{} at {:#x}", other.name, other.start),
        ),
    }
}

/// A BAR or ROM of memory space, with the pages it lies in: first, and one behind the last.
struct Window {
    bdf: Bdf,
    name: String,
    start: u64,
    pages: (u64, u64),
}

fn windows(function: &Function) -> impl Iterator<Item = Window> {
    let bars = memory_bars(function).map(|(index, bar)| (format!("BAR {index}"), bar));
    let rom = function.rom.iter().map(|rom| ("ROM".to_owned(), rom));
    let bdf = function.bdf;
    bars.chain(rom).filter_map(move |(name, bar)| {
        Some(Window {
            bdf,
            name,
            start: bar.start,
            pages: pages_of(bar)?,
        })
    })
}

/// `None` where the host has not placed it: it lies nowhere, and nothing lies with it.
fn pages_of(bar: &HostBar) -> Option<(u64, u64)> {
    let end = bar.start.saturating_add(bar.len.raw());
    (bar.start != 0).then(|| (bar.start / PAGE_BYTES, end.div_ceil(PAGE_BYTES)))
}

fn msix_outside_bar(case: &Case<'_>) -> Found {
    let file = attribute(case.function.bdf, "config");
    let Interrupts::Msix {
        vectors,
        table_bar,
        table_offset,
        pba_bar,
        pba_offset,
    } = case.function.interrupts
    else {
        return Found::pass("no MSI-X").saw(file, "no MSI-X capability was found");
    };
    let table_len = u64::from(vectors).saturating_mul(MSIX_ENTRY_BYTES);
    let pba_len = u64::from(vectors.div_ceil(64)).saturating_mul(MSIX_PENDING_BYTES);
    let (table, pba) = (u64::from(table_offset), u64::from(pba_offset));
    let refuse = |said: String| {
        Found::refuse("outside", "the device is broken or lies; choose another").saw(&file, said)
    };
    for (what, bar, offset, len) in [
        ("the MSI-X table", table_bar, table, table_len),
        ("the pending bits", pba_bar, pba, pba_len),
    ] {
        let room = memory_bars(case.function)
            .find(|(index, _)| *index == usize::from(bar))
            .map(|(_, bar)| bar.len.raw());
        if room.is_none_or(|room| offset.saturating_add(len) > room) {
            let bar_is = room.map_or("no memory BAR".to_owned(), |room| {
                format!("{room:#x} bytes long")
            });
            return refuse(format!(
                "{what} of {vectors} vectors would be at {offset:#x} of BAR {bar}, which is {bar_is}"
            ));
        }
    }
    let do_overlap = table_bar == pba_bar
        && table < pba.saturating_add(pba_len)
        && pba < table.saturating_add(table_len);
    if do_overlap {
        return refuse(format!(
            "its MSI-X table at {table:#x} and pending bits at {pba:#x} of BAR {table_bar} overlap"
        ));
    }
    Found::pass(format!("{vectors} vectors")).saw(
        file,
        format!(
            "table at {table:#x} of BAR {table_bar}, pending bits at {pba:#x} of BAR {pba_bar}"
        ),
    )
}

fn rom_present(case: &Case<'_>) -> Found {
    let bdf = case.function.bdf;
    match case.function.rom {
        None if case.function.is_resource_unread => Found::fixable(NOT_READ).saw(
            attribute(bdf, "resource"),
            "does not exist, or is empty; no guest is shown a ROM",
        ),
        None => Found::pass("none").saw(attribute(bdf, "resource"), "no ROM"),
        Some(rom) => Found::fixable("hidden").saw(
            attribute(bdf, "resource"),
            format!("ROM of {} at {:#x}", rom.len, rom.start),
        ),
    }
}

fn bars(function: &Function) -> impl Iterator<Item = (usize, &HostBar)> {
    let bars = function.bars.iter().enumerate();
    bars.filter_map(|(index, bar)| Some((index, bar.as_ref()?)))
}

fn memory_bars(function: &Function) -> impl Iterator<Item = (usize, &HostBar)> {
    bars(function).filter(|(_, bar)| bar.is_memory)
}
