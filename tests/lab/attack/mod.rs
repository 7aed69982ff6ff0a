//! Attacks from inside a guest, each with a control that shows the same attack at work where the layer is off.
//!
//! The guest is `tests/guests`: it has no kernel and does what its console says. Its hostile device is QEMU's `edu`, a
//! DMA engine that goes where it is told; where many transfers are wanted, an NVMe VF, whose data pointers do the same.
//! What came of an attack is read outside of the guest: physical memory, configuration space and registers as the lab
//! host's root sees them, the kernel's log and its counts of interrupts.

mod bare_edu;
mod config_reads;
mod config_space;
mod dma;
mod dma_end;
mod dma_host;
mod guest;
pub(crate) mod hardware;
mod interrupt_window;
mod interrupts;
mod oracle;
mod peer;
mod physical;

pub(crate) use dma::check_edges;
pub(crate) use guest::{Attacker, RESULT, SOURCE, TARGET, with_edu};
pub(crate) use oracle::assert_tables_are_the_ledger;
pub(crate) use peer::start_paired;
pub(crate) use physical::{Canary, GuestRam};
