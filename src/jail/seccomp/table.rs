//! The calls that S makes once a guest runs. One row each, with its reason; what has no row ends S.

use jailed::manifest::{Check, MAX_CHECKS, Operand, Rule};

use super::SupervisorFds;

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
    Request(&'static [u32]),
    /// Memory without a file that is not to be run, as the allocator asks for it.
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
const TERMINAL: &[u32] = &[
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

/// The rules of the table for a process with these descriptors. A row for descriptors of which there are none gives no rule.
#[must_use]
pub fn rules(fds: &SupervisorFds) -> Vec<Rule> {
    ROWS.iter().flat_map(|row| rules_of(row, fds)).collect()
}

fn rules_of(row: &Row, fds: &SupervisorFds) -> Vec<Rule> {
    let Ok(call) = u32::try_from(row.call) else {
        return Vec::new();
    };
    let check = |argument, operand| Some(Check { argument, operand });
    let numbers = match row.on {
        On::Any => None,
        On::Read => Some(&fds.read),
        On::Write => Some(&fds.write),
        On::Socket => Some(&fds.socket),
        On::Terminal => Some(&fds.terminal),
    };
    let firsts: Vec<Option<Check>> = match numbers {
        None => vec![None],
        Some(numbers) => {
            // In the order of their numbers, so that equal sets make equal filters.
            let mut numbers: Vec<u32> = numbers.iter().map(|fd| fd.unsigned_abs()).collect();
            numbers.sort_unstable();
            numbers.dedup();
            let firsts = numbers.into_iter();
            firsts.map(|fd| check(0, Operand::Low(fd))).collect()
        }
    };
    let others: Vec<[Option<Check>; 2]> = match row.also {
        Also::Nothing => vec![[None, None]],
        Also::Request(requests) => {
            let requests = requests.iter();
            let of = |request: &u32| [check(1, Operand::Low(*request)), None];
            requests.map(of).collect()
        }
        Also::OwnMemory => {
            let bits = |bits: i32| u64::from(bits.unsigned_abs());
            let flags = bits(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            vec![[
                check(
                    2,
                    Operand::OnlyBits(bits(libc::PROT_READ | libc::PROT_WRITE)),
                ),
                check(
                    3,
                    Operand::Wide {
                        first: flags,
                        last: flags,
                    },
                ),
            ]]
        }
    };
    let rule = |(first, [second, third]): (Option<Check>, [Option<Check>; 2])| {
        let mut checks = [None; MAX_CHECKS];
        let all = [first, second, third].into_iter().flatten();
        for (place, check) in checks.iter_mut().zip(all) {
            *place = Some(check);
        }
        Rule {
            call,
            checks,
            why: row.why,
        }
    };
    let pairs = firsts
        .iter()
        .flat_map(|first| others.iter().map(move |other| (*first, *other)));
    pairs.map(rule).collect()
}
