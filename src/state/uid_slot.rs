//! The numbers from which a guest's uids are made: each is one run's at a time, by a lock that ends with the process.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::State;
use crate::error::{ErrorId, Report};

/// A number that no other run on this host has while this lives, nor a process forked from the run's.
#[derive(Debug)]
pub struct UidSlot {
    number: u32,
    lock: File,
}

impl UidSlot {
    /// As many guests can run at once.
    pub const COUNT: u32 = 4096;

    /// Takes the lowest number that is free. Runs with another folder of state share the numbers of the host's own.
    ///
    /// # Errors
    /// `state-unwritable`; `too-many-guests` where none is free.
    pub fn take(state: &State) -> Result<Self, Report> {
        let folder = state.uids();
        let unwritable = |error: io::Error| state.unwritable(&folder, &error);
        // Whoever can open a file can lock it, and so keep a number from every guest: root alone may.
        fs::create_dir_all(&folder)
            .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)))
            .map_err(unwritable)?;
        for number in 0..Self::COUNT {
            // The file stays for ever: who removed it would leave others with locks of a file that has no name.
            let lock = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(folder.join(number.to_string()))
                .map_err(unwritable)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    return Ok(Self { number, lock });
                }
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(unwritable(errno.into())),
            }
        }
        Err(Report::new(
            ErrorId::TooManyGuests,
            "no user is left for another guest",
            format!("{} files in {} are locked", Self::COUNT, folder.display()),
            "wait until a guest has ended",
        ))
    }

    /// The file that is locked as long as one process has it open from here.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// The number, below [`UidSlot::COUNT`].
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }
}
