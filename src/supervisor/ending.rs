//! How a run ended: one sentence for the operator and an exit status for the script.

use jailed::{handoff::Ending, ring::LastExit};
use serde::Serialize;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
        /// `kvm_run.exit_reason`.
        reason: u64,
        /// Suberror, hardware failure reason or errno.
        detail: u64,
        /// The vCPU.
        vcpu: u64,
    },
    /// A device reported an uncorrectable error.
    DeviceFailed,
    /// A call on a device failed while the guest ran.
    DeviceCallFailed,
    /// The host asked for a device back.
    DeviceRequested,
    /// V or D was killed by a signal that the supervisor did not send.
    Killed {
        /// Which.
        role: Role,
        /// The signal's number.
        signal: i32,
    },
    /// V or D stopped itself: a bug of ours, or the other process broke the protocol.
    Broken {
        /// Which.
        role: Role,
        /// Its exit status.
        status: u8,
    },
    /// The operator stopped the guest (SIGTERM, SIGINT, SIGHUP, or the console's escape).
    Stopped,
}

impl RunEnd {
    /// What an exit status of `role` means.
    #[must_use]
    pub fn from_status(role: Role, status: u8, last: LastExit) -> Self {
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
                reason: last.reason,
                detail: last.detail,
                vcpu: last.vcpu,
            },
            (Role::Device, Ending::DeviceFailed) => Self::DeviceFailed,
            (Role::Device, Ending::DeviceCallFailed) => Self::DeviceCallFailed,
            (Role::Device, Ending::DeviceRequested) => Self::DeviceRequested,
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

    /// The exit status of `narrows run`; docs/guest-file.md lists them.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::PoweredOff => 0,
            Self::RebootRequested => 20,
            Self::Panicked | Self::TripleFault | Self::KvmFailed { .. } => 21,
            Self::DeviceFailed | Self::DeviceCallFailed => 22,
            Self::Killed { .. } => 23,
            Self::Broken { .. } => 24,
            Self::Stopped => 25,
            Self::DeviceRequested => 26,
        }
    }

    /// The sentence for the operator, without the guest's name.
    #[must_use]
    pub fn sentence(self) -> String {
        match self {
            Self::PoweredOff => "the guest powered off".to_owned(),
            Self::RebootRequested => "the guest asked for a reboot, and on_reboot is \"exit\"".to_owned(),
            Self::Panicked => "the guest crashed: its kernel reported a panic".to_owned(),
            Self::TripleFault => "the guest crashed: triple fault".to_owned(),
            Self::KvmFailed { reason, detail, vcpu } => format!(
                "the guest crashed: KVM gave up on vCPU {vcpu} (exit reason {reason}, detail {detail:#x})"
            ),
            Self::DeviceFailed => {
                "a device failed: it reported an uncorrectable error (AER); see the kernel log".to_owned()
            }
            Self::DeviceCallFailed => {
                "a device failed: the kernel refused a call on it while the guest ran; see the kernel log"
                    .to_owned()
            }
            Self::DeviceRequested => "the host asked for a device back".to_owned(),
            Self::Killed { role, signal } => {
                format!("{} was killed by signal {signal}", role.program())
            }
            Self::Broken { role, status } => format!(
                "{} stopped itself (status {status}): a bug of ours, or the other process broke the protocol",
                role.program()
            ),
            Self::Stopped => "the operator stopped the guest".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_end_has_its_own_status() {
        let killed = RunEnd::Killed {
            role: Role::Vcpu,
            signal: 9,
        };
        let broken = RunEnd::Broken {
            role: Role::Device,
            status: 22,
        };
        let ends = [
            RunEnd::PoweredOff,
            RunEnd::RebootRequested,
            RunEnd::TripleFault,
            RunEnd::DeviceFailed,
            killed,
            broken,
            RunEnd::Stopped,
            RunEnd::DeviceRequested,
        ];
        let mut statuses: Vec<u8> = ends.iter().map(|end| end.exit_status()).collect();
        statuses.sort_unstable();
        statuses.dedup();
        assert_eq!(statuses.len(), ends.len());
        // 1, 3 and 64 are the tool's own: error, refusal, usage.
        assert!(statuses.iter().all(|s| ![1, 3, 64].contains(s)));
    }

    #[test]
    fn device_process_cannot_speak_for_the_guest() {
        let last = LastExit::default();
        for ending in [
            Ending::PoweredOff,
            Ending::RebootRequested,
            Ending::TripleFault,
        ] {
            let status = ending as u8;
            let end = RunEnd::from_status(Role::Device, status, last);
            assert_eq!(
                end,
                RunEnd::Broken {
                    role: Role::Device,
                    status
                }
            );
        }
        let status = Ending::DeviceRequested as u8;
        let end = RunEnd::from_status(Role::Vcpu, status, last);
        assert_eq!(
            end,
            RunEnd::Broken {
                role: Role::Vcpu,
                status
            }
        );
    }

    #[test]
    fn unknown_status_is_a_bug_and_not_an_ordinary_end() {
        let last = LastExit::default();
        for status in 0..=u8::MAX {
            let end = RunEnd::from_status(Role::Vcpu, status, last);
            if Ending::from_status(status).is_none() {
                assert_eq!(
                    end,
                    RunEnd::Broken {
                        role: Role::Vcpu,
                        status
                    }
                );
            }
        }
    }
}
