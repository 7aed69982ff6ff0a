//! The guest's machine: the fixed addresses and ports that the plan describes to the guest and V and D answer.
//!
//! Everything else at a guest-physical address is RAM, an image, or a BAR of an assigned function, placed by the
//! plan and named in the [`crate::handoff::Handoff`].

use crate::addr::Gpa;

/// The size of a page of the guest, of KVM's memory slots and of the IOMMU's smallest mapping, in bytes.
pub const PAGE_BYTES: u64 = 4096;

/// RAM below this address, from zero; the hole above it holds the 32-bit BARs, ECAM and the local APIC.
pub const LOW_RAM_END: Gpa = Gpa::new(0xC000_0000);
/// Where RAM goes on above the hole.
pub const HIGH_RAM_START: Gpa = Gpa::new(0x1_0000_0000);

/// The window for 32-bit BARs: `[MMIO32_START, MMIO32_END)`.
pub const MMIO32_START: Gpa = Gpa::new(0xC000_0000);
/// The first address behind the window for 32-bit BARs.
pub const MMIO32_END: Gpa = Gpa::new(0xE000_0000);

/// ECAM of bus 0: 4 KiB of configuration space for each of 256 functions.
///
/// *Source:* `PCI Firmware Specification 3.2, section 4.1.2 (MCFG)`.
pub const ECAM_START: Gpa = Gpa::new(0xE000_0000);
/// The length of ECAM: one bus.
pub const ECAM_BYTES: u64 = 1 << 20;
/// Configuration space of one function, in bytes.
pub const CONFIG_BYTES: usize = 4096;

/// The area of low memory that holds the ACPI tables; reserved in the guest's memory map. The RSDP is its first byte.
pub const ACPI_START: Gpa = Gpa::new(0xE_0000);
/// The most bytes the ACPI tables may take.
pub const ACPI_BYTES: u64 = 0x1_0000;

/// The serial console's I/O ports (16550, eight registers), answered only when the guest file asks for a console.
pub const UART_PORT: u16 = 0x3F8;
/// The number of UART ports.
pub const UART_PORTS: u16 = 8;

/// ACPI sleep control register (I/O port, 8 bits): `SLP_TYP` in bits 2..5, `SLP_EN` in bit 5.
///
/// *Source:* `ACPI 6.5, section 4.8.3.7`.
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// ACPI sleep status register (I/O port, 8 bits): reads zero, ignores writes.
pub const SLEEP_STATUS_PORT: u16 = 0x601;
/// ACPI reset register (I/O port, 8 bits): [`RESET_VALUE`] asks for a reboot.
pub const RESET_PORT: u16 = 0x602;
/// The value that asks for a reboot.
pub const RESET_VALUE: u8 = 1;
/// The `SLP_TYP` of S5 in the DSDT's `_S5` object.
pub const SLEEP_TYPE_S5: u8 = 5;

/// Where the guest's `pvpanic` driver reports a panic (I/O port, 8 bits); reads give the supported events.
///
/// *Source:* `Documentation of the pvpanic device, ACPI id QEMU0001`; driver `drivers/misc/pvpanic`.
pub const PANIC_PORT: u16 = 0x505;
/// The one event that is supported: the kernel panicked.
pub const PANIC_EVENT: u8 = 1;

/// The slot on bus 0 of the assigned function `index`: slot 0 stays empty.
#[must_use]
pub const fn slot_of(index: u8) -> u8 {
    index + 1
}
