//! The kernel as V and D see it: system calls, shared memory. All `unsafe` of the library lives here.
#![expect(unsafe_code, reason = "without libc, the system calls are ours")]
// UNSAFETY: this folder wraps raw system calls and shared mappings; each wrapper states what its caller owes.

pub mod file;
pub mod futex;
pub mod image;
pub mod kvm;
pub mod kvm_abi;
pub mod kvm_kept;
pub mod kvm_vcpu;
pub mod landlock;
pub mod lock;
pub mod memory;
pub mod poll;
pub mod shared;
pub mod spin;
pub mod syscall;
pub mod thread;
pub mod vfio;

#[cfg(test)]
mod kvm_abi_test;
#[cfg(test)]
mod kvm_test;
