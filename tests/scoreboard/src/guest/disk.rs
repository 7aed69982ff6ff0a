//! Commands of an NVMe controller: 4 KiB each, one at a time, past the page cache.

use std::{
    fs::File,
    io::{Seek, SeekFrom},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;

use super::{Failure, await_some};

const NODE: &str = "/dev/nvme0n1";
const BLOCK_BYTES: u64 = 4096;
/// Writes stay within the first of the namespace, which the lab gives to be overwritten.
const USED_BYTES: u64 = 16 << 20;

/// Where the data lies: a page of its own, so that a command has one address.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// The first namespace.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    len_bytes: u64,
    page: Box<Page>,
}

impl Disk {
    /// Waits for it.
    pub(super) fn open() -> Result<Self, Failure> {
        await_some("the NVMe namespace", || {
            Path::new(NODE).exists().then_some(())
        })?;
        let direct = i32::try_from(OFlags::DIRECT.bits())
            .map_err(|_wide| Failure::Words("O_DIRECT is no flag of open".into()))?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .custom_flags(direct)
            .open(NODE)
            .map_err(Failure::system(NODE))?;
        let len = file
            .seek(SeekFrom::End(0))
            .map_err(Failure::system(NODE))?
            .min(USED_BYTES);
        if len < BLOCK_BYTES {
            return Err(Failure::Words(format!("{NODE} is empty")));
        }
        Ok(Self {
            file,
            len_bytes: len - len % BLOCK_BYTES,
            page: Box::new(Page([0; 4096])),
        })
    }

    /// So many reads; one before is not counted.
    pub(super) fn read(&mut self, count: u64, begin: impl FnOnce()) -> Result<(), Failure> {
        self.read_one(0)?;
        begin();
        (0..count).try_for_each(|nth| self.read_one(nth))
    }

    /// So many writes; one before is not counted.
    pub(super) fn write(&mut self, count: u64, begin: impl FnOnce()) -> Result<(), Failure> {
        self.write_one(0)?;
        begin();
        (0..count).try_for_each(|nth| self.write_one(nth))
    }

    fn read_one(&mut self, nth: u64) -> Result<(), Failure> {
        let at = nth * BLOCK_BYTES % self.len_bytes;
        let read = self.file.read_exact_at(&mut self.page.0, at);
        read.map_err(Failure::system(format!("read at {at:#x}")))
    }

    fn write_one(&mut self, nth: u64) -> Result<(), Failure> {
        let at = nth * BLOCK_BYTES % self.len_bytes;
        let written = self.file.write_all_at(&self.page.0, at);
        written.map_err(Failure::system(format!("write at {at:#x}")))
    }
}
