//! The verdicts that an operator asked for: of the host, and of which functions.

use iommu::{
    bdf::Bdf,
    isolation::{CheckId, Finding, Verdict, judge_function, judge_host, worst},
    topology::{Function, Topology},
};

use super::words::Kind;
use crate::{
    error::{ErrorId, Report},
    spec::nearest,
};

/// Which functions to judge.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// These and no others; empty for all that are meant to be assigned.
    pub named: Vec<Bdf>,
    /// Every function but bridges, for whatever it is.
    pub is_all: bool,
}

/// What a PF that has no VFs yet is not asked unless it is named: nobody wants to assign it, and what remains (its
/// group, the way above it, its firmware) will be true of its VFs.
const OF_ITSELF: [CheckId; 4] = [
    CheckId::DeviceNotAVf,
    CheckId::DeviceHostDriver,
    CheckId::DriverOverrideSet,
    CheckId::BusMasterOn,
];

/// What was found.
#[derive(Clone, Debug)]
pub struct Examination {
    /// About the host as a whole.
    pub host: Vec<Finding>,
    /// About each function: the VFs of a PF together, or in the order asked for.
    pub devices: Vec<Judged>,
    /// Whether the functions were asked for by name.
    pub is_named: bool,
}

/// One function and what was found.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Its address.
    pub bdf: Bdf,
    /// Whether it is a VF.
    pub is_vf: bool,
    /// Everything that was checked.
    pub findings: Vec<Finding>,
    /// Why no guest may have it whatever the checks say: it is in quarantine, or a dead run has not given it back.
    pub quarantine: Option<Report>,
}

/// Judges the host, then each function as if it alone were to be assigned to a guest.
///
/// Without any IOMMU no function is judged unless the wish says so: nothing could be said of them but that.
/// `quarantine` knows which functions no guest may have.
///
/// # Errors
///
/// `device-absent`: a named function is not there.
pub fn examine(
    topology: &Topology,
    wish: &Wish,
    quarantine: impl Fn(Bdf) -> Option<Report>,
) -> Result<Examination, Vec<Report>> {
    let absent: Vec<Report> = wish
        .named
        .iter()
        .filter(|bdf| !topology.functions.contains_key(bdf))
        .map(|bdf| absent(topology, *bdf))
        .collect();
    if !absent.is_empty() {
        return Err(absent);
    }
    let mut wanted: Vec<&Function> = match wish.named.as_slice() {
        [] => topology
            .functions
            .values()
            .filter(|function| is_meant(topology, wish, function))
            .collect(),
        named => named
            .iter()
            .filter_map(|bdf| topology.functions.get(bdf))
            .collect(),
    };
    if wish.named.is_empty() {
        // VFs of two PFs may take turns on one bus.
        wanted.sort_by_key(|function| (function.physfn.unwrap_or(function.bdf), function.bdf));
    }
    let is_explicit = wish.is_all || !wish.named.is_empty();
    let devices = wanted.into_iter().map(|function| {
        let mut findings = judge_function(topology, function.bdf, &[function.bdf]);
        if !is_explicit && function.physfn.is_none() {
            findings.retain(|finding| !OF_ITSELF.contains(&finding.check));
        }
        Judged {
            bdf: function.bdf,
            is_vf: function.physfn.is_some(),
            findings,
            quarantine: quarantine(function.bdf),
        }
    });
    Ok(Examination {
        host: judge_host(topology),
        devices: devices.collect(),
        is_named: !wish.named.is_empty(),
    })
}

/// Whether a function is judged that was not named: VFs, and PFs that have none yet.
fn is_meant(topology: &Topology, wish: &Wish, function: &Function) -> bool {
    let kind = Kind::of(function);
    if wish.is_all {
        return !matches!(kind, Kind::Bridge(_));
    }
    if topology.iommus.is_empty() && topology.groups.is_empty() {
        return false;
    }
    match kind {
        Kind::Vf => true,
        Kind::Pf => function
            .sriov
            .is_some_and(|s| s.enabled == 0 && s.total > 0),
        Kind::Bridge(_) | Kind::Device => false,
    }
}

fn absent(topology: &Topology, bdf: Bdf) -> Report {
    let names: Vec<String> = topology.functions.keys().map(Bdf::to_string).collect();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let fix = match nearest(&bdf.to_string(), &known) {
        Some(near) => format!("did you mean {near}? `narrows inventory` lists all functions"),
        None => "`narrows inventory` lists all functions".to_owned(),
    };
    Report::new(
        ErrorId::DeviceAbsent,
        format!("function {bdf} does not exist"),
        format!("/sys/bus/pci/devices has no {bdf}"),
        fix,
    )
}

impl Judged {
    /// The worst of its findings; refused where it is in quarantine.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.quarantine {
            Some(_) => Verdict::Refuse,
            None => worst(&self.findings),
        }
    }
}

impl Examination {
    /// The worst finding about the host.
    #[must_use]
    pub fn host_verdict(&self) -> Verdict {
        worst(&self.host)
    }

    /// Refused where the host is, a function that was asked for by name is, or every VF that exists is; else the
    /// worst of what remains usable, and at least a warning where a function is refused.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let verdicts = || self.devices.iter().map(Judged::verdict);
        let is_refused = |judged: &&Judged| judged.verdict() == Verdict::Refuse;
        let vfs = self.devices.iter().filter(|judged| judged.is_vf);
        let refused_vfs = vfs.clone().filter(is_refused).count();
        let has_none_left = refused_vfs > 0 && refused_vfs == vfs.count();
        let has_refused = verdicts().any(|verdict| verdict == Verdict::Refuse);
        if self.host_verdict() == Verdict::Refuse || has_none_left || self.is_named && has_refused {
            return Verdict::Refuse;
        }
        let of_refused = |verdict: Verdict| verdict.min(Verdict::Warn);
        verdicts()
            .map(of_refused)
            .fold(self.host_verdict(), Verdict::max)
    }
}
