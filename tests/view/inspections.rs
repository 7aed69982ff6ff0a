//! Records of inspections, made up: as an operator reads them, and as their schema says.

use narrows::{
    error::Color,
    inspect::{
        AllowedRule, Finding, Inspection, Proc, ProcessRecord, ReachableCall, State, inspect,
    },
    view,
};

use crate::{Form, golden};

fn finding(id: &str, state: State, evidence: &str, mismatches: &[&str]) -> Finding {
    Finding {
        id: id.to_owned(),
        state,
        evidence: evidence.to_owned(),
        mismatches: mismatches.iter().map(|said| (*said).to_owned()).collect(),
    }
}

fn process(role: &'static str, findings: Vec<Finding>) -> ProcessRecord {
    ProcessRecord {
        role,
        pid: 4711,
        uid: 1_879_048_194,
        reachable: vec![ReachableCall {
            number: 16,
            name: "ioctl".to_owned(),
        }],
        allowed: vec![
            AllowedRule {
                call: "ioctl".to_owned(),
                arguments: vec![
                    "argument 0: 0x11 to 0x12".to_owned(),
                    "argument 1: KVM_RUN".to_owned(),
                ],
                why: "runs the guest",
            },
            AllowedRule {
                call: "exit_group".to_owned(),
                arguments: Vec::new(),
                why: "ends with the guest",
            },
        ],
        findings,
    }
}

fn sound() -> Inspection {
    let findings = vec![
        finding(
            "seccomp",
            State::On,
            "2 threads, each under the filters of this build: 347 and 58 instructions",
            &[],
        ),
        finding(
            "mdwe",
            State::Told,
            "the process said so when it locked itself down",
            &[],
        ),
        finding(
            "mseal",
            State::Absent,
            "0x1000-0x2000 rw-s /memfd:narrows-ring (deleted) is not sealed",
            &[],
        ),
    ];
    let not_asked = finding(
        "cgroup",
        State::NotAsked,
        "it is in /system.slice/narrows@web.service, not in one of its guest",
        &[],
    );
    let findings = [findings, vec![not_asked]].concat();
    Inspection::new(
        "web",
        "2026-11-22T09:00:00Z".to_owned(),
        vec![process("vcpu", findings)],
    )
}

fn broken() -> Inspection {
    let findings = vec![finding(
        "descriptors",
        State::Mismatch,
        "",
        &[
            "descriptor 9 is one too many: /tmp/\x1b[2J",
            "descriptor 3, the VM, is not there",
        ],
    )];
    Inspection::new(
        "web",
        "2026-11-22T09:00:00Z".to_owned(),
        vec![process("device", findings)],
    )
}

#[test]
fn inspections_read_as_agreed() {
    golden(
        "inspect-match.txt",
        &view::inspection_text(&sound(), true, Color::Never),
    );
    golden(
        "inspect-mismatch.txt",
        &view::inspection_text(&broken(), false, Color::Never),
    );
}

#[test]
fn inspections_as_json_have_the_published_form() {
    let form = Form::published("inspect");
    for (name, record) in [("match", sound()), ("mismatch", broken())] {
        form.holds(name, &record.to_json().unwrap());
        let line = record.to_line().unwrap();
        assert!(
            !line.contains('\n') && !line.contains("allowed\""),
            "{line}"
        );
        form.holds(name, &line);
    }
}

/// Nothing to look at is no match.
#[test]
fn an_inspection_of_nothing_is_a_mismatch() {
    let record = inspect(
        &Proc::new("/nonexistent", "/nonexistent"),
        "web",
        "now".to_owned(),
        &[],
        &[],
    );
    assert_eq!(record.verdict, narrows::inspect::Verdict::Mismatch);
}
