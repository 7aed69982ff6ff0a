//! The resource limits that a process sets on itself last: soft and hard alike, so that they never rise again.

use super::Role;
use crate::{handoff::Handoff, sys::poll::MAX_WAITED};

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its number.
    pub resource: u32,
    /// Soft and hard limit.
    pub value: u64,
    /// Why it is what it is.
    pub why: &'static str,
}

/// How many there are.
pub const LIMITS: usize = 13;

/// The limits of `role`.
///
/// *Source:* `include/uapi/asm-generic/resource.h (v6.12)`.
#[must_use]
pub fn limits(role: Role, handoff: &Handoff) -> [Limit; LIMITS] {
    let limit = |resource, value, why| Limit {
        resource,
        value,
        why,
    };
    let (tasks, descriptors) = match role {
        // From 6.13 on, KVM starts a thread of its own in the process when a vCPU first runs.
        Role::Vcpu => (threads(role, handoff).saturating_add(1), 0),
        // ppoll takes no longer list than the limit of descriptors.
        Role::Device => (threads(role, handoff), MAX_WAITED as u64),
    };
    [
        limit(1, 0, "FSIZE: writes to no regular file"),
        limit(2, 0, "DATA: needs no more memory"),
        limit(3, 0, "STACK: every stack is as deep as it gets"),
        limit(4, 0, "CORE: a core would hold the guest's memory"),
        limit(
            6,
            u64::from(tasks),
            "NPROC: its threads, and for V one of KVM's",
        ),
        limit(
            7,
            descriptors,
            "NOFILE: opens nothing; for D the longest list to wait for",
        ),
        limit(8, 0, "MEMLOCK: pins nothing"),
        limit(9, 0, "AS: maps nothing any more"),
        limit(10, 0, "LOCKS: locks no file"),
        limit(11, 0, "SIGPENDING: queues no signal"),
        limit(12, 0, "MSGQUEUE: has no message queue"),
        limit(13, 0, "NICE: no better priority"),
        limit(14, 0, "RTPRIO: no real-time priority"),
    ]
}

/// How many threads `role` has once it is locked down.
#[must_use]
pub const fn threads(role: Role, handoff: &Handoff) -> u32 {
    match role {
        Role::Vcpu => handoff.vcpu_count,
        Role::Device => 2,
    }
}
