//! The life of VFs carried out: plans applied, leases taken and given back, namespaces erased, half-done work finished.

mod erase;
mod fault;
mod functions;
mod hands;
mod namespaces;
mod network;

pub use self::hands::KernelHands;
