//! Starting V and D: the sealed handoff, the ring, the eventfds, and the exact list of descriptors of each.
//!
//! On entry: the DMA map is complete and sealed, bus masters are off. On exit: both processes have built the guest
//! and run it, and the supervisor keeps no descriptor of the ring or of an interrupt.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use jailed::{
    handoff::{DeviceFds, FIRST_FD, Handoff, Report, Stage, VcpuFds},
    manifest::{self, layer, start_page::Locked},
    ring::Layout,
};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair},
};

use super::{
    crash::{self, Step, Who},
    ending::{Role, RunEnd},
    fault::Fault,
    given::{given, memory},
    inspection::{Guarded, Inspector, Waiting},
    link::{Ask, Heard, Link, Next},
    process::{Process, forbidden},
};
use crate::{
    jail::{Descriptors, Jail, Member, Program},
    sys::{
        map::{CounterView, handoff_bytes},
        start::{StartPage, State},
    },
};

/// The two programs, found beside `narrows`.
#[derive(Debug)]
pub(super) struct Programs {
    vcpu: Program,
    device: Program,
}

impl Programs {
    /// Looks in the folder of the running program, and nowhere else; what is opened here runs in every life of the guest.
    ///
    /// # Errors
    /// [`Fault::ProgramAbsent`]; `spawn-failed` for a program that others could have changed.
    pub(super) fn find() -> Result<Self, Fault> {
        let own =
            std::env::current_exe().map_err(Fault::io("finding this program's own folder"))?;
        let folder = own.parent().unwrap_or_else(|| Path::new("/"));
        let beside = |role: Role| -> Result<Program, Fault> {
            let path = folder.join(role.program());
            if path.is_file() {
                Ok(Program::open(&path)?)
            } else {
                Err(Fault::ProgramAbsent { path })
            }
        };
        Ok(Self {
            vcpu: beside(Role::Vcpu)?,
            device: beside(Role::Device)?,
        })
    }

    /// The program of V or D.
    pub(super) const fn of(&self, member: Member) -> &Program {
        match member {
            Member::Vcpu => &self.vcpu,
            Member::Device | Member::Supervisor => &self.device,
        }
    }
}

/// What the launch needs besides the handoff; all of it outlives the guest.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// The facts for both.
    pub(super) handoff: &'a Handoff,
    /// `/dev/kvm`.
    pub(super) kvm: BorrowedFd<'a>,
    /// `/dev/null`, in place of what the guest does not have.
    pub(super) null: BorrowedFd<'a>,
    /// The RAM file.
    pub(super) ram: BorrowedFd<'a>,
    /// The kernel.
    pub(super) kernel: BorrowedFd<'a>,
    /// The initramfs.
    pub(super) initramfs: Option<BorrowedFd<'a>>,
    /// The images, in the handoff's order.
    pub(super) images: Vec<BorrowedFd<'a>>,
    /// The VFIO devices, in the handoff's order.
    pub(super) devices: Vec<BorrowedFd<'a>>,
    /// The console's pipes: output, input.
    pub(super) console: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>,
}

/// A guest that runs.
#[derive(Debug)]
pub(super) struct Running {
    /// V.
    pub(super) vcpu: Process,
    /// D.
    pub(super) device: Process,
    /// What they count.
    pub(super) counters: CounterView,
    /// V's and D's start pages, where probes leave what came of them.
    #[cfg(feature = "breakout")]
    pub(super) start_pages: [StartPage; 2],
}

