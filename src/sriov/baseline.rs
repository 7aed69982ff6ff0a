//! What a machine was before the first apply, as something to wish for: the aim of a release.

use std::collections::BTreeMap;

use iommu::bdf::Bdf;

use super::{
    check_nvme::secondary,
    desired::{Desired, DesiredPf, DesiredVf, Restored, WithoutMac},
    facts::{Observed, PfFacts, VfFacts},
    matching,
};
use crate::spec::host::{Eraser, HostSpec, Interlock, Profiles};

/// The machine as `before`, as far as its cards are still there: numbers of VFs, what each was held to, resources and
/// namespaces of drives, links and drivers.
#[must_use]
pub fn baseline(before: &Observed, now: &Observed) -> Desired {
    let same = before.pfs.values().filter(|was| {
        let is = now.pfs.get(&was.bdf);
        is.is_some_and(|is| is.anchor == was.anchor)
    });
    let pfs: BTreeMap<Bdf, DesiredPf> = same.map(|was| (was.bdf, as_was(was))).collect();
    Desired { pfs }
}

/// What the file that was applied accepts of each of these PFs, so that what an apply has crossed a release crosses, too.
#[must_use]
pub fn with_accepted(
    mut desired: Desired,
    spec: &HostSpec,
    now: &Observed,
    profiles: &Profiles,
) -> Desired {
    // Those that the file does not find any more have nothing accepted.
    let (matched, _) = matching::pfs(spec, now, profiles);
    for (pf, facts, _) in matched {
        let Some(wanted) = desired.pfs.get_mut(&facts.bdf) else {
            continue;
        };
        wanted.place = Some(pf.place.clone());
        wanted.accept.extend(pf.accept.iter().copied());
        // Whoever shares a PF with another manager has accepted it.
        wanted
            .accept
            .extend(pf.adopt.then_some(Interlock::ManagedElsewhere));
    }
    desired
}

fn as_was(was: &PfFacts) -> DesiredPf {
    let drivers = was.vfs.iter().filter_map(|vf| {
        let driver = vf.driver.as_ref().filter(|name| *name != "vfio-pci")?;
        Some((vf.index, driver.clone()))
    });
    let attached = was.nvme().into_iter().flat_map(|nvme| &nvme.namespaces);
    DesiredPf {
        bdf: was.bdf,
        place: None,
        // By driver and ids: which file named another one is forgotten.
        profile: String::new(),
        count: was.count,
        up: was.nic().is_some_and(|nic| nic.is_up),
        is_probed: was.is_probed,
        adopt: false,
        eswitch: None,
        accept: Vec::new(),
        vfs: was.vfs.iter().map(|vf| one_vf(was, vf)).collect(),
        namespaces: Vec::new(),
        restored: Some(Restored {
            attached: attached
                .map(|(nsid, one)| (*nsid, one.attached.clone()))
                .collect(),
            drivers: drivers.collect(),
        }),
    }
}

fn one_vf(pf: &PfFacts, vf: &VfFacts) -> DesiredVf {
    let own = pf.nvme().and_then(|nvme| secondary(nvme, vf.index));
    DesiredVf {
        index: vf.index,
        pool: None,
        rest: vf.nic.unwrap_or_default(),
        without_mac: WithoutMac::Clear,
        leased: vf.nic.unwrap_or_default(),
        resources: own.map(|one| match one.is_online {
            true => (one.queues, one.vectors),
            false => (0, 0),
        }),
        namespaces: Vec::new(),
        erase: Eraser::None,
        accept: Vec::new(),
    }
}
