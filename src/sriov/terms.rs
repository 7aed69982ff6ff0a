//! On which terms a guest has a VF. They are written down with the lease: what is taken back, and how, is what was given,
//! whatever the host file says by then.

use std::collections::BTreeSet;

use iommu::bdf::Bdf;
use serde::{Deserialize, Serialize};

use super::{
    desired::{DesiredPf, DesiredVf, WithoutMac},
    facts::{Anchor, NamespaceFormat, NamespaceId, NicAttributes, NvmeCan, PfFacts},
    records::PfRecords,
    step::EraseHow,
};
use crate::spec::host::{Eraser, PoolOptOut};

/// On which terms a guest has a VF of a pool: all that is needed to give it, and to take it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LeaseTerms {
    /// The pool.
    pub pool: String,
    /// The VF.
    pub vf: Bdf,
    /// Its PF.
    pub pf: Bdf,
    /// What tells the PF's card.
    pub anchor: Anchor,
    /// The VF's index.
    pub index: u32,
    /// The PF's interface, where it is a NIC.
    pub interface: Option<String>,
    /// The PF's controller, where it is one.
    pub controller: Option<String>,
    /// The VF's controller: its CNTLID.
    pub cntlid: Option<u16>,
    /// Whether the lease outlives the run.
    pub keep: bool,
    /// What it is set to while nobody has it.
    pub rest: NicAttributes,
    /// What it is set to for the guest.
    pub leased: NicAttributes,
    /// Whether no address is what it is to have, at rest and when a guest is given it: the guest's driver chooses its own,
    /// which the next guest must not find.
    #[serde(default)]
    pub no_mac: bool,
    /// VQ and VI of its controller.
    pub resources: Option<(u16, u16)>,
    /// What the guest sees.
    pub namespaces: Vec<LeasedNamespace>,
    /// How those are erased when it is given back.
    pub erase: Eraser,
    /// What the pool accepts.
    pub accept: Vec<PoolOptOut>,
}

/// A namespace of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LeasedNamespace {
    /// Its id.
    pub nsid: u32,
    /// Its identity.
    pub id: NamespaceId,
    /// The format that it should have.
    pub format: NamespaceFormat,
    /// Whether the host file shares it between VFs: then it is nobody's alone, and no return erases it.
    pub is_shared: bool,
}

/// A VF as the host file has it, on the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The PF.
    pub(super) pf: &'a PfFacts,
    /// What the file says of the PF.
    pub(super) declared: &'a DesiredPf,
    /// What it says of the VF.
    pub(super) wanted: &'a DesiredVf,
    /// What is known of the PF.
    pub(super) kept: Option<&'a PfRecords>,
}

impl LeaseTerms {
    /// The terms of pool `pool` for VF `vf`; `None` where a namespace of it is not there.
    pub(super) fn new(pool: &str, vf: Bdf, keep: bool, place: &Place<'_>) -> Option<Self> {
        let Place { pf, wanted, .. } = *place;
        let nvme = pf.nvme();
        let secondary = nvme.and_then(|nvme| {
            let number = wanted.index.checked_add(1)?;
            let mut all = nvme.secondaries.iter();
            all.find(|secondary| u32::from(secondary.vf) == number)
        });
        let namespaces = wanted.namespaces.iter().map(|nsid| place.namespace(*nsid));
        let namespaces: Vec<LeasedNamespace> = namespaces.collect::<Option<_>>()?;
        let (mut rest, leased) = (wanted.rest, wanted.leased);
        let is_without = nvme.is_none() && rest.mac.is_none() && leased.mac.is_none();
        let mut no_mac = is_without && wanted.without_mac == WithoutMac::Clear;
        if is_without && !no_mac && pf.nic().is_some() {
            // The driver takes no address away: what the VF has now it is to have again, whatever its guest sets.
            let is = pf.vfs.iter().find(|is| is.index == wanted.index);
            rest.mac = is.and_then(|is| is.nic?.mac);
            no_mac = rest.mac.is_none();
        }
        Some(Self {
            pool: pool.to_owned(),
            vf,
            pf: pf.bdf,
            anchor: pf.anchor.clone(),
            index: wanted.index,
            interface: pf.nic().and_then(|nic| nic.interface.clone()),
            controller: nvme.map(|nvme| nvme.controller.clone()),
            cntlid: secondary.map(|secondary| secondary.cntlid),
            keep,
            rest,
            leased,
            no_mac,
            resources: wanted.resources,
            namespaces,
            erase: wanted.erase,
            accept: wanted.accept.clone(),
        })
    }

    /// The namespaces that nobody else has: what is on them is this guest's.
    pub fn own_namespaces(&self) -> impl Iterator<Item = &LeasedNamespace> {
        self.namespaces.iter().filter(|its| !its.is_shared)
    }

    /// Its namespaces, for people.
    #[must_use]
    pub fn namespaces_in_words(&self) -> String {
        let ids: Vec<String> = self
            .namespaces
            .iter()
            .map(|its| its.nsid.to_string())
            .collect();
        match ids.is_empty() {
            true => "no namespace".to_owned(),
            false => format!("namespace {}", ids.join(", ")),
        }
    }

