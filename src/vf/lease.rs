//! A guest's VFs of pools: claimed, made as the lease says, and given back.
//!
//! Each part can be done again after it was cut off anywhere: what is left to do is read from the hardware, and whose the
//! VF is from its record. On exit of [`claim`]: the record names the guest, and no other guest's claim succeeds. Of
//! [`take`]: the VF reads as the lease says. Of [`give_back`]: it reads as its pool rests, its namespaces are erased, and
//! the record is clean; or there is evidence for the quarantine, and the record says that it is not clean.

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant},
};

use iommu::{bdf::Bdf, sysfs::SysRoot};

use super::Unfinished;
use crate::{
    error::{ErrorId, Report},
    host,
    spec::{
        Chosen, GuestSpec,
        host::{Eraser, HostSpec, Profiles},
    },
    sriov::{
        BrokenPf, Desired, Event, Hands, Holder, Lease, LeaseTerms, LeasedNamespace,
        NamespaceRecord, NamespaceState, Observed, Percent, PfFacts, PfRecords, PoolsView, Records,
        Sound, Step, StepFault, VfState, changed_formats, check_format, choose, foreign, held,
        sound, terms_of, to_erase, to_leased, to_rest,
    },
    state::{InUse, State, now},
    sys::crash::{self, Step as Point},
};

/// The terms of each function that is leased.
pub type Leases = BTreeMap<Bdf, LeaseTerms>;

