//! Processes of a guest that are killed for a call: the operator is told which, or why it is not known.

use std::{collections::BTreeMap, process::Command, thread};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use crate::guest::GuestFile;

/// `clone`, and the flag that makes a thread of it: V and D start some, K and S none.
const CLONE: i64 = 56;
const CLONE_THREAD: u64 = 0x1_0000;

/// Runs a guest of two vCPUs under a filter that forbids new threads, and gives what the operator is told.
///
/// D dies of it while it builds its model.
pub(crate) fn thread_is_forbidden() -> String {
    let path = GuestFile::small("no-threads", "lspci").vcpus(2).write();
    // A filter is its thread's, and what that starts inherits it.
    let output = thread::spawn(move || {
        let flag = SeccompCmpOp::MaskedEq(CLONE_THREAD);
        let is_thread = SeccompCondition::new(0, SeccompCmpArgLen::Qword, flag, CLONE_THREAD);
        let rule = SeccompRule::new(vec![is_thread.unwrap()]).unwrap();
        let filter = SeccompFilter::new(
            BTreeMap::from([(CLONE, vec![rule])]),
            SeccompAction::Allow,
            SeccompAction::KillProcess,
            TargetArch::x86_64,
        );
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        apply_filter(&program).unwrap();
        Command::new("narrows")
            .args(["run", &path])
            .output()
            .unwrap()
    });
    let output = output.join().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}
