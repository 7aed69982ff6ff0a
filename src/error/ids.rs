//! The table of the tool's own errors: one row per stable id, each with a section in `docs/errors.md`. What checks of
//! the host find has its table in [`iommu::isolation`].

use std::fmt;

use serde::{Serialize, Serializer};

/// Who can remove the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// Who wrote the guest file or the command line.
    Operator,
    /// How the host is set up.
    Host,
    /// What the device is or does.
    Device,
    /// What the guest did.
    Guest,
    /// A bug of Narrows.
    Us,
}

/// How `narrows` ends, by exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Something failed.
    Failed = 1,
    /// A safety check refused: nothing was changed.
    Refused = 3,
    /// The command line is wrong.
    Usage = 64,
}

/// The stable name of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    missing_docs,
    reason = "the row of the table below and the section in docs/errors.md say what each is"
)]
pub enum ErrorId {
    // the guest file
    SpecUnreadable = 0,
    SpecSyntax,
    SpecUnknownKey,
    SpecMissingKey,
    SpecWrongType,
    BadName,
    BadSize,
    BadNumber,
    BadChoice,
    BadBdf,
    BadUuid,
    BadCmdline,
    BadOptOut,
    BadLayer,
    BadConsole,
    BadPeer,
    PeerInterface,
    FileUnreadable,
    KernelFormat,
    ImageSize,
    // the host and its capacity
    HostUnreadable,
    MachineMalformed,
    MachineReadOnly,
    FileExists,
    FileUnwritable,
    InterfaceAbsent,
    TooManyVcpus,
    MemoryInsufficient,
    HugepagesInsufficient,
    NumaNodeAbsent,
    LayoutImpossible,
    LayerAbsent,
    CgroupUnusable,
    TooManyGuests,
    // devices
    DeviceAbsent,
    DeviceListedTwice,
    TooManyDevices,
    TooManyVectors,
    AcceptUnused,
    PeerDma,
    DeviceQuarantined,
    DeviceInUse,
    RecoverNeeded,
    VfTokenWrong,
    // while a guest is set up and runs
    NotPermitted,
    DeviceBindFailed,
    DeviceOpenFailed,
    DeviceChanged,
    DeviceResetFailed,
    DeviceNotClean,
    QuarantineFailed,
    FaultsUnseen,
    DmaMapFailed,
    MemoryUnavailable,
    SpawnFailed,
    JailFailed,
    GuestSetUpFailed,
    LockDownFailed,
    ProcessKilled,
    InspectionMismatch,
    GuestNameTaken,
    GuestNotRunning,
    KeeperLost,
    SupervisorAbsent,
    HostNotRestored,
    RecoveryHeld,
    MemoryNotWiped,
    // what outlives a run
    StateUnreadable,
    StateUnwritable,
    StateDamaged,
    JournalDamaged,
    NotQuarantined,
    Bug,
    Usage,
}

/// One row: what is fixed about an error.
struct Row {
    id: ErrorId,
    name: &'static str,
    blame: Blame,
    exit: Exit,
}

const fn row(id: ErrorId, name: &'static str, blame: Blame, exit: Exit) -> Row {
    Row {
        id,
        name,
        blame,
        exit,
    }
}

