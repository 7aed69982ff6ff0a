//! The ACPI tables: what the guest's kernel is told of its machine, which is mostly what it does not have.
//!
//! *Source:* `ACPI Specification 6.5`, `PCI Firmware Specification 3.2, section 4.1`.

use acpi_tables::{
    Aml,
    aml::{
        AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, IO,
        Memory32Fixed, Method, Name, Package, Path, ResourceTemplate, Return,
    },
    fadt::{FADTBuilder, Flags},
    gas::{AccessSize, AddressSpace as GasSpace, GAS},
    madt::{EnabledStatus, LocalInterruptController, MADT, ProcessorLocalApic},
    mcfg::MCFG,
    rsdp::Rsdp,
    sdt::Sdt,
    xsdt::XSDT,
};
use jailed::{
    addr::GpaRange,
    handoff::ACPI_BYTES,
    machine::{
        ACPI_START, ECAM_BYTES, ECAM_START, MMIO32_END, MMIO32_START, PANIC_PORT, RESET_PORT,
        RESET_VALUE, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT, SLEEP_TYPE_S5, UART_PORT, UART_PORTS,
    },
};

const OEM: [u8; 6] = *b"NARROW";
const TABLE: [u8; 8] = *b"NARROWS ";
const REVISION: u32 = 1;

/// The local APIC's address; it is the CPU's own, nothing of the plan can lie there.
const LOCAL_APIC: u32 = 0xFEE0_0000;

/// `IAPC_BOOT_ARCH`: no legacy devices, no 8042; VGA (bit 2), ASPM controls (4) and the CMOS clock (5) are absent.
const BOOT_ARCH: u16 = 1 << 2 | 1 << 4 | 1 << 5;

/// The control that `_OSC` grants: the PCI Express capability structure (bit 4). The rest (hot plug, PME, AER) exists
/// on no device of the guest.
const OSC_GRANTED: u32 = 1 << 4;

/// The machine's variable parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    /// How many vCPUs there are, at most 64; their APIC ids are 0, 1, ….
    pub(super) vcpus: u8,
    /// The window of 64-bit BARs.
    pub(super) window64: Option<GpaRange>,
    /// Whether there is a serial console.
    pub(super) has_console: bool,
}

/// The tables as they lie from [`ACPI_START`] on, the RSDP first; `None` where they take more than [`ACPI_BYTES`].
pub(super) fn tables(machine: Machine) -> Option<Vec<u8>> {
    let mut area = Area(vec![0; Rsdp::len()]);
    let dsdt = area.append(&dsdt(machine));
    let fadt = area.append(&fadt(dsdt));
    let madt = area.append(&madt(machine.vcpus));
    let mut mcfg = MCFG::new(OEM, TABLE, REVISION);
    mcfg.add_ecam(ECAM_START.raw(), 0, 0, 0);
    let mcfg = area.append(&mcfg);
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    for table in [fadt, madt, mcfg] {
        xsdt.add_entry(table);
    }
    let xsdt = area.append(&xsdt);
    let Area(mut bytes) = area;
    let rsdp = bytes_of(&Rsdp::new(OEM, xsdt));
    bytes.get_mut(..rsdp.len())?.copy_from_slice(&rsdp);
    (bytes.len() <= ACPI_BYTES).then_some(bytes)
}

/// The tables so far.
struct Area(Vec<u8>);

impl Area {
    /// Appends a table, 64-byte aligned, and gives its guest-physical address.
    fn append(&mut self, table: &dyn Aml) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(64), 0);
        let address = ACPI_START.raw() + self.0.len() as u64;
        table.to_aml_bytes(&mut self.0);
        address
    }
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Hardware-reduced ACPI: no fixed hardware but the sleep and reset registers.
fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        // Both bits say "not a fixed-hardware button".
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless)
        // Without an interrupt remapping unit in the guest only physical destinations reach every vCPU.
        .flag(Flags::ForceApicPhysicalDestinationMode);
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.reset_reg = port(RESET_PORT);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = port(SLEEP_CONTROL_PORT);
    fadt.sleep_status_reg = port(SLEEP_STATUS_PORT);
    fadt.finalize()
}

/// An 8-bit register in I/O space.
fn port(port: u16) -> GAS {
    GAS::new(
        GasSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        port.into(),
    )
}

