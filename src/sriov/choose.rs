//! Which VF a guest gets for a wish, and on which terms.
//!
//! The same question asked again while the guest has its leases has the same answer: a plan is made several times on the
//! way to a guest's first instruction.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    attributes::{differing, word},
    desired::{Desired, DesiredPf, DesiredVf, WithoutMac},
    facts::{Observed, PfFacts},
    life::VfState,
    records::{Records, VfRecord},
    terms::{LeaseTerms, Place},
};
use crate::{
    error::{ErrorId, Report},
    spec::{PoolDevice, PoolWish, host::HostSpec},
};
use iommu::bdf::Bdf;

/// What a choice is made from.
#[derive(Clone, Copy, Debug)]
pub struct PoolsView<'a> {
    /// The host file that was applied.
    pub spec: &'a HostSpec,
    /// What it makes of this machine.
    pub desired: &'a Desired,
    /// The machine.
    pub observed: &'a Observed,
    /// Who has what.
    pub records: &'a Records,
    /// VFs that no guest may have now, and why.
    pub withheld: &'a BTreeMap<Bdf, String>,
}

/// A VF of a pool, as wanted and as it is.
#[derive(Clone, Copy, Debug)]
struct Member<'a> {
    pf: &'a PfFacts,
    declared: &'a DesiredPf,
    wanted: &'a DesiredVf,
    /// `None` where the PF has fewer VFs.
    bdf: Option<Bdf>,
    record: Option<&'a VfRecord>,
}

impl Member<'_> {
    fn terms(&self, pool: &str, keep: bool, view: &PoolsView<'_>) -> Option<LeaseTerms> {
        let place = Place {
            pf: self.pf,
            declared: self.declared,
            wanted: self.wanted,
            kept: view.records.pfs.get(&self.pf.bdf),
        };
        LeaseTerms::new(pool, self.bdf?, keep, &place)
    }

    /// What tells that the host file gives it other namespaces than its guest keeps.
    fn is_moved(&self, view: &PoolsView<'_>) -> Option<String> {
        let lease = self.record?.lease.as_ref()?;
        let now = self.terms(&lease.terms.pool, lease.keep, view);
        if now.is_some_and(|now| now.has_namespaces_of(&lease.terms)) {
            return None;
        }
        Some(format!(
            "guest {} keeps {} with it, and the host file gives it others now",
            lease.guest,
            lease.terms.namespaces_in_words()
        ))
    }
}

/// The VF for each wish of `guest`, by the wish's number in the guest file.
///
/// # Errors
/// For each wish that cannot be met `pool-unknown`, or `pool-exhausted` with what keeps each VF.
pub fn choose(
    guest: &str,
    wishes: &[PoolDevice],
    view: &PoolsView<'_>,
) -> Result<Vec<(usize, LeaseTerms)>, Vec<Report>> {
    let free = assign(guest, wishes, view, None)?;
    // Once more from the chosen alone: that is what they are chosen from as soon as the guest has them.
    let only: BTreeSet<Bdf> = free.iter().map(|(_, terms)| terms.vf).collect();
    Ok(assign(guest, wishes, view, Some(&only)).unwrap_or(free))
}

/// One VF for each wish, those first that ask for most.
fn assign(
    guest: &str,
    wishes: &[PoolDevice],
    view: &PoolsView<'_>,
    only: Option<&BTreeSet<Bdf>>,
) -> Result<Vec<(usize, LeaseTerms)>, Vec<Report>> {
    let mut order: Vec<&PoolDevice> = wishes.iter().collect();
    let asks =
        |wish: &PoolWish| usize::from(wish.numa.is_some()) + usize::from(wish.min_link.is_some());
    order.sort_by_key(|device| (std::cmp::Reverse(asks(&device.wish)), device.at));
    let mut taken = BTreeSet::new();
    let (mut chosen, mut reports) = (Vec::new(), Vec::new());
    for device in order {
        let candidates = candidates(guest, &device.wish, view, &taken)
            .map_err(|report| reports.push(report.at(device.place.clone())))
            .unwrap_or_default();
        let found = match only {
            None => candidates.into_iter().next(),
            Some(only) => candidates
                .into_iter()
                .filter(|terms| only.contains(&terms.vf))
                .min_by_key(|terms| (terms.pf, terms.index)),
        };
        match found {
            Some(terms) => {
                taken.insert(terms.vf);
                chosen.push((device.at, terms));
            }
            None if only.is_some() => return Err(Vec::new()),
            None => {}
        }
    }
    chosen.sort_by_key(|(at, _)| *at);
    match reports.is_empty() {
        true => Ok(chosen),
        false => Err(reports),
    }
}

