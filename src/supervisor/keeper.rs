//! The keeper K: carries out a plan, lets the guest run, and takes everything apart again.
//!
//! On entry: a [`Plan`], which passed every check, a supervisor that watches, and the privilege to bind drivers, open VFIO
//! devices and pin memory. While the guest runs: no descriptor that could change the guest's DMA map, no view of guest
//! RAM; it hears V's and D's end and the supervisor's few words, and nothing else. On exit: the devices are reset and as
//! they were before, the RAM is gone, V and D are gone.

use std::{
    io,
    time::{Duration, Instant},
};

use iommu::bdf::Bdf;

use super::{
    Options, Replan,
    assign::Assigned,
    console::GuestEnds,
    drain,
    ending::RunEnd,
    fault::Fault,
    files::{Files, check_kvm},
    inspection::{Inspector, Watched},
    launch::{Parts, Programs, Running, launch},
    link::{Ask, Heard, Link, Next, Seen, Stopped},
    log::Log,
    pace,
    process::{Life, dma_fault},
    ram::Ram,
    reserved::{Functions, Reserved},
    sandbox::{cgroup_of, make_jail},
    set_up::{guard, is_wanted},
    stats::Stats,
    watch::settle,
    wipe::Tenant,
};
use crate::{
    error::{ErrorId, Report},
    host::Anew,
    jail::{Ids, Jail, own},
    plan::Plan,
    spec::{ConsoleSpec, OnReboot},
    state,
    sys::{
        crash::{self, Step},
        map::CounterView,
        thrift::Thrift,
    },
    vf::Tenancy,
};

/// What the keeper needs beside the plan.
pub(super) struct Keeper<'a> {
    /// The plan.
    pub(super) plan: &'a Plan,
    /// What the operator asks.
    pub(super) options: &'a Options,
    /// Where lines go.
    pub(super) log: &'a Log,
    /// The supervisor.
    pub(super) link: Link,
    /// D's ends of the console.
    pub(super) console: GuestEnds,
    /// The supervisor's process id, where it is this process's parent.
    pub(super) supervisor: Option<u32>,
    /// What the supervisor has.
    pub(super) watched: Watched,
}

/// What the supervisor had to say when V and D were gone.
struct Rest {
    /// Its figures.
    seen: Seen,
    /// What was stopped and is not heard yet.
    late: Option<Stopped>,
    /// Whether the operator has asked for the end meanwhile.
    is_stop: bool,
}

