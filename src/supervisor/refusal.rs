//! What the operator is told when a device cannot be assigned.

use iommu::{IommuError as Error, bdf::Bdf, isolation::CheckId};

use super::fault::Fault;
use crate::error::{ErrorId, Id, Report};

/// The error of a device's set-up, in the tool's own words and ids.
pub(super) fn failed(bdf: Bdf, error: &Error) -> Fault {
    let (id, fix): (Id, _) = match error {
        Error::HostDriver { .. } => (
            CheckId::DeviceHostDriver.into(),
            "it was free when the plan was made; find out who bound it, then run again",
        ),
        Error::AttachForbidden { .. } => (
            CheckId::NoInterruptRemapping.into(),
            "switch on interrupt remapping in the firmware (VT-d or AMD-Vi) and remove intremap=off from the kernel's \
             command line; see /sys/kernel/iommu_groups/*/reserved_regions for firmware's own claims",
        ),
        Error::GroupNotViable { .. } => (
            CheckId::GroupShared.into(),
            "assign all members of the group to this guest, or move the device to a slot behind a port with ACS",
        ),
        Error::TokenRefused { .. } => (
            ErrorId::VfTokenWrong.into(),
            "write `vf_token` of this device as the owner of its PF has set it; leave it out where the PF is not bound \
             to vfio-pci",
        ),
        Error::NotPutBack { .. } => (
            ErrorId::HostNotRestored.into(),
            "clear its driver_override and unbind it by hand, then load vfio-pci and see the kernel log",
        ),
        Error::BindMismatch { .. } | Error::NodeTimeout { .. } | Error::Sysfs { .. } => (
            ErrorId::DeviceBindFailed.into(),
            "load vfio-pci (modprobe vfio-pci) and see the kernel log",
        ),
        Error::RegisterStuck { .. } => (
            ErrorId::DeviceResetFailed.into(),
            "reset the PF or the host; the device must not go to another guest in this state",
        ),
        Error::DeviceCall { call, .. } if call.contains("RESET") => (
            ErrorId::DeviceResetFailed.into(),
            "reset the PF or the host; the device must not go to another guest in this state",
        ),
        Error::ReadOnlyMachine { .. } => (
            ErrorId::MachineReadOnly.into(),
            "leave --root out, to use this host",
        ),
        Error::LargeMachine { .. } => (
            ErrorId::MachineMalformed.into(),
            "make the machine file anew with narrows capture",
        ),
        Error::Malformed { .. }
        | Error::NoFunction { .. }
        | Error::NoGroup { .. }
        | Error::NoCdev { .. }
        | Error::Open { .. }
        | Error::NodeBusy { .. }
        | Error::Unsupported { .. }
        | Error::DeviceCall { .. }
        | Error::SpaceCall { .. }
        | Error::MapFailed { .. }
        | Error::Unmappable(_)
        | Error::PeerUnsupported { .. }
        | Error::NothingAttached { .. }
        | Error::AttachedTwice { .. }
        | Error::NotOfThisSpace { .. }
        | Error::ShortConfig { .. }
        | Error::BadRegion { .. } => (
            ErrorId::DeviceOpenFailed.into(),
            "see the kernel log, and who else has the device open (fuser /dev/vfio/*)",
        ),
    };
    Report::new(id, format!("cannot assign {bdf}"), error.to_string(), fix).into()
}
