//! S as a service: it waits for its keeper, is handed what to watch, and watches.
//!
//! On entry: what the unit of the service manager left it, a user of its own without a capability. On exit, once the keeper has
//! asked for it: its files below `/proc` are root's, and it is under its filter, for good.

use std::{fs::File, io, os::fd::OwnedFd};

use rustix::net::{SocketFlags, accept_with};

use super::{
    opening::{Kind, Opening, gone, received, until_readable},
    peer::check_peer,
};
use crate::{
    error::{ErrorId, Report},
    jail::{
        own,
        seccomp::{install, supervisor_filter},
    },
    supervisor::{
        console::{Console, HostEnds, Target},
        dma_faults::DmaFaults,
        link::Link,
        log::Log,
        violation::{Found, Violations},
        watch::{Done, Watch},
    },
    sys::{listen::passed_socket, signals::Signals, thrift::Thrift},
};

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
    let connected = accept_with(&listening, SocketFlags::CLOEXEC)?;
    // Whoever it is would say what is printed as the guest's console, and give descriptors.
    check_peer(&connected)?;
    Ok(Link::of(connected))
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
        thrift: Thrift::new(),
        done: Done::default(),
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::pipe::pipe;

    use super::{
        super::opening::tests::{guest, say},
        *,
    };

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
}
