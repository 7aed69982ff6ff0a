use std::{
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
};

use super::*;
use crate::{
    handoff::Handoff,
    ring::{Layout, VcpuSide},
    sys::shared::Shared,
};

/// The ring of a guest, from both of its sides.
fn sides() -> (VcpuSide, DeviceSide) {
    let handoff = Handoff::empty();
    let shared = Shared::anonymous(Layout::of(&handoff).size_bytes());
    let vcpu_side = VcpuSide::new(shared, &handoff).unwrap();
    (vcpu_side, DeviceSide::new(shared, &handoff).unwrap())
}

/// A receiver that has not taken so many bytes which came before, and the console's descriptor.
fn slow_receiver() -> (UnixStream, usize, UnixStream, ConsoleOut) {
    let (receiver, mut console) = UnixStream::pair().unwrap();
    console.set_nonblocking(true).unwrap();
    let before = std::iter::from_fn(|| console.write(&[0; WRITE_BYTES]).ok()).sum();
    let to = Fd::new(u32::try_from(console.as_raw_fd()).unwrap());
    (receiver, before, console, ConsoleOut::new(Some(to)))
}

#[test]
fn a_byte_leaves_the_ring_when_it_is_written_and_not_before() {
    let (vcpu_side, device_side) = sides();
    let (mut receiver, before, _console, mut out) = slow_receiver();
    let text: Vec<u8> = (0..3 * 4096_u16).map(|nth| (nth % 251) as u8).collect();
    let mut left = text.iter();
    let mut put = 0;
    let mut received = Vec::new();
    let mut bytes = [0; 4096];
    while received.len() < before + text.len() {
        while vcpu_side.console_has_room()
            && let Some(byte) = left.next()
        {
            assert!(vcpu_side.console_put(*byte));
            put += 1;
        }
        out.try_again();
        let again = out.drain(&device_side);
        let waiting = device_side.console_copy(&mut bytes);
        assert_eq!(again, (waiting > 0).then_some(RETRY_MS));
        if received.is_empty() {
            assert_eq!((put, waiting), (4096, 4096), "nothing is on its way");
        }
        // All that has left the ring has come.
        let has_left = before + put - waiting;
        while received.len() < has_left {
            let count = receiver.read(&mut bytes).unwrap();
            received.extend_from_slice(&bytes[..count]);
        }
        assert_eq!(received.len(), has_left);
    }
    assert_eq!(received[before..], text);
}

#[test]
fn a_slow_receiver_is_left_alone_for_a_while() {
    let (vcpu_side, device_side) = sides();
    let (mut receiver, before, _console, mut out) = slow_receiver();
    while vcpu_side.console_put(b'x') {}
    assert_eq!(out.drain(&device_side), Some(RETRY_MS));
    receiver.read_exact(&mut vec![0; before]).unwrap();
    for _ in 0..PATIENCE {
        assert_eq!(out.drain(&device_side), Some(RETRY_MS));
        assert_eq!(device_side.console_copy(&mut [0; 4096]), 4096);
    }
    assert_eq!(out.drain(&device_side), None);
    assert_eq!(device_side.console_copy(&mut [0; 4096]), 0);
}

#[test]
fn what_nobody_hears_is_dropped() {
    let (receiver, _, _console, unheard) = slow_receiver();
    drop(receiver);
    for mut out in [ConsoleOut::new(None), unheard] {
        let (vcpu_side, device_side) = sides();
        while vcpu_side.console_put(b'x') {}
        assert_eq!(out.drain(&device_side), None);
        assert_eq!(device_side.console_copy(&mut [0; 1]), 0);
    }
}
