//! D's set-up, in order.
//!
//! On entry: the supervisor has dropped every privilege and opened every descriptor. On exit: every function's bus master
//! is off in hardware, its model is built and published, the watcher runs, the process is locked down, and the word to go
//! was said.

use super::{
    config::DeviceBytes,
    function::Function,
    hardware::Hardware,
    serve::Server,
    watch::{self, Watch},
};
use crate::{
    handoff::{DeviceFds, Ending, Handoff, MAX_FUNCTIONS, Report, SEARCHED_BEHIND, Stage},
    lock::{Lock, Refused, StartPage},
    manifest::Role,
    ring::{DeviceSide, Layout},
    stall::{self, Point},
    sys::{
        file,
        syscall::{Errno, Fd, exit_group, write},
        thread,
        vfio::{self, Irq},
    },
};

/// The watcher's stack: it calls nothing deep.
const WATCHER_STACK_BYTES: usize = 64 << 10;

/// Why set-up failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    stage: Stage,
    errno: u32,
    detail: u64,
}

/// Builds the server, locks the process down and waits for the word to go.
///
/// # Errors
/// The stage that failed.
pub fn start() -> Result<&'static mut Server, Failure> {
    let handoff = read_handoff()?;
    let fds = check_descriptors(handoff)?;
    stall::at(handoff, Point::DeviceHandoff);
    let lock = Lock::begin(Role::Device, handoff)?;
    let at_ring = |errno| Failure::at(Stage::Ring, errno, 0);
    let page = StartPage::map(Fd::new(DeviceFds::START)).map_err(at_ring)?;
    let ring = map_ring(handoff)?;
    page.reached(handoff, Point::DeviceRing);
    let server = thread::forever(Server::new(ring, handoff.has_console != 0)).map_err(at_ring)?;
    for (index, number) in (0..MAX_FUNCTIONS).zip(0..handoff.function_count) {
        let (function, hardware) = take_over(handoff, fds, index, number)?;
        ring.publish_config(index, function.config().dwords());
        server.add(index, function, hardware).map_err(at_ring)?;
        page.reached(handoff, Point::DeviceFunction);
    }
    watch(handoff, fds, ring)?;
    page.reached(handoff, Point::DeviceWatcher);
    lock.finish(handoff, page)?;
    page.reached(handoff, Point::DeviceLocked);
    page.wait_for_go();
    #[cfg(feature = "breakout")]
    crate::breakout::run_if_asked(Role::Device, handoff);
    Ok(server)
}

/// Tells the supervisor what failed, and ends.
pub fn fail(failure: Failure) -> ! {
    say(&failure);
    exit_group(Ending::SetupFailed as u8)
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::at(Stage::Lock, refused.errno, u64::from(refused.layer))
    }
}

impl Failure {
    const fn at(stage: Stage, errno: Errno, detail: u64) -> Self {
        Self {
            stage,
            errno: errno.0,
            detail,
        }
    }
}

fn read_handoff() -> Result<&'static Handoff, Failure> {
    let read = file::read_handoff(Fd::new(DeviceFds::HANDOFF));
    let handoff = read.map_err(|errno| Failure::at(Stage::Handoff, errno, 0))?;
    let is_whole = |h: &&Handoff| h.check();
    handoff
        .filter(is_whole)
        .ok_or(Failure::at(Stage::Handoff, Errno(0), 0))
}

/// Every descriptor of the list is open, and none is behind it.
fn check_descriptors(handoff: &Handoff) -> Result<DeviceFds, Failure> {
    let fds = DeviceFds::of(handoff);
    if let Some(absent) = (0..fds.end()).find(|number| !file::is_open(Fd::new(*number))) {
        return Err(Failure::at(
            Stage::Handoff,
            Errno::BAD_FD,
            u64::from(absent),
        ));
    }
    let behind = fds.end()..fds.end().saturating_add(SEARCHED_BEHIND);
    if let Some(surplus) = behind
        .into_iter()
        .find(|number| file::is_open(Fd::new(*number)))
    {
        return Err(Failure::at(Stage::Handoff, Errno(0), u64::from(surplus)));
    }
    // Nobody gives numbers as high as these; should one be open all the same, it is not any more.
    let closed = file::close_from(Fd::new(fds.end()));
    closed.map_err(|errno| Failure::at(Stage::Handoff, errno, u64::from(fds.end())))?;
    Ok(fds)
}

fn map_ring(handoff: &Handoff) -> Result<&'static DeviceSide, Failure> {
    let at_ring = |errno| Failure::at(Stage::Ring, errno, 0);
    let size_bytes = Layout::of(handoff).size_bytes();
    let shared = StartPage::map_ring(Fd::new(DeviceFds::RING), size_bytes).map_err(at_ring)?;
    let side = DeviceSide::new(shared, handoff).ok_or(at_ring(Errno(0)))?;
    thread::forever(side).map(|side| &*side).map_err(at_ring)
}

/// Reads a device's configuration space, makes the model of it, turns the bus master off and arms error and request.
fn take_over(
    handoff: &Handoff,
    fds: DeviceFds,
    index: usize,
    number: u32,
) -> Result<(Function, Hardware), Failure> {
    let at = |stage| move |errno| Failure::at(stage, errno, u64::from(number));
    let facts = handoff
        .functions()
        .get(index)
        .ok_or(at(Stage::Handoff)(Errno(0)))?;
    let device = Fd::new(fds.device(number));

    let mut bytes: DeviceBytes = [0; 256];
    let read =
        file::read_at(device, &mut bytes, facts.config_offset).map_err(at(Stage::ConfigRead))?;
    if read != bytes.len() {
        return Err(at(Stage::ConfigRead)(Errno(0)));
    }
    let function = Function::new(&bytes, facts);
    let function = function.map_err(|_contradiction| at(Stage::ConfigContradiction)(Errno(0)))?;
    let hardware = Hardware::new(
        device,
        fds,
        facts,
        function.is_msix(),
        handoff.first_vector(index),
    );
    hardware.write_command(0).map_err(at(Stage::ConfigRead))?;

    for (irq, fd) in [
        (Irq::Error, fds.error(number)),
        (Irq::Request, fds.request(number)),
    ] {
        if vfio::has(device, irq) {
            let eventfd = core::iter::once(Fd::new(fd));
            vfio::send_to(device, irq, 0, eventfd).map_err(at(Stage::ArmInterrupt))?;
        }
    }
    Ok((function, hardware))
}

fn watch(handoff: &Handoff, fds: DeviceFds, ring: &'static DeviceSide) -> Result<(), Failure> {
    let at_thread = |errno| Failure::at(Stage::Thread, errno, 0);
    let watch = thread::forever(Watch::new(handoff, fds, ring)).map_err(at_thread)?;
    thread::spawn(watch::run, watch, 0, WATCHER_STACK_BYTES).map_err(at_thread)
}

/// Sends a [`Report`]. Where nobody listens any more, there is nobody to tell.
fn say(failure: &Failure) {
    let report = Report {
        stage: failure.stage as u32,
        errno: failure.errno,
        detail: failure.detail,
    };
    let sent = write(Fd::new(DeviceFds::CONTROL), &file::report_bytes(report));
    if sent.is_err() {
        exit_group(Ending::SetupFailed as u8);
    }
}
