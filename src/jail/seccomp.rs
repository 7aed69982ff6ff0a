//! The filter of the supervisor S: what it may still call once a guest runs. A table; what has no row ends the process.
//!
//! V and D have theirs in `jailed`.

use std::{collections::BTreeMap, os::fd::RawFd};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use crate::error::{ErrorId, Report};

/// The descriptors of S, by what it does with them. One may be in several lists.
#[derive(Clone, Debug, Default)]
pub struct SupervisorFds {
    /// Signals, the kernel log, the console's and the operator's input.
    pub read: Vec<RawFd>,
    /// Standard error, the console's and the operator's output.
    pub write: Vec<RawFd>,
    /// The socket to the keeper.
    pub socket: Vec<RawFd>,
    /// The terminal whose settings are put back.
    pub terminal: Vec<RawFd>,
}

impl SupervisorFds {
    /// How many descriptors the process may have: one more than its highest number, and not less than the lists that it
    /// waits for are long.
    #[must_use]
    pub fn limit(&self) -> u64 {
        const WAITED: u64 = 8;
        let all = [&self.read, &self.write, &self.socket, &self.terminal];
        let highest = all.into_iter().flatten().max();
        highest.map_or(WAITED, |fd| (u64::from(fd.unsigned_abs()) + 1).max(WAITED))
    }
}

/// Which descriptors the first argument may be.
#[derive(Clone, Copy)]
enum On {
    /// There is none, or any will do.
    Any,
    Read,
    Write,
    Socket,
    Terminal,
}

/// What else holds for the arguments.
#[derive(Clone, Copy)]
enum Also {
    Nothing,
    /// Argument 1 is one of these.
    Request(&'static [u64]),
    /// Memory without a file that is not to be run: argument 2 has no `PROT_EXEC`, argument 3 `MAP_ANONYMOUS`.
    OwnMemory,
}

struct Row {
    call: i64,
    on: On,
    also: Also,
    /// Why S calls it.
    why: &'static str,
}

const fn row(call: i64, on: On, also: Also, why: &'static str) -> Row {
    Row {
        call,
        on,
        also,
        why,
    }
}

/// Reads and writes of a terminal's settings, in the forms of both structures.
///
/// *Source:* `include/uapi/asm-generic/ioctls.h` (Linux 6.12).
const TERMINAL: &[u64] = &[
    0x5401,
    0x5402,
    0x5403,
    0x5404,
    0x802C_542A,
    0x402C_542B,
    0x402C_542C,
    0x402C_542D,
];

const ROWS: &[Row] = &[
    row(libc::SYS_poll, On::Any, Also::Nothing, "waits"),
    row(libc::SYS_ppoll, On::Any, Also::Nothing, "waits"),
    row(
        libc::SYS_read,
        On::Read,
        Also::Nothing,
        "signals, kernel log, console",
    ),
    row(
        libc::SYS_write,
        On::Write,
        Also::Nothing,
        "console, lines of the run",
    ),
    row(
        libc::SYS_writev,
        On::Write,
        Also::Nothing,
        "lines of the run",
    ),
    row(
        libc::SYS_recvfrom,
        On::Socket,
        Also::Nothing,
        "words of the keeper",
    ),
    row(
        libc::SYS_recvmsg,
        On::Socket,
        Also::Nothing,
        "words of the keeper",
    ),
    row(
        libc::SYS_sendto,
        On::Socket,
        Also::Nothing,
        "words to the keeper",
    ),
    row(
        libc::SYS_sendmsg,
        On::Socket,
        Also::Nothing,
        "words to the keeper",
    ),
    row(
        libc::SYS_ioctl,
        On::Terminal,
        Also::Request(TERMINAL),
        "puts the operator's terminal back",
    ),
    row(
        libc::SYS_close,
        On::Any,
        Also::Nothing,
        "gives up what is not needed any more",
    ),
    row(
        libc::SYS_wait4,
        On::Any,
        Also::Nothing,
        "how the keeper ended",
    ),
    row(
        libc::SYS_waitid,
        On::Any,
        Also::Nothing,
        "how the keeper ended",
    ),
    row(
        libc::SYS_futex,
        On::Any,
        Also::Nothing,
        "locks of the standard library",
    ),
    row(libc::SYS_mmap, On::Any, Also::OwnMemory, "allocates"),
    row(libc::SYS_mremap, On::Any, Also::Nothing, "allocates"),
    row(libc::SYS_munmap, On::Any, Also::Nothing, "frees"),
    row(libc::SYS_brk, On::Any, Also::Nothing, "allocates"),
    row(libc::SYS_madvise, On::Any, Also::Nothing, "frees"),
    row(
        libc::SYS_getrandom,
        On::Any,
        Also::Nothing,
        "seeds of hash tables",
    ),
    row(
        libc::SYS_clock_gettime,
        On::Any,
        Also::Nothing,
        "time in a line, where the vDSO has no clock",
    ),
    row(
        libc::SYS_sigaltstack,
        On::Any,
        Also::Nothing,
        "end of the main thread",
    ),
    row(
        libc::SYS_rt_sigreturn,
        On::Any,
        Also::Nothing,
        "end of a handler of the standard library",
    ),
    row(
        libc::SYS_restart_syscall,
        On::Any,
        Also::Nothing,
        "a wait that was stopped and continued",
    ),
    row(libc::SYS_exit_group, On::Any, Also::Nothing, "ends"),
    // Not in what is shipped: F_GETFD.
    #[cfg(debug_assertions)]
    row(
        libc::SYS_fcntl,
        On::Any,
        Also::Request(&[1]),
        "the standard library's checks of what it closes",
    ),
];

/// Makes the filter of S for its descriptors. Whatever else it calls ends it with `SIGSYS`.
///
/// # Errors
/// `bug`: the table does not make a filter.
pub fn supervisor_filter(fds: &SupervisorFds) -> Result<BpfProgram, Report> {
    let bug = |error: seccompiler::BackendError| {
        Report::new(
            ErrorId::Bug,
            "the supervisor's filter cannot be made",
            error.to_string(),
            "report this with the version of narrows",
        )
    };
    let mut rules = BTreeMap::new();
    for row in ROWS {
        // A call without a rule would be allowed with any argument; one without a descriptor is not allowed at all.
        if let Some(all) = rules_of(row, fds).map_err(bug)? {
            rules.insert(row.call, all);
        }
    }
    SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )
    .and_then(TryInto::try_into)
    .map_err(bug)
}

