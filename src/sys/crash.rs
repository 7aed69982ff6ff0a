//! The steps of a run at which the lab's tests kill a process, to see what is left and that it can be put right. Here
//! because they are taken in several folders.
//!
//! Without the feature `breakout` [`point`] is empty. With it, `NARROWS_CRASH_AT=STEP` or `STEP:N` has the N-th time that
//! the step is reached kill the process that takes it, or the one that `NARROWS_CRASH_WHO` names. `narrows crash-steps`
//! lists the steps, so that the test walks all of them and a new one cannot be forgotten.

/// A moment of a run. The name says what was done last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The functions' locks are taken.
    Reserved,
    /// A VF's lease is written down.
    Leased,
    /// The journal is on the disk; nothing of the host was changed.
    JournalWritten,
    /// An attribute of a leased VF is set.
    AttributeSet,
    /// A namespace is attached to a leased VF.
    NamespaceAttached,
    /// The guest has cgroups and users of its own.
    JailMade,
    /// A function is bound to vfio-pci.
    Bound,
    /// A function is open and attached.
    Attached,
    /// A function is reset and silent.
    Silenced,
    /// What the functions are like before the guest is in the journal.
    SnapshotsWritten,
    /// RAM is present.
    RamMade,
    /// A piece of memory is mapped for the devices.
    Mapped,
    /// The map is sealed.
    Sealed,
    /// The records say that the guest runs with its VFs.
    InUseWritten,
    /// D's process exists.
    DeviceStarted,
    /// D has built its model.
    DeviceReady,
    /// V's process exists.
    VcpuStarted,
    /// V has built the guest.
    VcpuReady,
    /// Both were found to be what they are meant to be.
    Inspected,
    /// Both were told to go.
    Gone,
    /// The guest has ended; V is gone.
    VcpuStopped,
    /// D is gone.
    DeviceStopped,
    /// The guest asked for a reboot; its devices are reset.
    ResetForReboot,
    /// No device is bus master any more.
    MastersOff,
    /// A device is reset, read back and closed.
    Closed,
    /// A function has its driver from before.
    Restored,
    /// The record of a leased VF says that its guest has ended.
    Dirty,
    /// A leased VF is at rest, and that is written down.
    Rested,
    /// The namespaces of a leased VF are about to be erased.
    Sanitising,
    /// They are erased.
    Erased,
    /// A function that is not clean is about to be put into quarantine.
    Unclean,
    /// It is in quarantine.
    Quarantined,
    /// All functions are given back.
    GivenBack,
    /// The guest has no cgroups any more; the journal is about to be removed.
    JailClosed,
    /// The journal is removed.
    JournalRemoved,
    /// The journal of an apply is on the disk; nothing of the host was changed.
    HostJournalWritten,
    /// A step of an apply is about to be carried out.
    HostStepBegun,
    /// It is done and read back; the journal says so with the next one.
    HostStepDone,
    /// All steps of an apply are done, and the records say so; its journal is about to be removed.
    HostSettled,
}

/// What a run must be like to reach a step.
#[cfg(feature = "breakout")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// Any run.
    Once,
    /// Any run, once for each function or mapping.
    Each,
    /// One whose guest reboots.
    Reboot,
    /// One whose device cannot be reset at the end.
    Unclean,
    /// No run: an apply, once.
    Host,
    /// No run: an apply, once for each step.
    HostEach,
    /// One with a VF of a pool: once or more for each.
    Lease,
}

/// The table of steps.
#[cfg(feature = "breakout")]
const STEPS: &[(Step, &str, Reached)] = {
    use Reached::{Each, Host, HostEach, Lease, Once, Reboot, Unclean};
    &[
        (Step::Reserved, "reserved", Once),
        (Step::Leased, "leased", Lease),
        (Step::JournalWritten, "journal-written", Once),
        (Step::AttributeSet, "attribute-set", Lease),
        (Step::NamespaceAttached, "namespace-attached", Lease),
        (Step::JailMade, "jail-made", Once),
        (Step::Bound, "bound", Each),
        (Step::Attached, "attached", Each),
        (Step::Silenced, "silenced", Each),
        (Step::SnapshotsWritten, "snapshots-written", Once),
        (Step::RamMade, "ram-made", Once),
        (Step::Mapped, "mapped", Once),
        (Step::Sealed, "sealed", Once),
        (Step::InUseWritten, "in-use-written", Lease),
        (Step::DeviceStarted, "device-started", Once),
        (Step::DeviceReady, "device-ready", Once),
        (Step::VcpuStarted, "vcpu-started", Once),
        (Step::VcpuReady, "vcpu-ready", Once),
        (Step::Inspected, "inspected", Once),
        (Step::Gone, "gone", Once),
        (Step::VcpuStopped, "vcpu-stopped", Once),
        (Step::DeviceStopped, "device-stopped", Once),
        (Step::ResetForReboot, "reset-for-reboot", Reboot),
        (Step::MastersOff, "masters-off", Once),
        (Step::Closed, "closed", Each),
        (Step::Restored, "restored", Each),
        (Step::Dirty, "dirty", Lease),
        (Step::Rested, "rested", Lease),
        (Step::Sanitising, "sanitising", Lease),
        (Step::Erased, "erased", Lease),
        (Step::Unclean, "unclean", Unclean),
        (Step::Quarantined, "quarantined", Unclean),
        (Step::GivenBack, "given-back", Once),
        (Step::JailClosed, "jail-closed", Once),
        (Step::JournalRemoved, "journal-removed", Once),
        (Step::HostJournalWritten, "host-journal-written", Host),
        (Step::HostStepBegun, "host-step-begun", HostEach),
        (Step::HostStepDone, "host-step-done", HostEach),
        (Step::HostSettled, "host-settled", Host),
    ]
};

