//! Which VFs of pools a guest gets, and on which terms. Nothing is taken yet.

use std::collections::BTreeMap;

use iommu::{bdf::Bdf, sysfs::SysRoot};

use super::Leases;
use crate::{
    error::{ErrorId, Report},
    host,
    spec::{
        Chosen, GuestSpec,
        host::{HostSpec, Profiles},
    },
    sriov::{
        BrokenPf, Desired, Observed, PfFacts, PoolsView, Records, Sound, choose, sound, terms_of,
    },
    state::State,
};

/// The applied host file, and what it makes of this machine.
struct Pools {
    spec: HostSpec,
    desired: Desired,
    /// What the machine cannot be: no guest gets VFs of these.
    broken: Vec<BrokenPf>,
    observed: Observed,
    records: Records,
    withheld: BTreeMap<Bdf, String>,
}

/// What is found for a guest.
#[derive(Debug)]
pub struct Found {
    /// The guest, with a VF for each of its wishes.
    pub spec: GuestSpec,
    /// The terms of its functions that are in pools.
    pub leases: Leases,
    /// What could not be looked at.
    pub warnings: Vec<Report>,
}

/// What a guest's VFs are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To show a plan: who may not read what is kept of pools sees it without.
    Show,
    /// To run it.
    Run,
}

impl Pools {
    /// What was applied; `None` where nothing was.
    fn read(root: &SysRoot, state: &State) -> Result<Option<Self>, Vec<Report>> {
        let one = |report: Report| vec![report];
        let Some(applied) = state.applied().map_err(one)? else {
            return Ok(None);
        };
        let spec = HostSpec::parse(&applied.file, &applied.text)?;
        let profiles = Profiles::load(&spec)?;
        let observed = host::sriov::read(root).map_err(one)?;
        let records = state.records(&observed).map_err(one)?;
        let Sound { desired, broken } = sound(&spec, &observed, &records, &profiles)?;
        Ok(Some(Self {
            spec,
            desired,
            broken,
            observed,
            records,
            withheld: BTreeMap::new(),
        }))
    }

    /// The VFs that a guest may ask for, with what keeps them from every guest.
    fn look_at(&mut self, root: &SysRoot, state: &State, is_asked: impl Fn(&str, Bdf) -> bool) {
        for pf in self.desired.pfs.values() {
            let Some(facts) = self.observed.pfs.get(&pf.bdf) else {
                continue;
            };
            for vf in &pf.vfs {
                let bdf = facts.vfs.iter().find(|its| its.index == vf.index);
                if let (Some(pool), Some(bdf)) = (&vf.pool, bdf.map(|vf| vf.bdf))
                    && is_asked(pool, bdf)
                    && let Some(report) = state.withheld(root, bdf)
                {
                    let mut why = report.why.join("; ");
                    why = format!("{why}: {}", report.fix);
                    self.withheld.insert(bdf, why);
                }
            }
        }
    }

    /// What keeps every guest from a pool: a kept VF may be on the PF that cannot be looked at.
    fn broken_pool(&self, pool: &str) -> Vec<Report> {
        let of_it = self.broken.iter().filter(|pf| pf.pools.contains(pool));
        of_it.flat_map(|pf| pf.reports.iter().cloned()).collect()
    }

    /// What keeps every guest from a function of a PF that was as the file says, and is not any more.
    fn broken_function(&self, bdf: Bdf) -> Vec<Report> {
        let has_it = |pf: &&PfFacts| pf.vfs.iter().any(|vf| vf.bdf == bdf);
        let pf = self.observed.pfs.values().find(has_it).map(|pf| pf.bdf);
        if let Some(report) = pf.and_then(|pf| self.records.unusable.get(&pf)) {
            return vec![report.clone()];
        }
        let is_known = pf.is_some_and(|pf| {
            self.records.pfs.contains_key(&pf) && !self.desired.pfs.contains_key(&pf)
        });
        match is_known {
            true => self.all_broken(),
            false => Vec::new(),
        }
    }

    fn all_broken(&self) -> Vec<Report> {
        let all = self.broken.iter();
        all.flat_map(|pf| pf.reports.iter().cloned()).collect()
    }

    const fn view(&self) -> PoolsView<'_> {
        PoolsView {
            spec: &self.spec,
            desired: &self.desired,
            observed: &self.observed,
            records: &self.records,
            withheld: &self.withheld,
        }
    }
}

