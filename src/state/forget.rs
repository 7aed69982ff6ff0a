//! Giving up what is kept of VFs: by name, or with the host.

use std::{fs, path::PathBuf};

use iommu::bdf::Bdf;

use super::{State, clock::now, file};
use crate::{
    error::{ErrorId, Report},
    sriov::PfRecords,
};

impl State {
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
