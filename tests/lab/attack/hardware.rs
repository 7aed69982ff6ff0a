//! The hardware as the lab host's root sees it: configuration space, registers, interrupts, the kernel's log.
//!
//! UNSAFETY: registers are reached through a mapping of the device's resource file.
#![expect(unsafe_code, reason = "registers are reached by raw pointers")]

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    os::{fd::AsRawFd, unix::fs::FileExt},
    ptr,
};

use crate::host;

fn path(bdf: &str, name: &str) -> String {
    format!("/sys/bus/pci/devices/{bdf}/{name}")
}

/// All of a function's configuration space.
pub(crate) fn config(bdf: &str) -> Vec<u8> {
    fs::read(path(bdf, "config")).unwrap()
}

/// Writes to the hardware's configuration space, as root may.
pub(crate) fn write_config(bdf: &str, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path(bdf, "config"));
    file.unwrap().write_all_at(bytes, offset).unwrap();
}

/// The offset of a capability in a function's configuration space.
pub(crate) fn capability(bdf: &str, id: u8) -> usize {
    let config = config(bdf);
    let mut at = usize::from(config[0x34]);
    while at != 0 {
        if config[at] == id {
            return at;
        }
        at = usize::from(config[at + 1]);
    }
    panic!("{bdf} has no capability {id:#x}");
}

/// The bits in which two snapshots differ and that `allowed` (offset and mask of a byte) does not have, one line each.
pub(crate) fn differences(before: &[u8], after: &[u8], allowed: &[(usize, u8)]) -> Vec<String> {
    let mask = |at: usize| {
        let rows = allowed.iter().filter(|(offset, _)| *offset == at);
        rows.fold(0, |sum, (_, mask)| sum | mask)
    };
    assert_eq!(before.len(), after.len());
    before
        .iter()
        .zip(after)
        .enumerate()
        .filter(|(at, (before, after))| (*before ^ *after) & !mask(*at) != 0)
        .map(|(at, (before, after))| format!("byte {at:#x} was {before:#04x} and is {after:#04x}"))
        .collect()
}

/// The physical address of a BAR.
pub(crate) fn bar_address(bdf: &str, index: usize) -> u64 {
    let text = fs::read_to_string(path(bdf, "resource")).unwrap();
    let line = text.lines().nth(index).unwrap();
    let word = line.split_whitespace().next().unwrap();
    u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap()
}

/// A mapping of a BAR, for as long as the process lives.
#[derive(Debug)]
pub(crate) struct Registers {
    start: *mut u8,
    len: usize,
}

impl Registers {
    pub(crate) fn map(bdf: &str, index: usize) -> Self {
        let name = path(bdf, &format!("resource{index}"));
        let file = File::options().read(true).write(true).open(name).unwrap();
        let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(
            start,
            libc::MAP_FAILED,
            "{}",
            std::io::Error::last_os_error()
        );
        Self {
            start: start.cast(),
            len,
        }
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset.is_multiple_of(size_of::<T>()) && offset + size_of::<T>() <= self.len);
        self.start.wrapping_add(offset).cast()
    }

    pub(crate) fn read32(&self, offset: usize) -> u32 {
        // SAFETY: aligned and inside of the mapping.
        unsafe { self.at::<u32>(offset).read_volatile() }
    }

    pub(crate) fn write32(&self, offset: usize, value: u32) {
        // SAFETY: aligned and inside of the mapping.
        unsafe { self.at::<u32>(offset).write_volatile(value) }
    }

    pub(crate) fn write64(&self, offset: usize, value: u64) {
        // SAFETY: aligned and inside of the mapping.
        unsafe { self.at::<u64>(offset).write_volatile(value) }
    }
}

/// The host's interrupts by row, all processors together; the last words of the row are part of its name.
pub(crate) fn interrupts() -> BTreeMap<String, u64> {
    let text = fs::read_to_string("/proc/interrupts").unwrap();
    let processors = text.lines().next().unwrap().split_whitespace().count();
    text.lines()
        .skip(1)
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let counts = words.iter().skip(1).take(processors);
            let sum = counts.map_while(|word| word.parse::<u64>().ok()).sum();
            let tail = words
                .iter()
                .skip(1 + processors)
                .copied()
                .collect::<Vec<_>>()
                .join(" ");
            (format!("{} {tail}", words[0]), sum)
        })
        .collect()
}

/// The rows of [`interrupts`] that attacks must leave alone: those that tell of errors and of NMIs.
pub(crate) fn alarms() -> BTreeMap<String, u64> {
    const ROWS: [&str; 6] = ["NMI:", "ERR:", "MIS:", "MCE:", "SPU:", "THR:"];
    let rows = interrupts().into_iter();
    rows.filter(|(name, _)| ROWS.iter().any(|row| name.starts_with(row)))
        .collect()
}

/// A place in the kernel's log: its last line, which has its time in it.
#[derive(Debug)]
pub(crate) struct LogMark(Option<String>);

impl LogMark {
    /// Now.
    pub(crate) fn now() -> Self {
        Self(log().pop())
    }

    /// The lines since then; all that is left where the log has moved on too far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = log();
        let mark = lines.iter().rposition(|line| Some(line) == self.0.as_ref());
        lines.split_off(mark.map_or(0, |mark| mark + 1))
    }

    /// Fails if the kernel has complained of itself since then.
    pub(crate) fn assert_calm(&self) {
        const ALARMS: [&str; 7] = [
            "BUG",
            "WARNING",
            "Oops",
            "general protection",
            "Call Trace",
            "unhandled",
            "Kernel panic",
        ];
        let lines = self.lines();
        let found: Vec<&String> = lines
            .iter()
            .filter(|line| ALARMS.iter().any(|alarm| line.contains(alarm)))
            .collect();
        assert!(found.is_empty(), "the host's kernel complains: {found:#?}");
    }
}

fn log() -> Vec<String> {
    host::shell("dmesg").lines().map(str::to_owned).collect()
}

/// Waits, up to some seconds, until `attack` makes the kernel log a DMA fault of `bdf`: it logs ten in five seconds.
pub(crate) fn assert_fault_is_logged(bdf: &str, mut attack: impl FnMut()) {
    // With the PCI domain on newer kernels, without it on older ones.
    let short = bdf.split_once(':').map_or(bdf, |(_, rest)| rest);
    let wanted = [bdf, short].map(|name| format!("Request device [{name}]"));
    let is_wanted = |line: &String| wanted.iter().any(|wanted| line.contains(wanted));
    for _ in 0..8 {
        let mark = LogMark::now();
        attack();
        std::thread::sleep(std::time::Duration::from_millis(200));
        if mark.lines().iter().any(is_wanted) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    panic!("the kernel has logged no fault of {bdf}");
}
