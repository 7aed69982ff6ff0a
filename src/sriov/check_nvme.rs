//! The checks of NVMe drives: rows of `check::ROWS`.

use std::collections::BTreeSet;

use iommu::addr::ByteLen;

use super::{
    check::{Subject, at},
    facts::{NvmeCan, NvmeFacts, Resource, Secondary},
    step::EraseHow,
    wish,
};
use crate::{
    error::{ErrorId, Report},
    spec::host::{
        Eraser, Manages, NamespaceFor, NamespaceFrom, NamespaceSpec, NvmePolicy, PoolOptOut,
        PoolPolicy,
    },
};

/// How namespaces of a drive are erased; `None` where it cannot erase one alone in that way.
#[must_use]
pub fn erase_how(wanted: Eraser, can: NvmeCan) -> Option<EraseHow> {
    let crypto = can.format && can.crypto && !can.format_all && !can.erase_all;
    let format = can.format && !can.format_all && !can.erase_all;
    match wanted {
        Eraser::None => None,
        Eraser::Crypto => crypto.then_some(EraseHow::Crypto),
        Eraser::Format => format.then_some(EraseHow::Format),
        Eraser::Overwrite => Some(EraseHow::Overwrite),
        Eraser::Auto if crypto => Some(EraseHow::Crypto),
        Eraser::Auto if format => Some(EraseHow::Format),
        Eraser::Auto => Some(EraseHow::Overwrite),
    }
}

/// A VF's secondary controller: the one that names it; while there are no VFs, the one at its place in the list.
pub(super) fn secondary(nvme: &NvmeFacts, index: u32) -> Option<&Secondary> {
    let function = u16::try_from(index).ok()?.checked_add(1)?;
    let named = nvme.secondaries.iter().find(|one| one.vf == function);
    let at = usize::try_from(index).ok()?;
    named.or_else(|| nvme.secondaries.get(at).filter(|one| one.vf == 0))
}

/// VFs of NVMe pools: what each is to have.
fn drives<'a>(
    on: &Subject<'a>,
) -> impl Iterator<Item = (u32, &'a crate::spec::host::Pool, &'a NvmePolicy)> {
    on.pf.pools.keys().filter_map(|index| {
        let pool = on.pool(*index)?;
        match &pool.policy {
            PoolPolicy::Nvme(policy) => Some((*index, pool, policy)),
            PoolPolicy::Nic(_) => None,
        }
    })
}

pub(super) fn unmanaged(on: &Subject<'_>) -> Vec<Report> {
    let Some(nvme) = on.facts.nvme() else {
        return Vec::new();
    };
    let Some((_, _, policy)) = drives(on).next() else {
        return Vec::new();
    };
    if nvme.can.virt && nvme.flexible.is_some() {
        return Vec::new();
    }
    vec![at(
        policy.places.of("queues"),
        ErrorId::AttributeUnsupported,
        format!(
            "secondary controllers of {} cannot be given resources",
            nvme.controller
        ),
        "the drive does not carry out Virtualization Management (1Ch)".to_owned(),
        "use another drive for this pool",
    )]
}

pub(super) fn resources(on: &Subject<'_>) -> Vec<Report> {
    let Some(nvme) = on.facts.nvme() else {
        return Vec::new();
    };
    let Some(flexible) = nvme.flexible else {
        return Vec::new();
    };
    let pooled: BTreeSet<u16> = drives(on)
        .filter_map(|(index, ..)| secondary(nvme, index))
        .map(|one| one.cntlid)
        .collect();
    let mut found = Vec::new();
    for (key, rules, of, have) in [
        (
            "queues",
            flexible.vq,
            first as fn((u16, u16)) -> u16,
            queues as fn(&Secondary) -> u16,
        ),
        ("vectors", flexible.vi, second, vectors),
    ] {
        let others = nvme
            .secondaries
            .iter()
            .filter(|one| !pooled.contains(&one.cntlid));
        let others: u64 = others.map(|one| u64::from(have(one))).sum();
        found.extend(of_one_kind(on, key, rules, of, others));
    }
    let missing = drives(on).find(|(index, ..)| secondary(nvme, *index).is_none());
    found.extend(missing.map(|(index, _, policy)| {
        at(
            policy.places.of("queues"),
            ErrorId::ResourcesOvercommitted,
            format!(
                "VF {index} of {} has no secondary controller",
                nvme.controller
            ),
            format!("the drive has {} of them", nvme.secondaries.len()),
            "put fewer VFs into pools",
        )
    }));
    found
}

fn first((queues, _): (u16, u16)) -> u16 {
    queues
}

fn second((_, vectors): (u16, u16)) -> u16 {
    vectors
}

fn queues(one: &Secondary) -> u16 {
    one.queues
}

fn vectors(one: &Secondary) -> u16 {
    one.vectors
}

