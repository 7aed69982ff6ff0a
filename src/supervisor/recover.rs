//! What a run that was killed has left behind, put right.
//!
//! On entry: journals that nobody has locked; their runs are dead. On exit, for each: its processes are gone, its
//! functions are silent, reset, compared with what they were, and bound as before or in quarantine, its cgroups are
//! removed, and so is the journal; or the journal is there still, with a report of what stands in the way. Done twice, the
//! second time does nothing.

use std::{
    fs,
    io::{self, Write},
    path::{Component, Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use iommu::{
    IommuError as Error,
    bdf::Bdf,
    bind::{self, VFIO_PCI, is_placeholder},
    clean::ConfigSnapshot,
    device::Device,
    space::{AddressSpace, Attaching, DeviceNode, Interface},
    sysfs::SysRoot,
    topology::{Topology, function_path, read_driver},
};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::{
    assign::{Opened, Taken},
    log::Log,
    processes,
    release::traces,
};
use crate::{
    error::{ErrorId, Report},
    state::{self, Changes, InUse, Journal, Left, Running, State},
};

/// How long the kernel may take to close what a process had that was killed.
const CLOSING: Duration = Duration::from_secs(10);
const CLOSING_POLL: Duration = Duration::from_millis(10);

/// What was done about one journal.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The guest, its process and since when; the file's name where the file is damaged.
    pub whose: String,
    /// What was done, or would be.
    pub steps: Vec<String>,
    /// What could not be done.
    pub left: Vec<Report>,
}

/// Puts right what dead runs have left behind, and touches nothing of one that lives. With `is_dry`, only tells what it
/// would do. With `is_silent`, tells nothing on the way.
///
/// # Errors
/// `state-unreadable`.
pub fn recover(
    root: &SysRoot,
    state: &State,
    is_dry: bool,
    is_silent: bool,
) -> Result<Vec<Recovered>, Report> {
    let mut all = Vec::new();
    for left in state.left_behind()? {
        all.push(match left {
            Left::Damaged(report) => Recovered {
                whose: "a run that is not known".to_owned(),
                steps: Vec::new(),
                left: vec![report],
            },
            Left::Dead(journal) => {
                let whose = journal.changes().whose();
                let guest = journal.changes().guest.clone();
                let log = Log::keeping(&guest, is_silent || is_dry);
                let left = if is_dry {
                    foretell(root, journal.changes(), &log)
                } else {
                    put_right(root, state, journal, &log)
                };
                Recovered {
                    whose,
                    steps: log.into_lines(),
                    left,
                }
            }
        });
    }
    Ok(all)
}

/// What is to be done, and what is known to stand in the way.
fn foretell(root: &SysRoot, changes: &Changes, log: &Log) -> Vec<Report> {
    match is_of_this_boot(root, changes) {
        Ok(true) => {}
        Ok(false) => {
            log.say("the host has booted since: only the journal would be removed");
            return Vec::new();
        }
        Err(report) => return vec![report],
    }
    for process in &changes.processes {
        if let Ok(Some(found)) = processes::identify(root, process.pid)
            && found == *process
        {
            log.say(&format!("{process} would be killed"));
        }
    }
    if let Some(cgroup) = &changes.cgroup {
        log.say(&format!(
            "{} would be emptied and removed",
            cgroup.display()
        ));
    }
    for taken in &changes.functions {
        let bdf = taken.binding.bdf();
        let now = match read_driver(root, bdf) {
            _ if !bind::is_there(root, bdf) => {
                log.say(&format!("{bdf} is gone: nothing would be done"));
                continue;
            }
            Ok(now) => now,
            Err(error) => return vec![not_recovered(bdf, &error.to_string())],
        };
        let or_none = |driver: Option<&str>| driver.unwrap_or("no driver").to_owned();
        log.say(&format!(
            "{bdf} would be reset, compared and bound as before ({}; now {})",
            or_none(taken.binding.driver_before()),
            or_none(now.as_deref())
        ));
    }
    Vec::new()
}

/// Puts right what one run has left behind; what could not be.
fn put_right(root: &SysRoot, state: &State, journal: Journal, log: &Log) -> Vec<Report> {
    let changes = journal.changes().clone();
    match is_of_this_boot(root, &changes) {
        Ok(true) => {}
        Ok(false) => {
            log.say("the host has booted since: nothing of it is left");
            return removed(state, journal);
        }
        Err(report) => return vec![report],
    }
    let bdfs = changes.functions.iter().map(|taken| taken.binding.bdf());
    let mut taken = Taken::none(&changes.guest, bdfs.collect(), root);
    // Before anything else: no run may begin with one of the functions now.
    for &bdf in &taken.functions {
        match InUse::take(state, bdf, &format!("{} (recovered)", changes.guest)) {
            Ok(lock) => taken.reserved.push(lock),
            Err(report) => return vec![report],
        }
    }
    let mut left = end_processes(root, &changes, log);
    match (&changes.cgroup, Running::take(state, &changes.guest)) {
        // The name goes with the cgroups, and keeps a new run from them meanwhile.
        (Some(cgroup), Ok(_name)) => {
            left.extend(remove_cgroups(root, cgroup, &changes.guest, log).err());
        }
        (Some(_), Err(report)) if report.id == ErrorId::GuestNameTaken => log.say(&format!(
            "guest {} runs again: its cgroups are its own",
            changes.guest
        )),
        (Some(_), Err(report)) => left.push(report),
        (None, _) => {}
    }
    left.extend(take_over(&mut taken, &changes.functions, log));
    taken.journal = Some(journal);
    // What stands in the way keeps the journal, for the next time.
    taken.release(state, log).end(state, left)
}

/// Whether the host has not booted since; what another boot had is gone.
fn is_of_this_boot(root: &SysRoot, changes: &Changes) -> Result<bool, Report> {
    let boot = processes::boot(root).map_err(|error| {
        Report::new(
            ErrorId::HostUnreadable,
            "it cannot be told whether the host has booted since",
            error.to_string(),
            "mount /proc",
        )
    })?;
    Ok(boot == changes.boot)
}

fn removed(state: &State, journal: Journal) -> Vec<Report> {
    let path = journal.path().to_owned();
    match journal.remove() {
        Ok(()) => Vec::new(),
        Err(error) => vec![state.unwritable(&path, &error)],
    }
}

fn end_processes(root: &SysRoot, changes: &Changes, log: &Log) -> Vec<Report> {
    let mut left = Vec::new();
    for process in &changes.processes {
        match processes::end(root, *process) {
            Ok(false) => {}
            Ok(true) => log.say(&format!("{process} was there still: it was killed")),
            Err(error) => left.push(not_put_right(
                format!("{process} of guest {} is not gone", changes.guest),
                &error,
                "see the kernel log: a process that cannot be killed waits for a device",
            )),
        }
    }
    left
}

/// Kills all that is in the guest's cgroups, and removes them.
fn remove_cgroups(root: &SysRoot, cgroup: &Path, guest: &str, log: &Log) -> Result<(), Report> {
    let failed = |error: io::Error| {
        not_put_right(
            format!("the cgroup {} is not removed", cgroup.display()),
            &error,
            "see what is in it (cgroup.procs), end that, then: narrows recover",
        )
    };
    // All in it is killed: nothing else than a guest's own folder may be meant.
    if !is_folder_of(cgroup, guest) {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let folder = root.path(cgroup.strip_prefix("/").unwrap_or(cgroup));
    if !folder.exists() {
        return Ok(());
    }
    // A run holds this lock as long as it has the cgroups, in whichever state folder it has its name.
    let lock = fs::File::open(&folder).map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::AGAIN) => {
            log.say(&format!(
                "guest {guest} runs again: {} is its own",
                cgroup.display()
            ));
            return Ok(());
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    kill_cgroup(&folder)
        .and_then(|()| remove_emptied(&folder))
        .map_err(failed)?;
    log.say(&format!("{} is removed", cgroup.display()));
    // The folder above stays: other guests' are there, or will be.
    Ok(())
}

/// Whether `cgroup` is what a run makes for `guest`: `/sys/fs/cgroup/…/narrows/GUEST`.
fn is_folder_of(cgroup: &Path, guest: &str) -> bool {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
    cgroup.components().all(is_plain)
        && cgroup.starts_with("/sys/fs/cgroup")
        && cgroup.ends_with(Path::new("narrows").join(guest))
        && Path::new(guest).components().count() == 1
}

fn kill_cgroup(folder: &Path) -> io::Result<()> {
    let kill = fs::OpenOptions::new()
        .write(true)
        .open(folder.join("cgroup.kill"));
    match kill {
        Ok(mut file) => file.write_all(b"1"),
        // A kernel before 5.14: the processes that are known were killed one by one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a cgroup with those below it, each as soon as the kernel has emptied it.
fn remove_emptied(folder: &Path) -> io::Result<()> {
    let mut below: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            below.push(entry.path());
        }
    }
    for folder in below {
        remove_emptied(&folder)?;
    }
    let deadline = Instant::now() + CLOSING;
    loop {
        match fs::remove_dir(folder) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                thread::sleep(CLOSING_POLL);
            }
            done => return done,
        }
    }
}