/// Puts the filter on the calling thread, for good. It has set `no_new_privs`.
///
/// # Errors
/// `jail-failed`.
pub fn install(filter: &BpfProgram) -> Result<(), Report> {
    apply_filter(filter).map_err(|error| {
        Report::new(
            ErrorId::JailFailed,
            "the supervisor cannot put itself into its jail",
            format!("seccomp: {error}"),
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        )
    })
}

/// The calls of the table, with the reason for each.
pub fn reasons() -> impl Iterator<Item = (i64, &'static str)> {
    ROWS.iter().map(|row| (row.call, row.why))
}

/// The rules of a row, of which one has to hold; `None` where no descriptor is allowed. None in the list: anything goes.
fn rules_of(
    row: &Row,
    fds: &SupervisorFds,
) -> Result<Option<Vec<SeccompRule>>, seccompiler::BackendError> {
    use SeccompCmpArgLen::Dword;
    use SeccompCmpOp::{Eq, MaskedEq};
    let first = |fd: &RawFd| SeccompCondition::new(0, Dword, Eq, u64::from(fd.unsigned_abs()));
    let conditions: Vec<Vec<SeccompCondition>> = match row.on {
        On::Any => vec![Vec::new()],
        On::Read => each(&fds.read, first)?,
        On::Write => each(&fds.write, first)?,
        On::Socket => each(&fds.socket, first)?,
        On::Terminal => each(&fds.terminal, first)?,
    };
    if conditions.is_empty() {
        return Ok(None);
    }
    let mut rules = Vec::new();
    for on in conditions {
        match row.also {
            Also::Nothing if on.is_empty() => {}
            Also::Nothing => rules.push(SeccompRule::new(on)?),
            Also::Request(requests) => {
                for request in requests {
                    let mut all = on.clone();
                    all.push(SeccompCondition::new(1, Dword, Eq, *request)?);
                    rules.push(SeccompRule::new(all)?);
                }
            }
            Also::OwnMemory => {
                let bit = |bit: i32| u64::from(bit.unsigned_abs());
                let (run, anonymous) = (bit(libc::PROT_EXEC), bit(libc::MAP_ANONYMOUS));
                rules.push(SeccompRule::new(vec![
                    SeccompCondition::new(2, Dword, MaskedEq(run), 0)?,
                    SeccompCondition::new(3, Dword, MaskedEq(anonymous), anonymous)?,
                ])?);
            }
        }
    }
    Ok(Some(rules))
}

