//! The `edu` device: a DMA engine that goes where it is told, and an interrupt that fires when it is told.
//!
//! *Source:* `QEMU docs/specs/edu.rst`.

use crate::{
    pci,
    sys::{memory, processor::Clock},
};

const ID: u64 = 0x11E8_1234;
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;
const SOURCE: u64 = 0x80;
const TARGET: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
/// Where the device's own buffer of one page begins, on its side.
const BUFFER: u64 = 0x4_0000;
const START: u64 = 1;
const TO_RAM: u64 = 2;
/// It takes 100 ms to begin.
const PATIENCE_US: u64 = 3_000_000;

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The device reads memory into its buffer.
    In,
    /// The device writes its buffer to memory.
    Out,
}

/// The device.
#[derive(Clone, Copy, Debug)]
pub struct Edu {
    bar: u64,
}

impl Edu {
    /// Finds it.
    #[must_use]
    pub fn find() -> Option<Self> {
        let bar = pci::bar(pci::find(ID)?, 0)?;
        Some(Self { bar })
    }

    /// Starts a transfer between `iova` and the buffer from `offset` on.
    pub fn start(self, way: Way, iova: u64, offset: u64, len_bytes: u64) -> Option<()> {
        let buffer = BUFFER + offset;
        let (source, target, command) = match way {
            Way::In => (iova, buffer, START),
            Way::Out => (buffer, iova, START | TO_RAM),
        };
        memory::write(self.bar + SOURCE, 8, source)?;
        memory::write(self.bar + TARGET, 8, target)?;
        memory::write(self.bar + COUNT, 8, len_bytes)?;
        memory::write(self.bar + COMMAND, 8, command)
    }

    /// Waits until the device says that it is done; false where it does not.
    #[must_use]
    pub fn wait(self) -> bool {
        let clock = Clock::start();
        while clock.us() < PATIENCE_US {
            if memory::read(self.bar + COMMAND, 4).is_some_and(|command| command & START == 0) {
                return true;
            }
            // Every look leaves the lab host for its emulator.
            crate::sys::processor::relax();
        }
        false
    }

    /// Fires its interrupt.
    pub fn fire(self) -> Option<()> {
        memory::write(self.bar + RAISE, 4, 1)?;
        memory::write(self.bar + ACKNOWLEDGE, 4, 1)
    }
}
