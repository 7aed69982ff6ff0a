//! Giving up what is kept of VFs: by name, or with the host.
//!
//! What is forgotten by name is set aside whole, and its card is remembered: as long as it is there, nobody knows which of
//! its namespaces are clean.

use std::{fs, io, path::PathBuf};

use iommu::{bdf::Bdf, sysfs::SysRoot};

use super::{ProcessId, State, clock::now, file, vf::check_anchor};
use crate::{
    error::{ErrorId, Report},
    sriov::{Anchor, Holder, NamespaceState, Observed, PfRecords, VfRecord},
};

/// More than the cards that were ever in one slot.
const MARKER_LIMIT: u64 = 1 << 16;

impl State {
    /// What is lost with what is kept of a PF, in words: leases, and namespaces that are to be erased. Nothing where nothing
    /// but states and addresses is.
    ///
    /// # Errors
    /// `vf-in-use` where a guest runs with a VF of it, or has a lease of one while the card is there that it is about;
    /// `facts-unread` where that cannot be told; `never-applied` where nothing is kept; `state-unreadable`.
    pub fn lost_with(&self, pf: Bdf, observed: &Observed) -> Result<Vec<String>, Report> {
        let running = self.running_functions()?;
        let found = observed.pfs.get(&pf);
        let users = |kept: Option<&PfRecords>| {
            let there = found.into_iter().flat_map(|facts| &facts.vfs);
            let known = kept.into_iter().flat_map(|kept| kept.vfs.values());
            let vfs = there.map(|vf| vf.bdf).chain(known.map(|vf| vf.bdf));
            let by_note = vfs.filter_map(|vf| Some(format!("{} has {vf}", running.get(&vf)?)));
            let known = kept.into_iter().flat_map(|kept| &kept.vfs);
            let by_lease = known.filter(|(_, vf)| runs(vf, &observed.boot));
            let mut users: Vec<String> = by_note
                .map(|who| format!("guest {who}"))
                .chain(by_lease.filter_map(|(index, vf)| user(*index, vf)))
                .collect();
            users.sort_unstable();
            users.dedup();
            users
        };
        let kept = match self.read_pf(pf) {
            Ok(Some(kept)) => kept,
            Ok(None) => return Err(nothing_kept(pf, &self.pf_file(pf, "json"))),
            // One that cannot be read is what this is for.
            Err(report) if report.id == ErrorId::VfStateDamaged => {
                not_used(pf, &users(None))?;
                return Ok(vec![format!(
                    "whatever is kept of {pf}, which nobody can read: who keeps its VFs, and whose data is on its namespaces"
                )]);
            }
            Err(report) => return Err(report),
        };
        not_used(pf, &users(Some(&kept)))?;
        if let Some(facts) = found {
            match check_anchor(pf, &kept.anchor, &facts.anchor) {
                // Of this card leases can be returned.
                Ok(()) => in_no_use(pf, &kept)?,
                Err(report) if report.id == ErrorId::FactsUnread => {
                    // Whose the card is decides only where there is a lease.
                    if in_no_use(pf, &kept).is_err() {
                        return Err(report);
                    }
                }
                Err(_) => {}
            }
        }
        Ok(losses(&kept))
    }

    /// Moves away what is kept of a PF, whatever it is. Takes the host's lock.
    ///
    /// # Errors
    /// As [`Self::lost_with`]; `plan-stale` where something else is lost than `agreed` says; `host-busy`;
    /// `state-unwritable`.
    pub fn forget_pf(
        &self,
        pf: Bdf,
        observed: &Observed,
        agreed: &[String],
    ) -> Result<PathBuf, Report> {
        let _host = self.lock_host("vf forget")?;
        let _lock = self.lock_pf(pf)?;
        let lost = self.lost_with(pf, observed)?;
        if lost != agreed {
            return Err(Report::new(
                ErrorId::PlanStale,
                format!("what is kept of the VFs of {pf} is not forgotten"),
                "it was changed since it was shown",
                format!("narrows vf forget {pf} again"),
            ));
        }
        let from = self.pf_file(pf, "json");
        let anchor = self.read_pf(pf).ok().flatten().map(|kept| kept.anchor);
        let to = self.released().join(format!("vfs-{pf}-{}.json", now()));
        file::private_folder(&self.vfs())
            .and_then(|()| fs::create_dir_all(self.released()))
            // First, so that no moment has neither.
            .and_then(|()| self.mark_forgotten(pf, anchor.as_ref()))
            .and_then(|()| fs::rename(&from, &to))
            .and_then(|()| file::sync_folder(&self.released()))
            .and_then(|()| file::sync_folder(&self.vfs()))
            .map_err(|error| self.unwritable(&from, &error))?;
        Ok(to)
    }

    /// Whether what was kept of this card was forgotten, in whichever slot it was: then nobody knows which of its namespaces
    /// are clean. Where it is not known which card that was, it may have been the one in this slot.
    #[must_use]
    pub fn is_forgotten(&self, pf: Bdf, anchor: &Anchor) -> bool {
        // What cannot be read is there.
        let Ok(markers) = self.markers() else {
            return true;
        };
        markers.into_iter().any(|(of, text)| {
            let mut cards = cards(&text);
            cards.any(|card| card.map_or(of == pf, |card| card == *anchor))
        })
    }

