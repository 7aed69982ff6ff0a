//! For tests: children under filters of the test's making.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
};

use jailed::manifest::Instruction;

/// What stands for a filter that the kernel does not take; above any answer of [`kernel_answer`].
const NOT_TAKEN: i32 = 4000;

/// The error that the kernel makes of system call `number` under `filter`; `None` where it does not take the filter.
///
/// The filter must allow what a child does to report it: everything but `number`, say.
pub(crate) fn kernel_answer(
    filter: &[Instruction],
    number: i64,
    args: [u64; 6],
) -> io::Result<Option<i32>> {
    let filter = filter.to_vec();
    let mut command = Command::new("/nonexistent");
    let in_child = move || {
        if install(&filter).is_err() {
            return Err(io::Error::from_raw_os_error(NOT_TAKEN));
        }
        let [a, b, c, d, e, f] = args;
        // SAFETY: no kernel has a call of this number; the filter answers it.
        unsafe { libc::syscall(number, a, b, c, d, e, f) };
        Err(io::Error::last_os_error())
    };
    // SAFETY: the closure allocates nothing and makes system calls only.
    unsafe { command.pre_exec(in_child) };
    match command.spawn() {
        Ok(mut child) => {
            child.wait()?;
            Err(io::Error::other("the child went on"))
        }
        Err(error) => match error.raw_os_error() {
            Some(NOT_TAKEN) => Ok(None),
            Some(errno) => Ok(Some(errno)),
            None => Err(error),
        },
    }
}

/// A child that sleeps under `filters`, the first installed first: not one that is on its way there, with files of its loader
/// that come and go.
pub(crate) fn sleeper(filters: &[Vec<Instruction>]) -> io::Result<Child> {
    let filters = filters.to_vec();
    let mut command = Command::new("/bin/sleep");
    command.arg("60");
    let in_child = move || filters.iter().try_for_each(|filter| install(filter));
    // SAFETY: the closure allocates nothing and makes system calls only.
    unsafe { command.pre_exec(in_child) };
    let mut child = command.spawn()?;
    let call = format!("/proc/{}/syscall", child.id());
    let sleep = format!("{} ", libc::SYS_clock_nanosleep);
    while !std::fs::read_to_string(&call)?.starts_with(&sleep) {
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("it has ended: {status}")));
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(child)
}

/// A child that waits for six seconds, long enough to be looked at on a busy machine, on a futex of its own, under `filters` and at `place`, and then ends with 7.
pub(crate) fn timed_wait(filters: &[Vec<Instruction>], place: usize) -> io::Result<libc::pid_t> {
    const PAGE_BYTES: usize = 4096;
    // SAFETY: the child makes system calls only, and ends without coming back.
    let child = unsafe { libc::fork() };
    if child != 0 {
        return match child {
            -1 => Err(io::Error::last_os_error()),
            child => Ok(child),
        };
    }
    // What other tests have open is not to stay open, or locked, for as long as this child lives.
    // SAFETY: the child uses none of its descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) };
    let place = std::ptr::with_exposed_provenance_mut::<libc::c_void>(place);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a fresh mapping where nothing is.
    let word = unsafe { libc::mmap(place, PAGE_BYTES, protection, flags, -1, 0) };
    let limit = libc::timespec {
        tv_sec: 6,
        tv_nsec: 0,
    };
    let is_ready = filters.iter().all(|filter| install(filter).is_ok());
    if is_ready {
        let (wait, expected) = (0_usize, 0_usize);
        // SAFETY: the word and the time are this process's own.
        unsafe { libc::syscall(libc::SYS_futex, word, wait, expected, &raw const limit) };
    }
    // SAFETY: ends the process.
    unsafe { libc::syscall(libc::SYS_exit_group, if is_ready { 7 } else { 1 }) };
    unreachable!("the process has ended")
}

/// Stops a child, waits until it has stopped, and lets it go on: whatever it waits for is interrupted.
pub(crate) fn pause(child: libc::pid_t) -> io::Result<()> {
    let signal = |signal| {
        // SAFETY: two numbers; the child has not been waited for, so it is nobody else.
        match unsafe { libc::kill(child, signal) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    signal(libc::SIGSTOP)?;
    let mut status = 0;
    // SAFETY: the kernel writes one number.
    if unsafe { libc::waitpid(child, &raw mut status, libc::WUNTRACED) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if !libc::WIFSTOPPED(status) {
        return Err(io::Error::other(format!("it has ended: {status:#x}")));
    }
    signal(libc::SIGCONT)
}

/// How a child ended: its status as `waitpid` has it.
pub(crate) fn wait(child: libc::pid_t) -> io::Result<std::process::ExitStatus> {
    use std::os::unix::process::ExitStatusExt;
    let mut status = 0;
    // SAFETY: the kernel writes one number.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(std::process::ExitStatus::from_raw(status))
}

fn install(filter: &[Instruction]) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: sets a property of this process alone.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, none, none, none) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_long| io::ErrorKind::InvalidInput)?,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel reads `len` instructions of the layout of `struct sock_filter`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
