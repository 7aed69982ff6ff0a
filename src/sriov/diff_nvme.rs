//! What is to change on an NVMe drive: resources of secondary controllers, and who sees which namespace.

use std::collections::BTreeSet;

use super::{
    check_nvme::{erase_how, secondary},
    desired::DesiredVf,
    facts::{Namespace, NvmeFacts, Secondary, VfFacts},
    plan::{Destroyed, Held, HostPlan, Pf},
    records::NamespaceState,
    step::{DriveSnapshot, EraseHow, ResourceKind, Step},
    tenure::Tenure,
};
use crate::{
    error::{ErrorId, Report},
    spec::host::Eraser,
};

/// What secondary controllers have and lose with all VFs; `None` where there is nothing.
pub(super) fn given(pf: &Pf<'_>) -> Option<DriveSnapshot> {
    let nvme = pf.facts.nvme()?;
    let has = |one: &&Secondary| one.is_online || one.queues > 0 || one.vectors > 0;
    let secondaries: Vec<Secondary> = nvme.secondaries.iter().filter(has).copied().collect();
    (!secondaries.is_empty()).then(|| DriveSnapshot {
        controller: nvme.controller.clone(),
        secondaries,
    })
}

/// Gives a VF's controller its resources and sets it online; whether that resets the VF.
pub(super) fn controller(
    pf: &Pf<'_>,
    vf: &DesiredVf,
    is: Option<&VfFacts>,
    plan: &mut HostPlan,
) -> bool {
    let Some(nvme) = pf.facts.nvme() else {
        return false;
    };
    let (Some(wanted), Some(one)) = (vf.resources, secondary(nvme, vf.index)) else {
        return false;
    };
    let (was_online, queues, vectors) = match is {
        Some(_) => (one.is_online, one.queues, one.vectors),
        None => (false, 0, 0),
    };
    let should_be_online = wanted != (0, 0);
    if (was_online, queues, vectors) == (should_be_online, wanted.0, wanted.1) {
        return false;
    }
    let tenure = is.map_or(Tenure::Free, |is| pf.tenure(is));
    match (&tenure, is) {
        (Tenure::Free | Tenure::Kept(_), _) => {}
        // After an error of the primary: nothing helps a guest that has lost its controller but its end.
        (Tenure::Running(guest), Some(is)) if !was_online => {
            plan.held.push(Held {
                vf: is.bdf,
                guest: guest.clone(),
                what: format!(
                    "controller {} of {} is offline",
                    one.cntlid, nvme.controller
                ),
            });
            return false;
        }
        (Tenure::Running(guest), _) => {
            plan.refusals
                .push(resources_in_use(vf.index, guest, pf, nvme));
            return false;
        }
        (Tenure::Returning(_) | Tenure::Quarantined, _) => return false,
    }
    give(pf, vf, is, wanted, (was_online, queues, vectors), plan)
}

fn give(
    pf: &Pf<'_>,
    vf: &DesiredVf,
    is: Option<&VfFacts>,
    wanted: (u16, u16),
    (was_online, queues, vectors): (bool, u16, u16),
    plan: &mut HostPlan,
) -> bool {
    let (Some(nvme), Some(one)) = (
        pf.facts.nvme(),
        pf.facts.nvme().and_then(|nvme| secondary(nvme, vf.index)),
    ) else {
        return false;
    };
    let (bdf, controller, cntlid) = (pf.facts.bdf, nvme.controller.clone(), one.cntlid);
    let to_nothing = wanted == (0, 0);
    if was_online {
        plan.steps.push(Step::Offline {
            pf: bdf,
            controller: controller.clone(),
            cntlid,
            queues,
            vectors,
        });
        if to_nothing {
            return false;
        }
    }
    // Offline takes both away. Both are given again even where one is right: what takes `Online` back takes both.
    let (queues, vectors) = if was_online {
        (0, 0)
    } else {
        (queues, vectors)
    };
    for (resource, from, to) in [
        (ResourceKind::Vectors, vectors, wanted.1),
        (ResourceKind::Queues, queues, wanted.0),
    ] {
        plan.steps.push(Step::Assign {
            pf: bdf,
            controller: controller.clone(),
            cntlid,
            resource,
            from,
            to,
        });
    }
    if to_nothing {
        return false;
    }
    plan.steps.push(Step::Reset {
        pf: bdf,
        index: vf.index,
        vf: is.map(|is| is.bdf),
    });
    plan.steps.push(Step::Online {
        pf: bdf,
        controller,
        cntlid,
    });
    true
}

