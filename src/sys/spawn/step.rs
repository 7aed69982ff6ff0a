//! What happens between the order and the program's first instruction, in words.

/// What happens between the order and the program's first instruction, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "the words of the table below say what each is")]
pub enum Step {
    Prepare = 1,
    Clone,
    Descriptors,
    Signals,
    Session,
    CgroupNamespace,
    MountNamespace,
    EmptyRoot,
    NetNamespace,
    IpcNamespace,
    UtsNamespace,
    HostName,
    Groups,
    UserNamespace,
    UserMap,
    User,
    Keyring,
    Personality,
    BoundingSet,
    SecureBits,
    Capabilities,
    NoNewPrivileges,
    Limits,
    DeathSignal,
    ParentGone,
    Exec,
}

const WORDS: [(Step, &str); 26] = [
    (Step::Prepare, "making the socket for the steps"),
    (
        Step::Clone,
        "clone3 with new pid (and time) namespaces into the cgroup",
    ),
    (Step::Descriptors, "placing descriptors"),
    (Step::Signals, "resetting signals"),
    (Step::Session, "setsid"),
    (Step::CgroupNamespace, "unshare of the cgroup namespace"),
    (Step::MountNamespace, "unshare of the mount namespace"),
    (Step::EmptyRoot, "exchanging the root for an empty one"),
    (Step::NetNamespace, "unshare of the network namespace"),
    (Step::IpcNamespace, "unshare of the IPC namespace"),
    (Step::UtsNamespace, "unshare of the UTS namespace"),
    (Step::HostName, "setting host and domain name"),
    (Step::Groups, "setgroups"),
    (Step::UserNamespace, "unshare of the user namespace"),
    (Step::UserMap, "writing uid_map and gid_map"),
    (Step::User, "setresgid and setresuid"),
    (Step::Keyring, "joining a new session keyring"),
    (Step::Personality, "personality"),
    (
        Step::BoundingSet,
        "emptying the bounding set of capabilities",
    ),
    (Step::SecureBits, "locking the securebits"),
    (Step::Capabilities, "giving up all capabilities"),
    (Step::NoNewPrivileges, "no_new_privs"),
    (Step::Limits, "setting limits"),
    (Step::DeathSignal, "asking to die with the parent"),
    (Step::ParentGone, "looking for the parent, which has gone"),
    (Step::Exec, "execveat"),
];

impl Step {
    /// What is being done, for a message.
    #[must_use]
    pub fn words(self) -> &'static str {
        let row = WORDS.iter().find(|(step, _)| *step == self);
        row.map_or("a step without a name", |(_, words)| words)
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        let row = WORDS.iter().find(|(step, _)| *step as u32 == number);
        row.map(|(step, _)| *step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_row_at_its_place() {
        for (index, (step, _)) in WORDS.iter().enumerate() {
            assert_eq!(*step as usize, index + 1, "{step:?}");
            assert_eq!(Step::from_number(*step as u32), Some(*step));
        }
        assert_eq!(WORDS.len(), Step::Exec as usize);
        assert_eq!(Step::from_number(super::super::ASKS_FOR_MAP), None);
    }
}
