//! Ways to other processes, to new ones, and to more privilege.

use super::{
    attempt::{attempt, attempt_birth},
    calls,
    record::Tried,
    tries::{Tries, at, judge, then},
};

/// A15: tracing a process of the host's.
pub(super) fn trace(tries: &mut Tries<'_>) {
    let canaries = tries.canaries();
    for pid in [canaries.pid, canaries.keeper] {
        tries.one(|| seize(pid));
    }
}

/// Begins to trace a process. The attacker in the other process may be tracing it, which ends with that attacker: it is
/// tried again and again.
fn seize(pid: usize) -> Tried {
    const SEIZE: usize = 0x4206;
    const TIMES: usize = 25;
    let a_moment = [0_u64, 20_000_000];
    let place = a_moment.as_ptr().expose_provenance();
    let mut answer = Tried::Absent;
    for _ in 0..TIMES {
        answer = judge(attempt(calls::PTRACE, [SEIZE, pid, 0, 0, 0, 0]), &[]);
        if answer != Tried::Blocked(calls::NOT_PERMITTED)
            || attempt(calls::NANOSLEEP, [place, 0, 0, 0, 0, 0]).is_err()
        {
            break;
        }
    }
    answer
}

/// A16: reading a process of the host's: its memory, its descriptors.
pub(super) fn read_process(tries: &mut Tries<'_>) {
    let canaries = tries.canaries();
    let mut byte = 0_u8;
    // Base and length of one byte of our own; of the other's there is none at 4096, which the kernel finds out last.
    let own = [core::ptr::from_mut(&mut byte).expose_provenance(), 1];
    let other = [4096_usize, 1];
    for pid in [canaries.pid, canaries.keeper] {
        let args = [
            pid,
            own.as_ptr().expose_provenance(),
            1,
            other.as_ptr().expose_provenance(),
            1,
            0,
        ];
        tries.call_or(calls::PROCESS_VM_READV, args, &[calls::FAULT]);
        tries.call_or(calls::PROCESS_VM_WRITEV, args, &[calls::FAULT]);
        tries.one(|| {
            then(
                attempt(calls::PIDFD_OPEN, [pid, 0, 0, 0, 0, 0]),
                &[],
                |pidfd| judge(attempt(calls::PIDFD_GETFD, [pidfd, 0, 0, 0, 0, 0]), &[]),
            )
        });
    }
    tries.call(
        calls::OPENAT,
        [calls::HERE, at("/proc/1/mem\0"), 0, 0, 0, 0],
    );
}

/// A17: signals to processes of the host's. Signal 0 asks for permission and sends nothing.
pub(super) fn signal(tries: &mut Tries<'_>) {
    let canaries = tries.canaries();
    for pid in [canaries.pid, canaries.keeper] {
        tries.call(calls::KILL, [pid, 0, 0, 0, 0, 0]);
        tries.call(calls::PIDFD_OPEN, [pid, 0, 0, 0, 0, 0]);
    }
    tries.call(calls::KILL, [calls::NONE, 0, 0, 0, 0, 0]);
}

/// A18: a user namespace of one's own, in which one is root.
pub(super) fn user_namespace(tries: &mut Tries<'_>) {
    const NEW_USER: usize = 0x1000_0000;
    const CHILD_SIGNAL: usize = 17;
    tries.one(|| {
        judge(
            attempt_birth(calls::CLONE, [NEW_USER | CHILD_SIGNAL, 0, 0, 0]),
            &[],
        )
    });
    tries.call(calls::UNSHARE, [NEW_USER, 0, 0, 0, 0, 0]);
}

/// A38: a program that changes its user. The helper of the harness ends normally only as the user that owns it.
pub(super) fn set_uid_program(tries: &mut Tries<'_>) {
    tries.call(
        calls::EXECVE,
        [at("/tmp/breakout/set-uid\0"), 0, 0, 0, 0, 0],
    );
}

/// C10: another program in place of this one, from a file and from memory.
pub(super) fn other_program(tries: &mut Tries<'_>) {
    const EMPTY_PATH: usize = 0x1000;
    for path in ["/bin/true\0", "/proc/self/exe\0"] {
        tries.call(calls::EXECVE, [at(path), 0, 0, 0, 0, 0]);
    }
    tries.one(|| {
        let made = attempt(calls::MEMFD_CREATE, [at("x\0"), 0, 0, 0, 0, 0]);
        then(made, &[], |fd| {
            let args = [fd, at("\0"), 0, 0, EMPTY_PATH, 0];
            // An empty file is no program, which the kernel finds out last.
            judge(attempt(calls::EXECVEAT, args), &[calls::NOT_EXECUTABLE])
        })
    });
}

