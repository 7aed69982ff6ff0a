//! A machine for tests: it obeys steps as drivers and drives do, and can be told to fail.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each function carries out some kinds of steps and passes the others on"
)]

use std::collections::{BTreeMap, BTreeSet};

use iommu::bdf::Bdf;

use super::{
    facts::{Namespace, NamespaceId, NicAttributes, NvmeFacts, Observed, PfFacts, VfFacts},
    hands::{Hands, Percent, Seen, StepFault},
    step::{AttributeName, AttributeValue, ResourceKind, Step},
};
use crate::error::Report;

/// What is observed, and the rules by which it changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    /// What it is now.
    pub(crate) now: Observed,
    /// What new VFs of a NIC are set to, by PF; the default where there is none.
    pub(crate) fresh: BTreeMap<Bdf, NicAttributes>,
    /// Attributes whose change a driver reports as done and does not carry out.
    pub(crate) ignored: BTreeSet<(Bdf, AttributeName)>,
    /// Attributes that a driver refuses to change.
    pub(crate) unsupported: BTreeSet<(Bdf, AttributeName)>,
    /// How many of the next steps are answered with "busy".
    pub(crate) busy: u32,
    /// The step that fails, counted from 0 over the machine's life.
    pub(crate) fail_at: Option<usize>,
    /// How many steps it was given.
    pub(crate) given: usize,
    /// What it was given and has done.
    pub(crate) done: Vec<Step>,
    /// Whose data is on a namespace, by controller's PF and id.
    pub(crate) data: BTreeMap<(Bdf, u32), String>,
}

impl Machine {
    /// A machine in this state, obedient.
    pub(crate) fn new(now: Observed) -> Self {
        Self {
            now,
            ..Self::default()
        }
    }

    /// What the kernel does after an error of the primary controller: all secondaries offline, without resources.
    pub(crate) fn reset_primary(&mut self, pf: Bdf) {
        if let Some(nvme) = self.now.pfs.get_mut(&pf).and_then(nvme) {
            all_offline(nvme);
        }
    }

    fn pf(&mut self, bdf: Bdf) -> Result<&mut PfFacts, StepFault> {
        let found = self.now.pfs.get_mut(&bdf);
        found.ok_or_else(|| fault("look for the PF", "ENODEV"))
    }

    fn nvme(&mut self, bdf: Bdf) -> Result<&mut NvmeFacts, StepFault> {
        let pf = self.pf(bdf)?;
        nvme(pf).ok_or_else(|| fault("open /dev/nvme", "ENOENT"))
    }

    fn vf(&mut self, pf: Bdf, index: u32) -> Result<&mut VfFacts, StepFault> {
        let found = self.pf(pf)?.vfs.iter_mut().find(|vf| vf.index == index);
        found.ok_or_else(|| fault("look for the VF", "ENODEV"))
    }

    fn attribute(&mut self, pf: Bdf, index: u32, to: AttributeValue) -> Result<Seen, StepFault> {
        let what = (pf, to.name());
        if self.unsupported.contains(&what) {
            return Err(fault("RTM_SETLINK", "EOPNOTSUPP"));
        }
        if let AttributeValue::Mac(Some(mac)) = to
            && mac.is_multicast()
        {
            return Err(fault("RTM_SETLINK", "EINVAL"));
        }
        if self.ignored.contains(&what) {
            let mut ignored = fault("RTM_SETLINK", "reads as before");
            ignored.is_ignored = true;
            return Err(ignored);
        }
        let vf = self.vf(pf, index)?;
        let was = vf.nic.ok_or_else(|| fault("RTM_SETLINK", "EOPNOTSUPP"))?;
        vf.nic = Some(was.with(to));
        Ok(Seen::AsAsked)
    }

