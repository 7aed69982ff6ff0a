//! Surfaces of the kernel that a guest's processes have no use for.

use super::{
    attempt::{attempt, attempt_as_32_bit},
    calls,
    record::Tried,
    tries::{Tries, at, judge},
};
use crate::manifest::X32;

/// A13: code in the kernel itself. Neither is a module, which the kernel finds out after asking for the right.
pub(super) fn load_module(tries: &mut Tries<'_>) {
    tries.call_or(
        calls::FINIT_MODULE,
        [calls::NONE, at("\0"), 0, 0, 0, 0],
        &[calls::BAD_FD],
    );
    tries.call_or(
        calls::INIT_MODULE,
        [0, 0, at("\0"), 0, 0, 0],
        &[calls::NOT_EXECUTABLE, calls::FAULT],
    );
}

/// A19: programs for the kernel's machine.
pub(super) fn bpf(tries: &mut Tries<'_>) {
    const LOAD: usize = 5;
    const SOCKET_FILTER: u32 = 1;
    // `r0 = 0; exit`.
    let program = [0xB7_u64, 0x95];
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        program: u64,
        licence: u64,
        others: [u64; 14],
    }
    let load = Load {
        kind: SOCKET_FILTER,
        count: 2,
        program: program.as_ptr().expose_provenance() as u64,
        licence: at("GPL\0") as u64,
        others: [0; 14],
    };
    let place = core::ptr::from_ref(&load).expose_provenance();
    tries.call(calls::BPF, [LOAD, place, size_of::<Load>(), 0, 0, 0]);
}

/// A20: counters of the kernel's events.
pub(super) fn perf(tries: &mut Tries<'_>) {
    // Kind "software", size 64 as of the first version, event "processor's clock", the kernel included.
    let attributes = [1_u64 | 64 << 32, 0, 0, 0, 0, 0, 0, 0];
    let place = attributes.as_ptr().expose_provenance();
    tries.call(
        calls::PERF_EVENT_OPEN,
        [place, 0, calls::NONE, calls::NONE, 0, 0],
    );
}

/// A21: page faults of the kernel's answered from user space.
pub(super) fn faults(tries: &mut Tries<'_>) {
    tries.call(calls::USERFAULTFD, [0; 6]);
}

/// A22: calls by way of a ring, past every filter.
pub(super) fn uring(tries: &mut Tries<'_>) {
    let parameters = [0_u64; 15];
    let place = parameters.as_ptr().expose_provenance();
    tries.call(calls::IO_URING_SETUP, [1, place, 0, 0, 0, 0]);
}

/// A23: keys, which are the host's for whoever knows their numbers.
pub(super) fn keys(tries: &mut Tries<'_>) {
    const DESCRIBE: usize = 6;
    const GET_KEYRING: usize = 0;
    const USER_KEYRING: usize = (-4_isize).cast_unsigned();
    let key = tries.canaries().key;
    tries.call(calls::KEYCTL, [DESCRIBE, key, 0, 0, 0, 0]);
    tries.call(calls::KEYCTL, [GET_KEYRING, USER_KEYRING, 1, 0, 0, 0]);
    let args = [
        at("user\0"),
        at("narrows-try\0"),
        at("x\0"),
        1,
        USER_KEYRING,
        0,
    ];
    tries.call(calls::ADD_KEY, args);
}

/// A40: calls by other conventions, which a filter that knows one would let through.
pub(super) fn other_conventions(tries: &mut Tries<'_>) {
    const GETPID_AS_32_BIT: usize = 20;
    const GET_FS: usize = 0x1003;
    tries.one(|| judge(attempt_as_32_bit(GETPID_AS_32_BIT, [0; 3]), &[]));
    tries.call(calls::GETPID | X32 as usize, [0; 6]);
    let mut base = 0_u64;
    let place = core::ptr::from_mut(&mut base).expose_provenance();
    tries.call(calls::ARCH_PRCTL, [GET_FS, place, 0, 0, 0, 0]);
}

/// A41: the processor's ports.
pub(super) fn ports(tries: &mut Tries<'_>) {
    const DELAY: usize = 0x80;
    tries.call(calls::IOPERM, [DELAY, 1, 1, 0, 0, 0]);
    tries.call(calls::IOPL, [3, 0, 0, 0, 0, 0]);
}

/// B04: every option of `prctl` and `arch_prctl`.
pub(super) fn options(tries: &mut Tries<'_>) {
    const LAST: usize = 79;
    for option in 1..=LAST {
        tries.call_or(calls::PRCTL, [option, 0, 0, 0, 0, 0], &[calls::FAULT]);
    }
    for option in [0x1003, 0x1004, 0x1011, 0x1012, 0x1021, 0x1023, 0x5001] {
        tries.call_or(calls::ARCH_PRCTL, [option, 0, 0, 0, 0, 0], &[calls::FAULT]);
    }
}

/// C16: what bugs of the kernel have most often been found behind.
pub(super) fn rich_calls(tries: &mut Tries<'_>) {
    uring(tries);
    faults(tries);
    bpf(tries);
    perf(tries);
    keys(tries);
    tries.one(|| {
        // AF_NETLINK, raw, netfilter.
        match attempt(calls::SOCKET, [16, 3, 12, 0, 0, 0]) {
            Ok(_) => Tried::Reached,
            failed => judge(failed, &[]),
        }
    });
}
