//! Checks of one function that is to be assigned.

use iommu::{
    bind::{VFIO_PCI, is_placeholder},
    topology::{HostBar, Interrupts},
};
use jailed::machine::PAGE_BYTES;

use super::{Asked, Case, DeviceCheck, Evidence};
use crate::{error::ErrorId, spec::OptOut};

/// Bytes of an entry of the MSI-X table, and of the pending bits of 64 entries.
const MSIX_ENTRY_BYTES: u64 = 16;
const MSIX_PENDING_BYTES: u64 = 8;

/// The rows, in the order in which an operator reads the refusals.
pub(super) const CHECKS: &[DeviceCheck] = &[
    DeviceCheck {
        id: ErrorId::DeviceNotAVf,
        opt_out: Some(OptOut::NotAVf),
        reason: "the guest could change what the next user gets: firmware, link, VFs",
        find: not_a_vf,
    },
    DeviceCheck {
        id: ErrorId::DeviceHostDriver,
        opt_out: None,
        reason: "a device in use would be taken away from the host",
        find: host_driver,
    },
    DeviceCheck {
        id: ErrorId::DriverOverrideSet,
        opt_out: None,
        reason: "two tools would fight over the device",
        find: driver_override_set,
    },
    DeviceCheck {
        id: ErrorId::DeviceNoGroup,
        opt_out: None,
        reason: "the device's DMA would not be translated",
        find: no_group,
    },
    DeviceCheck {
        id: ErrorId::GroupShared,
        opt_out: None,
        reason: "the guest could reach the other devices of the group by DMA",
        find: group_shared,
    },
    DeviceCheck {
        id: ErrorId::PfIdentity,
        opt_out: None,
        reason: "the VF's physical function could be used against all of the host's memory",
        find: pf_identity,
    },
    DeviceCheck {
        id: ErrorId::ReservedDirect,
        opt_out: None,
        reason: "the device would reach host memory that firmware has claimed for it",
        find: reserved_direct,
    },
    DeviceCheck {
        id: ErrorId::ReservedDirectRelaxable,
        opt_out: Some(OptOut::DirectRelaxable),
        reason: "firmware that still uses the device would lose its memory",
        find: reserved_direct_relaxable,
    },
    DeviceCheck {
        id: ErrorId::DeviceNoReset,
        opt_out: Some(OptOut::NoReset),
        reason: "state, and DMA under way, would pass from one guest to the next",
        find: no_reset,
    },
    DeviceCheck {
        id: ErrorId::ConfigUnreadable,
        opt_out: None,
        reason: "the interrupts, and which pages must stay unmapped, would be guesses",
        find: config_unreadable,
    },
    DeviceCheck {
        id: ErrorId::IoBar,
        opt_out: Some(OptOut::IoBar),
        reason: "the guest would miss the BAR: it is never shown one in I/O space",
        find: io_bar,
    },
    DeviceCheck {
        id: ErrorId::BarBelowPage,
        opt_out: None,
        reason: "mapping it would map a neighbour's registers, too",
        find: bar_below_page,
    },
    DeviceCheck {
        id: ErrorId::MsixOutsideBar,
        opt_out: None,
        reason: "the interrupt table could not be kept from the guest",
        find: msix_outside_bar,
    },
];

fn not_a_vf(case: &Case<'_>, asked: &Asked<'_>) -> Option<Evidence> {
    let function = asked.function;
    if function.physfn.is_some() {
        return None;
    }
    let vfs: Vec<String> = case
        .host
        .topology
        .vfs_of(function.bdf)
        .take(3)
        .map(|vf| vf.bdf.to_string())
        .collect();
    let fix = match vfs.is_empty() {
        true => "assign a VF".to_owned(),
        false => format!("assign one of its VFs, for instance {}", vfs.join(", ")),
    };
    Some(Evidence::new(
        format!("{}/physfn does not exist", function.path.display()),
        fix,
    ))
}