    fn count(
        &mut self,
        pf: Bdf,
        count: u32,
        snapshot: &[NicAttributes],
    ) -> Result<Seen, StepFault> {
        let fresh = self.fresh.get(&pf).copied();
        let facts = self.pf(pf)?;
        if count > facts.total {
            return Err(fault("write sriov_numvfs", "ERANGE"));
        }
        if facts.count != 0 && count != 0 && facts.count != count {
            return Err(fault("write sriov_numvfs", "EBUSY"));
        }
        if facts.count == count {
            return Ok(Seen::AsAsked);
        }
        facts.count = count;
        let is_nic = facts.nic().is_some();
        let is_probed = facts.is_probed == Some(true);
        facts.vfs = (0..count)
            .map(|index| VfFacts {
                index,
                bdf: vf_address(facts.bdf, index),
                driver: is_probed.then(|| "hostvf".to_owned()),
                driver_override: None,
                group: Some(1000 + index),
                group_size: 1,
                interfaces: Vec::new(),
                nic: is_nic.then(|| {
                    let given = usize::try_from(index).ok().and_then(|at| snapshot.get(at));
                    given.copied().or(fresh).unwrap_or_else(driver_defaults)
                }),
            })
            .collect();
        if let Some(nvme) = nvme(facts) {
            all_offline(nvme);
            for (vf, secondary) in (1..).zip(&mut nvme.secondaries) {
                secondary.vf = if u32::from(vf) <= count { vf } else { 0 };
            }
        }
        Ok(Seen::AsAsked)
    }

    fn assign(
        &mut self,
        pf: Bdf,
        cntlid: u16,
        resource: ResourceKind,
        to: u16,
    ) -> Result<Seen, StepFault> {
        let nvme = self.nvme(pf)?;
        let Some(flexible) = nvme.flexible else {
            return Err(fault("1Ch assign", "status 0/01"));
        };
        let (rules, sum) = match resource {
            ResourceKind::Queues => (flexible.vq, given(nvme, cntlid, |s| s.queues)),
            ResourceKind::Vectors => (flexible.vi, given(nvme, cntlid, |s| s.vectors)),
        };
        let secondary = secondary(nvme, cntlid, "1Ch assign")?;
        if secondary.is_online {
            return Err(fault("1Ch assign", "status 1/20"));
        }
        if to > rules.most || sum + u32::from(to) + u32::from(rules.to_primary) > rules.total {
            return Err(fault("1Ch assign", "status 1/21"));
        }
        match resource {
            ResourceKind::Queues => secondary.queues = to,
            ResourceKind::Vectors => secondary.vectors = to,
        }
        Ok(Seen::AsAsked)
    }

    fn online(&mut self, pf: Bdf, cntlid: u16) -> Result<Seen, StepFault> {
        let secondary = secondary(self.nvme(pf)?, cntlid, "1Ch online")?;
        if secondary.vf == 0 || secondary.queues < 2 || secondary.vectors < 1 {
            return Err(fault("1Ch online", "status 1/20"));
        }
        secondary.is_online = true;
        Ok(Seen::AsAsked)
    }

    fn offline(&mut self, pf: Bdf, cntlid: u16) -> Result<Seen, StepFault> {
        let secondary = secondary(self.nvme(pf)?, cntlid, "1Ch offline")?;
        (secondary.is_online, secondary.queues, secondary.vectors) = (false, 0, 0);
        Ok(Seen::AsAsked)
    }

    fn attachment(
        &mut self,
        pf: Bdf,
        nsid: u32,
        cntlid: u16,
        attach: bool,
    ) -> Result<Seen, StepFault> {
        let nvme = self.nvme(pf)?;
        let primary = nvme.cntlid;
        if cntlid != primary {
            secondary(nvme, cntlid, "15h")?;
        }
        let Some(namespace) = nvme.namespaces.get_mut(&nsid) else {
            return Err(fault("15h", "status 0/02"));
        };
        if attach {
            if namespace.attached.contains(&cntlid) {
                return Err(fault("15h attach", "status 1/18 (already attached)"));
            }
            if !namespace.is_shared && !namespace.attached.is_empty() {
                return Err(fault("15h attach", "status 1/19 (private)"));
            }
            namespace.attached.insert(cntlid);
        } else if !namespace.attached.remove(&cntlid) {
            return Err(fault("15h detach", "status 1/1A (not attached)"));
        }
        let is_seen = namespace.attached.contains(&primary);
        namespace.block_device = is_seen.then(|| format!("{}n{nsid}", nvme.controller));
        Ok(Seen::AsAsked)
    }