/// How long a step is tried that may work a moment later.
const BUSY: Duration = Duration::from_secs(5);
const BUSY_POLL: Duration = Duration::from_millis(50);

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

    /// Who has a VF, and on which terms.
    fn held(&self, bdf: Bdf) -> Result<(String, LeaseTerms), Vec<Report>> {
        held(bdf, &self.view()).map_err(|report| {
            // It may be on one of these.
            let mut reports = self.all_broken();
            reports.push(report);
            reports
        })
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

/// Writes down that the VF is the guest's: of two claims, one succeeds.
///
/// # Errors
/// `lease-foreign` with who has it; `recover-needed` where another guest's data is on a namespace; `pool-exhausted` where it
/// is not clean; what keeps the record from being changed.
pub fn claim(
    state: &State,
    guest: &str,
    holder: &Holder,
    terms: &LeaseTerms,
) -> Result<(), Report> {
    let vf = terms.vf;
    state.change_pf(terms.pf, &terms.anchor, |pf| {
        let now = now();
        pf.enter(&holder.boot, terms.controller.is_some(), &now);
        is_free(pf, guest, terms)?;
        let record = pf.vfs.get(&terms.index);
        let lease = record.and_then(|record| record.lease.as_ref());
        let since = lease.map_or_else(|| now.clone(), |lease| lease.since.clone());
        pf.step(terms.index, vf, Event::Leased, &now)?;
        if let Some(record) = pf.vfs.get_mut(&terms.index) {
            record.pool = Some(terms.pool.clone());
            record.lease = Some(Lease {
                guest: guest.to_owned(),
                keep: terms.keep,
                since,
                run: Some(holder.clone()),
            });
        }
        Ok(())
    })?;
    crash::point(Point::Leased);
    Ok(())
}

/// Shows that a claim by `guest` would succeed now; for who has the VF's lock, that it will. Changes nothing.
///
/// # Errors
/// As [`claim`].
pub fn check_free(
    state: &State,
    guest: &str,
    boot: &str,
    terms: &LeaseTerms,
) -> Result<(), Report> {
    state.change_pf(terms.pf, &terms.anchor, |pf| {
        let mut looked_at = pf.clone();
        looked_at.enter(boot, terms.controller.is_some(), &now());
        is_free(&looked_at, guest, terms)
    })
}

/// Whether nothing keeps the guest from the VF.
fn is_free(pf: &PfRecords, guest: &str, terms: &LeaseTerms) -> Result<(), Report> {
    let record = pf.vfs.get(&terms.index);
    let lease = record.and_then(|record| record.lease.as_ref());
    if let Some(lease) = lease.filter(|lease| lease.guest != guest) {
        return Err(foreign(terms.vf, &lease.guest, &terms.pool));
    }
    let is = record.map_or(VfState::Absent, |record| record.state);
    if !matches!(is, VfState::Clean | VfState::Leased) {
        return Err(not_clean(terms.vf, is));
    }
    let mut its_own = terms.namespaces.iter().filter(|wanted| !wanted.is_shared);
    its_own.try_for_each(|wanted| check_clean(pf, wanted, terms.vf, guest))
}

/// Makes a claimed VF what its lease says, and reads it back.
///
/// # Errors
/// `step-failed`, `step-not-done`; what is half done is for [`give_back`].
pub fn take(
    hands: &mut dyn Hands,
    state: &State,
    guest: &str,
    terms: &LeaseTerms,
) -> Result<(), Report> {
    let failed = |why: String| {
        Report::new(
            ErrorId::StepFailed,
            format!("{} is not made what pool {} says", terms.vf, terms.pool),
            why,
            "see the kernel log for the PF's driver, and what differs: narrows host status",
        )
    };
    let steps = to_leased(terms, &hands.observe()?).map_err(failed)?;
    if steps.iter().any(|step| matches!(step, Step::Attach { .. })) {
        // Before the guest can write to the first of them.
        state.change_pf(terms.pf, &terms.anchor, |pf| {
            for wanted in terms.namespaces.iter().filter(|wanted| !wanted.is_shared) {
                mark(pf, wanted, NamespaceState::Dirty, Some(guest));
            }
            Ok(())
        })?;
    }
    for step in &steps {
        patiently(hands, step, &mut |_| {}).map_err(|fault| failed(fault.to_string()))?;
        if matches!(step, Step::Attribute { .. }) {
            crash::point(Point::AttributeSet);
        } else if matches!(step, Step::Attach { .. }) {
            crash::point(Point::NamespaceAttached);
        }
    }
    let left = to_leased(terms, &hands.observe()?).map_err(failed)?;
    match left.first() {
        None => Ok(()),
        Some(step) => Err(Report::new(
            ErrorId::StepNotDone,
            format!("{} is not what pool {} says", terms.vf, terms.pool),
            format!("it was set and reads otherwise; still to be done: {step}"),
            "the driver or the controller has ignored it, or somebody changes it: see narrows host status",
        )),
    }
}

/// Writes down that the guest runs with it from now on.
///
/// # Errors
/// What keeps the record from being changed.
pub fn bound(state: &State, terms: &LeaseTerms) -> Result<(), Report> {
    state.change_pf(terms.pf, &terms.anchor, |pf| {
        pf.step(terms.index, terms.vf, Event::Bound, &now())
            .map(drop)
    })
}

/// Takes a VF back from `guest`, which does not run any more; the function was reset already. What keeps it from counting
/// as clean: none where it is, or is not the guest's any more.
#[must_use]
pub fn give_back(
    hands: &mut dyn Hands,
    state: &State,
    guest: &str,
    terms: &LeaseTerms,
    say: &mut dyn FnMut(&str),
) -> Vec<String> {
    let mut evidence = returned(hands, state, guest, terms, say);
    // One whose reset has failed is in quarantine before it is at rest: then at rest is not clean.
    if state.refusal(terms.vf).is_some() {
        let marked = state.mark_quarantined(terms.vf);
        evidence.extend(marked.err().iter().map(in_a_line));
    }
    evidence
}

/// Takes it back as if it were not in quarantine.
fn returned(
    hands: &mut dyn Hands,
    state: &State,
    guest: &str,
    terms: &LeaseTerms,
    say: &mut dyn FnMut(&str),
) -> Vec<String> {
    match ended(state, guest, terms) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(report) => return vec![in_a_line(&report)],
    }
    crash::point(Point::Dirty);
    let evidence = rest(hands, terms);
    if !evidence.is_empty() {
        return evidence;
    }
    if terms.keep {
        let kept = event(state, terms, Event::RestedKept);
        crash::point(Point::Rested);
        return kept.err().iter().map(in_a_line).collect();
    }
    let changed = match reformatted(hands, terms) {
        Ok(changed) => changed,
        Err(evidence) => return evidence,
    };
    match rested(state, guest, terms, &changed) {
        Ok(dirty) if dirty.is_empty() => Vec::new(),
        Ok(dirty) => {
            crash::point(Point::Rested);
            crash::point(Point::Sanitising);
            erase(hands, state, terms, &dirty, Event::Erased, say)
        }
        Err(report) => vec![in_a_line(&report)],
    }
}

