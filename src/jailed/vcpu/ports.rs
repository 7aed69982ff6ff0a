//! The I/O ports that are answered: console, power and the panic report.

use super::uart::{Line, Uart};
use crate::handoff::Ending;
use crate::machine;

/// The ports, from the first to the last of each row, whose writes KVM keeps until the guest asks V for anything: nobody
/// waits for what they do. All but those of ACPI and of the panic report. At three of these four a guest ends; a write to
/// the fourth, sleep status, does nothing, but it lies between two others and is written before a sleep alone.
pub const KEPT: [(u16, u16); 3] = [
    (0, machine::PANIC_PORT - 1),
    (machine::PANIC_PORT + 1, machine::SLEEP_CONTROL_PORT - 1),
    (machine::RESET_PORT + 1, u16::MAX),
];

/// What a port does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// A register of the console (0..8).
    Console(u8),
    /// ACPI's sleep control register.
    SleepControl,
    /// ACPI's sleep status register.
    SleepStatus,
    /// ACPI's reset register.
    Reset,
    /// The guest's panic report.
    Panic,
    /// Nothing.
    Nothing,
}

/// What an access of `size_bytes` bytes at `port` is for; everything here is one byte wide.
#[must_use]
pub fn port_of(port: u16, size_bytes: usize, has_console: bool) -> Port {
    if size_bytes != 1 {
        return Port::Nothing;
    }
    let register = port.checked_sub(machine::UART_PORT);
    match register.map(u8::try_from) {
        Some(Ok(register)) if u16::from(register) < machine::UART_PORTS => {
            return if has_console {
                Port::Console(register)
            } else {
                Port::Nothing
            };
        }
        _ => {}
    }
    match port {
        machine::SLEEP_CONTROL_PORT => Port::SleepControl,
        machine::SLEEP_STATUS_PORT => Port::SleepStatus,
        machine::RESET_PORT => Port::Reset,
        machine::PANIC_PORT => Port::Panic,
        _ => Port::Nothing,
    }
}

impl Port {
    /// What a read returns.
    pub fn read(self, uart: &Uart, line: &impl Line) -> u32 {
        match self {
            Self::Console(register) => u32::from(uart.read(register, line)),
            Self::SleepControl | Self::SleepStatus | Self::Reset => 0,
            Self::Panic => u32::from(machine::PANIC_EVENT),
            Self::Nothing => u32::MAX,
        }
    }

    /// Writes `value`: how the guest ends, if that is what it asked for.
    pub fn write(self, value: u8, uart: &mut Uart, line: &impl Line) -> Option<Ending> {
        const SLEEP_ENABLE: u8 = 1 << 5;
        match self {
            Self::Console(register) => {
                uart.write(register, value, line);
                None
            }
            Self::SleepControl => (value & SLEEP_ENABLE != 0
                && value >> 2 & 7 == machine::SLEEP_TYPE_S5)
                .then_some(Ending::PoweredOff),
            Self::Reset => (value == machine::RESET_VALUE).then_some(Ending::RebootRequested),
            Self::Panic => (value & machine::PANIC_EVENT != 0).then_some(Ending::Panicked),
            Self::SleepStatus | Self::Nothing => None,
        }
    }
}

#[cfg(test)]
mod ports_test {
    use super::*;

    struct Silent;

    impl Line for Silent {
        fn has_room(&self) -> bool {
            true
        }
        fn send(&self, _: u8) {}
        fn has_input(&self) -> bool {
            false
        }
        fn receive(&self) -> Option<u8> {
            None
        }
    }

    fn write(port: u16, value: u8) -> Option<Ending> {
        port_of(port, 1, true).write(value, &mut Uart::default(), &Silent)
    }

    #[test]
    fn these_ports_are_answered_and_no_others() {
        let answered: Vec<u16> = (0..=u16::MAX)
            .filter(|port| port_of(*port, 1, true) != Port::Nothing)
            .collect();
        let expected = [
            0x3F8, 0x3F9, 0x3FA, 0x3FB, 0x3FC, 0x3FD, 0x3FE, 0x3FF, 0x505, 0x600, 0x601, 0x602,
        ];
        assert_eq!(answered, expected);
        let silent = (0..=u16::MAX).filter(|port| port_of(*port, 1, false) != Port::Nothing);
        assert_eq!(silent.count(), 4);
        assert!((0..=u16::MAX).all(|port| port_of(port, 2, true) == Port::Nothing));
    }

    #[test]
    fn writes_are_kept_where_they_end_nothing() {
        for port in 0..=u16::MAX {
            let rows = KEPT
                .iter()
                .filter(|(first, last)| (*first..=*last).contains(&port));
            let ends = (0..=u8::MAX).any(|value| write(port, value).is_some());
            assert_eq!(ends, [0x505, 0x600, 0x602].contains(&port), "{port:#x}");
            let is_kept = ![0x505, 0x600, 0x601, 0x602].contains(&port);
            assert_eq!(rows.count(), usize::from(is_kept), "{port:#x}");
        }
    }

    #[test]
    fn only_s5_with_the_enable_bit_powers_off() {
        let off: Vec<u8> = (0..=u8::MAX)
            .filter(|value| write(0x600, *value).is_some())
            .collect();
        assert!(off.iter().all(|value| value & 0x3C == 0x34));
        assert_eq!(write(0x600, 0x34), Some(Ending::PoweredOff));
    }

    #[test]
    fn only_the_reset_value_reboots() {
        assert_eq!(write(0x602, 1), Some(Ending::RebootRequested));
        assert!((0..=u8::MAX).all(|value| value == 1 || write(0x602, value).is_none()));
    }

    #[test]
    fn a_panic_is_announced_and_reported() {
        let port = port_of(0x505, 1, false);
        assert_eq!(port.read(&Uart::default(), &Silent), 1);
        assert_eq!(write(0x505, 1), Some(Ending::Panicked));
        assert_eq!(write(0x505, 2), None);
    }
}
