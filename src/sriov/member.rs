//! A VF of a pool as wanted and as it is, and what keeps a guest from it.

use super::choose::PoolsView;
use super::{
    attributes::{differing, word},
    desired::{DesiredPf, DesiredVf, WithoutMac},
    facts::PfFacts,
    life::VfState,
    records::VfRecord,
    terms::{LeaseTerms, Place},
};
use crate::spec::PoolWish;
use iommu::bdf::Bdf;

/// A VF of a pool, as wanted and as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    pub(super) pf: &'a PfFacts,
    pub(super) declared: &'a DesiredPf,
    pub(super) wanted: &'a DesiredVf,
    /// `None` where the PF has fewer VFs.
    pub(super) bdf: Option<Bdf>,
    pub(super) record: Option<&'a VfRecord>,
}

impl Member<'_> {
    pub(super) fn terms(&self, pool: &str, keep: bool, view: &PoolsView<'_>) -> Option<LeaseTerms> {
        let place = Place {
            pf: self.pf,
            declared: self.declared,
            wanted: self.wanted,
            kept: view.records.pfs.get(&self.pf.bdf),
        };
        LeaseTerms::new(pool, self.bdf?, keep, &place)
    }

    /// What tells that the host file gives it other namespaces than its guest keeps.
    pub(super) fn is_moved(&self, view: &PoolsView<'_>) -> Option<String> {
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

pub(super) fn members<'a>(pool: &str, view: &PoolsView<'a>) -> Vec<Member<'a>> {
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
pub(super) fn is_own(member: &Member<'_>, guest: &str) -> bool {
    member
        .record
        .is_some_and(|record| record.lease.as_ref().is_some_and(|l| l.guest == guest))
}

/// Whether it could be given to anybody, as its record tells.
pub(super) fn nobody_has(member: &Member<'_>, view: &PoolsView<'_>) -> bool {
    let is_kept_back = member.bdf.is_none_or(|bdf| {
        view.withheld.contains_key(&bdf)
            || view.records.quarantined.contains_key(&bdf)
            || view.records.running.contains_key(&bdf)
    });
    let is_clean = |record: &VfRecord| record.state == VfState::Clean && record.lease.is_none();
    !is_kept_back && member.record.is_some_and(is_clean)
}

/// What keeps `guest` from having it.
pub(super) fn kept_from(
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
pub(super) fn not_asked_for(member: &Member<'_>, wish: &PoolWish) -> Option<String> {
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
pub(super) fn drifted(member: &Member<'_>) -> Option<String> {
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

pub(super) fn named(member: &Member<'_>) -> String {
    match member.bdf {
        Some(bdf) => bdf.to_string(),
        None => format!("VF {} of {}", member.wanted.index, member.pf.bdf),
    }
}
