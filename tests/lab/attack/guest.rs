//! An attacking guest and what is said to it.

use std::{collections::HashMap, io::Write, process::ChildStdin};

use crate::{
    guest::{Guest, GuestFile, Transcript},
    host,
};

/// Pages of the attacker's RAM with a purpose: what the device is given to read, where it brings what it has read,
/// what it may write, and the queues of its NVMe controller.
pub(crate) const SOURCE: u64 = 0x80_0000;
pub(crate) const RESULT: u64 = 0x90_0000;
pub(crate) const TARGET: u64 = 0xA0_0000;
pub(crate) const QUEUES: u64 = 0xB0_0000;

/// What the command register must have for DMA: memory and bus master.
const MEMORY_AND_BUS_MASTER: u64 = 6;

/// The guest file of an attacker with `edu`, whose two refusals are accepted by name.
pub(crate) fn with_edu(name: &str) -> GuestFile {
    add_edu(GuestFile::attacker(name))
}

/// Gives `edu` to the guest.
pub(crate) fn add_edu(file: GuestFile) -> GuestFile {
    goes_on(file).device_with(
        &host::fact("EDU"),
        "accept = [\"device-not-a-vf\", \"device-no-reset\"]",
    )
}

/// The guest is not to be stopped for the faults of its devices, because the test wants to make more of them.
pub(crate) fn goes_on(file: GuestFile) -> GuestFile {
    file.key("on_dma_fault = \"log\"")
}

/// A running attacker.
#[derive(Debug)]
pub(crate) struct Attacker {
    pub(crate) guest: Guest,
    input: ChildStdin,
}

impl Attacker {
    /// Starts it; it listens when this returns.
    pub(crate) fn start(file: &GuestFile) -> Self {
        let mut guest = file.start();
        let input = guest.take_input();
        guest.wait_for("GUEST init=");
        Self { guest, input }
    }

    /// Types a command whose answer is taken later.
    pub(crate) fn begin(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
    }

    /// Waits for the answer of a command.
    pub(crate) fn answer(&mut self) -> HashMap<String, String> {
        let line = self.guest.wait_for("GUEST ");
        assert!(!line.contains("GUEST error="), "{line}");
        line.split_whitespace()
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// Says what to do, and gives the words of the answer.
    pub(crate) fn tell(&mut self, command: &str) -> HashMap<String, String> {
        self.begin(command);
        self.answer()
    }

    /// Says what to do, and gives the number of the answer.
    pub(crate) fn value(&mut self, command: &str) -> u64 {
        number(&self.tell(command)["value"])
    }

    /// Reads `width` bytes at an address of the guest.
    pub(crate) fn read(&mut self, width: u64, at: u64) -> u64 {
        self.value(&format!("read {width} {at:#x}"))
    }

    /// Writes `width` bytes at an address of the guest.
    pub(crate) fn write(&mut self, width: u64, at: u64, value: u64) {
        self.tell(&format!("write {width} {at:#x} {value:#x}"));
    }

    /// Fills a page.
    pub(crate) fn fill(&mut self, at: u64, byte: u8) {
        self.tell(&format!("fill {at:#x} 4096 {byte}"));
    }

    /// The address of BAR `index` of the function in `slot`.
    pub(crate) fn bar(&mut self, slot: u64, index: u64) -> u64 {
        self.value(&format!("bar {slot} {index}"))
    }

    /// The address of a capability, in the configuration space at `config`.
    pub(crate) fn capability(&mut self, config: u64, id: u64) -> u64 {
        let mut at = self.read(1, config + 0x34);
        while at != 0 {
            if self.read(1, config + at) == id {
                return config + at;
            }
            at = self.read(1, config + at + 1);
        }
        panic!("the guest sees no capability {id:#x}");
    }

    /// Lets the function in `slot` do DMA.
    pub(crate) fn enable(&mut self, slot: u64) {
        self.tell(&format!("command {slot} {MEMORY_AND_BUS_MASTER}"));
    }

    /// edu reads `len` bytes at `iova` to `offset` of its buffer.
    pub(crate) fn edu_in(&mut self, iova: u64, offset: u64, len: u64) {
        self.tell(&format!("edu-in {iova:#x} {offset} {len}"));
    }

    /// edu writes `len` bytes from `offset` of its buffer to `iova`.
    pub(crate) fn edu_out(&mut self, iova: u64, offset: u64, len: u64) {
        self.tell(&format!("edu-out {iova:#x} {offset} {len}"));
    }

    /// Fills edu's buffer with `byte`, through the guest's own RAM.
    pub(crate) fn edu_load(&mut self, byte: u8) {
        self.fill(SOURCE, byte);
        self.edu_in(SOURCE, 0, 4096);
    }

    /// Starts the NVMe controller in `slot`, bus master included.
    pub(crate) fn start_nvme(&mut self, slot: u64) {
        self.enable(slot);
        let status = self.value(&format!("nvme-start {QUEUES:#x} 0"));
        assert_eq!(status, 0, "the controller did not make its queues");
    }

    /// How often each vector has come.
    pub(crate) fn counts(&mut self) -> HashMap<u8, u64> {
        let words = self.tell("counts");
        let counts = words.iter().filter(|(key, _)| key.starts_with("0x"));
        counts
            .map(|(key, value)| (u8::try_from(number(key)).unwrap(), value.parse().unwrap()))
            .collect()
    }

    /// Powers it off and waits for the end.
    pub(crate) fn off(mut self) -> Transcript {
        self.begin("off");
        let (status, transcript) = self.guest.end();
        assert_eq!(status.code(), Some(0), "{}", transcript.text());
        transcript
    }
}

fn number(word: &str) -> u64 {
    u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap()
}
