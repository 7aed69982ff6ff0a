//! What is to be done to a VF so that it is as a lease says, or as its pool rests: read from the machine, so that asking
//! again after the half of it was done gives the other half, and nothing once all is done.

use iommu::bdf::Bdf;

use super::{
    attributes::differing,
    facts::{Anchor, Namespace, NamespaceId, NicAttributes, NvmeFacts, Observed, PfFacts},
    step::{EraseHow, ResourceKind, Step},
    terms::{Dirt, LeaseTerms, LeasedNamespace},
};
use crate::spec::host::Eraser;

/// The steps to what the lease says: attributes, the controller with its resources, its namespaces and no others.
///
/// # Errors
/// What cannot be put right by a step.
pub fn to_leased(terms: &LeaseTerms, observed: &Observed) -> Result<Vec<Step>, String> {
    let pf = pf_of(terms, observed)?;
    let mut steps = attributes(terms, pf, &terms.leased)?;
    if terms.controller.is_some() {
        let (nvme, controller, cntlid) = controller_of(terms, pf)?;
        steps.extend(online(terms, nvme, controller, cntlid)?);
        steps.extend(detach_all(terms, nvme, controller, cntlid, true));
        for wanted in &terms.namespaces {
            let namespace = namespace_of(wanted, nvme)?;
            // Who keeps it may format it.
            if !terms.keep && namespace.format() != wanted.format {
                return Err(reformatted(wanted, namespace));
            }
            let others = namespace.attached.iter().filter(|id| **id != cntlid);
            // Whether several controllers could have it says nothing: the host file does, of who may.
            if let Some(other) = others.clone().next()
                && !wanted.is_shared
            {
                return Err(format!(
                    "namespace {} of {controller} is attached to controller {other}",
                    wanted.nsid
                ));
            }
            if !namespace.attached.contains(&cntlid) {
                steps.push(attach(terms.pf, controller, wanted.nsid, cntlid));
            }
        }
    }
    Ok(steps)
}

/// The steps to what its pool rests as: no namespace, and the attributes at rest.
///
/// # Errors
/// What cannot be put right by a step.
pub fn to_rest(terms: &LeaseTerms, observed: &Observed) -> Result<Vec<Step>, String> {
    let pf = pf_of(terms, observed)?;
    let mut steps = Vec::new();
    if terms.controller.is_some() {
        let (nvme, controller, cntlid) = controller_of(terms, pf)?;
        steps.extend(detach_all(terms, nvme, controller, cntlid, false));
        // An erase that was cut off leaves them with the primary, and the host with their data.
        let is_left = |its: &&LeasedNamespace| {
            let own = namespace_of(its, nvme);
            !its.is_shared && own.is_ok_and(|own| own.attached.contains(&nvme.cntlid))
        };
        let left = terms.namespaces.iter().filter(is_left);
        steps.extend(left.map(|its| detach(terms.pf, controller, its.nsid, nvme.cntlid)));
        // For the next guest; and a guest may not have left it online.
        steps.extend(online(terms, nvme, controller, cntlid)?);
    }
    steps.extend(attributes(terms, pf, &terms.rest)?);
    Ok(steps)
}

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

fn pf_of<'a>(terms: &LeaseTerms, observed: &'a Observed) -> Result<&'a PfFacts, String> {
    card_of(terms.pf, &terms.anchor, observed)
}

/// The PF, all of which is known: of a namespace that did not answer nobody knows who has it.
fn card_of<'a>(pf: Bdf, anchor: &Anchor, observed: &'a Observed) -> Result<&'a PfFacts, String> {
    let facts = observed.pfs.get(&pf);
    let facts = facts.ok_or_else(|| format!("PF {pf} is gone"))?;
    if let Some(nvme) = facts.nvme() {
        let place = format!("dev/{}", nvme.controller);
        let mut unread = observed.unread.iter();
        let silent = unread.find(|one| one.bdf == Some(pf) && one.place == place);
        if let Some(silent) = silent {
            return Err(format!("{place} does not tell all: {}", silent.reason));
        }
    }
    if facts.anchor != *anchor {
        return Err(format!("another card is at {pf}"));
    }
    Ok(facts)
}

