//! V and D of one guest share the threads of a processor core with each other and with nobody else.

use rustix::{
    io::Errno,
    process::Pid,
    thread::{
        CoreSchedulingScope, create_core_scheduling_cookie, pull_core_scheduling_cookie,
        push_core_scheduling_cookie,
    },
};

use crate::{
    error::{ErrorId, Report},
    sys::offers::has_single_cores,
};

/// Gives D a new cookie, V the same one, and the calling process, which held it in between, another.
///
/// # Errors
/// `jail-failed` with the call and its errno.
pub fn share(device: u32, vcpu: u32) -> Result<(), Report> {
    let all = CoreSchedulingScope::ThreadGroup;
    let failed = |doing: &'static str| move |errno: Errno| (doing, errno);
    let shared = pid(device).and_then(|device| {
        create_core_scheduling_cookie(device, all).map_err(failed("PR_SCHED_CORE_CREATE for D"))?;
        pull_core_scheduling_cookie(device, CoreSchedulingScope::Thread)
            .map_err(failed("PR_SCHED_CORE_SHARE_FROM D"))?;
        push_core_scheduling_cookie(pid(vcpu)?, all).map_err(failed("PR_SCHED_CORE_SHARE_TO V"))?;
        create_core_scheduling_cookie(rustix::process::getpid(), all)
            .map_err(failed("PR_SCHED_CORE_CREATE for the keeper"))
    });
    match shared {
        // No core of this host has a second thread.
        Ok(()) | Err((_, Errno::NODEV)) => Ok(()),
        // A kernel without core scheduling, which is not needed here.
        Err((_, Errno::INVAL)) if has_single_cores() => Ok(()),
        Err((doing, errno)) => Err(Report::new(
            ErrorId::JailFailed,
            "the guest cannot have processor cores to itself",
            format!("{doing}: {}", std::io::Error::from(errno)),
            "boot with nosmt, or a kernel with CONFIG_SCHED_CORE; or write `without = [\"core-scheduling\"]` in [sandbox]",
        )),
    }
}

fn pid(number: u32) -> Result<Pid, (&'static str, Errno)> {
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    pid.ok_or(("reading a process id", Errno::SRCH))
}
