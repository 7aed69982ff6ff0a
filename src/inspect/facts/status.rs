//! `/proc/PID/status` and `/proc/PID/stat`.

use std::collections::HashMap;

/// Credentials and what else `status` tells. *Source:* `proc_pid_status(5)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The parent.
    pub parent: u32,
    /// Who traces it, 0 for nobody.
    pub tracer: u32,
    /// Its ids in each pid namespace it is in, the reader's first.
    pub pids: Vec<u32>,
    /// Real, effective, saved, file system.
    pub uids: [u32; 4],
    /// The same of the group.
    pub gids: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Inheritable, permitted, effective, bounding, ambient.
    pub capabilities: [u64; 5],
    /// 1: no `exec` gains anything.
    pub no_new_privs: u32,
    /// 2: under filters.
    pub seccomp: u32,
    /// How many filters, where the kernel tells (5.9).
    pub filters: Option<u32>,
}

impl Status {
    /// `None` where a line is absent or reads otherwise.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let lines: HashMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .collect();
        let words = |name: &str| lines.get(name).map(|rest| rest.split_whitespace());
        let numbers = |name: &str| -> Option<Vec<u32>> {
            words(name)?.map(|word| word.parse().ok()).collect()
        };
        let one = |name: &str| match numbers(name)?.as_slice() {
            [number] => Some(*number),
            _ => None,
        };
        let set = |name: &str| {
            let mut words = words(name)?;
            let set = u64::from_str_radix(words.next()?, 16).ok()?;
            words.next().is_none().then_some(set)
        };
        Some(Self {
            parent: one("PPid")?,
            tracer: one("TracerPid")?,
            pids: numbers("NSpid")?,
            uids: numbers("Uid")?.try_into().ok()?,
            gids: numbers("Gid")?.try_into().ok()?,
            groups: numbers("Groups")?,
            capabilities: [
                set("CapInh")?,
                set("CapPrm")?,
                set("CapEff")?,
                set("CapBnd")?,
                set("CapAmb")?,
            ],
            no_new_privs: one("NoNewPrivs")?,
            seccomp: one("Seccomp")?,
            filters: match lines.contains_key("Seccomp_filters") {
                true => Some(one("Seccomp_filters")?),
                false => None,
            },
        })
    }
}

/// The words of `stat` behind the program's name, which may hold anything: the third field first.
fn fields(text: &str) -> Option<Vec<&str>> {
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().collect())
}

/// Field 22: when it started, in clock ticks since boot.
pub(super) fn started(text: &str) -> Option<u64> {
    fields(text)?.get(22 - 3)?.parse().ok()
}

/// Whether field 9 has the flag of a thread that the kernel made for a process and that never leaves the kernel.
///
/// *Source:* `PF_USER_WORKER`, `include/linux/sched.h` (v6.12).
pub(super) fn is_worker(text: &str) -> Option<bool> {
    const PF_USER_WORKER: u32 = 0x4000;
    let flags: u32 = fields(text)?.get(9 - 3)?.parse().ok()?;
    Some(flags & PF_USER_WORKER != 0)
}
