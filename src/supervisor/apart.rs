//! S and K as two services: nobody forks, and K hands over what S watches by the socket that joins them.
//!
//! So S never has a privilege: whoever starts it gives it a listening socket and nothing else. K connects, and says
//! first what the guest is, with the console's pipes and the kernel log; the rest are the words of [`super::link`].

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use iommu::bdf::Bdf;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
        connect, recvmsg, sendmsg, socket_with,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    Options, Replan, RunEnd,
    console::{Console, HostEnds, Target, pipes},
    dma_faults::DmaFaults,
    fault::Fault,
    files::Files,
    forbid_core_dumps,
    given::handed_over,
    inspection::Watched,
    keeper::Keeper,
    link::{Ask, Link, WORD_BYTES},
    log::Log,
    raise_descriptor_limit,
    violation::{Found, Violations},
    watch::Watch,
};
use crate::{
    error::{ErrorId, Report, exit_of},
    inspect::GivenFile,
    jail::{
        own,
        seccomp::{install, supervisor_filter},
    },
    plan::Plan,
    spec::OnDmaFault,
    sys::{listen::passed_socket, signals::Signals},
};

/// How long the supervisor waits for a keeper, and for its first word: it plans before it says one.
const PATIENCE: Duration = Duration::from_secs(60);
/// The console's two pipes, the kernel log, the console's file, the kernel's audit.
const MOST_FDS: usize = 5;

/// The keeper's first word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "kebab-case", deny_unknown_fields)]
enum Opening {
    /// What to watch. Descriptors: from the guest, to the guest, the kernel log, the console's file, the kernel's audit;
    /// the last three where this says so.
    Guest {
        name: String,
        is_quiet: bool,
        functions: Vec<Bdf>,
        policy: OnDmaFault,
        console: Kind,
        has_kernel_log: bool,
        /// Why there is no socket of the audit; `untold` where there is one.
        deafness: Found,
    },
    /// There is nothing to watch.
    End { status: u8 },
}