/// Starts D, then V, waits until both have built their part and are locked down, and lets the guest go. Only break-outs
/// with layers taken away, in feature builds, go without an `inspector`.
///
/// # Errors
/// [`Fault::Setup`] with what V or D said; both processes are gone then.
pub(super) fn launch(
    programs: &Programs,
    jail: &Jail,
    inspector: Option<&Inspector<'_>>,
    parts: &Parts<'_>,
    link: &Link,
) -> Result<Running, Fault> {
    let making = |what: &str| Fault::io(format!("making {what}"));
    let handoff = sealed_handoff(parts.handoff).map_err(making("the handoff"))?;
    let ring = ring_file(parts.handoff).map_err(making("the ring"))?;
    let counters = CounterView::new(&ring).map_err(making("the view of the counters"))?;
    let vectors = usize::try_from(parts.handoff.vector_count()).unwrap_or(usize::MAX);
    let functions = parts.handoff.functions().len();
    let irqs = eventfds(vectors).map_err(making("interrupt eventfds"))?;
    let latches = eventfds(vectors).map_err(making("latch eventfds"))?;
    let errors = eventfds(functions).map_err(making("error eventfds"))?;
    let requests = eventfds(functions).map_err(making("request eventfds"))?;

    let (device_word, device_end) = control_pair().map_err(making("a control socket"))?;
    let device_start = StartPage::new().map_err(making("a start page"))?;
    let (console_out, console_in) = parts.console.unwrap_or((parts.null, parts.null));
    let mut device_fds = vec![
        handoff.as_fd(),
        device_end.as_fd(),
        ring.as_fd(),
        device_start.as_fd(),
        console_out,
        console_in,
    ];
    device_fds.extend(&parts.devices);
    for list in [&errors, &requests, &irqs, &latches] {
        device_fds.extend(list.iter().map(AsFd::as_fd));
    }
    debug_assert_eq!(device_fds.len(), count(DeviceFds::of(parts.handoff).end()));
    let mut device = start(jail, Role::Device, &programs.device, parts, &device_fds)?;
    let devices_given = given(manifest::Role::Device, parts.handoff, &device_fds);
    let devices_given = match devices_given.map_err(making("the list of D's files")) {
        Ok(given) => given,
        Err(fault) => return Err(stopped(fault, &mut [&mut device])),
    };
    crash::is_running(Who::Device, device.pid());
    crash::point(Step::DeviceStarted);
    drop(device_end);
    let locked = until_locked(&mut device, &device_word, &device_start, link);
    let device_locked = match locked.and_then(|locked| admit(Role::Device, locked, parts.handoff)) {
        Ok(locked) => locked,
        Err(fault) => return Err(stopped(fault, &mut [&mut device])),
    };
    crash::point(Step::DeviceReady);

    let (vcpu_word, vcpu_end) = control_pair().map_err(making("a control socket"))?;
    let vcpu_start = StartPage::new().map_err(making("a start page"))?;
    let mut fds = vec![
        handoff.as_fd(),
        vcpu_end.as_fd(),
        ring.as_fd(),
        vcpu_start.as_fd(),
        parts.kvm,
        parts.ram,
        parts.kernel,
        parts.initramfs.unwrap_or(parts.null),
    ];
    fds.extend(&parts.images);
    fds.extend(&parts.devices);
    fds.extend(irqs.iter().map(AsFd::as_fd));
    debug_assert_eq!(fds.len(), count(VcpuFds::of(parts.handoff).end()));
    let mut vcpu = match start(jail, Role::Vcpu, &programs.vcpu, parts, &fds) {
        Ok(vcpu) => vcpu,
        Err(fault) => return Err(stopped(fault, &mut [&mut device])),
    };
    let vcpus_given = given(manifest::Role::Vcpu, parts.handoff, &fds);
    let vcpus_given = match vcpus_given.map_err(making("the list of V's files")) {
        Ok(given) => given,
        Err(fault) => return Err(stopped(fault, &mut [&mut device, &mut vcpu])),
    };
    crash::is_running(Who::Vcpu, vcpu.pid());
    crash::point(Step::VcpuStarted);
    drop(vcpu_end);
    let gone = until_locked(&mut vcpu, &vcpu_word, &vcpu_start, link)
        .and_then(|locked| admit(Role::Vcpu, locked, parts.handoff))
        .inspect(|_| crash::point(Step::VcpuReady))
        .and_then(|locked| {
            jail.share_cores(device.pid(), vcpu.pid())?;
            let guarded = guard(link, jail)?;
            // Now all are what they are while the guest runs.
            let of_both = |start| [("narrows-ring", ring.as_fd()), ("narrows-start", start)];
            let [ring, start] = of_both(vcpu_start.file());
            let listing = "listing the files that V and D were given";
            let device = Waiting {
                pid: device.pid(),
                locked: device_locked,
                given: devices_given,
                memory: memory(&of_both(device_start.file())).map_err(Fault::io(listing))?,
            };
            let vcpu = Waiting {
                pid: vcpu.pid(),
                locked,
                given: vcpus_given,
                memory: memory(&[ring, start, ("narrows-ram", parts.ram)])
                    .map_err(Fault::io(listing))?,
            };
            inspector.map_or(Ok(()), |inspector| {
                inspector.admit(programs, parts.handoff, guarded, device, vcpu)
            })
        })
        .inspect(|()| crash::point(Step::Inspected))
        .and_then(|()| go(&device_start))
        .and_then(|()| go(&vcpu_start));
    if let Err(fault) = gone {
        let mut both = [&mut device, &mut vcpu];
        let fault = or_died(fault, &mut both, link);
        return Err(stopped(fault, &mut both));
    }
    crash::point(Step::Gone);
    Ok(Running {
        vcpu,
        device,
        counters,
        #[cfg(feature = "breakout")]
        start_pages: [vcpu_start, device_start],
    })
}

fn count(end: u32) -> usize {
    usize::try_from(end - FIRST_FD).unwrap_or(usize::MAX)
}

