//! What stands in the way of a change of a device that the host itself, or somebody else, uses. One row per interlock,
//! judged against the steps: a PF that no step touches is not judged.

use super::{
    check_nvme::secondary,
    diff::is_live,
    facts::{Observed, Use, Used, VfFacts},
    plan::{HostPlan, Pf},
    step::Step,
    tenure::Tenure,
};
use crate::{
    error::{ErrorId, Report},
    spec::host::{Interlock, Profile, Safety},
};

/// One interlock.
pub(super) struct Row {
    pub(super) interlock: Interlock,
    pub(super) id: ErrorId,
    /// What is the matter with the PF, after its address.
    pub(super) what: &'static str,
    pub(super) fix: &'static str,
    /// Whether `accept` of the `[[pf]]` takes it away.
    pub(super) is_acceptable: bool,
    /// Whether it holds for the host, by `[safety]`.
    pub(super) holds: fn(Safety) -> bool,
    /// The evidence; none where nothing stands in the way.
    pub(super) run: fn(&Judged<'_>) -> Vec<String>,
    /// Why it is one, and why it can or cannot be accepted.
    pub(super) reason: &'static str,
}

/// All interlocks, in the order in which they are reported.
pub(super) const ROWS: [Row; 11] = [
    Row {
        interlock: Interlock::PfAssigned,
        id: ErrorId::PfAssigned,
        what: "is itself given away",
        fix: "wait until it is back: `narrows ps` says who has it",
        is_acceptable: false,
        holds: always,
        run: assigned,
        reason: "its registers are a guest's",
    },
    Row {
        interlock: Interlock::VfInUse,
        id: ErrorId::VfInUse,
        what: "has VFs that guests have",
        fix: "stop the guests; `narrows vf return` ends a lease that is kept",
        is_acceptable: false,
        holds: always,
        run: in_use,
        reason: "a guest would lose its device while it runs, or what it was promised to keep",
    },
    Row {
        interlock: Interlock::VfHostUsed,
        id: ErrorId::VfHostUsed,
        what: "has VFs that this host works with itself",
        fix: "take addresses and routes off them first",
        is_acceptable: false,
        holds: always,
        run: host_used,
        reason: "somebody has set the VF up for the host, and no file of Narrows says so",
    },
    Row {
        interlock: Interlock::PfOnlyRoute,
        id: ErrorId::PfOnlyRoute,
        what: "carries the only default route of this host",
        fix: "work from a console, with `accept = [\"pf-only-route\"]` in the `[[pf]]`",
        is_acceptable: true,
        holds: route_holds,
        run: only_route,
        reason: "the host is off the network if the change fails; from a console that can be borne",
    },
    Row {
        interlock: Interlock::PfDefaultRoute,
        id: ErrorId::PfDefaultRoute,
        what: "carries a default route of this host",
        fix: "move the route away; or `accept = [\"pf-default-route\"]` in the `[[pf]]`, and apply with `--confirm-within`",
        is_acceptable: true,
        holds: route_holds,
        run: default_route,
        reason: "there is another one, so a moment without it can be borne",
    },
    Row {
        interlock: Interlock::PfLogin,
        id: ErrorId::PfLogin,
        what: "carries your login",
        fix: "log in by another way; or `accept = [\"pf-login\"]` in the `[[pf]]`, and apply with `--confirm-within`",
        is_acceptable: true,
        holds: login_holds,
        run: login,
        reason: "a change that fails could not be put right",
    },
    Row {
        interlock: Interlock::PfRootDisk,
        id: ErrorId::PfRootDisk,
        what: "has the root file system or the swap of this host",
        fix: "use another drive for guests",
        is_acceptable: false,
        holds: always,
        run: roots,
        reason: "there is no host after it",
    },
    Row {
        interlock: Interlock::PfMounted,
        id: ErrorId::PfMounted,
        what: "has a namespace that is mounted here",
        fix: "unmount it",
        is_acceptable: false,
        holds: disks_hold,
        run: mounts,
        reason: "a file system that loses its disk is damaged",
    },
    Row {
        interlock: Interlock::NamespaceOpen,
        id: ErrorId::NamespaceOpen,
        what: "has a namespace that is open here",
        fix: "stop the process, or the device made of it",
        is_acceptable: false,
        holds: disks_hold,
        run: open,
        reason: "what holds it goes on writing into what is a tenant's then",
    },
    Row {
        interlock: Interlock::ManagedElsewhere,
        id: ErrorId::ManagedElsewhere,
        what: "belongs to another manager of this host",
        fix: "take it out of that manager; or write `adopt = true` in the `[[pf]]`, where that one is to make the VFs",
        is_acceptable: true,
        holds: managers_hold,
        run: managed,
        reason: "two managers undo each other's work",
    },
    Row {
        interlock: Interlock::FactsUnread,
        id: ErrorId::FactsUnread,
        what: "cannot be judged",
        fix: "run as root; see what each place says",
        is_acceptable: false,
        holds: always,
        run: unread,
        reason: "a check that reads nothing has seen nothing",
    },
];

/// A PF with the steps that touch it.
pub(super) struct Judged<'a> {
    pf: &'a Pf<'a>,
    observed: &'a Observed,
    steps: Vec<&'a Step>,
}