/// A process of a run, by its name in `NARROWS_CRASH_WHO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// V.
    Vcpu,
    /// D.
    Device,
    /// S, where that is another process than the one that takes the steps.
    Supervisor,
}

/// Nothing.
#[cfg(not(feature = "breakout"))]
#[inline(always)]
pub const fn point(_: Step) {}

/// Nothing.
#[cfg(not(feature = "breakout"))]
#[inline(always)]
pub const fn is_running(_: Who, _: u32) {}

#[cfg(feature = "breakout")]
pub use self::armed::{is_running, point, steps};

#[cfg(feature = "breakout")]
mod armed {
    use std::{
        env,
        sync::atomic::{AtomicU32, Ordering},
    };

    use jailed::stall::POINTS;
    use rustix::process::{Pid, Signal, getpid, kill_process};

    use super::{Reached, STEPS, Step, Who};

    /// Process ids by [`Who`], 0 where there is none.
    static PROCESSES: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
    /// How often the step that is asked for was reached.
    static TIMES: AtomicU32 = AtomicU32::new(0);

    /// Notes a process that can be killed from now on.
    pub fn is_running(who: Who, pid: u32) {
        PROCESSES[who as usize].store(pid, Ordering::Relaxed);
    }

    /// Kills who is to be killed, if `step` is the one.
    pub fn point(step: Step) {
        let Some((_, name, _)) = STEPS.iter().find(|row| row.0 == step) else {
            return;
        };
        let Ok(asked) = env::var("NARROWS_CRASH_AT") else {
            return;
        };
        let (at, number) = asked.split_once(':').unwrap_or((&asked, "1"));
        if at != *name {
            return;
        }
        let times = TIMES.fetch_add(1, Ordering::Relaxed) + 1;
        if number.parse() != Ok(times) {
            return;
        }
        let pid = match env::var("NARROWS_CRASH_WHO").as_deref() {
            Ok("vcpu") => pid_of(Who::Vcpu),
            Ok("device") => pid_of(Who::Device),
            Ok("supervisor") => pid_of(Who::Supervisor).or(Some(getpid())),
            _ => Some(getpid()),
        };
        if let Some(pid) = pid {
            // One that has gone in the meantime is as good as killed.
            kill_process(pid, Signal::KILL).ok();
        }
    }

    fn pid_of(who: Who) -> Option<Pid> {
        let pid = PROCESSES[who as usize].load(Ordering::Relaxed);
        Pid::from_raw(i32::try_from(pid).ok()?)
    }

    /// One line for each step of the supervisor, its name and how it is reached, and for each point of V's and D's set-up.
    #[must_use]
    pub fn steps() -> String {
        let stalls = POINTS.iter().map(|(_, name)| format!("{name} stall\n"));
        let steps = STEPS.iter().map(|(_, name, reached)| {
            let how = match reached {
                Reached::Once => "once",
                Reached::Each => "each",
                Reached::Reboot => "reboot",
                Reached::Unclean => "unclean",
                Reached::Host => "host",
                Reached::HostEach => "host-each",
                Reached::Lease => "lease",
            };
            format!("{name} {how}\n")
        });
        steps.chain(stalls).collect()
    }

    // Every step has a row, at its own place.
    const _: () = {
        let mut at = 0;
        while at < STEPS.len() {
            assert!(STEPS[at].0 as usize == at);
            at += 1;
        }
        assert!(STEPS.len() == Step::HostSettled as usize + 1);
    };
}
