//! What can go wrong between Narrows and the host's IOMMU, with the facts of each case.

use std::{fmt, io, path::PathBuf};

use crate::{
    addr::IovaRange,
    bdf::Bdf,
    ledger::Unmappable,
    space::Interface,
    topology::{GroupId, Member},
};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, IommuError>;

/// Whose doing a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The operator asked for something that cannot be.
    Operator,
    /// The host, its kernel or its firmware.
    Host,
    /// The device, or its firmware.
    Device,
    /// Narrows: a bug.
    Us,
}

/// An errno as the kernel gave it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// The errno `raw`.
    #[must_use]
    pub const fn new(raw: i32) -> Self {
        Self(raw)
    }

    /// The errno of a failed call; EIO where the failure is none of the kernel's.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// The number.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The errno's name in the headers; `None` for those this crate does not expect.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        NAMES
            .iter()
            .find(|(raw, _)| *raw == self.0)
            .map(|(_, name)| *name)
    }

    /// The errno that prints as `text`: a name of [`Self::name`], or `errno 71`.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let named = NAMES.iter().find(|(_, name)| *name == text);
        match named {
            Some((raw, _)) => Some(Self(*raw)),
            None => text.strip_prefix("errno ")?.parse().ok().map(Self),
        }
    }
}

/// The errnos that VFIO, iommufd, sysfs and netlink return.
const NAMES: &[(i32, &str)] = &[
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::EINTR, "EINTR"),
    (libc::EIO, "EIO"),
    (libc::ENXIO, "ENXIO"),
    (libc::E2BIG, "E2BIG"),
    (libc::EBADF, "EBADF"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EACCES, "EACCES"),
    (libc::EFAULT, "EFAULT"),
    (libc::EBUSY, "EBUSY"),
    (libc::EEXIST, "EEXIST"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::EINVAL, "EINVAL"),
    (libc::EMFILE, "EMFILE"),
    (libc::ENOTTY, "ENOTTY"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::EROFS, "EROFS"),
    (libc::ERANGE, "ERANGE"),
    (libc::ELOOP, "ELOOP"),
    (libc::EISDIR, "EISDIR"),
    (libc::ENODATA, "ENODATA"),
    (libc::EOVERFLOW, "EOVERFLOW"),
    (libc::EMSGSIZE, "EMSGSIZE"),
    (libc::EBADMSG, "EBADMSG"),
    (libc::EPROTONOSUPPORT, "EPROTONOSUPPORT"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::EADDRINUSE, "EADDRINUSE"),
    (libc::ENOBUFS, "ENOBUFS"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
];

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A failure. Each variant's fields are the evidence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IommuError {
    /// A file of sysfs or procfs cannot be read or written.
    #[error("{}: {call} failed: {errno}", path.display())]
    Sysfs {
        /// The file, with the root it was looked up under.
        path: PathBuf,
        /// `read`, `write`, `list` or `readlink`.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
    /// A captured machine would have to be changed.
    #[error("{}: write failed: {errno}: this is a captured machine, not a host", path.display())]
    ReadOnlyMachine {
        /// The file, below the place of the machine.
        path: PathBuf,
        /// EROFS.
        errno: Errno,
    },
    /// More was read of a captured machine than any host holds: many links lead to the same.
    #[error("{}: more than {limit} bytes were read of this captured machine: many links lead to the same files", place.display())]
    LargeMachine {
        /// The machine.
        place: PathBuf,
        /// What may be read of it, in bytes.
        limit: usize,
    },
    /// A file of sysfs does not say what it should.
    #[error("{}: {text:?} is not {wanted}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it says.
        text: String,
        /// What was expected.
        wanted: &'static str,
    },
    /// There is no such PCI function.
    #[error("{bdf} is not a PCI function of this host")]
    NoFunction {
        /// The address asked for.
        bdf: Bdf,
    },
    /// The function is behind no IOMMU.
    #[error("{bdf} is in no IOMMU group")]
    NoGroup {
        /// The function.
        bdf: Bdf,
    },
    /// The function has no device node of its own.
    #[error("{bdf} has no node in /dev/vfio/devices")]
    NoCdev {
        /// The function.
        bdf: Bdf,
    },
    /// Unbinding would take the function from a driver of the host.
    #[error("{bdf} is in use by the host's driver {driver}")]
    HostDriver {
        /// The function.
        bdf: Bdf,
        /// The driver.
        driver: String,
    },
    /// The function is not bound to what it was just bound to.
    #[error("{bdf} is bound to {} instead of {}", or_none(found.as_deref()), or_none(wanted.as_deref()))]
    BindMismatch {
        /// The function.
        bdf: Bdf,
        /// The driver it should have; `None` for no driver.
        wanted: Option<String>,
        /// The driver it has.
        found: Option<String>,
    },
    /// The device node did not appear.
    #[error("{} did not appear within {waited_ms} ms of binding {bdf}", path.display())]
    NodeTimeout {
        /// The function.
        bdf: Bdf,
        /// The node.
        path: PathBuf,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// A function could not be bound, nor put back as it was.
    #[error("{first}; and the function could not be put back as it was: {second}")]
    NotPutBack {
        /// Why it could not be bound.
        first: Box<Self>,
        /// Why it could not be put back.
        second: Box<Self>,
    },
    /// The kernel wants another VF token, or one at all, or none.
    #[error("{bdf}: {call} failed: {errno} ({})", token_meaning(*was_given, *errno))]
    TokenRefused {
        /// The function.
        bdf: Bdf,
        /// The call.
        call: &'static str,
        /// Whether a token was given.
        was_given: bool,
        /// EACCES for a wrong or absent one, EINVAL for one that nobody asked for.
        errno: Errno,
    },
    /// A device node cannot be opened.
    #[error("{} cannot be opened: {errno}", path.display())]
    Open {
        /// The node.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// Another process holds the group or the device.
    #[error("{} is in use by another process: {errno}", path.display())]
    NodeBusy {
        /// The node.
        path: PathBuf,
        /// EBUSY from the group's node, EINVAL from the device's.
        errno: Errno,
    },
    /// The kernel's VFIO is not one that this program knows.
    #[error("VFIO offers {found}, not {wanted}")]
    Unsupported {
        /// What was asked for.
        wanted: &'static str,
        /// What the kernel said.
        found: String,
    },
    /// A member of the group is bound to a driver that is not VFIO's.
    #[error("group {} is not viable: it holds {}", group.0, list(members))]
    GroupNotViable {
        /// The group.
        group: GroupId,
        /// Its members and their drivers.
        members: Vec<Member>,
    },
    /// The kernel refuses to give the device away.
    #[error(
        "{bdf} may not be attached: {call} failed: {errno} (interrupts are not remapped, firmware claims memory of it, or another process holds its group)"
    )]
    AttachForbidden {
        /// The function.
        bdf: Bdf,
        /// The call.
        call: &'static str,
        /// EPERM.
        errno: Errno,
    },
    /// A call on a device failed.
    #[error("{bdf}: {call} failed: {errno}")]
    DeviceCall {
        /// The function.
        bdf: Bdf,
        /// The call.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
    /// A call on the IOMMU context failed.
    #[error("{interface} context: {call} failed: {errno}")]
    SpaceCall {
        /// The interface.
        interface: Interface,
        /// The call.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The IOMMU did not take a mapping.
    #[error("{range} cannot be mapped: {call} failed: {errno}")]
    MapFailed {
        /// The addresses.
        range: IovaRange,
        /// The call.
        call: &'static str,
        /// Why. ENOMEM is most often `RLIMIT_MEMLOCK`.
        errno: Errno,
    },
    /// The ledger refuses a mapping.
    #[error(transparent)]
    Unmappable(#[from] Unmappable),
    /// iommufd maps memory, and of BARs only what is exported as a DMA buffer.
    #[error("{range} is of a BAR, which iommufd does not map")]
    PeerUnsupported {
        /// The addresses.
        range: IovaRange,
    },
    /// No device is attached, so there is no IOMMU to ask or to map in.
    #[error("{interface} context has no device")]
    NothingAttached {
        /// The interface.
        interface: Interface,
    },
    /// The device has been attached before.
    #[error("{bdf} is attached already")]
    AttachedTwice {
        /// The function.
        bdf: Bdf,
    },
    /// The device belongs to another guest's map.
    #[error("{bdf} is not attached to this guest's map")]
    NotOfThisSpace {
        /// The function.
        bdf: Bdf,
    },
    /// Configuration space ended early.
    #[error("{bdf}: {call} of {wanted} bytes at {offset:#x} moved {got}")]
    ShortConfig {
        /// The function.
        bdf: Bdf,
        /// `pread` or `pwrite`.
        call: &'static str,
        /// Where.
        offset: u64,
        /// How many bytes.
        wanted: usize,
        /// How many came.
        got: usize,
    },
    /// A register did not take the value written to it.
    #[error("{bdf}: {register} reads {found:#x} after {written:#x} was written")]
    RegisterStuck {
        /// The function.
        bdf: Bdf,
        /// The register.
        register: &'static str,
        /// What was written.
        written: u32,
        /// What it reads.
        found: u32,
    },
    /// What the kernel or the device says about a region makes no sense.
    #[error("{bdf}: {what} of region {index} is malformed")]
    BadRegion {
        /// The function.
        bdf: Bdf,
        /// The region.
        index: u32,
        /// What is wrong.
        what: &'static str,
    },
}

impl IommuError {
    /// The stable name of this kind of failure, as the documentation lists it.
    #[must_use]
    pub const fn id(&self) -> &'static str {
        match self {
            Self::Sysfs { .. } => "sysfs-io",
            Self::ReadOnlyMachine { .. } => "machine-read-only",
            Self::LargeMachine { .. } => "machine-malformed",
            Self::Malformed { .. } => "sysfs-malformed",
            Self::NoFunction { .. } => "no-such-function",
            Self::NoGroup { .. } => "no-iommu-group",
            Self::NoCdev { .. } => "no-vfio-cdev",
            Self::HostDriver { .. } => "host-driver",
            Self::BindMismatch { .. } => "bind-mismatch",
            Self::NodeTimeout { .. } => "vfio-node-timeout",
            Self::NotPutBack { .. } => "not-put-back",
            Self::TokenRefused { .. } => "vf-token-refused",
            Self::Open { .. } => "vfio-node-open",
            Self::NodeBusy { .. } => "vfio-node-busy",
            Self::Unsupported { .. } => "vfio-unsupported",
            Self::GroupNotViable { .. } => "group-not-viable",
            Self::AttachForbidden { .. } => "attach-forbidden",
            Self::DeviceCall { .. } => "device-call",
            Self::SpaceCall { .. } => "iommu-call",
            Self::MapFailed { .. } => "map-failed",
            Self::Unmappable(why) => why.id(),
            Self::PeerUnsupported { .. } => "peer-unsupported",
            Self::NothingAttached { .. } => "nothing-attached",
            Self::AttachedTwice { .. } => "attached-twice",
            Self::NotOfThisSpace { .. } => "not-of-this-space",
            Self::ShortConfig { .. } => "config-short",
            Self::RegisterStuck { .. } => "register-stuck",
            Self::BadRegion { .. } => "region-malformed",
        }
    }

    /// What to do about it; `None` where that depends on why it happened.
    #[must_use]
    pub const fn fix(&self) -> Option<&'static str> {
        Some(match self {
            Self::ReadOnlyMachine { .. } => "use a real host: leave --root out",
            Self::LargeMachine { .. } => "capture the machine anew",
            Self::NoFunction { .. } => {
                "choose one of the functions that lspci -D shows, and make the VFs first"
            }
            Self::NoGroup { .. } => {
                "turn the IOMMU on in the firmware and on the kernel's command line (intel_iommu=on)"
            }
            Self::NoCdev { .. } => {
                "use type1, or a kernel with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV"
            }
            Self::HostDriver { .. } => {
                "choose another VF, or unbind this one if nothing of the host works through it"
            }
            Self::BindMismatch { .. } => {
                "load the driver's module (modprobe vfio-pci), then see dmesg"
            }
            Self::NodeTimeout { .. } => "see dmesg, and whether devtmpfs is mounted on /dev",
            Self::NotPutBack { .. } => {
                "clear driver_override of the function and unbind it by hand; see dmesg"
            }
            Self::TokenRefused { .. } => {
                "give the token that the owner of the PF has set, or none where the PF is not bound to vfio-pci"
            }
            Self::Open { .. } => "run as root with the VFIO modules loaded",
            Self::NodeBusy { .. } => {
                "stop the process that holds it (fuser shows which), or choose another VF"
            }
            Self::Unsupported { .. } => "load vfio_iommu_type1, or use iommufd or a newer kernel",
            Self::GroupNotViable { .. } => {
                "assign the whole group, or enable ACS on the port above so that each function has its own"
            }
            Self::AttachForbidden { .. } => {
                "see dmesg; turn interrupt remapping on, or stop the process that holds the group"
            }
            Self::MapFailed { .. } => {
                "for ENOMEM, raise RLIMIT_MEMLOCK or free memory; else see dmesg"
            }
            Self::RegisterStuck { .. } | Self::ShortConfig { .. } => {
                "take the device out of use and see dmesg"
            }
            Self::Sysfs { .. }
            | Self::Malformed { .. }
            | Self::DeviceCall { .. }
            | Self::SpaceCall { .. }
            | Self::Unmappable(_)
            | Self::PeerUnsupported { .. }
            | Self::NothingAttached { .. }
            | Self::AttachedTwice { .. }
            | Self::NotOfThisSpace { .. }
            | Self::BadRegion { .. } => return None,
        })
    }

    /// Whose doing it is, as far as the evidence tells.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::ReadOnlyMachine { .. }
            | Self::LargeMachine { .. }
            | Self::NoFunction { .. }
            | Self::NoGroup { .. }
            | Self::HostDriver { .. }
            | Self::NodeBusy { .. }
            | Self::TokenRefused { .. }
            | Self::GroupNotViable { .. } => Blame::Operator,
            Self::Sysfs { .. }
            | Self::Malformed { .. }
            | Self::NoCdev { .. }
            | Self::BindMismatch { .. }
            | Self::NotPutBack { .. }
            | Self::NodeTimeout { .. }
            | Self::Open { .. }
            | Self::Unsupported { .. }
            | Self::AttachForbidden { .. }
            | Self::SpaceCall { .. }
            | Self::MapFailed { .. } => Blame::Host,
            Self::DeviceCall { .. }
            | Self::ShortConfig { .. }
            | Self::RegisterStuck { .. }
            | Self::BadRegion { .. } => Blame::Device,
            // The plan keeps clear of what the ledger refuses.
            Self::Unmappable(_)
            | Self::PeerUnsupported { .. }
            | Self::NothingAttached { .. }
            | Self::AttachedTwice { .. }
            | Self::NotOfThisSpace { .. } => Blame::Us,
        }
    }
}

const fn token_meaning(was_given: bool, errno: Errno) -> &'static str {
    match (was_given, errno.raw()) {
        (false, _) => "its PF is bound to vfio-pci and wants a VF token",
        (true, libc::EACCES) => "the VF token is not that of its PF",
        (true, _) => {
            "it takes no VF token: its PF is not bound to vfio-pci, or the kernel is older than 6.18"
        }
    }
}

fn or_none(driver: Option<&str>) -> &str {
    driver.unwrap_or("no driver")
}

fn list(members: &[Member]) -> String {
    let words: Vec<String> = members.iter().map(Member::to_string).collect();
    words.join(", ")
}
