//! Reading `/dev/kmsg` without waiting.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
};

use super::{DmaFault, Record};
use crate::{
    error::{Errno, IommuError, Result},
    sysfs::SysRoot,
};

/// The kernel log from a moment on.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
    next: Option<u64>,
    lost: u64,
}

/// What the log had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A request that the IOMMU stopped.
    Fault(DmaFault),
    /// Something else, or a line that is not the kernel's.
    Other,
    /// Nothing more for now.
    Nothing,
}

impl KernelLog {
    /// Opens the log; what was logged before is not read.
    ///
    /// # Errors
    /// `vfio-node-open`.
    pub fn open_at_end(root: &SysRoot) -> Result<Self> {
        let path = root.path("dev/kmsg");
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .and_then(|mut file| {
                file.seek(SeekFrom::End(0))?;
                Ok(file)
            });
        match opened {
            Ok(file) => Ok(Self::of(file)),
            Err(error) => Err(IommuError::Open {
                path,
                errno: Errno::of(&error),
            }),
        }
    }

    /// Reads records from a file that gives one for each read and does not block.
    #[must_use]
    pub const fn of(file: File) -> Self {
        Self {
            file,
            next: None,
            lost: 0,
        }
    }

    /// Reads the next record.
    ///
    /// # Errors
    /// The errno of `read`.
    pub fn read(&mut self) -> io::Result<Next> {
        let mut bytes = [0; Record::MAX_BYTES];
        let len = match self.file.read(&mut bytes) {
            Ok(0) => return Ok(Next::Nothing),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Next::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Next::Other),
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {
                // The kernel has moved on to the oldest record that it still has. How many that left out, the next
                // one's number will tell, unless none was read before.
                if self.next.is_none() {
                    self.lost = self.lost.saturating_add(1);
                }
                return Ok(Next::Other);
            }
            Err(error) => return Err(error),
        };
        let Some(record) = bytes.get(..len).and_then(Record::parse) else {
            return Ok(Next::Other);
        };
        if let Some(next) = self.next {
            let left_out = record.sequence.saturating_sub(next);
            self.lost = self.lost.saturating_add(left_out);
        }
        self.next = Some(record.sequence.saturating_add(1));
        let fault = Some(record)
            .filter(Record::is_of_the_kernel)
            .and_then(|record| DmaFault::parse(record.text));
        Ok(fault.map_or(Next::Other, Next::Fault))
    }

    /// How many records were overwritten before they were read; some of them may have been faults.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }
}

impl AsFd for KernelLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
