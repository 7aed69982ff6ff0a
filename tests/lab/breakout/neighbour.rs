//! A guest of somebody else's beside the attacker: it works, its results are right, and the host has of it what it had.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    attack::{Attacker, RESULT, SOURCE},
    guest::GuestFile,
    host,
};

/// Where it keeps what nobody may change, how much, and what it is filled with.
const KEPT: u64 = 0xC0_0000;
const KEPT_BYTES: u64 = 0x1000;
const KEPT_BYTE: u8 = 0xA7;
/// Its namespace, as its own controller numbers it, and the first block of what it writes there.
const NAMESPACE: u64 = 3;
const BLOCK: u64 = 64;
/// How long it rests between two rounds: the host has one processor, and the attacker is what is to run.
const REST: Duration = Duration::from_secs(1);
const PROCESSES: [&str; 4] = ["supervisor", "keeper", "narrows-vcpu", "narrows-device"];

/// The neighbour.
pub(super) struct Neighbour {
    guest: Attacker,
    rounds: u64,
}

/// What the host has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State(Vec<Process>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    program: &'static str,
    pid: u32,
    /// In ticks since the host's start: no other process of this number began then.
    started: String,
    threads: usize,
    /// Number and target of each.
    descriptors: Vec<String>,
    /// Tracer, users, capabilities, signals, filters.
    status: Vec<String>,
    /// Of V and D every mapping; the others have an allocator.
    mappings: String,
}

impl Neighbour {
    /// Starts it, with as much of the processor: it waits by looking at its console again and again.
    pub(super) fn start(cpu_percent: u32) -> Self {
        let file = GuestFile::attacker("neighbour")
            .device(&host::nvme(1))
            .table(&format!("[sandbox]\ncpu_percent = {cpu_percent}"));
        let mut guest = Attacker::start(&file);
        guest.start_nvme(1);
        guest.tell(&format!("fill {KEPT:#x} {KEPT_BYTES} {KEPT_BYTE}"));
        Self { guest, rounds: 0 }
    }

    /// The process id of one of its processes.
    pub(super) fn pid_of(&self, who: &str) -> u32 {
        self.guest.guest.pid_of(who)
    }

    /// Has a page written to its namespace by its device and read back, and fails unless it is the page, and the device
    /// has done the work.
    pub(super) fn round(&mut self) {
        let byte = u8::try_from(1 + self.rounds % 250).unwrap();
        let block = BLOCK + 8 * (self.rounds % 1000);
        self.guest.fill(SOURCE, byte);
        self.guest.fill(RESULT, 0);
        let answer = self.guest.tell(&format!(
            "nvme-in {SOURCE:#x} {NAMESPACE} {block} {RESULT:#x}"
        ));
        assert_eq!((&*answer["read"], &*answer["written"]), ("0x0", "0x0"));
        self.assert_filled(RESULT, 4096, byte);
        self.rounds += 1;
    }

    fn assert_filled(&mut self, at: u64, len: u64, byte: u8) {
        let shown = self.guest.tell(&format!("show {at:#x} {len}"));
        assert_eq!(shown["same"], "yes", "{at:#x}: {shown:?}");
        assert_eq!(shown["bytes"], format!("{byte:02x}").repeat(16), "{at:#x}");
    }

    /// What the host has of it now.
    pub(super) fn state(&self) -> State {
        let one = |program| {
            let pid = self.pid_of(program);
            Process::read(program, pid)
        };
        State(PROCESSES.map(one).to_vec())
    }

    /// Fails unless it is as it was: what the host has of it, what it keeps in its memory, and that its device works.
    pub(super) fn assert_as_before(&mut self, before: &State, what: &str) {
        let State(now) = self.state();
        for (before, now) in before.0.iter().zip(&now) {
            assert_eq!(now, before, "{what} has changed the neighbour");
        }
        let exits = self.guest.guest.exits();
        self.round();
        self.assert_filled(KEPT, KEPT_BYTES, KEPT_BYTE);
        let more = self.guest.guest.exits() - exits;
        assert!(more > 0, "{what}: the neighbour's counters stand still");
    }

    /// Lets it work until [`Working::stop`].
    pub(super) fn work(mut self) -> Working {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while !over.load(SeqCst) {
                self.round();
                thread::sleep(REST);
            }
            self
        });
        Working {
            is_over,
            thread: Some(thread),
        }
    }

    /// How many rounds it has done.
    pub(super) const fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Begins a new life: other processes, the same guest.
    pub(super) fn reboot(&mut self) {
        self.guest.begin("out 1 0x602 1");
        self.guest.guest.wait_for("GUEST init=");
    }

    /// Powers it off; fails unless that is how it ends.
    pub(super) fn off(self) {
        self.guest.off();
    }
}

/// A neighbour at work.
pub(super) struct Working {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Neighbour>>,
}

impl Working {
    /// The neighbour, which has not failed in the meantime.
    pub(super) fn stop(mut self) -> Neighbour {
        self.end()
            .expect("it works")
            .expect("the neighbour's work went on and was right")
    }

    fn end(&mut self) -> Option<thread::Result<Neighbour>> {
        self.is_over.store(true, SeqCst);
        self.thread.take().map(JoinHandle::join)
    }
}

impl Drop for Working {
    /// A test that fails must not leave it to the next one.
    fn drop(&mut self) {
        drop(self.end());
    }
}

impl Process {
    fn read(program: &'static str, pid: u32) -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
        let stat = read("stat");
        // Behind the name in brackets; the whole's 22nd field.
        let fields = stat.rsplit_once(") ").unwrap().1.split_whitespace();
        let wanted = [
            "TracerPid",
            "Uid",
            "Gid",
            "FDSize",
            "SigQ",
            "SigBlk",
            "SigIgn",
            "SigCgt",
            "CapEff",
            "CapPrm",
            "CapBnd",
            "NoNewPrivs",
            "Seccomp",
        ];
        let status = read("status");
        let is_wanted = |line: &&str| {
            wanted
                .iter()
                .any(|key| line.split(':').next() == Some(*key))
        };
        let is_jailed = program.starts_with("narrows-");
        Self {
            program,
            pid,
            started: fields.clone().nth(19).unwrap().to_owned(),
            threads: fields.clone().nth(17).unwrap().parse().unwrap(),
            descriptors: descriptors(pid),
            status: status
                .lines()
                .filter(is_wanted)
                .map(str::to_owned)
                .collect(),
            mappings: if is_jailed {
                read("maps")
            } else {
                String::new()
            },
        }
    }
}

fn descriptors(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut all: Vec<String> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let to = fs::read_link(&path).unwrap();
            format!("{} {}", path.display(), to.display())
        })
        .collect();
    all.sort();
    all
}
