//! What a run has of its own before it begins: its guest's name, and its functions. No device is touched.
//!
//! On entry: a plan, whose checks took no lock. On exit: no other run begins with this name or one of these functions, and
//! no pool's VF among them is another guest's. Who has chosen a VF that another run took meanwhile may choose again.

use std::io;

use iommu::{IommuError, bdf::Bdf, sysfs::SysRoot};

use crate::{
    error::{ErrorId, Report},
    plan::Plan,
    state::{self, HostLock, InUse, State},
    vf::lease,
};

/// A name and functions, until this is dropped; the locks pass to a process that is forked off.
#[derive(Debug)]
pub struct Reserved {
    pub(super) name: state::Running,
    pub(super) functions: Functions,
}

/// The functions.
#[derive(Debug)]
pub(super) struct Functions {
    /// In the plan's order.
    pub(super) locked: Vec<InUse>,
    /// Keeps the host's VFs from being changed; none where there are no functions.
    pub(super) host: Option<HostLock>,
}

/// Why something could not be reserved.
#[derive(Debug)]
pub struct Refused {
    /// The function that another one could take the place of.
    pub function: Option<Bdf>,
    /// What is said.
    pub report: Report,
}

/// What stands in the way of one function, and not of others.
const OF_ONE_FUNCTION: [ErrorId; 5] = [
    ErrorId::DeviceInUse,
    ErrorId::DeviceQuarantined,
    ErrorId::LeaseForeign,
    ErrorId::PoolExhausted,
    ErrorId::RecoverNeeded,
];

impl Reserved {
    /// Keeps other runs from the name and the functions, and shows that each could be quarantined.
    ///
    /// # Errors
    /// `guest-name-taken`, `host-busy`, `state-unwritable`; of one function: `device-in-use`, `device-quarantined`,
    /// `recover-needed`, `lease-foreign`, `pool-exhausted`.
    pub fn take(plan: &Plan, root: &SysRoot, state: &State) -> Result<Self, Refused> {
        let mut reserved = Self {
            name: state::Running::take(state, &plan.name)?,
            functions: Functions {
                locked: Vec::new(),
                host: None,
            },
        };
        if plan.functions.is_empty() {
            return Ok(reserved);
        }
        state.check_writable()?;
        reserved.functions.host = Some(state.share_host()?);
        for function in &plan.functions {
            let bdf = function.bdf;
            let refused = |report: Report| Refused {
                function: OF_ONE_FUNCTION
                    .iter()
                    .any(|id| report.id == *id)
                    .then_some(bdf),
                report,
            };
            let locked = InUse::take(state, bdf, &plan.name).map_err(refused)?;
            reserved.functions.locked.push(locked);
            // With the lock: what the plan has seen may be over by now.
            state.refusal(bdf).map_or(Ok(()), Err).map_err(refused)?;
            state.check_recovered(bdf).map_err(refused)?;
            if let Some(terms) = &function.lease {
                let boot = state::boot(root).map_err(|error| unknown_boot(&error))?;
                lease::check_free(state, &plan.name, &boot, terms).map_err(refused)?;
            }
        }
        Ok(reserved)
    }

    /// Says after a fork that this process has them.
    ///
    /// # Errors
    /// The errno of `write` or `fcntl`.
    pub(super) fn note(&mut self, plan: &Plan) -> io::Result<()> {
        let Functions { locked, host } = &mut self.functions;
        for function in locked {
            function.note(&plan.name)?;
        }
        host.as_ref().map_or(Ok(()), HostLock::note_sharer)
    }

    /// Leaves them to the process that was forked off.
    pub(super) fn leave(self) {
        self.name.leave();
        for function in self.functions.locked {
            function.leave();
        }
    }
}

impl From<Report> for Refused {
    fn from(report: Report) -> Self {
        Self {
            function: None,
            report,
        }
    }
}

fn unknown_boot(error: &IommuError) -> Report {
    Report::new(
        ErrorId::StateUnreadable,
        "which boot this is cannot be told",
        error.to_string(),
        "see that /proc is mounted",
    )
}