fn attributes(
    terms: &LeaseTerms,
    pf: &PfFacts,
    wanted: &NicAttributes,
) -> Result<Vec<Step>, String> {
    if *wanted == NicAttributes::default() && !terms.no_mac {
        return Ok(Vec::new());
    }
    let interface = pf.nic().and_then(|nic| nic.interface.clone());
    let interface = interface.ok_or_else(|| format!("PF {} has no network interface", terms.pf))?;
    let vf = pf.vfs.iter().find(|vf| vf.index == terms.index);
    let vf = vf.ok_or_else(|| format!("VF {} of {} is gone", terms.index, terms.pf))?;
    let is = vf.nic.ok_or_else(|| {
        format!(
            "{interface} does not tell what VF {} is set to",
            terms.index
        )
    })?;
    let steps = differing(&is, wanted, terms.no_mac).into_iter();
    Ok(steps
        .map(|(from, to)| Step::Attribute {
            pf: terms.pf,
            interface: interface.clone(),
            index: terms.index,
            from,
            to,
            stays: false,
        })
        .collect())
}

fn controller_of<'a>(
    terms: &LeaseTerms,
    pf: &'a PfFacts,
) -> Result<(&'a NvmeFacts, &'a str, u16), String> {
    let nvme = pf
        .nvme()
        .ok_or_else(|| format!("PF {} has no NVMe controller", terms.pf))?;
    let cntlid = terms
        .cntlid
        .ok_or_else(|| format!("VF {} of {} has no controller", terms.index, terms.pf))?;
    Ok((nvme, nvme.controller.as_str(), cntlid))
}

/// Online with its resources: a reset of the primary controller takes both.
fn online(
    terms: &LeaseTerms,
    nvme: &NvmeFacts,
    controller: &str,
    cntlid: u16,
) -> Result<Vec<Step>, String> {
    let Some((queues, vectors)) = terms.resources else {
        return Ok(Vec::new());
    };
    let is = nvme
        .secondaries
        .iter()
        .find(|secondary| secondary.cntlid == cntlid)
        .ok_or_else(|| format!("{controller} has no secondary controller {cntlid}"))?;
    if is.is_online && (is.queues, is.vectors) == (queues, vectors) {
        return Ok(Vec::new());
    }
    let (pf, controller) = (terms.pf, controller.to_owned());
    let mut steps = Vec::new();
    let mut has = (is.queues, is.vectors);
    if is.is_online {
        steps.push(Step::Offline {
            pf,
            controller: controller.clone(),
            cntlid,
            queues: has.0,
            vectors: has.1,
        });
        has = (0, 0);
    }
    for (resource, from, to) in [
        (ResourceKind::Vectors, has.1, vectors),
        (ResourceKind::Queues, has.0, queues),
    ] {
        if from != to {
            steps.push(Step::Assign {
                pf,
                controller: controller.clone(),
                cntlid,
                resource,
                from,
                to,
            });
        }
    }
    // The function's table of interrupts follows its vectors at a reset only.
    steps.push(Step::Reset {
        pf,
        index: terms.index,
        vf: Some(terms.vf),
    });
    steps.push(Step::Online {
        pf,
        controller,
        cntlid,
    });
    Ok(steps)
}

/// Takes from a controller what is attached to it, but for its lease's where `is_leased`.
fn detach_all(
    terms: &LeaseTerms,
    nvme: &NvmeFacts,
    controller: &str,
    cntlid: u16,
    is_leased: bool,
) -> Vec<Step> {
    let is_its = |nsid: u32| is_leased && terms.namespaces.iter().any(|its| its.nsid == nsid);
    let attached = nvme
        .namespaces
        .iter()
        .filter(|(nsid, namespace)| namespace.attached.contains(&cntlid) && !is_its(**nsid));
    attached
        .map(|(nsid, _)| detach(terms.pf, controller, *nsid, cntlid))
        .collect()
}

fn namespace_of<'a>(
    wanted: &LeasedNamespace,
    nvme: &'a NvmeFacts,
) -> Result<&'a Namespace, String> {
    let found = nvme.namespaces.get(&wanted.nsid);
    let found = found.ok_or_else(|| format!("namespace {} is gone", wanted.nsid))?;
    if found.id != wanted.id {
        return Err(format!("another namespace has the id {}", wanted.nsid));
    }
    Ok(found)
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
fn reformatted(wanted: &LeasedNamespace, is: &Namespace) -> String {
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

fn attach(pf: Bdf, controller: &str, nsid: u32, cntlid: u16) -> Step {
    Step::Attach {
        pf,
        controller: controller.to_owned(),
        nsid,
        cntlid,
    }
}

fn detach(pf: Bdf, controller: &str, nsid: u32, cntlid: u16) -> Step {
    Step::Detach {
        pf,
        controller: controller.to_owned(),
        nsid,
        cntlid,
    }
}
