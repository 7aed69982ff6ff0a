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

use iommu::bdf::Bdf;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{Entry, State, clock::now, file};
use crate::{
    error::{ErrorId, Report},
    sriov::{
        Anchor, Event, NamespaceRecord, Observed, PfFacts, PfRecords, Records, VfRecord, VfState,
    },
};

/// The version of the file's format. A file of another one is refused.
const VERSION: u32 = 1;

/// More than any PF's: 1024 VFs with a lease each, of a kilobyte or two.
pub(super) const FILE_LIMIT: u64 = 4 << 20;

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
    /// What is kept of all PFs, as it is in the boot of `observed`. Takes no lock. A PF whose file is damaged, or is about
    /// another card, is among `unusable`, and the others are as if it were not there.
    ///
    /// # Errors
    /// `state-unreadable`.
    pub fn records(&self, observed: &Observed) -> Result<Records, Report> {
        let mut records = Records {
            seed: self.seed_if_any()?,
            running: self.running_functions()?,
            ..Records::default()
        };
        for pf in self.recorded_pfs()? {
            match self.usable(pf, observed) {
                Ok(Some(kept)) => {
                    records.pfs.insert(pf, kept);
                }
                Ok(None) => {}
                Err(report) => {
                    records.unusable.insert(pf, report);
                }
            }
        }
        for (pf, report) in self.moved(observed, &records)? {
            records.unusable.insert(pf, report);
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

    /// The cards that are in another slot than the one for which something is kept of them: who has their VFs, and what is on
    /// their namespaces, is known of the other slot.
    fn moved(&self, observed: &Observed, records: &Records) -> Result<Vec<(Bdf, Report)>, Report> {
        let mut moved = Vec::new();
        for was in self.recorded_pfs()? {
            // The card is where it was.
            if observed.pfs.contains_key(&was) && records.pfs.contains_key(&was) {
                continue;
            }
            // One that is damaged is told as such.
            let Ok(Some(kept)) = self.read_pf(was) else {
                continue;
            };
            if matches!(kept.anchor, Anchor::Slot(_)) {
                continue;
            }
            let is_it = |facts: &&PfFacts| facts.bdf != was && facts.anchor == kept.anchor;
            for facts in observed.pfs.values().filter(is_it) {
                if !records.pfs.contains_key(&facts.bdf) {
                    let report = Report::new(
                        ErrorId::RecordMismatch,
                        format!(
                            "what is kept of the card at {} is kept for {was}",
                            facts.bdf
                        ),
                        format!(
                            "{} was at {was} when it was written",
                            in_words(&kept.anchor)
                        ),
                        format!(
                            "put the card back at {was}, or give up what guests have on it: narrows vf forget {was}"
                        ),
                    );
                    moved.push((facts.bdf, report));
                }
            }
        }
        Ok(moved)
    }

    /// What is kept of one PF, if it is about the card that is there.
    fn usable(&self, pf: Bdf, observed: &Observed) -> Result<Option<PfRecords>, Report> {
        let Some(mut kept) = self.read_pf(pf)? else {
            return Ok(None);
        };
        if let Some(facts) = observed.pfs.get(&pf) {
            check_anchor(pf, &kept.anchor, &facts.anchor).map_err(|report| {
                let unread = observed.unread.iter().filter(|one| one.bdf == Some(pf));
                let why = unread.map(|one| format!("{}: {}", one.place, one.reason));
                why.fold(report, Report::and)
            })?;
            kept.enter(&observed.boot, facts.nvme().is_some(), &now());
        }
        Ok(Some(kept))
    }

    /// Changes what is kept of one PF, under its lock: what `f` has made of it is on the disk when this returns, or nothing
    /// is changed. Of a PF that nothing is kept of, `f` is given an empty record with no boot, for it to set.
    ///
    /// # Errors
    /// What `f` says; `vf-state-damaged`, `record-mismatch`, `facts-unread`, `state-unwritable`; `host-busy` where its lock is
    /// not to be had.
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
            let kept = match self.read_pf(pf) {
                // Whoever works with that PF is told. Once it is forgotten, its VFs start anew.
                Err(report) if report.id == ErrorId::VfStateDamaged => continue,
                read => read?,
            };
            let Some(kept) = kept.filter(|kept| found(kept).is_some()) else {
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

    pub(super) fn read_pf(&self, pf: Bdf) -> Result<Option<PfRecords>, Report> {
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

    pub(super) fn write_pf(&self, pf: Bdf, kept: PfRecords) -> Result<(), Report> {
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

    /// The lock of who erases namespaces of a PF that no guest has; `None` where somebody else does.
    ///
    /// # Errors
    /// `state-unwritable`.
    pub fn lock_erase(&self, pf: Bdf) -> Result<Option<File>, Report> {
        let path = self.pf_file(pf, "erasing");
        let unwritable = |error: io::Error| self.unwritable(&path, &error);
        let lock = file::private_folder(&self.vfs())
            .and_then(|()| file::open_lock(&path))
            .map_err(unwritable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(lock)),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(unwritable(errno.into())),
        }
    }

    pub(super) fn lock_pf(&self, pf: Bdf) -> Result<File, Report> {
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

    pub(super) fn vfs(&self) -> PathBuf {
        self.folder.join("vfs")
    }

    pub(super) fn pf_file(&self, pf: Bdf, ending: &str) -> PathBuf {
        self.vfs().join(format!("{pf}.{ending}"))
    }
}

pub(super) fn check_anchor(pf: Bdf, kept: &Anchor, found: &Anchor) -> Result<(), Report> {
    if kept == found {
        return Ok(());
    }
    if let Anchor::Slot(_) = found {
        return Err(Report::new(
            ErrorId::FactsUnread,
            format!(
                "whether what is kept of the VFs of {pf} is about the card that is there cannot be told"
            ),
            format!(
                "kept: {}; there: a card whose {} cannot be read",
                in_words(kept),
                match kept {
                    Anchor::Mac(_) => "MAC address",
                    Anchor::Serial(_) | Anchor::Slot(_) => "serial number",
                }
            ),
            "bind the PF to its driver, in this network namespace, and see the kernel log where it is bound and does not answer",
        ));
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

pub(super) fn unreadable(path: &Path, error: &io::Error) -> Report {
    Report::new(
        ErrorId::StateUnreadable,
        "what is kept of VFs cannot be read",
        format!("{}: {error}", path.display()),
        "run as root, and see that the state folder can be read; until then no VF counts as free",
    )
}
