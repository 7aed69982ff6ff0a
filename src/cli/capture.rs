//! `narrows capture`: this host as a machine file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use iommu::{isolation::CheckId, sysfs::SysRoot};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Done, Outcome};
use crate::{
    error::{ErrorId, Exit, Report},
    host::machine::{Head, Machine, Origin, Provenance, capture},
};

/// Its arguments.
#[derive(Debug, Args)]
pub(super) struct Capture {
    /// The machine's name: a-z, 0-9 and -
    #[arg(long, default_value = "machine", value_parser = name)]
    name: String,
    /// One line that says what it is
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Anything worth knowing about it; can be given several times
    #[arg(long = "note", value_name = "TEXT")]
    notes: Vec<String>,
    /// Write to this file; without it, to standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite the file
    #[arg(long, requires = "output")]
    force: bool,
}

impl Capture {
    /// Captures the host under `root`; the host is only read.
    pub(super) fn run(&self, root: &SysRoot) -> Outcome {
        let machine = capture(root, self.head(root)).map_err(|report| vec![report])?;
        let text = machine.to_text();
        // What cannot be read again is worth nothing.
        let again =
            Machine::parse(Path::new("the capture"), &text).map_err(|report| vec![report])?;
        if again.tree.entries().count() != machine.tree.entries().count() {
            return Err(vec![Report::new(
                ErrorId::Bug,
                "the capture does not read as it was written",
                "an entry is missing",
                "please report it",
            )]);
        }
        let data = match &self.output {
            None => text,
            Some(file) => {
                write(file, &text, self.force).map_err(|report| vec![report])?;
                said(file, &machine)
            }
        };
        Ok(Done {
            status: Exit::Done as u8,
            data,
            warnings: incomplete(&machine).into_iter().collect(),
            refusals: Vec::new(),
        })
    }

    fn head(&self, root: &SysRoot) -> Head {
        // Firmware need not say these; serial numbers stand elsewhere and are not read.
        let fact = |path: &str| root.read_text(path).unwrap_or_default();
        Head {
            name: self.name.clone(),
            title: self
                .title
                .clone()
                .unwrap_or_else(|| "a captured host".to_owned()),
            origin: Origin::Captured,
            provenance: Provenance {
                by: concat!("narrows capture, version ", env!("CARGO_PKG_VERSION")).to_owned(),
                date: today(),
                kernel: fact("proc/sys/kernel/osrelease"),
                vendor: fact("sys/class/dmi/id/sys_vendor"),
                product: fact("sys/class/dmi/id/product_name"),
                scrubbed: Vec::new(),
                notes: self.notes.clone(),
            },
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match (1..=64).contains(&text.len()) && text.chars().all(is_good) {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 64 characters of a to z, 0 to 9 and -".to_owned()),
    }
}

fn said(file: &Path, machine: &Machine) -> String {
    let (_, functions) = machine.incomplete_configs();
    let scrubbed = match machine.head.provenance.scrubbed.as_slice() {
        [] => "nothing".to_owned(),
        what => what.join("; "),
    };
    format!(
        "{}: {functions} functions captured\nscrubbed: {scrubbed}\nread it before you give it away",
        file.display(),
    )
}

/// A warning where the capture lacks what only root may read.
fn incomplete(machine: &Machine) -> Option<Report> {
    let (incomplete, functions) = machine.incomplete_configs();
    (incomplete > 0).then(|| {
        Report::new(
            CheckId::ConfigUnreadable,
            "the capture is incomplete",
            format!(
                "configuration space of {incomplete} of {functions} functions was not read to its end, so no check can pass that needs it"
            ),
            "capture as root",
        )
    })
}

/// Writes the file whole or not at all.
fn write(file: &Path, text: &str, force: bool) -> Result<(), Report> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let new = folder.join(format!(".narrows-capture-{}", process::id()));
    let flags = match force {
        true => RenameFlags::empty(),
        false => RenameFlags::NOREPLACE,
    };
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&new)
        .and_then(|mut out| {
            out.write_all(text.as_bytes())?;
            out.sync_all()
        })
        .and_then(|()| Ok(renameat_with(CWD, &new, CWD, file, flags)?))
        .and_then(|()| File::open(folder)?.sync_all());
    written.map_err(|error| {
        // Gone already where the rename was done.
        drop(fs::remove_file(&new));
        let what = format!("the capture cannot be written to {}", file.display());
        if error.kind() == io::ErrorKind::AlreadyExists {
            let fix = "choose another name, or overwrite it with --force";
            return Report::new(ErrorId::FileExists, what, "there is such a file", fix);
        }
        let fix = "choose a folder that can be written";
        Report::new(ErrorId::FileUnwritable, what, error.to_string(), fix)
    })
}

/// The day, UTC, as `2026-01-31`.
fn today() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    date(since.as_secs() / 86_400)
}

/// The date of a day counted from 1970-01-01.
fn date(mut days: u64) -> String {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    loop {
        let len = if is_leap(year) { 366 } else { 365 };
        if days < len {
            break;
        }
        days -= len;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for len in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn days_have_dates() {
        for (days, text) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_454, "2026-01-01"),
            (20_818, "2026-12-31"),
        ] {
            assert_eq!(date(days), text);
        }
    }
}
