//! What can go wrong between a plan and a running guest, and what the operator is told.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use iommu::isolation::CheckId;
use jailed::handoff::{KernelFault, Report as SetupReport, Stage};
use jailed::manifest::layer;

use super::{
    ending::{Role, RunEnd},
    violation::Call,
};
use crate::{
    error::{Blame, ErrorId, Report},
    plan::Plan,
};

/// A failure to start a guest, or to take it apart.
#[derive(Debug)]
pub(super) enum Fault {
    /// A call failed that has nothing to do with a device.
    Io {
        /// What was being done.
        doing: String,
        /// The errno.
        error: io::Error,
    },
    /// V or D could not build the guest.
    Setup {
        /// Which.
        role: Role,
        /// What it said.
        report: SetupReport,
    },
    /// V or D ended before the guest ran, without a word.
    DiedInSetup {
        /// Which.
        role: Role,
        /// How.
        status: Option<ExitStatus>,
        /// The forbidden call that it was killed for.
        call: Option<Call>,
    },
    /// V or D neither said that it is locked down nor ended.
    Silent {
        /// Which.
        role: Role,
        /// How long it was waited for.
        after: Duration,
        /// What it had done last, as it says.
        reached: Option<&'static str>,
    },
    /// A program that belongs beside `narrows` is not there.
    ProgramAbsent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Memory could not be had.
    Memory {
        /// What was being done.
        doing: &'static str,
        /// The errno.
        error: io::Error,
    },
    /// Something with a report of its own: a device, the IOMMU, the handoff.
    Reported(Box<Report>),
    /// A check that held when the plan was made fails now.
    Refused(Vec<Report>),
    /// The operator interrupted the set-up.
    Interrupted,
    /// The run is over before the guest ran.
    Ended(RunEnd),
}

impl From<Report> for Fault {
    fn from(report: Report) -> Self {
        Self::Reported(Box::new(report))
    }
}

impl Fault {
    /// An I/O failure while `doing` something.
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Io { doing, error }
    }

    /// The fault as the operator reads it.
    #[must_use]
    pub(super) fn into_reports(self, plan: &Plan) -> Vec<Report> {
        let start = format!("cannot start guest {}", plan.name);
        let report = match self {
            Self::Refused(reports) => return reports,
            Self::Reported(report) => *report,
            Self::Io { doing, error } => {
                not_permitted(&start, &doing, &error).unwrap_or_else(|| {
                    Report::new(
                        ErrorId::SpawnFailed,
                        start,
                        format!("{doing}: {error}"),
                        "see the kernel log; run it again when the cause is gone",
                    )
                })
            }
            Self::Memory { doing, error } => {
                not_permitted(&start, doing, &error).unwrap_or_else(|| {
                    Report::new(
                        ErrorId::MemoryUnavailable,
                        start,
                        format!("{doing} ({}): {error}", plan.memory.size),
                        "free memory or huge pages on the host, or ask for less in the guest file",
                    )
                })
            }
            Self::ProgramAbsent { path } => Report::new(
                ErrorId::SpawnFailed,
                start,
                format!("{} does not exist", path.display()),
                "install narrows, narrows-device and narrows-vcpu of one build into one folder",
            ),
            Self::DiedInSetup { role, status, call } => {
                let how = status.map_or_else(|| "without a status".to_owned(), |s| s.to_string());
                let how = call.map_or(how, |call| {
                    format!("killed for a forbidden call{}", call.words())
                });
                Report::new(
                    ErrorId::GuestSetUpFailed,
                    start,
                    format!("{} ended before the guest was built: {how}", role.program()),
                    "look for a kill or a lack of memory in the kernel log; if there is none, report this as a bug",
                )
            }
            Self::Silent {
                role,
                after,
                reached,
            } => Report::new(
                ErrorId::GuestSetUpFailed,
                start,
                format!(
                    "{} had not built the guest after {} seconds; its last stage: {}",
                    role.program(),
                    after.as_secs(),
                    reached.unwrap_or("none, it has not begun")
                ),
                "see in the kernel log what a device or KVM is stuck at; if it says nothing, report this as a bug",
            ),
            Self::Setup { role, report } => setup(plan, role, report),
            Self::Ended(end) => Report::new(
                ErrorId::ProcessKilled,
                start,
                end.sentence(),
                "run it again when the cause is gone",
            ),
            Self::Interrupted => Report::new(
                ErrorId::ProcessKilled,
                start,
                "a signal asked to stop while the guest was being built",
                "run it again; the host is as it was before",
            )
            .blamed_on(Blame::Operator),
        };
        vec![report]
    }
}

