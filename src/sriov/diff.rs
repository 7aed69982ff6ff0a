//! What is to change on one PF: the number of its VFs, and what each is held to. Unordered; `order` sorts.

use super::{
    desired::{DesiredVf, WithoutMac},
    diff_nvme,
    facts::{NicAttributes, VfFacts},
    plan::{Destroyed, Held, HostPlan, Later, Pending, Pf},
    step::{AttributeName, AttributeValue, Step},
    tenure::Tenure,
    wish::{RESTING, can_set},
};
use crate::{
    error::{ErrorId, Report},
    spec::host::Profile,
};

/// All changes of one PF.
pub(super) fn changes(pf: &Pf<'_>, plan: &mut HostPlan) {
    let (facts, wanted) = (pf.facts, pf.wanted);
    if wanted.count > facts.total {
        plan.pending.push(Pending {
            pf: facts.bdf,
            what: format!(
                "{} VFs need a setting of the firmware and a reboot: it offers {}",
                wanted.count, facts.total
            ),
        });
    }
    let count = Count::of(pf);
    link(pf, &count, plan);
    if count.is_remade() {
        remake(pf, &count, plan);
    }
    if count.is_adopted_short {
        plan.refusals.push(adopted_short(pf));
    }
    for vf in wanted.vfs.iter().filter(|vf| vf.index < count.to) {
        let is = facts.vfs.iter().find(|is| is.index == vf.index);
        let is = is.filter(|_| !count.is_remade());
        attributes(pf, vf, is, plan);
        let is_reset = diff_nvme::controller(pf, vf, is, plan);
        functions(pf, vf, is, is_reset, plan);
    }
    diff_nvme::namespaces(pf, plan);
}

/// How many VFs there are, and are to be.
struct Count {
    from: u32,
    to: u32,
    /// Another manager has made fewer than the file wants.
    is_adopted_short: bool,
}

impl Count {
    fn of(pf: &Pf<'_>) -> Self {
        let (from, to) = (pf.facts.count, pf.wanted.count.min(pf.facts.total));
        // What another manager made keeps its number: it would put it back.
        if pf.wanted.adopt && from > 0 {
            return Self {
                from,
                to: from,
                is_adopted_short: from < to,
            };
        }
        Self {
            from,
            to,
            is_adopted_short: false,
        }
    }

    fn is_remade(&self) -> bool {
        self.from != self.to
    }
}

fn adopted_short(pf: &Pf<'_>) -> Report {
    Report::new(
        ErrorId::VfsOvercommitted,
        format!("{} has fewer VFs than the file wants", pf.facts.bdf),
        format!(
            "another manager made {}, the file says {} and `adopt`",
            pf.facts.count, pf.wanted.count
        ),
        "let the other manager make more, or leave `adopt` out",
    )
    .at(pf.wanted.place.clone())
}

fn link(pf: &Pf<'_>, count: &Count, plan: &mut HostPlan) {
    let bdf = pf.facts.bdf;
    if let Some(nic) = pf.facts.nic()
        && let Some(interface) = &nic.interface
    {
        let down_again = pf.wanted.restored.is_some() && !pf.wanted.up && nic.is_up;
        if (pf.wanted.up && !nic.is_up) || down_again {
            plan.steps.push(Step::Link {
                pf: bdf,
                interface: interface.clone(),
                up: !nic.is_up,
            });
        }
    }
    let makes = count.is_remade() && count.to > 0;
    // New VFs are nobody's yet, whoever makes them.
    let to = pf
        .wanted
        .is_probed
        .or((pf.wanted.adopt && makes).then_some(false));
    if let (Some(from), Some(to)) = (pf.facts.is_probed, to)
        && from != to
    {
        plan.steps.push(Step::Autoprobe { pf: bdf, from, to });
    }
}

