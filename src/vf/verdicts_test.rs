//! What guests of a `World` do with their VFs, and what must be so of it.

use std::collections::BTreeMap;

use iommu::{bdf::Bdf, topology::Mac};

use super::{
    cuts_test::{BLOCK, SHARED},
    machine_test::{NVME, bdf},
    world_test::{Verdict, World},
};
use crate::sriov::{NamespaceState, VfRecord, VfState};

impl World {
    /// Whether what the guest finds is nobody else's.
    pub(super) fn first_instruction(&mut self, guest: &str) -> Verdict {
        let run = self.runs.iter().find(|run| run.guest == guest).unwrap();
        let terms = run.terms.clone();
        let tenant = self.tenants[&(terms.pf, terms.index)].clone();
        if let Some(cntlid) = terms.cntlid {
            for (nsid, namespace) in self.nvme().namespaces.clone() {
                if !namespace.attached.contains(&cntlid) {
                    continue;
                }
                if !terms.namespaces.iter().any(|its| its.nsid == nsid) {
                    return Err(format!(
                        "{guest} sees namespace {nsid}, which is not its own"
                    ));
                }
                let data = self.machine.data.get(&(terms.pf, nsid));
                if nsid != SHARED && data.is_some_and(|whose| *whose != tenant) {
                    return Err(format!(
                        "{tenant} finds on namespace {nsid} the data of {data:?}"
                    ));
                }
                // What it has kept so far is in the format that it has given it.
                let is_its = data.is_some_and(|whose| *whose == tenant);
                if nsid != SHARED && !is_its && namespace.block != BLOCK {
                    return Err(format!("{tenant} finds namespace {nsid} in another format"));
                }
            }
        } else {
            let facts = &self.machine.now.pfs[&terms.pf];
            let vf = facts.vfs.iter().find(|vf| vf.index == terms.index);
            let is = vf.and_then(|vf| vf.nic).ok_or("its VF is gone")?;
            if let Some(mac) = is.mac
                && let Some(of) = own_mac_of(mac)
                && of != guest
            {
                return Err(format!("{guest} has the address that {of} has set"));
            }
            let vlan = |of: Option<crate::spec::host::Vlan>| of.map_or(0, |vlan| vlan.id);
            if vlan(is.vlan) != vlan(terms.leased.vlan) {
                return Err(format!("{guest} is in VLAN {}", vlan(is.vlan)));
            }
        }
        Ok(())
    }

    /// What a guest does: it writes, gives its namespaces another format, and takes an address where none is set.
    pub(super) fn is_used(&mut self, guest: &str) {
        let run = self.runs.iter().find(|run| run.guest == guest).unwrap();
        let (pf, index) = (run.terms.pf, run.terms.index);
        let tenant = self.tenants[&(pf, index)].clone();
        if let Some(cntlid) = run.terms.cntlid {
            let mut written = Vec::new();
            for (nsid, namespace) in &mut self.nvme().namespaces {
                if namespace.attached.contains(&cntlid) && *nsid != SHARED {
                    written.push(*nsid);
                    namespace.block = 4096;
                }
            }
            for nsid in written {
                self.machine.data.insert((pf, nsid), tenant.clone());
            }
        } else if run.terms.leased.mac.is_none() {
            let facts = self.machine.now.pfs.get_mut(&pf).unwrap();
            let vf = facts.vfs.iter_mut().find(|vf| vf.index == index);
            if let Some(nic) = vf.and_then(|vf| vf.nic.as_mut()) {
                nic.mac = Some(own_mac(guest));
            }
        }
    }

    /// Whether an NVMe VF has a lease on record.
    pub(super) fn is_leased(&self, index: u32) -> bool {
        self.lease_of(bdf(NVME), index).is_some()
    }

