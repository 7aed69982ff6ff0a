//! What is to be done to a VF so that it is as a lease says, or as its pool rests: read from the machine, so that asking
//! again after the half of it was done gives the other half, and nothing once all is done.

use iommu::topology::VlanProto;

use super::{
    choose::{LeaseTerms, LeasedNamespace},
    facts::{Namespace, NicAttributes, NvmeFacts, Observed, PfFacts},
    step::{AttributeValue, EraseHow, ResourceKind, Step},
};
use crate::spec::host::{Eraser, Mbps};

/// The words that `is` has different from `wanted`, each as it is and as it should be, in the order in which they are set:
/// what protects others first. What the driver does not tell is set only where something else than nothing is wanted.
pub(super) fn differing(
    is: &NicAttributes,
    wanted: &NicAttributes,
) -> Vec<(Option<AttributeValue>, AttributeValue)> {
    use AttributeValue::{Mac, QueryRss, Rate, Spoofchk, State, Trust, Vlan};
    let rate = |of: &NicAttributes| match (of.min_tx, of.max_tx) {
        (None, None) => None,
        (min, max) => Some(Rate {
            min: min.unwrap_or_default(),
            max: max.unwrap_or_default(),
        }),
    };
    // An address of zeros reads as none, and none is what is left alone.
    let mac = |of: &NicAttributes| Some(Mac(of.mac));
    let pairs = [
        (is.spoofchk.map(Spoofchk), wanted.spoofchk.map(Spoofchk)),
        (is.trust.map(Trust), wanted.trust.map(Trust)),
        (is.query_rss.map(QueryRss), wanted.query_rss.map(QueryRss)),
        (mac(is), wanted.mac.map(|mac| Mac(Some(mac)))),
        (is.vlan.map(Vlan), wanted.vlan.map(Vlan)),
        (rate(is), rate(wanted)),
        (is.state.map(State), wanted.state.map(State)),
    ];
    let differ = pairs
        .into_iter()
        .filter_map(|(is, to)| Some((is, to?)))
        .filter(|(is, to)| match is {
            Some(is) => !is_same(is, to),
            None => !is_nothing(to),
        });
    differ.collect()
}

/// Whether two values are one for the NIC: without a VLAN, its protocol says nothing.
fn is_same(is: &AttributeValue, to: &AttributeValue) -> bool {
    match (is, to) {
        (AttributeValue::Vlan(is), AttributeValue::Vlan(to)) if to.id == 0 => is.id == 0,
        (is, to) => is == to,
    }
}

/// Whether a value asks for nothing: a driver that does not know the word has nothing to set.
fn is_nothing(value: &AttributeValue) -> bool {
    match value {
        AttributeValue::Trust(on) | AttributeValue::QueryRss(on) => !on,
        AttributeValue::Vlan(vlan) => vlan.id == 0 && vlan.proto == VlanProto::Dot1Q,
        AttributeValue::Rate { min, max } => (*min, *max) == (Mbps(0), Mbps(0)),
        AttributeValue::State(state) => *state == iommu::topology::LinkPolicy::Auto,
        AttributeValue::Mac(mac) => mac.is_none(),
        // A check that cannot be read is not there: that is for somebody to see.
        AttributeValue::Spoofchk(_) => false,
    }
}

