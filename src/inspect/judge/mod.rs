//! Facts against what is meant to be, topic by topic. What could not be read is a mismatch.

pub(in crate::inspect) mod calls;
mod credentials;
mod descriptors;
mod holdings;
mod limits;
mod places;

use jailed::manifest::layer;
use serde::{Deserialize, Serialize};

use super::{
    compare::Comparison,
    expected::{Expected, Role},
    facts::{Facts, Known, Unread},
    filter::Live,
};

/// How a topic stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it is meant to be, read from the kernel.
    On,
    /// As the process itself said: the kernel tells nobody else.
    Told,
    /// This kernel lacks it, and the operator does without.
    Absent,
    /// Nothing is asked of this process under this topic: what was read is told, and no more is claimed.
    NotAsked,
    /// Not as it is meant to be.
    Mismatch,
}

/// What was found of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The topic: a layer of the sandbox, or what else is asked.
    pub id: String,
    /// How it stands.
    pub state: State,
    /// What was read, in a few words; empty where it does not match.
    pub evidence: String,
    /// What is not as it is meant to be.
    pub mismatches: Vec<String>,
}

/// A process with what it is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<'a> {
    /// What files told.
    pub(super) facts: &'a Facts,
    /// What calls told.
    pub(super) live: &'a Live,
    /// What its filters do, held against its rules.
    pub(super) comparisons: &'a Known<Vec<(u32, Comparison)>>,
    /// What it is meant to be.
    pub(super) expected: &'a Expected,
    /// Namespaces of others, none of which it may share: whose they are, and their numbers.
    pub(super) others: &'a [(String, Vec<Known<u64>>)],
    /// The cookie of the other process of the same guest, which it has to share; `None` where there is none to compare.
    pub(super) partner_cookie: Option<&'a Known<Option<u64>>>,
    /// The version of Landlock that the kernel offers.
    pub(super) landlock_offered: &'a Known<u32>,
    /// The thread that reads, which stops what it reads by tracing it.
    pub(super) reader: u32,
}

/// Behind the layers of [`jailed::manifest::layer`]: that live filters can be read, which no process does itself.
const FILTER_READABLE: u32 = layer::CORE_SCHEDULING << 1;

/// What a topic's reading comes to: its evidence, and what does not match.
type Answer = (String, Vec<String>);

/// Of whom a topic is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Of V, D and S.
    All,
    /// Not of an S that a service manager has put where it is.
    Jailed,
    /// Of V and D.
    Guests,
    /// Of who is meant to have a namespace of its own of this name.
    Namespace(&'static str),
}

impl Asked {
    fn of(self, expected: &Expected) -> bool {
        match self {
            Self::All => true,
            Self::Jailed => !expected.is_service(),
            Self::Guests => expected.role != Role::Supervisor,
            Self::Namespace(name) => expected.namespaces.contains(&name),
        }
    }
}

/// One topic.
#[derive(Clone, Copy)]
struct Topic {
    id: &'static str,
    /// The layer by whose absence it is excused, 0 where nothing excuses it.
    layer: u32,
    /// Whether only the process itself knows.
    is_told: bool,
    asked: Asked,
    read: fn(&Look<'_>) -> Answer,
}

const fn topic(id: &'static str, layer: u32, read: fn(&Look<'_>) -> Answer) -> Topic {
    Topic {
        id,
        layer,
        is_told: false,
        asked: Asked::All,
        read,
    }
}

const fn of(asked: Asked, topic: Topic) -> Topic {
    Topic { asked, ..topic }
}