fn not_permitted(what: &str, doing: &str, error: &io::Error) -> Option<Report> {
    (error.kind() == io::ErrorKind::PermissionDenied).then(|| {
        Report::new(
            ErrorId::NotPermitted,
            what,
            format!("{doing}: {error}"),
            "run narrows as root",
        )
    })
}

/// What V or D said, in words.
fn setup(plan: &Plan, role: Role, report: SetupReport) -> Report {
    let what = format!("cannot start guest {}", plan.name);
    let errno = i32::try_from(report.errno).unwrap_or(0);
    let error = io::Error::from_raw_os_error(errno);
    let said = format!(
        "{}, stage {}, detail {:#x}: {error}",
        role.program(),
        report.stage,
        report.detail
    );
    let is = |stage: Stage| report.stage == stage as u32;
    if is(Stage::Kernel) {
        return Report::new(
            ErrorId::KernelFormat,
            what,
            format!("{}: {}", plan.kernel.display(), kernel_fault(report.detail)),
            "use a bzImage as distributions ship it (vmlinuz), or an ELF vmlinux with a PVH entry",
        );
    }
    if is(Stage::TooLittleRam) {
        return Report::new(
            ErrorId::MemoryInsufficient,
            what,
            format!(
                "kernel and initramfs need {} bytes at once; the guest has {} of RAM",
                report.detail, plan.memory.size
            ),
            "raise `memory` in the guest file, or make the initramfs smaller",
        )
        .blamed_on(Blame::Operator);
    }
    if is(Stage::ReadImage) {
        return Report::new(
            ErrorId::FileUnreadable,
            what,
            format!(
                "reading {} or the initramfs: {error}",
                plan.kernel.display()
            ),
            "check the file system that holds them",
        );
    }
    if is(Stage::CreateVm) || is(Stage::Capability) {
        return Report::new(
            CheckId::KvmAbsent,
            what,
            format!("KVM cannot make this VM: {said}"),
            "use a kernel from 6.1 on with hardware virtualization switched on in the firmware",
        );
    }
    if is(Stage::ConfigContradiction) || is(Stage::ConfigRead) {
        return Report::new(
            ErrorId::DeviceChanged,
            what,
            format!("the device's configuration space is not what sysfs showed: {said}"),
            "run it again; if it stays, the device's firmware or driver is at fault",
        );
    }
    if is(Stage::Lock) {
        let name = layer_name(report.detail);
        return Report::new(
            ErrorId::LockDownFailed,
            what,
            format!("{} could not put on {name}: {error}", role.program()),
            "use a kernel that has it",
        );
    }
    Report::new(
        ErrorId::GuestSetUpFailed,
        what,
        said,
        "see the kernel log; if it says nothing, report this as a bug",
    )
}

/// The layers that V and D put on themselves, in the kernel's words.
fn layer_name(bit: u64) -> &'static str {
    let is = |layer: u32| bit == u64::from(layer);
    if is(layer::NO_NEW_PRIVS) {
        "no_new_privs"
    } else if is(layer::NOT_DUMPABLE) {
        "PR_SET_DUMPABLE 0"
    } else if is(layer::MDWE) {
        "PR_SET_MDWE (Linux 6.3)"
    } else if is(layer::LANDLOCK) {
        "Landlock (Linux 5.13, CONFIG_SECURITY_LANDLOCK, and `landlock` among the modules of lsm=)"
    } else if is(layer::MSEAL) {
        "mseal (Linux 6.10)"
    } else if is(layer::RLIMITS) {
        "resource limits"
    } else {
        "its system call filter"
    }
}

fn kernel_fault(detail: u64) -> &'static str {
    let is = |fault: KernelFault| detail == fault as u64;
    if is(KernelFault::UnknownFormat) {
        "neither a bzImage nor an ELF file"
    } else if is(KernelFault::No64BitEntry) {
        "a bzImage without a 64-bit entry point (boot protocol 2.12 or later)"
    } else if is(KernelFault::NoPvhEntry) {
        "an ELF file without a PVH entry note (CONFIG_PVH)"
    } else if is(KernelFault::OutOfRange) {
        "an offset in the image points outside of the image or of RAM"
    } else {
        "not an x86-64 kernel"
    }
}
