//! Faults as the driver of AMD-Vi logs them.
//!
//! *Source:* `iommu_print_event` and what it calls in `drivers/iommu/amd/iommu.c`, v6.1 to v7.2; after `flags` later
//! kernels may add fields:
//! ```text
//! vfio-pci 0000:04:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000f address=0x50000000 flags=0x0020]
//! AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:04:00.0 domain=0x000f address=0x50000000 flags=0x0020]
//! pci 0000:00:00.2: AMD-Vi: Event logged [INVALID_DEVICE_REQUEST device=0000:04:00.0 pasid=0x00000 address=0x… flags=0x…]
//! ```
//! The first form is that of a function which has a driver; there the function stands before the message. In the last
//! it is the IOMMU itself that stands there.

use super::{Access, DmaFault, Requester, hex, reason, requester, until};

/// The events that a device's request causes.
const EVENTS: &[&str] = &[
    "IO_PAGE_FAULT",
    "ILLEGAL_DEV_TABLE_ENTRY",
    "INVALID_DEVICE_REQUEST",
    "RMP_PAGE_FAULT",
];

/// `EVENT_FLAG_I`: an interrupt.
const FLAG_INTERRUPT: u64 = 0x008;
/// `EVENT_FLAG_RW`: a write.
const FLAG_WRITE: u64 = 0x020;

pub(super) fn parse(line: &str) -> Option<DmaFault> {
    const MESSAGE: &str = "AMD-Vi: Event logged [";
    let (before, event) = match line.strip_prefix(MESSAGE) {
        Some(event) => (None, event),
        None => {
            let (driver, rest) = until(line, " ")?;
            let (function, rest) = until(rest, ": ")?;
            let is_driver = !driver.is_empty()
                && driver
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            let function = Some(requester(function)?).filter(|_| is_driver);
            (Some(function?), rest.strip_prefix(MESSAGE)?)
        }
    };
    let (event, _) = until(event, "]")?;
    let (name, fields) = until(event, " ")?;
    let name = EVENTS.iter().find(|known| **known == name)?;
    let field = |key: &str| {
        fields.split(' ').find_map(|field| {
            let (found, value) = until(field, "=")?;
            (found == key).then_some(value.trim_end_matches(','))
        })
    };
    let flags = hex(field("flags")?)?;
    let named: Option<Requester> = match field("device") {
        Some(device) => Some(requester(device)?),
        None => None,
    };
    let address = field("address").or_else(|| field("gpa"))?;
    Some(DmaFault {
        requester: named.or(before)?,
        access: match name {
            _ if flags & FLAG_INTERRUPT != 0 => Access::Interrupt,
            &"IO_PAGE_FAULT" | &"RMP_PAGE_FAULT" if flags & FLAG_WRITE != 0 => Access::Write,
            &"IO_PAGE_FAULT" | &"RMP_PAGE_FAULT" => Access::Read,
            _ => Access::Request,
        },
        address: hex(address)?,
        reason: reason(&format!("{name}, flags {flags:#06x}")),
    })
}
