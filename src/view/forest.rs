//! The order in which functions are shown: root buses, ports, physical functions, and below those their VFs.

use std::collections::{BTreeMap, BTreeSet};

use iommu::{
    bdf::Bdf,
    topology::{Function, Topology},
};

/// A run of alike functions is folded from this length on.
const LONG_RUN: usize = 4;
/// More levels than buses there can be: a made-up tree may have a loop.
const DEEPEST: usize = 256;

/// A root bus and what is on it.
#[derive(Debug)]
pub(super) struct Bus<'a> {
    /// As sysfs calls it: `pci0000:00`.
    pub(super) name: String,
    pub(super) branches: Vec<Branch<'a>>,
}

/// A function, or a run of alike ones, and what is below it.
#[derive(Debug)]
pub(super) struct Branch<'a> {
    pub(super) first: &'a Function,
    /// The others of a run, in order; a run has nothing below it.
    pub(super) others: Vec<&'a Function>,
    pub(super) branches: Vec<Branch<'a>>,
}

impl<'a> Branch<'a> {
    /// How many functions it stands for.
    pub(super) fn count(&self) -> usize {
        self.others.len().saturating_add(1)
    }

    /// The last of the run.
    pub(super) fn last(&self) -> &'a Function {
        self.others.last().copied().unwrap_or(self.first)
    }

    /// All functions that it stands for.
    pub(super) fn functions(&self) -> impl Iterator<Item = &'a Function> {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }
}

/// The forest of a host; every function occurs once.
pub(super) fn grow(topology: &Topology, is_unfolded: bool) -> Vec<Bus<'_>> {
    let mut children: BTreeMap<Option<Bdf>, Vec<&Function>> = BTreeMap::new();
    for function in topology.functions.values() {
        let above = above(topology, function);
        children.entry(above).or_default().push(function);
    }
    let mut grower = Grower {
        topology,
        children,
        is_unfolded,
        seen: BTreeSet::new(),
    };
    let mut buses: Vec<Bus<'_>> = Vec::new();
    // Roots first; then whatever hangs below itself.
    let roots = grower.children.get(&None).cloned().unwrap_or_default();
    for function in roots.into_iter().chain(topology.functions.values()) {
        if let Some(branch) = grower.branch(function, 0) {
            let name = format!(
                "pci{:04x}:{:02x}",
                function.bdf.domain(),
                function.bdf.bus()
            );
            match buses.iter_mut().find(|bus| bus.name == name) {
                Some(bus) => bus.branches.push(branch),
                None => buses.push(Bus {
                    name,
                    branches: vec![branch],
                }),
            }
        }
    }
    for bus in &mut buses {
        bus.branches = grower.folded(std::mem::take(&mut bus.branches));
    }
    buses
}

/// What a function hangs below: its PF, for a VF, else the bridge above it.
fn above(topology: &Topology, function: &Function) -> Option<Bdf> {
    function
        .physfn
        .or(function.parent)
        .filter(|bdf| topology.functions.contains_key(bdf))
}

struct Grower<'a> {
    topology: &'a Topology,
    children: BTreeMap<Option<Bdf>, Vec<&'a Function>>,
    is_unfolded: bool,
    seen: BTreeSet<Bdf>,
}

impl<'a> Grower<'a> {
    fn branch(&mut self, function: &'a Function, depth: usize) -> Option<Branch<'a>> {
        if depth >= DEEPEST || !self.seen.insert(function.bdf) {
            return None;
        }
        let below = self.children.get(&Some(function.bdf)).cloned();
        let branches = below
            .unwrap_or_default()
            .into_iter()
            .filter_map(|child| self.branch(child, depth.saturating_add(1)))
            .collect();
        Some(Branch {
            first: function,
            others: Vec::new(),
            branches: self.folded(branches),
        })
    }

    /// Joins runs of alike functions that are long enough.
    fn folded(&self, branches: Vec<Branch<'a>>) -> Vec<Branch<'a>> {
        let mut runs: Vec<Vec<Branch<'a>>> = Vec::new();
        for branch in branches {
            match runs.last_mut() {
                Some(run) if self.continues(run, &branch) => run.push(branch),
                _ => runs.push(vec![branch]),
            }
        }
        let fold = |mut run: Vec<Branch<'a>>| {
            if run.len() < LONG_RUN {
                return run;
            }
            let mut head = run.remove(0);
            head.others = run.iter().map(|branch| branch.first).collect();
            vec![head]
        };
        runs.into_iter().flat_map(fold).collect()
    }

    fn continues(&self, run: &[Branch<'a>], branch: &Branch<'a>) -> bool {
        !self.is_unfolded
            && branch.branches.is_empty()
            && run.last().is_some_and(|last| {
                last.branches.is_empty() && self.are_alike(last.first, branch.first)
            })
    }

    /// Whether one line can stand for both. Members of a shared group are always shown one by one.
    fn are_alike(&self, a: &Function, b: &Function) -> bool {
        let is_alone = |f: &Function| self.topology.group_of(f.bdf).map(|(_, g)| members(g) == 1);
        let shape = |f: &Function| {
            (
                (
                    f.physfn,
                    f.vendor,
                    f.device,
                    f.class,
                    f.numa_node,
                    f.interrupts,
                ),
                (f.config.bridge, f.sriov, is_alone(f)),
                (f.interfaces.is_empty(), f.controllers.is_empty()),
            )
        };
        shape(a) == shape(b)
            && is_alone(a) != Some(false)
            && (&a.driver, &a.driver_override) == (&b.driver, &b.driver_override)
            && (&a.reset_methods, &a.link) == (&b.reset_methods, &b.link)
    }
}

/// How many members a group has, those that are no PCI function included.
pub(super) fn members(group: &iommu::topology::Group) -> usize {
    group
        .members
        .len()
        .saturating_add(group.other_members.len())
}
