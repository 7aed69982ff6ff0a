//! What `rustix` does not give safely: spawning into a jail with an exact list of descriptors, splitting the process,
//! shared mappings, signals as a file, the filters of other threads, commands to `NVMe` controllers.
//!
//! UNSAFETY: raw mappings, `fork`, `clone3` with what follows it up to `exec`, `signalfd`, `ptrace` and one `ioctl`; each
//! function states what it relies on. Nothing else in this package is unsafe.
#![expect(
    unsafe_code,
    reason = "mappings, fork, clone3, signalfd, ptrace and ioctl have no safe interface"
)]

pub mod audit;
pub mod child;
pub mod confine;
pub mod crash;
#[cfg(test)]
pub(crate) mod filtered;
pub mod fork;
pub mod landlock;
pub mod listen;
pub mod map;
pub mod nvme;
pub mod offers;
pub mod peer;
pub mod ptrace;
pub mod rtnl;
pub mod same;
pub mod signals;
pub mod spawn;
pub mod start;
pub mod thrift;
