//! The serial console, and the ports that end the guest.

use core::fmt::{Arguments, Write};

use crate::sys::{port, processor};

const UART: u16 = 0x3F8;
const LINE_STATUS: u16 = UART + 5;
const DATA_READY: u32 = 1;
const TRANSMITTER_EMPTY: u32 = 0x20;
const SLEEP_CONTROL: u16 = 0x600;
/// Sleep type S5, and enable.
const POWER_OFF: u32 = 5 << 2 | 1 << 5;
const PANIC: u16 = 0x505;
const PANICKED: u32 = 1;
/// How long to look away from a console that says nothing.
const PAUSES: u32 = 1000;

struct Uart;

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            while status() & TRANSMITTER_EMPTY == 0 {
                processor::relax();
            }
            port::write(UART, 1, u32::from(byte)).ok_or(core::fmt::Error)?;
        }
        // What was written may wait until the guest asks for something: who goes on without a word asks, as Linux does.
        status();
        Ok(())
    }
}

fn status() -> u32 {
    port::read(LINE_STATUS, 1).unwrap_or(0)
}

/// Prints a piece of a line.
pub fn print(text: Arguments<'_>) {
    // The port takes everything; and whom should the console tell of a failure of the console.
    Uart.write_fmt(text).ok();
}

/// Prints a line.
pub fn say(text: Arguments<'_>) {
    print(text);
    print(format_args!("\n"));
}

/// Prints so many lines of sixteen bytes, which count from zero, each in one go: what a FIFO takes. The last may still wait
/// until the guest asks for something.
pub fn count(lines: u64) {
    for nth in 0..lines {
        let (mut line, mut left) = (*b"000000000000000\n", nth);
        for digit in line.iter_mut().rev().skip(1) {
            *digit += u8::try_from(left % 10).unwrap_or(0);
            left /= 10;
        }
        while status() & TRANSMITTER_EMPTY == 0 {
            processor::relax();
        }
        for byte in line {
            port::write(UART, 1, u32::from(byte));
        }
    }
}

/// Whether somebody has typed.
#[must_use]
pub fn has_input() -> bool {
    status() & DATA_READY != 0
}

/// Waits for a line and gives it, without its end and without what does not fit.
pub fn read_line(buffer: &mut [u8]) -> &str {
    let mut len = 0;
    loop {
        if !has_input() {
            // A look leaves the guest: not too many.
            for _ in 0..PAUSES {
                processor::relax();
            }
            continue;
        }
        let byte = port::read(UART, 1).and_then(|value| u8::try_from(value).ok());
        match byte {
            Some(b'\n') => break,
            Some(byte) => {
                if let Some(place) = buffer.get_mut(len) {
                    *place = byte;
                    len += 1;
                }
            }
            None => {}
        }
    }
    core::str::from_utf8(buffer.split_at(len).0).unwrap_or_default()
}

/// Powers off.
pub fn power_off() -> ! {
    loop {
        port::write(SLEEP_CONTROL, 1, POWER_OFF);
        processor::relax();
    }
}

/// Ends as a kernel that has panicked.
pub fn panic_report() -> ! {
    loop {
        port::write(PANIC, 1, PANICKED);
        processor::relax();
    }
}
