//! Which VF a guest gets for a wish, and on which terms.
//!
//! The same question asked again while the guest has its leases has the same answer: a plan is made several times on the
//! way to a guest's first instruction.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    desired::Desired,
    facts::{Observed, PfFacts},
    member::{Member, is_own, kept_from, members, named, nobody_has},
    records::Records,
    terms::LeaseTerms,
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
