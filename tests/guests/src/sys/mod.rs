//! What the guest does to its machine: entry, ports, memory, processor registers.
//!
//! UNSAFETY: a kernel has nobody below it to ask. It runs on one processor, with every address below 512 GiB mapped to
//! itself; the modules give out functions that cannot harm the guest's own code and data, whatever they do to the machine.
#![expect(unsafe_code, reason = "without a kernel below, the machine is ours")]

mod entry;
#[path = "../../../../src/jailed/bin/freestanding/mem.rs"]
mod mem;
pub mod memory;
pub mod port;
pub mod processor;
pub mod state;
