//! What is kept of VFs: one file for each PF, read whole, changed under its lock.
//!
//! A file that is not as it was written is refused, with the way out of forgetting it by name: then every namespace of its
//! PF counts as dirty.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use iommu::{bdf::Bdf, sysfs::SysRoot};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{Entry, ProcessId, State, clock::now, file};
use crate::{
    error::{ErrorId, Report},
    sriov::{
        Anchor, Event, NamespaceRecord, Observed, PfFacts, PfRecords, Records, VfRecord, VfState,
    },
};

/// The version of the file's format. A file of another one is refused.
const VERSION: u32 = 1;

/// More than any PF's: 256 VFs with a lease each.
const FILE_LIMIT: u64 = 1 << 20;

/// How long a PF's lock is waited for: whoever has it changes one file, or sets one attribute.
const PATIENCE: Duration = Duration::from_secs(30);

/// One file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PfFile {
    version: u32,
    pf: Bdf,
    anchor: Anchor,
    boot: String,
    narrows: String,
    vfs: BTreeMap<u32, VfRecord>,
    namespaces: BTreeMap<u32, NamespaceRecord>,
}

impl State {
    /// What is kept of all PFs, as it is in the boot of `observed`. Takes no lock.
    ///
    /// # Errors
    /// `vf-state-damaged`; `record-mismatch` where another card is in a PF's slot; `state-unreadable`.
    pub fn records(&self, observed: &Observed) -> Result<Records, Report> {
        let mut records = Records {
            seed: self.seed_if_any()?,
            running: self.running_functions()?,
            ..Records::default()
        };
        for pf in self.recorded_pfs()? {
            let Some(mut kept) = self.read_pf(pf)? else {
                continue;
            };
            if let Some(facts) = observed.pfs.get(&pf) {
                check_anchor(pf, &kept.anchor, &facts.anchor)?;
                kept.enter(&observed.boot, is_nvme(facts), &now());
            }
            records.pfs.insert(pf, kept);
        }
        for entry in self.quarantined()? {
            match entry {
                Entry::Record(record) => records.quarantined.insert(record.bdf, record.reason),
                Entry::Damaged {
                    bdf: Some(bdf),
                    report,
                } => records.quarantined.insert(bdf, report.what),
                Entry::Damaged { bdf: None, report } => return Err(report),
            };
        }
        Ok(records)
    }

    /// Changes what is kept of one PF, under its lock: what `f` has made of it is on the disk when this returns, or nothing
    /// is changed. Of a PF that nothing is kept of, `f` is given an empty record with no boot, for it to set.
    ///
    /// # Errors
    /// What `f` says; `vf-state-damaged`, `record-mismatch`, `state-unwritable`; `host-busy` where its lock is not to be had.
    pub fn change_pf<T>(
        &self,
        pf: Bdf,
        anchor: &Anchor,
        f: impl FnOnce(&mut PfRecords) -> Result<T, Report>,
    ) -> Result<T, Report> {
        let _lock = self.lock_pf(pf)?;
        let before = self.read_pf(pf)?;
        let mut kept = match before.clone() {
            Some(kept) => {
                check_anchor(pf, &kept.anchor, anchor)?;
                kept
            }
            None => PfRecords::new(anchor.clone(), String::new()),
        };
        let result = f(&mut kept)?;
        if before.as_ref() != Some(&kept) {
            self.write_pf(pf, kept)?;
        }
        Ok(result)
    }

    /// Lets the record of a VF that was put into quarantine say so, once it is given back: until then the record says what is
    /// still to be done. Nothing where there is no record.
    ///
    /// # Errors
    /// As [`Self::change_pf`].
    pub fn mark_quarantined(&self, bdf: Bdf) -> Result<(), Report> {
        self.change_vf(bdf, |kept, index, state| {
            if matches!(state, VfState::Created | VfState::Clean) {
                kept.step(index, bdf, Event::Failed, &now())?;
            }
            Ok(())
        })
        .map(|_| ())
    }

    /// Lets the record of a VF that is about to leave quarantine say that nobody knows what it did: it is `created`. One
    /// that is not given back yet stays what it is. What it is then; `None` where there is no record.
    ///
    /// # Errors
    /// As [`Self::change_pf`].
    pub fn mark_freed(&self, bdf: Bdf) -> Result<Option<VfState>, Report> {
        self.change_vf(bdf, |kept, index, state| match state {
            VfState::Created | VfState::Clean | VfState::Quarantined => {
                // It may have been put there by a run that was killed before it could say so.
                kept.step(index, bdf, Event::Failed, &now())?;
                kept.step(index, bdf, Event::Freed, &now())
            }
            VfState::Absent
            | VfState::Leased
            | VfState::InUse
            | VfState::Dirty
            | VfState::Sanitising => Ok(state),
        })
    }

