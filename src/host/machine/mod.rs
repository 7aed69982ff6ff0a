//! Machine files: a host's sysfs, procfs and device nodes as one TOML file, to be read in place of a host.
//!
//! [`capture`] makes one of a real host, by recording what [`Inventory::read`] and
//! [`sriov::read_devices`] look at, and scrubs it. [`open_root`] takes a folder or a machine
//! file for `--root`. The format is described in `hw-configs/README.md`.

mod cut;
mod gzip;
mod hex;
#[cfg(test)]
mod machine_test;
mod parse;
mod scrub;
#[cfg(test)]
mod scrub_test;
mod write;

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use iommu::sysfs::{Kind, SysRoot, Tree};
use serde::{Deserialize, Serialize};

use super::{Inventory, PciNames, Platform, read::unread, sriov};
use crate::error::{ErrorId, Report};

pub use self::scrub::scrub;

/// The version of the format that this program reads and writes.
pub const FORMAT: u32 = 1;

/// The longest machine file that is read, in bytes: several times what a host with a thousand functions needs.
const FILE_LIMIT: u64 = 8 << 20;

/// A host in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Which it is, and where it comes from.
    pub head: Head,
    /// Its files.
    pub tree: Tree,
}

/// What a reader wants to know first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its name, as the file's without `.toml`.
    pub name: String,
    /// One line.
    pub title: String,
    /// Whether it was ever real.
    pub origin: Origin,
    /// How it was made.
    pub provenance: Provenance,
}

/// Whether a machine was ever real.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Read from a running host.
    Captured,
    /// Made up from documents; no such host was looked at.
    WrittenByHand,
}

/// How a machine file was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The command and its version.
    pub by: String,
    /// The day, UTC, `2026-01-31`.
    #[serde(default)]
    pub date: String,
    /// The kernel's release.
    #[serde(default)]
    pub kernel: String,
    /// The host's maker, from its firmware.
    #[serde(default)]
    pub vendor: String,
    /// The host's model, from its firmware.
    #[serde(default)]
    pub product: String,
    /// What was taken out or changed.
    #[serde(default)]
    pub scrubbed: Vec<String>,
    /// Anything else, in plain words.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Opens what `--root` names: a folder, or a machine file.
///
/// # Errors
/// `machine-malformed`, `host-unreadable`: the file is no machine file, or cannot be read.
pub fn open_root(place: &Path) -> Result<SysRoot, Report> {
    if place.is_file() {
        let machine = Machine::read(place)?;
        return Ok(SysRoot::captured(place, machine.tree));
    }
    Ok(SysRoot::new(place))
}

/// Reads the host under `root` and keeps what was read, scrubbed; `head` says what else is to be written down.
///
/// # Errors
/// `host-unreadable`; `machine-read-only` where `root` is a machine file itself.
pub fn capture(root: &SysRoot, mut head: Head) -> Result<Machine, Report> {
    if root.is_read_only() {
        return Err(read_only(
            root,
            "captured",
            "what it holds was captured before",
        ));
    }
    let recording = SysRoot::recording(root.as_path());
    let host = Inventory::read(&recording)?;
    // Not what the host does with them: that tells of people and processes.
    sriov::read_devices(&recording)?;
    let names = PciNames::read(&recording, &host.topology)
        .and_then(|names| Platform::read(&recording).map(|_| names))
        .map_err(|error| unread(&error))?;
    let mut recorded = recording.recorded().unwrap_or_default();
    // A line or two of a file of 1.4 MB.
    for (_, bytes) in recorded
        .files_mut()
        .filter(|(path, _)| path.ends_with("pci.ids"))
    {
        *bytes = names.to_text().into_bytes();
    }
    let (tree, scrubbed) = scrub(&recorded).map_err(|error| {
        let fix = "please report it with the names in /sys/bus/pci/devices";
        Report::new(
            ErrorId::Bug,
            "two files got one name",
            error.to_string(),
            fix,
        )
    })?;
    head.provenance.scrubbed = scrubbed;
    Ok(Machine { head, tree })
}

/// That a machine file cannot be `done` to.
#[must_use]
pub fn read_only(root: &SysRoot, done: &str, why: &str) -> Report {
    let what = format!(
        "{} is a machine file and cannot be {done}",
        root.as_path().display()
    );
    Report::new(
        ErrorId::MachineReadOnly,
        what,
        why,
        "leave --root out, to use this host; plan, doctor and inventory read machine files",
    )
}

impl Machine {
    /// Reads a machine file.
    ///
    /// # Errors
    /// `machine-malformed`, `host-unreadable`.
    pub fn read(place: &Path) -> Result<Self, Report> {
        let mut text = String::new();
        let read =
            File::open(place).and_then(|file| file.take(FILE_LIMIT + 1).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Err(malformed(place, "it is not UTF-8"))
            }
            Err(error) => Err(Report::new(
                ErrorId::HostUnreadable,
                format!("the machine file {} cannot be read", place.display()),
                error.to_string(),
                "check the path and its permissions",
            )),
            Ok(_) if text.len() as u64 > FILE_LIMIT => Err(malformed(
                place,
                &format!("it is longer than {FILE_LIMIT} bytes"),
            )),
            Ok(_) => Self::parse(place, &text),
        }
    }

    /// Reads the text of a machine file; `place` is for messages.
    ///
    /// # Errors
    /// `machine-malformed`.
    pub fn parse(place: &Path, text: &str) -> Result<Self, Report> {
        parse::parse(text).map_err(|why| malformed(place, &why))
    }

    /// The text of the machine file, the same for the same machine.
    #[must_use]
    pub fn to_text(&self) -> String {
        write::text(self)
    }

    /// Functions whose configuration space was not read to its end, as happens without root, and all functions.
    #[must_use]
    pub fn incomplete_configs(&self) -> (usize, usize) {
        let configs: Vec<bool> = self
            .tree
            .entries()
            .filter(|(path, _)| path.file_name().is_some_and(|name| name == "config"))
            .map(|(_, entry)| match &entry.kind {
                Kind::File(bytes) => bytes.len() < CONFIG_LEN,
                Kind::Failing(_) | Kind::Unread => true,
                Kind::Folder | Kind::Link(_) => false,
            })
            .collect();
        let incomplete = configs
            .iter()
            .filter(|is_incomplete| **is_incomplete)
            .count();
        (incomplete, configs.len())
    }
}

/// Configuration space of a conventional device; without root, sysfs shows 64 bytes.
const CONFIG_LEN: usize = 256;

pub(super) fn malformed(place: &Path, why: &str) -> Report {
    Report::new(
        ErrorId::MachineMalformed,
        format!("{} is no machine file that can be used", place.display()),
        why,
        "make it anew with narrows capture; hw-configs/README.md describes the format",
    )
}

/// The path of an entry in a folder of the file; `.` is the root.
fn join(folder: &str, name: &str) -> PathBuf {
    match folder {
        "." => PathBuf::from(name),
        folder => Path::new(folder).join(name),
    }
}