impl Keeper<'_> {
    /// Runs the guest from its plan to its end, and gives its devices back.
    ///
    /// # Errors
    /// What kept it from starting, or from being taken apart: then the report says what is left to do by hand.
    pub(super) fn keep(
        &self,
        reserved: Reserved,
        ids: Ids,
        replan: Replan<'_>,
    ) -> Result<RunEnd, Vec<Report>> {
        let log = self.log;
        let mut assigned = Assigned::none(self.plan, &self.options.root);
        let mut tenant = Tenant::default();
        let mut jail = None;
        // Nobody else may have the name, and with it the cgroups, until all is given back.
        let Reserved { name, functions } = reserved;
        let begun = (ids, functions, replan);
        let ended = match self.guest(begun, &name, &mut assigned, &mut tenant, &mut jail) {
            Err(Fault::Ended(end)) => Ok(end),
            ended => ended.map_err(|fault| fault.into_reports(self.plan)),
        };
        if let Ok(end) = &ended {
            log.say(&end.sentence());
        }
        // The devices wait for their resets together. Without room they wait one after the other, and are given back all the same.
        if let Some(Err(narrow)) = jail.as_ref().map(Jail::make_room) {
            let (what, why, fix) = (narrow.what, narrow.why.join("; "), narrow.fix);
            log.warn(&format!(
                "{what}: {why}; the devices are reset one after the other. For the next run: {fix}"
            ));
        }
        let released = assigned.taken.release(&self.options.state, log);
        // Only now does no device write to it any more.
        let unwiped = tenant.wipe(self.plan, log);
        // V and D are gone, and so is the memory that was charged to the guest.
        let unclosed = jail.and_then(|jail| jail.close().err());
        crash::point(Step::JailClosed);
        drop(name);
        let mut left = released.end(&self.options.state, unclosed.into_iter().collect(), log);
        left.extend(unwiped);
        // A device that goes on after its guest has ended is told of, too.
        if let Err(error) = self.rest(Ask::Finish) {
            log.warn(&format!("the supervisor does not answer: {error}"));
        }
        match ended {
            Ok(end) if left.is_empty() => Ok(end),
            Ok(_) => Err(left),
            Err(reports) => Err([reports, left].concat()),
        }
    }

    /// The life of one guest, from its files to its end. What it takes from the host stays in `assigned` and `jail`,
    /// what it wrote in `tenant`.
    fn guest<'a>(
        &'a self,
        (ids, functions, replan): (Ids, Functions, Replan<'_>),
        name: &state::Running,
        assigned: &mut Assigned<'a>,
        tenant: &mut Tenant,
        jail: &mut Option<Jail>,
    ) -> Result<RunEnd, Fault> {
        let (plan, options, log) = (self.plan, self.options, self.log);
        let mut stats = Stats::new(plan);
        let programs = Programs::find()?;
        check_kvm()?;

        // Before anything is touched: what is another guest's lease is not taken.
        assigned.reserve(functions, &options.state, log)?;
        assigned.write_down(&options.state, cgroup_of(plan)?)?;
        // Before anything is made present in memory, so that it counts as the guest's.
        let own: Vec<u32> = self
            .supervisor
            .into_iter()
            .chain([std::process::id()])
            .collect();
        let jail = jail.insert(make_jail(plan, ids, &own)?);
        crash::point(Step::JailMade);
        // It reads what hostile hands can write to only when it has nothing to lose any more.
        let guarded = guard(&self.link, jail)?;
        let speaker = guarded.speaker.map(|speaker| speaker.pid);
        stats.supervisor = self.supervisor.or(speaker).unwrap_or(0);
        let files = &*tenant.files.insert(Files::open(plan)?);
        assigned.take_leases(&options.state)?;
        assigned.bind(log)?;
        // Device files exist only now, and the host may have changed meanwhile: all checks again, before and after opening.
        let interface = again(plan, &replan, Anew::DevicesAndMemory)?.interface;
        stats.interface = interface.to_string();
        let mut opened = || {
            let space = assigned.open(interface)?;
            again(plan, &replan, Anew::Devices)?;
            stats.step("assigned", log);
            Ok(space)
        };
        let root = &options.root;
        // An operator who stops a start does not wait for RAM to be there.
        let is_wanted = || is_wanted(&self.link, || "making RAM".to_owned());
        let beside = || Ram::create_beside(plan, root, log, &mut opened, is_wanted);
        let (space, ram) = jail.with_threads(beside)?;
        drop(replan);
        let ram = tenant.ram.insert(ram);
        crash::point(Step::RamMade);
        stats.step("ram", log);
        let opened = assigned.opened()?;
        // Before anything of a BAR is mapped: it compares what the devices say with the plan.
        let handoff = plan.handoff(&opened)?;
        if let Some(space) = space {
            stats.dma = space.map_and_seal(plan, ram, files, assigned, &opened, log)?;
        }
        jail.with_threads(|| ram.forget_view())?;
        stats.step("sealed", log);

        assigned.leases_in_use(&options.state)?;
        // What needed more is done: files, devices, memory, cgroups.
        let has_nics = plan.leases().any(|lease| lease.interface.is_some());
        #[cfg(not(feature = "breakout"))]
        own::keep_capabilities(has_nics)?;
        #[cfg(feature = "breakout")]
        match &options.breakout {
            Some(asked) if asked.leaves_layers_away() => jail.lift_own_limits()?,
            Some(_) | None => own::keep_capabilities(has_nics)?,
        }
        let inspector = Inspector {
            plan,
            root: &options.root,
            supervisor: self.supervisor,
            watched: &self.watched,
            guarded,
            jail,
            running: name,
            log,
        };
        #[cfg(feature = "breakout")]
        if let Some(asked) = &options.breakout {
            let mut harness = super::breakout::Harness {
                programs: &programs,
                jail,
                inspector: &inspector,
                handoff: &handoff,
                files,
                ram,
                console: (plan.console != ConsoleSpec::Off).then(|| self.console.both()),
                assigned,
                link: &self.link,
                attack: asked.attack,
                launches: 0,
            };
            super::breakout::run(&mut harness, asked, log)?;
            return Ok(RunEnd::PoweredOff);
        }
        let mut brake = Brake::new();
        loop {
            let (devices, mut noting) = assigned.for_launch();
            let parts = Parts {
                handoff: &handoff,
                kvm: files.kvm(),
                null: files.null(),
                ram: ram.file(),
                kernel: files.kernel(),
                initramfs: files.initramfs(),
                images: files.images(),
                devices,
                console: (plan.console != ConsoleSpec::Off).then(|| self.console.both()),
                tenancy: match stats.reboots {
                    0 => Tenancy::Begins,
                    _ => Tenancy::GoesOn,
                },
            };
            let inspector = Some(&inspector);
            let running = launch(&programs, jail, inspector, &parts, &self.link, &mut noting)?;
            drop(parts);
            stats.step("running", log);
            let end = self.one_life(running, &mut stats)?;
            name.remove()
                .map_err(Fault::io("removing the record of the guest"))?;
            if end != RunEnd::RebootRequested || plan.on_reboot == OnReboot::Exit {
                return Ok(end);
            }
            if brake.is_too_fast() {
                log.say("the guest reboots again and again: it is held for a second each time");
                if let Some(end) = self.pause(Brake::PAUSE)? {
                    return Ok(end);
                }
            }
            stats.reboots += 1;
            log.say(&format!("the guest reboots (number {})", stats.reboots));
            jail.with_threads(|| assigned.reset_for_reboot())?;
        }
    }

    /// From the guest's first instruction until V and D are gone.
    fn one_life(&self, mut running: Running, stats: &mut Stats) -> Result<RunEnd, Fault> {
        stats.pids = (running.vcpu.pid(), running.device.pid());
        let functions: Vec<Bdf> = self.plan.functions.iter().map(|f| f.bdf).collect();
        let Running {
            vcpu,
            device,
            counters,
            ..
        } = &mut running;
        let counters: &CounterView = counters;
        let mut life = Life {
            vcpu,
            device,
            counters,
            link: &self.link,
            functions: &functions,
        };
        // It may be too busy to hear it, and so is not thrifty yet.
        let offered = self.link.offer(&Ask::Settle);
        settle(&Thrift::new(), self.log);
        let end = offered.and_then(|_is_heard| {
            life.until_end(|seen| {
                stats.seen = seen;
                self.write(stats, counters, None);
            })
        });
        // V first: its mappings hold the BARs open, and no vCPU may run while the device is being taken away.
        let vcpu_gone = life.vcpu.stop();
        crash::point(Step::VcpuStopped);
        // What the guest said last is still on its way: D goes on with that, and no request comes any more.
        let drained = match &end {
            Ok(end) if drain::is_due(end) => drain::wait(life.device, || counters.console_left()),
            Ok(_) | Err(_) => Ok(0),
        };
        let device_gone = life.device.stop();
        crash::point(Step::DeviceStopped);
        let mut end = end.map_err(Fault::io("waiting for the guest"))?;
        vcpu_gone.map_err(Fault::io("stopping narrows-vcpu"))?;
        device_gone.map_err(Fault::io("stopping narrows-device"))?;
        drained.map_err(Fault::io("waiting for the console"))?;
        let lost = counters.console_left();
        if lost > 0 {
            self.log.say(&format!(
                "the last {lost} bytes of the console are lost: they were not taken in time"
            ));
        }
        // A guest must not hide what its device did by ending itself.
        let rest = self
            .rest(Ask::Rest)
            .map_err(Fault::io("asking the supervisor for what is left"))?;
        if let Some(late) = rest.late.filter(|_| end.is_the_guests()) {
            end = self.stopped(&late)?;
        }
        // Nor must it start again by rebooting just when the operator stops it.
        if rest.is_stop && end == RunEnd::RebootRequested {
            end = RunEnd::Stopped;
        }
        if rest.seen != Seen::default() {
            stats.seen = rest.seen;
        }
        self.write(stats, counters, Some(&end));
        Ok(end)
    }

    /// Asks for what the supervisor has seen, and what it sees only now. What was said meanwhile is not lost.
    fn rest(&self, ask: Ask) -> io::Result<Rest> {
        let (mut earlier, mut is_stop) = (None, false);
        let answer = self.link.ask(ask, |word| match word {
            Heard::Rest { seen, late } => Some((seen, late)),
            Heard::Stop => {
                is_stop = true;
                None
            }
            Heard::Fault { stopped } => {
                earlier.get_or_insert(stopped);
                None
            }
            Heard::Failed { doing, why } => {
                self.log.warn(&format!("the supervisor: {doing}: {why}"));
                None
            }
            Heard::Statistics { .. } | Heard::Guarded { .. } | Heard::Call { .. } => None,
        })?;
        if answer.is_none() {
            self.log
                .warn("the supervisor does not say what it has seen of stopped DMA");
        }
        let (seen, late) = answer.unwrap_or_default();
        Ok(Rest {
            seen,
            late: earlier.or(late),
            is_stop,
        })
    }

    /// The end for a request that the IOMMU stopped.
    fn stopped(&self, stopped: &Stopped) -> Result<RunEnd, Fault> {
        let functions: Vec<Bdf> = self.plan.functions.iter().map(|f| f.bdf).collect();
        dma_fault(&functions, stopped).map_err(Fault::io("hearing the supervisor"))
    }

    /// Writes the figures, where the operator wants them.
    fn write(&self, stats: &Stats, counters: &CounterView, end: Option<&RunEnd>) {
        let Some(path) = self.options.stats.as_deref() else {
            return;
        };
        if let Err(error) = stats.write(path, counters, end) {
            self.log.say(&format!(
                "statistics are not written: {}: {error}",
                path.display()
            ));
        }
    }

    /// Lets some time pass; the end, where there is a reason for it meanwhile.
    fn pause(&self, time: Duration) -> Result<Option<RunEnd>, Fault> {
        let over = Instant::now() + time;
        loop {
            let left = over.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let word = self.link.wait(left);
            match word.map_err(Fault::io("hearing the supervisor"))? {
                Next::Word(Heard::Stop) => return Ok(Some(RunEnd::Stopped)),
                Next::Word(Heard::Fault { stopped }) => return self.stopped(&stopped).map(Some),
                Next::Word(Heard::Failed { doing, why }) => {
                    return Err(Fault::io(doing)(io::Error::other(why)));
                }
                Next::Gone => return Ok(Some(RunEnd::Abandoned)),
                Next::Nothing => {}
                // There is nothing to write figures from, and the others answer nothing.
                Next::Word(_) => pace::breathe(),
            }
        }
    }
}

/// The plan as it would be made now: refused where a check fails by now, or a function is not what it was.
fn again(plan: &Plan, replan: &Replan<'_>, anew: Anew) -> Result<Plan, Fault> {
    let later = replan(anew).map_err(Fault::Refused)?;
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
