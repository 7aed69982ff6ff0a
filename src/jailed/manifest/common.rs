//! The calls that V and D have in common.

use super::table::{Row, Symbol};
use crate::handoff::{DeviceFds, Report, VcpuFds};
use crate::sys::syscall::{
    flag::{CLONE_THREAD, MADV_DONTNEED, MAP_FRESH, MAP_WINDOW, PROT_READ, PROT_READ_WRITE},
    number as call,
};

/// `FUTEX_WAIT`, across processes.
pub(super) const FUTEX_WAIT: Symbol = Symbol::Number(0);
/// `FUTEX_WAKE`, across processes.
pub(super) const FUTEX_WAKE: Symbol = Symbol::Number(1);

/// The last number of a resource limit: `RLIMIT_RTTIME`.
const LAST_RESOURCE: u64 = 15;

// Both lists begin alike.
const _: () = assert!(
    VcpuFds::CONTROL == DeviceFds::CONTROL
        && VcpuFds::RING == DeviceFds::RING
        && VcpuFds::START == DeviceFds::START
);

/// While guest or model are being built.
pub(super) const BUILD: &[Row] = &[
    map_window(VcpuFds::RING, "maps the memory that V and D share"),
    map_window(VcpuFds::START, "maps the start page"),
    Row::new(
        call::MMAP,
        [
            (2, Symbol::Bits(PROT_READ_WRITE)),
            (3, Symbol::Exactly(MAP_FRESH)),
            (4, Symbol::NoFile),
        ],
        "makes stacks, and what lasts as long as the process",
    ),
    Row::new(
        call::MPROTECT,
        [(2, Symbol::Bits(PROT_READ))],
        "takes rights away: of guard pages, and of what relocation has written",
    ),
    Row::new(
        call::MADVISE,
        [(2, Symbol::Exactly(MADV_DONTNEED))],
        "gives back what building used of the stack",
    ),
    Row::new(
        call::CLONE,
        [(0, Symbol::Exactly(CLONE_THREAD))],
        "starts threads: no process, no namespace",
    ),
    Row::new(
        call::MSEAL,
        [(2, Symbol::Zero)],
        "makes mappings unchangeable",
    ),
    Row::new(
        call::WRITE,
        [
            (0, Symbol::Fd(VcpuFds::CONTROL)),
            (2, Symbol::Exactly(size_of::<Report>())),
        ],
        "reports what failed",
    ),
    Row::new(
        call::SETRLIMIT,
        [(0, Symbol::UpTo(LAST_RESOURCE))],
        "lowers its limits for good",
    ),
    Row::new(
        call::CLOSE_RANGE,
        [(2, Symbol::Zero)],
        "closes what is not needed any more",
    ),
    // SECCOMP_SET_MODE_FILTER with SECCOMP_FILTER_FLAG_TSYNC.
    Row::new(
        call::SECCOMP,
        [(0, Symbol::Number(1)), (1, Symbol::Number(1))],
        "puts the last filter on all threads",
    ),
];

const fn map_window(fd: u32, why: &'static str) -> Row {
    Row::new(
        call::MMAP,
        [
            (0, Symbol::WindowStart),
            (2, Symbol::Bits(PROT_READ_WRITE)),
            (3, Symbol::Exactly(MAP_WINDOW)),
            (4, Symbol::Fd(fd)),
        ],
        why,
    )
}
