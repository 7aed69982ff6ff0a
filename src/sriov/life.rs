//! The life of a VF: one state machine.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a VF is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VfState {
    /// Its PF has fewer VFs.
    Absent,
    /// It is there; nothing is known of what it did before.
    Created,
    /// It was reset and read back, and nobody had it since.
    Clean,
    /// It is a guest's that does not run yet, or not now.
    Leased,
    /// A guest runs with it.
    InUse,
    /// A guest had it.
    Dirty,
    /// Its namespaces are being erased.
    Sanitising,
    /// It failed to come back clean.
    Quarantined,
}

impl VfState {
    /// All, in the order of a life.
    pub const ALL: [Self; 8] = [
        Self::Absent,
        Self::Created,
        Self::Clean,
        Self::Leased,
        Self::InUse,
        Self::Dirty,
        Self::Sanitising,
        Self::Quarantined,
    ];
}

impl fmt::Display for VfState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "absent",
            Self::Created => "created",
            Self::Clean => "clean",
            Self::Leased => "leased",
            Self::InUse => "in use",
            Self::Dirty => "dirty",
            Self::Sanitising => "sanitising",
            Self::Quarantined => "quarantined",
        })
    }
}

/// What happens to a VF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Its PF was given VFs.
    Created,
    /// It was reset, and its registers read as after a reset.
    ResetSeen,
    /// A guest was given it.
    Leased,
    /// The guest's first instruction is next.
    Bound,
    /// The guest's processes are gone.
    Ended,
    /// It is as its pool rests, with namespaces that are still to be erased.
    RestedDirty,
    /// It is as its pool rests, with nothing to erase.
    Rested,
    /// It is as its pool rests; its guest keeps it.
    RestedKept,
    /// Its namespaces are erased.
    Erased,
    /// Something of this failed.
    Failed,
    /// The operator takes it out of quarantine.
    Freed,
    /// Its PF has fewer VFs now, or the boot is another.
    Gone,
}

impl Event {
    /// All.
    pub const ALL: [Self; 12] = [
        Self::Created,
        Self::ResetSeen,
        Self::Leased,
        Self::Bound,
        Self::Ended,
        Self::RestedDirty,
        Self::Rested,
        Self::RestedKept,
        Self::Erased,
        Self::Failed,
        Self::Freed,
        Self::Gone,
    ];
}

/// An event that cannot happen in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// The state.
    pub state: VfState,
    /// The event.
    pub event: Event,
}

/// The state after `event` in `state`.
///
/// # Errors
///
/// The event cannot happen in the state.
pub const fn next(state: VfState, event: Event) -> Result<VfState, Forbidden> {
    use Event as E;
    use VfState as S;
    match (state, event) {
        (S::Absent, E::Created) | (S::Quarantined, E::Freed) => Ok(S::Created),
        (S::Created | S::Clean, E::ResetSeen) | (S::Sanitising, E::Erased) => Ok(S::Clean),
        // A kept lease goes on.
        (S::Clean | S::Leased, E::Leased) => Ok(S::Leased),
        (S::Leased, E::Bound) => Ok(S::InUse),
        (S::Leased | S::InUse | S::Dirty, E::Ended) => Ok(S::Dirty),
        (S::Sanitising, E::Ended) => Ok(S::Sanitising),
        (S::Dirty | S::Sanitising, E::RestedDirty) => Ok(S::Sanitising),
        (S::Dirty, E::Rested) => Ok(S::Clean),
        (S::Dirty, E::RestedKept) => Ok(S::Leased),
        (S::Absent, E::Failed) => Err(Forbidden { state, event }),
        (_, E::Failed) => Ok(S::Quarantined),
        (_, E::Gone) => Ok(S::Absent),
        _ => Err(Forbidden { state, event }),
    }
}
