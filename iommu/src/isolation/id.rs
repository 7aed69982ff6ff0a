//! The ids of checks: stable, for guest files, scripts and documents.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{Check, Scope, row};

/// A check. Its name is the variant's in kebab-case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the row of the check says what each is")]
pub enum CheckId {
    // the host: what fences devices
    KvmAbsent = 0,
    NoIommu,
    NoInterruptRemapping,
    UnsafeInterrupts,
    NoiommuMode,
    NoSnoopControl,
    NoPrebootProtection,
    VfioNodeOpen,
    // the host: its kernel and memory
    CmdlineHazard,
    KernelConfig,
    KernelLockdown,
    KernelSysctls,
    KernelTainted,
    CpuVulnerable,
    SmtOn,
    MemlockLimit,
    KsmRunning,
    SwapOn,
    CoreDumps,
    // a function: what it is, and who has it
    DeviceNotAVf,
    LegacyBridge,
    DeviceHostDriver,
    DriverOverrideSet,
    VfAutoprobe,
    PfDriverKnownBad,
    // a function: what its NIC lets it do to its neighbours
    NicVfTrusted,
    NicVfSpoofCheck,
    NicVfMac,
    NicVfRssQuery,
    // a function: its group, and those it shares hardware with
    DeviceNoGroup,
    GroupShared,
    PfIdentity,
    LazyInvalidation,
    ReservedDirect,
    ReservedDirectRelaxable,
    FirmwareShared,
    // a function: the way to the IOMMU
    AcsMissing,
    AcsOverride,
    AtsEnabled,
    PriEnabled,
    PasidEnabled,
    PhantomFunctions,
    // a function: its own registers
    DeviceNoReset,
    ConfigUnreadable,
    BusMasterOn,
    DeviceErrors,
    IoBar,
    BarBelowPage,
    BarShared,
    MsixOutsideBar,
    RomPresent,
}

impl CheckId {
    /// How many there are; [`CheckId::RomPresent`] stays the last.
    pub const COUNT: usize = Self::RomPresent as usize + 1;

    /// All checks, in the order in which an operator reads them.
    pub fn all() -> impl Iterator<Item = Self> {
        row::all().map(|row| row.check.id)
    }

    /// The id as the operator reads it, e.g. `group-shared`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KvmAbsent => "kvm-absent",
            Self::NoIommu => "no-iommu",
            Self::NoInterruptRemapping => "no-interrupt-remapping",
            Self::UnsafeInterrupts => "unsafe-interrupts",
            Self::NoiommuMode => "noiommu-mode",
            Self::NoSnoopControl => "no-snoop-control",
            Self::NoPrebootProtection => "no-preboot-protection",
            Self::VfioNodeOpen => "vfio-node-open",
            Self::CmdlineHazard => "cmdline-hazard",
            Self::KernelConfig => "kernel-config",
            Self::KernelLockdown => "kernel-lockdown",
            Self::KernelSysctls => "kernel-sysctls",
            Self::KernelTainted => "kernel-tainted",
            Self::CpuVulnerable => "cpu-vulnerable",
            Self::SmtOn => "smt-on",
            Self::MemlockLimit => "memlock-limit",
            Self::KsmRunning => "ksm-running",
            Self::SwapOn => "swap-on",
            Self::CoreDumps => "core-dumps",
            Self::DeviceNotAVf => "device-not-a-vf",
            Self::LegacyBridge => "legacy-bridge",
            Self::DeviceHostDriver => "device-host-driver",
            Self::DriverOverrideSet => "driver-override-set",
            Self::VfAutoprobe => "vf-autoprobe",
            Self::PfDriverKnownBad => "pf-driver-known-bad",
            Self::NicVfTrusted => "nic-vf-trusted",
            Self::NicVfSpoofCheck => "nic-vf-spoof-check",
            Self::NicVfMac => "nic-vf-mac",
            Self::NicVfRssQuery => "nic-vf-rss-query",
            Self::DeviceNoGroup => "device-no-group",
            Self::GroupShared => "group-shared",
            Self::PfIdentity => "pf-identity",
            Self::LazyInvalidation => "lazy-invalidation",
            Self::ReservedDirect => "reserved-direct",
            Self::ReservedDirectRelaxable => "reserved-direct-relaxable",
            Self::FirmwareShared => "firmware-shared",
            Self::AcsMissing => "acs-missing",
            Self::AcsOverride => "acs-override",
            Self::AtsEnabled => "ats-enabled",
            Self::PriEnabled => "pri-enabled",
            Self::PasidEnabled => "pasid-enabled",
            Self::PhantomFunctions => "phantom-functions",
            Self::DeviceNoReset => "device-no-reset",
            Self::ConfigUnreadable => "config-unreadable",
            Self::BusMasterOn => "bus-master-on",
            Self::DeviceErrors => "device-errors",
            Self::IoBar => "io-bar",
            Self::BarBelowPage => "bar-below-page",
            Self::BarShared => "bar-shared",
            Self::MsixOutsideBar => "msix-outside-bar",
            Self::RomPresent => "rom-present",
        }
    }

    /// What is fixed about it.
    #[must_use]
    pub const fn check(self) -> &'static Check {
        &row::of(self).check
    }

    /// What its findings are about.
    #[must_use]
    pub const fn scope(self) -> Scope {
        row::of(self).find.scope()
    }

    /// The check of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|id| id.name() == name)
    }
}

impl fmt::Display for CheckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for CheckId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