fn each(
    fds: &[RawFd],
    condition: impl Fn(&RawFd) -> Result<SeccompCondition, seccompiler::BackendError>,
) -> Result<Vec<Vec<SeccompCondition>>, seccompiler::BackendError> {
    fds.iter().map(|fd| Ok(vec![condition(fd)?])).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn fds() -> SupervisorFds {
        SupervisorFds {
            read: vec![0, 5],
            write: vec![1, 2],
            socket: vec![7],
            terminal: vec![0],
        }
    }

    /// What the filter makes of a call: the instructions it has, run as the kernel does.
    fn is_allowed(filter: &BpfProgram, call: i64, args: [u64; 6]) -> bool {
        const ARCH: u32 = 0xC000_003E;
        let mut data = [0_u8; 64];
        data[0..4].copy_from_slice(&u32::try_from(call).unwrap().to_ne_bytes());
        data[4..8].copy_from_slice(&ARCH.to_ne_bytes());
        for (index, arg) in args.iter().enumerate() {
            data[16 + 8 * index..24 + 8 * index].copy_from_slice(&arg.to_ne_bytes());
        }
        let (mut at, mut value) = (0, 0_u32);
        loop {
            let op = &filter[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { op.jt } else { op.jf });
            match op.code {
                0x20 => {
                    let offset = op.k as usize;
                    value = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
                }
                0x15 => at += jump(value == op.k),
                0x25 => at += jump(value > op.k),
                0x35 => at += jump(value >= op.k),
                0x54 => value &= op.k,
                0x05 => at += op.k as usize,
                0x06 => return op.k == libc::SECCOMP_RET_ALLOW,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn only_the_calls_of_the_table_pass() {
        let filter = supervisor_filter(&fds()).unwrap();
        let rows: BTreeSet<i64> = ROWS.iter().map(|row| row.call).collect();
        assert_eq!(rows.len(), ROWS.len(), "a call has two rows");
        for call in 0..1024 {
            let conditioned = ROWS
                .iter()
                .find(|row| row.call == call)
                .is_some_and(|row| !matches!((row.on, row.also), (On::Any, Also::Nothing)));
            let args = [99, 0, 0, 0, 0, 0];
            let expected = rows.contains(&call) && !conditioned;
            assert_eq!(is_allowed(&filter, call, args), expected, "call {call}");
        }
    }

    #[test]
    fn descriptors_are_told_apart() {
        let filter = supervisor_filter(&fds()).unwrap();
        let on = |call, fd| is_allowed(&filter, call, [fd, 0, 0, 0, 0, 0]);
        for fd in 0..16 {
            assert_eq!(on(libc::SYS_read, fd), [0, 5].contains(&fd), "read {fd}");
            assert_eq!(on(libc::SYS_write, fd), [1, 2].contains(&fd), "write {fd}");
            assert_eq!(on(libc::SYS_sendmsg, fd), fd == 7, "sendmsg {fd}");
        }
        // The kernel looks at the low half of a descriptor only, and so does the filter.
        assert!(on(libc::SYS_read, 0xFFFF_FFFF_0000_0005));
        let ioctl = |fd, request| is_allowed(&filter, libc::SYS_ioctl, [fd, request, 0, 0, 0, 0]);
        assert!(ioctl(0, 0x5402));
        assert!(!ioctl(0, 0x5412), "TIOCSTI types for the operator");
        assert!(!ioctl(1, 0x5402));
    }

    #[test]
    fn a_call_that_has_no_descriptor_to_go_to_is_not_allowed_at_all() {
        let filter = supervisor_filter(&SupervisorFds::default()).unwrap();
        for call in [
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_sendmsg,
            libc::SYS_ioctl,
        ] {
            assert!(!is_allowed(&filter, call, [0; 6]), "{call}");
        }
    }

    #[test]
    fn memory_is_neither_run_nor_a_files() {
        let filter = supervisor_filter(&fds()).unwrap();
        let mmap = |protection, flags| {
            is_allowed(&filter, libc::SYS_mmap, [0, 4096, protection, flags, 0, 0])
        };
        assert!(mmap(3, 0x22));
        assert!(!mmap(7, 0x22), "executable");
        assert!(!mmap(3, 2), "of a file");
        assert!(!is_allowed(
            &filter,
            libc::SYS_mprotect,
            [0, 4096, 5, 0, 0, 0]
        ));
        assert!(reasons().all(|(_, why)| !why.is_empty()));
    }
}