/// The same for a VF that is gone, with the boot or because the host has removed it: namespaces are there still. What could
/// not be done.
#[must_use]
pub fn give_back_gone(
    hands: &mut dyn Hands,
    state: &State,
    guest: &str,
    boot: &str,
    terms: &LeaseTerms,
    say: &mut dyn FnMut(&str),
) -> Vec<String> {
    let changed = match reformatted(hands, terms) {
        Ok(changed) => changed,
        Err(evidence) => return evidence,
    };
    let dirty = state.change_pf(terms.pf, &terms.anchor, |pf| {
        pf.enter(boot, terms.controller.is_some(), &now());
        if !is_leased(pf, guest, terms) {
            return Ok(None);
        }
        if terms.keep
            && let Some(record) = pf.vfs.get_mut(&terms.index)
            && let Some(lease) = &mut record.lease
        {
            lease.run = None;
        }
        Ok(Some(match terms.keep {
            true => Vec::new(),
            false => dirty(pf, guest, terms, &changed),
        }))
    });
    match dirty {
        Ok(None) => Vec::new(),
        Ok(Some(dirty)) => erase(hands, state, terms, &dirty, Event::Gone, say),
        Err(report) => vec![in_a_line(&report)],
    }
}

/// Ends the lease of a VF whose guest does not run: the way of `narrows vf return`. The guest that had it.
///
/// # Errors
/// `not-leased`, `device-in-use`; `device-not-clean` with what was found.
pub fn return_lease(
    hands: &mut dyn Hands,
    root: &SysRoot,
    state: &State,
    bdf: Bdf,
    say: &mut dyn FnMut(&str),
) -> Result<String, Vec<Report>> {
    let one = |report: Report| vec![report];
    let Some(pools) = Pools::read(root, state)? else {
        return Err(vec![unapplied_host()]);
    };
    let (guest, terms) = pools.held(bdf)?;
    let _lock = InUse::take(state, bdf, &format!("{guest} (returned)")).map_err(one)?;
    state.check_recovered(bdf).map_err(one)?;
    let evidence = give_back(hands, state, &guest, &terms, say);
    if evidence.is_empty() {
        return Ok(guest);
    }
    let mut report = Report::new(
        ErrorId::DeviceNotClean,
        format!("{bdf} could not be given back"),
        "",
        "put that right, then: narrows vf return",
    );
    report.why = evidence;
    Err(vec![report])
}

