//! What changes of the host have left half done, and VFs that no run gave back and no journal tells of.

use iommu::{bind, sysfs::SysRoot};

use super::{Asked, Recovered};
use crate::{
    error::Report,
    state::{HostRemains, State},
    supervisor::{log::Log, release::Quarantine},
    vf::{self, KernelHands, Progress, Unfinished},
};

/// Undoes a dead apply, or goes on with a dead release.
pub(super) fn change(
    root: &SysRoot,
    state: &State,
    remains: &HostRemains,
    asked: &Asked<'_>,
) -> Recovered {
    let whose = remains.changes().whose();
    let log = Log::keeping("host", asked.is_silent || asked.is_dry);
    let mut say = |progress: Progress| match &progress {
        Progress::Begun { step, .. } => log.say(step),
        Progress::Undoing { step, .. } => log.say(&format!("undo: {step}")),
        Progress::Percent { .. }
        | Progress::Done { .. }
        | Progress::LeftOut { .. }
        | Progress::Awaiting { .. }
        | Progress::Confirmed
        | Progress::Failed { .. } => {}
    };
    let mut hands = KernelHands::new(root.clone());
    match vf::recover_host(&mut hands, state, remains, asked.is_dry, &mut say) {
        Ok(vf::Recovered { steps, left }) => Recovered { whose, steps, left },
        Err(report) => Recovered {
            whose,
            steps: Vec::new(),
            left: vec![report],
        },
    }
}

/// Gives back VFs whose runs are dead without a journal. `None` where there are none.
///
/// # Errors
/// What cannot be read at all.
pub(super) fn leases(
    root: &SysRoot,
    state: &State,
    asked: &Asked<'_>,
) -> Result<Option<Recovered>, Report> {
    // Without records there is nothing to look for on the machine.
    if state.recorded_pfs()?.is_empty() {
        return Ok(None);
    }
    let log = Log::keeping("host", asked.is_silent || asked.is_dry);
    let mut hands = KernelHands::new(root.clone());
    let found = vf::finish_leases(&mut hands, state, asked.is_dry, &mut |hands, one| {
        let bdf = one.record.bdf;
        let mut say = |line: &str| log.say(&format!("{bdf}: {line}"));
        let is_there = bind::is_there(root, bdf);
        match vf::lease::finish(hands, state, one, is_there, &mut say) {
            Ok(evidence) if evidence.is_empty() => Vec::new(),
            Ok(evidence) => quarantine(root, state, one, evidence, &log),
            Err(report) => vec![report],
        }
    })?;
    let mut say = |line: &str| log.say(line);
    let erased = vf::lease::erase_ownerless(&mut hands, state, asked.is_dry, &mut say);
    let (steps, left) = erased.unwrap_or_else(|report| (Vec::new(), vec![report]));
    let steps: Vec<String> = found.steps.into_iter().chain(steps).collect();
    let left: Vec<Report> = found.left.into_iter().chain(left).collect();
    Ok(match steps.is_empty() && left.is_empty() {
        true => None,
        false => Some(Recovered {
            whose: "VFs and namespaces that no run gave back".to_owned(),
            steps,
            left,
        }),
    })
}

fn quarantine(
    root: &SysRoot,
    state: &State,
    one: &Unfinished,
    evidence: Vec<String>,
    log: &Log,
) -> Vec<Report> {
    let bdf = one.record.bdf;
    let guest = one
        .record
        .lease
        .as_ref()
        .map_or("none", |lease| &lease.guest);
    let quarantine = Quarantine {
        guest: guest.to_owned(),
        functions: vec![bdf],
        root: root.clone(),
    };
    quarantine.put(&[(bdf, evidence)], state, log)
}