/// The local APICs, and by omission: no I/O APIC, no 8259 pair (`PCAT_COMPAT` stays 0).
fn madt(vcpus: u8) -> MADT {
    let controller = LocalInterruptController::Address(LOCAL_APIC);
    let mut madt = MADT::new(OEM, TABLE, REVISION, controller);
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt
}

fn dsdt(machine: Machine) -> Sdt {
    let mut aml = Vec::new();
    let (s5, zero) = (SLEEP_TYPE_S5, 0_u8);
    Name::new(
        Path::new("\\_S5_"),
        &Package::new(vec![&s5, &zero, &zero, &zero]),
    )
    .to_aml_bytes(&mut aml);
    host_bridge(machine.window64, &mut aml);
    reserved_ecam(&mut aml);
    if machine.has_console {
        let ports = IO::new(UART_PORT, UART_PORT, 1, UART_PORTS.to_le_bytes()[0]);
        // Without an interrupt the driver polls: there is no I/O APIC that could deliver one.
        io_device("\\_SB_.COM1", &EISAName::new("PNP0501"), &ports, &mut aml);
    }
    let ports = IO::new(PANIC_PORT, PANIC_PORT, 1, 1);
    io_device("\\_SB_.PEVT", &"QEMU0001", &ports, &mut aml);
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, TABLE, REVISION);
    dsdt.append_slice(&aml);
    dsdt
}

/// The one PCI host bridge: bus 0, and the windows in which BARs lie.
fn host_bridge(window64: Option<GpaRange>, aml: &mut Vec<u8>) {
    let buses = AddressSpace::new_bus_number(0_u16, 0_u16);
    let window32 = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        low(MMIO32_START.raw()),
        low(MMIO32_END.raw() - 1),
        None,
    );
    let window64 = window64.map(|window| {
        AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            window.start().raw(),
            window.end().raw() - 1,
            None,
        )
    });
    let mut windows: Vec<&dyn Aml> = vec![&buses, &window32];
    windows.extend(window64.iter().map(|window| window as &dyn Aml));
    let (hid, cid) = (EISAName::new("PNP0A08"), EISAName::new("PNP0A03"));
    let zero = 0_u8;
    let control = Path::new("CTRL");
    Device::new(
        Path::new("\\_SB_.PCI0"),
        vec![
            &Name::new(Path::new("_HID"), &hid),
            &Name::new(Path::new("_CID"), &cid),
            &Name::new(Path::new("_UID"), &zero),
            &Name::new(Path::new("_SEG"), &zero),
            &Name::new(Path::new("_BBN"), &zero),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(windows)),
            // The third double word of the argument is the control that the kernel asks for.
            &Method::new(
                Path::new("_OSC"),
                4,
                false,
                vec![
                    &CreateDWordField::new(&control, &Arg(3), &8_u8),
                    &And::new(&control, &control, &OSC_GRANTED),
                    &Return::new(&Arg(3)),
                ],
            ),
        ],
    )
    .to_aml_bytes(aml);
}

/// Claims ECAM as a motherboard resource: Linux does not use it otherwise.
fn reserved_ecam(aml: &mut Vec<u8>) {
    let ecam = Memory32Fixed::new(true, low(ECAM_START.raw()), low(ECAM_BYTES));
    let hid = EISAName::new("PNP0C02");
    Device::new(
        Path::new("\\_SB_.ECAM"),
        vec![
            &Name::new(Path::new("_HID"), &hid),
            &Name::new(Path::new("_UID"), &0_u8),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&ecam])),
        ],
    )
    .to_aml_bytes(aml);
}

fn io_device(path: &str, hid: &dyn Aml, ports: &IO, aml: &mut Vec<u8>) {
    Device::new(
        Path::new(path),
        vec![
            &Name::new(Path::new("_HID"), hid),
            &Name::new(Path::new("_UID"), &0_u8),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![ports])),
        ],
    )
    .to_aml_bytes(aml);
}

/// An address of the machine that lies below 4 GiB, as all of [`jailed::machine`]'s do.
const fn low(address: u64) -> u32 {
    let [a, b, c, d, ..] = address.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

const _: () = assert!(MMIO32_END.raw() <= 1 << 32 && ECAM_START.raw() + ECAM_BYTES <= 1 << 32);