/// The VFs that `guest` may have for a wish, the best first; those in `taken` are other devices of it.
///
/// # Errors
/// `pool-unknown`; `pool-exhausted` with what keeps each VF of the pool.
pub fn candidates(
    guest: &str,
    wish: &PoolWish,
    view: &PoolsView<'_>,
    taken: &BTreeSet<Bdf>,
) -> Result<Vec<LeaseTerms>, Report> {
    let Some(pool) = view.spec.pool(&wish.pool) else {
        return Err(unknown(wish, view.spec));
    };
    let members = members(&pool.name, view);
    let is_taken = |member: &Member<'_>| member.bdf.is_some_and(|bdf| taken.contains(&bdf));
    let is_free = |member: &&Member<'_>| {
        kept_from(member, guest, wish, view).is_none() && !is_own(member, guest)
    };
    // Free in the pool's eyes: whatever this wish asks besides.
    let free = members
        .iter()
        .filter(|member| nobody_has(member, view) && !is_taken(member));
    let is_reserved = free.count() <= usize::try_from(pool.reserve).unwrap_or(usize::MAX);
    let own = members
        .iter()
        .filter(|member| is_own(member, guest) && kept_from(member, guest, wish, view).is_none());
    if let Some(report) = lost(&members, guest, wish, view) {
        return Err(report);
    }
    let mut found: Vec<&Member<'_>> = own.filter(|member| !is_taken(member)).collect();
    found.sort_by_key(|member| (member.pf.bdf, member.wanted.index));
    if !is_reserved {
        let mut free: Vec<_> = members
            .iter()
            .filter(is_free)
            .filter(|member| !is_taken(member))
            .collect();
        let is_far = |member: &Member<'_>| wish.home.is_some() && member.pf.numa != wish.home;
        free.sort_by_key(|member| {
            let leases = leases(member.pf.bdf, view) + of_pf(member.pf, taken);
            (is_far(member), leases, member.pf.bdf, member.wanted.index)
        });
        found.extend(free);
    }
    let terms: Vec<LeaseTerms> = found
        .into_iter()
        .filter_map(|member| member.terms(&pool.name, wish.keep, view))
        .collect();
    if !terms.is_empty() {
        return Ok(terms);
    }
    let mut report = Report::new(
        ErrorId::PoolExhausted,
        format!("pool {} has no VF for guest {guest}", pool.name),
        String::new(),
        "wait until one is given back (narrows vf ls), ask for less, or add VFs to the pool in the host file",
    );
    report.why = members
        .iter()
        .map(|member| {
            let why = match member.bdf {
                Some(bdf) if taken.contains(&bdf) => {
                    "another device of this guest gets it".to_owned()
                }
                _ => kept_from(member, guest, wish, view)
                    .unwrap_or_else(|| format!("reserved: the pool keeps {} free", pool.reserve)),
            };
            format!("{}: {why}", named(member))
        })
        .collect();
    if members.is_empty() {
        report.why = vec!["no PF of the host file has VFs in it".to_owned()];
    }
    Err(report)
}