fn resources_in_use(index: u32, guest: &str, pf: &Pf<'_>, nvme: &NvmeFacts) -> Report {
    Report::new(
        ErrorId::VfInUse,
        format!(
            "queues and vectors of VF {index} of {} cannot change",
            pf.facts.bdf
        ),
        format!(
            "{guest} has it; {} would take its controller offline",
            nvme.controller
        ),
        format!("stop {guest}"),
    )
    .at(pf.wanted.place.clone())
}

/// Who sees which namespace: makes those that are missing, takes from free VFs and the primary what is not theirs.
pub(super) fn namespaces(pf: &Pf<'_>, plan: &mut HostPlan) {
    let Some(nvme) = pf.facts.nvme() else { return };
    let drive = Drive { pf, nvme };
    for wanted in &pf.wanted.namespaces {
        if let (None, Some(size)) = (wanted.nsid, wanted.size) {
            plan.steps.push(Step::NamespaceCreate {
                pf: pf.facts.bdf,
                controller: nvme.controller.clone(),
                name: wanted.name.clone(),
                size,
                block: wanted.block.unwrap_or_else(|| present_block(nvme)),
                shared: wanted.is_shared,
            });
        }
    }
    for (nsid, is) in &nvme.namespaces {
        let named = pf
            .wanted
            .namespaces
            .iter()
            .find(|one| one.nsid == Some(*nsid));
        if let Some(restored) = &pf.wanted.restored
            && let Some(before) = restored.attached.get(nsid)
        {
            drive.restore(*nsid, is, before, plan);
        } else if let Some(named) = named {
            drive.keep_with_owner(*nsid, named, plan);
            if !named.vfs.is_empty() {
                drive.keep_private(*nsid, is, &named.vfs, plan);
            }
        } else if let Some(name) = drive.made_and_forgotten(*nsid, is) {
            drive.delete(*nsid, is, &name, plan);
        } else {
            drive.keep_from_pools(*nsid, is, plan);
        }
    }
}

/// The block size that the drive is used with.
fn present_block(nvme: &NvmeFacts) -> u32 {
    let first = nvme.namespaces.values().find(|one| one.block > 0);
    first.map_or(512, |one| one.block)
}

struct Drive<'a> {
    pf: &'a Pf<'a>,
    nvme: &'a NvmeFacts,
}