/// C11: processes and threads.
pub(super) fn births(tries: &mut Tries<'_>) {
    const CHILD_SIGNAL: usize = 17;
    const NO_CHILD_SIGNAL: usize = 0;
    // CLONE_VM | CLONE_VFORK.
    const SHARED: usize = 0x4100;
    #[repr(C)]
    struct Clone3 {
        flags: u64,
        others: [u64; 10],
    }
    tries.one(|| judge(attempt_birth(calls::FORK, [0; 4]), &[]));
    tries.one(|| judge(attempt_birth(calls::VFORK, [0; 4]), &[]));
    for flags in [CHILD_SIGNAL, SHARED | CHILD_SIGNAL, NO_CHILD_SIGNAL] {
        tries.one(|| judge(attempt_birth(calls::CLONE, [flags, 0, 0, 0]), &[]));
    }
    let mut clone = Clone3 {
        flags: 0,
        others: [0; 10],
    };
    // `exit_signal`, the fifth word.
    clone.others[3] = 17;
    let place = core::ptr::from_mut(&mut clone).expose_provenance();
    tries.one(|| {
        judge(
            attempt_birth(calls::CLONE3, [place, size_of::<Clone3>(), 0, 0]),
            &[],
        )
    });
}

/// C15: the supervisor and everybody else as a target.
pub(super) fn attack_keeper(tries: &mut Tries<'_>) {
    let keeper = tries.canaries().keeper;
    tries.one(|| seize(keeper));
    let word = [0_usize, 0];
    let place = word.as_ptr().expose_provenance();
    tries.call_or(
        calls::PROCESS_VM_WRITEV,
        [keeper, place, 1, place, 1, 0],
        &[calls::FAULT],
    );
    tries.call(calls::KILL, [keeper, 0, 0, 0, 0, 0]);
    // All that one may signal.
    tries.call(calls::KILL, [calls::NONE, 0, 0, 0, 0, 0]);
}

/// C17: more rights and wider limits.
pub(super) fn more_rights(tries: &mut Tries<'_>) {
    const MEMLOCK: usize = 8;
    const NOFILE: usize = 7;
    const ANY_NAMESPACE: usize = 0x0002_0000;
    // Version 3 of the structure, this process.
    let header = [0x2008_0522_u32, 0];
    let all = [u32::MAX; 6];
    let huge = [1_u64 << 40, 1 << 40];
    let place = huge.as_ptr().expose_provenance();
    for limit in [MEMLOCK, NOFILE] {
        tries.call(calls::PRLIMIT64, [0, limit, place, 0, 0, 0]);
    }
    tries.call(calls::SETUID, [0; 6]);
    tries.call(calls::SETRESUID, [0; 6]);
    tries.call(calls::SETGROUPS, [0; 6]);
    let (header, all) = (
        header.as_ptr().expose_provenance(),
        all.as_ptr().expose_provenance(),
    );
    tries.call(calls::CAPSET, [header, all, 0, 0, 0, 0]);
    tries.call_or(calls::SETNS, [calls::NONE, 0, 0, 0, 0, 0], &[calls::BAD_FD]);
    tries.call(calls::UNSHARE, [ANY_NAMESPACE, 0, 0, 0, 0, 0]);
}

/// C18: more than one's share of the processor.
pub(super) fn scheduling(tries: &mut Tries<'_>) {
    const FIFO: usize = 1;
    let priority = 1_u32;
    let all = u64::MAX;
    let place = core::ptr::from_ref(&priority).expose_provenance();
    tries.call(calls::SCHED_SETSCHEDULER, [0, FIFO, place, 0, 0, 0]);
    let place = core::ptr::from_ref(&all).expose_provenance();
    tries.call(calls::SCHED_SETAFFINITY, [0, 8, place, 0, 0, 0]);
    tries.call(
        calls::SETPRIORITY,
        [0, 0, (-20_isize).cast_unsigned(), 0, 0, 0],
    );
}

/// C19: timers, and signals with a message.
pub(super) fn timers(tries: &mut Tries<'_>) {
    // Signal 0, with a message of the kind that processes send.
    let mut message = [0_u32; 32];
    message[2] = u32::MAX;
    let place = message.as_ptr().expose_provenance();
    let pid = tries.canaries().pid;
    tries.call(calls::RT_SIGQUEUEINFO, [pid, 0, place, 0, 0, 0]);
    tries.call(calls::TGKILL, [pid, pid, 0, 0, 0, 0]);
    let mut timer = 0_u32;
    let timer = core::ptr::from_mut(&mut timer).expose_provenance();
    tries.call(calls::TIMER_CREATE, [0, 0, timer, 0, 0, 0]);
}
