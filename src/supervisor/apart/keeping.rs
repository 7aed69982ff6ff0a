//! K as a service: it connects, hands over what is to be watched, and keeps the guest.

use std::{io, os::fd::AsFd, path::Path};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::{
    opening::{Kind, Opening, send_with},
    peer::check_peer,
};
use crate::{
    error::{ErrorId, Report, exit_of},
    inspect::GivenFile,
    jail::Ids,
    plan::Plan,
    supervisor::{
        Options, Replan, Reserved, RunEnd,
        console::{HostEnds, Target, pipes},
        dma_faults::DmaFaults,
        fault::Fault,
        files::Files,
        forbid_core_dumps,
        given::handed_over,
        inspection::Watched,
        keeper::Keeper,
        link::{Ask, Link},
        log::Log,
        raise_descriptor_limit,
        violation::Violations,
    },
    sys::signals::Signals,
};

/// The keeper's end.
#[derive(Debug)]
pub struct KeeperEnd(Link);

impl KeeperEnd {
    /// Connects to the supervisor that listens at `path`.
    ///
    /// # Errors
    /// `supervisor-absent`.
    pub fn connect(path: &Path) -> Result<Self, Report> {
        let connected = || -> io::Result<Link> {
            let address = SocketAddrUnix::new(path)?;
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            connect(&socket, &address)?;
            // Whoever listens there would be told what to watch, and stop the guest.
            check_peer(&socket)?;
            let mut link = Link::of(socket);
            // The socket was made by the service manager: who hears it is known by what it says.
            link.ask_who_speaks()?;
            Ok(link)
        };
        connected().map(Self).map_err(|error| {
            Report::new(
                ErrorId::SupervisorAbsent,
                "cannot keep a guest that nobody supervises",
                format!("{}: {error}", path.display()),
                "start narrows@NAME.service, which starts both",
            )
        })
    }

    /// Runs a guest to its end, gives its devices back, and tells the supervisor the status that both end with.
    ///
    /// # Errors
    /// What kept it from starting, or from being taken apart: then the report says what is left to do by hand.
    pub fn keep(
        self,
        plan: Result<(Plan, Reserved, Replan<'_>), Vec<Report>>,
        options: &Options,
    ) -> Result<RunEnd, Vec<Report>> {
        let (plan, reserved, replan) = match plan {
            Ok(planned) => planned,
            Err(reports) => {
                let status = exit_of(&reports) as u8;
                return Err(told(reports, self.0.say(&Opening::End { status })));
            }
        };
        let Self(link) = self;
        let (link, ended) = keep(link, &plan, reserved, options, replan);
        let status = match &ended {
            Ok(end) => end.exit_status(),
            Err(reports) => exit_of(reports) as u8,
        };
        let said = link.say(&Ask::End { status });
        match ended {
            Ok(end) if said.is_ok() => Ok(end),
            Ok(_) => Err(told(Vec::new(), said)),
            Err(reports) => Err(told(reports, said)),
        }
    }
}

/// The reports, with one more where the supervisor could not be told.
fn told(mut reports: Vec<Report>, said: io::Result<()>) -> Vec<Report> {
    if let Err(error) = said {
        let what = "the supervisor could not be told how the run ended";
        let fix = "report it with the lines above";
        reports.push(Report::new(ErrorId::Bug, what, error.to_string(), fix));
    }
    reports
}

/// Hands over what is to be watched, and keeps the guest. The link outlives it, for its last word.
fn keep(
    link: Link,
    plan: &Plan,
    reserved: Reserved,
    options: &Options,
    replan: Replan<'_>,
) -> (Link, Result<RunEnd, Vec<Report>>) {
    let log = Log::new(&plan.name, options.is_quiet);
    for warning in &plan.warnings {
        log.warn(&format!("warning[{}]: {}", warning.id, warning.what));
    }
    let prepared = || -> Result<_, Fault> {
        // The operator asks the supervisor; a service manager that ends all at once ends it first.
        Signals::take().map_err(Fault::io("blocking signals"))?;
        raise_descriptor_limit().map_err(Fault::io("raising the limit of descriptors"))?;
        forbid_core_dumps().map_err(Fault::io("forbidding core dumps"))?;
        let target = Files::console_target(plan)?;
        let (host_ends, guest_ends) = pipes().map_err(Fault::io("making the console's pipes"))?;
        let mut faults = DmaFaults::none(plan);
        faults.arm(&options.root, &log)?;
        let violations = Violations::open();
        let handed_over = hand_over(
            &link,
            plan,
            options,
            &target,
            &host_ends,
            &faults,
            &violations,
        )
        .map_err(Fault::io("handing over to the supervisor"))?;
        // The supervisor is a user that the service manager made: they are V's and D's alone.
        let ids = Ids::take(&options.state)?;
        Ok((guest_ends, ids, Watched::handed_over(handed_over)))
    };
    match prepared() {
        Ok((guest_ends, ids, watched)) => {
            let keeper = Keeper {
                plan,
                options,
                log: &log,
                link,
                console: guest_ends,
                supervisor: None,
                watched,
            };
            let ended = keeper.keep(reserved, ids, replan);
            (keeper.link, ended)
        }
        Err(fault) => (link, Err(fault.into_reports(plan))),
    }
}

fn hand_over(
    link: &Link,
    plan: &Plan,
    options: &Options,
    target: &Target,
    ends: &HostEnds,
    faults: &DmaFaults,
    violations: &Violations,
) -> io::Result<Vec<GivenFile>> {
    let (from_guest, to_guest) = ends.both();
    let mut fds = vec![from_guest, to_guest];
    fds.extend(faults.fd());
    let console = match target {
        Target::Off => Kind::Off,
        Target::Stdio => Kind::Stdio,
        Target::File(file) => {
            fds.push(file.as_fd());
            Kind::File
        }
    };
    fds.extend(violations.fd());
    let opening = Opening::Guest {
        name: plan.name.clone(),
        is_quiet: options.is_quiet,
        functions: plan.functions.iter().map(|f| f.bdf).collect(),
        policy: plan.on_dma_fault,
        console,
        has_kernel_log: faults.fd().is_some(),
        deafness: violations.deafness(),
    };
    send_with(link, &serde_json::to_vec(&opening)?, &fds)?;
    handed_over(&fds)
}
