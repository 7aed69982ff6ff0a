//! V: builds the guest, then runs its vCPUs and answers what they ask for outside of RAM and mapped BARs.

pub mod boot;
pub mod cpuid;
pub mod failure;
pub mod irq;
pub mod memory_map;
pub mod mmio;
pub mod ports;
pub mod registers;
pub mod run;
pub mod setup;
pub mod uart;

#[cfg(test)]
mod cpuid_test;