    /// Changes the record of a VF, which is found by its address.
    fn change_vf<T>(
        &self,
        bdf: Bdf,
        f: impl Fn(&mut PfRecords, u32, VfState) -> Result<T, Report>,
    ) -> Result<Option<T>, Report> {
        let found = |kept: &PfRecords| {
            let mut all = kept.vfs.iter();
            let its = all.find(|(_, vf)| vf.bdf == bdf && vf.state != VfState::Absent)?;
            Some((*its.0, its.1.state))
        };
        for pf in self.recorded_pfs()? {
            let Some(kept) = self.read_pf(pf)?.filter(|kept| found(kept).is_some()) else {
                continue;
            };
            // Once more under the lock.
            return self.change_pf(pf, &kept.anchor, |kept| {
                found(kept)
                    .map(|(index, state)| f(kept, index, state))
                    .transpose()
            });
        }
        Ok(None)
    }

    /// Moves away what is kept of a PF, whatever it is. Whoever has the host's lock only.
    ///
    /// # Errors
    /// `vf-in-use` where a guest has a VF of it; `never-applied` where nothing is kept; `state-unwritable`.
    pub fn forget_pf(&self, pf: Bdf) -> Result<PathBuf, Report> {
        let _lock = self.lock_pf(pf)?;
        let from = self.pf_file(pf, "json");
        if !from.exists() {
            return Err(Report::new(
                ErrorId::NeverApplied,
                format!("nothing is kept of the VFs of {pf}"),
                format!("there is no {}", from.display()),
                "narrows vf ls lists the PFs that something is kept of",
            ));
        }
        // One that cannot be read is what this is for.
        if let Ok(Some(kept)) = self.read_pf(pf) {
            in_no_use(pf, &kept)?;
        }
        let to = self.released().join(format!("vfs-{pf}-{}.json", now()));
        file::private_folder(&self.vfs())
            .and_then(|()| fs::create_dir_all(self.released()))
            // First, so that no moment has neither.
            .and_then(|()| file::write_private(&self.pf_file(pf, "forgotten"), b""))
            .and_then(|()| fs::rename(&from, &to))
            .and_then(|()| file::sync_folder(&self.released()))
            .and_then(|()| file::sync_folder(&self.vfs()))
            .map_err(|error| self.unwritable(&from, &error))?;
        Ok(to)
    }

    /// Whether what was kept of a PF was forgotten: then nobody knows which of its namespaces are clean.
    #[must_use]
    pub fn is_forgotten(&self, pf: Bdf) -> bool {
        self.pf_file(pf, "forgotten").exists()
    }

    /// The PFs that something is kept of.
    ///
    /// # Errors
    /// `state-unreadable`.
    pub fn recorded_pfs(&self) -> Result<Vec<Bdf>, Report> {
        let folder = self.vfs();
        let names = match fs::read_dir(&folder) {
            Ok(entries) => entries
                .map(|entry| Ok(entry?.file_name()))
                .collect::<io::Result<Vec<_>>>()
                .map_err(|error| unreadable(&folder, &error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&folder, &error)),
        };
        let mut pfs: Vec<Bdf> = names
            .iter()
            .filter_map(|name| name.to_str()?.strip_suffix(".json")?.parse().ok())
            .collect();
        pfs.sort_unstable();
        Ok(pfs)
    }

