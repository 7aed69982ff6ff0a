//! Sleeping on a word of shared memory and waking who sleeps there, across processes.
//!
//! *Source:* `include/uapi/linux/futex.h (v6.12)`; the private flag is left out, because the two sides have two address
//! spaces.

use core::sync::atomic::AtomicU32;

use super::syscall::{Errno, Timespec, call, number};

const FUTEX_WAIT: usize = 0;
const FUTEX_WAKE: usize = 1;

/// Sleeps while `word` is `expected`, at most `timeout_ms` where one is given. Wakes for no reason at times.
///
/// # Errors
/// `EAGAIN` where the word is another already, `EINTR`, `ETIMEDOUT`: the caller looks at the word in any case.
pub fn wait(word: &AtomicU32, expected: u32, timeout_ms: Option<u32>) -> Result<(), Errno> {
    let limit = timeout_ms.map(Timespec::from_millis);
    let limit_address = limit.as_ref().map_or(0, |l| core::ptr::from_ref(l).addr());
    let args = [
        word.as_ptr().addr(),
        FUTEX_WAIT,
        expected as usize,
        limit_address,
        0,
        0,
    ];
    // SAFETY: 1. the word and the time are borrowed for the length of the call.
    unsafe { call(number::FUTEX, args) }.map(drop)
}

/// Wakes all threads that sleep on `word`.
///
/// # Errors
/// The errno: of a word that is not mapped, or not aligned.
pub fn wake_all(word: &AtomicU32) -> Result<(), Errno> {
    const ALL: usize = i32::MAX as usize;
    let args = [word.as_ptr().addr(), FUTEX_WAKE, ALL, 0, 0, 0];
    // SAFETY: 1. the word is borrowed; its address only names a queue.
    unsafe { call(number::FUTEX, args) }.map(drop)
}

/// Wakes one thread that sleeps on `word`; whether there was one.
pub fn wake(word: &AtomicU32) -> bool {
    let args = [word.as_ptr().addr(), FUTEX_WAKE, 1, 0, 0, 0];
    // SAFETY: 1. the word is borrowed; its address only names a queue.
    unsafe { call(number::FUTEX, args) }.is_ok_and(|woken| woken > 0)
}
