//! A host read again on the way from a plan to its execution: what may have changed of it and bears on the functions of the
//! plan.
//!
//! | of | read anew | taken over |
//! |---|---|---|
//! | the functions, the members of their groups, the PFs of these, the bridges above all of them | everything | nothing |
//! | a function that was not there before | everything | – |
//! | every other function | whether it is there, PF, driver, group, BARs, ROM | the rest, which no check looks at in a neighbour |
//! | the groups of the functions | everything | nothing |
//! | the groups of what shares a card with one of them, and of the PFs and bridges | type | members, reserved windows |
//! | every other group | nothing | everything: no check looks at it |
//! | the host as a whole | KVM, the IOMMUs, iommufd, interrupt remapping, VFIO's parameters and nodes | what stays until the next boot, and what can only warn |
//!
//! `isolation/again_test.rs` holds this table against the checks: each is fired between two readings, and must be found by
//! the second.

use std::collections::{BTreeMap, BTreeSet};

use super::{Function, Group, GroupId, Topology, function, group, host, policy};
use crate::{bdf::Bdf, error::Result, sysfs::SysRoot};

impl Topology {
    /// Reads again what a check of `functions` looks at; `self` is an earlier reading of the same boot.
    ///
    /// # Errors
    /// As [`Topology::read`].
    pub fn read_again(&self, root: &SysRoot, functions: &[Bdf]) -> Result<Self> {
        let mut again = Again {
            root,
            before: self,
            present: function::list(root)?,
            functions: BTreeMap::new(),
            groups: BTreeMap::new(),
        };
        let near = again.read_near(functions)?;
        again.read_others()?;
        policy::read_of(root, &mut again.functions, &near)?;
        let mut topology = Self {
            functions: again.functions,
            groups: self.groups.clone(),
            iommus: host::read_iommus_again(root, &self.iommus)?,
            has_iommufd: root.exists("dev/iommu"),
            host: host::read_again(root, &self.host)?,
        };
        topology.read_types(root, functions, &near)?;
        topology.groups.extend(again.groups);
        Ok(topology)
    }

    /// All functions whose requester ids one firmware can use: those of the card's device number, and all their VFs.
    pub fn of_one_device(&self, one: &Function) -> impl Iterator<Item = &Function> {
        let device = |bdf: Bdf| (bdf.domain(), bdf.bus(), bdf.device());
        let base = device(one.physfn.unwrap_or(one.bdf));
        self.functions.values().filter(move |other| {
            device(other.bdf) == base || other.physfn.is_some_and(|pf| device(pf) == base)
        })
    }

    /// Reads how the groups of `near`, and of all that shares a card with one of `functions`, are translated.
    fn read_types(
        &mut self,
        root: &SysRoot,
        functions: &[Bdf],
        near: &BTreeSet<Bdf>,
    ) -> Result<()> {
        let of = |bdf: &Bdf| self.functions.get(bdf);
        let cards = functions.iter().filter_map(of);
        let all = cards
            .flat_map(|one| self.of_one_device(one))
            .chain(near.iter().filter_map(of));
        let ids: BTreeSet<GroupId> = all.filter_map(|function| function.group).collect();
        for id in ids {
            match self.groups.get_mut(&id) {
                Some(known) => known.domain_type = group::read_type(root, id)?,
                None => _ = self.groups.insert(id, group::read(root, id)?),
            }
        }
        Ok(())
    }
}

/// A reading on its way.
struct Again<'a> {
    root: &'a SysRoot,
    before: &'a Topology,
    /// All functions that the host has now.
    present: BTreeSet<Bdf>,
    /// What was read so far.
    functions: BTreeMap<Bdf, Function>,
    groups: BTreeMap<GroupId, Group>,
}

impl Again<'_> {
    /// Reads everything of `functions` and of what is around them, and which these are.
    fn read_near(&mut self, functions: &[Bdf]) -> Result<BTreeSet<Bdf>> {
        let (mut near, mut left) = (BTreeSet::new(), functions.to_vec());
        while let Some(bdf) = left.pop() {
            if !near.insert(bdf) || !self.read_whole(bdf)? {
                continue;
            }
            let Some(function) = self.functions.get(&bdf) else {
                continue;
            };
            left.extend(function.physfn);
            left.extend(function.parent);
            if let Some(id) = function.group.filter(|_| functions.contains(&bdf)) {
                let group = group::read(self.root, id)?;
                left.extend(&group.members);
                self.groups.insert(id, group);
            }
        }
        Ok(near)
    }

    /// Reads everything of a function; whether it is there.
    fn read_whole(&mut self, bdf: Bdf) -> Result<bool> {
        let read = match self.present.contains(&bdf) {
            true => function::read_if_there(self.root, bdf)?,
            false => None,
        };
        Ok(read.is_some_and(|function| self.functions.insert(bdf, function).is_none()))
    }

    /// Reads of all other functions what a check looks at in a neighbour.
    fn read_others(&mut self) -> Result<()> {
        for bdf in self.present.clone() {
            if self.functions.contains_key(&bdf) {
                continue;
            }
            match self.before.functions.get(&bdf) {
                None => _ = self.read_whole(bdf)?,
                Some(before) => {
                    let read = function::read_beside(self.root, before)?;
                    self.functions.extend(read.map(|function| (bdf, function)));
                }
            }
        }
        Ok(())
    }
}
