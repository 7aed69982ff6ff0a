//! Who has a VF, and whether it was reset: of the records of this boot and this card.

use iommu::bdf::Bdf;

use super::{facts::VfFacts, life::VfState, plan::Pf, records::VfRecord};

/// Who has a VF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tenure {
    /// Nobody.
    Free,
    /// A guest that is off and keeps it: it is at rest.
    Kept(String),
    /// A guest that runs, or is about to.
    Running(String),
    /// Nobody any more, and it is not clean yet.
    Returning(String),
    /// Nobody: it failed to come back clean.
    Quarantined,
}

impl Tenure {
    /// The guest that has it, or had it last and has not left it clean.
    pub(super) fn guest(&self) -> Option<&str> {
        match self {
            Self::Kept(guest) | Self::Running(guest) | Self::Returning(guest) => Some(guest),
            Self::Free | Self::Quarantined => None,
        }
    }

    /// Whether it may be changed as if nobody ever had it.
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self, Self::Free | Self::Kept(_))
    }
}

impl<'a> Pf<'a> {
    /// Who has this VF.
    pub(super) fn tenure(&self, vf: &VfFacts) -> Tenure {
        if let Some(guest) = self.records.running.get(&vf.bdf) {
            return Tenure::Running(guest.clone());
        }
        if self.records.quarantined.contains_key(&vf.bdf) {
            return Tenure::Quarantined;
        }
        let Some(record) = self.record(vf.index, vf.bdf) else {
            return Tenure::Free;
        };
        let is_now = self.kept.is_some_and(|kept| kept.boot == self.boot);
        let guest = record.lease.as_ref().map(|lease| lease.guest.clone());
        if is_now && matches!(record.state, VfState::Dirty | VfState::Sanitising) {
            let guest = guest.unwrap_or_else(|| "a guest that has ended".to_owned());
            return Tenure::Returning(guest);
        }
        let Some((lease, guest)) = record.lease.as_ref().zip(guest) else {
            return Tenure::Free;
        };
        match &lease.run {
            Some(run) if run.boot == self.boot => Tenure::Running(guest),
            _ if lease.keep => Tenure::Kept(guest),
            // Its run is of another boot: what it had on namespaces is still to be erased.
            _ => Tenure::Returning(guest),
        }
    }

    /// Who has the VF of this index, where it is there.
    pub(super) fn tenure_of(&self, index: u32) -> Tenure {
        match self.facts.vfs.iter().find(|vf| vf.index == index) {
            Some(vf) => self.tenure(vf),
            None => Tenure::Free,
        }
    }

    /// Whether it was reset and read back since it was made, and nobody has it.
    pub(super) fn is_proven(&self, vf: &VfFacts) -> bool {
        let is_now = self.kept.is_some_and(|kept| kept.boot == self.boot);
        let record = self.record(vf.index, vf.bdf).filter(|_| is_now);
        record.is_some_and(|record| is_reset(record.state))
    }

    fn record(&self, index: u32, bdf: Bdf) -> Option<&'a VfRecord> {
        let found = self.kept?.vfs.get(&index)?;
        (found.bdf == bdf).then_some(found)
    }
}

/// Whether a VF in this state was reset since it was made, or let out of quarantine.
const fn is_reset(state: VfState) -> bool {
    !matches!(
        state,
        VfState::Absent | VfState::Created | VfState::Quarantined
    )
}