const fn namespace(
    name: &'static str,
    id: &'static str,
    layer: u32,
    read: fn(&Look<'_>) -> Answer,
) -> Topic {
    of(Asked::Namespace(name), topic(id, layer, read))
}

/// All topics, in the order in which they are told.
const TOPICS: &[Topic] = &[
    topic("seccomp", layer::SECCOMP, calls::filters),
    topic("system-calls", FILTER_READABLE, calls::system_calls),
    topic(
        "no-new-privs",
        layer::NO_NEW_PRIVS,
        credentials::no_new_privs,
    ),
    topic(
        "capabilities",
        layer::CAPABILITIES,
        credentials::capabilities,
    ),
    topic("uid", layer::UID, credentials::uid),
    namespace(
        "user",
        "user-namespace",
        layer::USER_NAMESPACE,
        places::user_namespace,
    ),
    namespace(
        "mnt",
        "mount-namespace",
        layer::MOUNT_NAMESPACE,
        places::mount_namespace,
    ),
    namespace(
        "pid",
        "pid-namespace",
        layer::PID_NAMESPACE,
        places::pid_namespace,
    ),
    namespace("net", "net-namespace", layer::NET_NAMESPACE, |look| {
        places::namespace(look, "net")
    }),
    namespace("ipc", "ipc-namespace", layer::IPC_NAMESPACE, |look| {
        places::namespace(look, "ipc")
    }),
    namespace("uts", "uts-namespace", layer::UTS_NAMESPACE, |look| {
        places::namespace(look, "uts")
    }),
    namespace(
        "cgroup",
        "cgroup-namespace",
        layer::CGROUP_NAMESPACE,
        |look| places::namespace(look, "cgroup"),
    ),
    namespace("time", "time-namespace", layer::TIME_NAMESPACE, |look| {
        places::namespace(look, "time")
    }),
    of(
        Asked::Jailed,
        topic("cgroup", layer::CGROUP, places::cgroup),
    ),
    of(
        Asked::Jailed,
        topic("cgroup-limits", layer::CGROUP, limits::of_cgroup),
    ),
    of(
        Asked::Jailed,
        topic("rlimits", layer::RLIMITS, limits::of_process),
    ),
    of(
        Asked::Jailed,
        topic(
            "not-dumpable",
            layer::NOT_DUMPABLE,
            credentials::not_dumpable,
        ),
    ),
    Topic {
        is_told: true,
        asked: Asked::Jailed,
        ..topic("mdwe", layer::MDWE, |look| told(look, layer::MDWE))
    },
    of(Asked::Guests, topic("mseal", layer::MSEAL, holdings::seals)),
    Topic {
        is_told: true,
        asked: Asked::Jailed,
        ..topic("landlock", layer::LANDLOCK, landlock)
    },
    of(
        Asked::Guests,
        topic(
            "core-scheduling",
            layer::CORE_SCHEDULING,
            calls::core_scheduling,
        ),
    ),
    topic("descriptors", 0, descriptors::descriptors),
    topic("mappings", 0, holdings::mappings),
    topic("threads", 0, holdings::threads),
    topic("relations", 0, credentials::relations),
];

/// Judges every topic.
#[must_use]
pub(super) fn judge(look: &Look<'_>) -> Vec<Finding> {
    TOPICS
        .iter()
        .map(|topic| judge_topic(topic, look))
        .collect()
}

fn judge_topic(topic: &Topic, look: &Look<'_>) -> Finding {
    let (evidence, mismatches) = (topic.read)(look);
    let is_excused = look.expected.place.layers_absent & topic.layer != 0;
    let is_asked = topic.asked.of(look.expected);
    let state = match (mismatches.is_empty(), is_excused) {
        _ if !is_asked => State::NotAsked,
        (false, true) => State::Absent,
        (false, false) => State::Mismatch,
        (true, _) if topic.is_told => State::Told,
        (true, _) => State::On,
    };
    Finding {
        id: topic.id.to_owned(),
        state,
        evidence: match state {
            // What would be told of a match is not known to be so.
            State::NotAsked if mismatches.is_empty() => evidence,
            State::NotAsked | State::Absent => mismatches.join("; "),
            State::On | State::Told => evidence,
            // It speaks of what is meant to be.
            State::Mismatch => String::new(),
        },
        mismatches: match state {
            State::Mismatch => mismatches,
            State::On | State::Told | State::Absent | State::NotAsked => Vec::new(),
        },
    }
}

/// A layer that only the process itself knows of.
fn told(look: &Look<'_>, layer: u32) -> Answer {
    if look.expected.place.layers_told & layer != 0 {
        (
            match look.expected.role {
                Role::Supervisor => "it said that it is in its jail, of which this is a part",
                Role::Device | Role::Vcpu => "the process said so when it locked itself down",
            }
            .to_owned(),
            Vec::new(),
        )
    } else {
        let said = "the process did not say that it is on";
        (String::new(), vec![said.to_owned()])
    }
}

/// Landlock as the process said, and in the version that this kernel offers: no less is in force.
fn landlock(look: &Look<'_>) -> Answer {
    let (evidence, mut mismatches) = told(look, layer::LANDLOCK);
    let own = look.expected.place.landlock;
    match look.landlock_offered {
        // Asked of the same kernel, by the process and now.
        Ok(offered) if mismatches.is_empty() && *offered != own => mismatches.push(format!(
            "the process said that it is under version {own}; this kernel offers {offered}"
        )),
        Ok(_) => {}
        Err(fact) => mismatches.extend(unread(fact).1),
    }
    (
        format!("{evidence}: version {own}, which is what this kernel offers"),
        mismatches,
    )
}

/// What is told of a fact that could not be read.
fn unread(fact: &Unread) -> Answer {
    let Unread { source, why } = fact;
    let said = format!("cannot be read: {source}: {why}");
    ("not known".to_owned(), vec![said])
}

/// Collects what does not match.
#[derive(Default)]
struct Mismatches(Vec<String>);

impl Mismatches {
    /// Notes `what()` unless `holds`.
    fn unless(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }
}

#[cfg(test)]
mod changes_test;
#[cfg(test)]
mod judge_test;
#[cfg(test)]
mod sound_test;
#[cfg(test)]
mod supervisor_test;