fn of_one_kind(
    on: &Subject<'_>,
    key: &'static str,
    rules: Resource,
    of: fn((u16, u16)) -> u16,
    others: u64,
) -> Option<Report> {
    let wanted =
        |index: u32, policy: &NvmePolicy| of(wish::resources(policy, on.pf.overrides.get(&index)));
    let grain = rules.granularity.max(1);
    let one = drives(on).find(|(index, _, policy)| {
        let wanted = wanted(*index, policy);
        wanted > rules.most || wanted % grain != 0
    });
    if let Some((index, _, policy)) = one {
        return Some(at(
            policy.places.of(key),
            ErrorId::ResourcesOvercommitted,
            format!(
                "VF {index} of {} cannot have {} {key}",
                on.facts.bdf,
                wanted(index, policy)
            ),
            format!(
                "the drive gives one controller at most {}, by {grain}",
                rules.most
            ),
            format!("write `{key} = {}` or less", rules.most),
        ));
    }
    let sum: u64 = drives(on)
        .map(|(index, _, policy)| u64::from(wanted(index, policy)))
        .sum();
    let have = u64::from(rules.total).saturating_sub(u64::from(rules.to_primary));
    let (_, _, policy) = drives(on).next().filter(|_| sum + others > have)?;
    Some(at(
        policy.places.of(key),
        ErrorId::ResourcesOvercommitted,
        format!("{} does not have {key} for all its VFs", on.facts.bdf),
        format!(
            "its pools want {sum}, controllers outside of them have {others}; of {} the primary keeps {}",
            rules.total, rules.to_primary
        ),
        format!("lower `{key}`, or put fewer VFs into pools"),
    ))
}

/// Namespaces that are still to be made, with the number of them.
fn to_make<'a>(on: &Subject<'a>) -> Vec<(&'a NamespaceSpec, u64, u64)> {
    let all = on.pf.namespaces.iter().filter_map(|wanted| {
        let NamespaceFrom::Created { size, .. } = wanted.from else {
            return None;
        };
        let names: Vec<String> = match &wanted.to {
            NamespaceFor::Vfs(_) => vec![wanted.name.clone()],
            NamespaceFor::Pool(pool) => {
                let of_pool = on.pf.pools.iter().filter(|(_, of)| of.name == *pool);
                of_pool
                    .map(|(index, _)| format!("{}-{index}", wanted.name))
                    .collect()
            }
        };
        let missing = names.iter().filter(|name| on.made(name).is_none()).count();
        Some((
            wanted,
            size.raw(),
            u64::try_from(missing).unwrap_or(u64::MAX),
        ))
    });
    all.filter(|(_, _, missing)| *missing > 0).collect()
}

pub(super) fn commands(on: &Subject<'_>) -> Vec<Report> {
    let Some(nvme) = on.facts.nvme() else {
        return Vec::new();
    };
    let report = |wanted: &NamespaceSpec, what: &str| {
        at(
            &wanted.place,
            ErrorId::NamespaceUnmanaged,
            format!(
                "namespace {} of {} cannot be what the file asks for",
                wanted.name, nvme.controller
            ),
            format!("the drive does not carry out {what}, by its list of commands"),
            "use namespaces that exist, or another drive",
        )
    };
    let attach = on.pf.namespaces.first().filter(|_| !nvme.can.attach);
    let make = to_make(on);
    let make = make.first().filter(|_| !nvme.can.manage);
    attach
        .map(|wanted| report(wanted, "Namespace Attachment (15h)"))
        .into_iter()
        .chain(make.map(|(wanted, ..)| report(wanted, "Namespace Management (0Dh)")))
        .collect()
}

pub(super) fn absent(on: &Subject<'_>) -> Vec<Report> {
    let there = on.facts.nvme().map(|nvme| &nvme.namespaces);
    let missing = on
        .pf
        .namespaces
        .iter()
        .filter_map(|wanted| match wanted.from {
            NamespaceFrom::Existing { nsid } => {
                let is_there = there.is_some_and(|there| there.contains_key(&nsid));
                (!is_there).then_some((wanted, nsid))
            }
            NamespaceFrom::Created { .. } => None,
        });
    missing
        .map(|(wanted, nsid)| {
            let ids = there.into_iter().flat_map(|there| there.keys());
            let ids: Vec<String> = ids.map(u32::to_string).collect();
            let why = match ids.is_empty() {
                true => "it has none".to_owned(),
                false => format!("it has {}", ids.join(", ")),
            };
            at(
                &wanted.place,
                ErrorId::NamespaceAbsent,
                format!("{} has no namespace {nsid}", on.facts.bdf),
                why,
                "name one of those, or give it a `size` where the drive makes namespaces",
            )
        })
        .collect()
}

