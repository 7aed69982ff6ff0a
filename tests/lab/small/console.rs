//! The console of a guest whose end comes before its words have.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::guest::GuestFile;

/// A line of the guest's.
const LINE_BYTES: usize = 16;
/// More than all that lies between the guest and who reads: two pipes, a page in the supervisor, the queue to D.
const LINES: usize = 6400;

/// Claim: the last words of a guest reach a receiver who takes them slowly. When it powers off, the queue to D is full, and
/// so is everything behind it. Its last line it has only written to KVM's ring.
#[test]
#[ignore = "needs a lab host"]
fn last_words_of_a_guest_reach_a_slow_receiver() {
    let file = GuestFile::attacker("last-words");
    let mut child = Command::new("narrows")
        .args(["run", &file.write()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    rustix::pipe::fcntl_setpipe_size(&output, 4096).unwrap();
    let (mut text, mut bytes) = (Vec::new(), [0; 1024]);
    while !text.ends_with(b"GUEST init=yes\n") {
        let count = output.read(&mut bytes).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&bytes[..count]);
    }
    writeln!(input, "last-words {LINES}").unwrap();
    text.clear();
    // Until the guest waits for room.
    thread::sleep(Duration::from_secs(5));
    loop {
        let count = output.read(&mut bytes).unwrap();
        if count == 0 {
            break;
        }
        text.extend_from_slice(&bytes[..count]);
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let expected: Vec<u8> = (0..LINES)
        .flat_map(|nth| format!("{nth:015}\n").into_bytes())
        .collect();
    let is_same = text.iter().zip(&expected).take_while(|(a, b)| a == b);
    assert_eq!(is_same.count(), expected.len(), "of {}", text.len());
    assert_eq!(text.len(), LINES * LINE_BYTES);
}