/// From one number of VFs to another: the kernel goes by 0 only.
fn remake(pf: &Pf<'_>, count: &Count, plan: &mut HostPlan) {
    let facts = pf.facts;
    let interface = facts.nic().and_then(|nic| nic.interface.clone());
    if count.from > 0 {
        let known = fresh(pf.profile);
        let snapshot = facts.vfs.iter().filter_map(|vf| vf.nic);
        plan.steps.push(Step::Destroy {
            pf: facts.bdf,
            count: count.from,
            snapshot: snapshot
                .map(|nic| worth_keeping(nic, known, pf.profile))
                .collect(),
            interface: interface.clone(),
            drive: diff_nvme::given(pf).map(Box::new),
        });
        plan.destroyed.push(Destroyed {
            pf: facts.bdf,
            what: lost(pf, count),
        });
    }
    if count.to > 0 {
        plan.steps.push(Step::Create {
            pf: facts.bdf,
            count: count.to,
            snapshot: Vec::new(),
            interface,
        });
    }
}

fn lost(pf: &Pf<'_>, count: &Count) -> String {
    let name = pf.facts.nic().and_then(|nic| nic.interface.clone());
    let name = name.unwrap_or_else(|| pf.facts.bdf.to_string());
    let vfs: Vec<String> = pf
        .facts
        .vfs
        .iter()
        .map(|vf| {
            let who = match pf.tenure(vf) {
                Tenure::Free => "free".to_owned(),
                Tenure::Kept(guest) => format!("{guest} keeps it"),
                Tenure::Running(guest) => format!("{guest} has it"),
                Tenure::Returning(guest) => format!("{guest} had it, it is not clean yet"),
                Tenure::Quarantined => "in quarantine".to_owned(),
            };
            format!("{} ({who})", vf.index)
        })
        .collect();
    format!(
        "changing the VFs of {name} from {} to {} destroys all {}: {}",
        count.from,
        count.to,
        count.from,
        vfs.join(", ")
    )
}

/// What is known of new VFs: nothing, where the family keeps settings over a change of the number.
fn fresh(profile: &Profile) -> Option<NicAttributes> {
    if !profile.count.destroys_all {
        return None;
    }
    // Spoof check and trust start as the driver likes: they are always set.
    let known = RESTING.into_iter().filter(|value| {
        !matches!(
            value,
            AttributeValue::Spoofchk(_) | AttributeValue::Trust(_)
        )
    });
    Some(known.fold(NicAttributes::default(), NicAttributes::with))
}

/// What has to be set again on VFs that are made again.
fn worth_keeping(
    is: NicAttributes,
    known: Option<NicAttributes>,
    profile: &Profile,
) -> NicAttributes {
    let values = AttributeName::ALL.iter().filter_map(|name| is.value(*name));
    values
        .filter(|value| can_set(&profile.attributes, *value))
        .filter(|value| known.and_then(|known| known.value(value.name())) != Some(*value))
        .fold(NicAttributes::default(), NicAttributes::with)
}

/// One change of an attribute.
pub(super) struct Change {
    pub(super) from: Option<AttributeValue>,
    pub(super) to: AttributeValue,
}

/// What differs between what a VF is held to and what it is to be held to. What the driver does not tell cannot differ.
pub(super) fn differences(
    is: NicAttributes,
    to: NicAttributes,
    without: WithoutMac,
    profile: &Profile,
) -> Vec<Change> {
    let wanted = AttributeName::ALL.iter().filter_map(|name| to.value(*name));
    wanted
        .filter(|value| *value != AttributeValue::Mac(None) || without == WithoutMac::Clear)
        .filter(|value| can_set(&profile.attributes, *value))
        .filter_map(|to| {
            let from = is.value(to.name())?;
            (from != to).then_some(Change {
                from: Some(from),
                to,
            })
        })
        .collect()
}

/// What has to be set on a VF that is not there yet.
fn first_settings(to: NicAttributes, without: WithoutMac, profile: &Profile) -> Vec<Change> {
    let known = fresh(profile);
    let wanted = AttributeName::ALL.iter().filter_map(|name| to.value(*name));
    wanted
        .filter(|value| *value != AttributeValue::Mac(None) || without == WithoutMac::Clear)
        .filter(|value| known.and_then(|known| known.value(value.name())) != Some(*value))
        .map(|to| Change { from: None, to })
        .collect()
}

