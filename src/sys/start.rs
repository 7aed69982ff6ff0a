//! The keeper's side of a start page: waits until the process is locked down, and says go.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use jailed::{
    manifest::start_page::{
        BUILDING, BYTES, ERRNO, GO, LANDLOCK_ABI, LAYERS, LOCKED, Locked, REACHED, STATE,
    },
    stall::POINTS,
};
use rustix::{
    fs::{MemfdFlags, SealFlags, Timespec, fcntl_add_seals, ftruncate, memfd_create},
    io::Errno,
    thread::futex,
};

use super::map::Mapping;

/// What a process says of itself; it may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is at work.
    Building,
    /// It says that its last filter is on.
    Locked(Locked),
    /// It could not put its last filter on.
    Failed {
        /// Why.
        errno: u32,
    },
}

/// The start page of one process.
#[derive(Debug)]
pub struct StartPage {
    file: OwnedFd,
    mapping: Mapping,
}

impl StartPage {
    /// Makes the page, of a size that nobody can change.
    ///
    /// # Errors
    /// The errno of `memfd_create`, `ftruncate`, `fcntl` or `mmap`.
    pub fn new() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("narrows-start", flags)?;
        ftruncate(&file, BYTES as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let mapping = Mapping::read_write(&file, BYTES)?;
        Ok(Self { file, mapping })
    }

    /// The memory file.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What it says now.
    #[must_use]
    pub fn state(&self) -> State {
        match self.word(STATE).load(Ordering::Acquire) {
            BUILDING => State::Building,
            LOCKED => State::Locked(Locked {
                layers: self.word(LAYERS).load(Ordering::Relaxed),
                landlock_abi: self.word(LANDLOCK_ABI).load(Ordering::Relaxed),
            }),
            _ => State::Failed {
                errno: self.word(ERRNO).load(Ordering::Relaxed),
            },
        }
    }

    /// The last moment of its set-up that it says it has reached, by name.
    #[must_use]
    pub fn reached(&self) -> Option<&'static str> {
        let reached = self.word(REACHED).load(Ordering::Relaxed);
        let place = usize::try_from(reached.checked_sub(1)?).ok()?;
        POINTS.get(place).map(|(_, name)| *name)
    }

    /// Says what the process would.
    #[cfg(test)]
    pub(crate) fn say_reached(&self, reached: u32) {
        self.word(REACHED).store(reached, Ordering::Relaxed);
    }

    /// Sleeps until it says something, for at most `limit`. Wakes for no reason at times.
    ///
    /// # Errors
    /// The errno of `futex`.
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        let none = futex::Flags::empty();
        match futex::wait(self.word(STATE), none, BUILDING, Some(&limit)) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Lets all its threads go.
    ///
    /// # Errors
    /// The errno of `futex`.
    pub fn go(&self) -> io::Result<()> {
        const ALL: u32 = i32::MAX.unsigned_abs();
        let word = self.word(GO);
        word.store(1, Ordering::Release);
        futex::wake(word, futex::Flags::empty(), ALL)?;
        Ok(())
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.mapping.len_bytes());
        let at = self
            .mapping
            .start()
            .as_ptr()
            .wrapping_add(offset)
            .cast::<u32>();
        // SAFETY: aligned and inside the mapping, as asserted, which lives as long as the borrow; every access is atomic.
        unsafe { AtomicU32::from_ptr(at) }
    }
}

impl AsFd for StartPage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod start_test {
    use super::*;

    #[test]
    fn state_is_what_the_other_side_wrote() {
        let page = StartPage::new().unwrap();
        assert_eq!(page.state(), State::Building);
        page.word(LAYERS).store(5, Ordering::Relaxed);
        page.word(LANDLOCK_ABI).store(6, Ordering::Relaxed);
        page.word(STATE).store(LOCKED, Ordering::Release);
        let locked = Locked {
            layers: 5,
            landlock_abi: 6,
        };
        assert_eq!(page.state(), State::Locked(locked));
        page.word(ERRNO).store(22, Ordering::Relaxed);
        page.word(STATE).store(77, Ordering::Release);
        assert_eq!(page.state(), State::Failed { errno: 22 });
    }

    #[test]
    fn a_wait_ends_with_its_limit_or_with_a_word() {
        let page = StartPage::new().unwrap();
        page.wait(Duration::from_millis(1)).unwrap();
        page.word(STATE).store(LOCKED, Ordering::Release);
        page.wait(Duration::from_secs(3600)).unwrap();
    }

    #[test]
    fn the_page_cannot_be_made_shorter() {
        let page = StartPage::new().unwrap();
        assert_eq!(ftruncate(&page, 0), Err(Errno::PERM));
    }
}