impl Drive<'_> {
    /// The VF of a pool whose controller this is, and who has it.
    fn pooled(&self, cntlid: u16) -> Option<(u32, Tenure)> {
        let vfs = self.pf.wanted.vfs.iter().filter(|vf| vf.pool.is_some());
        let mut vfs = vfs.map(|vf| vf.index);
        let index =
            vfs.find(|index| secondary(self.nvme, *index).is_some_and(|one| one.cntlid == cntlid))?;
        Some((index, self.pf.tenure_of(index)))
    }

    fn detach(&self, nsid: u32, cntlid: u16, plan: &mut HostPlan) {
        plan.steps.push(Step::Detach {
            pf: self.pf.facts.bdf,
            controller: self.nvme.controller.clone(),
            nsid,
            cntlid,
        });
    }

    fn hold(&self, nsid: u32, index: u32, tenure: &Tenure, plan: &mut HostPlan) {
        let vf = self.pf.facts.vfs.iter().find(|vf| vf.index == index);
        if let (Some(vf), Some(guest)) = (vf, tenure.guest()) {
            plan.held.push(Held {
                vf: vf.bdf,
                guest: guest.to_owned(),
                what: format!(
                    "namespace {nsid} of {} is not its own",
                    self.nvme.controller
                ),
            });
        }
    }

    /// A namespace of the file: nobody has it but guests with the VFs that it is for.
    fn keep_private(&self, nsid: u32, is: &Namespace, vfs: &[u32], plan: &mut HostPlan) {
        for cntlid in &is.attached {
            match self.pooled(*cntlid) {
                None if *cntlid == self.nvme.cntlid => self.detach(nsid, *cntlid, plan),
                // Of a VF outside of all pools: `namespace-shared` refuses it.
                None => {}
                Some((_, Tenure::Free)) => self.detach(nsid, *cntlid, plan),
                Some((index, tenure)) if !vfs.contains(&index) => {
                    self.hold(nsid, index, &tenure, plan);
                }
                Some(_) => {}
            }
        }
    }

    /// A namespace in a lease, that the file gives to other VFs or shares.
    fn keep_with_owner(
        &self,
        nsid: u32,
        named: &super::desired::DesiredNamespace,
        plan: &mut HostPlan,
    ) {
        let Some(kept) = self.pf.kept else { return };
        let has_it = |index: &u32| {
            let lease = kept.vfs.get(index).and_then(|vf| vf.lease.as_ref());
            lease.is_some_and(|l| l.terms.namespaces.iter().any(|its| its.nsid == nsid))
        };
        let is_alone = kept.owner_of(nsid).is_some();
        if kept.holders_of(nsid).next().is_some() && is_alone == named.is_shared {
            let what = if is_alone {
                "is shared"
            } else {
                "is shared no more"
            };
            self.keep_for_owner(nsid, what, plan);
        } else if !named.vfs.iter().any(has_it) {
            self.keep_for_owner(nsid, "goes to another VF", plan);
        }
    }

    /// A namespace that the file does not name: free VFs of pools do not have it.
    fn keep_from_pools(&self, nsid: u32, is: &Namespace, plan: &mut HostPlan) {
        for cntlid in &is.attached {
            match self.pooled(*cntlid) {
                Some((_, Tenure::Free)) => self.detach(nsid, *cntlid, plan),
                Some((index, tenure)) => self.hold(nsid, index, &tenure, plan),
                None => {}
            }
        }
    }

    /// As it was before the first apply.
    fn restore(&self, nsid: u32, is: &Namespace, before: &BTreeSet<u16>, plan: &mut HostPlan) {
        for cntlid in is.attached.difference(before) {
            self.detach(nsid, *cntlid, plan);
        }
        for cntlid in before.difference(&is.attached) {
            plan.steps.push(Step::Attach {
                pf: self.pf.facts.bdf,
                controller: self.nvme.controller.clone(),
                nsid,
                cntlid: *cntlid,
            });
        }
    }

    /// The name of a namespace that Narrows made and the file does not name any more.
    fn made_and_forgotten(&self, nsid: u32, is: &Namespace) -> Option<String> {
        let record = self.pf.kept?.namespaces.get(&nsid)?;
        let is_ours = record.is_made && record.id == is.id && self.nvme.can.manage;
        is_ours.then(|| record.name.clone())
    }

    /// A namespace with a guest's data stays that guest's, whatever the file says: its lease ends first.
    fn keep_for_owner(&self, nsid: u32, what: &str, plan: &mut HostPlan) -> bool {
        let holder = self.pf.kept.and_then(|kept| kept.holders_of(nsid).next());
        if let Some((vf, guest, _)) = holder {
            let what = format!("namespace {nsid} of {} {what}", self.nvme.controller);
            let (guest, vf) = (guest.to_owned(), vf.bdf);
            plan.held.push(Held { vf, guest, what });
        }
        holder.is_some()
    }

    fn delete(&self, nsid: u32, is: &Namespace, name: &str, plan: &mut HostPlan) {
        if self.keep_for_owner(nsid, "is deleted", plan) {
            return;
        }
        let held = is.attached.iter().find_map(|cntlid| {
            let (index, tenure) = self.pooled(*cntlid)?;
            (tenure != Tenure::Free).then_some((index, tenure))
        });
        if let Some((index, tenure)) = held {
            self.hold(nsid, index, &tenure, plan);
            return;
        }
        for cntlid in &is.attached {
            self.detach(nsid, *cntlid, plan);
        }
        let (pf, controller) = (self.pf.facts.bdf, self.nvme.controller.clone());
        let record = self.pf.kept.and_then(|kept| kept.namespaces.get(&nsid));
        // A drive may give the blocks to the next namespace as they are.
        if record.is_some_and(|record| record.state != NamespaceState::Clean) {
            let how = erase_how(Eraser::Auto, self.nvme.can).unwrap_or(EraseHow::Overwrite);
            plan.steps.push(Step::Erase {
                pf,
                controller: controller.clone(),
                nsid,
                how,
                block: record
                    .and_then(|record| record.format)
                    .map_or(is.block, |format| format.block),
            });
        }
        plan.steps.push(Step::NamespaceDelete {
            pf,
            controller,
            nsid,
            name: name.to_owned(),
        });
        plan.destroyed.push(Destroyed {
            pf,
            what: format!(
                "namespace {nsid} ({name}) of {} was made by Narrows and is in the file no more: it is deleted with all that is on it",
                self.nvme.controller
            ),
        });
    }
}
