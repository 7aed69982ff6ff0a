//! What `rustix` does not give safely: spawning with an exact list of descriptors, shared mappings, signals as a file,
//! splitting the process.
//!
//! UNSAFETY: raw mappings, `fork`, `pre_exec` and `signalfd`; each function states what it relies on. Nothing else in this
//! package is unsafe.
#![expect(
    unsafe_code,
    reason = "mappings, fork, pre_exec and signalfd have no safe interface"
)]

pub mod fork;
pub mod map;
pub mod signals;
pub mod spawn;
pub mod start;
