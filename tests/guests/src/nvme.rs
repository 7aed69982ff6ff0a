//! An NVMe controller whose data pointers go where they are told: each command is one transfer, and quick.
//!
//! *Source:* `NVM Express Base Specification 2.0, sections 3.1 (properties), 4.1 (queues), 5 (administration commands);
//! NVM Command Set Specification 1.0, section 3.2`.

use crate::{
    pci,
    sys::{
        memory,
        processor::{self, Clock},
    },
};

const ID: u64 = 0x0010_1B36;
const CONFIGURATION: u64 = 0x14;
const STATUS: u64 = 0x1C;
const QUEUE_SIZES: u64 = 0x24;
const SUBMISSION: u64 = 0x28;
const COMPLETION: u64 = 0x30;
const DOORBELLS: u64 = 0x1000;
const READY: u64 = 1;
/// Enabled; submission entries of 64 bytes, completion entries of 16.
const ENABLED: u64 = 1 | 6 << 16 | 4 << 20;

const ENTRIES: u64 = 64;
const SUBMISSION_BYTES: u64 = 64;
const COMPLETION_BYTES: u64 = 16;
const CREATE_SUBMISSION: u64 = 1;
const CREATE_COMPLETION: u64 = 5;
const IDENTIFY: u64 = 6;
const FORMAT: u64 = 0x80;
const IDENTIFY_CONTROLLER: u64 = 1;
const WRITE: u64 = 1;
const READ: u64 = 2;
/// Eight blocks of 512 bytes: a page, so that one pointer will do.
const BLOCKS: u64 = 8;
const PATIENCE_US: u64 = 2_000_000;
/// A format writes all of the namespace.
const FORMAT_US: u64 = 60_000_000;

/// What of a submission is not zero.
#[derive(Clone, Copy, Debug, Default)]
struct Command {
    operation: u64,
    namespace: u64,
    /// Where its data goes or comes from.
    pointer: u64,
    /// Dwords 10 and 11.
    argument: u64,
    /// Dword 12.
    count: u64,
}

/// A queue pair in the guest's RAM.
#[derive(Clone, Copy, Debug)]
struct Queue {
    /// Where submissions go; completions come a page above.
    at: u64,
    index: u64,
    tail: u64,
    head: u64,
    phase: u64,
}

/// The controller, and the two pages of queues of each pair.
#[derive(Clone, Copy, Debug)]
pub struct Nvme {
    bar: u64,
    administration: Queue,
    io: Queue,
}

impl Queue {
    const fn new(at: u64, index: u64) -> Self {
        Self {
            at,
            index,
            tail: 0,
            head: 0,
            phase: 1,
        }
    }

    const fn completions(&self) -> u64 {
        self.at + 4096
    }
}

impl Nvme {
    /// Finds the first controller, and starts it with its queues in the four pages at `ram`.
    #[must_use]
    pub fn start(ram: u64) -> Option<Self> {
        let bar = pci::bar(pci::find(ID)?, 0)?;
        memory::fill(ram, 4 * 4096, 0)?;
        let nvme = Self {
            bar,
            administration: Queue::new(ram, 0),
            io: Queue::new(ram + 2 * 4096, 1),
        };
        memory::write(bar + CONFIGURATION, 4, 0)?;
        nvme.await_ready(0)?;
        memory::write(bar + QUEUE_SIZES, 4, (ENTRIES - 1) | (ENTRIES - 1) << 16)?;
        memory::write(bar + SUBMISSION, 8, nvme.administration.at)?;
        memory::write(bar + COMPLETION, 8, nvme.administration.completions())?;
        memory::write(bar + CONFIGURATION, 4, ENABLED)?;
        nvme.await_ready(READY)?;
        Some(nvme)
    }

    fn await_ready(&self, wanted: u64) -> Option<()> {
        let clock = Clock::start();
        while clock.us() < PATIENCE_US {
            if memory::read(self.bar + STATUS, 4)? & READY == wanted {
                return Some(());
            }
            processor::relax();
        }
        None
    }

