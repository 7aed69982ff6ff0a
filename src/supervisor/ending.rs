//! How a run ended: one sentence for the operator and an exit status for the script.

use iommu::{Errno, bdf::Bdf, events::Access};
use jailed::{
    handoff::Ending,
    ring::{DeviceCall, DeviceFailure, LastExit},
};
use serde::Serialize;

use super::violation::Call;

/// One of the two processes beside the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// V, `narrows-vcpu`.
    Vcpu,
    /// D, `narrows-device`.
    Device,
}

impl Role {
    /// The program's name.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Vcpu => "narrows-vcpu",
            Self::Device => "narrows-device",
        }
    }
}

/// How the guest's run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "end", rename_all = "kebab-case")]
pub enum RunEnd {
    /// The guest powered itself off.
    PoweredOff,
    /// The guest asked for a reboot, and its file says `on_reboot = "exit"`.
    RebootRequested,
    /// The guest's kernel reported a panic.
    Panicked,
    /// A vCPU shut down by triple fault.
    TripleFault,
    /// KVM could not run the guest on.
    KvmFailed {
        /// `kvm_run.exit_reason`, or which call failed ([`LastExit::RUN`], [`LastExit::ROUTES`], [`LastExit::KEPT_WRITES`]).
        reason: u64,
        /// Suberror, hardware failure reason, errno, or the word that made no sense.
        detail: u64,
        /// The vCPU.
        vcpu: u64,
    },
    /// A device reported an uncorrectable error.
    DeviceFailed {
        /// Which, as D says.
        bdf: Option<Bdf>,
    },
    /// A call on a device failed while the guest ran.
    DeviceCallFailed {
        /// Which, as D says.
        bdf: Option<Bdf>,
        /// What was being done.
        doing: &'static str,
        /// The errno's name or number.
        errno: String,
    },
    /// The host asked for a device back.
    DeviceRequested {
        /// Which, as D says.
        bdf: Option<Bdf>,
    },
    /// The IOMMU stopped a request of a device, and the guest file asks to stop the guest then.
    DmaFault {
        /// Whose.
        bdf: Bdf,
        /// What was tried.
        access: Access,
        /// Where.
        address: u64,
        /// Why it was stopped, in the kernel's words.
        reason: String,
    },
    /// V or D was killed by a signal that the supervisor did not send.
    Killed {
        /// Which.
        role: Role,
        /// The signal's number.
        signal: i32,
        /// For SIGSYS: the call that was forbidden.
        call: Option<Call>,
    },
    /// V or D stopped itself: a bug of ours, or the other process broke the protocol.
    Broken {
        /// Which.
        role: Role,
        /// Its exit status.
        status: u8,
    },
    /// The supervisor was killed; the keeper took the guest down.
    Abandoned,
    /// The operator stopped the guest (SIGTERM, SIGINT, SIGHUP, or the console's escape).
    Stopped,
}

/// What V and D left behind about their end. Nothing in it is believed but to tell it to the operator.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastWords<'a> {
    /// V's last exit.
    pub(super) exit: LastExit,
    /// What D ended for.
    pub(super) failure: Option<DeviceFailure>,
    /// The guest's functions, by D's indices.
    pub(super) functions: &'a [Bdf],
}

impl LastWords<'_> {
    fn bdf(&self) -> Option<Bdf> {
        self.functions.get(self.failure?.function).copied()
    }

    /// What D was doing, and the errno.
    fn call(&self) -> (&'static str, String) {
        let Some(failure) = self.failure else {
            return ("a call", "no errno was left".to_owned());
        };
        let doing = match failure.call {
            DeviceCall::WriteCommand => "writing its command register",
            DeviceCall::SetIrqs => "setting its interrupts",
            DeviceCall::Reset => "the reset that the guest asked for",
            DeviceCall::Eventfd => "reading or firing an eventfd",
            DeviceCall::ErrorInterrupt | DeviceCall::RequestInterrupt => "a call",
        };
        (doing, errno(u64::from(failure.errno)))
    }
}

impl RunEnd {
    /// What an exit status of `role` means.
    #[must_use]
    pub(super) fn from_status(role: Role, status: u8, last: &LastWords<'_>) -> Self {
        let broken = Self::Broken { role, status };
        let Some(ending) = Ending::from_status(status) else {
            return broken;
        };
        // Each process may only say what it can know: neither speaks for the other.
        match (role, ending) {
            (Role::Vcpu, Ending::PoweredOff) => Self::PoweredOff,
            (Role::Vcpu, Ending::RebootRequested) => Self::RebootRequested,
            (Role::Vcpu, Ending::Panicked) => Self::Panicked,
            (Role::Vcpu, Ending::TripleFault) => Self::TripleFault,
            (Role::Vcpu, Ending::KvmFailed) => Self::KvmFailed {
                reason: last.exit.reason,
                detail: last.exit.detail,
                vcpu: last.exit.vcpu,
            },
            (Role::Device, Ending::DeviceFailed) => Self::DeviceFailed { bdf: last.bdf() },
            (Role::Device, Ending::DeviceCallFailed) => {
                let (doing, errno) = last.call();
                Self::DeviceCallFailed {
                    bdf: last.bdf(),
                    doing,
                    errno,
                }
            }
            (Role::Device, Ending::DeviceRequested) => Self::DeviceRequested { bdf: last.bdf() },
            (
                Role::Vcpu,
                Ending::DeviceFailed | Ending::DeviceCallFailed | Ending::DeviceRequested,
            )
            | (
                Role::Device,
                Ending::PoweredOff
                | Ending::RebootRequested
                | Ending::Panicked
                | Ending::TripleFault
                | Ending::KvmFailed,
            )
            | (_, Ending::SetupFailed | Ending::PeerBroken | Ending::Bug) => broken,
        }
    }