    /// All guests end, what is left is put right, and kept leases are returned: then all is free, clean and erased.
    pub(super) fn settle(&mut self) -> Verdict {
        let guests: Vec<String> = self.runs.iter().map(|run| run.guest.clone()).collect();
        for guest in guests {
            self.stop(&guest, None);
        }
        // As at boot: what is left first, then the file; what that could not finish before, afterwards.
        self.recover(None);
        self.apply(self.number, None);
        self.recover(None);
        let leases = |world: &Self| -> Result<Vec<(Bdf, u32)>, String> {
            let records = world.state.records(&world.machine.now);
            let records = records.map_err(|report| report.to_string())?;
            let pairs = records.pfs.iter().flat_map(|(pf, kept)| {
                let has = kept.vfs.iter().filter(|(_, vf)| vf.lease.is_some());
                has.map(|(index, _)| (*pf, *index))
            });
            Ok(pairs.collect())
        };
        for (pf, index) in leases(self)? {
            self.return_lease(pf, index, None);
        }
        self.apply(self.number, None);
        if let Some((pf, index)) = leases(self)?.first() {
            return Err(format!("the lease of VF {index} of {pf} does not end"));
        }
        let records = self.state.records(&self.machine.now);
        let records = records.map_err(|report| report.to_string())?;
        for (pf, kept) in &records.pfs {
            let vfs = kept.vfs.iter();
            // Nobody is given one that is in no pool, so it need not be clean.
            let is_not = |vf: &VfRecord| vf.state != VfState::Clean && vf.pool.is_some();
            if let Some((index, vf)) = vfs.clone().find(|(_, vf)| is_not(vf)) {
                return Err(format!("VF {index} of {pf} stays {}", vf.state));
            }
            let mut namespaces = kept.namespaces.iter();
            let dirty = namespaces.find(|(_, one)| {
                // What guests share is theirs together.
                one.state != NamespaceState::Clean && !one.is_shared
            });
            if let Some((nsid, one)) = dirty {
                return Err(format!("namespace {nsid} stays {:?}", one.state));
            }
        }
        match self.machine.data.first_key_value() {
            None => Ok(()),
            Some(((_, nsid), whose)) => Err(format!(
                "namespace {nsid} counts as clean, with the data of {whose}"
            )),
        }
    }

    /// What holds at all times.
    pub(super) fn check(&mut self) -> Verdict {
        let records = self
            .state
            .records(&self.machine.now)
            .map_err(|report| report.to_string())?;
        let mut of_vf: BTreeMap<Bdf, String> = BTreeMap::new();
        let mut of_namespace: BTreeMap<u32, String> = BTreeMap::new();
        let pairs = records
            .pfs
            .iter()
            .flat_map(|(pf, kept)| kept.vfs.iter().map(move |vf| (*pf, vf)));
        for (pf, (index, record)) in pairs {
            let Some(lease) = &record.lease else { continue };
            let whose = format!("{}, by VF {index} of {pf}", lease.guest);
            if record.state != VfState::Absent
                && let Some(other) = of_vf.insert(record.bdf, whose.clone())
            {
                return Err(format!("{} has two leases: {other}; {whose}", record.bdf));
            }
            let granted = self.granted.get(&(pf, *index));
            for its in granted.iter().flat_map(|terms| &terms.namespaces) {
                if !its.is_shared
                    && let Some(other) = of_namespace.insert(its.nsid, whose.clone())
                {
                    return Err(format!(
                        "namespace {} has two leases: {other}; {whose}",
                        its.nsid
                    ));
                }
            }
        }
        for (at, run) in self.runs.iter().enumerate() {
            let twice = self.runs[..at]
                .iter()
                .find(|other| other.terms.vf == run.terms.vf);
            if let Some(other) = twice {
                return Err(format!(
                    "{} and {} have {}",
                    other.guest, run.guest, run.terms.vf
                ));
            }
            if run.lock.is_some()
                && records
                    .vf(run.terms.pf, run.terms.index)
                    .is_none_or(|vf| vf.lease.is_none())
            {
                return Err(format!(
                    "{} runs without a lease of {}",
                    run.guest, run.terms.vf
                ));
            }
        }
        Ok(())
    }
}

/// The address that a guest gives itself.
fn own_mac(guest: &str) -> Mac {
    Mac([2, 0xaa, 0, 0, 0, guest.bytes().next().unwrap()])
}

fn own_mac_of(mac: Mac) -> Option<String> {
    let [2, 0xaa, 0, 0, 0, name] = mac.0 else {
        return None;
    };
    Some(char::from(name).to_string())
}
