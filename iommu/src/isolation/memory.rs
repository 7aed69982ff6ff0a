//! Checks of where the memory of guests may end up, and how much of it may be pinned.

use super::{
    Check, CheckId, Verdict,
    row::{Find, Found, NOT_READ, Row, evidence},
};
use crate::{addr::ByteLen, error::Blame, topology::Topology};

pub(super) const ROWS: &[Row] = &[
    Row {
        check: Check {
            id: CheckId::MemlockLimit,
            worst: Verdict::Warn,
            title: "memory can be pinned without a limit",
            why: "mapping a guest's RAM could fail half-way",
            remedy: "run as root, or raise RLIMIT_MEMLOCK (LimitMEMLOCK=infinity in a unit)",
            sources: &["getrlimit(2), RLIMIT_MEMLOCK", "CVE-2019-3882"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(memlock_limit),
    },
    Row {
        check: Check {
            id: CheckId::KsmRunning,
            worst: Verdict::Warn,
            title: "memory of guests is not merged",
            why: "one guest could learn from the time of its writes what another one's memory holds",
            remedy: "echo 2 > /sys/kernel/mm/ksm/run",
            sources: &["Documentation/admin-guide/mm/ksm.rst (Linux 6.12)"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(ksm_running),
    },
    Row {
        check: Check {
            id: CheckId::SwapOn,
            worst: Verdict::Warn,
            title: "memory does not reach a disk",
            why: "what the host's processes hold of a guest could be left on a disk",
            remedy: "swapoff, or swap to an encrypted device with a key of each boot",
            sources: &["proc_swaps(5)"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(swap_on),
    },
    Row {
        check: Check {
            id: CheckId::CoreDumps,
            worst: Verdict::Warn,
            title: "crashes leave no memory behind",
            why: "a crash of the host's side of a guest could leave the guest's secrets in a file",
            remedy: "echo '|/bin/false' > /proc/sys/kernel/core_pattern",
            sources: &["core(5): a program in core_pattern is not held by RLIMIT_CORE of 0"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(core_dumps),
    },
];

fn memlock_limit(topology: &Topology) -> Found {
    const FILE: &str = "/proc/self/limits";
    let fix = "run as root, or raise RLIMIT_MEMLOCK (LimitMEMLOCK=infinity in a unit)";
    match topology.host.locked_memory_limit {
        None if !topology.host.is_locked_memory_known => {
            Found::warn(NOT_READ, fix).saw(FILE, "cannot be read, or has no Max locked memory")
        }
        None => Found::pass("none").saw(FILE, "Max locked memory: unlimited, or CAP_IPC_LOCK"),
        Some(limit) => Found::warn(ByteLen::new(limit).to_string(), fix).saw(
            FILE,
            format!("Max locked memory: {limit} bytes, unless the process has CAP_IPC_LOCK"),
        ),
    }
}

fn ksm_running(topology: &Topology) -> Found {
    const FILE: &str = "sys/kernel/mm/ksm/run";
    let file = format!("/{FILE}");
    let fix = "echo 2 > /sys/kernel/mm/ksm/run";
    match topology
        .host
        .settings
        .get(FILE)
        .map(|setting| setting.text.as_str())
    {
        None if topology.host.unread.contains(FILE) => {
            Found::warn(NOT_READ, fix).saw(file, "cannot be read")
        }
        // CONFIG_KSM makes the file.
        None => Found::pass("not built").saw(file, "does not exist"),
        // 0 keeps what is merged already, 2 undoes it.
        Some(text @ ("0" | "2")) => Found::pass("off").saw(file, text),
        Some(text) => Found::warn("on", fix).saw(file, text),
    }
}

fn swap_on(topology: &Topology) -> Found {
    const FILE: &str = "proc/swaps";
    let file = format!("/{FILE}");
    let Some(setting) = topology.host.settings.get(FILE) else {
        // CONFIG_SWAP makes the file.
        return match topology.host.unread.contains(FILE) {
            true => Found::warn(NOT_READ, "mount /proc").saw(file, "cannot be read"),
            false => Found::pass("not built").saw(file, "does not exist"),
        };
    };
    // The first line names the columns.
    let areas: Vec<&str> = setting
        .text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    match areas.is_empty() {
        true => Found::pass("none").saw(file, "no area"),
        false => Found::warn(
            format!("{} areas", areas.len()),
            format!(
                "swapoff {}, or make it encrypted with a key of each boot",
                areas.join(" ")
            ),
        )
        .saw_all(areas.iter().map(|area| evidence(&file, *area))),
    }
}

fn core_dumps(topology: &Topology) -> Found {
    const FILE: &str = "proc/sys/kernel/core_pattern";
    let file = format!("/{FILE}");
    let fix = "echo '|/bin/false' > /proc/sys/kernel/core_pattern, or have the program drop dumps of guests";
    let Some(setting) = topology.host.settings.get(FILE) else {
        return Found::warn(NOT_READ, fix).saw(file, "cannot be read");
    };
    let text = setting.text.as_str();
    match text.strip_prefix('|').map(str::trim) {
        None => Found::pass("to a file, within RLIMIT_CORE").saw(file, text),
        Some("/bin/false" | "/bin/true" | "/usr/bin/false" | "/usr/bin/true") => {
            Found::pass("dropped").saw(file, text)
        }
        Some(_) => Found::warn("to a program", fix).saw(file, text),
    }
}