pub(super) fn capacity(on: &Subject<'_>) -> Vec<Report> {
    let Some(nvme) = on.facts.nvme() else {
        return Vec::new();
    };
    // A capacity of 0 is not told: the drive itself says at the creation whether there is room.
    if nvme.capacity == 0 {
        return Vec::new();
    }
    let make = to_make(on);
    let sum: u128 = make
        .iter()
        .map(|(_, size, number)| u128::from(*size) * u128::from(*number))
        .sum();
    let Some((wanted, ..)) = make.first().filter(|_| sum > nvme.unallocated) else {
        return Vec::new();
    };
    vec![at(
        &wanted.place,
        ErrorId::NamespaceOvercommitted,
        format!(
            "{} has no room for the namespaces of the file",
            nvme.controller
        ),
        format!(
            "they need {sum} bytes ({}); {} of {} are not allocated",
            u64::try_from(sum).map_or_else(
                |_| "more than it can count".to_owned(),
                |sum| ByteLen::new(sum).to_string()
            ),
            nvme.unallocated,
            nvme.capacity
        ),
        "make them smaller, or delete others: Narrows deletes none to make room",
    )]
}

/// Namespaces that others than the file's VFs have, or that cannot be shared as the file says.
pub(super) fn shared(on: &Subject<'_>) -> Vec<Report> {
    let Some(nvme) = on.facts.nvme() else {
        return Vec::new();
    };
    let pooled: BTreeSet<u16> = drives(on)
        .filter_map(|(index, ..)| secondary(nvme, index))
        .map(|one| one.cntlid)
        .collect();
    let mut found = Vec::new();
    for wanted in &on.pf.namespaces {
        let NamespaceFrom::Existing { nsid } = wanted.from else {
            continue;
        };
        let Some(is) = nvme.namespaces.get(&nsid) else {
            continue;
        };
        let strangers: Vec<String> = is
            .attached
            .iter()
            .filter(|cntlid| **cntlid != nvme.cntlid && !pooled.contains(cntlid))
            .map(u16::to_string)
            .collect();
        let why = if wanted.shared && !is.is_shared {
            "it is private: one controller at a time can have it".to_owned()
        } else if !strangers.is_empty() {
            format!(
                "controllers outside of the pools have it: {}",
                strangers.join(", ")
            )
        } else {
            continue;
        };
        found.push(at(
            &wanted.place,
            ErrorId::NamespaceShared,
            format!(
                "namespace {nsid} of {} cannot be given to these VFs",
                nvme.controller
            ),
            why,
            "detach it there first, or use another namespace",
        ));
    }
    found
}

pub(super) fn erase(on: &Subject<'_>) -> Vec<Report> {
    let Some(nvme) = on.facts.nvme() else {
        return Vec::new();
    };
    let wrong = drives(on).find(|(_, _, policy)| {
        policy.erase != Eraser::None && erase_how(policy.erase, nvme.can).is_none()
    });
    wrong
        .map(|(_, pool, policy)| {
            let why = match (nvme.can.format, nvme.can.format_all || nvme.can.erase_all) {
                (false, _) => "it has no Format NVM (80h)",
                (true, true) => "a format of one namespace erases all of the drive (FNA)",
                (true, false) => "it has no cryptographic erase (FNA)",
            };
            at(
                policy.places.of("erase"),
                ErrorId::EraseUnsupported,
                format!(
                    "{} cannot erase namespaces of pool {} so",
                    nvme.controller, pool.name
                ),
                why.to_owned(),
                "write `erase = \"auto\"` for the best that the drive has, or \"overwrite\"",
            )
        })
        .into_iter()
        .collect()
}

pub(super) fn vf_manages(on: &Subject<'_>) -> Vec<Report> {
    let manages = on.profile.nvme.map(|rules| rules.secondary_manages);
    // Without a word of it, nobody knows.
    let is_known = match manages.unwrap_or(Manages::Unknown) {
        Manages::Refused => return Vec::new(),
        Manages::Accepted => true,
        Manages::Unknown => false,
    };
    let wrong = drives(on).find(|(_, pool, _)| !pool.accept.contains(&PoolOptOut::NvmeVfManages));
    let (bdf, profile) = (on.facts.bdf, on.profile);
    let (what, why, fix) = match is_known {
        true => (
            format!("guests with VFs of {bdf} reach the namespaces of all others"),
            "secondary controllers attach and detach namespaces themselves",
            "use another drive; or, where all guests of it are one tenant's, `accept = [\"nvme-vf-manages\"]` in the pool",
        ),
        false => (
            format!("guests with VFs of {bdf} may reach the namespaces of all others"),
            "it is not known whether secondary controllers attach and detach namespaces themselves",
            "try it, and write a profile with `secondary_manages`; or, where all guests of it are one tenant's, \
             `accept = [\"nvme-vf-manages\"]` in the pool",
        ),
    };
    wrong
        .map(|(_, pool, _)| {
            let why = format!("profile {} ({}): {why}", profile.name, profile.origin);
            at(&pool.place, ErrorId::NvmeVfManages, what, why, fix)
        })
        .into_iter()
        .collect()
}
