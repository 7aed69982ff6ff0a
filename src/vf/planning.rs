//! The planners of an apply and of a release, for [`super::run`].

use super::job::Planned;
use crate::{
    error::Report,
    spec::host::{HostSpec, Profiles, Safety},
    sriov::{Observed, Records, baseline, desired, plan, with_accepted},
};

/// Plans what a host file says.
pub fn planning<'a>(
    spec: &'a HostSpec,
    profiles: &'a Profiles,
) -> impl Fn(&Observed, &Records) -> Result<Planned, Vec<Report>> + 'a {
    |observed, records| {
        let desired = desired(spec, observed, records, profiles)?;
        let plan = plan(observed, &desired, records, profiles, spec.safety);
        Ok(Planned { desired, plan })
    }
}

/// Plans the way back to what was before the first apply; with the safety, and past the interlocks, that the file has which
/// was applied.
pub fn releasing<'a>(
    before: &'a Observed,
    profiles: &'a Profiles,
    applied: Option<&'a HostSpec>,
) -> impl Fn(&Observed, &Records) -> Result<Planned, Vec<Report>> + 'a {
    move |observed, records| {
        let desired = baseline(before, observed);
        let (desired, safety) = match applied {
            Some(spec) => (
                with_accepted(desired, spec, observed, profiles),
                spec.safety,
            ),
            None => (desired, Safety::default()),
        };
        let plan = plan(observed, &desired, records, profiles, safety);
        Ok(Planned { desired, plan })
    }
}