    fn read_pf(&self, pf: Bdf) -> Result<Option<PfRecords>, Report> {
        let path = self.pf_file(pf, "json");
        let text = match file::read_if_any(&path, FILE_LIMIT) {
            Ok(None) => return Ok(None),
            Ok(Some(text)) => text,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged(pf, &path, &error.to_string()));
            }
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let kept: PfFile =
            serde_json::from_str(&text).map_err(|error| damaged(pf, &path, &error.to_string()))?;
        if kept.version != VERSION {
            let version = kept.version;
            let why = format!("its format has version {version}, this program knows {VERSION}");
            return Err(damaged(pf, &path, &why));
        }
        if kept.pf != pf {
            return Err(damaged(pf, &path, &format!("it is about {}", kept.pf)));
        }
        Ok(Some(PfRecords {
            anchor: kept.anchor,
            boot: kept.boot,
            vfs: kept.vfs,
            namespaces: kept.namespaces,
        }))
    }

    fn write_pf(&self, pf: Bdf, kept: PfRecords) -> Result<(), Report> {
        let path = self.pf_file(pf, "json");
        let file = PfFile {
            version: VERSION,
            pf,
            anchor: kept.anchor,
            boot: kept.boot,
            narrows: env!("CARGO_PKG_VERSION").to_owned(),
            vfs: kept.vfs,
            namespaces: kept.namespaces,
        };
        let written = serde_json::to_vec_pretty(&file)
            .map_err(io::Error::from)
            .and_then(|mut text| {
                text.push(b'\n');
                file::write_private(&path, &text)
            });
        written.map_err(|error| self.unwritable(&path, &error))
    }

    /// Removes what is kept of VFs that nobody has; what is still to be erased stays known.
    pub(super) fn forget_free(&self, pf: Bdf) -> Result<(), Report> {
        let _lock = self.lock_pf(pf)?;
        let Some(mut kept) = self.read_pf(pf)? else {
            return Ok(());
        };
        in_no_use(pf, &kept)?;
        kept.vfs.clear();
        kept.namespaces
            .retain(|_, namespace| namespace.state != crate::sriov::NamespaceState::Clean);
        if !kept.namespaces.is_empty() {
            return self.write_pf(pf, kept);
        }
        let path = self.pf_file(pf, "json");
        fs::remove_file(&path)
            .and_then(|()| file::sync_folder(&self.vfs()))
            .map_err(|error| self.unwritable(&path, &error))
    }

    fn lock_pf(&self, pf: Bdf) -> Result<File, Report> {
        let path = self.pf_file(pf, "lock");
        let unwritable = |error: io::Error| self.unwritable(&path, &error);
        let lock = file::private_folder(&self.vfs())
            .and_then(|()| file::open_lock(&path))
            .map_err(unwritable)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(lock),
                Err(Errno::AGAIN | Errno::INTR) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(2));
                }
                Err(Errno::AGAIN | Errno::INTR) => {
                    return Err(Report::new(
                        ErrorId::HostBusy,
                        format!("what is kept of the VFs of {pf} cannot be changed"),
                        format!(
                            "{}: another process has it locked for {} s",
                            path.display(),
                            PATIENCE.as_secs()
                        ),
                        "see which narrows hangs, and end it",
                    ));
                }
                Err(errno) => return Err(unwritable(errno.into())),
            }
        }
    }

    /// Functions with the note of a run whose process is there: who only looks takes no lock.
    fn running_functions(&self) -> Result<BTreeMap<Bdf, String>, Report> {
        let folder = self.in_use();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(unreadable(&folder, &error)),
        };
        let mut running = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(&folder, &error))?;
            let path = entry.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(bdf) = name.and_then(|name| name.parse().ok()) else {
                continue;
            };
            // Every function that ever had a run has a file; whose run has ended has an empty one.
            match entry.metadata() {
                Ok(found) if found.len() == 0 => continue,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(unreadable(&path, &error)),
            }
            let note = file::read_if_any(&path, super::in_use::NOTE_LIMIT)
                .map_err(|error| unreadable(&path, &error))?;
            if let Some((guest, pid)) = note.as_deref().and_then(super::in_use::parsed)
                && ProcessId::of(&SysRoot::default(), pid)
                    .map_err(|error| unreadable(&path, &error))?
                    .is_some()
            {
                running.insert(bdf, guest.to_owned());
            }
        }
        Ok(running)
    }

    pub(super) fn vfs(&self) -> PathBuf {
        self.folder.join("vfs")
    }

    fn pf_file(&self, pf: Bdf, ending: &str) -> PathBuf {
        self.vfs().join(format!("{pf}.{ending}"))
    }
}

fn is_nvme(facts: &PfFacts) -> bool {
    facts.nvme().is_some()
}

fn in_no_use(pf: Bdf, kept: &PfRecords) -> Result<(), Report> {
    let users: Vec<String> = kept
        .vfs
        .iter()
        .filter_map(|(index, record)| {
            let guest = &record.lease.as_ref()?.guest;
            Some(format!(
                "guest {guest} has VF {index} ({}, {})",
                record.bdf, record.state
            ))
        })
        .collect();
    if users.is_empty() {
        return Ok(());
    }
    Err(Report::new(
        ErrorId::VfInUse,
        format!("what is kept of the VFs of {pf} cannot be given up"),
        users.join("; "),
        "stop those guests; narrows recover where one was killed, narrows vf return where one keeps its VF",
    ))
}

fn check_anchor(pf: Bdf, kept: &Anchor, found: &Anchor) -> Result<(), Report> {
    if kept == found {
        return Ok(());
    }
    Err(Report::new(
        ErrorId::RecordMismatch,
        format!("what is kept of the VFs of {pf} is about another card"),
        format!("kept: {}; there: {}", in_words(kept), in_words(found)),
        format!("if the card was exchanged for good: narrows vf forget {pf}"),
    ))
}

fn in_words(anchor: &Anchor) -> String {
    match anchor {
        Anchor::Mac(mac) => format!("the NIC with MAC {mac}"),
        Anchor::Serial(serial) => format!("the controller with serial number {serial}"),
        Anchor::Slot(bdf) => format!("the card at {bdf}"),
    }
}

fn damaged(pf: Bdf, path: &Path, why: &str) -> Report {
    Report::new(
        ErrorId::VfStateDamaged,
        format!("what is kept of the VFs of {pf} is damaged: nobody knows who has them"),
        format!("{}: {why}", path.display()),
        format!(
            "narrows vf forget {pf}: it moves the file away, and everything of {pf} counts as dirty"
        ),
    )
}

fn unreadable(path: &Path, error: &io::Error) -> Report {
    Report::new(
        ErrorId::StateUnreadable,
        "what is kept of VFs cannot be read",
        format!("{}: {error}", path.display()),
        "run as root, and see that the state folder can be read; until then no VF counts as free",
    )
}
