//! The users that the processes of one guest are: unique on this host for each guest and process.

use std::os::fd::BorrowedFd;

use crate::{
    error::Report,
    state::{State, UidSlot},
};

/// Which process of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// S.
    Supervisor = 0,
    /// D.
    Device = 1,
    /// V.
    Vcpu = 2,
}

impl Member {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Supervisor, Self::Device, Self::Vcpu];

    /// Its name, as of its cgroup.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Device => "device",
            Self::Vcpu => "vcpu",
        }
    }
}

/// The users of one guest. They are its own until this is dropped, and with it every copy that a process forked from this
/// one has: the supervisor, which lives on as one of them for a moment when the keeper has ended, has such a copy.
#[derive(Debug)]
pub struct Ids(UidSlot);

impl Ids {
    /// The first uid. Above it distributions give none: those of systemd's containers end right below.
    ///
    /// *Source:* `docs/UIDS-GIDS.md` (systemd 257).
    pub const FIRST: u32 = 0x7000_0000;
    /// How many each guest has, of which one is not used.
    const EACH: u32 = 4;

    /// Takes the lowest users that are free.
    ///
    /// # Errors
    /// `state-unwritable`, `too-many-guests`.
    pub fn take(state: &State) -> Result<Self, Report> {
        UidSlot::take(state).map(Self)
    }

    /// The user, and the group of the same number, of `member`.
    #[must_use]
    pub const fn id(&self, member: Member) -> u32 {
        Self::id_of(self.0.number(), member)
    }

    /// The lock that makes them this guest's.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.0.lock()
    }

    const fn id_of(slot: u32, member: Member) -> u32 {
        Self::FIRST + Self::EACH * slot + member as u32
    }
}

// None of them is the overflow user, nobody, or "no change".
const _: () = assert!(Ids::FIRST + Ids::EACH * UidSlot::COUNT < 0x7FFF_FFFF);

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;
    use crate::error::ErrorId;

    fn state(name: &str) -> State {
        let folder =
            std::env::temp_dir().join(format!("narrows-ids-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        State::new(folder)
    }

    #[test]
    fn no_two_processes_of_any_two_guests_are_the_same_user() {
        let slots = 0..UidSlot::COUNT;
        let ids = slots.flat_map(|slot| Member::ALL.map(|member| Ids::id_of(slot, member)));
        let all: BTreeSet<u32> = ids.collect();
        assert_eq!(all.len(), 3 * 4096);
    }

    #[test]
    fn the_lowest_free_users_are_taken_and_given_back() {
        let state = state("lowest");
        let one = Ids::take(&state).unwrap();
        let two = Ids::take(&state).unwrap();
        assert_eq!(one.id(Member::Supervisor), Ids::FIRST);
        assert_eq!(two.id(Member::Vcpu), Ids::FIRST + 6);
        drop(one);
        let three = Ids::take(&state).unwrap();
        assert_eq!(three.id(Member::Device), Ids::FIRST + 1);
    }

    #[test]
    fn another_folder_of_state_does_not_give_the_same_users_twice() {
        let usual = state("usual");
        let other = State::new(std::env::temp_dir().join("narrows-ids-other")).besides(
            std::env::temp_dir().join(format!("narrows-ids-usual-{}", std::process::id())),
        );
        let one = Ids::take(&usual).unwrap();
        let two = Ids::take(&other).unwrap();
        assert_ne!(one.id(Member::Vcpu), two.id(Member::Vcpu));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told() {
        let state = State::new("/proc/narrows");
        assert_eq!(Ids::take(&state).unwrap_err().id, ErrorId::StateUnwritable);
    }
}
