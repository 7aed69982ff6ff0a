//! The tool's own errors: one row per stable id (`rows` and `host_rows`), each with a section in `docs/errors.md`. What
//! checks of the host find has its table in [`iommu::isolation`].

use std::fmt;

use serde::{Serialize, Serializer};

use super::{host_rows, rows};

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
    /// There is something to do, or something differs.
    Changes = 2,
    /// A safety check refused: nothing was changed.
    Refused = 3,
    /// Done as far as it goes: firmware or a reboot is needed.
    Needed = 4,
    /// The command line is wrong.
    Usage = 64,
}

/// The stable name of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    missing_docs,
    reason = "the row of the table and the section in docs/errors.md say what each is"
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
    // the host file
    BadMac,
    MacMulticast,
    MacListedTwice,
    MacRangeSmall,
    BadVlan,
    BadRate,
    BadRanges,
    BadDuration,
    PoolListedTwice,
    PoolUnknown,
    PoolKind,
    PoolsOverlap,
    TooManyPools,
    VfIndex,
    VfListedTwice,
    PfMatch,
    PfListedTwice,
    NamespaceListedTwice,
    ProfileMalformed,
    ProfileUnknown,
    PoolWeak,
    SafetyOff,
    // the host file against the host
    PfAbsent,
    PfAmbiguous,
    VfsOvercommitted,
    RateBeyondLink,
    RateOvercommitted,
    ResourcesOvercommitted,
    NamespaceAbsent,
    NamespaceOvercommitted,
    NamespaceUnmanaged,
    NamespaceShared,
    AttributeUnsupported,
    EraseUnsupported,
    EswitchUnsupported,
    ProfileGeneric,
    FirmwareNeeded,
    NvmeVfManages,
    // what stands in the way of a change of the host
    PfDefaultRoute,
    PfOnlyRoute,
    PfLogin,
    PfRootDisk,
    PfMounted,
    NamespaceOpen,
    VfHostUsed,
    VfInUse,
    PfAssigned,
    ManagedElsewhere,
    FactsUnread,
    // while a host is changed
    PlanStale,
    HostBusy,
    StepFailed,
    StepNotDone,
    UndoIncomplete,
    NotConfirmed,
    NothingToConfirm,
    NeverApplied,
    EraseFailed,
    // leases of VFs, and what is kept of them
    PoolExhausted,
    PoolUnapplied,
    LeaseForeign,
    VfStateDamaged,
    RecordMismatch,
    NotLeased,
    // any
    Bug,
    Usage,
}

/// One row: what is fixed about an error.
#[derive(Clone, Copy)]
pub(super) struct Row {
    id: ErrorId,
    name: &'static str,
    blame: Blame,
    exit: Exit,
}

pub(super) const fn row(id: ErrorId, name: &'static str, blame: Blame, exit: Exit) -> Row {
    Row {
        id,
        name,
        blame,
        exit,
    }
}

/// The table, in the order of the ids.
const ROWS: [Row; ErrorId::COUNT] = joined(&[rows::ROWS, host_rows::ROWS, LAST_ROWS]);

const LAST_ROWS: &[Row] = &[
    row(ErrorId::Bug, "bug", Blame::Us, Exit::Failed),
    row(ErrorId::Usage, "usage", Blame::Operator, Exit::Usage),
];

/// The parts one behind the other. A part with a row too many does not compile.
const fn joined(parts: &[&[Row]]) -> [Row; ErrorId::COUNT] {
    let mut all = [LAST_ROWS[0]; ErrorId::COUNT];
    let (mut part, mut place) = (0, 0);
    while part < parts.len() {
        let mut index = 0;
        while index < parts[part].len() {
            all[place] = parts[part][index];
            place += 1;
            index += 1;
        }
        part += 1;
    }
    all
}

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