    /// Whether the guest brought it about, so that it may hide what it did before.
    #[must_use]
    pub(super) const fn is_the_guests(&self) -> bool {
        match self {
            Self::PoweredOff
            | Self::RebootRequested
            | Self::Panicked
            | Self::TripleFault
            | Self::KvmFailed { .. } => true,
            Self::DeviceFailed { .. }
            | Self::DeviceCallFailed { .. }
            | Self::DeviceRequested { .. }
            | Self::DmaFault { .. }
            | Self::Killed { .. }
            | Self::Broken { .. }
            | Self::Abandoned
            | Self::Stopped => false,
        }
    }

    /// The exit status of `narrows run`; docs/guest-file.md lists them.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::PoweredOff => 0,
            Self::RebootRequested => 20,
            Self::Panicked | Self::TripleFault | Self::KvmFailed { .. } => 21,
            Self::DeviceFailed { .. } | Self::DeviceCallFailed { .. } => 22,
            Self::Killed { .. } | Self::Abandoned => 23,
            Self::Broken { .. } => 24,
            Self::Stopped => 25,
            Self::DeviceRequested { .. } => 26,
            Self::DmaFault { .. } => 27,
        }
    }

    /// The sentence for the operator, without the guest's name.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::PoweredOff => "the guest powered off".to_owned(),
            Self::RebootRequested => {
                "the guest asked for a reboot, and on_reboot is \"exit\"".to_owned()
            }
            Self::Panicked => "the guest crashed: its kernel reported a panic".to_owned(),
            Self::TripleFault => "the guest crashed: triple fault".to_owned(),
            Self::KvmFailed {
                reason,
                detail,
                vcpu,
            } => gave_up(*reason, *detail, *vcpu),
            Self::DeviceFailed { bdf } => format!(
                "{} failed: it reported an uncorrectable error (AER); see the kernel log",
                device(*bdf)
            ),
            Self::DeviceCallFailed { bdf, doing, errno } => format!(
                "{} failed while the guest ran: {doing}: {errno}; see the kernel log",
                device(*bdf)
            ),
            Self::DeviceRequested { bdf } => format!("the host asked for {} back", device(*bdf)),
            Self::DmaFault {
                bdf,
                access,
                address,
                reason,
            } => format!(
                "the guest was stopped for a DMA fault of {bdf}: {access} at {address:#x} ({reason})"
            ),
            Self::Killed {
                role,
                call: Some(call),
                ..
            } => format!(
                "{} was killed for a forbidden call{}",
                role.program(),
                call.words()
            ),
            Self::Killed { role, signal, .. } => {
                format!("{} was killed by signal {signal}", role.program())
            }
            Self::Broken { role, status } => format!(
                "{} stopped itself (status {status}): a bug of ours, or the other process broke the protocol",
                role.program()
            ),
            Self::Abandoned => {
                "the supervisor is gone: the guest is stopped, its devices are given back"
                    .to_owned()
            }
            Self::Stopped => "the operator stopped the guest".to_owned(),
        }
    }
}

/// Why a vCPU runs no more, by V's last exit.
fn gave_up(reason: u64, detail: u64, vcpu: u64) -> String {
    match reason {
        LastExit::RUN => format!(
            "the guest crashed: KVM could not run vCPU {vcpu}: {}",
            errno(detail)
        ),
        LastExit::ROUTES => format!(
            "the guest crashed: KVM did not take the routes of its interrupts (vCPU {vcpu}): {}",
            errno(detail)
        ),
        LastExit::KEPT_WRITES => format!(
            "the guest crashed: what KVM keeps of its writes to ports contradicts itself (vCPU {vcpu}, {detail:#x})"
        ),
        _ => format!(
            "the guest crashed: KVM gave up on vCPU {vcpu} (exit reason {reason}, detail {detail:#x})"
        ),
    }
}

/// An errno's name or number, of a word that V or D left.
fn errno(word: u64) -> String {
    Errno::new(i32::try_from(word).unwrap_or(0)).to_string()
}

fn device(bdf: Option<Bdf>) -> String {
    bdf.map_or_else(|| "a device".to_owned(), |bdf| format!("device {bdf}"))
}