impl Step {
    /// Whether the PF's own traffic stops while it is done.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a new step says so in its profile or not at all"
    )]
    #[must_use]
    pub fn is_interrupting(&self, profile: &Profile) -> bool {
        match self {
            Self::Destroy { .. } | Self::Create { .. } => profile.count.interrupts_pf,
            Self::Link { up, .. } => !up,
            _ => false,
        }
    }
}

/// Adds a refusal for each interlock that stands in the way of the plan's steps on this PF.
pub(super) fn judge(pf: &Pf<'_>, observed: &Observed, safety: Safety, plan: &mut HostPlan) {
    let bdf = pf.facts.bdf;
    let (mut crossed, mut refusals) = (Vec::new(), Vec::new());
    {
        let steps: Vec<&Step> = plan.steps.iter().filter(|step| step.pf() == bdf).collect();
        if steps.is_empty() {
            return;
        }
        let judged = Judged {
            pf,
            observed,
            steps,
        };
        for row in ROWS.iter().filter(|row| (row.holds)(safety)) {
            match row.is_acceptable && pf.wanted.accept.contains(&row.interlock) {
                true => crossed.extend(report(row, &judged)),
                false => refusals.extend(report(row, &judged)),
            }
        }
    }
    // The file that is applied says it itself; of a release nobody reads it.
    if pf.wanted.restored.is_some() {
        plan.warnings
            .extend(crossed.into_iter().map(|report| Report {
                fix: "nothing: the file that was applied accepts it".to_owned(),
                ..report
            }));
    }
    plan.refusals.extend(refusals);
}

fn report(row: &Row, judged: &Judged<'_>) -> Option<Report> {
    let mut evidence = (row.run)(judged).into_iter();
    let first = evidence.next()?;
    let name = judged
        .pf
        .facts
        .nic()
        .and_then(|nic| nic.interface.as_deref());
    let name = name.or_else(|| judged.pf.facts.nvme().map(|nvme| nvme.controller.as_str()));
    let bdf = judged.pf.facts.bdf;
    let what = match name {
        Some(name) => format!("{name} ({bdf}) {}", row.what),
        None => format!("{bdf} {}", row.what),
    };
    let report = Report::new(row.id, what, first, row.fix);
    let report = evidence.fold(report, Report::and).and(row.reason);
    Some(report.at(judged.pf.wanted.place.clone()))
}

fn always(_: Safety) -> bool {
    true
}

fn route_holds(safety: Safety) -> bool {
    safety.protect_default_route
}

