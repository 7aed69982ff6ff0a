//! The resource limits of V and D: those that they start with, and those that they set on themselves last. Soft and hard
//! alike, so that they never rise again.

use super::Role;
use crate::{handoff::Handoff, sys::poll::MAX_WAITED};

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its number.
    pub resource: u32,
    /// Soft and hard limit, once the process is locked down.
    pub value: u64,
    /// What it is from the program's first instruction on.
    pub at_start: AtStart,
    /// Why it is what it is.
    pub why: &'static str,
}

/// A limit while a process builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtStart {
    /// What it is in the end.
    Same,
    /// This many bytes.
    Bytes(u64),
    /// As many as the process is given and makes, and not less than it is in the end.
    Descriptors,
    /// As the host has it: how much the process maps is not known before it has done so.
    Hosts,
}

impl Limit {
    /// The limit that the process starts with, `None` for the host's, where it may have so many `descriptors` then.
    #[must_use]
    pub const fn at_start(&self, descriptors: u64) -> Option<u64> {
        match self.at_start {
            AtStart::Same => Some(self.value),
            AtStart::Bytes(bytes) => Some(bytes),
            AtStart::Descriptors if descriptors < self.value => Some(self.value),
            AtStart::Descriptors => Some(descriptors),
            AtStart::Hosts => None,
        }
    }
}

/// How many there are.
pub const LIMITS: usize = 13;

/// No function calls itself, and threads have stacks of their own.
const FIRST_STACK_BYTES: u64 = 1 << 20;

/// The limits of `role` in a guest with `vcpus` vCPUs.
///
/// *Source:* `include/uapi/asm-generic/resource.h (v6.12)`.
#[must_use]
pub fn limits(role: Role, vcpus: u32) -> [Limit; LIMITS] {
    let limit = |resource, value, why| Limit {
        resource,
        value,
        at_start: AtStart::Same,
        why,
    };
    let later = |resource, value, at_start, why| Limit {
        at_start,
        ..limit(resource, value, why)
    };
    let descriptors = match role {
        Role::Vcpu => 0,
        // ppoll takes no longer list than the limit of descriptors.
        Role::Device => MAX_WAITED as u64,
    };
    [
        limit(1, 0, "FSIZE: writes to no regular file"),
        later(2, 0, AtStart::Hosts, "DATA: needs no more memory"),
        later(
            3,
            0,
            AtStart::Bytes(FIRST_STACK_BYTES),
            "STACK: every stack is as deep as it gets",
        ),
        limit(4, 0, "CORE: a core would hold the guest's memory"),
        limit(
            6,
            u64::from(tasks(role, vcpus)),
            "NPROC: its threads, and for V one of KVM's",
        ),
        later(
            7,
            descriptors,
            AtStart::Descriptors,
            "NOFILE: opens nothing; for D the longest list to wait for",
        ),
        limit(8, 0, "MEMLOCK: pins nothing"),
        later(9, 0, AtStart::Hosts, "AS: maps nothing any more"),
        limit(10, 0, "LOCKS: locks no file"),
        limit(11, 0, "SIGPENDING: queues no signal"),
        limit(12, 0, "MSGQUEUE: has no message queue"),
        limit(13, 0, "NICE: no better priority"),
        limit(14, 0, "RTPRIO: no real-time priority"),
    ]
}

/// How many tasks the kernel counts for `role` at most: its threads, and in V one that KVM starts when a vCPU first runs
/// (from 6.13 on).
#[must_use]
pub const fn tasks(role: Role, vcpus: u32) -> u32 {
    match role {
        Role::Vcpu => vcpus.saturating_add(1),
        Role::Device => DEVICE_THREADS,
    }
}

/// One that answers, and one that watches it.
const DEVICE_THREADS: u32 = 2;

/// How many threads `role` has once it is locked down.
#[must_use]
pub const fn threads(role: Role, handoff: &Handoff) -> u32 {
    match role {
        Role::Vcpu => handoff.vcpu_count,
        Role::Device => DEVICE_THREADS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_lower_at_the_start_than_in_the_end() {
        for role in [Role::Vcpu, Role::Device] {
            for limit in limits(role, 3) {
                for descriptors in [0, 9, 4096] {
                    let at_start = limit.at_start(descriptors).unwrap_or(u64::MAX);
                    assert!(at_start >= limit.value, "{role:?}: {limit:?}");
                }
            }
        }
    }

    #[test]
    fn a_long_list_of_descriptors_has_room_at_the_start() {
        let nofile = limits(Role::Device, 1)
            .into_iter()
            .find(|l| l.resource == 7);
        assert_eq!(nofile.unwrap().at_start(500), Some(500));
    }
}
