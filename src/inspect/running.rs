//! What is written of a guest that runs, so that its manifest can be made again.

use std::fmt::Write as _;

use jailed::{handoff::Handoff, manifest::Role as Jailed};
use serde::{Deserialize, Serialize};

use super::{
    Subject,
    expected::{Expected, Place, Role},
    facts::{Known, Proc, Unread},
};
use crate::sys::map::{handoff_facts, handoff_of};

/// The version of the record. One of another version is refused.
const VERSION: u32 = 2;

/// A guest that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RunningGuest {
    version: u32,
    /// Its name.
    pub guest: String,
    /// The keeper, whose namespaces are the host's.
    pub keeper: u32,
    /// The functions it has.
    pub functions: Vec<String>,
    /// Its processes.
    pub processes: Vec<RunningProcess>,
    /// What V and D were told, in hexadecimal.
    handoff: String,
}

/// One of its processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RunningProcess {
    /// Which.
    pub role: Role,
    /// Its id.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
    /// Where and as whom it runs.
    pub place: Place,
}

impl RunningProcess {
    /// The process `pid` as it runs now.
    ///
    /// # Errors
    /// The file that could not be read.
    pub fn now(proc: &Proc, role: Role, pid: u32, place: Place) -> Known<Self> {
        let started = proc.started(pid)?;
        Ok(Self {
            role,
            pid,
            started,
            place,
        })
    }
}

impl RunningGuest {
    /// A guest that begins to run.
    #[must_use]
    pub fn new(
        guest: &str,
        keeper: u32,
        functions: Vec<String>,
        processes: Vec<RunningProcess>,
        handoff: &Handoff,
    ) -> Self {
        let mut hex = String::new();
        for byte in handoff_facts(handoff) {
            // Writing to a string does not fail.
            write!(hex, "{byte:02x}").ok();
        }
        Self {
            version: VERSION,
            guest: guest.to_owned(),
            keeper,
            functions,
            processes,
            handoff: hex,
        }
    }

    /// The same without what is gone when the guest runs: the keeper's own descriptors of what it gave away for good.
    #[must_use]
    pub fn kept(mut self) -> Self {
        let places = self.processes.iter_mut().map(|process| &mut process.place);
        for given in places.flat_map(|place| &mut place.given) {
            given.keepers = given.keepers.filter(|_| given.is_kept);
        }
        self
    }

    /// The handoff; `None` where the record is none of this version.
    #[must_use]
    pub fn handoff(&self) -> Option<Box<Handoff>> {
        if self.version != VERSION {
            return None;
        }
        let digit = |c: u8| {
            char::from(c)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        };
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = self.handoff.as_bytes().chunks(2).map(byte).collect();
        handoff_of(&bytes?)
    }

    /// The processes with what they are meant to be.
    #[must_use]
    pub fn subjects(&self, handoff: &Handoff) -> Vec<Subject> {
        let subject = |process: &RunningProcess| {
            let place = process.place.clone();
            Subject {
                pid: process.pid,
                expected: match process.role {
                    Role::Vcpu => Expected::jailed(Jailed::Vcpu, handoff, place),
                    Role::Device => Expected::jailed(Jailed::Device, handoff, place),
                    Role::Supervisor => Expected::supervisor(place),
                },
            }
        };
        self.processes.iter().map(subject).collect()
    }

    /// Why this is not the guest that runs now: a process is gone, or its id is another one's.
    ///
    /// # Errors
    /// What was found in place of a process.
    pub fn check_alive(&self, proc: &Proc) -> Known<()> {
        for RunningProcess {
            role, pid, started, ..
        } in &self.processes
        {
            let now = proc.started(*pid)?;
            if now != *started {
                return Err(Unread {
                    source: format!("process {pid}"),
                    why: format!(
                        "it is not the {} of this guest but a later process, started at tick {now} and not {started}",
                        role.name()
                    ),
                });
            }
        }
        Ok(())
    }
}
