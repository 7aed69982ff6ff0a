//! The kernel's trace of a VMM: what its guest leaves the guest for, what it asks the kernel for, what the guest marks.
//!
//! An instance of its own, so that nobody else's settings matter. It follows the process tree of the VMM alone, unless
//! the whole host is wanted. A trace that lost an event is an error.
//!
//! *Source:* `Documentation/trace/ftrace.rst`, `events.rst`; `arch/x86/kvm/trace.h`, `include/trace/events/kvm.h (v6.12)`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::event::{self, Event};

const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// Events of the exits and marks.
pub const EXITS: &[&str] = &[
    "kvm/kvm_exit",
    "kvm/kvm_userspace_exit",
    "kvm/kvm_inj_virq",
    "kvm/kvm_pio",
];
/// Events of marks alone, and of the first entry.
pub const MARKS: &[&str] = &["kvm/kvm_cpuid", "sched/sched_process_exec"];
/// The first entry into the guest. There are as many as exits.
pub const ENTRIES: &[&str] = &["kvm/kvm_entry"];
/// Events of system calls.
pub const CALLS: &[&str] = &["raw_syscalls/sys_enter", "raw_syscalls/sys_exit"];
/// Memory slots: a probe of our own, which [`define_slots`] makes.
pub const SLOTS: &[&str] = &["scoreboard/slot"];
/// Who runs.
pub const SWITCHES: &[&str] = &["sched/sched_switch"];

/// Makes the probe behind [`SLOTS`], where it is not there yet: the structure that KVM takes a memory slot by has its
/// number first, and its size 16 bytes behind.
///
/// # Errors
/// The kernel has no function of that name, or no probes.
pub fn define_slots() -> io::Result<()> {
    const PROBES: &str = "/sys/kernel/tracing/kprobe_events";
    if Path::new("/sys/kernel/tracing/events/scoreboard/slot").exists() {
        return Ok(());
    }
    const SYMBOLS: &str = "/proc/kallsyms";
    let symbols = fs::read_to_string(SYMBOLS).map_err(named(Path::new(SYMBOLS)))?;
    let name = slot_function(&symbols)
        .ok_or_else(|| io::Error::other("the kernel has no function kvm_set_memory_region"))?;
    let probe = format!("p:scoreboard/slot {name} id=+0(%si):u32 bytes=+16(%si):u64\n");
    fs::write(PROBES, probe).map_err(named(Path::new(PROBES)))
}

/// The function that sets a memory slot: a compiler may have kept a part of it only, with the same arguments.
fn slot_function(symbols: &str) -> Option<&str> {
    let names = symbols
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(2));
    let mut found = names.filter(|name| {
        let rest = name.strip_prefix("kvm_set_memory_region");
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(".part."))
    });
    found.next()
}

/// An instance of the kernel's trace.
#[derive(Debug)]
pub struct Trace {
    folder: PathBuf,
    /// The thread whose children are followed.
    parent: Option<u32>,
}

impl Trace {
    /// Makes one that is off, with `events` chosen.
    ///
    /// # Errors
    /// The file of the kernel's that could not be written.
    pub fn new(name: &str, buffer_kib: u32, events: &[&[&str]]) -> io::Result<Self> {
        let folder = Path::new(INSTANCES).join(name);
        if folder.exists() {
            fs::remove_dir(&folder).map_err(named(&folder))?;
        }
        fs::create_dir(&folder).map_err(named(&folder))?;
        let trace = Self {
            folder,
            parent: None,
        };
        trace.put("tracing_on", "0")?;
        trace.put("trace_clock", "mono")?;
        trace.put("buffer_size_kb", &buffer_kib.to_string())?;
        trace.put("options/event-fork", "1")?;
        trace.put("options/overwrite", "0")?;
        for event in events.iter().copied().flatten() {
            trace.put(&format!("events/{event}/enable"), "1")?;
        }
        Ok(trace)
    }

    /// From now on all that this thread starts is followed, with all that comes from it, and nobody else. What this thread
    /// does itself is left out when the trace is read.
    ///
    /// # Errors
    /// The file of the kernel's that could not be written.
    pub fn follow_children(&mut self) -> io::Result<()> {
        let parent = this_thread();
        self.parent = Some(parent);
        self.put("set_event_pid", &parent.to_string())
    }

    /// Begins.
    ///
    /// # Errors
    /// The file of the kernel's that could not be written.
    pub fn start(&self) -> io::Result<()> {
        self.put("tracing_on", "1")
    }

    /// Ends, and gives what was seen.
    ///
    /// # Errors
    /// A file of the kernel's, an event that was lost, or a line that cannot be read.
    pub fn stop(&self) -> io::Result<Vec<Event>> {
        self.put("tracing_on", "0")?;
        self.check_nothing_lost()?;
        self.read()
    }

    /// What was seen so far.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub fn read(&self) -> io::Result<Vec<Event>> {
        let path = self.folder.join("trace");
        let text = fs::read(&path).map_err(named(&path))?;
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let events = lines.filter_map(|line| event::parse(line).transpose());
        events
            .filter(|event| {
                !event
                    .as_ref()
                    .is_ok_and(|event| Some(event.tid) == self.parent)
            })
            .collect()
    }

    fn check_nothing_lost(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.folder.join("per_cpu"))? {
            let path = entry?.path().join("stats");
            let stats = fs::read_to_string(&path).map_err(named(&path))?;
            for line in stats.lines() {
                let Some((key, value)) = line.split_once(": ") else {
                    continue;
                };
                let is_loss = ["overrun", "commit overrun", "dropped events"].contains(&key);
                if is_loss && value.trim() != "0" {
                    let what =
                        format!("the trace lost events ({key} {value}): its buffer is too small");
                    return Err(io::Error::other(what));
                }
            }
        }
        Ok(())
    }

    fn put(&self, file: &str, text: &str) -> io::Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, text).map_err(named(&path))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // A folder that stays is cleared by the next run.
        let _left = fs::write(self.folder.join("tracing_on"), "0")
            .and_then(|()| fs::remove_dir(&self.folder));
    }
}

fn this_thread() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs()
}

fn named(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| io::Error::new(error.kind(), format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::slot_function;

    #[test]
    fn the_function_that_sets_a_slot_is_found_by_whatever_name() {
        let symbols = "ffffffff812395e0 t __pfx_kvm_set_memory_region.part.0\nffffffff812395f0 t kvm_set_memory_region.part.0\nffffffff812699b0 T __x86_set_memory_region\n";
        assert_eq!(slot_function(symbols), Some("kvm_set_memory_region.part.0"));
        assert_eq!(
            slot_function("0 t kvm_set_memory_region"),
            Some("kvm_set_memory_region")
        );
        assert_eq!(slot_function("0 t kvm_set_memory_regions"), None);
    }
}