fn attributes(pf: &Pf<'_>, vf: &DesiredVf, is: Option<&VfFacts>, plan: &mut HostPlan) {
    let Some(nic) = pf.facts.nic() else { return };
    let tenure = is.map_or(Tenure::Free, |is| pf.tenure(is));
    let changes = match (&tenure, is) {
        (Tenure::Quarantined | Tenure::Returning(_), _) => return,
        (Tenure::Running(_), Some(is)) => {
            let read = is.nic.unwrap_or_default();
            differences(read, vf.leased, WithoutMac::Leave, pf.profile)
        }
        (_, Some(is)) => differences(
            is.nic.unwrap_or_default(),
            vf.rest,
            vf.without_mac,
            pf.profile,
        ),
        (_, None) => first_settings(vf.rest, vf.without_mac, pf.profile),
    };
    if vf.without_mac == WithoutMac::Later && tenure.is_at_rest() {
        plan.later.push(Later {
            pf: pf.facts.bdf,
            index: vf.index,
        });
    }
    if changes.is_empty() {
        return;
    }
    let Some(interface) = &nic.interface else {
        let hidden = hidden(pf);
        if !plan.refusals.contains(&hidden) {
            plan.refusals.push(hidden);
        }
        return;
    };
    for Change { from, to } in changes {
        let step = Step::Attribute {
            pf: pf.facts.bdf,
            interface: interface.clone(),
            index: vf.index,
            from,
            to,
            stays: from == Some(AttributeValue::Mac(None)) && !pf.profile.attributes.clear_mac,
        };
        match (&tenure, is) {
            (Tenure::Running(guest), Some(is)) if !is_live(pf.profile, to.name()) => {
                plan.held.push(Held {
                    vf: is.bdf,
                    guest: guest.clone(),
                    what: step.to_string(),
                });
            }
            _ => plan.steps.push(step),
        }
    }
}

/// Whether an attribute may be set while a guest has the VF.
pub(super) fn is_live(profile: &Profile, name: AttributeName) -> bool {
    let rules = &profile.attributes;
    rules.live.contains(&name) && !rules.reset_by.contains(&name)
}

fn hidden(pf: &Pf<'_>) -> Report {
    Report::new(
        ErrorId::FactsUnread,
        format!("the VFs of {} cannot be set", pf.facts.bdf),
        "its interface is in no place where it can be seen: another network namespace has it, or it has no driver",
        "bring the interface into this network namespace, or bind the PF to its driver",
    )
    .at(pf.wanted.place.clone())
}

/// Frees a VF from the host's drivers, and proves that it is as after a reset.
fn functions(
    pf: &Pf<'_>,
    vf: &DesiredVf,
    is: Option<&VfFacts>,
    is_reset: bool,
    plan: &mut HostPlan,
) {
    let bdf = pf.facts.bdf;
    if let (Some(restored), Some(is)) = (&pf.wanted.restored, is)
        && let Some(driver) = restored.drivers.get(&vf.index)
        && is.driver.is_none()
        && pf.tenure(is).is_at_rest()
    {
        plan.steps.push(Step::Bind {
            pf: bdf,
            index: vf.index,
            vf: is.bdf,
            driver: driver.clone(),
        });
    }
    if vf.pool.is_none() {
        return;
    }
    let reset = Step::Reset {
        pf: bdf,
        index: vf.index,
        vf: is.map(|is| is.bdf),
    };
    let Some(is) = is else {
        if !is_reset {
            plan.steps.push(reset);
        }
        return;
    };
    match pf.tenure(is) {
        Tenure::Free => {}
        // Its guest is off, and in this boot nobody has reset it yet: VFs that are adopted are there before the first apply.
        Tenure::Kept(_) if !pf.is_proven(is) => {}
        Tenure::Kept(_) | Tenure::Running(_) | Tenure::Returning(_) | Tenure::Quarantined => return,
    }
    let is_ours = pf.wanted.adopt || pf.wanted.is_probed == Some(false);
    let driver = is
        .driver
        .as_deref()
        .filter(|name| *name != "vfio-pci" && is_ours);
    if let Some(driver) = driver {
        plan.steps.push(Step::Unbind {
            pf: bdf,
            index: vf.index,
            vf: is.bdf,
            driver: driver.to_owned(),
        });
    }
    if !is_reset && (driver.is_some() || !pf.is_proven(is)) {
        plan.steps.push(reset);
    }
}