fn host_driver(_: &Case<'_>, asked: &Asked<'_>) -> Option<Evidence> {
    let function = asked.function;
    let driver = function.driver.as_deref().filter(|d| !is_placeholder(d))?;
    let evidence = Evidence::new(
        format!(
            "the host's driver {driver} has it ({}/driver)",
            function.path.display()
        ),
        format!(
            "echo {} > /sys/bus/pci/drivers/{driver}/unbind",
            function.bdf
        ),
    );
    Some(match function.physfn {
        Some(pf) => evidence.and(format!(
            "no driver takes new VFs when sriov_drivers_autoprobe of {pf} is 0 before they are created"
        )),
        None => evidence,
    })
}

fn driver_override_set(_: &Case<'_>, asked: &Asked<'_>) -> Option<Evidence> {
    let function = asked.function;
    let wanted = function
        .driver_override
        .as_deref()
        .filter(|d| !is_placeholder(d))?;
    Some(Evidence::new(
        format!(
            "{}/driver_override names {wanted}: somebody, perhaps driverctl, keeps it",
            function.path.display()
        ),
        format!(
            "driverctl unset-override {0}, or echo > /sys/bus/pci/devices/{0}/driver_override",
            function.bdf
        ),
    ))
}

fn no_group(case: &Case<'_>, asked: &Asked<'_>) -> Option<Evidence> {
    // Without any IOMMU, no-iommu says it for all.
    if asked.group.is_some() || case.host.topology.iommus.is_empty() {
        return None;
    }
    Some(Evidence::new(
        format!(
            "{}/iommu_group does not exist: no IOMMU translates for it",
            asked.function.path.display()
        ),
        "choose a device behind an IOMMU; firmware lists the scopes in the DMAR or IVRS table",
    ))
}

fn group_shared(case: &Case<'_>, asked: &Asked<'_>) -> Option<Evidence> {
    let (id, group) = asked.group?;
    let is_assigned = |bdf| case.spec.devices.iter().any(|wish| wish.bdf == bdf);
    let driver_of = |bdf| {
        let function = case.host.topology.functions.get(bdf);
        match function.and_then(|f| f.driver.as_deref()) {
            Some(driver) => format!("{bdf} (driver {driver})"),
            None => format!("{bdf} (no driver)"),
        }
    };
    let functions = group
        .members
        .iter()
        .filter(|bdf| !is_assigned(**bdf))
        .map(driver_of);
    let others = group.other_members.iter().cloned();
    let members: Vec<String> = functions.chain(others).collect();
    if members.is_empty() {
        return None;
    }
    Some(Evidence::new(
        format!("IOMMU group {} also holds {}", id.0, members.join(", ")),
        "assign all of them to this guest, or have them told apart: ACS on the ports above them",
    ))
}

fn pf_identity(case: &Case<'_>, asked: &Asked<'_>) -> Option<Evidence> {
    let pf = asked.function.physfn?;
    let (id, group) = case.host.topology.group_of(pf)?;
    (group.domain_type == "identity").then(|| {
        Evidence::new(
            format!("its PF {pf} is not translated: /sys/kernel/iommu_groups/{}/type is identity", id.0),
            "boot without iommu=pt and iommu.passthrough=1, or write DMA to that file with the PF unbound",
        )
    })
}

fn reserved_direct(_: &Case<'_>, asked: &Asked<'_>) -> Option<Evidence> {
    reserved(asked, "direct")
}

fn reserved_direct_relaxable(_: &Case<'_>, asked: &Asked<'_>) -> Option<Evidence> {
    reserved(asked, "direct-relaxable")
}

fn reserved(asked: &Asked<'_>, kind: &str) -> Option<Evidence> {
    let (id, group) = asked.group?;
    let regions: Vec<String> = group
        .reserved
        .iter()
        .filter(|region| region.kind == kind)
        .map(|region| region.range.to_string())
        .collect();
    if regions.is_empty() {
        return None;
    }
    Some(Evidence::new(
        format!(
            "/sys/kernel/iommu_groups/{}/reserved_regions has {kind} {}",
            id.0,
            regions.join(", ")
        ),
        "turn off the firmware feature that uses the device (RMRR, IVMD), or choose another",
    ))
}

