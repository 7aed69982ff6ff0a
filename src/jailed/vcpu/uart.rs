//! The serial console: a 16550 without an interrupt line, for a driver that polls.
//!
//! *Source:* `National Semiconductor PC16550D data sheet`.

/// Where the console's bytes go and come from.
pub trait Line {
    /// Whether [`FIFO_BYTES`] bytes can be sent.
    fn has_room(&self) -> bool;
    /// Sends a byte; it is lost where there is no room.
    fn send(&self, byte: u8);
    /// Whether a byte waits.
    fn has_input(&self) -> bool;
    /// Takes the byte that waits.
    fn receive(&self) -> Option<u8>;
}

/// What a driver may send once it has read that the transmitter is empty, without reading it again.
pub const FIFO_BYTES: u32 = 16;

const RECEIVED: u8 = 0;
const INTERRUPT_ENABLE: u8 = 1;
const INTERRUPT_ID: u8 = 2;
const LINE_CONTROL: u8 = 3;
const MODEM_CONTROL: u8 = 4;
const LINE_STATUS: u8 = 5;
const MODEM_STATUS: u8 = 6;

const DIVISOR_ACCESS: u8 = 0x80;
const LOOPBACK: u8 = 0x10;
const DATA_READY: u8 = 1;
const TRANSMITTER_EMPTY: u8 = 0x60;
/// Clear to send, data set ready, carrier detected.
const LINE_UP: u8 = 0xB0;

/// The registers that keep what was written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uart {
    interrupt_enable: u8,
    has_fifo: bool,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    divisor: [u8; 2],
}

impl Uart {
    /// Reads `register` (0..8).
    pub fn read(&self, register: u8, line: &impl Line) -> u8 {
        let is_divisor = self.line_control & DIVISOR_ACCESS != 0;
        let [divisor_low, divisor_high] = self.divisor;
        match register {
            RECEIVED if is_divisor => divisor_low,
            INTERRUPT_ENABLE if is_divisor => divisor_high,
            RECEIVED => line.receive().unwrap_or(0),
            INTERRUPT_ENABLE => self.interrupt_enable,
            INTERRUPT_ID => self.interrupt_id(line),
            LINE_CONTROL => self.line_control,
            MODEM_CONTROL => self.modem_control,
            LINE_STATUS => {
                let input = if line.has_input() { DATA_READY } else { 0 };
                let output = if line.has_room() {
                    TRANSMITTER_EMPTY
                } else {
                    0
                };
                input | output
            }
            MODEM_STATUS if self.modem_control & LOOPBACK != 0 => {
                // Each output comes back as the input it is wired to: RTS as CTS, DTR as DSR, OUT1 and OUT2 as they are.
                let out = self.modem_control;
                (out & 2) << 3 | (out & 1) << 5 | (out & 0xC) << 4
            }
            MODEM_STATUS => LINE_UP,
            _ => self.scratch,
        }
    }

    /// Writes `register` (0..8).
    pub fn write(&mut self, register: u8, value: u8, line: &impl Line) {
        let is_divisor = self.line_control & DIVISOR_ACCESS != 0;
        let [divisor_low, divisor_high] = &mut self.divisor;
        match register {
            RECEIVED if is_divisor => *divisor_low = value,
            INTERRUPT_ENABLE if is_divisor => *divisor_high = value,
            RECEIVED if self.modem_control & LOOPBACK != 0 => {}
            RECEIVED => line.send(value),
            INTERRUPT_ENABLE => self.interrupt_enable = value & 0xF,
            INTERRUPT_ID => self.has_fifo = value & 1 != 0,
            LINE_CONTROL => self.line_control = value,
            MODEM_CONTROL => self.modem_control = value & 0x1F,
            LINE_STATUS | MODEM_STATUS => {}
            _ => self.scratch = value,
        }
    }

    /// What a polling driver asks instead of waiting for an interrupt.
    fn interrupt_id(&self, line: &impl Line) -> u8 {
        const RECEIVE_ENABLED: u8 = 1;
        const TRANSMIT_ENABLED: u8 = 2;
        let fifo = if self.has_fifo { 0xC0 } else { 0 };
        let id = if self.interrupt_enable & RECEIVE_ENABLED != 0 && line.has_input() {
            4
        } else if self.interrupt_enable & TRANSMIT_ENABLED != 0 && line.has_room() {
            2
        } else {
            1
        };
        fifo | id
    }
}

#[cfg(test)]
mod uart_test {
    use super::*;
    use std::cell::RefCell;

    #[derive(Default)]
    struct Bytes {
        sent: RefCell<Vec<u8>>,
        waiting: RefCell<Vec<u8>>,
        is_full: bool,
    }

    impl Line for Bytes {
        fn has_room(&self) -> bool {
            !self.is_full
        }
        fn send(&self, byte: u8) {
            self.sent.borrow_mut().push(byte);
        }
        fn has_input(&self) -> bool {
            !self.waiting.borrow().is_empty()
        }
        fn receive(&self) -> Option<u8> {
            self.waiting.borrow_mut().pop()
        }
    }

    #[test]
    fn a_byte_goes_out_and_one_comes_in() {
        let (mut uart, line) = (Uart::default(), Bytes::default());
        uart.write(0, b'x', &line);
        line.waiting.borrow_mut().push(b'y');
        assert_eq!(uart.read(5, &line), 0x61);
        assert_eq!(uart.read(0, &line), b'y');
        assert_eq!(uart.read(5, &line), 0x60);
        assert_eq!(*line.sent.borrow(), b"x");
    }

    #[test]
    fn a_full_queue_is_a_busy_transmitter() {
        let line = Bytes {
            is_full: true,
            ..Bytes::default()
        };
        let mut uart = Uart::default();
        uart.write(1, 2, &line);
        assert_eq!(uart.read(5, &line), 0);
        assert_eq!(uart.read(2, &line), 1);
    }

    #[test]
    fn the_divisor_hides_data_and_enable_bits() {
        let (mut uart, line) = (Uart::default(), Bytes::default());
        uart.write(3, 0x83, &line);
        uart.write(0, 1, &line);
        uart.write(1, 2, &line);
        assert_eq!((uart.read(0, &line), uart.read(1, &line)), (1, 2));
        uart.write(3, 3, &line);
        assert_eq!((uart.read(0, &line), uart.read(1, &line)), (0, 0));
        assert!(line.sent.borrow().is_empty());
    }

    #[test]
    fn loopback_returns_what_linux_looks_for() {
        let (mut uart, line) = (Uart::default(), Bytes::default());
        uart.write(4, 0x1A, &line);
        assert_eq!(uart.read(6, &line) & 0xF0, 0x90);
        uart.write(0, b'x', &line);
        assert!(line.sent.borrow().is_empty());
    }

    #[test]
    fn a_poll_finds_input_before_room() {
        let (mut uart, line) = (Uart::default(), Bytes::default());
        uart.write(2, 1, &line);
        uart.write(1, 3, &line);
        assert_eq!(uart.read(2, &line), 0xC2);
        line.waiting.borrow_mut().push(1);
        assert_eq!(uart.read(2, &line), 0xC4);
        uart.write(1, 0, &line);
        assert_eq!(uart.read(2, &line), 0xC1);
    }

    #[test]
    fn no_write_and_read_of_any_register_panics() {
        let (mut uart, line) = (Uart::default(), Bytes::default());
        for register in 0..=u8::MAX {
            for value in 0..=u8::MAX {
                uart.write(register, value, &line);
                uart.read(register, &line);
            }
        }
    }
}
