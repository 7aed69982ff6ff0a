//! What a process gives up, one call a function. Each acts on the calling thread, allocates nothing and takes no lock,
//! so that a child may call it between `clone3` and `exec`.
//!
//! On entry: root in the initial user namespace. On exit: as each function says. What has been given up cannot be taken
//! back by the process itself.

use rustix::{
    io::{Errno, Result},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    process::{chdir, pivot_root},
    thread::{
        CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid, UnshareFlags,
        clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
        set_capabilities_secure_bits, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
        unshare_unsafe,
    },
};

/// What this process and its children are called by `uname`, in a namespace of their own.
const HOST_NAME: &[u8] = b"narrows";
/// A folder that every host has and that the process does not look into: the empty root is mounted here first.
const MOUNT_POINT: &std::ffi::CStr = c"/dev";
/// A page at most, and no file but the root itself. Root alone may go there and look, without a capability: the keeper has
/// none for it.
const EMPTY_OPTIONS: &std::ffi::CStr = c"size=4k,nr_inodes=1,mode=0500";

/// Takes a new namespace of the kinds in `flags` for the calling thread.
///
/// # Errors
/// The errno of `unshare`.
pub fn leave_namespaces(flags: UnshareFlags) -> Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(Errno::INVAL);
    }
    // SAFETY: without `FILES` no descriptor changes its owner.
    unsafe { unshare_unsafe(flags) }
}

/// Puts the process into an empty root that cannot be written; the host's is gone from the namespace, which is the
/// process's own.
///
/// # Errors
/// The errno of the call that failed: `EINVAL` of `pivot_root` where the host's root is the kernel's first RAM file system,
/// with nothing below it that it could be taken off. To cover it and `chroot` was not chosen: the host's files would
/// stay in the namespace.
pub fn empty_root() -> Result<()> {
    // Or the host would see what follows, where its mounts are shared.
    mount_change(
        c"/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount(c"narrows", MOUNT_POINT, c"tmpfs", flags, EMPTY_OPTIONS)?;
    chdir(MOUNT_POINT)?;
    pivot_root(c".", c".")?;
    // The old root lies on top of the new one now.
    unmount(c".", UnmountFlags::DETACH)?;
    chdir(c"/")
}

/// Gives the host a fixed name. The process is in a UTS namespace of its own.
///
/// # Errors
/// The errno of `sethostname` or `setdomainname`.
pub fn set_names() -> Result<()> {
    rustix::system::sethostname(HOST_NAME)?;
    rustix::system::setdomainname(HOST_NAME)
}

/// Leaves all supplementary groups.
///
/// # Errors
/// The errno of `setgroups`.
pub fn leave_groups() -> Result<()> {
    set_thread_groups(&[])
}

/// Becomes the user and group `id`, for good.
///
/// # Errors
/// The errno of `setresgid` or `setresuid`.
pub fn become_user(id: u32) -> Result<()> {
    let (group, user) = (Gid::from_raw(id), Uid::from_raw(id));
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}

/// Takes every capability but `kept` out of the bounding set, so that no program brings one back.
///
/// # Errors
/// The errno of `prctl`.
pub fn bound_capabilities(kept: CapabilitySet) -> Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel has no more of them.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Makes root an ordinary user: neither a program nor a change of uid brings capabilities, and none can be made ambient.
///
/// # Errors
/// The errno of `prctl`.
pub fn lock_secure_bits() -> Result<()> {
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits)?;
    clear_ambient_capability_set()
}

/// Keeps exactly these capabilities, permitted and effective; none is inheritable.
///
/// # Errors
/// The errno of `capset`.
pub fn keep_capabilities(kept: CapabilitySet) -> Result<()> {
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )
}

/// Has the next program keep all capabilities, though it is not root's: for the lab, which leaves this layer away.
///
/// # Errors
/// The errno of `capset` or `prctl`.
#[cfg(feature = "breakout")]
pub fn hand_capabilities_on() -> Result<()> {
    let own = rustix::thread::capabilities(None)?;
    set_capabilities(
        None,
        CapabilitySets {
            inheritable: own.permitted,
            ..own
        },
    )?;
    own.permitted
        .iter()
        .try_for_each(|one| rustix::thread::configure_capability_in_ambient_set(one, true))
}

/// Sets soft and hard limits, each by the number of its resource.
///
/// # Errors
/// The errno of `setrlimit`.
pub fn limit(limits: &[(u32, u64)]) -> Result<()> {
    for (resource, most) in limits {
        let most = libc::rlimit {
            rlim_cur: *most,
            rlim_max: *most,
        };
        // SAFETY: the structure is read before the call returns.
        if unsafe { libc::setrlimit(*resource, &raw const most) } != 0 {
            return Err(last_errno());
        }
    }
    Ok(())
}

/// Closes all descriptors from `first` to `last`. Whoever owned one of them must not use it any more.
///
/// # Errors
/// The errno of `close_range`.
pub fn close_descriptors(first: u32, last: u32) -> Result<()> {
    // SAFETY: three numbers; that nobody uses these descriptors any more is the caller's to see to.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Joins a session keyring that is new and empty, where the kernel has keyrings: the one of the operator's session would
/// be inherited.
///
/// # Errors
/// The errno of `keyctl`.
pub fn leave_keyring() -> Result<()> {
    // SAFETY: the name is null, which asks for a new keyring without one.
    let joined = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::c_long::from(libc::KEYCTL_JOIN_SESSION_KEYRING),
            0,
        )
    };
    if joined >= 0 {
        return Ok(());
    }
    match last_errno() {
        Errno::NOSYS => Ok(()),
        errno => Err(errno),
    }
}

/// Address space layout is random even where the operator's shell was told otherwise.
///
/// # Errors
/// The errno of `personality`.
pub fn reset_personality() -> Result<()> {
    // SAFETY: sets a property of this process alone.
    match unsafe { libc::personality(0) } {
        -1 => Err(last_errno()),
        _ => Ok(()),
    }
}

/// From here on no memory that was not executable becomes so.
///
/// # Errors
/// The errno of `prctl`; `EINVAL` where the kernel lacks it.
pub fn refuse_new_code() -> Result<()> {
    /// *Source:* `include/uapi/linux/prctl.h` (Linux 6.12).
    const PR_SET_MDWE: libc::c_int = 65;
    const REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    const NONE: libc::c_ulong = 0;
    // SAFETY: sets a property of this process alone.
    match unsafe { libc::prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, NONE, NONE, NONE) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Lets signals arrive as a fresh program expects: none blocked, and a broken pipe ends it.
///
/// # Errors
/// The errno of `sigprocmask` or `signal`.
pub fn reset_signals() -> Result<()> {
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set it is given.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    let old = std::ptr::null_mut();
    // SAFETY: the set was initialised above; the old mask is not wanted.
    if unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), old) } != 0 {
        return Err(last_errno());
    }
    // SAFETY: the default action calls no code of ours.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(last_errno());
    }
    Ok(())
}

/// The errno of the libc call that just failed.
pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