/// Refuses a guest whose own VF is not to be had: another one would not have its address and its data.
fn lost(
    members: &[Member<'_>],
    guest: &str,
    wish: &PoolWish,
    view: &PoolsView<'_>,
) -> Option<Report> {
    members.iter().find_map(|member| {
        let record = member.record?;
        record
            .lease
            .as_ref()
            .filter(|l| l.guest == guest && l.keep)?;
        let why = kept_from(member, guest, wish, view)?;
        Some(Report::new(
            ErrorId::PoolExhausted,
            format!(
                "guest {guest} cannot have {}, which it keeps",
                named(member)
            ),
            why,
            format!(
                "put that right, or end the lease, with what is on it: narrows vf return {}",
                named(member)
            ),
        ))
    })
}

/// The terms for a VF that the guest file names by its address; `None` where it is in no pool.
///
/// # Errors
/// `lease-foreign` where another guest has it; `pool-exhausted` where it is not free.
pub fn terms_of(guest: &str, bdf: Bdf, view: &PoolsView<'_>) -> Result<Option<LeaseTerms>, Report> {
    let pools = view.spec.pools.iter();
    let found = pools
        .flat_map(|pool| {
            members(&pool.name, view)
                .into_iter()
                .map(move |m| (pool, m))
        })
        .find(|(_, member)| member.bdf == Some(bdf));
    let Some((pool, member)) = found else {
        return Ok(None);
    };
    let lease = member.record.and_then(|record| record.lease.as_ref());
    if let Some(lease) = lease.filter(|lease| lease.guest != guest) {
        return Err(foreign(bdf, &lease.guest, &pool.name));
    }
    let wish = PoolWish {
        pool: pool.name.clone(),
        numa: None,
        home: None,
        min_link: None,
        keep: false,
    };
    if let Some(why) = kept_from(&member, guest, &wish, view) {
        return Err(Report::new(
            ErrorId::PoolExhausted,
            format!("{bdf} of pool {} is not free", pool.name),
            why,
            "see `narrows vf ls`, or ask for `pool` in place of `bdf`",
        ));
    }
    // What it keeps is not taken from it by naming it.
    let keep = lease.is_some_and(|lease| lease.keep);
    Ok(member.terms(&pool.name, keep, view))
}

/// A VF that another guest has.
#[must_use]
pub fn foreign(bdf: Bdf, guest: &str, pool: &str) -> Report {
    Report::new(
        ErrorId::LeaseForeign,
        format!("{bdf} of pool {pool} is guest {guest}'s"),
        "a VF has one guest, also while that does not run if it keeps the VF",
        format!("choose another VF, or end the lease: narrows vf return {bdf}"),
    )
}

fn members<'a>(pool: &str, view: &PoolsView<'a>) -> Vec<Member<'a>> {
    let view = *view;
    let pfs = view.desired.pfs.values();
    let pairs = pfs.filter_map(move |pf| Some((pf, view.observed.pfs.get(&pf.bdf)?)));
    let all = pairs.flat_map(|(wanted, pf)| wanted.vfs.iter().map(move |vf| (pf, wanted, vf)));
    all.filter(|(_, _, vf)| vf.pool.as_deref() == Some(pool))
        .map(|(pf, declared, wanted)| Member {
            pf,
            declared,
            wanted,
            bdf: pf
                .vfs
                .iter()
                .find(|vf| vf.index == wanted.index)
                .map(|vf| vf.bdf),
            record: view.records.vf(pf.bdf, wanted.index),
        })
        .collect()
}

/// Whether the guest has it already: a lease that it keeps, or that of this very run.
fn is_own(member: &Member<'_>, guest: &str) -> bool {
    member
        .record
        .is_some_and(|record| record.lease.as_ref().is_some_and(|l| l.guest == guest))
}

/// Whether it could be given to anybody, as its record tells.
fn nobody_has(member: &Member<'_>, view: &PoolsView<'_>) -> bool {
    let is_kept_back = member.bdf.is_none_or(|bdf| {
        view.withheld.contains_key(&bdf)
            || view.records.quarantined.contains_key(&bdf)
            || view.records.running.contains_key(&bdf)
    });
    let is_clean = |record: &VfRecord| record.state == VfState::Clean && record.lease.is_none();
    !is_kept_back && member.record.is_some_and(is_clean)
}