    fn make_namespace(
        &mut self,
        pf: Bdf,
        size: u64,
        block: u32,
        is_shared: bool,
    ) -> Result<Seen, StepFault> {
        let nvme = self.nvme(pf)?;
        if !nvme.can.manage {
            return Err(fault("0Dh create", "status 0/01"));
        }
        if u128::from(size) > nvme.unallocated {
            return Err(fault("0Dh create", "status 1/15"));
        }
        nvme.unallocated -= u128::from(size);
        let nsid = (1..=u32::MAX).find(|nsid| !nvme.namespaces.contains_key(nsid));
        let nsid = nsid.ok_or_else(|| fault("0Dh create", "status 1/16"))?;
        let namespace = Namespace {
            size,
            block,
            metadata: 0,
            protection: 0,
            is_shared,
            id: NamespaceId::Nguid(format!("{nsid:032x}")),
            attached: BTreeSet::new(),
            block_device: None,
        };
        nvme.namespaces.insert(nsid, namespace);
        Ok(Seen::Namespace(nsid))
    }

    fn delete_namespace(&mut self, pf: Bdf, nsid: u32) -> Result<Seen, StepFault> {
        let nvme = self.nvme(pf)?;
        let Some(gone) = nvme.namespaces.remove(&nsid) else {
            return Err(fault("0Dh delete", "status 0/0B"));
        };
        nvme.unallocated += u128::from(gone.size);
        self.data.remove(&(pf, nsid));
        Ok(Seen::AsAsked)
    }

    fn on_function(&mut self, step: &Step) -> Result<Seen, StepFault> {
        match step {
            Step::Unbind { pf, index, .. } => {
                let vf = self.vf(*pf, *index)?;
                vf.driver = None;
                vf.interfaces.clear();
                Ok(Seen::AsAsked)
            }
            Step::Bind {
                pf, index, driver, ..
            } => {
                self.vf(*pf, *index)?.driver = Some(driver.clone());
                Ok(Seen::AsAsked)
            }
            Step::Reset { pf, index, .. } => {
                let bdf = self.vf(*pf, *index)?.bdf;
                Ok(Seen::Function(bdf))
            }
            Step::Attribute { pf, index, to, .. } => self.attribute(*pf, *index, *to),
            Step::Link { pf, up, .. } => match &mut self.pf(*pf)?.kind {
                super::facts::KindFacts::Nic(nic) => {
                    nic.is_up = *up;
                    Ok(Seen::AsAsked)
                }
                _ => Err(fault("RTM_SETLINK", "ENODEV")),
            },
            Step::Autoprobe { pf, to, .. } => {
                self.pf(*pf)?.is_probed = Some(*to);
                Ok(Seen::AsAsked)
            }
            Step::Destroy { pf, .. } => self.count(*pf, 0, &[]),
            Step::Create {
                pf,
                count,
                snapshot,
                ..
            } => self.count(*pf, *count, snapshot),
            _ => self.on_drive(step),
        }
    }

