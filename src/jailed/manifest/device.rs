//! D's calls.

use super::common::{FUTEX_WAIT, FUTEX_WAKE};
use super::table::{Each, Row, Symbol};
use crate::sys::{
    poll::MAX_WAITED,
    syscall::number as call,
    vfio::{VFIO_DEVICE_GET_IRQ_INFO, VFIO_DEVICE_RESET, VFIO_DEVICE_SET_IRQS},
};

/// The widest access to a register, in bytes.
const WIDEST: u64 = 8;
/// The most bytes of the console at once.
const CONSOLE_BYTES: u64 = 256;
/// What the model is made from: the first part of configuration space.
const MODEL_BYTES: usize = 256;

/// While the guest runs: nine system calls.
pub(super) const RUN: &[Row] = &[
    Row::new(
        call::FUTEX,
        [(0, Symbol::Window), (1, FUTEX_WAIT)],
        "waits for a request, and for the word to go",
    ),
    Row::new(
        call::FUTEX,
        [(0, Symbol::Window), (1, FUTEX_WAKE)],
        "wakes a vCPU, and the keeper that waits for this process",
    ),
    Row::new(
        call::IOCTL,
        [
            (0, Symbol::Devices),
            (1, Symbol::Number(VFIO_DEVICE_SET_IRQS)),
        ],
        "arms, masks and disarms the guest's vectors",
    ),
    Row::new(
        call::IOCTL,
        [
            (0, Symbol::Devices),
            (1, Symbol::Number(VFIO_DEVICE_RESET)),
            (2, Symbol::Zero),
        ],
        "resets a function as its guest asks",
    ),
    Row::new(
        call::PWRITE64,
        [
            (0, Symbol::Device),
            (2, Symbol::Exactly(2)),
            (3, Symbol::Command),
        ],
        "turns bus master and memory on and off: the command register and nothing else of configuration space",
    )
    .each(Each::Function),
    Row::new(
        call::PWRITE64,
        [
            (0, Symbol::Device),
            (2, Symbol::OneTo(WIDEST)),
            (3, Symbol::Gap),
        ],
        "writes registers that share a page with the MSI-X table, or cannot be mapped",
    )
    .each(Each::Gap),
    Row::new(
        call::PREAD64,
        [
            (0, Symbol::Device),
            (2, Symbol::OneTo(WIDEST)),
            (3, Symbol::Gap),
        ],
        "reads registers that share a page with the MSI-X table, or cannot be mapped",
    )
    .each(Each::Gap),
    Row::new(
        call::READ,
        [(0, Symbol::Latches), (2, Symbol::Exactly(8))],
        "takes what fired while it was masked",
    ),
    Row::new(
        call::WRITE,
        [(0, Symbol::Vectors), (2, Symbol::Exactly(8))],
        "delivers what fired while it was masked",
    ),
    Row::new(
        call::PPOLL,
        [(1, Symbol::UpTo(MAX_WAITED as u64)), (3, Symbol::Zero)],
        "waits for devices that fail or are asked back, and for the console; reads pending bits",
    ),
    Row::new(
        call::READ,
        [(0, Symbol::ConsoleIn), (2, Symbol::Exactly(1))],
        "takes bytes for the guest's console",
    ),
    Row::new(
        call::WRITE,
        [(0, Symbol::ConsoleOut), (2, Symbol::OneTo(CONSOLE_BYTES))],
        "passes on the bytes of the guest's console",
    ),
    // The kernel has the thread make it: after a stop, the freezer, suspend of the host, a look at its filters.
    Row::new(
        call::RESTART_SYSCALL,
        [],
        "goes on with a timed wait that was interrupted, and can do nothing else",
    ),
    Row::new(
        call::EXIT_GROUP,
        [],
        "ends with a device that fails, or a broken peer",
    ),
];

/// While the model is being built, besides what V and D have in common.
pub(super) const BUILD: &[Row] = &[
    Row::new(
        call::PREAD64,
        [
            (0, Symbol::Device),
            (2, Symbol::Exactly(MODEL_BYTES)),
            (3, Symbol::ConfigStart),
        ],
        "reads what the model is made from",
    )
    .each(Each::Function),
    Row::new(
        call::IOCTL,
        [
            (0, Symbol::Devices),
            (1, Symbol::Number(VFIO_DEVICE_GET_IRQ_INFO)),
        ],
        "asks whether a device can say that it fails, or is asked back",
    ),
];
