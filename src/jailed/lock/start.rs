//! The process's own side of the start page.

use core::sync::atomic::Ordering;

use crate::handoff::{Ending, Handoff};
use crate::manifest::start_page::{
    self, BYTES, ERRNO, FAILED, GO, LANDLOCK_ABI, LAYERS, LOCKED, Locked, REACHED, STATE, WINDOW,
};
use crate::stall::{self, Point};
use crate::sys::futex;
use crate::sys::shared::Shared;
use crate::sys::syscall::{Errno, Fd, exit_group};

/// The start page, mapped.
#[derive(Clone, Copy, Debug)]
pub struct StartPage(Shared);

impl StartPage {
    /// Maps the page from `file`.
    ///
    /// # Errors
    /// The errno.
    pub fn map(file: Fd) -> Result<Self, Errno> {
        Shared::map_at(WINDOW, file, BYTES).map(Self)
    }

    /// Maps the ring from `file`, behind the page.
    ///
    /// # Errors
    /// The errno.
    pub fn map_ring(file: Fd, size_bytes: usize) -> Result<Shared, Errno> {
        Shared::map_at(start_page::RING, file, size_bytes)
    }

    /// Tells the keeper how far the set-up has come, for the case that it goes no further.
    pub fn reached(self, handoff: &Handoff, point: Point) {
        self.put(REACHED, point as u32 + 1);
        stall::at(handoff, point);
    }

    /// Sleeps until the keeper says go.
    pub fn wait_for_go(self) {
        let word = self.0.word(GO);
        while word.load(Ordering::Acquire) == 0 {
            // However it returns: the word decides.
            core::hint::black_box(futex::wait(word, 0, None).is_ok());
        }
    }

    /// Tells the keeper that the last filter is on.
    pub(super) fn say_locked(self, locked: Locked) {
        self.put(LAYERS, locked.layers);
        self.put(LANDLOCK_ABI, locked.landlock_abi);
        self.say(LOCKED);
    }

    /// Tells the keeper that the last step failed, where there is no control socket any more, and ends.
    pub(super) fn fail(self, errno: Errno) -> ! {
        self.put(ERRNO, errno.0);
        self.say(FAILED);
        exit_group(Ending::SetupFailed as u8)
    }

    fn say(self, state: u32) {
        let word = self.0.word(STATE);
        word.store(state, Ordering::Release);
        // Nobody may sleep there yet: then the keeper finds the word.
        core::hint::black_box(futex::wake(word));
    }

    fn put(self, offset: usize, value: u32) {
        self.0.word(offset).store(value, Ordering::Relaxed);
    }
}