/// The host file's word for an attribute.
pub(super) const fn word(value: &AttributeValue) -> &'static str {
    match value {
        AttributeValue::Spoofchk(_) => "spoofchk",
        AttributeValue::Trust(_) => "trust",
        AttributeValue::QueryRss(_) => "query_rss",
        AttributeValue::Mac(_) => "mac",
        AttributeValue::Vlan(_) => "vlan",
        AttributeValue::Rate { .. } => "tx_rate",
        AttributeValue::State(_) => "state",
    }
}

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
            if let Some(other) = others.clone().next()
                && !namespace.is_shared
            {
                return Err(format!(
                    "namespace {} of {controller} is attached to controller {other}",
                    wanted.nsid
                ));
            }
            if !namespace.attached.contains(&cntlid) {
                steps.push(attach(terms, controller, wanted.nsid, cntlid));
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
        steps.extend(left.map(|its| detach(terms, controller, its.nsid, nvme.cntlid)));
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
pub fn to_erase(
    terms: &LeaseTerms,
    wanted: &LeasedNamespace,
    observed: &Observed,
) -> Result<Vec<Step>, String> {
    let pf = pf_of(terms, observed)?;
    let nvme = pf.nvme().ok_or("the PF is no NVMe controller any more")?;
    let controller = nvme.controller.as_str();
    let namespace = namespace_of(wanted, nvme)?;
    let lacks = |what| format!("{controller} has no {what}");
    let mut how = EraseHow::of(terms.erase, nvme.can).map_err(lacks)?;
    if namespace.format() != wanted.format {
        let by_format = EraseHow::of(Eraser::Format, nvme.can).map_err(|what| {
            let reason = reformatted(wanted, namespace);
            format!("{reason}, which nothing restores: {}", lacks(what))
        })?;
        how = how.or(by_format);
    }
    let Some(how) = how else {
        return Ok(Vec::new());
    };
    let mut steps = Vec::new();
    let others = namespace.attached.iter().filter(|id| **id != nvme.cntlid);
    for other in others {
        steps.push(detach(terms, controller, wanted.nsid, *other));
    }
    if !namespace.attached.contains(&nvme.cntlid) {
        steps.push(attach(terms, controller, wanted.nsid, nvme.cntlid));
    }
    steps.push(Step::Erase {
        pf: terms.pf,
        controller: controller.to_owned(),
        nsid: wanted.nsid,
        how,
        block: wanted.format.block,
    });
    steps.push(detach(terms, controller, wanted.nsid, nvme.cntlid));
    Ok(steps)
}

fn pf_of<'a>(terms: &LeaseTerms, observed: &'a Observed) -> Result<&'a PfFacts, String> {
    let pf = observed.pfs.get(&terms.pf);
    let pf = pf.ok_or_else(|| format!("PF {} is gone", terms.pf))?;
    if pf.anchor != terms.anchor {
        return Err(format!("another card is at {}", terms.pf));
    }
    Ok(pf)
}

fn attributes(
    terms: &LeaseTerms,
    pf: &PfFacts,
    wanted: &NicAttributes,
) -> Result<Vec<Step>, String> {
    if *wanted == NicAttributes::default() {
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
    let steps = differing(&is, wanted).into_iter();
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
        .map(|(nsid, _)| detach(terms, controller, *nsid, cntlid))
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

/// The namespaces of a lease whose format is another than they should have: those that it has alone.
#[must_use]
pub fn changed_formats(terms: &LeaseTerms, observed: &Observed) -> Vec<LeasedNamespace> {
    let nvme = observed.pfs.get(&terms.pf).and_then(PfFacts::nvme);
    let Some(nvme) = nvme else { return Vec::new() };
    let is_changed = |wanted: &&LeasedNamespace| {
        namespace_of(wanted, nvme).is_ok_and(|is| is.format() != wanted.format)
    };
    terms
        .namespaces
        .iter()
        .filter(is_changed)
        .cloned()
        .collect()
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
pub fn check_format(
    terms: &LeaseTerms,
    wanted: &LeasedNamespace,
    observed: &Observed,
) -> Result<(), String> {
    let nvme = pf_of(terms, observed)?.nvme();
    let nvme = nvme.ok_or("the PF is no NVMe controller any more")?;
    let is = namespace_of(wanted, nvme)?;
    match is.format() == wanted.format {
        true => Ok(()),
        false => Err(reformatted(wanted, is)),
    }
}

fn attach(terms: &LeaseTerms, controller: &str, nsid: u32, cntlid: u16) -> Step {
    Step::Attach {
        pf: terms.pf,
        controller: controller.to_owned(),
        nsid,
        cntlid,
    }
}

fn detach(terms: &LeaseTerms, controller: &str, nsid: u32, cntlid: u16) -> Step {
    Step::Detach {
        pf: terms.pf,
        controller: controller.to_owned(),
        nsid,
        cntlid,
    }
}
