//! A lock for the few words that vCPU threads share: held for bounded work in memory, never for a wait.
//!
//! What is done under one lock is a table update; a register access; or what KVM keeps of the guest's writes to ports, which
//! are as many as its ring has room for, 169, however fast others write more ([`super::kvm_kept`]). Each of these is some
//! loads and stores, and a call to wake D where D sleeps: it does not wait for D, nor for the console's receiver. So a vCPU
//! waits for another one no longer than that takes, unless the host takes the other's processor away meanwhile.

use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

/// A value behind a spin lock.
pub struct Spin<T> {
    is_held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `with` gives the value to one thread at a time.
unsafe impl<T: Send> Sync for Spin<T> {}

impl<T> Spin<T> {
    /// Puts `value` behind a lock.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self {
            is_held: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until no other thread is at it, then does `act`. Not to be nested.
    pub fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        while self.is_held.swap(true, Ordering::Acquire) {
            while self.is_held.load(Ordering::Relaxed) {
                core::hint::spin_loop();
            }
        }
        // SAFETY: the flag was clear and is ours now, so this is the only reference until it is cleared below. A panic
        // in between ends the process.
        let result = act(unsafe { &mut *self.value.get() });
        self.is_held.store(false, Ordering::Release);
        result
    }
}

impl<T> fmt::Debug for Spin<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spin").finish_non_exhaustive()
    }
}
