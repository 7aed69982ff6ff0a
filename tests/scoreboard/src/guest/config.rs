//! Registers of configuration space, of the first function that was given to the guest.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{Failure, await_some, names};

const REGISTER_BYTES: u64 = 4;
const INTERRUPT_LINE: u64 = 0x3C;
const DRIVERS: [&str; 2] = ["nvme", "igbvf"];

/// The registers.
#[derive(Debug)]
pub(super) struct Registers {
    file: File,
    len_bytes: u64,
}

impl Registers {
    /// Of the first function of these drivers: a VMM's own functions before it are not what was assigned.
    pub(super) fn open() -> Result<Self, Failure> {
        let path = await_some("a VF with a driver", find)?;
        let what = path.display().to_string();
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(Failure::system(&what))?;
        let len_bytes = file.metadata().map_err(Failure::system(&what))?.len();
        if len_bytes < 64 {
            return Err(Failure::Words(format!("{what} has no registers")));
        }
        Ok(Self { file, len_bytes })
    }

    /// Reads so many, over all of them, again and again. The registers are warm then: one is read before.
    pub(super) fn read(&self, count: u64, begin: impl FnOnce()) -> Result<(), Failure> {
        let mut register = [0; 4];
        let mut read = |at| {
            let read = self.file.read_exact_at(&mut register, at);
            read.map_err(Failure::system(format!("register {at:#x}")))
        };
        read(0)?;
        begin();
        (0..count).try_for_each(|nth| read(nth * REGISTER_BYTES % self.len_bytes))
    }

    /// Writes the register with the interrupt line so often; it keeps its value.
    pub(super) fn write(&self, count: u64, begin: impl FnOnce()) -> Result<(), Failure> {
        let mut register = [0; 4];
        let what = "register of the interrupt line";
        self.file
            .read_exact_at(&mut register, INTERRUPT_LINE)
            .map_err(Failure::system(what))?;
        begin();
        (0..count).try_for_each(|_| {
            let written = self.file.write_all_at(&register, INTERRUPT_LINE);
            written.map_err(Failure::system(what))
        })
    }
}

fn find() -> Option<PathBuf> {
    DRIVERS.iter().find_map(|driver| {
        let folder = Path::new("/sys/bus/pci/drivers").join(driver);
        let function = names(&folder)
            .into_iter()
            .find(|name| name.split(':').count() == 3)?;
        Some(folder.join(function).join("config"))
    })
}