    /// Whether another lease of the VF has the same namespaces.
    #[must_use]
    pub fn has_namespaces_of(&self, other: &Self) -> bool {
        let ids = |terms: &Self| -> Vec<(u32, NamespaceId, bool)> {
            let all = terms.namespaces.iter();
            all.map(|its| (its.nsid, its.id.clone(), its.is_shared))
                .collect()
        };
        ids(self) == ids(other)
    }

    /// Of a VF of which nothing is asked.
    #[cfg(test)]
    pub(crate) fn plain(pf: Bdf, vf: Bdf, index: u32) -> Self {
        Self {
            pool: "a".to_owned(),
            vf,
            pf,
            anchor: Anchor::Slot(pf),
            index,
            interface: None,
            controller: None,
            cntlid: None,
            keep: false,
            rest: NicAttributes::default(),
            leased: NicAttributes::default(),
            no_mac: false,
            resources: None,
            namespaces: Vec::new(),
            erase: Eraser::Auto,
            accept: Vec::new(),
        }
    }
}

impl Place<'_> {
    fn namespace(&self, nsid: u32) -> Option<LeasedNamespace> {
        let found = self.pf.nvme()?.namespaces.get(&nsid)?;
        let mut declared = self.declared.namespaces.iter();
        // A guest may have given it another format since.
        let record = self.kept.and_then(|kept| kept.namespaces.get(&nsid));
        let format = record
            .filter(|record| record.id == found.id)
            .and_then(|record| record.format)
            .unwrap_or_else(|| found.format());
        Some(LeasedNamespace {
            nsid,
            id: found.id.clone(),
            format,
            is_shared: declared.any(|its| its.nsid == Some(nsid) && its.is_shared),
        })
    }
}

/// A namespace that is to be erased, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirt {
    /// The PF that it is on.
    pub pf: Bdf,
    /// What tells the PF's card.
    pub anchor: Anchor,
    /// How.
    pub erase: Eraser,
    /// Which.
    pub namespace: LeasedNamespace,
    /// The secondary controllers that it may be taken from: nobody runs with them any more.
    pub idle: BTreeSet<u16>,
}

impl Dirt {
    /// A namespace of a lease, erased as its pool says.
    #[must_use]
    pub fn of(terms: &LeaseTerms, namespace: &LeasedNamespace) -> Self {
        Self {
            pf: terms.pf,
            anchor: terms.anchor.clone(),
            erase: terms.erase,
            namespace: namespace.clone(),
            idle: terms.cntlid.into_iter().collect(),
        }
    }
}

impl EraseHow {
    /// How a controller that can do this erases one namespace alone; `None` where nothing is to be erased.
    ///
    /// # Errors
    /// The way that is asked for, where the controller cannot go it.
    pub fn of(eraser: Eraser, can: NvmeCan) -> Result<Option<Self>, &'static str> {
        let crypto = can.format && can.crypto && !can.erase_all && !can.format_all;
        let format = can.format && !can.erase_all && !can.format_all;
        match eraser {
            Eraser::None => Ok(None),
            Eraser::Auto if crypto => Ok(Some(Self::Crypto)),
            Eraser::Auto if format => Ok(Some(Self::Format)),
            Eraser::Auto | Eraser::Overwrite => Ok(Some(Self::Overwrite)),
            Eraser::Crypto if crypto => Ok(Some(Self::Crypto)),
            Eraser::Crypto => Err("cryptographic erase of one namespace alone"),
            Eraser::Format if format => Ok(Some(Self::Format)),
            Eraser::Format => Err("a format of one namespace alone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_erased_in_a_way_that_leaves_the_others_alone() {
        use EraseHow::{Crypto, Format, Overwrite};
        let none = NvmeCan::default();
        let format = NvmeCan {
            format: true,
            ..none
        };
        let crypto = NvmeCan {
            crypto: true,
            ..format
        };
        let all = NvmeCan {
            erase_all: true,
            ..crypto
        };
        let formats_all = NvmeCan {
            format_all: true,
            ..crypto
        };
        for (can, eraser, how) in [
            (crypto, Eraser::None, Ok(None)),
            (crypto, Eraser::Auto, Ok(Some(Crypto))),
            (format, Eraser::Auto, Ok(Some(Format))),
            (none, Eraser::Auto, Ok(Some(Overwrite))),
            (all, Eraser::Auto, Ok(Some(Overwrite))),
            (formats_all, Eraser::Auto, Ok(Some(Overwrite))),
            (crypto, Eraser::Overwrite, Ok(Some(Overwrite))),
            (crypto, Eraser::Format, Ok(Some(Format))),
        ] {
            assert_eq!(EraseHow::of(eraser, can), how, "{eraser:?} {can:?}");
        }
        assert!(EraseHow::of(Eraser::Crypto, format).is_err());
        assert!(EraseHow::of(Eraser::Format, all).is_err());
    }
}
