use iommu::events::Access;
use jailed::{
    handoff::Ending,
    ring::{DeviceCall, DeviceFailure, LastExit},
};

use super::ending::{LastWords, Role, RunEnd};

#[test]
fn every_kind_of_end_has_its_own_status() {
    let killed = RunEnd::Killed {
        role: Role::Vcpu,
        signal: 9,
        call: None,
    };
    let broken = RunEnd::Broken {
        role: Role::Device,
        status: 22,
    };
    let ends = [
        RunEnd::PoweredOff,
        RunEnd::RebootRequested,
        RunEnd::TripleFault,
        RunEnd::DeviceFailed { bdf: None },
        killed,
        broken,
        RunEnd::Stopped,
        RunEnd::DeviceRequested { bdf: None },
        RunEnd::DmaFault {
            bdf: "0000:04:00.0".parse().unwrap(),
            access: Access::Write,
            address: 0x5000_0000,
            reason: "reason 0x05".to_owned(),
        },
    ];
    let mut statuses: Vec<u8> = ends.iter().map(RunEnd::exit_status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    assert_eq!(statuses.len(), ends.len());
    // 1, 3 and 64 are the tool's own: error, refusal, usage.
    assert!(statuses.iter().all(|s| ![1, 3, 64].contains(s)));
}

#[test]
fn device_process_cannot_speak_for_the_guest() {
    let last = LastWords::default();
    for ending in [
        Ending::PoweredOff,
        Ending::RebootRequested,
        Ending::TripleFault,
    ] {
        let status = ending as u8;
        let end = RunEnd::from_status(Role::Device, status, &last);
        assert_eq!(
            end,
            RunEnd::Broken {
                role: Role::Device,
                status
            }
        );
    }
    let status = Ending::DeviceRequested as u8;
    let end = RunEnd::from_status(Role::Vcpu, status, &last);
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
    let last = LastWords::default();
    for status in 0..=u8::MAX {
        let end = RunEnd::from_status(Role::Vcpu, status, &last);
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

#[test]
fn a_failed_device_is_named_with_what_failed() {
    let functions = [
        "0000:01:10.0".parse().unwrap(),
        "0000:01:10.2".parse().unwrap(),
    ];
    let mut last = LastWords {
        failure: Some(DeviceFailure {
            call: DeviceCall::Reset,
            errno: 25,
            function: 1,
        }),
        functions: &functions,
        ..LastWords::default()
    };
    let end = RunEnd::from_status(Role::Device, Ending::DeviceCallFailed as u8, &last);
    assert_eq!(
        end.sentence(),
        "device 0000:01:10.2 failed while the guest ran: the reset that the guest asked for: ENOTTY; see the \
         kernel log"
    );
    let end = RunEnd::from_status(Role::Device, Ending::DeviceRequested as u8, &last);
    assert_eq!(
        end.sentence(),
        "the host asked for device 0000:01:10.2 back"
    );
    // An index that is none is not followed.
    last.failure = last.failure.map(|failure| DeviceFailure {
        function: usize::MAX,
        ..failure
    });
    let end = RunEnd::from_status(Role::Device, Ending::DeviceFailed as u8, &last);
    assert_eq!(end, RunEnd::DeviceFailed { bdf: None });
}

#[test]
fn what_kvm_gave_up_for_is_told_apart() {
    let told = |reason, detail| {
        let exit = LastExit {
            reason,
            detail,
            vcpu: 3,
            reserved: 0,
        };
        let last = LastWords {
            exit,
            ..LastWords::default()
        };
        RunEnd::from_status(Role::Vcpu, Ending::KvmFailed as u8, &last).sentence()
    };
    let expected = [
        (17, "KVM gave up on vCPU 3 (exit reason 17, detail 0xe)"),
        (LastExit::RUN, "KVM could not run vCPU 3: EFAULT"),
        (
            LastExit::ROUTES,
            "KVM did not take the routes of its interrupts (vCPU 3): EFAULT",
        ),
        (
            LastExit::KEPT_WRITES,
            "what KVM keeps of its writes to ports contradicts itself (vCPU 3, 0xe)",
        ),
    ];
    for (reason, sentence) in expected {
        assert_eq!(told(reason, 14), format!("the guest crashed: {sentence}"));
        // An exit's number has 32 bits: it is none of those that are no exits.
        assert_eq!(u32::try_from(reason).is_ok(), reason == 17);
    }
}
