//! Why a step was not done, from what the kernel or a controller answered; and what is tried again.

use std::{
    thread,
    time::{Duration, Instant},
};

use iommu::error::{Errno, IommuError};

use crate::{
    sriov::StepFault,
    sys::nvme::{CommandFault, Status},
};

/// How long a step is tried while the answer is that it may go later, and what is awaited may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// An attribute of a VF, or a link.
    Netlink,
    /// A number of VFs.
    Count,
    /// A driver.
    Bind,
    /// A reset.
    Reset,
    /// A block device for oneself.
    Claim,
    /// An admin command.
    Command,
}

/// Answers after which the same may work, with the reason.
const BUSY: &[(Call, &[i32], &str)] = &[
    (
        Call::Netlink,
        &[libc::EAGAIN, libc::EBUSY],
        "i40e and ice answer so while the VF, or the PF, is being reset",
    ),
    (
        Call::Count,
        &[libc::EAGAIN],
        "the PF is being reset; EBUSY means that there are VFs already, which stays",
    ),
    (
        Call::Bind,
        &[libc::EAGAIN, libc::EBUSY],
        "another driver is just being probed",
    ),
    (
        Call::Reset,
        &[libc::EAGAIN],
        "somebody has the function locked",
    ),
    (
        Call::Claim,
        &[libc::EBUSY],
        "the host looks at a new device for a moment; who keeps it is in use",
    ),
    (
        Call::Command,
        &[libc::EAGAIN, libc::EBUSY, libc::EINTR],
        "the controller is being reset",
    ),
];

/// Answers of controllers after which the same may work.
const BUSY_STATUS: &[(Status, &str)] = &[
    (Status::new(0, 0x82), "the namespace is not ready yet"),
    (Status::new(0, 0x84), "a format is going on"),
];

fn is_busy(call: Call, errno: Errno) -> bool {
    BUSY.iter()
        .any(|(of, errnos, _)| *of == call && errnos.contains(&errno.raw()))
}

/// From an errno.
pub(super) fn refused(call: Call, doing: impl Into<String>, errno: Errno) -> StepFault {
    StepFault {
        doing: doing.into(),
        evidence: errno.to_string(),
        is_busy: is_busy(call, errno),
        is_ignored: false,
    }
}

/// From a file that could not be read or written.
pub(super) fn unread(call: Call, doing: impl Into<String>, error: &IommuError) -> StepFault {
    StepFault {
        doing: doing.into(),
        evidence: error.to_string(),
        is_busy: matches!(error, IommuError::Sysfs { errno, .. } if is_busy(call, *errno)),
        is_ignored: false,
    }
}

/// From a controller.
pub(super) fn command(doing: impl Into<String>, fault: &CommandFault) -> StepFault {
    StepFault {
        doing: doing.into(),
        evidence: fault.to_string(),
        is_busy: match fault {
            CommandFault::Kernel(error) => is_busy(Call::Command, Errno::of(error)),
            CommandFault::Controller(status) => BUSY_STATUS.iter().any(|(busy, _)| busy == status),
        },
        is_ignored: false,
    }
}

/// What is found before anything is done.
pub(super) fn found(doing: impl Into<String>, evidence: impl Into<String>) -> StepFault {
    StepFault {
        doing: doing.into(),
        evidence: evidence.into(),
        is_busy: false,
        is_ignored: false,
    }
}

/// What reads otherwise than asked, though the call went well.
pub(super) fn ignored(doing: impl Into<String>, evidence: impl Into<String>) -> StepFault {
    StepFault {
        is_ignored: true,
        ..found(doing, evidence)
    }
}

/// Tries as long as the answer is that it may go later.
pub(super) fn while_busy<T>(
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T, StepFault>,
) -> Result<T, StepFault> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Err(fault) if fault.is_busy && Instant::now() < deadline => thread::sleep(PAUSE),
            other => return other,
        }
    }
}

/// Waits until `is_there` says so; whether it did in time.
pub(super) fn await_that(
    patience: Duration,
    mut is_there: impl FnMut() -> Result<bool, StepFault>,
) -> Result<bool, StepFault> {
    let deadline = Instant::now() + patience;
    loop {
        if is_there()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(PAUSE);
    }
}
