//! What the harness asks for: words of the guest's command line, because V and D get nothing else.
//!
//! `narrows.probe=v:C04#12` lets V run probe C04 from try 12 on, `narrows.tries=first` ends it after one try,
//! `narrows.ablate=seccomp` leaves a layer away, and `narrows.canary-…=` names what a probe may act on.

use crate::{
    handoff::Handoff,
    manifest::{Role, layer},
};

/// The letter that stands for a process.
#[must_use]
pub const fn letter(role: Role) -> &'static str {
    match role {
        Role::Vcpu => "v",
        Role::Device => "d",
    }
}

/// The words of the command line that are `key` followed by `=` and something: what follows.
fn values<'a>(handoff: &'a Handoff, key: &'a str) -> impl Iterator<Item = &'a str> {
    let used = usize::try_from(handoff.cmdline_len).unwrap_or(0);
    let bytes = handoff.cmdline.get(..used).unwrap_or_default();
    let text = core::str::from_utf8(bytes).unwrap_or_default();
    text.split_ascii_whitespace()
        .filter_map(move |word| word.strip_prefix(key)?.strip_prefix('='))
}

/// The probe that `role` is to run, and the try to begin with.
pub(super) fn probe(handoff: &Handoff, role: Role) -> Option<(&str, usize)> {
    let asked = values(handoff, "narrows.probe")
        .find_map(|value| value.strip_prefix(letter(role))?.strip_prefix(':'))?;
    Some(match asked.split_once('#') {
        None => (asked, 0),
        Some((id, from)) => (id, number(from)?),
    })
}

/// Whether one try is enough.
pub(super) fn is_first_only(handoff: &Handoff) -> bool {
    values(handoff, "narrows.tries").any(|value| value == "first")
}

/// The layers by name, as a guest file has them.
const LAYERS: [(&str, u32); 19] = [
    ("seccomp", layer::SECCOMP),
    ("no-new-privs", layer::NO_NEW_PRIVS),
    ("capabilities", layer::CAPABILITIES),
    ("uid", layer::UID),
    ("user-namespace", layer::USER_NAMESPACE),
    ("mount-namespace", layer::MOUNT_NAMESPACE),
    ("pid-namespace", layer::PID_NAMESPACE),
    ("net-namespace", layer::NET_NAMESPACE),
    ("ipc-namespace", layer::IPC_NAMESPACE),
    ("uts-namespace", layer::UTS_NAMESPACE),
    ("cgroup-namespace", layer::CGROUP_NAMESPACE),
    ("time-namespace", layer::TIME_NAMESPACE),
    ("cgroup", layer::CGROUP),
    ("rlimits", layer::RLIMITS),
    ("not-dumpable", layer::NOT_DUMPABLE),
    ("mdwe", layer::MDWE),
    ("mseal", layer::MSEAL),
    ("landlock", layer::LANDLOCK),
    ("core-scheduling", layer::CORE_SCHEDULING),
];

/// All layers that are to be left away, as bits of [`layer`].
#[must_use]
pub fn ablated(handoff: &Handoff) -> u32 {
    LAYERS
        .iter()
        .filter(|(name, _)| is_ablated(handoff, name))
        .fold(0, |all, (_, bit)| all | bit)
}

/// Whether this layer is to be left away: `narrows.ablate=seccomp,mseal`.
#[must_use]
pub fn is_ablated(handoff: &Handoff, layer: &str) -> bool {
    values(handoff, "narrows.ablate").any(|list| list.split(',').any(|word| word == layer))
}

/// What the harness made for the probes to act on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canaries<'a> {
    /// A process of the host's.
    pub(super) pid: usize,
    /// A key of the host's.
    pub(super) key: usize,
    /// The supervisor.
    pub(super) keeper: usize,
    /// Kind and bytes of the handle of [`FILE`], in hexadecimal.
    pub(super) handle: Option<(usize, &'a str)>,
}

/// A file of the host's in its root folder, with its closing zero; others are below `/etc` and `/var/log`.
pub(super) const FILE: &str = "/breakout-canary\0";
/// An abstract socket that a host's process listens on, behind its leading zero.
pub(super) const SOCKET: &[u8] = b"narrows-breakout-canary";
/// A segment of shared memory of the host's.
pub(super) const SEGMENT: usize = 0x6E61_7277;
/// A message queue of the host's, with its closing zero.
pub(super) const QUEUE: &str = "narrows-breakout-canary\0";

impl<'a> Canaries<'a> {
    pub(super) fn of(handoff: &'a Handoff) -> Self {
        let one = |key| values(handoff, key).find_map(number).unwrap_or(0);
        let handle = values(handoff, "narrows.canary-handle").find_map(|value| {
            let (kind, bytes) = value.split_once(':')?;
            Some((number(kind)?, bytes))
        });
        Self {
            pid: one("narrows.canary-pid"),
            key: one("narrows.canary-key"),
            keeper: one("narrows.keeper-pid"),
            handle,
        }
    }
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok()
}