/// The guest with a VF for each of its wishes, and the terms of all its functions that are in pools, those that it names by
/// address included. Nothing is taken yet. Those in `lost` went to others when they were to be taken, each with who has it.
///
/// # Errors
/// `pool-unapplied`, `pool-unknown`, `pool-exhausted`, `lease-foreign`; what keeps host file, machine and records from being
/// read; `not-permitted` where that is not for this user to read, and the purpose needs it.
pub fn for_guest(
    root: &SysRoot,
    state: Option<&State>,
    spec: GuestSpec,
    lost: &BTreeMap<Bdf, String>,
    purpose: Purpose,
) -> Result<Found, Vec<Report>> {
    if spec.devices.is_empty() && spec.pool_devices.is_empty() {
        return Ok(Found::without_pools(spec));
    }
    if let Some(state) = state.filter(|state| state.is_closed()) {
        return unseen(state, spec, purpose);
    }
    let pools = match state {
        Some(state) => Pools::read(root, state)?.map(|pools| (pools, state)),
        None => None,
    };
    let Some((mut pools, state)) = pools else {
        let wishes = spec.pool_devices.iter();
        let reports: Vec<Report> = wishes
            .map(|device| unapplied(&device.wish.pool).at(device.place.clone()))
            .collect();
        return match reports.is_empty() {
            true => Ok(Found::without_pools(spec)),
            false => Err(reports),
        };
    };
    let reports = on_broken(&pools, &spec);
    if !reports.is_empty() {
        return Err(reports);
    }
    pools.look_at(root, state, |pool, bdf| {
        spec.pool_devices
            .iter()
            .any(|asked| asked.wish.pool == pool)
            || spec.devices.iter().any(|asked| asked.bdf == bdf)
    });
    for (bdf, why) in lost {
        pools.withheld.entry(*bdf).or_insert_with(|| why.clone());
    }
    let view = pools.view();
    let mut leases = Leases::new();
    let mut reports = Vec::new();
    for device in &spec.devices {
        match terms_of(&spec.name, device.bdf, &view) {
            Ok(Some(terms)) => {
                leases.insert(device.bdf, terms);
            }
            Ok(None) => {}
            Err(report) => reports.push(report.at(device.place.clone())),
        }
    }
    // What it names itself is not chosen for another of its devices.
    for bdf in leases.keys() {
        let why = "another device of this guest names it".to_owned();
        pools.withheld.insert(*bdf, why);
    }
    let chosen = match choose(&spec.name, &spec.pool_devices, &pools.view()) {
        Ok(chosen) => chosen,
        Err(more) => {
            reports.extend(more);
            Vec::new()
        }
    };
    if !reports.is_empty() {
        return Err(reports);
    }
    let places: Vec<Chosen> = chosen
        .iter()
        .map(|(at, terms)| Chosen {
            at: *at,
            bdf: terms.vf,
        })
        .collect();
    leases.extend(chosen.into_iter().map(|(_, terms)| (terms.vf, terms)));
    Ok(Found {
        spec: spec.with_chosen(&places),
        leases,
        warnings: Vec::new(),
    })
}

impl Found {
    fn without_pools(spec: GuestSpec) -> Self {
        Self {
            spec,
            leases: Leases::new(),
            warnings: Vec::new(),
        }
    }
}

/// What keeps the guest from its pools and functions because the machine is not what was applied; once each.
fn on_broken(pools: &Pools, spec: &GuestSpec) -> Vec<Report> {
    let by_pool = spec.pool_devices.iter();
    let by_address = spec.devices.iter();
    let all = by_pool
        .flat_map(|asked| pools.broken_pool(&asked.wish.pool))
        .chain(by_address.flat_map(|asked| pools.broken_function(asked.bdf)));
    let mut reports = Vec::new();
    for report in all {
        if !reports.contains(&report) {
            reports.push(report);
        }
    }
    reports
}

/// For who may not read what is kept of pools: a plan of functions that are named can be shown without.
fn unseen(state: &State, spec: GuestSpec, purpose: Purpose) -> Result<Found, Vec<Report>> {
    let report = |what: String| {
        Report::new(
            ErrorId::NotPermitted,
            what,
            format!(
                "{} is not for this user to read",
                state.host_folder().display()
            ),
            "run narrows as root",
        )
    };
    let wishes = spec.pool_devices.iter();
    let mut refusals: Vec<Report> = wishes
        .map(|device| {
            let what = format!(
                "which VFs of pool {:?} are free cannot be told",
                device.wish.pool
            );
            report(what).at(device.place.clone())
        })
        .collect();
    let warning =
        report("whether the guest's devices are in pools, and whose, cannot be told".to_owned());
    if refusals.is_empty() && purpose == Purpose::Run {
        refusals.push(warning.clone());
    }
    match refusals.is_empty() {
        true => Ok(Found {
            warnings: vec![warning],
            ..Found::without_pools(spec)
        }),
        false => Err(refusals),
    }
}

fn unapplied(pool: &str) -> Report {
    Report::new(
        ErrorId::PoolUnapplied,
        format!("there is no pool {pool:?} yet"),
        "no host file was applied on this host: nobody knows which VFs are whose",
        "narrows host apply HOST.toml",
    )
}
