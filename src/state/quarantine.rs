//! Functions that no guest may have until an operator says so by name.

use std::{fs, io, path::PathBuf};

use iommu::bdf::Bdf;
use serde::{Deserialize, Serialize};

use super::{State, clock::now, file};
use crate::error::{ErrorId, Report};

/// The version of the file's format. A file of another one is refused.
const VERSION: u32 = 1;

/// More than any record.
const FILE_LIMIT: u64 = 64 << 10;

/// Why a function is in quarantine. One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Record {
    version: u32,
    /// The function.
    pub bdf: Bdf,
    /// What it was when it was quarantined.
    pub device: Identity,
    /// In a few words.
    pub reason: String,
    /// What was found, one fact each.
    pub evidence: Vec<String>,
    /// The guest that had it.
    pub guest: String,
    /// Since when, in UTC.
    pub since: String,
    /// The version of Narrows that wrote it.
    pub narrows: String,
    /// When it was released, in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<String>,
    /// What the operator noted on releasing it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What kind of device a function is, as sysfs had it: another card in the same slot is told by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// `vendor`, e.g. `0x8086`.
    pub vendor: String,
    /// `device`, e.g. `0x10ca`.
    pub device: String,
    /// `class`, e.g. `0x020000`.
    pub class: String,
}

/// What a file of the quarantine holds.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A record.
    Record(Record),
    /// Something that is no record; the function counts as quarantined.
    Damaged {
        /// The function, where the file's name tells one.
        bdf: Option<Bdf>,
        /// `state-damaged`.
        report: Report,
    },
}

impl Record {
    /// A record of now.
    #[must_use]
    pub fn new(
        bdf: Bdf,
        device: Identity,
        reason: impl Into<String>,
        evidence: Vec<String>,
        guest: &str,
    ) -> Self {
        Self {
            version: VERSION,
            bdf,
            device,
            reason: reason.into(),
            evidence,
            guest: guest.to_owned(),
            since: now(),
            narrows: env!("CARGO_PKG_VERSION").to_owned(),
            released: None,
            note: None,
        }
    }

    fn refusal(&self) -> Report {
        let bdf = self.bdf;
        let mut report = Report::new(
            ErrorId::DeviceQuarantined,
            format!("cannot assign {bdf}"),
            format!(
                "it is in quarantine since {}, after a run of guest {}: {}",
                self.since, self.guest, self.reason
            ),
            format!(
                "reset its PF or the host, see that the device is sound, then: narrows quarantine release {bdf}"
            ),
        );
        report.why.extend(self.evidence.iter().cloned());
        report
    }
}

impl State {
    /// Puts a function into quarantine, for good: the file is on the disk when this returns.
    ///
    /// # Errors
    /// The errno of the step that failed.
    pub fn put_into_quarantine(&self, record: &Record) -> io::Result<PathBuf> {
        let path = self.file_of(record.bdf);
        let mut text = serde_json::to_vec_pretty(record)?;
        text.push(b'\n');
        fs::create_dir_all(self.quarantine())?;
        file::write_whole(&path, &text)?;
        Ok(path)
    }

    /// Why a guest may not have `bdf`; `None` where it is not in quarantine.
    #[must_use]
    pub fn refusal(&self, bdf: Bdf) -> Option<Report> {
        match self.entry(bdf) {
            Some(Entry::Record(record)) => Some(record.refusal()),
            Some(Entry::Damaged { report, .. }) => Some(report),
            None => {
                let usual = Self::new(self.usual.clone()?);
                let refusal = usual.refusal(bdf)?;
                Some(refusal.and(format!(
                    "that is known in {}, the host's own state folder",
                    usual.folder.display()
                )))
            }
        }
    }

