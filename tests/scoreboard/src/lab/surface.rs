//! What a running VMM may do: read from the live filters and the state of its threads.

use std::{collections::BTreeSet, fs, io, mem, process::Command};

use narrows::inspect::reachable_calls;
use serde_json::Value;

use super::{Bench, start, window};
use crate::{
    record::{Case, Record},
    vmm::Vmm,
    watch::{calls, processes},
};

/// The hardened peers: of them nothing else is of interest.
pub(super) fn run(bench: &mut Bench) -> io::Result<()> {
    let hardened = mem::take(&mut bench.hardened);
    let others = mem::replace(&mut bench.vmms, hardened);
    let done = bench.all(Case::Surface, "surface", |bench, vmm, shape, run| {
        let (_, record) = start::start(bench, vmm, shape, run)?;
        bench.put(&record)
    });
    bench.hardened = mem::replace(&mut bench.vmms, others);
    done
}

/// What the threads of `pids` may do, of which `vcpu` runs the guest.
pub(super) fn may(
    vmm: &dyn Vmm,
    pids: &BTreeSet<u32>,
    vcpu: u32,
    record: &mut Record,
) -> io::Result<()> {
    let is_ours = vmm.name() == "narrows";
    let (mut unfiltered, mut capabilities) = (0, 0);
    let (mut all, mut of_vcpu) = (BTreeSet::new(), None);
    for pid in pids {
        let threads = processes::threads(*pid)?;
        unfiltered += threads.iter().filter(|thread| !thread.is_filtered).count() as u64;
        if runs_guest(*pid)? {
            let most = threads
                .iter()
                .map(|thread| thread.capabilities.count_ones())
                .max();
            capabilities = capabilities.max(u64::from(most.unwrap_or(0)));
        }
        for thread in threads {
            if is_ours || !thread.is_filtered {
                continue;
            }
            let mut reachable = reachable_calls(*pid, thread.tid)?;
            reachable.retain(|number| calls::is_given(*number));
            if thread.tid == vcpu {
                of_vcpu = Some(reachable.len() as u64);
            }
            all.append(&mut reachable);
        }
    }
    window::put(record, "unfiltered_threads", unfiltered);
    window::put(record, "capabilities", capabilities);
    let given = calls::count_given();
    let all = if unfiltered > 0 {
        given
    } else {
        all.len() as u64
    };
    if is_ours {
        for (role, count) in reachable()? {
            window::put(record, &format!("allowed_calls_{role}"), count);
        }
    } else {
        window::put(record, "allowed_calls_vcpu", of_vcpu.unwrap_or(given));
    }
    // Of Narrows the parts are known and not the whole, but where a thread has no filter at all.
    if unfiltered > 0 || !is_ours {
        window::put(record, "allowed_calls", all);
    }
    Ok(())
}

/// Whether a process has a vCPU.
fn runs_guest(pid: u32) -> io::Result<bool> {
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor may be closed meanwhile.
        let Ok(link) = fs::read_link(entry?.path()) else {
            continue;
        };
        if link.to_string_lossy().contains("kvm-vcpu") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many system calls each process of Narrows can make, as its own inspection reads it from the live filters.
fn reachable() -> io::Result<Vec<(String, u64)>> {
    let output = Command::new("narrows")
        .args(["inspect", "scoreboard", "--json"])
        .output()?;
    let wrong = |what: &str| {
        io::Error::other(format!(
            "narrows inspect: {what}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    };
    let record: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| wrong(&error.to_string()))?;
    let processes = record
        .get("processes")
        .and_then(Value::as_array)
        .ok_or_else(|| wrong("no processes"))?;
    let of = |process: &Value| {
        let role = process.get("role")?.as_str()?.to_owned();
        Some((role, process.get("reachable")?.as_array()?.len() as u64))
    };
    processes
        .iter()
        .map(|process| of(process).ok_or_else(|| wrong("a process without a list")))
        .collect()
}
