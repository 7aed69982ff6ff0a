//! Starting V and D: the sealed handoff, the ring, the eventfds, and the exact list of descriptors of each.
//!
//! On entry: the DMA map is complete and sealed, bus masters are off. On exit: both processes have built the guest
//! and run it, and the supervisor keeps no descriptor of the ring or of an interrupt.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
};

use jailed::{
    handoff::{DeviceFds, FIRST_FD, Handoff, VcpuFds},
    manifest,
    ring::Layout,
};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};

use super::{
    ending::Role,
    fault::Fault,
    given::{given, memory},
    inspection::{Inspector, Waiting},
    link::Link,
    noting::Noting,
    process::{Process, forbidden},
    set_up::{LOCKING, admit, until_locked},
};
use crate::{
    jail::{Descriptors, Jail, Member, Program},
    sys::{
        crash::{self, Step, Who},
        map::{CounterView, handoff_bytes},
        start::StartPage,
    },
    vf::Tenancy,
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
    /// Whether the guest has lived with its VFs already.
    pub(super) tenancy: Tenancy,
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
    noting: &mut Noting<'_>,
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
    drop(device_end);
    let locked = noting
        .note(device.pid())
        .inspect(|()| crash::point(Step::DeviceStarted))
        .and_then(|()| until_locked(&mut device, &device_word, &device_start, link, LOCKING))
        .and_then(|locked| admit(Role::Device, locked, parts.handoff));
    let device_locked = match locked {
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
    drop(vcpu_end);
    let gone = noting
        .note(vcpu.pid())
        .inspect(|()| crash::point(Step::VcpuStarted))
        .and_then(|()| until_locked(&mut vcpu, &vcpu_word, &vcpu_start, link, LOCKING))
        .and_then(|locked| admit(Role::Vcpu, locked, parts.handoff))
        .inspect(|_| crash::point(Step::VcpuReady))
        .and_then(|locked| {
            jail.share_cores(device.pid(), vcpu.pid())?;
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
                // Last, so that there is next to no time to change them in.
                inspector
                    .admit(programs, parts.handoff, device, vcpu)
                    .and_then(|()| inspector.verify_leases(parts.tenancy))
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
fn stopped(fault: Fault, processes: &mut [&mut Process]) -> Fault {
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

fn go(page: &StartPage) -> Result<(), Fault> {
    page.go().map_err(Fault::io("letting the guest go"))
}

/// The socket by which V or D says what failed: our end, and its own.
///
/// # Errors
/// The errno of `socketpair`.
pub(super) fn control_pair() -> io::Result<(OwnedFd, OwnedFd)> {
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

/// The memory that V and D share, and behind it the ones that the guest reads where no function is.
///
/// # Errors
/// The errno of `memfd_create`, `ftruncate`, `pwrite64` or `fcntl`.
pub(super) fn ring_file(handoff: &Handoff) -> io::Result<OwnedFd> {
    let vcpus = usize::try_from(handoff.vcpu_count).map_err(io::Error::other)?;
    let layout = Layout::new(vcpus, handoff.functions().len());
    let file = File::from(memfd_create(
        "narrows-ring",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?);
    file.set_len(layout.file_bytes() as u64)?;
    file.write_all_at(&[u8::MAX; Layout::ONES_BYTES], layout.ones() as u64)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}

fn eventfds(count: usize) -> io::Result<Vec<OwnedFd>> {
    (0..count)
        .map(|_| Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_what_is_shared_are_ones_and_nothing_else_is_set() {
        let handoff = Handoff {
            vcpu_count: 2,
            ..Handoff::empty()
        };
        let layout = Layout::of(&handoff);
        let file = File::from(ring_file(&handoff).unwrap());
        let len_bytes = usize::try_from(file.metadata().unwrap().len()).unwrap();
        assert_eq!(len_bytes, layout.file_bytes());
        let mut bytes = vec![0; len_bytes];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let (shared, ones) = bytes.split_at(layout.ones());
        assert!(shared.iter().all(|byte| *byte == 0));
        assert!(ones.iter().all(|byte| *byte == u8::MAX));
    }
}
