//! Which PF of the machine each `[[pf]]` of the file means.

use std::collections::BTreeMap;

use iommu::bdf::Bdf;

use super::facts::{KindFacts, Observed, PfFacts};
use crate::{
    error::{ErrorId, Report},
    spec::{
        host::{HostSpec, Kind, PfMatch, PfSpec, Profile, Profiles},
        nearest,
    },
};

/// A `[[pf]]`, the PF that it means, and what is known of its family.
pub(super) type Matched<'a> = (&'a PfSpec, &'a PfFacts, &'a Profile);

/// All `[[pf]]` that mean exactly one PF, and what is wrong with the others.
pub(super) fn pfs<'a>(
    spec: &'a HostSpec,
    observed: &'a Observed,
    profiles: &'a Profiles,
) -> (Vec<Matched<'a>>, Vec<Report>) {
    let mut matched: BTreeMap<Bdf, Matched<'a>> = BTreeMap::new();
    let mut problems = Vec::new();
    for pf in &spec.pfs {
        let facts = match the_one(pf, observed, profiles) {
            Ok(facts) => facts,
            Err(report) => {
                problems.push(*report);
                continue;
            }
        };
        if let Some((first, ..)) = matched.get(&facts.bdf) {
            let what = format!("{} and {} are one PF", first.match_by, pf.match_by);
            let why = format!(
                "both mean {}; the first is in line {}",
                facts.bdf, first.place.line
            );
            let fix = "say all of it in one `[[pf]]`";
            let report = Report::new(ErrorId::PfListedTwice, what, why, fix);
            problems.push(report.at(Some(pf.place.clone())));
            continue;
        }
        let wanted = pf.pools.values().find_map(|of| spec.pool(&of.name));
        let kind = kind_of(facts)
            .or_else(|| wanted.map(crate::spec::host::Pool::kind))
            .unwrap_or(Kind::Nic);
        let named = pf.profile.as_ref().map(|(name, _)| name.as_str());
        let profile = profile_of(named, facts, kind, profiles);
        matched.insert(facts.bdf, (pf, facts, profile));
    }
    (matched.into_values().collect(), problems)
}

/// What a PF is, as far as its driver lets it be seen.
pub(super) fn kind_of(facts: &PfFacts) -> Option<Kind> {
    match facts.kind {
        KindFacts::Nic(_) => Some(Kind::Nic),
        KindFacts::Nvme(_) => Some(Kind::Nvme),
        KindFacts::Other => None,
    }
}

/// The profile of a PF, by name or by what it is.
pub(super) fn profile_of<'a>(
    name: Option<&str>,
    facts: &PfFacts,
    kind: Kind,
    profiles: &'a Profiles,
) -> &'a Profile {
    let ids = (facts.vendor, facts.device);
    profiles.of(name, facts.driver.as_deref(), ids, kind)
}

fn the_one<'a>(
    pf: &PfSpec,
    observed: &'a Observed,
    profiles: &Profiles,
) -> Result<&'a PfFacts, Box<Report>> {
    let all = observed.pfs.values();
    let found: Vec<&PfFacts> = all.filter(|facts| means(pf, facts, profiles)).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(Box::new(absent(pf, observed))),
        several => {
            let names: Vec<String> = several.iter().map(|facts| in_words(facts)).collect();
            let report = Report::new(
                ErrorId::PfAmbiguous,
                format!("{} is {} PFs of this host", pf.match_by, several.len()),
                names.join(", "),
                "name the one that is meant by `bdf`",
            );
            Err(Box::new(report.at(Some(pf.place.clone()))))
        }
    }
}

fn means(pf: &PfSpec, facts: &PfFacts, profiles: &Profiles) -> bool {
    match &pf.match_by {
        PfMatch::Bdf(bdf) => facts.bdf == *bdf,
        PfMatch::Interface(name) => interface(facts) == Some(name),
        PfMatch::Serial(serial) => facts.nvme().is_some_and(|nvme| nvme.serial == *serial),
        PfMatch::Port { profile, port } => {
            let Some(kind) = kind_of(facts) else {
                return false;
            };
            let of_card = || u32::from(facts.bdf.function());
            let own = facts.nic().and_then(|nic| nic.port).unwrap_or_else(of_card);
            // Drivers that give each port a function of its own number them all 0.
            let is_port = own == *port || (own == 0 && of_card() == *port);
            is_port && profile_of(None, facts, kind, profiles).name == *profile
        }
    }
}

fn interface(facts: &PfFacts) -> Option<&String> {
    facts.nic().and_then(|nic| nic.interface.as_ref())
}

/// A PF that is not there, with those that may be meant.
fn absent(pf: &PfSpec, observed: &Observed) -> Report {
    let all: Vec<String> = observed.pfs.values().map(in_words).collect();
    let why = match all.is_empty() {
        true => "no function of this host has an SR-IOV capability".to_owned(),
        false => format!("there are: {}", all.join(", ")),
    };
    let wanted = match &pf.match_by {
        PfMatch::Bdf(bdf) => bdf.to_string(),
        PfMatch::Interface(name) => name.clone(),
        PfMatch::Serial(serial) => serial.clone(),
        PfMatch::Port { profile, .. } => profile.clone(),
    };
    let names: Vec<String> = observed
        .pfs
        .values()
        .filter_map(|facts| match &pf.match_by {
            PfMatch::Bdf(_) => Some(facts.bdf.to_string()),
            PfMatch::Interface(_) => interface(facts).cloned(),
            PfMatch::Serial(_) => facts.nvme().map(|nvme| nvme.serial.clone()),
            PfMatch::Port { .. } => None,
        })
        .collect();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let fix = match nearest(&wanted, &known) {
        Some(near) => format!("did you mean {near}?"),
        None => {
            "see `narrows inventory`; a PF needs its driver to have an interface or a serial number"
                .to_owned()
        }
    };
    let what = format!("{} is no PF of this host", pf.match_by);
    Report::new(ErrorId::PfAbsent, what, why, fix).at(Some(pf.place.clone()))
}

fn in_words(facts: &PfFacts) -> String {
    let name = match &facts.kind {
        KindFacts::Nic(nic) => nic.interface.clone(),
        KindFacts::Nvme(nvme) => Some(format!("{}, serial {}", nvme.controller, nvme.serial)),
        KindFacts::Other => None,
    };
    let name = name.or_else(|| facts.driver.clone());
    let name = name.unwrap_or_else(|| "no driver".to_owned());
    format!("{} ({name})", facts.bdf)
}
