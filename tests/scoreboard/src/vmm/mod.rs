//! The VMMs: how each is started with the same guest, and which of its memory is the guest's.

mod host;
mod narrows;
mod peer;
mod template;
mod words;

use std::{io, path::Path, process::Command};

pub use narrows::Narrows;
pub use peer::{HARDENED, Peer};
pub use template::TEMPLATES;

use crate::record::{Guest, Interface};

/// What is started.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The kernel interface to devices.
    pub interface: Interface,
    /// The guest's shape.
    pub guest: Guest,
    /// An ELF kernel with a PVH entry.
    pub kernel: &'a Path,
    /// The initramfs, if it has one.
    pub initramfs: Option<&'a Path>,
    /// The guest kernel's command line, without what a VMM adds of its own.
    pub cmdline: &'a str,
    /// Addresses of the VFs, such as `0000:01:10.0`.
    pub functions: &'a [String],
    /// A folder of this run.
    pub scratch: &'a Path,
}

/// A VMM that can be measured.
pub trait Vmm {
    /// Its name in records.
    fn name(&self) -> &str;

    /// What it says of its version, in one line.
    ///
    /// # Errors
    /// It could not be started.
    fn version(&self) -> io::Result<String>;

    /// What no host would make it do: a kind of device, pages or an interface that it does not know; `None` where it can.
    fn lacks(&self, interface: Interface, guest: &Guest) -> Option<String>;

    /// The same with the fences that it has and does not put up by itself, under a name of its own; `None` where it has none.
    fn hardened(&self) -> Option<Box<dyn Vmm>>;

    /// Why it cannot start this here; `None` where it can.
    fn refuses(&self, setup: &Setup<'_>) -> Option<String>;

    /// Makes devices and files ready. Not counted.
    ///
    /// # Errors
    /// The file that could not be written.
    fn prepare(&self, setup: &Setup<'_>) -> io::Result<()>;

    /// The command that starts the guest, its standard input set; standard output and error go to a log, and SIGTERM
    /// stops it.
    fn command(&self, setup: &Setup<'_>) -> Command;

    /// Gives the devices back. Not counted.
    ///
    /// # Errors
    /// The file that could not be written.
    fn clean_up(&self, setup: &Setup<'_>) -> io::Result<()>;

    /// Whether a mapping of its processes, by its name in `/proc/PID/smaps`, is guest RAM.
    fn is_ram(&self, mapping: &str) -> bool;
}