    /// Everything in quarantine, in the order of the addresses.
    ///
    /// # Errors
    /// `state-unreadable`.
    pub fn quarantined(&self) -> Result<Vec<Entry>, Report> {
        let folder = self.quarantine();
        let names = match fs::read_dir(&folder) {
            Ok(entries) => entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let mut names = names.map_err(|error| unreadable(&folder, &error))?;
        // Files that were never finished are not of the quarantine.
        names.retain(|name| !name.starts_with('.'));
        names.sort_unstable();
        Ok(names
            .iter()
            .filter_map(|name| match name.strip_suffix(".json").map(str::parse) {
                Some(Ok(bdf)) => self.entry(bdf),
                _ => Some(damaged(
                    None,
                    &folder.join(name),
                    "its name is not ADDRESS.json",
                )),
            })
            .collect())
    }

    /// Lets guests have `bdf` again. What it was is kept, with the operator's `note`; the file's path and, unless it is
    /// damaged, the record are given back.
    ///
    /// # Errors
    /// `not-quarantined`, `state-unwritable`.
    pub fn release(
        &self,
        bdf: Bdf,
        note: Option<&str>,
    ) -> Result<(PathBuf, Option<Record>), Report> {
        let Some(entry) = self.entry(bdf) else {
            return Err(self.not_quarantined(bdf));
        };
        let from = self.file_of(bdf);
        let to = self.released().join(format!("{bdf}-{}.json", now()));
        let unwritable = |error: io::Error| self.unwritable(&from, &error);
        fs::create_dir_all(self.released()).map_err(unwritable)?;
        // The copy first: if the power goes in between, the function is still in quarantine.
        let (text, record) = match entry {
            Entry::Record(mut record) => {
                record.released = Some(now());
                record.note = note.map(str::to_owned);
                let text = serde_json::to_vec_pretty(&record).map_err(io::Error::from);
                (text, Some(record))
            }
            Entry::Damaged { .. } => (fs::read(&from), None),
        };
        text.and_then(|text| file::write_whole(&to, &text))
            .and_then(|()| fs::remove_file(&from))
            .and_then(|()| file::sync_folder(&self.quarantine()))
            .map_err(unwritable)?;
        Ok((to, record))
    }

    fn entry(&self, bdf: Bdf) -> Option<Entry> {
        let path = self.file_of(bdf);
        let read = fs::File::open(&path).and_then(|file| {
            let mut text = String::new();
            io::Read::read_to_string(&mut io::Read::take(file, FILE_LIMIT), &mut text)?;
            Ok(text)
        });
        let text = match read {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(damaged(Some(bdf), &path, &error.to_string())),
        };
        Some(match serde_json::from_str::<Record>(&text) {
            Ok(record) if record.version != VERSION => damaged(
                Some(bdf),
                &path,
                &format!(
                    "its format has version {}, this program knows {VERSION}",
                    record.version
                ),
            ),
            Ok(record) if record.bdf != bdf => {
                damaged(Some(bdf), &path, &format!("it is about {}", record.bdf))
            }
            Ok(record) => Entry::Record(record),
            Err(error) => damaged(Some(bdf), &path, &error.to_string()),
        })
    }

    /// What is said of a function that is not in quarantine: which ones are.
    #[must_use]
    pub fn not_quarantined(&self, bdf: Bdf) -> Report {
        let there: Vec<String> = match self.quarantined() {
            Ok(entries) => entries
                .iter()
                .filter_map(|entry| match entry {
                    Entry::Record(record) => Some(record.bdf),
                    Entry::Damaged { bdf, .. } => *bdf,
                })
                .map(|bdf| bdf.to_string())
                .collect(),
            Err(report) => return report,
        };
        Report::new(
            ErrorId::NotQuarantined,
            format!("{bdf} is not in quarantine"),
            match there.as_slice() {
                [] => "nothing is in quarantine".to_owned(),
                there => format!("in quarantine: {}", there.join(", ")),
            },
            "name one of those",
        )
    }
}

fn unreadable(path: &std::path::Path, error: &io::Error) -> Report {
    Report::new(
        ErrorId::StateUnreadable,
        "the quarantine cannot be read",
        format!("{}: {error}", path.display()),
        "make it readable; until then no function counts as free",
    )
}

fn damaged(bdf: Option<Bdf>, path: &std::path::Path, why: &str) -> Entry {
    let (what, fix) = match bdf {
        Some(bdf) => (
            format!("the quarantine's record of {bdf} is damaged, so no guest may have {bdf}"),
            format!(
                "read the file; when the device is known to be sound: narrows quarantine release {bdf}"
            ),
        ),
        None => (
            "a file of the quarantine is none of ours".to_owned(),
            "move it elsewhere".to_owned(),
        ),
    };
    let why = format!("{}: {why}", path.display());
    Entry::Damaged {
        bdf,
        report: Report::new(ErrorId::StateDamaged, what, why, fix),
    }
}
