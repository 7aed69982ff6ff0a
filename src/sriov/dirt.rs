//! What is to be erased, how, and whether it lies afterwards as it should.

use super::lease::{attach, card_of, detach, namespace_of, pf_of};
use super::{
    facts::{Namespace, NamespaceId, Observed},
    step::{EraseHow, Step},
    terms::{Dirt, LeaseTerms, LeasedNamespace},
};
use crate::spec::host::Eraser;

/// The steps that erase one namespace: the primary controller commands it, so it is attached to that for as long.
///
/// # Errors
/// What cannot be put right by a step: another namespace has its id, or the pool's way is none of the controller's.
pub fn to_erase(dirt: &Dirt, observed: &Observed) -> Result<Vec<Step>, String> {
    let Dirt {
        pf: bdf,
        namespace: wanted,
        ..
    } = dirt;
    let pf = card_of(*bdf, &dirt.anchor, observed)?;
    let nvme = pf.nvme().ok_or("the PF is no NVMe controller any more")?;
    let controller = nvme.controller.as_str();
    let namespace = namespace_of(wanted, nvme)?;
    let lacks = |what| format!("{controller} has no {what}");
    let mut how = EraseHow::of(dirt.erase, nvme.can).map_err(lacks)?;
    if namespace.format() != wanted.format {
        let reason = || reformatted(wanted, namespace);
        if (wanted.format.metadata, wanted.format.protection) != (0, 0) {
            let reason = reason();
            return Err(format!(
                "{reason}, which nothing restores: no format with metadata is made here"
            ));
        }
        let by_format = EraseHow::of(Eraser::Format, nvme.can)
            .map_err(|what| format!("{}, which nothing restores: {}", reason(), lacks(what)))?;
        how = how.or(by_format);
    }
    let Some(how) = how else {
        return Ok(Vec::new());
    };
    let mut steps = Vec::new();
    let others = namespace.attached.iter().filter(|id| **id != nvme.cntlid);
    for other in others {
        if !dirt.idle.contains(other) {
            return Err(format!(
                "namespace {} is attached to controller {other}, which others may be using",
                wanted.nsid
            ));
        }
        steps.push(detach(*bdf, controller, wanted.nsid, *other));
    }
    if !namespace.attached.contains(&nvme.cntlid) {
        steps.push(attach(*bdf, controller, wanted.nsid, nvme.cntlid));
    }
    steps.push(Step::Erase {
        pf: *bdf,
        controller: controller.to_owned(),
        nsid: wanted.nsid,
        how,
        block: wanted.format.block,
    });
    steps.push(detach(*bdf, controller, wanted.nsid, nvme.cntlid));
    Ok(steps)
}

/// Whether a namespace is not there any more: then what was on it is out of reach.
///
/// # Errors
/// What keeps that from being known.
pub fn is_gone(dirt: &Dirt, observed: &Observed) -> Result<bool, String> {
    let nvme = card_of(dirt.pf, &dirt.anchor, observed)?.nvme();
    let nvme = nvme.ok_or("the PF is no NVMe controller any more")?;
    let is = nvme.namespaces.get(&dirt.namespace.nsid).map(|is| &is.id);
    // One with another name took its place. Without names, it may be the same.
    let was = &dirt.namespace.id;
    let is_named = *was != NamespaceId::None && is.is_some_and(|is| *is != NamespaceId::None);
    Ok(is.is_none_or(|is| is_named && is != was))
}

/// The namespaces of a lease whose format is another than they should have.
///
/// # Errors
/// What keeps that from being known.
pub fn changed_formats(
    terms: &LeaseTerms,
    observed: &Observed,
) -> Result<Vec<LeasedNamespace>, String> {
    let nvme = pf_of(terms, observed)?.nvme();
    let nvme = nvme.ok_or("the PF is no NVMe controller any more")?;
    let is_changed = |wanted: &&LeasedNamespace| {
        namespace_of(wanted, nvme).is_ok_and(|is| is.format() != wanted.format)
    };
    let changed = terms.namespaces.iter().filter(is_changed);
    Ok(changed.cloned().collect())
}

/// What a namespace in another format is, and was.
pub(super) fn reformatted(wanted: &LeasedNamespace, is: &Namespace) -> String {
    format!(
        "namespace {} has {}, and should have {}",
        wanted.nsid,
        is.format(),
        wanted.format
    )
}

/// Whether an erased namespace has the format that it should have.
///
/// # Errors
/// What it has, and what it should have.
pub fn check_format(dirt: &Dirt, observed: &Observed) -> Result<(), String> {
    let nvme = card_of(dirt.pf, &dirt.anchor, observed)?.nvme();
    let nvme = nvme.ok_or("the PF is no NVMe controller any more")?;
    let wanted = &dirt.namespace;
    let is = namespace_of(wanted, nvme)?;
    match is.format() == wanted.format {
        true => Ok(()),
        false => Err(reformatted(wanted, is)),
    }
}