fn no_reset(_: &Case<'_>, asked: &Asked<'_>) -> Option<Evidence> {
    // `bus` resets neighbours or needs there to be none, `pm` leaves to the device what it clears.
    const FUNCTION_LEVEL: [&str; 3] = ["flr", "af_flr", "device_specific"];
    let function = asked.function;
    let methods = &function.reset_methods;
    if methods
        .iter()
        .any(|method| FUNCTION_LEVEL.contains(&method.as_str()))
    {
        return None;
    }
    let path = function.path.display();
    Some(Evidence::new(
        if methods.is_empty() {
            format!("{path}/reset_method is empty: the kernel cannot reset it")
        } else {
            format!(
                "{path}/reset_method has {}, and none of {}",
                methods.join(" "),
                FUNCTION_LEVEL.join(", ")
            )
        },
        "choose a device with function-level reset",
    ))
}

fn config_unreadable(_: &Case<'_>, asked: &Asked<'_>) -> Option<Evidence> {
    let Interrupts::Unknown { reason } = asked.function.interrupts else {
        return None;
    };
    Some(Evidence::new(
        format!("{}/config: {reason}", asked.function.path.display()),
        "run as root; if it stays, the device's configuration space is malformed",
    ))
}

fn io_bar(_: &Case<'_>, asked: &Asked<'_>) -> Option<Evidence> {
    let (index, bar) = bars(asked).find(|(_, bar)| !bar.is_memory)?;
    Some(Evidence::new(
        format!(
            "BAR {index} lies in I/O space, {} at {:#x}",
            bar.len, bar.start
        ),
        "choose a device without I/O ports; VFs have none",
    ))
}

fn bar_below_page(_: &Case<'_>, asked: &Asked<'_>) -> Option<Evidence> {
    let (index, bar) = bars(asked).find(|(_, bar)| {
        let is_whole = bar.len.raw() >= PAGE_BYTES && bar.len.raw().is_power_of_two();
        bar.is_memory && !(is_whole && bar.start.is_multiple_of(PAGE_BYTES))
    })?;
    Some(Evidence::new(
        format!(
            "BAR {index} has {} at {:#x}: not whole pages of its own",
            bar.len, bar.start
        ),
        "boot with pci=resource_alignment=12@BDF for this device, or choose another",
    ))
}

fn msix_outside_bar(_: &Case<'_>, asked: &Asked<'_>) -> Option<Evidence> {
    let Interrupts::Msix {
        vectors,
        table_bar,
        table_offset,
        pba_bar,
        pba_offset,
    } = asked.function.interrupts
    else {
        return None;
    };
    let table_len = u64::from(vectors) * MSIX_ENTRY_BYTES;
    let pba_len = u64::from(vectors.div_ceil(64)) * MSIX_PENDING_BYTES;
    let (table, pba) = (u64::from(table_offset), u64::from(pba_offset));
    let fix = "the device is broken or lies; choose another";
    for (what, bar, offset, len) in [
        ("the MSI-X table", table_bar, table, table_len),
        ("the pending bits", pba_bar, pba, pba_len),
    ] {
        let room = asked
            .function
            .bars
            .get(usize::from(bar))
            .copied()
            .flatten()
            .filter(|bar| bar.is_memory)
            .map(|bar| bar.len.raw());
        if room.is_none_or(|room| offset + len > room) {
            let bar_is = room.map_or("no memory BAR".to_owned(), |room| {
                format!("{room:#x} bytes long")
            });
            return Some(Evidence::new(
                format!(
                    "{what} of {vectors} vectors would be at {offset:#x} of BAR {bar}, which is {bar_is}"
                ),
                fix,
            ));
        }
    }
    let do_overlap = table_bar == pba_bar && table < pba + pba_len && pba < table + table_len;
    do_overlap.then(|| {
        let why = format!(
            "its MSI-X table at {table:#x} and pending bits at {pba:#x} of BAR {table_bar} overlap"
        );
        Evidence::new(why, fix)
    })
}

fn bars<'a>(asked: &'a Asked<'_>) -> impl Iterator<Item = (usize, &'a HostBar)> {
    let bars = asked.function.bars.iter().enumerate();
    bars.filter_map(|(index, bar)| Some((index, bar.as_ref()?)))
}

impl Asked<'_> {
    /// Whether it is bound to vfio-pci by a kernel without device files.
    pub(in crate::plan) fn lacks_cdev(&self) -> bool {
        self.function.driver.as_deref() == Some(VFIO_PCI) && self.function.vfio_cdev.is_none()
    }
}