fn login_holds(safety: Safety) -> bool {
    safety.protect_login
}

fn disks_hold(safety: Safety) -> bool {
    safety.protect_disks
}

fn managers_hold(safety: Safety) -> bool {
    safety.forbid_other_managers
}

impl Judged<'_> {
    fn interrupts(&self) -> bool {
        let profile = self.pf.profile;
        self.steps.iter().any(|step| step.is_interrupting(profile))
    }

    fn remakes(&self) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step, Step::Destroy { .. }))
    }

    /// Uses of the PF's own interface, where a step interrupts it.
    fn of_interface(&self, uses: &[Use]) -> Vec<String> {
        let name = self.pf.facts.nic().and_then(|nic| nic.interface.as_ref());
        match name {
            Some(name) if self.interrupts() => said(uses, |of| is_named(of, name)),
            _ => Vec::new(),
        }
    }

    /// Uses of the namespaces that the steps take from the host.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "three steps take a namespace away"
    )]
    fn of_disks(&self, uses: &[Use]) -> Vec<String> {
        let Some(nvme) = self.pf.facts.nvme() else {
            return Vec::new();
        };
        let all = self.interrupts();
        let taken: Vec<u32> = self
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Detach { nsid, cntlid, .. } if *cntlid == nvme.cntlid => Some(*nsid),
                Step::Erase { nsid, .. } | Step::NamespaceDelete { nsid, .. } => Some(*nsid),
                _ => None,
            })
            .collect();
        if !all && taken.is_empty() {
            return Vec::new();
        }
        said(uses, |of| match of {
            Used::Namespace { controller, nsid } => {
                *controller == nvme.controller && (all || taken.contains(nsid))
            }
            Used::Controller(controller) => *controller == nvme.controller,
            Used::Interface(_) => false,
        })
    }
}

fn said(uses: &[Use], is_meant: impl Fn(&Used) -> bool) -> Vec<String> {
    let meant = uses.iter().filter(|one| is_meant(&one.of));
    meant
        .map(|one| {
            let of = match &one.of {
                Used::Interface(name) | Used::Controller(name) => name.clone(),
                Used::Namespace { controller, nsid } => format!("namespace {nsid} of {controller}"),
            };
            format!("{of}: {} ({})", one.who, one.source)
        })
        .collect()
}

/// Whether a use is of the interface, or controller, of this name.
fn is_named(of: &Used, name: &str) -> bool {
    match of {
        Used::Interface(of) | Used::Controller(of) => of == name,
        Used::Namespace { controller, .. } => controller == name,
    }
}

fn assigned(on: &Judged<'_>) -> Vec<String> {
    let facts = on.pf.facts;
    let by_run = on.pf.records.running.get(&facts.bdf);
    let bound = facts.driver.as_deref() == Some("vfio-pci");
    bound
        .then(|| "it is bound to vfio-pci".to_owned())
        .into_iter()
        .chain(by_run.map(|guest| format!("{guest} has it")))
        .collect()
}

/// VFs that guests have and that a step would touch: all of them, where the PF's are made anew.
fn in_use(on: &Judged<'_>) -> Vec<String> {
    let remakes = on.remakes();
    let vfs = on.pf.facts.vfs.iter();
    vfs.filter_map(|vf| {
        let tenure = on.pf.tenure(vf);
        let touched = match &tenure {
            Tenure::Free | Tenure::Quarantined => false,
            Tenure::Kept(_) => remakes,
            Tenure::Running(_) | Tenure::Returning(_) => {
                remakes || on.steps.iter().any(|step| touches(step, on.pf, vf))
            }
        };
        let guest = tenure.guest().filter(|_| touched)?;
        let has = match tenure {
            Tenure::Returning(_) => "had it, and it is not clean yet",
            Tenure::Kept(_) => "keeps it",
            Tenure::Free | Tenure::Running(_) | Tenure::Quarantined => "has it",
        };
        Some(format!("VF {} ({}): {guest} {has}", vf.index, vf.bdf))
    })
    .collect()
}

