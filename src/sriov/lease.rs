//! What is to be done to a VF so that it is as a lease says, or as its pool rests: read from the machine, so that asking
//! again after the half of it was done gives the other half, and nothing once all is done.

use iommu::bdf::Bdf;

use super::{
    attributes::differing,
    dirt::reformatted,
    facts::{Anchor, Namespace, NicAttributes, NvmeFacts, Observed, PfFacts},
    step::{ResourceKind, Step},
    terms::{LeaseTerms, LeasedNamespace},
};

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

pub(super) fn pf_of<'a>(terms: &LeaseTerms, observed: &'a Observed) -> Result<&'a PfFacts, String> {
    card_of(terms.pf, &terms.anchor, observed)
}

/// The PF, all of which is known: of a namespace that did not answer nobody knows who has it.
pub(super) fn card_of<'a>(
    pf: Bdf,
    anchor: &Anchor,
    observed: &'a Observed,
) -> Result<&'a PfFacts, String> {
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

pub(super) fn namespace_of<'a>(
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

pub(super) fn attach(pf: Bdf, controller: &str, nsid: u32, cntlid: u16) -> Step {
    Step::Attach {
        pf,
        controller: controller.to_owned(),
        nsid,
        cntlid,
    }
}

pub(super) fn detach(pf: Bdf, controller: &str, nsid: u32, cntlid: u16) -> Step {
    Step::Detach {
        pf,
        controller: controller.to_owned(),
        nsid,
        cntlid,
    }
}
