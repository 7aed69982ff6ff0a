//! The figures of a run, as JSON for `--stats`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use iommu::{bdf::Bdf, ledger::Entry};
use jailed::ring::Counter;
use serde_json::{Map, Value, json};

use super::{ending::RunEnd, link::Seen, log::Log};
use crate::{plan::Plan, sys::map::CounterView};

/// Names of the counters in the file, in the order of [`Counter`].
const COUNTERS: [(Counter, &str); Counter::COUNT] = [
    (Counter::Exits, "exits"),
    (Counter::PortExits, "port_exits"),
    (Counter::MmioExits, "mmio_exits"),
    (Counter::ConfigReads, "config_reads"),
    (Counter::ConfigWrites, "config_writes"),
    (Counter::BarReads, "bar_reads"),
    (Counter::BarWrites, "bar_writes"),
    (Counter::Unclaimed, "unclaimed"),
    (Counter::ConsoleBytes, "console_bytes"),
    (Counter::VcpuFutexWaits, "vcpu_futex_waits"),
    (Counter::VcpuFutexWakes, "vcpu_futex_wakes"),
    (Counter::RouteUpdates, "route_updates"),
    (Counter::Requests, "requests"),
    (Counter::HardwareConfigWrites, "hardware_config_writes"),
    (Counter::SetIrqs, "set_irqs"),
    (Counter::Resets, "resets"),
    (Counter::RegionAccesses, "region_accesses"),
    (Counter::DeviceFutexWaits, "device_futex_waits"),
    (Counter::DeviceFutexWakes, "device_futex_wakes"),
    (Counter::LatchedInterrupts, "latched_interrupts"),
];

/// What the IOMMU holds for the guest.
#[derive(Clone, Debug, Default)]
pub(super) struct Dma {
    /// Mappings.
    pub(super) mappings: u64,
    /// Bytes in them.
    pub(super) bytes: u64,
    /// Calls that made them.
    pub(super) ioctls: u64,
    /// The ledger: each mapping.
    pub(super) entries: Vec<Entry>,
}

/// The figures of a run so far.
#[derive(Debug)]
pub(super) struct Stats {
    /// The guest's name.
    pub(super) guest: String,
    /// The kernel interface.
    pub(super) interface: String,
    /// The DMA map.
    pub(super) dma: Dma,
    /// Completed steps and the milliseconds since the start at which they were.
    pub(super) steps_ms: Vec<(&'static str, u64)>,
    /// Reboots of the guest.
    pub(super) reboots: u64,
    /// The supervisor's process id; 0 until it is known.
    pub(super) supervisor: u32,
    /// Process ids of V and D.
    pub(super) pids: (u32, u32),
    /// The guest's functions, in the plan's order.
    functions: Vec<Bdf>,
    /// What the supervisor has seen of stopped DMA, by the same order.
    pub(super) seen: Seen,
}

impl Stats {
    /// The figures of a run that has only begun.
    #[must_use]
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            guest: plan.name.clone(),
            interface: plan.interface.to_string(),
            dma: Dma::default(),
            steps_ms: Vec::new(),
            reboots: 0,
            supervisor: 0,
            pids: (0, 0),
            functions: plan.functions.iter().map(|function| function.bdf).collect(),
            seen: Seen::default(),
        }
    }

    /// Notes the time of a step; only the first time counts.
    pub(super) fn step(&mut self, name: &'static str, log: &Log) {
        if self.steps_ms.iter().all(|(step, _)| *step != name) {
            let at = u64::try_from(log.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.steps_ms.push((name, at));
        }
    }

    /// Writes the figures to `path`, whole or not at all.
    ///
    /// # Errors
    /// The errno of writing or renaming the file.
    pub(super) fn write(
        &self,
        path: &Path,
        counters: &CounterView,
        end: Option<&RunEnd>,
    ) -> io::Result<()> {
        let counted: Map<String, Value> = COUNTERS
            .iter()
            .map(|(counter, name)| ((*name).to_owned(), counters.counter(*counter).into()))
            .collect();
        let steps: Map<String, Value> = self
            .steps_ms
            .iter()
            .map(|(step, at)| ((*step).to_owned(), (*at).into()))
            .collect();
        let entries: Vec<Value> = self.dma.entries.iter().map(entry).collect();
        let seen = &self.seen.functions;
        let total = seen
            .iter()
            .fold(0_u64, |all, (count, _)| all.saturating_add(*count));
        let functions: Vec<Value> = self
            .functions
            .iter()
            .zip(seen)
            .map(|(bdf, (count, last_address))| {
                json!({
                    "bdf": bdf,
                    "count": count,
                    "last_address": last_address.map(|address| format!("{address:#x}")),
                })
            })
            .collect();
        let text = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "guest": self.guest,
            "interface": self.interface,
            "pids": {
                "supervisor": self.supervisor,
                "keeper": std::process::id(),
                "vcpu": self.pids.0,
                "device": self.pids.1,
            },
            "dma": {
                "mappings": self.dma.mappings,
                "bytes": self.dma.bytes,
                "ioctls": self.dma.ioctls,
                "entries": entries,
            },
            "steps_ms": steps,
            "reboots": self.reboots,
            "dma_faults": { "total": total, "functions": functions, "kernel_log_lost": self.seen.lost },
            "counters": counted,
            "end": end,
        });
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}.new", std::process::id()));
        let new = Path::new(&new);
        // A file that is there already is none of ours: create_new follows no link.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(new)?;
        let written = file.write_all(format!("{text:#}\n").as_bytes());
        written
            .and_then(|()| fs::rename(new, path))
            .inspect_err(|_| {
                fs::remove_file(new).ok();
            })
    }
}

/// A mapping: the device's addresses from `start` to before `end`, as numbers.
fn entry(entry: &Entry) -> Value {
    json!({
        "start": entry.range.start().raw(),
        "end": entry.range.end().raw(),
        "permission": entry.permission,
        "kind": entry.kind,
    })
}

#[cfg(test)]
mod tests {
    use iommu::{
        addr::{ByteLen, Iova, IovaRange},
        ledger::{Kind, Permission},
    };

    use super::*;

    #[test]
    fn a_mapping_is_told_in_numbers_and_words() {
        let image = Entry {
            range: IovaRange::new(Iova::new(0x1_0000_0000), ByteLen::new(0x20_0000)).unwrap(),
            permission: Permission::ReadOnly,
            kind: Kind::Image,
        };
        let expected = json!({
            "start": 0x1_0000_0000_u64, "end": 0x1_0020_0000_u64, "permission": "read-only", "kind": "image",
        });
        assert_eq!(entry(&image), expected);
    }

    #[test]
    fn every_counter_has_its_name_at_its_place() {
        for (index, (counter, _)) in COUNTERS.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
    }
}