    /// Drops a card from those that were forgotten: what it has is written down.
    ///
    /// # Errors
    /// `state-unreadable`, `state-unwritable`.
    pub fn recall(&self, pf: Bdf, anchor: &Anchor) -> Result<(), Report> {
        let folder = self.vfs();
        let unwritable = |error: io::Error| self.unwritable(&folder, &error);
        for (of, text) in self.markers().map_err(unwritable)? {
            let _lock = self.lock_pf(of)?;
            let is_other = |card: &Option<Anchor>| match card {
                Some(card) => card != anchor,
                None => of != pf,
            };
            let left: Vec<Option<Anchor>> = cards(&text).filter(is_other).collect();
            if left.len() == cards(&text).count() {
                continue;
            }
            let path = self.pf_file(of, "forgotten");
            let written = match left.is_empty() {
                true => fs::remove_file(&path).and_then(|()| file::sync_folder(&folder)),
                false => {
                    in_lines(&left).and_then(|text| file::write_private(&path, text.as_bytes()))
                }
            };
            written.map_err(unwritable)?;
        }
        Ok(())
    }

    /// The markers of all slots.
    fn markers(&self) -> io::Result<Vec<(Bdf, String)>> {
        let entries = match fs::read_dir(self.vfs()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let pf = name
                .to_str()
                .and_then(|name| name.strip_suffix(".forgotten"));
            let Some(pf) = pf.and_then(|pf| pf.parse().ok()) else {
                continue;
            };
            match file::read_if_any(&entry.path(), MARKER_LIMIT) {
                Ok(text) => all.extend(text.map(|text| (pf, text))),
                // Of no known card.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    all.push((pf, String::new()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Adds a card to those that were forgotten: a line each.
    fn mark_forgotten(&self, pf: Bdf, anchor: Option<&Anchor>) -> io::Result<()> {
        let path = self.pf_file(pf, "forgotten");
        let mut text = match file::read_if_any(&path, MARKER_LIMIT) {
            Ok(text) => text.unwrap_or_default(),
            // Of no known card.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::from("\n"),
            Err(error) => return Err(error),
        };
        let is_known = path.exists() && cards(&text).any(|card| card.as_ref() == anchor);
        if !is_known {
            if path.exists() && text.is_empty() {
                text.push('\n');
            }
            if let Some(anchor) = anchor {
                text.push_str(&serde_json::to_string(anchor)?);
            }
            text.push('\n');
        }
        file::write_private(&path, text.as_bytes())
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
            .retain(|_, namespace| namespace.state != NamespaceState::Clean);
        if !kept.namespaces.is_empty() {
            return self.write_pf(pf, kept);
        }
        let path = self.pf_file(pf, "json");
        fs::remove_file(&path)
            .and_then(|()| file::sync_folder(&self.vfs()))
            .map_err(|error| self.unwritable(&path, &error))
    }
}

fn in_lines(cards: &[Option<Anchor>]) -> io::Result<String> {
    let mut text = String::new();
    for card in cards {
        if let Some(anchor) = card {
            text.push_str(&serde_json::to_string(anchor)?);
        }
        text.push('\n');
    }
    Ok(text)
}

/// The cards of a marker; `None` for one that is not known.
fn cards(text: &str) -> impl Iterator<Item = Option<Anchor>> {
    let lines = if text.is_empty() { "\n" } else { text };
    lines.lines().map(|line| serde_json::from_str(line).ok())
}

/// Whether the run lives that has a VF, by its lease. What cannot be told counts as alive.
fn runs(record: &VfRecord, boot: &str) -> bool {
    let holder = record.lease.as_ref().and_then(|lease| lease.run.as_ref());
    holder.is_some_and(
        |Holder {
             pid,
             start,
             boot: of,
         }| {
            let (pid, start) = (*pid, *start);
            let is_now = of == boot || boot.is_empty();
            is_now
                && ProcessId { pid, start }
                    .runs(&SysRoot::default())
                    .unwrap_or(true)
        },
    )
}

fn user(index: u32, record: &VfRecord) -> Option<String> {
    let guest = &record.lease.as_ref()?.guest;
    Some(format!(
        "guest {guest} has VF {index} ({}, {})",
        record.bdf, record.state
    ))
}

/// What a file of records has that nobody can tell again.
fn losses(kept: &PfRecords) -> Vec<String> {
    let leases = kept.vfs.iter().filter_map(|(index, record)| {
        let lease = record.lease.as_ref()?;
        let keeps = if lease.keep { ", which it keeps" } else { "" };
        Some(format!(
            "the lease of guest {}: VF {index} ({}, {}){keeps}",
            lease.guest, record.bdf, record.state
        ))
    });
    let namespaces = kept.namespaces.iter().filter_map(|(nsid, record)| {
        let who = record.last_guest.as_deref().unwrap_or("a guest");
        (record.state != NamespaceState::Clean).then(|| {
            let name = &record.name;
            format!("that namespace {nsid} ({name}) may have data of {who}, and is not erased")
        })
    });
    leases.chain(namespaces).collect()
}

fn nothing_kept(pf: Bdf, path: &std::path::Path) -> Report {
    Report::new(
        ErrorId::NeverApplied,
        format!("nothing is kept of the VFs of {pf}"),
        format!("there is no {}", path.display()),
        "narrows vf ls lists the PFs that something is kept of",
    )
}

fn not_used(pf: Bdf, users: &[String]) -> Result<(), Report> {
    match users.is_empty() {
        true => Ok(()),
        false => Err(in_use(pf, users)),
    }
}

fn in_no_use(pf: Bdf, kept: &PfRecords) -> Result<(), Report> {
    let users = kept.vfs.iter();
    let users: Vec<String> = users
        .filter_map(|(index, record)| user(*index, record))
        .collect();
    not_used(pf, &users)
}

fn in_use(pf: Bdf, users: &[String]) -> Report {
    Report::new(
        ErrorId::VfInUse,
        format!("what is kept of the VFs of {pf} cannot be given up"),
        users.join("; "),
        "stop those guests; narrows recover where one was killed, narrows vf return where one keeps its VF",
    )
}
