//! Records as kernels write them, and as nobody should be able to forge them.

use proptest::prelude::*;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

use super::*;
use crate::sys::audit::tests::killed_for;

/// What Linux 6.12 writes for `openat` in V.
const RECORD: &str = "audit(1795335835.732:123): auid=4294967295 uid=1879048194 gid=1879048194 ses=4294967295 \
    subj=unconfined pid=1234 comm=\"narrows-vcpu\" exe=\"/usr/bin/narrows-vcpu\" sig=31 arch=c000003e syscall=257 \
    compat=0 ip=0x7f2c code=0x80000000";

/// A message as the socket gives it.
fn message(kind: u16, text: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(text.as_bytes());
    bytes
}

fn parsed(text: &str) -> Option<Violation> {
    Violation::parse(&message(SECCOMP_RECORD, text))
}

#[test]
fn a_record_tells_who_was_killed_for_what() {
    let expected = Violation {
        pid: 1234,
        arch: ARCH_X86_64,
        number: 257,
    };
    assert_eq!(parsed(RECORD), Some(expected));
    // Without a security module, and with the length of the head counted in.
    let text = RECORD.replace(" subj=unconfined", "");
    let mut counted = message(SECCOMP_RECORD, &text);
    let len = u32::try_from(counted.len()).unwrap();
    counted[..4].copy_from_slice(&len.to_ne_bytes());
    assert_eq!(Violation::parse(&counted), Some(expected));
}

#[test]
fn what_is_no_kill_by_a_filter_is_nothing() {
    assert_eq!(Violation::parse(&message(1300, RECORD)), None);
    for (from, to) in [
        ("sig=31", "sig=0"),
        ("sig=31", "sig=-31"),
        ("sig=31 ", ""),
        ("pid=1234", "pid="),
        ("pid=1234", "pid=+1234"),
        ("pid=1234", "pid=99999999999"),
        ("arch=c000003e", "arch=x"),
        ("syscall=257 ", ""),
    ] {
        assert_eq!(parsed(&RECORD.replace(from, to)), None, "{to}");
    }
    assert_eq!(Violation::parse(b""), None);
    assert_eq!(Violation::parse(&[0xff; 40]), None);
}

#[test]
fn a_field_that_is_told_twice_is_not_believed() {
    for forged in ["pid=1", "syscall=0", "arch=40000003", "sig=31"] {
        let text = RECORD.replace("unconfined", &format!("x {forged}"));
        assert_eq!(parsed(&text), None, "{forged}");
    }
    // In quotes it is a word of its own only behind a space, and the kernel writes names with spaces in hex.
    let text = RECORD.replace("\"narrows-vcpu\"", "\"pid=1\"");
    assert_eq!(parsed(&text).unwrap().pid, 1234);
}

fn listening() -> (Violations, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (kernel, heard) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).unwrap();
    (Violations::of(Ok(heard)), kernel)
}

fn tell(kernel: &OwnedFd, text: &str) {
    send(kernel, &message(SECCOMP_RECORD, text), SendFlags::empty()).unwrap();
}

#[test]
fn the_newest_record_of_the_process_counts() {
    let (mut violations, kernel) = listening();
    tell(&kernel, RECORD);
    tell(&kernel, &RECORD.replace("syscall=257", "syscall=59"));
    tell(&kernel, &RECORD.replace("pid=1234", "pid=77"));
    let call = |number| Found::Call {
        arch: ARCH_X86_64,
        number,
    };
    assert_eq!(violations.look(1234), call(59));
    assert_eq!(violations.look(77), call(257));
    assert_eq!(violations.look(1), Found::Untold);
}

#[test]
fn a_storm_of_others_is_bounded() {
    let (mut violations, kernel) = listening();
    for pid in 0..1000 {
        let text = RECORD.replace("pid=1234", &format!("pid={pid}"));
        if send(&kernel, &message(SECCOMP_RECORD, &text), SendFlags::empty()).is_err() {
            violations.read();
            tell(&kernel, &text);
        }
    }
    while !matches!(violations.look(999), Found::Call { .. }) {}
    assert!(violations.kept.len() <= KEPT);
}

#[test]
fn the_operator_reads_a_name_or_why_there_is_none() {
    let words = |found| Call::from(found).words();
    let call = |arch, number| Found::Call { arch, number };
    assert_eq!(words(call(ARCH_X86_64, 257)), ": openat (257)");
    assert_eq!(words(call(ARCH_I386, 5)), ": a call of the 32-bit kind (5)");
    assert_eq!(
        words(call(ARCH_X86_64, X32 | 1)),
        ": a call of the x32 kind (1073741825)"
    );
    assert_eq!(
        words(Found::NoAudit),
        ", which one is not known: the kernel has no audit (CONFIG_AUDIT)"
    );
    assert_eq!(
        serde_json::to_string(&Call::from(call(ARCH_X86_64, 59))).unwrap(),
        r#"{"number":59,"name":"execve"}"#
    );
}

/// On this machine's kernel, where it has audit and lets us listen.
#[test]
#[expect(clippy::print_stderr, reason = "says what it leaves out")]
fn a_process_that_is_killed_for_a_call_is_told_with_it() {
    let mut violations = Violations::open();
    if violations.deafness() != Found::Untold {
        eprintln!("skipped: {:?}", violations.deafness());
        return;
    }
    // The program's loader makes both. Others are killed before, between and after.
    let calls = [libc::SYS_openat, libc::SYS_mmap, libc::SYS_openat];
    let killed = calls.map(|call| {
        let number = u32::try_from(call).unwrap();
        (killed_for(number), number)
    });
    for (pid, number) in killed {
        let arch = ARCH_X86_64;
        assert_eq!(violations.look(pid), Found::Call { arch, number });
    }
    assert_eq!(violations.look(std::process::id()), Found::Untold);
}

proptest! {
    #[test]
    fn any_bytes_are_a_violation_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
        Violation::parse(&bytes);
    }

    /// One character of a true record changed: who was killed is that process, another number, or nobody.
    #[test]
    fn a_changed_record_does_not_grow(at in 0..RECORD.len(), byte in 32_u8..127) {
        let mut text = RECORD.as_bytes().to_vec();
        text[at] = byte;
        let text = String::from_utf8(text).unwrap();
        if let Some(found) = parsed(&text) {
            // The changed byte may be a zero in front.
            let said = |key: &str, number: u32| {
                let mut values = text.split([' ', '\n']).filter_map(|word| word.strip_prefix(key));
                values.any(|value| value.parse() == Ok(number))
            };
            prop_assert!(said("pid=", found.pid) && said("syscall=", found.number));
        }
    }
}
