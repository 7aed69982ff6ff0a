//! What a recovery would do: nothing is touched, and no lock is taken.

use iommu::{
    bind::{self},
    sysfs::SysRoot,
    topology::read_driver,
};

use super::{is_of_this_boot, not_recovered};
use crate::{
    error::Report,
    spec::host::Eraser,
    sriov::LeaseTerms,
    state::{Changes, ProcessId},
    supervisor::log::Log,
};

/// What is to be done, and what is known to stand in the way.
pub(super) fn foretell(root: &SysRoot, changes: &Changes, log: &Log) -> Vec<Report> {
    match is_of_this_boot(root, changes) {
        Ok(true) => {}
        Ok(false) => {
            log.say("the host has booted since: only the journal would be removed");
            for terms in changes.functions.iter().filter_map(|f| f.lease.as_ref()) {
                foretell_lease(terms, log);
            }
            return Vec::new();
        }
        Err(report) => return vec![report],
    }
    for process in &changes.processes {
        if let Ok(Some(found)) = ProcessId::of(root, process.pid)
            && found == *process
        {
            log.say(&format!("{process} would be killed"));
        }
    }
    if let Some(cgroup) = &changes.cgroup {
        log.say(&format!(
            "{} would be emptied and removed",
            cgroup.display()
        ));
    }
    for taken in &changes.functions {
        let bdf = taken.binding.bdf();
        let now = match read_driver(root, bdf) {
            _ if !bind::is_there(root, bdf) => {
                log.say(&format!("{bdf} is gone: nothing would be done"));
                continue;
            }
            Ok(now) => now,
            Err(error) => return vec![not_recovered(bdf, &error.to_string())],
        };
        let or_none = |driver: Option<&str>| driver.unwrap_or("no driver").to_owned();
        log.say(&format!(
            "{bdf} would be reset, compared and bound as before ({}; now {})",
            or_none(taken.binding.driver_before()),
            or_none(now.as_deref())
        ));
        if let Some(terms) = &taken.lease {
            foretell_lease(terms, log);
        }
    }
    Vec::new()
}

fn foretell_lease(terms: &LeaseTerms, log: &Log) {
    let (vf, pool) = (terms.vf, &terms.pool);
    log.say(&match terms.keep {
        true => format!("{vf} would be set to what pool {pool} rests as, and stay the guest's"),
        false => format!("{vf} would be set to what pool {pool} rests as, and its lease ended"),
    });
    if !terms.keep && terms.erase != Eraser::None {
        for namespace in terms.namespaces.iter().filter(|its| !its.is_shared) {
            log.say(&format!(
                "namespace {} would be erased, if the guest had it",
                namespace.nsid
            ));
        }
    }
}