    fn on_drive(&mut self, step: &Step) -> Result<Seen, StepFault> {
        match step {
            Step::Offline { pf, cntlid, .. } => self.offline(*pf, *cntlid),
            Step::Assign {
                pf,
                cntlid,
                resource,
                to,
                ..
            } => self.assign(*pf, *cntlid, *resource, *to),
            Step::Online { pf, cntlid, .. } => self.online(*pf, *cntlid),
            Step::Detach {
                pf, nsid, cntlid, ..
            } => self.attachment(*pf, *nsid, *cntlid, false),
            Step::Attach {
                pf, nsid, cntlid, ..
            } => self.attachment(*pf, *nsid, *cntlid, true),
            Step::NamespaceCreate {
                pf,
                size,
                block,
                shared,
                ..
            } => self.make_namespace(*pf, *size, *block, *shared),
            Step::Erase {
                pf, nsid, block, ..
            } => {
                let namespace = self.nvme(*pf)?.namespaces.get_mut(nsid);
                namespace.ok_or_else(|| fault("80h", "status 0/02"))?.block = *block;
                self.data.remove(&(*pf, *nsid));
                Ok(Seen::AsAsked)
            }
            Step::NamespaceDelete { pf, nsid, .. } => self.delete_namespace(*pf, *nsid),
            other => Err(fault("carry out", &format!("no such step: {other}"))),
        }
    }
}

impl Hands for Machine {
    fn carry_out(
        &mut self,
        step: &Step,
        progress: &mut dyn FnMut(Percent),
    ) -> Result<Seen, StepFault> {
        if self.busy > 0 {
            self.busy -= 1;
            let mut busy = fault("carry out", "EAGAIN");
            busy.is_busy = true;
            return Err(busy);
        }
        let this = self.given;
        self.given += 1;
        if self.fail_at == Some(this) {
            return Err(fault("carry out", "EIO"));
        }
        let seen = self.on_function(step)?;
        if matches!(step, Step::Erase { .. }) {
            progress(Percent(100));
        }
        self.done.push(step.clone());
        Ok(seen)
    }

    fn observe(&mut self) -> Result<Observed, Report> {
        Ok(self.now.clone())
    }
}

fn fault(doing: &str, evidence: &str) -> StepFault {
    StepFault {
        doing: doing.to_owned(),
        evidence: evidence.to_owned(),
        is_busy: false,
        is_ignored: false,
    }
}

fn nvme(pf: &mut PfFacts) -> Option<&mut NvmeFacts> {
    match &mut pf.kind {
        super::facts::KindFacts::Nvme(nvme) => Some(nvme),
        _ => None,
    }
}

fn all_offline(nvme: &mut NvmeFacts) {
    for secondary in &mut nvme.secondaries {
        (secondary.is_online, secondary.queues, secondary.vectors) = (false, 0, 0);
    }
}

fn secondary<'a>(
    nvme: &'a mut NvmeFacts,
    cntlid: u16,
    doing: &str,
) -> Result<&'a mut super::facts::Secondary, StepFault> {
    let found = nvme.secondaries.iter_mut().find(|s| s.cntlid == cntlid);
    found.ok_or_else(|| fault(doing, "status 1/1F"))
}

/// What all secondaries but one have of a resource.
fn given(nvme: &NvmeFacts, but: u16, of: fn(&super::facts::Secondary) -> u16) -> u32 {
    let others = nvme.secondaries.iter().filter(|s| s.cntlid != but);
    others.map(|secondary| u32::from(of(secondary))).sum()
}

/// What a NIC's driver sets new VFs to.
pub(crate) fn driver_defaults() -> NicAttributes {
    NicAttributes {
        mac: None,
        vlan: Some(crate::spec::host::Vlan::NONE),
        spoofchk: Some(true),
        trust: Some(false),
        query_rss: None,
        state: Some(iommu::topology::LinkPolicy::Auto),
        min_tx: Some(crate::spec::host::Mbps(0)),
        max_tx: Some(crate::spec::host::Mbps(0)),
    }
}

/// The address of a VF: on the bus after the PF's, 128 for each of two functions.
pub(crate) fn vf_address(pf: Bdf, index: u32) -> Bdf {
    let index = u8::try_from(index).unwrap_or(u8::MAX);
    let device = 16 * (pf.function() & 1) + index / 8;
    Bdf::new(pf.domain(), pf.bus() + 1, device & 31, index % 8).unwrap_or(pf)
}
