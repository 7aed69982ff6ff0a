//! The kernel as V and D see it: entry point, system calls, shared memory. All `unsafe` of this package lives here.
#![expect(
    unsafe_code,
    reason = "without libc, the system calls and the entry point are ours"
)]
// UNSAFETY: this folder wraps raw system calls and shared mappings; each wrapper states what its caller owes.

#[cfg(not(test))]
pub mod mem;
pub mod start;
pub mod syscall;