fn start(
    jail: &Jail,
    role: Role,
    program: &Program,
    parts: &Parts<'_>,
    fds: &[BorrowedFd<'_>],
) -> Result<Process, Fault> {
    // V makes the VM, the KVM-VFIO device and its vCPUs; D nothing.
    let (member, more) = match role {
        Role::Vcpu => (Member::Vcpu, u64::from(parts.handoff.vcpu_count) + 2),
        Role::Device => (Member::Device, 0),
    };
    let descriptors = Descriptors {
        first: i32::try_from(FIRST_FD).unwrap_or(i32::MAX),
        fds,
        null: parts.null,
        more,
        #[cfg(feature = "breakout")]
        left_away: jailed::breakout::words::ablated(parts.handoff),
    };
    let child = jail.spawn(member, program, &descriptors)?;
    Ok(Process::new(role, child))
}

/// The fault, unless a process has died: then what was found of it is not what went wrong.
fn or_died(fault: Fault, processes: &mut [&mut Process], link: &Link) -> Fault {
    if !matches!(fault, Fault::Reported(_) | Fault::Refused(_)) {
        return fault;
    }
    for process in processes {
        let role = process.role;
        let doing = format!("waiting for {} after: {fault:?}", role.program());
        let died = match process.ended() {
            Ok(None) => continue,
            Ok(Some(ended)) => forbidden(process, ended, link).map(|call| Fault::DiedInSetup {
                role,
                status: Some(ended),
                call,
            }),
            Err(error) => Err(error),
        };
        return died.unwrap_or_else(Fault::io(doing));
    }
    fault
}

/// Ends what was started, and keeps the first fault.
pub(super) fn stopped(fault: Fault, processes: &mut [&mut Process]) -> Fault {
    for process in processes {
        if let Err(error) = process.stop() {
            return Fault::Io {
                doing: format!("stopping {} after: {fault:?}", process.role.program()),
                error,
            };
        }
    }
    fault
}

/// Asks the supervisor to give up what it does not need while the guest runs.
fn guard(link: &Link, jail: &Jail) -> Result<Guarded, Fault> {
    let id = jail.ids().id(Member::Supervisor);
    let answered = link.ask(Ask::Guard { id }, |word| {
        let bad = during_set_up(&word).err().map(Err);
        bad.or(match word {
            Heard::Guarded { landlock } => Some(Ok(Guarded {
                landlock,
                speaker: link.speaker(),
            })),
            Heard::Stop
            | Heard::Statistics { .. }
            | Heard::Fault { .. }
            | Heard::Rest { .. }
            | Heard::Call { .. }
            | Heard::Failed { .. } => None,
        })
    });
    let silent = || io::Error::other("it does not answer");
    answered
        .and_then(|answer| answer.ok_or_else(silent))
        .map_err(Fault::io("asking the supervisor to watch"))?
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

/// Waits until the process says that it is locked down, or why it is not.
fn until_locked(
    process: &mut Process,
    word: &OwnedFd,
    page: &StartPage,
    link: &Link,
) -> Result<Locked, Fault> {
    // The page wakes the sleeper; a failure, a death and the operator are seen as late as this.
    const LOOK: Duration = Duration::from_millis(20);
    let role = process.role;
    let doing = || format!("waiting for {}", role.program());
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
        match link.next().map_err(Fault::io(doing()))? {
            Next::Nothing => {}
            Next::Gone => return Err(Fault::Ended(RunEnd::Abandoned)),
            Next::Word(word) => during_set_up(&word)?,
        }
    }
}

/// What must hold of a process that says that it is locked down, before the guest runs.
fn admit(role: Role, locked: Locked, handoff: &Handoff) -> Result<Locked, Fault> {
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

fn go(page: &StartPage) -> Result<(), Fault> {
    page.go().map_err(Fault::io("letting the guest go"))
}

fn control_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn sealed_handoff(handoff: &Handoff) -> io::Result<OwnedFd> {
    let file = memfd_create(
        "narrows-handoff",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let mut bytes = handoff_bytes(handoff);
    while !bytes.is_empty() {
        let written = rustix::io::write(&file, bytes)?;
        bytes = &bytes[written..];
    }
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

fn ring_file(handoff: &Handoff) -> io::Result<OwnedFd> {
    let vcpus = usize::try_from(handoff.vcpu_count).map_err(io::Error::other)?;
    let layout = Layout::new(vcpus, handoff.functions().len());
    let file = memfd_create(
        "narrows-ring",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    ftruncate(&file, layout.size_bytes() as u64)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

fn eventfds(count: usize) -> io::Result<Vec<OwnedFd>> {
    (0..count)
        .map(|_| Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
        .collect()
}