/// Takes the functions as the dead run had them, so that they can be given back as at the end of any run. What is in the
/// way of that.
fn take_over(taken: &mut Taken<'_>, functions: &[state::Taken], log: &Log) -> Vec<Report> {
    let root = taken.root;
    let mut left = Vec::new();
    let mut opener = None;
    for function in functions {
        let bdf = function.binding.bdf();
        if !bind::is_there(root, bdf) {
            log.say(&format!("{bdf} is gone: the host has removed it"));
            continue;
        }
        let before = function
            .before
            .as_deref()
            .and_then(ConfigSnapshot::from_hex);
        match read_driver(root, bdf) {
            Err(error) => {
                left.push(not_recovered(bdf, &error.to_string()));
                continue;
            }
            Ok(Some(driver)) if !is_placeholder(&driver) => {
                log.say(&format!(
                    "{bdf} was given to the host's driver {driver} since: it is left alone"
                ));
                continue;
            }
            Ok(Some(driver)) if driver == VFIO_PCI => {
                match open(&mut opener, root, bdf) {
                    Ok(device) => taken.devices.push(Opened { device, before }),
                    Err(error @ Error::NodeBusy { .. }) => {
                        left.push(busy(bdf, &error));
                        continue;
                    }
                    // One that wants its PF's token, or that the kernel will not open: reset from outside.
                    Err(error) => {
                        log.say(&format!("{bdf} cannot be opened: {error}"));
                        taken.unclean.push((bdf, reset(root, bdf, before.as_ref())));
                    }
                }
            }
            Ok(_) => taken.unclean.push((bdf, reset(root, bdf, before.as_ref()))),
        }
        taken.bound.push(function.binding.clone());
    }
    left
}

