//! Every figure that a record may hold: its name, unit and meaning. Less is better for all but the ones that say so.

use crate::record::Case;

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its key in a record.
    pub name: &'static str,
    /// The cases whose records have it.
    pub cases: &'static [Case],
    /// `KiB`, `count`, `ns`, `bytes`, `lines` or `1/min`.
    pub unit: &'static str,
    /// The row's title in a table.
    pub title: &'static str,
}

const fn row(
    name: &'static str,
    cases: &'static [Case],
    unit: &'static str,
    title: &'static str,
) -> Figure {
    Figure {
        name,
        cases,
        unit,
        title,
    }
}

use Case::{Calls, Code, Instructions, Life, Mapping, Start, Steady, Surface};

/// All of them. A VMM is all of its processes.
#[rustfmt::skip]
pub const FIGURES: &[Figure] = &[
    // At the guest's first instruction in user space.
    row("rss_kib", &[Start], "KiB", "resident outside guest RAM"),
    row("pss_kib", &[Start], "KiB", "proportional share of that"),
    row("anonymous_kib", &[Start], "KiB", "of it anonymous or dirty: what no other guest shares"),
    row("page_tables_kib", &[Start], "KiB", "page tables of its processes"),
    row("processes", &[Start], "count", "processes"),
    row("threads", &[Start], "count", "threads"),
    row("fds", &[Start], "count", "descriptors"),
    row("memory_slots", &[Start], "count", "KVM memory slots in use"),
    row("exits", &[Start, Steady], "count", "exits in all"),
    row("user_exits", &[Start, Steady], "count", "exits to user space"),
    row("console_bytes", &[Start], "count", "bytes that the guest wrote to its serial port"),
    // Of the process tree, from exec on.
    row("calls_to_entry", &[Calls], "count", "system calls from exec to the guest's first instruction"),
    row("calls_to_init", &[Calls], "count", "system calls from exec to the guest's first instruction in user space"),
    row("different_calls_after_entry", &[Calls], "count", "different system calls made after the guest's first instruction"),
    // Of a host whose clock advances by one nanosecond an instruction: instructions of host, VMM and guest.
    row("entry_ns", &[Instructions, Mapping], "ns", "from exec to the guest's first instruction"),
    row("init_ns", &[Instructions], "ns", "from exec to the guest's first instruction in user space"),
    row("entry_busy_ns", &[Instructions], "ns", "from exec to the guest's first instruction, without the time in which the host was idle"),
    row("init_busy_ns", &[Instructions], "ns", "from exec to the guest's first instruction in user space, without the time in which the host was idle"),
    // Of guest RAM.
    row("map_calls", &[Mapping], "count", "calls that map memory for devices"),
    row("map_ns", &[Mapping], "ns", "time in these calls"),
    row("present_ns", &[Mapping], "ns", "from exec until the last of them has returned"),
    row("zero_ns", &[Mapping], "ns", "time to make as much memory of the same kind present once, by one thread: the limit"),
    // Of a window of `units` units of the work.
    row("units", &[Steady], "count", "units of the work: registers, commands or packets"),
    row("calls", &[Steady], "count", "system calls besides KVM_RUN"),
    row("kvm_run_calls", &[Steady], "count", "calls of KVM_RUN"),
    row("interrupts", &[Steady], "count", "interrupts injected"),
    // Of starts and stops.
    row("cycles_per_minute", &[Life], "1/min", "starts and stops in a minute, one after another (more is better)"),
    row("start_ns", &[Life], "ns", "from exec to the tiny guest's first mark"),
    row("stop_ns", &[Life], "ns", "from SIGTERM until no process is left"),
    // What it may do, read from the filters of its running threads.
    row("allowed_calls", &[Surface], "count", "system calls that some thread may make (all numbers where a thread has no filter)"),
    row("allowed_calls_vcpu", &[Surface], "count", "system calls that the thread which runs the guest may make"),
    row("allowed_calls_device", &[Surface], "count", "of Narrows: system calls that the process with the devices may make"),
    row("allowed_calls_supervisor", &[Surface], "count", "of Narrows: system calls that the process which watches may make"),
    row("unfiltered_threads", &[Surface], "count", "threads without a filter"),
    row("capabilities", &[Surface], "count", "capabilities of the process that runs the guest"),
    // What it consists of.
    row("binary_bytes", &[Code], "bytes", "size of its stripped programs"),
    row("library_bytes", &[Code], "bytes", "size of the shared libraries they load"),
    row("libraries", &[Code], "count", "shared libraries that they load"),
    row("dependencies", &[Code], "count", "crates that they are built of, besides their own"),
    row("guest_reachable_lines", &[Code], "lines", "lines of code that a guest reaches, without tests, comments and blank lines"),
    row("unsafe_blocks", &[Code], "count", "`unsafe` blocks"),
];

/// The figure of this name.
#[must_use]
pub fn figure(name: &str) -> Option<&'static Figure> {
    FIGURES.iter().find(|figure| figure.name == name)
}