/// Whether a step is about this VF, other than by an attribute that may change under a guest.
fn touches(step: &Step, pf: &Pf<'_>, vf: &VfFacts) -> bool {
    if let Step::Attribute { index, to, .. } = step {
        return *index == vf.index && !is_live(pf.profile, to.name());
    }
    if step.vf().is_some() {
        return step.vf() == Some(vf.index);
    }
    let own = pf.facts.nvme().and_then(|nvme| secondary(nvme, vf.index));
    step.cntlid().is_some() && step.cntlid() == own.map(|one| one.cntlid)
}

fn host_used(on: &Judged<'_>) -> Vec<String> {
    let uses = &on.observed.uses;
    let lists = [
        &uses.addresses,
        &uses.default_routes,
        &uses.routes,
        &uses.logins,
        &uses.uppers,
        &uses.roots,
        &uses.mounts,
        &uses.open,
    ];
    let remakes = on.remakes();
    let is_taken = |vf: &&VfFacts| {
        remakes
            || on.steps.iter().any(|step| {
                matches!(step, Step::Unbind { .. } | Step::Reset { .. })
                    && step.vf() == Some(vf.index)
            })
    };
    let taken = on.pf.facts.vfs.iter().filter(is_taken);
    taken
        .flat_map(|vf| vf.interfaces.iter())
        .flat_map(|name| {
            lists
                .iter()
                .flat_map(|uses| said(uses, |of| is_named(of, name)))
        })
        .collect()
}

fn default_route(on: &Judged<'_>) -> Vec<String> {
    if is_only_route(on) {
        return Vec::new();
    }
    on.of_interface(&on.observed.uses.default_routes)
}

fn only_route(on: &Judged<'_>) -> Vec<String> {
    if !is_only_route(on) {
        return Vec::new();
    }
    on.of_interface(&on.observed.uses.default_routes)
}

/// Whether all default routes are over this PF.
fn is_only_route(on: &Judged<'_>) -> bool {
    let name = on.pf.facts.nic().and_then(|nic| nic.interface.as_ref());
    let routes = &on.observed.uses.default_routes;
    name.is_some_and(|name| routes.iter().all(|route| is_named(&route.of, name)))
}

fn login(on: &Judged<'_>) -> Vec<String> {
    on.of_interface(&on.observed.uses.logins)
}

fn roots(on: &Judged<'_>) -> Vec<String> {
    on.of_disks(&on.observed.uses.roots)
}

fn mounts(on: &Judged<'_>) -> Vec<String> {
    on.of_disks(&on.observed.uses.mounts)
}

fn open(on: &Judged<'_>) -> Vec<String> {
    on.of_disks(&on.observed.uses.open)
}

fn managed(on: &Judged<'_>) -> Vec<String> {
    // A release puts back what the other manager had made.
    if on.pf.wanted.adopt || on.pf.wanted.restored.is_some() {
        return Vec::new();
    }
    let facts = on.pf.facts;
    let is_ours = |bdf| bdf == facts.bdf || facts.vfs.iter().any(|vf| vf.bdf == bdf);
    let managers = on.observed.managers.iter();
    managers
        .filter(|one| is_ours(one.bdf))
        .map(|one| match one.count {
            Some(count) => format!("{} wants {count} VFs ({})", one.manager, one.source),
            None => format!("{} names {} ({})", one.manager, one.bdf, one.source),
        })
        .collect()
}

fn unread(on: &Judged<'_>) -> Vec<String> {
    let bdf = on.pf.facts.bdf;
    let places = on.observed.unread.iter();
    places
        .filter(|one| one.bdf.is_none_or(|of| of == bdf))
        .map(|one| format!("{}: {}", one.place, one.reason))
        .collect()
}