/// Where the console's bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Off,
    Stdio,
    File,
}

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
            let link = Link::of(socket);
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
        plan: Result<Plan, Vec<Report>>,
        options: &Options,
        replan: &Replan<'_>,
    ) -> Result<RunEnd, Vec<Report>> {
        let plan = match plan {
            Ok(plan) => plan,
            Err(reports) => {
                let status = exit_of(&reports) as u8;
                return Err(told(reports, self.0.say(&Opening::End { status })));
            }
        };
        let Self(link) = self;
        let (link, ended) = keep(link, &plan, options, replan);
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
    options: &Options,
    replan: &Replan<'_>,
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
        Ok((guest_ends, Watched::handed_over(handed_over)))
    };
    match prepared() {
        Ok((guest_ends, watched)) => {
            let keeper = Keeper {
                plan,
                options,
                replan,
                log: &log,
                link,
                console: guest_ends,
                supervisor: None,
                watched,
            };
            let ended = keeper.keep();
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

fn send_with(link: &Link, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if bytes.len() > WORD_BYTES || !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    sendmsg(
        link,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Is the supervisor of the guest whose keeper connects to the socket that this process was started with; gives the
/// status that the keeper tells at the end.
///
/// # Errors
/// `keeper-lost`: none came, or it went away without a last word.
pub fn watch() -> Result<u8, Report> {
    let lost = |error: io::Error| {
        Report::new(
            ErrorId::KeeperLost,
            "the guest is not kept any more",
            error.to_string(),
            "see the journal of narrows-keeper@NAME.service; `narrows watch` is for a service manager to start",
        )
    };
    let link = keeper().map_err(lost)?;
    let signals = Signals::take().map_err(lost)?;
    match received(&link).map_err(lost)? {
        (Opening::End { status }, _) => Ok(status),
        (guest, fds) => watch_guest(guest, fds, link, signals)
            .and_then(|status| status.ok_or_else(|| gone("the keeper ended without a last word")))
            .map_err(lost),
    }
}

/// The first that connects, and no other: the socket is closed then.
fn keeper() -> io::Result<Link> {
    let absent = || gone("no socket was passed to this process");
    let listening = passed_socket().ok_or_else(absent)?;
    until_readable(&listening, "no keeper connected")?;
    Ok(Link::of(accept_with(&listening, SocketFlags::CLOEXEC)?))
}

fn received(link: &Link) -> io::Result<(Opening, Vec<OwnedFd>)> {
    until_readable(link, "the keeper said nothing")?;
    let mut bytes = [0_u8; WORD_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut to = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(link, &mut to, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fds = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            RecvAncillaryMessage::ScmCredentials(_) | _ => None,
        })
        .flatten()
        .collect();
    if received.bytes == 0 {
        return Err(gone("the keeper ended without a word"));
    }
    let word = bytes.get(..received.bytes).unwrap_or(&bytes);
    Ok((serde_json::from_slice(word)?, fds))
}

fn watch_guest(
    guest: Opening,
    fds: Vec<OwnedFd>,
    link: Link,
    signals: Signals,
) -> io::Result<Option<u8>> {
    let Opening::Guest {
        name,
        is_quiet,
        functions,
        policy,
        console,
        has_kernel_log,
        deafness,
    } = guest
    else {
        return Ok(None);
    };
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(|| gone("a descriptor is missing"));
    let ends = HostEnds::of(next()?, next()?);
    let kernel_log = has_kernel_log.then(&mut next).transpose()?;
    let target = match console {
        Kind::Off => Target::Off,
        Kind::Stdio => Target::Stdio,
        Kind::File => Target::File(File::from(next()?)),
    };
    let audit = match deafness {
        Found::Untold => Ok(next()?),
        Found::Call { .. } | Found::NoAudit | Found::Deaf => Err(deafness),
    };
    let log = Log::new(&name, is_quiet);
    let watch = Watch {
        console: Console::new(target, ends)?,
        faults: DmaFaults::of(policy, functions, kernel_log.map(File::from)),
        violations: Violations::of(audit),
        signals,
        link,
        log: &log,
    };
    // It was started without what it would give up; what is left is what it may call.
    watch.until_keeper_is_gone(|watch, _| {
        // Its files below /proc are root's from here on: only then can the keeper, which has no privilege over others'
        // files, read what its descriptors are.
        own::forbid_dumps()?;
        install(&supervisor_filter(&watch.descriptors())?)?;
        // Landlock is the service manager's to put on, and it does not tell.
        Ok(0)
    })
}

fn until_readable(fd: impl AsFd, otherwise: &str) -> io::Result<()> {
    let timeout = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    let mut waits = [PollFd::new(&fd, PollFlags::IN)];
    match poll(&mut waits, Some(&timeout))? {
        0 => Err(gone(otherwise)),
        _ => Ok(()),
    }
}

fn gone(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}

#[cfg(test)]
mod tests {
    use rustix::pipe::pipe;

    use super::*;

    fn guest(console: Kind) -> Opening {
        Opening::Guest {
            name: "web".to_owned(),
            is_quiet: true,
            functions: vec!["0000:3b:02.1".parse().unwrap()],
            policy: OnDmaFault::Stop,
            console,
            has_kernel_log: false,
            deafness: Found::NoAudit,
        }
    }

    fn say(link: &Link, opening: &Opening, fds: &[BorrowedFd<'_>]) {
        send_with(link, &serde_json::to_vec(opening).unwrap(), fds).unwrap();
    }

    #[test]
    fn a_guest_is_handed_over_with_its_descriptors() {
        let (keeper, supervisor) = Link::pair().unwrap();
        let (reader, writer) = pipe().unwrap();
        say(
            &keeper,
            &guest(Kind::Off),
            &[reader.as_fd(), writer.as_fd()],
        );
        drop(reader);
        let (opening, fds) = received(&supervisor).unwrap();
        assert_eq!(opening, guest(Kind::Off));
        let [reader, _] = fds.try_into().unwrap();
        rustix::io::write(&writer, b"x").unwrap();
        assert_eq!(rustix::io::read(&reader, &mut [0_u8; 4]).unwrap(), 1);
    }

    #[test]
    fn a_keeper_that_refuses_says_so_first() {
        let (keeper, supervisor) = Link::pair().unwrap();
        keeper.say(&Opening::End { status: 3 }).unwrap();
        let (opening, fds) = received(&supervisor).unwrap();
        assert_eq!(opening, Opening::End { status: 3 });
        assert!(fds.is_empty());
        drop(keeper);
        assert!(received(&supervisor).is_err(), "it is gone");
    }

    #[test]
    fn a_descriptor_too_few_is_an_error() {
        let (keeper, supervisor) = Link::pair().unwrap();
        let (reader, writer) = pipe().unwrap();
        // The console's file is missing.
        let (fds, opening) = ([reader.as_fd(), writer.as_fd()], guest(Kind::File));
        say(&keeper, &opening, &fds);
        let (opening, fds) = received(&supervisor).unwrap();
        let signals = Signals::take().unwrap();
        assert!(watch_guest(opening, fds, supervisor, signals).is_err());
    }

    #[test]
    fn what_is_no_opening_is_an_error() {
        let (keeper, supervisor) = Link::pair().unwrap();
        for bytes in [&b"{"[..], br#"{"word":"end"}"#, br#"{"word":"guard"}"#] {
            send_with(&keeper, bytes, &[]).unwrap();
            assert!(received(&supervisor).is_err());
        }
    }
}
