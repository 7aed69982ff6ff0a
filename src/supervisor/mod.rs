//! The supervisor S: carries out a plan, waits, and takes everything apart again.
//!
//! On entry: a [`Plan`], which passed every check, and the privilege to bind drivers, open VFIO devices and pin memory.
//! While the guest runs: no descriptor that could change the guest's DMA map, no view of guest RAM.
//! On exit: the devices are reset and as they were before, the RAM is gone, V and D are gone.
//! It is the only part with capabilities, and it looks at no byte that a guest wrote.

mod assign;
mod console;
mod dma_faults;
mod ending;
mod fault;
mod files;
mod launch;
mod log;
mod ram;
mod refusal;
mod release;
mod space;
mod stats;
mod watch;

use std::{
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use iommu::{bdf::Bdf, sysfs::SysRoot};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use self::ending::{Role, RunEnd};
use self::{
    assign::Assigned,
    console::Console,
    dma_faults::DmaFaults,
    fault::Fault,
    files::{Files, check_kvm},
    launch::{Parts, Programs, Running, launch},
    log::Log,
    ram::Ram,
    stats::Stats,
    watch::Watched,
};
use crate::{
    error::{ErrorId, Report},
    plan::Plan,
    spec::OnReboot,
    state::State,
    sys::{
        map::CounterView,
        signals::{Asked, Signals},
    },
};

/// What the operator asks of `narrows run` besides the guest file.
#[derive(Clone, Debug)]
pub struct Options {
    /// The host's file system.
    pub root: SysRoot,
    /// What outlives a run: the quarantine, and which functions are in use.
    pub state: State,
    /// Where the figures go, at the end and on SIGUSR1.
    pub stats: Option<PathBuf>,
    /// No progress on standard error.
    pub is_quiet: bool,
}

/// Makes the plan again from the host as it is now.
pub type Replan<'a> = dyn Fn() -> Result<Plan, Vec<Report>> + 'a;

/// Runs a guest from its plan to its end, and gives its devices back.
///
/// # Errors
/// What kept it from starting, or from being taken apart: then the report says what is left to do by hand.
pub fn run(plan: &Plan, options: &Options, replan: &Replan<'_>) -> Result<RunEnd, Vec<Report>> {
    let log = Log::new(&plan.name, options.is_quiet);
    for warning in &plan.warnings {
        log.warn(&format!("warning[{}]: {}", warning.id, warning.what));
    }
    let mut assigned = Assigned::none(plan, &options.root);
    let mut faults = DmaFaults::none(plan);
    let ended = guest(plan, options, replan, &log, &mut assigned, &mut faults)
        .map_err(|fault| fault.into_reports(plan));
    if let Ok(end) = &ended {
        log.say(&end.sentence());
    }
    let left = assigned.release(&options.state, &log);
    // A device that goes on after its guest has ended is told of, too.
    if let Err(error) = faults.look(&log) {
        log.warn(&format!("the kernel log cannot be read any more: {error}"));
    }
    faults.finish(&log);
    match ended {
        Ok(end) if left.is_empty() => Ok(end),
        Ok(_) => Err(left),
        Err(reports) => Err([reports, left].concat()),
    }
}

/// The life of one guest, from its files to its end. What it takes from the host stays in `assigned`.
fn guest(
    plan: &Plan,
    options: &Options,
    replan: &Replan<'_>,
    log: &Log,
    assigned: &mut Assigned<'_>,
    faults: &mut DmaFaults,
) -> Result<RunEnd, Fault> {
    let mut stats = Stats::new(plan);
    let signals = Signals::take().map_err(Fault::io("blocking signals"))?;
    raise_descriptor_limit().map_err(Fault::io("raising the limit of descriptors"))?;
    forbid_core_dumps().map_err(Fault::io("forbidding core dumps"))?;
    let programs = Programs::find()?;
    check_kvm()?;
    let files = Files::open(plan)?;
    let mut console =
        Console::new(Files::console_target(plan)?).map_err(Fault::io("setting up the console"))?;

    // Before anything is touched: what could not be quarantined, or is another run's, is not taken.
    assigned.reserve(&options.state, log)?;
    faults.arm(&options.root, log)?;
    assigned.bind(log)?;
    // Device files exist only now, and the host may have changed meanwhile: all checks again, before and after opening.
    let bound = again(plan, replan)?;
    stats.interface = bound.interface.to_string();
    let space = assigned.open(bound.interface)?;
    again(plan, replan)?;
    stats.step("assigned", log);

    let mut ram = Ram::create(plan, log)?;
    stats.step("ram", log);
    let opened = assigned.opened()?;
    // Before anything of a BAR is mapped: it compares what the devices say with the plan.
    let handoff = plan.handoff(&opened)?;
    if let Some(space) = space {
        stats.dma = space.map_and_seal(plan, &ram, &files, assigned, &opened, log)?;
    }
    ram.forget_view();
    stats.step("sealed", log);

    let mut brake = Brake::new();
    loop {
        let parts = Parts {
            handoff: &handoff,
            kvm: files.kvm(),
            null: files.null(),
            ram: ram.file(),
            kernel: files.kernel(),
            initramfs: files.initramfs(),
            images: files.images(),
            devices: assigned.devices(),
            console: console.is_on().then(|| console.guest_ends()),
        };
        let running = launch(&programs, &parts, &signals)?;
        drop(parts);
        stats.step("running", log);
        let end = one_life(
            running,
            &mut console,
            &signals,
            faults,
            &mut stats,
            options,
            log,
        )?;
        if end != RunEnd::RebootRequested || plan.on_reboot == OnReboot::Exit {
            return Ok(end);
        }
        if brake.is_too_fast() {
            log.say("the guest reboots again and again: it is held for a second each time");
            if signals
                .wait(Brake::PAUSE)
                .map_err(Fault::io("waiting for signals"))?
                == Some(Asked::Stop)
            {
                return Ok(RunEnd::Stopped);
            }
        }
        stats.reboots += 1;
        log.say(&format!("the guest reboots (number {})", stats.reboots));
        assigned.reset_for_reboot()?;
    }
}

/// The plan as it would be made now: refused where a check fails by now, or a function is not what it was.
fn again(plan: &Plan, replan: &Replan<'_>) -> Result<Plan, Fault> {
    let later = replan().map_err(Fault::Refused)?;
    plan.agrees_with(&later).map_err(|bdf| {
        Report::new(
            ErrorId::DeviceChanged,
            format!("device {bdf} is not what the plan was made from"),
            "its group, its BARs, its interrupts or its reset methods differ between two readings of sysfs",
            "find out who changes the VFs of its PF, then run it again",
        )
    })?;
    Ok(later)
}

/// From the guest's first instruction until V and D are gone.
fn one_life(
    mut running: Running,
    console: &mut Console,
    signals: &Signals,
    faults: &mut DmaFaults,
    stats: &mut Stats,
    options: &Options,
    log: &Log,
) -> Result<RunEnd, Fault> {
    stats.pids = (running.vcpu.pid(), running.device.pid());
    let functions: Vec<Bdf> = faults.counted().0.iter().map(|f| f.bdf).collect();
    let Running {
        vcpu,
        device,
        counters,
    } = &mut running;
    let write = |counters: &CounterView, faults: &DmaFaults, end: Option<&RunEnd>| {
        let Some(path) = options.stats.as_deref() else {
            return;
        };
        if let Err(error) = stats.write(path, counters, faults, end) {
            log.say(&format!(
                "statistics are not written: {}: {error}",
                path.display()
            ));
        }
    };
    let mut watched = Watched {
        vcpu,
        device,
        console,
        signals,
        counters,
        faults,
        functions: &functions,
        log,
    };
    let end = watched.until_end(|counters, faults| write(counters, faults, None));
    // V first: its mappings hold the BARs open, and no vCPU may run while the device is being taken away.
    let vcpu_gone = watched.vcpu.stop();
    let device_gone = watched.device.stop();
    let mut end = end.map_err(Fault::io("waiting for the guest"))?;
    vcpu_gone.map_err(Fault::io("stopping narrows-vcpu"))?;
    device_gone.map_err(Fault::io("stopping narrows-device"))?;
    watched.console.copy_rest();
    // A guest must not hide what its device did by ending itself.
    let late = watched
        .faults
        .look(log)
        .map_err(Fault::io("reading the kernel log"))?;
    if let Some(fault) = late.filter(|_| end.is_the_guests()) {
        end = fault;
    }
    write(watched.counters, watched.faults, Some(&end));
    Ok(end)
}

/// Notices a guest that reboots so fast that it keeps the host busy with resets.
struct Brake {
    recent: [Option<Instant>; 8],
}

impl Brake {
    /// As many reboots as `recent` holds within this time are too many.
    const WINDOW: Duration = Duration::from_secs(10);
    /// How long the guest is held.
    const PAUSE: Duration = Duration::from_secs(1);

    const fn new() -> Self {
        Self { recent: [None; 8] }
    }

    /// Notes a reboot.
    fn is_too_fast(&mut self) -> bool {
        self.recent.rotate_right(1);
        let [newest, .., oldest] = &mut self.recent;
        *newest = Some(Instant::now());
        oldest.is_some_and(|oldest| oldest.elapsed() < Self::WINDOW)
    }
}

/// A core of V would hold guest RAM. V and D inherit both: the limit keeps files away, the filter leaves nothing for a
/// program in `core_pattern`, which the limit does not bind.
///
/// *Source:* core(5).
fn forbid_core_dumps() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    match std::fs::write("/proc/self/coredump_filter", "0") {
        // A kernel that writes no cores.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written,
    }
}

/// Interrupt eventfds are many; the hard limit is what the operator meant to allow.
fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, all)?)
}