    /// Makes the pair for data; its completions fire `vector`. The status of the command that failed, or zero.
    pub fn make_io_queues(&mut self, vector: u64) -> Option<u64> {
        const CONTIGUOUS: u64 = 1 << 32;
        const INTERRUPTS: u64 = 2 << 32;
        const TO_QUEUE_1: u64 = 1 << 48;
        let size = 1 | (ENTRIES - 1) << 16;
        let made = self.administer(Command {
            operation: CREATE_COMPLETION,
            pointer: self.io.completions(),
            argument: size | CONTIGUOUS | INTERRUPTS | vector << 48,
            ..Command::default()
        })?;
        if made != 0 {
            return Some(made);
        }
        self.administer(Command {
            operation: CREATE_SUBMISSION,
            pointer: self.io.at,
            argument: size | CONTIGUOUS | TO_QUEUE_1,
            ..Command::default()
        })
    }

    /// The device writes a page about itself to `iova`; the command's status.
    pub fn identify(&mut self, iova: u64) -> Option<u64> {
        self.administer(identify(iova))
    }

    /// Gives a namespace another format, whose contents are gone then; the command's status.
    pub fn format(&mut self, namespace: u64, format: u64) -> Option<u64> {
        let command = Command {
            operation: FORMAT,
            namespace,
            argument: format,
            ..Command::default()
        };
        self.administration.run_for(self.bar, command, FORMAT_US)
    }

    /// As [`Self::identify`], without waiting for the end.
    pub fn begin_identify(&mut self, iova: u64) -> Option<()> {
        self.administration.submit(self.bar, identify(iova))
    }

    /// Takes the completions that are there; how many.
    pub fn reap(&mut self) -> Option<u64> {
        let mut count = 0;
        while self.administration.reap(self.bar)?.is_some() {
            count += 1;
        }
        Some(count)
    }

    /// The device reads a page of memory at `iova` into its namespace, from `block` on.
    pub fn write(&mut self, iova: u64, namespace: u64, block: u64) -> Option<u64> {
        self.io
            .run(self.bar, transfer(WRITE, iova, namespace, block))
    }

    /// The device writes a page of its namespace, from `block` on, to memory at `iova`.
    pub fn read(&mut self, iova: u64, namespace: u64, block: u64) -> Option<u64> {
        self.io
            .run(self.bar, transfer(READ, iova, namespace, block))
    }

    fn administer(&mut self, command: Command) -> Option<u64> {
        self.administration.run(self.bar, command)
    }
}

fn identify(iova: u64) -> Command {
    Command {
        operation: IDENTIFY,
        pointer: iova,
        argument: IDENTIFY_CONTROLLER,
        ..Command::default()
    }
}

fn transfer(operation: u64, iova: u64, namespace: u64, block: u64) -> Command {
    Command {
        operation,
        namespace,
        pointer: iova,
        argument: block,
        count: BLOCKS - 1,
    }
}

impl Queue {
    /// Queues a command and rings.
    fn submit(&mut self, bar: u64, command: Command) -> Option<()> {
        let entry = self.at + self.tail * SUBMISSION_BYTES;
        memory::fill(entry, SUBMISSION_BYTES, 0)?;
        memory::write(entry, 4, command.operation | self.tail << 16)?;
        memory::write(entry + 4, 4, command.namespace)?;
        memory::write(entry + 24, 8, command.pointer)?;
        memory::write(entry + 40, 8, command.argument)?;
        memory::write(entry + 48, 4, command.count)?;
        self.tail = (self.tail + 1) % ENTRIES;
        memory::write(bar + DOORBELLS + self.index * 8, 4, self.tail)
    }

    /// Takes one completion: its status.
    fn reap(&mut self, bar: u64) -> Option<Option<u64>> {
        let entry = self.completions() + self.head * COMPLETION_BYTES;
        let word = memory::read(entry + 12, 4)? >> 16;
        if word & 1 != self.phase {
            return Some(None);
        }
        self.head = (self.head + 1) % ENTRIES;
        if self.head == 0 {
            self.phase ^= 1;
        }
        memory::write(bar + DOORBELLS + self.index * 8 + 4, 4, self.head)?;
        Some(Some(word >> 1))
    }

    /// Queues a command and waits for its end: its status; `None` where it does not end.
    fn run(&mut self, bar: u64, command: Command) -> Option<u64> {
        self.run_for(bar, command, PATIENCE_US)
    }

    fn run_for(&mut self, bar: u64, command: Command, patience_us: u64) -> Option<u64> {
        self.submit(bar, command)?;
        let clock = Clock::start();
        while clock.us() < patience_us {
            if let Some(status) = self.reap(bar)? {
                return Some(status);
            }
            processor::relax();
        }
        None
    }
}
