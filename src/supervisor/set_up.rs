//! What the keeper waits for while a guest is built: the supervisor in its jail, V and D locked down.
//!
//! None of them is waited for without end. On entry: K is root with all that it began with. On exit of [`guard`]: S is in its
//! jail; of [`admit`]: V or D is in its own. K gives up its own capabilities later (`jail::own`).

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use jailed::{
    handoff::{Handoff, Report, Stage},
    manifest::{layer, start_page::Locked},
};
use rustix::net::{RecvFlags, recv};

use super::{
    ending::{Role, RunEnd},
    fault::Fault,
    inspection::Guarded,
    link::{Ask, Heard, Link, Next},
    process::{Process, forbidden},
};
use crate::{
    jail::{Jail, Member},
    sys::start::{StartPage, State},
};

/// How long V and D may take each. They load a kernel, map memory that is there and call the kernel: seconds on a machine
/// that is itself emulated. What takes longer than this hangs in the kernel or in a device.
pub(super) const LOCKING: Duration = Duration::from_secs(300);

/// Asks the supervisor to give up all that it does not need to watch; what it says then. It is asked once.
///
/// # Errors
/// [`Fault::Io`] where it cannot, or is silent.
pub(super) fn guard(link: &Link, jail: &Jail) -> Result<Guarded, Fault> {
    let id = jail.ids().id(Member::Supervisor);
    let answered = link.ask(Ask::Guard { id }, |word| match word {
        Heard::Guarded { landlock } => Some(Ok(Guarded {
            landlock,
            speaker: link.speaker(),
        })),
        word @ (Heard::Stop
        | Heard::Statistics { .. }
        | Heard::Fault { .. }
        | Heard::Rest { .. }
        | Heard::Call { .. }
        | Heard::Failed { .. }) => during_set_up(&word).err().map(Err),
    });
    let silent = || io::Error::other("it does not answer");
    answered
        .and_then(|answer| answer.ok_or_else(silent))
        .map_err(Fault::io("asking the supervisor to watch"))?
}

/// Hears the supervisor while `doing` something that takes long.
///
/// # Errors
/// Why the guest is not wanted any more.
pub(super) fn is_wanted(link: &Link, doing: impl FnOnce() -> String) -> Result<(), Fault> {
    match link.next().map_err(Fault::io(doing()))? {
        Next::Nothing => Ok(()),
        Next::Gone => Err(Fault::Ended(RunEnd::Abandoned)),
        Next::Word(word) => during_set_up(&word),
    }
}

/// What a word of the supervisor means while the guest is being built.
fn during_set_up(word: &Heard) -> Result<(), Fault> {
    match word {
        Heard::Stop => Err(Fault::Interrupted),
        Heard::Failed { doing, why } => Err(Fault::io(doing)(io::Error::other(why.clone()))),
        Heard::Fault { stopped } => {
            Err(Fault::io("building the guest")(io::Error::other(format!(
                "a device of it was stopped by the IOMMU: {} at {:#x} ({})",
                stopped.access, stopped.address, stopped.reason
            ))))
        }
        // There are no figures yet.
        Heard::Statistics { .. }
        | Heard::Guarded { .. }
        | Heard::Rest { .. }
        | Heard::Call { .. } => Ok(()),
    }
}

