//! Faults as the driver of Intel's VT-d logs them.
//!
//! Newer kernels (v7.2 does, v6.12 does not) tell the PCI domain as well; older ones begin with the bus.
//!
//! *Source:* `dmar_fault_do_one` in `drivers/iommu/intel/dmar.c`, v5.4 to v7.2:
//! ```text
//! DMAR: [DMA Write NO_PASID] Request device [0000:04:00.0] fault addr 0x50000000 [fault reason 0x05] PTE Write ac…
//! DMAR: [DMA Write NO_PASID] Request device [04:00.0] fault addr 0x50000000 [fault reason 0x05] PTE Write access…
//! DMAR: [DMA Read PASID 0x1] Request device [04:00.0] fault addr 0x50000000 [fault reason 0x06] PTE Read access…
//! DMAR: [DMA Read] Request device [04:00.0] fault addr 50000000 [fault reason 06] PTE Read access is not set
//! DMAR: [DMA Read] Request device [04:00.0] PASID ffffffff fault addr 50000000 [fault reason 06] PTE Read access…
//! DMAR: [INTR-REMAP] Request device [04:00.0] fault index 0x10 [fault reason 0x22] Present field in the IRTE…
//! ```

use super::{Access, DmaFault, hex, reason, requester, until};

pub(super) fn parse(line: &str) -> Option<DmaFault> {
    let rest = line.strip_prefix("DMAR: [")?;
    let (kind, rest) = until(rest, "] Request device [")?;
    let (device, rest) = until(rest, "] ")?;
    let access = access(kind)?;
    let (place, rest) = until(rest, " [fault reason ")?;
    let (code, words) = until(rest, "]")?;
    let address = match access {
        Access::Interrupt => place.strip_prefix("fault index ")?,
        Access::Read | Access::Write | Access::Request => address(place)?,
    };
    Some(DmaFault {
        requester: requester(device)?,
        access,
        address: hex(address)?,
        reason: reason(&format!("reason {:#04x},{words}", hex(code)?)),
    })
}

fn access(kind: &str) -> Option<Access> {
    let (access, pasid) = match kind {
        "INTR-REMAP" => return Some(Access::Interrupt),
        _ => kind
            .strip_prefix("DMA Read")
            .map(|rest| (Access::Read, rest))
            .or_else(|| {
                kind.strip_prefix("DMA Write")
                    .map(|rest| (Access::Write, rest))
            })?,
    };
    let is_known = match pasid.strip_prefix(" PASID ") {
        Some(number) => hex(number).is_some(),
        None => matches!(pasid, "" | " NO_PASID"),
    };
    is_known.then_some(access)
}

/// `fault addr X`, with a PASID before it in kernels that always told one.
fn address(place: &str) -> Option<&str> {
    let place = match place.strip_prefix("PASID ") {
        Some(rest) => until(rest, " ")?.1,
        None => place,
    };
    place.strip_prefix("fault addr ")
}