/// What keeps `guest` from having it.
fn kept_from(
    member: &Member<'_>,
    guest: &str,
    wish: &PoolWish,
    view: &PoolsView<'_>,
) -> Option<String> {
    let applies = "narrows host apply";
    let Some(bdf) = member.bdf else {
        return Some(format!("it is not made: {applies}"));
    };
    let Some(record) = member.record else {
        return Some(format!("nobody knows what it did before: {applies}"));
    };
    if let Some(why) = view.records.quarantined.get(&bdf) {
        return Some(format!("in quarantine: {why}"));
    }
    let lease = record.lease.as_ref();
    if let Some(lease) = lease.filter(|lease| lease.guest != guest) {
        let since = &lease.since;
        return Some(match lease.keep {
            true => format!("guest {} keeps it since {since}", lease.guest),
            false => format!("guest {} has it since {since}", lease.guest),
        });
    }
    if let Some(why) = view.withheld.get(&bdf) {
        return Some(why.clone());
    }
    // One's own run is known by its lease.
    if lease.is_none()
        && let Some(who) = view.records.running.get(&bdf)
    {
        return Some(format!("guest {who} has it"));
    }
    if let Some(why) = member.is_moved(view) {
        return Some(why);
    }
    match (record.state, lease) {
        (VfState::Clean, _) | (VfState::Leased, Some(_)) => {}
        // What is in quarantine was told above: this one was let go, as far as its files tell.
        (VfState::Absent | VfState::Created | VfState::Quarantined, _) => {
            return Some(format!("it was not shown to be clean: {applies}"));
        }
        (state, _) => {
            return Some(format!(
                "it is {state}: narrows recover, unless its guest runs"
            ));
        }
    }
    not_asked_for(member, wish).or_else(|| {
        // While the guest has it, it is as leased.
        (record.state == VfState::Clean)
            .then(|| drifted(member))
            .flatten()
    })
}

/// What it is not that the wish asks for.
fn not_asked_for(member: &Member<'_>, wish: &PoolWish) -> Option<String> {
    if let Some(node) = wish.numa
        && member.pf.numa != Some(node)
    {
        return Some(match member.pf.numa {
            Some(other) => format!("it is at NUMA node {other}, not {node}"),
            None => format!("it is at no NUMA node that is known, {node} is asked for"),
        });
    }
    let least = wish.min_link?;
    match member.pf.nic().and_then(|nic| nic.link) {
        Some(link) if link >= least => None,
        Some(link) => Some(format!("its link has {link}, {least} is asked for")),
        None => Some(format!(
            "its link's speed is not known, {least} is asked for"
        )),
    }
}

/// What somebody has changed of a VF at rest.
fn drifted(member: &Member<'_>) -> Option<String> {
    let is = member
        .pf
        .vfs
        .iter()
        .find(|vf| vf.index == member.wanted.index)?
        .nic?;
    let differing = differing(
        &is,
        &member.wanted.rest,
        member.wanted.without_mac == WithoutMac::Clear,
    );
    (!differing.is_empty()).then(|| {
        let words: Vec<&str> = differing.iter().map(|(_, to)| word(to)).collect();
        format!(
            "{} is not as it was applied: narrows host apply",
            words.join(", ")
        )
    })
}

/// How many VFs of a PF guests have.
fn leases(pf: Bdf, view: &PoolsView<'_>) -> usize {
    let records = view.records.pfs.get(&pf);
    records.map_or(0, |records| {
        let vfs = records.vfs.values();
        vfs.filter(|vf| vf.lease.is_some()).count()
    })
}

/// How many of `taken` are VFs of the PF.
fn of_pf(pf: &PfFacts, taken: &BTreeSet<Bdf>) -> usize {
    pf.vfs.iter().filter(|vf| taken.contains(&vf.bdf)).count()
}

fn named(member: &Member<'_>) -> String {
    match member.bdf {
        Some(bdf) => bdf.to_string(),
        None => format!("VF {} of {}", member.wanted.index, member.pf.bdf),
    }
}

fn unknown(wish: &PoolWish, spec: &HostSpec) -> Report {
    let names: Vec<&str> = spec.pools.iter().map(|pool| pool.name.as_str()).collect();
    let fix = match crate::spec::nearest(&wish.pool, &names) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if names.is_empty() => "the applied host file has no pools: add one".to_owned(),
        None => format!("known: {}", names.join(", ")),
    };
    Report::new(
        ErrorId::PoolUnknown,
        format!("there is no pool {:?}", wish.pool),
        format!("the host file that was applied is {}", spec.file.display()),
        fix,
    )
}

#[cfg(test)]
#[path = "choose_test.rs"]
mod tests;