/// Waits until the process says that it is locked down, or why it is not, for at most `patience`.
///
/// # Errors
/// [`Fault::Setup`], [`Fault::DiedInSetup`], [`Fault::Silent`]; what the supervisor said.
pub(super) fn until_locked(
    process: &mut Process,
    word: &OwnedFd,
    page: &StartPage,
    link: &Link,
    patience: Duration,
) -> Result<Locked, Fault> {
    // The page wakes the sleeper; a failure, a death and the operator are seen as late as this.
    const LOOK: Duration = Duration::from_millis(20);
    let role = process.role;
    let doing = || format!("waiting for {}", role.program());
    let deadline = Instant::now() + patience;
    loop {
        page.wait(LOOK).map_err(Fault::io(doing()))?;
        // Before the page and the report: what a process that has ended left there is all that will come.
        let status = process.ended().map_err(Fault::io(doing()))?;
        if let Some(report) = received(word).map_err(Fault::io(doing()))? {
            return Err(Fault::Setup { role, report });
        }
        match page.state() {
            State::Locked(locked) if status.is_none() => return Ok(locked),
            State::Failed { errno } => {
                let report = lock_failed(layer::SECCOMP, errno);
                return Err(Fault::Setup { role, report });
            }
            State::Building | State::Locked(_) => {}
        }
        if let Some(ended) = status {
            let call = forbidden(process, ended, link).map_err(Fault::io(doing()))?;
            return Err(Fault::DiedInSetup { role, status, call });
        }
        is_wanted(link, doing)?;
        if Instant::now() >= deadline {
            return Err(Fault::Silent {
                role,
                after: patience,
                reached: page.reached(),
            });
        }
    }
}

/// What must hold of a process that says that it is locked down, before the guest runs.
///
/// # Errors
/// [`Fault::Setup`].
pub(super) fn admit(role: Role, locked: Locked, handoff: &Handoff) -> Result<Locked, Fault> {
    let may_be_absent = handoff.layers_absent & !layer::ALWAYS;
    #[cfg(feature = "breakout")]
    let may_be_absent = may_be_absent | jailed::breakout::words::ablated(handoff);
    let absent = layer::OWN & !locked.layers & !may_be_absent;
    if absent == 0 {
        return Ok(locked);
    }
    let report = lock_failed(1 << absent.trailing_zeros(), 0);
    Err(Fault::Setup { role, report })
}

fn lock_failed(layer: u32, errno: u32) -> Report {
    Report {
        stage: Stage::Lock as u32,
        errno,
        detail: u64::from(layer),
    }
}

/// The report, once it is there; a socket that was closed without one counts as none.
fn received(word: &OwnedFd) -> io::Result<Option<Report>> {
    let mut bytes = [0_u8; size_of::<Report>()];
    match recv(word, bytes.as_mut_slice(), RecvFlags::DONTWAIT) {
        Ok((_, len)) if len == bytes.len() => {}
        Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNRESET) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    }
    let [a, b, c, d, e, f, g, h, detail @ ..] = bytes;
    Ok(Some(Report {
        stage: u32::from_ne_bytes([a, b, c, d]),
        errno: u32::from_ne_bytes([e, f, g, h]),
        detail: u64::from_ne_bytes(detail),
    }))
}

#[cfg(test)]
mod tests {
    use jailed::stall::Point;

    use super::{super::launch::control_pair, *};
    use crate::sys::child::Child;

    #[test]
    fn a_process_that_never_locks_is_named_with_what_it_did_last() {
        let (keeper, _supervisor) = Link::pair().unwrap();
        let (word, _end) = control_pair().unwrap();
        let page = StartPage::new().unwrap();
        let mut process = Process::new(Role::Vcpu, Child::asleep());
        let patience = Duration::from_millis(50);
        let mut silent = || {
            let locked = until_locked(&mut process, &word, &page, &keeper, patience);
            let Err(Fault::Silent { role, reached, .. }) = locked else {
                panic!("{locked:?}");
            };
            assert_eq!(role, Role::Vcpu);
            reached
        };
        assert_eq!(silent(), None);
        page.say_reached(Point::VcpuRam as u32 + 1);
        assert_eq!(silent(), Some("v:ram"));
        // It may say anything.
        page.say_reached(u32::MAX);
        assert_eq!(silent(), None);
        process.stop().unwrap();
    }

    #[test]
    fn a_process_that_dies_is_told_at_once() {
        let (keeper, _supervisor) = Link::pair().unwrap();
        let (word, _end) = control_pair().unwrap();
        let page = StartPage::new().unwrap();
        let mut process = Process::new(Role::Device, Child::asleep());
        process.stop().unwrap();
        let locked = until_locked(&mut process, &word, &page, &keeper, LOCKING);
        assert!(matches!(locked, Err(Fault::DiedInSetup { .. })));
    }
}
