//! What a guest sees of configuration space: the table. What is not in it reads zero and ignores writes.
//!
//! So hidden: expansion ROM, interrupt pin, vendor-specific capabilities, vital product data, and all extended
//! capabilities (AER, SR-IOV, ARI, ATS, PRI, PASID, ACS, resizable BAR, TPH).
//!
//! *Source:* `PCI Express Base Specification 6.0, section 7.5 and 7.7`.

use Structure::{
    Express, Header, Msi, MsiLong, MsiLongMasked, MsiShort, MsiShortMasked, Msix, Power,
};
use Treatment::{Constant, Device, Fact, Virtual};

/// What an offset is relative to: a row applies where the function has that structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// The header.
    Header,
    /// The power management capability.
    Power,
    /// The MSI capability in any form.
    Msi,
    /// MSI with a 32-bit address.
    MsiShort,
    /// MSI with a 64-bit address.
    MsiLong,
    /// MSI with a 32-bit address and masks.
    MsiShortMasked,
    /// MSI with a 64-bit address and masks.
    MsiLongMasked,
    /// The PCI Express capability.
    Express,
    /// The MSI-X capability.
    Msix,
}

/// What the guest reads and may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Always this.
    Constant(u32),
    /// As the device had it when the guest started.
    Device,
    /// A register of D: this after reset, and these bits hold what the guest writes.
    Virtual(u32, u32),
    /// What the handoff says.
    Fact(FactKind),
}

/// The facts that come from the handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactKind {
    /// A BAR: address bits above its size hold what the guest writes.
    Bar(u8),
    /// The offset of the first capability.
    FirstCapability,
    /// The kind of this capability and the offset of the next.
    Link(u8),
    /// Whether function-level reset works.
    Resettable,
    /// Count of vectors, enable, and for MSI the form.
    MsiControl,
    /// Count of vectors, enable and function mask.
    MsixControl,
    /// Where the MSI-X table is.
    MsixTable,
    /// Where the MSI-X pending bits are.
    MsixPending,
}

/// One decision.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What `offset` is relative to.
    pub structure: Structure,
    /// Offset of the register in bytes.
    pub offset: u8,
    /// Its size, 1 to 4 bytes that do not cross a dword.
    pub size_bytes: u8,
    /// What the guest sees.
    pub treatment: Treatment,
    /// The register's name.
    pub name: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// The writable bits of the command register: memory enable, bus master, interrupt disable.
pub const COMMAND_WRITABLE: u32 = 0x0406;
/// Of these, what reaches the hardware: memory enable and bus master.
pub const COMMAND_HARDWARE: u16 = 0x0006;
/// The control bit that starts a function-level reset.
pub const INITIATE_RESET: u32 = 1 << 15;
/// Offset of the device control register in the PCI Express capability.
pub const EXPRESS_CONTROL: u8 = 0x08;
/// Offset of the status register in the power management capability.
pub const POWER_CONTROL: u8 = 0x04;

const fn row(
    structure: Structure,
    offset: u8,
    size_bytes: u8,
    treatment: Treatment,
    name: &'static str,
    reason: &'static str,
) -> Row {
    Row {
        structure,
        offset,
        size_bytes,
        treatment,
        name,
        reason,
    }
}

