//! Processes of a guest that are killed for a call: the operator is told which, or why it is not known.

use crate::{guest::GuestFile, host};

/// SIGSYS that no filter sent, to V of a guest without devices: it is told as what it looks like, and the sentence ends
/// with `why`.
pub(crate) fn signal_without_a_record(why: &str) {
    let mut guest = GuestFile::small("sigsys", "sleep:200").start();
    guest.wait_for("GUEST init=yes");
    host::shell(&format!("kill -SYS {}", guest.pid_of("narrows-vcpu")));
    let (status, transcript) = guest.end();
    let text = transcript.text();
    assert_eq!(status.code(), Some(23), "{text}");
    let sentence =
        format!("narrows-vcpu was killed for a forbidden call, which one is not known: {why}");
    assert!(text.contains(&sentence), "{text}");
}
