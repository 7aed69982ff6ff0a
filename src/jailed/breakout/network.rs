//! Sockets: of the network, of other processes, of the kernel.

use super::{
    attempt::attempt,
    calls,
    tries::{Tries, judge, then},
    words::SOCKET as NAME,
};
use crate::sys::syscall::Errno;

const STREAM: usize = 1;
const DATAGRAM: usize = 2;
const RAW: usize = 3;
const PACKETS: usize = 5;
const UNIX: usize = 1;

/// A26 and B05: every family of sockets, the rare ones too.
pub(super) fn families(tries: &mut Tries<'_>) {
    const FAMILIES: usize = 46;
    // A family, a kind or a protocol that is not there: EAFNOSUPPORT, ESOCKTNOSUPPORT, EPROTONOSUPPORT.
    const UNKNOWN: [Errno; 3] = [Errno(97), Errno(94), Errno(93)];
    for family in 0..FAMILIES {
        tries.one(|| {
            let open = |kind| attempt(calls::SOCKET, [family, kind, 0, 0, 0, 0]);
            let answers = [STREAM, DATAGRAM, RAW, PACKETS].map(open);
            let is_telling = |answer: &&Result<usize, Errno>| {
                answer.is_err_and(|errno| !UNKNOWN.contains(&errno))
            };
            let works = answers.iter().find(|answer| answer.is_ok());
            let best = works.or_else(|| answers.iter().find(is_telling));
            judge(*best.unwrap_or(&answers[0]), &[])
        });
    }
}

/// A27: a socket of the host's that has a name and no file.
pub(super) fn abstract_socket(tries: &mut Tries<'_>) {
    // Family, a zero, the name.
    let mut address = [0_u8; 64];
    address[0] = 1;
    for (to, byte) in address.iter_mut().skip(3).zip(NAME) {
        *to = *byte;
    }
    let place = address.as_ptr().expose_provenance();
    let length = 3 + NAME.len();
    tries.one(|| {
        then(
            attempt(calls::SOCKET, [UNIX, STREAM, 0, 0, 0, 0]),
            &[],
            |socket| {
                judge(
                    attempt(calls::CONNECT, [socket, place, length, 0, 0, 0]),
                    &[],
                )
            },
        )
    });
}

/// C13: descriptors by way of a socket, a new one or one that was left.
pub(super) fn messages(tries: &mut Tries<'_>) {
    let mut pair = [0_u32; 2];
    let pair = pair.as_mut_ptr().expose_provenance();
    tries.call(calls::SOCKET, [UNIX, STREAM, 0, 0, 0, 0]);
    tries.call(calls::SOCKETPAIR, [UNIX, STREAM, 0, pair, 0, 0]);
    let message = [0_u64; 7];
    let message = message.as_ptr().expose_provenance();
    for fd in tries.descriptors() {
        tries.call(calls::SENDMSG, [fd, message, 0, 0, 0, 0]);
        // Without waiting for one.
        const DONT_WAIT: usize = 0x40;
        tries.call_or(calls::RECVMSG, [fd, message, DONT_WAIT, 0, 0, 0], &[11]);
    }
}
