//! The scoreboard: what Narrows costs beside other VMMs, on the same work in the same run.
//!
//! `lab` starts each VMM in the lab host and `watch` counts what it does; what comes out are `record`s of `figure`s.
//! `surface` counts code. `report` turns records into tables and plots, `budget` holds counts to what was agreed.

pub mod budget;
pub mod figure;
pub mod guest;
pub mod lab;
pub mod plan;
pub mod record;
pub mod report;
pub mod surface;
pub mod vmm;
pub mod watch;

/// What the guest says by executing CPUID with a leaf that no processor has: every VMM's kernel handles it alike, without
/// an exit to user space, and KVM's trace has it.
pub mod mark {
    /// EAX.
    pub const LEAF: u32 = 0x4E52_5753;
    /// ECX at the first instruction of process 1.
    pub const INIT: u32 = 1;
    /// ECX when all works are done.
    pub const DONE: u32 = 2;
    /// ECX when something failed; the guest stops there.
    pub const FAILED: u32 = 3;
    /// ECX at the begin of the work of this index in [`WORKS`]; one more at its end.
    #[must_use]
    pub const fn begin(work: u32) -> u32 {
        0x10 + 2 * work
    }
    /// The works, by name, as `bench.do=` has them with a count: `bench.do=pause:3,config-read:1024`.
    /// A pause comes before and after each window, so that nothing of its start is in it.
    pub const WORKS: [&str; 8] = [
        "config-read", // 4-byte reads of configuration space, over all registers of the first function
        "config-write", // 4-byte writes of the same value to a register that takes it (interrupt line, 0x3C)
        "nvme-read",    // reads of 4 KiB, one at a time, past the page cache
        "nvme-write",   // writes of 4 KiB likewise
        "packets-small", // datagrams of 64 bytes sent to the host, each answered by one: units are both
        "packets-large", // of 1,400 bytes
        "idle",          // seconds of sleep
        "interrupts",    // as nvme-read; the window's interrupts are what counts
    ];
}