const ROWS: [Row; ErrorId::COUNT] = {
    use Blame::{Device, Host, Operator, Us};
    use ErrorId as Id;
    use Exit::{Failed, Refused};
    [
        row(Id::SpecUnreadable, "spec-unreadable", Operator, Failed),
        row(Id::SpecSyntax, "spec-syntax", Operator, Failed),
        row(Id::SpecUnknownKey, "spec-unknown-key", Operator, Failed),
        row(Id::SpecMissingKey, "spec-missing-key", Operator, Failed),
        row(Id::SpecWrongType, "spec-wrong-type", Operator, Failed),
        row(Id::BadName, "bad-name", Operator, Failed),
        row(Id::BadSize, "bad-size", Operator, Failed),
        row(Id::BadNumber, "bad-number", Operator, Failed),
        row(Id::BadChoice, "bad-choice", Operator, Failed),
        row(Id::BadBdf, "bad-bdf", Operator, Failed),
        row(Id::BadUuid, "bad-uuid", Operator, Failed),
        row(Id::BadCmdline, "bad-cmdline", Operator, Failed),
        row(Id::BadOptOut, "bad-opt-out", Operator, Failed),
        row(Id::BadLayer, "bad-layer", Operator, Failed),
        row(Id::BadConsole, "bad-console", Operator, Failed),
        row(Id::BadPeer, "bad-peer", Operator, Failed),
        row(Id::PeerInterface, "peer-interface", Operator, Failed),
        row(Id::FileUnreadable, "file-unreadable", Operator, Failed),
        row(Id::KernelFormat, "kernel-format", Operator, Failed),
        row(Id::ImageSize, "image-size", Operator, Failed),
        row(Id::HostUnreadable, "host-unreadable", Host, Failed),
        row(Id::MachineMalformed, "machine-malformed", Operator, Failed),
        row(Id::MachineReadOnly, "machine-read-only", Operator, Failed),
        row(Id::FileExists, "file-exists", Operator, Failed),
        row(Id::FileUnwritable, "file-unwritable", Operator, Failed),
        row(Id::InterfaceAbsent, "interface-absent", Host, Failed),
        row(Id::TooManyVcpus, "too-many-vcpus", Operator, Failed),
        row(Id::MemoryInsufficient, "memory-insufficient", Host, Failed),
        row(
            Id::HugepagesInsufficient,
            "hugepages-insufficient",
            Host,
            Failed,
        ),
        row(Id::NumaNodeAbsent, "numa-node-absent", Operator, Failed),
        row(Id::LayoutImpossible, "layout-impossible", Host, Failed),
        row(Id::LayerAbsent, "layer-absent", Host, Refused),
        row(Id::CgroupUnusable, "cgroup-unusable", Host, Failed),
        row(Id::TooManyGuests, "too-many-guests", Host, Failed),
        row(Id::DeviceAbsent, "device-absent", Operator, Failed),
        row(
            Id::DeviceListedTwice,
            "device-listed-twice",
            Operator,
            Failed,
        ),
        row(Id::TooManyDevices, "too-many-devices", Operator, Failed),
        row(Id::TooManyVectors, "too-many-vectors", Operator, Failed),
        row(Id::AcceptUnused, "accept-unused", Operator, Failed),
        row(Id::PeerDma, "peer-dma", Operator, Failed),
        row(Id::DeviceQuarantined, "device-quarantined", Device, Refused),
        row(Id::DeviceInUse, "device-in-use", Operator, Refused),
        row(Id::RecoverNeeded, "recover-needed", Host, Refused),
        row(Id::VfTokenWrong, "vf-token-wrong", Operator, Refused),
        row(Id::NotPermitted, "not-permitted", Operator, Failed),
        row(Id::DeviceBindFailed, "device-bind-failed", Host, Failed),
        row(Id::DeviceOpenFailed, "device-open-failed", Host, Failed),
        row(Id::DeviceChanged, "device-changed", Device, Refused),
        row(
            Id::DeviceResetFailed,
            "device-reset-failed",
            Device,
            Refused,
        ),
        row(Id::DeviceNotClean, "device-not-clean", Device, Failed),
        row(Id::QuarantineFailed, "quarantine-failed", Host, Failed),
        row(Id::FaultsUnseen, "faults-unseen", Host, Refused),
        row(Id::DmaMapFailed, "dma-map-failed", Host, Failed),
        row(Id::MemoryUnavailable, "memory-unavailable", Host, Failed),
        row(Id::SpawnFailed, "spawn-failed", Host, Failed),
        row(Id::JailFailed, "jail-failed", Host, Failed),
        row(Id::GuestSetUpFailed, "guest-set-up-failed", Us, Failed),
        row(Id::LockDownFailed, "lock-down-failed", Host, Failed),
        row(Id::ProcessKilled, "process-killed", Host, Failed),
        row(Id::InspectionMismatch, "inspection-mismatch", Host, Refused),
        row(Id::GuestNameTaken, "guest-name-taken", Operator, Refused),
        row(Id::GuestNotRunning, "guest-not-running", Operator, Failed),
        row(Id::KeeperLost, "keeper-lost", Host, Failed),
        row(Id::SupervisorAbsent, "supervisor-absent", Operator, Failed),
        row(Id::HostNotRestored, "host-not-restored", Host, Failed),
        row(Id::RecoveryHeld, "recovery-held", Host, Failed),
        row(Id::MemoryNotWiped, "memory-not-wiped", Host, Failed),
        row(Id::StateUnreadable, "state-unreadable", Host, Failed),
        row(Id::StateUnwritable, "state-unwritable", Host, Failed),
        row(Id::StateDamaged, "state-damaged", Host, Refused),
        row(Id::JournalDamaged, "journal-damaged", Host, Refused),
        row(Id::NotQuarantined, "not-quarantined", Operator, Failed),
        row(Id::Bug, "bug", Us, Failed),
        row(Id::Usage, "usage", Operator, Exit::Usage),
    ]
};

// Every row stands at its id's place, so that a lookup is an index.
const _: () = {
    let mut index = 0;
    while index < ROWS.len() {
        assert!(ROWS[index].id as usize == index);
        index += 1;
    }
};

impl ErrorId {
    /// How many there are; [`ErrorId::Usage`] stays the last.
    pub const COUNT: usize = Self::Usage as usize + 1;

    /// All ids, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.id)
    }

    /// The id as the operator reads it, e.g. `group-shared`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Whose fault it is unless the report says otherwise.
    #[must_use]
    pub fn blame(self) -> Blame {
        self.row().blame
    }

    /// How `narrows` ends on it.
    #[must_use]
    pub fn exit(self) -> Exit {
        self.row().exit
    }

    fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }
}

impl From<iommu::Blame> for Blame {
    fn from(blame: iommu::Blame) -> Self {
        match blame {
            iommu::Blame::Operator => Self::Operator,
            iommu::Blame::Host => Self::Host,
            iommu::Blame::Device => Self::Device,
            iommu::Blame::Us => Self::Us,
        }
    }
}

impl fmt::Display for ErrorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for ErrorId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
