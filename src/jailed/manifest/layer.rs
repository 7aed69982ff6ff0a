//! The layers around V and D by number: bits of [`crate::handoff::Handoff::layers_absent`] and of the start page.

/// A filter on system calls.
pub const SECCOMP: u32 = 1 << 0;
/// No gain of privilege by `exec`.
pub const NO_NEW_PRIVS: u32 = 1 << 1;
/// No capability in any set.
pub const CAPABILITIES: u32 = 1 << 2;
/// A user and group of its own.
pub const UID: u32 = 1 << 3;
/// A user namespace of its own.
pub const USER_NAMESPACE: u32 = 1 << 4;
/// A mount namespace with an empty root.
pub const MOUNT_NAMESPACE: u32 = 1 << 5;
/// A process id namespace of its own.
pub const PID_NAMESPACE: u32 = 1 << 6;
/// A network namespace without an interface.
pub const NET_NAMESPACE: u32 = 1 << 7;
/// An IPC namespace of its own.
pub const IPC_NAMESPACE: u32 = 1 << 8;
/// A host name of its own.
pub const UTS_NAMESPACE: u32 = 1 << 9;
/// A cgroup namespace of its own.
pub const CGROUP_NAMESPACE: u32 = 1 << 10;
/// A time namespace of its own.
pub const TIME_NAMESPACE: u32 = 1 << 11;
/// A control group with limits.
pub const CGROUP: u32 = 1 << 12;
/// Resource limits ([`super::limits()`]).
pub const RLIMITS: u32 = 1 << 13;
/// Not to be traced or read by processes of the same user.
pub const NOT_DUMPABLE: u32 = 1 << 14;
/// Memory that was writable never becomes executable.
pub const MDWE: u32 = 1 << 15;
/// Mappings that cannot be changed or replaced any more.
pub const MSEAL: u32 = 1 << 16;
/// Landlock: no file, no TCP port, no signal and no abstract socket outside.
pub const LANDLOCK: u32 = 1 << 17;
/// No other user's thread on the same core.
pub const CORE_SCHEDULING: u32 = 1 << 18;

/// What V and D put around themselves; the rest is there before they start.
pub const OWN: u32 = SECCOMP | NO_NEW_PRIVS | RLIMITS | NOT_DUMPABLE | MDWE | MSEAL | LANDLOCK;

/// What no kernel that runs Narrows lacks, and no guest file can do without.
pub const ALWAYS: u32 = SECCOMP | NO_NEW_PRIVS | RLIMITS | NOT_DUMPABLE;
