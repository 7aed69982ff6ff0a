//! What a guest left in memory, gone before the pages are anybody else's.
//!
//! On entry: V and D are gone, and the devices are given back, so nobody writes to the files any more. On exit: RAM and
//! private copies of images are zeroes. The kernel zeroes a page before it gives it to another process, but not when it
//! gets it back: until then a bug of the kernel, or a dump of the host's memory, would show the tenant's data.
//!
//! Nothing is mapped for it. Pages of 4 KiB are written through the file; huge pages cannot be, but holes in parts of
//! them are filled with zeroes by the kernel (`hugetlbfs_punch_hole`, since Linux 6.0), and two halves are a page. One thread
//! does it: the kernel lets one at a time change a file (`inode_lock`).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

use rustix::{
    fs::{FallocateFlags, fallocate, fstat},
    io::{Errno, pwrite},
};

use super::{files::Files, log::Log, parallel::Progress, ram::Ram};
use crate::{
    error::{ErrorId, Report},
    plan::Plan,
    spec::HugepageSize,
};

/// What is written at a time.
const PIECE_BYTES: usize = 1 << 20;

/// What a guest can write to, for as long as there is any of it.
#[derive(Debug, Default)]
pub(super) struct Tenant {
    /// Its RAM.
    pub(super) ram: Option<Ram>,
    /// Its files, of which some are private copies.
    pub(super) files: Option<Files>,
}

impl Tenant {
    /// Wipes what there is; what could not be wiped is reported.
    #[must_use]
    pub(super) fn wipe(self, plan: &Plan, log: &Log) -> Vec<Report> {
        let ram = self.ram.map(|ram| {
            let wiped = zero(ram.file(), plan.memory.hugepages, log);
            wiped.map_err(|error| not_wiped(plan, "RAM", &error))
        });
        let copies = self.files.map(|files| {
            let mut copies = files.private_copies(plan);
            let wiped = copies.try_for_each(|copy| zero(copy, None, log));
            wiped.map_err(|error| not_wiped(plan, "the private copy of an image", &error))
        });
        let all = ram.into_iter().chain(copies);
        all.filter_map(Result::err).collect()
    }
}

fn not_wiped(plan: &Plan, what: &str, error: &io::Error) -> Report {
    Report::new(
        ErrorId::MemoryNotWiped,
        format!("{what} of guest {} is not wiped", plan.name),
        error.to_string(),
        "the kernel zeroes each page before another process gets it; restart the host to be rid of it before that",
    )
}

/// Makes all of a memory file zeroes, without a mapping of it.
fn zero(file: BorrowedFd<'_>, pages: Option<HugepageSize>, log: &Log) -> io::Result<()> {
    let len = u64::try_from(fstat(file)?.st_size).map_err(io::Error::other)?;
    let step = match pages {
        None => PIECE_BYTES as u64,
        Some(pages) => pages.len().raw() / 2,
    };
    let zeroes = vec![0; PIECE_BYTES];
    let (start, mut progress) = (Instant::now(), Progress::new("wiped"));
    let mut done = 0;
    while done < len {
        let piece = step.min(len - done);
        let wiped = match pages {
            None => write_some(file, &zeroes, done, piece)?,
            Some(_) => {
                let keep = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(file, keep, done, piece)?;
                piece
            }
        };
        done += wiped;
        let (done, all) = (usize::try_from(done), usize::try_from(len));
        let (done, all) = (done.unwrap_or(usize::MAX), all.unwrap_or(usize::MAX));
        if let Some(line) = progress.line(start.elapsed(), done, all) {
            log.say(&line);
        }
    }
    Ok(())
}

/// Writes up to `len` zeroes at `offset`; how many.
fn write_some(file: impl AsFd, zeroes: &[u8], offset: u64, len: u64) -> io::Result<u64> {
    let len = usize::try_from(len).map_err(io::Error::other)?;
    let piece = zeroes.get(..len).unwrap_or(zeroes);
    loop {
        match pwrite(&file, piece, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => return Ok(count as u64),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt};

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

    use super::*;

    #[test]
    fn a_file_of_any_length_is_zeroes_to_its_last_byte() {
        for len in [1, 4096, PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES + 5] {
            let file = memfd_create(
                "narrows-test",
                MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
            )
            .unwrap();
            ftruncate(&file, len as u64).unwrap();
            let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
            fcntl_add_seals(&file, seals).unwrap();
            let file = File::from(file);
            file.write_all_at(&vec![0x5A; len], 0).unwrap();
            zero(file.as_fd(), None, &Log::new("test", true)).unwrap();
            let mut bytes = vec![0xFF; len];
            file.read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes, vec![0; len]);
            assert_eq!(file.metadata().unwrap().len(), len as u64);
        }
    }

    #[test]
    fn a_file_that_takes_no_zeroes_is_an_error() {
        let null = File::open("/dev/zero").unwrap();
        assert!(write_some(&null, &[0; 8], 0, 8).is_err());
    }
}