/// Gives back a VF that a dead run had and that no journal tells of, by the lease on record; who calls has its lock. What
/// keeps it from counting as clean. A kept lease stays its guest's.
///
/// # Errors
/// What keeps host file, machine or records from being read; `not-leased`.
pub fn finish(
    hands: &mut dyn Hands,
    root: &SysRoot,
    state: &State,
    one: &Unfinished,
    is_there: bool,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<String>, Vec<Report>> {
    let Some(pools) = Pools::read(root, state)? else {
        return Err(vec![unapplied_host()]);
    };
    let bdf = one.record.bdf;
    let (guest, mut terms) = pools.held(bdf)?;
    terms.keep = one.record.lease.as_ref().is_some_and(|lease| lease.keep);
    if !is_there {
        let boot = &pools.observed.boot;
        return Ok(give_back_gone(hands, state, &guest, boot, &terms, say));
    }
    let reset = Step::Reset {
        pf: one.pf,
        index: one.index,
        vf: Some(bdf),
    };
    if let Err(fault) = hands.carry_out(&reset, &mut |_| {}) {
        return Ok(vec![format!("{reset}: {fault}")]);
    }
    Ok(give_back(hands, state, &guest, &terms, say))
}

/// Notes that the guest has ended; whether there is anything to give back.
fn ended(state: &State, guest: &str, terms: &LeaseTerms) -> Result<bool, Report> {
    state.change_pf(terms.pf, &terms.anchor, |pf| {
        if !is_leased(pf, guest, terms) {
            return Ok(false);
        }
        let is_kept = |lease: &Lease| lease.keep && lease.run.is_none();
        let record = pf.vfs.get(&terms.index);
        let is_rested =
            record.is_some_and(|record| record.lease.as_ref().is_some_and(is_kept)) && terms.keep;
        if is_rested {
            return Ok(false);
        }
        pf.step(terms.index, terms.vf, Event::Ended, &now())?;
        Ok(true)
    })
}

/// Sets the VF to rest, all of it that can be, and reads it back; what is not so.
fn rest(hands: &mut dyn Hands, terms: &LeaseTerms) -> Vec<String> {
    let observed = match hands.observe() {
        Ok(observed) => observed,
        Err(report) => return vec![in_a_line(&report)],
    };
    let mut evidence = Vec::new();
    match to_rest(terms, &observed) {
        Ok(steps) => {
            for step in steps {
                if let Err(fault) = patiently(hands, &step, &mut |_| {}) {
                    evidence.push(format!("not at rest: {step}: {fault}"));
                }
            }
        }
        Err(why) => evidence.push(format!("not at rest: {why}")),
    }
    if !evidence.is_empty() {
        return evidence;
    }
    match hands.observe() {
        Ok(observed) => match to_rest(terms, &observed) {
            Ok(left) => evidence.extend(
                left.iter()
                    .map(|step| format!("not at rest after it was set; still to be done: {step}")),
            ),
            Err(why) => evidence.push(format!("not at rest: {why}")),
        },
        Err(report) => evidence.push(in_a_line(&report)),
    }
    evidence
}

/// The namespaces that the guest has given another format, which the next one would find: a format gives back the one that
/// they should have, whatever the pool says of erasing. One that keeps them may do so.
fn reformatted(
    hands: &mut dyn Hands,
    terms: &LeaseTerms,
) -> Result<Vec<LeasedNamespace>, Vec<String>> {
    if terms.keep || terms.controller.is_none() {
        return Ok(Vec::new());
    }
    let observed = hands.observe().map_err(|report| vec![in_a_line(&report)])?;
    let (shared, own): (Vec<_>, Vec<_>) = changed_formats(terms, &observed)
        .into_iter()
        .partition(|changed| changed.is_shared);
    match shared.is_empty() {
        true => Ok(own),
        // Other guests have it too: nothing here may format it.
        false => Err(shared
            .iter()
            .filter_map(|changed| check_format(terms, changed, &observed).err())
            .collect()),
    }
}

/// Notes that the VF is at rest; the namespaces that are to be erased now.
fn rested(
    state: &State,
    guest: &str,
    terms: &LeaseTerms,
    changed: &[LeasedNamespace],
) -> Result<Vec<LeasedNamespace>, Report> {
    let dirty = state.change_pf(terms.pf, &terms.anchor, |pf| {
        let dirty = dirty(pf, guest, terms, changed);
        let was = pf.vfs.get(&terms.index).map(|record| record.state);
        let event = match (dirty.is_empty(), was) {
            (false, _) => Event::RestedDirty,
            // It was cut off between the last erase and the word of it.
            (true, Some(VfState::Sanitising)) => Event::Erased,
            (true, _) => Event::Rested,
        };
        for wanted in &dirty {
            mark(pf, wanted, NamespaceState::Sanitising, None);
        }
        if dirty.is_empty() {
            // The pool says that what is on them may stay.
            for wanted in terms.namespaces.iter().filter(|wanted| !wanted.is_shared) {
                if pf.namespaces.contains_key(&wanted.nsid) {
                    mark(pf, wanted, NamespaceState::Clean, None);
                }
            }
        }
        pf.step(terms.index, terms.vf, event, &now())?;
        Ok(dirty)
    })?;
    if dirty.is_empty() {
        crash::point(Point::Rested);
    }
    Ok(dirty)
}

/// Erases namespaces, each noted as soon as it is; then `last` happens to the VF. What could not be erased.
fn erase(
    hands: &mut dyn Hands,
    state: &State,
    terms: &LeaseTerms,
    dirty: &[LeasedNamespace],
    last: Event,
    say: &mut dyn FnMut(&str),
) -> Vec<String> {
    let mut evidence = Vec::new();
    for wanted in dirty {
        let done = erase_one(hands, terms, wanted, say).and_then(|()| {
            state
                .change_pf(terms.pf, &terms.anchor, |pf| {
                    mark(pf, wanted, NamespaceState::Clean, None);
                    Ok(())
                })
                .map_err(|report| in_a_line(&report))
        });
        if let Err(why) = done {
            evidence.push(format!("namespace {} is not erased: {why}", wanted.nsid));
        }
    }
    if !evidence.is_empty() {
        return evidence;
    }
    let noted = event(state, terms, last);
    crash::point(Point::Erased);
    noted.err().iter().map(in_a_line).collect()
}

fn erase_one(
    hands: &mut dyn Hands,
    terms: &LeaseTerms,
    wanted: &LeasedNamespace,
    say: &mut dyn FnMut(&str),
) -> Result<(), String> {
    let observed = hands.observe().map_err(|report| in_a_line(&report))?;
    let nsid = wanted.nsid;
    let mut failed = Vec::new();
    for step in to_erase(terms, wanted, &observed)? {
        let is_erase = matches!(step, Step::Erase { .. });
        // Nothing is erased where nothing can be; the last step, which takes it from the primary again, is always tried.
        if !failed.is_empty() && !matches!(step, Step::Detach { .. }) {
            continue;
        }
        if is_erase {
            say(&format!("namespace {nsid} is erased now"));
        }
        let mut told = 0;
        let mut progress = |percent: Percent| {
            // A line for each tenth: it may take hours.
            let tenths = percent.0 / 10;
            if tenths > told && tenths < 10 {
                told = tenths;
                say(&format!("namespace {nsid}: {tenths}0 percent erased"));
            }
        };
        match patiently(hands, &step, &mut progress) {
            Err(fault) => failed.push(format!("{step}: {fault}")),
            Ok(()) if is_erase => say(&format!("namespace {nsid} is erased")),
            Ok(()) => {}
        }
    }
    if !failed.is_empty() {
        return Err(failed.join("; "));
    }
    let observed = hands.observe().map_err(|report| in_a_line(&report))?;
    check_format(terms, wanted, &observed)
}

/// Whether the record says that the guest has the VF.
fn is_leased(pf: &PfRecords, guest: &str, terms: &LeaseTerms) -> bool {
    let record = pf.vfs.get(&terms.index);
    let lease = record.and_then(|record| record.lease.as_ref());
    lease.is_some_and(|lease| lease.guest == guest)
}

/// The namespaces of the lease that are to be erased: those that the guest may have written to, where the pool says so, and
/// those in another format.
fn dirty(
    pf: &PfRecords,
    guest: &str,
    terms: &LeaseTerms,
    changed: &[LeasedNamespace],
) -> Vec<LeasedNamespace> {
    let is_written = |wanted: &LeasedNamespace| {
        pf.namespaces.get(&wanted.nsid).is_some_and(|record| {
            record.state != NamespaceState::Clean && record.last_guest.as_deref() == Some(guest)
        })
    };
    let is_dirty = |wanted: &&LeasedNamespace| {
        (terms.erase != Eraser::None && is_written(wanted)) || changed.contains(wanted)
    };
    let its = terms.namespaces.iter().filter(|wanted| !wanted.is_shared);
    its.filter(is_dirty).cloned().collect()
}

/// Refuses a namespace with another guest's data.
fn check_clean(
    pf: &PfRecords,
    wanted: &LeasedNamespace,
    vf: Bdf,
    guest: &str,
) -> Result<(), Report> {
    let Some(record) = pf.namespaces.get(&wanted.nsid) else {
        return Ok(());
    };
    let is_its = record.last_guest.as_deref() == Some(guest)
        && record.state == NamespaceState::Dirty
        && record.id == wanted.id;
    if record.state == NamespaceState::Clean || is_its {
        return Ok(());
    }
    let who = record.last_guest.as_deref().unwrap_or("a guest");
    Err(Report::new(
        ErrorId::RecoverNeeded,
        format!("cannot lease {vf} to guest {guest}"),
        format!(
            "namespace {} may have data of {who}, and is not erased yet",
            wanted.nsid
        ),
        "narrows recover",
    ))
}

fn mark(pf: &mut PfRecords, of: &LeasedNamespace, state: NamespaceState, guest: Option<&str>) {
    let record = pf
        .namespaces
        .entry(of.nsid)
        .or_insert_with(|| NamespaceRecord {
            id: of.id.clone(),
            name: format!("nsid-{}", of.nsid),
            state,
            since: now(),
            is_made: false,
            last_guest: None,
            format: None,
        });
    record.id = of.id.clone();
    record.format = Some(of.format);
    if record.state != state {
        record.state = state;
        record.since = now();
    }
    if let Some(guest) = guest {
        record.last_guest = Some(guest.to_owned());
    }
}

fn event(state: &State, terms: &LeaseTerms, event: Event) -> Result<(), Report> {
    state.change_pf(terms.pf, &terms.anchor, |pf| {
        pf.step(terms.index, terms.vf, event, &now()).map(drop)
    })
}

/// Carries out a step, again where that may help.
fn patiently(
    hands: &mut dyn Hands,
    step: &Step,
    progress: &mut dyn FnMut(Percent),
) -> Result<(), StepFault> {
    let deadline = Instant::now() + BUSY;
    loop {
        match hands.carry_out(step, progress) {
            Err(fault) if fault.is_busy && Instant::now() < deadline => sleep(BUSY_POLL),
            done => return done.map(drop),
        }
    }
}

fn in_a_line(report: &Report) -> String {
    match report.why.is_empty() {
        true => report.what.clone(),
        false => format!("{}: {}", report.what, report.why.join("; ")),
    }
}

fn not_clean(vf: Bdf, is: VfState) -> Report {
    Report::new(
        ErrorId::PoolExhausted,
        format!("cannot lease {vf}"),
        format!("it is {is}, and only a clean VF goes to a guest"),
        match is {
            VfState::Absent | VfState::Created | VfState::Quarantined => "narrows host apply",
            VfState::Clean
            | VfState::Leased
            | VfState::InUse
            | VfState::Dirty
            | VfState::Sanitising => "narrows recover",
        },
    )
}

fn unapplied(pool: &str) -> Report {
    Report::new(
        ErrorId::PoolUnapplied,
        format!("there is no pool {pool:?} yet"),
        "no host file was applied on this host: nobody knows which VFs are whose",
        "narrows host apply HOST.toml",
    )
}

fn unapplied_host() -> Report {
    Report::new(
        ErrorId::NotLeased,
        "no VF is leased",
        "no host file was applied on this host",
        "a VF that is in no pool is given back when its guest ends",
    )
}

#[cfg(test)]
#[path = "lease_test.rs"]
mod tests;