/// The table.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row(Header, 0x00, 2, Device, "vendor id", "chooses the driver"),
    row(Header, 0x02, 2, Device, "device id", "chooses the driver"),
    row(Header, 0x04, 2, Virtual(0, COMMAND_WRITABLE), "command", "memory enable and bus master also reach the hardware; no I/O, no pin interrupt"),
    row(Header, 0x06, 2, Constant(0x0010), "status", "only that there are capabilities; error bits tell of the host's traffic"),
    row(Header, 0x08, 1, Device, "revision", "drivers choose workarounds by it"),
    row(Header, 0x09, 1, Device, "programming interface", "chooses the driver"),
    row(Header, 0x0A, 2, Device, "class", "chooses the driver"),
    row(Header, 0x0C, 1, Virtual(0, 0xFF), "cache line size", "no effect in PCI Express; kernels write it and look"),
    row(Header, 0x0D, 1, Virtual(0, 0xFF), "latency timer", "no effect in PCI Express; kernels write it and look"),
    row(Header, 0x0E, 1, Constant(0), "header type", "a normal function, the only one of its slot"),
    row(Header, 0x10, 4, Fact(FactKind::Bar(0)), "BAR 0", "sizing works; an address written moves nothing"),
    row(Header, 0x14, 4, Fact(FactKind::Bar(1)), "BAR 1", "sizing works; an address written moves nothing"),
    row(Header, 0x18, 4, Fact(FactKind::Bar(2)), "BAR 2", "sizing works; an address written moves nothing"),
    row(Header, 0x1C, 4, Fact(FactKind::Bar(3)), "BAR 3", "sizing works; an address written moves nothing"),
    row(Header, 0x20, 4, Fact(FactKind::Bar(4)), "BAR 4", "sizing works; an address written moves nothing"),
    row(Header, 0x24, 4, Fact(FactKind::Bar(5)), "BAR 5", "sizing works; an address written moves nothing"),
    row(Header, 0x2C, 2, Device, "subsystem vendor id", "drivers choose workarounds by it"),
    row(Header, 0x2E, 2, Device, "subsystem id", "drivers choose workarounds by it"),
    row(Header, 0x34, 1, Fact(FactKind::FirstCapability), "capabilities pointer", "the list is ours, at the device's own offsets"),
    row(Header, 0x3C, 1, Virtual(0, 0xFF), "interrupt line", "a note of the guest to itself"),

    row(Power, 0x00, 2, Fact(FactKind::Link(0x01)), "power management", "shown where the device has it; all virtual"),
    row(Power, 0x02, 2, Constant(0x0003), "capabilities", "version 3; neither D1 nor D2 nor wake-up"),
    row(Power, POWER_CONTROL, 2, Virtual(0x0008, 0x0003), "control", "D0 and D3hot are a note; no soft reset, so D3hot loses nothing; the host owns the power"),

    row(Msi, 0x00, 2, Fact(FactKind::Link(0x05)), "MSI", "shown where it is the function's interrupt"),
    row(Msi, 0x02, 2, Fact(FactKind::MsiControl), "control", "D arms the vectors; the kernel writes the hardware's register"),
    row(Msi, 0x04, 4, Virtual(0, 0xFFFF_FFFC), "address", "becomes a route; the hardware keeps the host's"),
    row(MsiShort, 0x08, 2, Virtual(0, 0xFFFF), "data", "becomes a route; the hardware keeps the host's"),
    row(MsiShortMasked, 0x0C, 4, Virtual(0, 0xFFFF_FFFF), "mask", "a masked vector goes to its latch"),
    row(MsiLong, 0x08, 4, Virtual(0, 0xFFFF_FFFF), "upper address", "becomes a route, undeliverable unless zero"),
    row(MsiLong, 0x0C, 2, Virtual(0, 0xFFFF), "data", "becomes a route; the hardware keeps the host's"),
    row(MsiLongMasked, 0x10, 4, Virtual(0, 0xFFFF_FFFF), "mask", "a masked vector goes to its latch"),

    row(Express, 0x00, 2, Fact(FactKind::Link(0x10)), "PCI Express", "drivers ask for it; carries the reset"),
    row(Express, 0x02, 2, Constant(0x0092), "capabilities", "version 2, integrated into the root complex: so there is no link and no port above"),
    row(Express, 0x04, 4, Fact(FactKind::Resettable), "device capabilities", "reset where the kernel can; no phantom functions, no extended tags, 128 bytes of payload"),
    row(Express, EXPRESS_CONTROL, 2, Virtual(0x2810, 0x78FF), "device control", "a note of the guest, for the physical function decides; bit 15 resets; phantom functions stay off"),

    row(Msix, 0x00, 2, Fact(FactKind::Link(0x11)), "MSI-X", "shown where it is the function's interrupt"),
    row(Msix, 0x02, 2, Fact(FactKind::MsixControl), "control", "D arms the vectors; the kernel writes the hardware's register"),
    row(Msix, 0x04, 4, Fact(FactKind::MsixTable), "table", "the device's own place, its page never mapped"),
    row(Msix, 0x08, 4, Fact(FactKind::MsixPending), "pending bits", "the device's own place, its page never mapped"),
];

/// The bytes a visible capability takes; used to find those that overlap. MSI-X and power management have one form.
#[must_use]
pub const fn extent_bytes(structure: Structure) -> u8 {
    match structure {
        Header => 0x40,
        Power => 8,
        MsiShort => 0x0A,
        Msi | MsiLong => 0x0E,
        MsiShortMasked => 0x14,
        MsiLongMasked => 0x18,
        // Without link, slot and root registers: `PCI_CAP_EXP_RC_ENDPOINT_SIZEOF_V2` of the kernel.
        Express => 0x2C,
        Msix => 0x0C,
    }
}