/// Opens a function, once nobody has it any more.
fn open(
    opener: &mut Option<(Topology, AddressSpace<Attaching>)>,
    root: &SysRoot,
    bdf: Bdf,
) -> Result<Device, Error> {
    let deadline = Instant::now() + CLOSING;
    let (topology, space) = match opener {
        Some(opened) => opened,
        None => {
            let topology = Topology::read(root)?;
            let interface = Interface::detect(&topology, &[bdf]);
            opener.insert((topology, AddressSpace::open(interface, root)?))
        }
    };
    let node = DeviceNode::of(topology, bdf)?;
    loop {
        match space.attach(&node) {
            Err(Error::NodeBusy { .. }) if Instant::now() < deadline => {
                thread::sleep(CLOSING_POLL);
            }
            opened => return opened,
        }
    }
}

/// Resets a function that is not opened, where the kernel can; what keeps it from counting as clean.
fn reset(root: &SysRoot, bdf: Bdf, before: Option<&ConfigSnapshot>) -> Vec<String> {
    if root.exists(function_path(bdf).join("reset"))
        && let Err(error) = bind::reset(root, bdf)
    {
        return vec![error.to_string()];
    }
    traces(root, bdf, before)
}

fn busy(bdf: Bdf, error: &Error) -> Report {
    Report::new(
        ErrorId::DeviceInUse,
        format!("{bdf} is not recovered"),
        error.to_string(),
        "see who has it open (fuser /dev/vfio/*), end that, then: narrows recover",
    )
}

fn not_recovered(bdf: Bdf, why: &str) -> Report {
    Report::new(
        ErrorId::HostNotRestored,
        format!("{bdf} is not recovered"),
        why,
        "put right what is said above, then: narrows recover",
    )
}

fn not_put_right(what: String, error: &io::Error, fix: &str) -> Report {
    Report::new(ErrorId::HostNotRestored, what, error.to_string(), fix)
}

#[cfg(test)]
#[path = "recover_test.rs"]
mod tests;
