//! Admin commands to an `NVMe` controller, through the kernel's driver.
//!
//! On entry: the node of a controller (`/dev/nvme0`) is open, and the caller has `CAP_SYS_ADMIN`. On exit the controller
//! has answered: the driver waits for it, without limit of its own beyond the command's.
//!
//! *Source:* `include/uapi/linux/nvme_ioctl.h`, `drivers/nvme/host/ioctl.c`, `nvme_user_cmd` (v6.12); NVM Express Base
//! Specification 2.0, sections 5 and 8.

use std::{
    fmt, io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Length of a page of data, in bytes: all structures that are asked for here have it.
pub const PAGE_LEN: usize = 4096;

/// The same as the kernel wants it told.
const DATA_LEN: u32 = 4096;
const _: () = assert!(DATA_LEN as usize == PAGE_LEN);

/// A page that a controller reads or fills.
#[derive(Clone)]
#[repr(C, align(4096))]
pub struct Page(pub [u8; PAGE_LEN]);

impl Page {
    /// A page of zeros.
    #[must_use]
    pub fn zeroed() -> Box<Self> {
        Box::new(Self([0; PAGE_LEN]))
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Page")
    }
}

/// `struct nvme_passthru_cmd`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Passthru {
    opcode: u8,
    flags: u8,
    rsvd1: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

const _: () = assert!(size_of::<Passthru>() == 72);

/// `_IOWR('N', 0x41, struct nvme_admin_cmd)`.
const ADMIN_CMD: libc::Ioctl = 0xC048_4E41;

/// An admin command without its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// What is to be done.
    pub opcode: u8,
    /// The namespace; 0 where none is meant.
    pub nsid: u32,
    /// The first word of its own.
    pub cdw10: u32,
    /// The second.
    pub cdw11: u32,
    /// How long the kernel waits for the answer; 0 for its own limit, 60 s.
    pub timeout_ms: u32,
}

/// Why a command was not carried out.
#[derive(Debug)]
pub enum CommandFault {
    /// The kernel did not send it, or got no answer.
    Kernel(io::Error),
    /// The controller's answer.
    Controller(Status),
}

/// A controller's answer that is not success.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(u16);

impl Status {
    /// Of status code type `kind` and status code `code`.
    #[must_use]
    pub const fn new(kind: u8, code: u8) -> Self {
        Self((kind as u16 & 7) << 8 | code as u16)
    }

    /// From the number that the kernel returns: without "more" and "do not retry".
    const fn from_kernel(number: u16) -> Self {
        Self(number & 0x7ff)
    }

    /// What it means, in the specification's words.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        MEANINGS
            .iter()
            .find(|(status, _)| *status == self)
            .map_or("no name is known for it", |(_, meaning)| meaning)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, code) = (self.0 >> 8, self.0 & 0xff);
        write!(f, "status {kind:x}/{code:02x} ({})", self.meaning())
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for CommandFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => error.fmt(f),
            Self::Controller(status) => status.fmt(f),
        }
    }
}

/// The namespace is attached to the controller already.
pub const ALREADY_ATTACHED: Status = Status::new(1, 0x18);
/// The namespace is not attached to the controller.
pub const NOT_ATTACHED: Status = Status::new(1, 0x1a);
/// The controller does not know the command.
pub const INVALID_OPCODE: Status = Status::new(0, 0x01);
/// A field of the command has a value that it cannot have.
pub const INVALID_FIELD: Status = Status::new(0, 0x02);
/// The namespace does not exist.
pub const INVALID_NAMESPACE: Status = Status::new(0, 0x0b);

/// *Source:* NVM Express Base Specification 2.0, figures 95 to 97.
const MEANINGS: &[(Status, &str)] = &[
    (INVALID_OPCODE, "invalid command opcode"),
    (INVALID_FIELD, "invalid field in command"),
    (Status::new(0, 0x04), "data transfer error"),
    (Status::new(0, 0x06), "internal error"),
    (Status::new(0, 0x07), "command abort requested"),
    (INVALID_NAMESPACE, "invalid namespace or format"),
    (Status::new(0, 0x0c), "command sequence error"),
    (Status::new(0, 0x1d), "sanitize in progress"),
    (Status::new(0, 0x20), "namespace is write protected"),
    (Status::new(0, 0x82), "namespace not ready"),
    (Status::new(0, 0x84), "format in progress"),
    (Status::new(1, 0x0a), "invalid format"),
    (Status::new(1, 0x15), "namespace insufficient capacity"),
    (Status::new(1, 0x16), "namespace identifier unavailable"),
    (ALREADY_ATTACHED, "namespace already attached"),
    (Status::new(1, 0x19), "namespace is private"),
    (NOT_ATTACHED, "namespace not attached"),
    (Status::new(1, 0x1c), "controller list invalid"),
    (Status::new(1, 0x1f), "invalid controller identifier"),
    (Status::new(1, 0x20), "invalid secondary controller state"),
    (
        Status::new(1, 0x21),
        "invalid number of controller resources",
    ),
    (Status::new(1, 0x22), "invalid resource identifier"),
];

/// Sends an admin command and waits for the answer: the command's own result. `data` is what the controller reads or
/// fills, by the command.
///
/// # Errors
/// The kernel's errno: EACCES and EPERM without privilege; the controller's status.
pub fn admin(
    node: BorrowedFd<'_>,
    command: &Command,
    data: Option<&mut Page>,
) -> Result<u32, CommandFault> {
    let mut passthru = Passthru {
        opcode: command.opcode,
        nsid: command.nsid,
        cdw10: command.cdw10,
        cdw11: command.cdw11,
        timeout_ms: command.timeout_ms,
        ..Passthru::default()
    };
    if let Some(page) = data {
        passthru.addr = page.0.as_mut_ptr().expose_provenance() as u64;
        passthru.data_len = DATA_LEN;
    }
    // SAFETY: the request fixes the type of the argument, which is live and exclusively borrowed. The kernel reads or
    // writes at most `data_len` bytes at `addr`: that is the page, exclusively borrowed until the call returns.
    let result = unsafe { libc::ioctl(node.as_raw_fd(), ADMIN_CMD, &raw mut passthru) };
    match result {
        0 => Ok(passthru.result),
        status @ 1.. => Err(CommandFault::Controller(Status::from_kernel(
            u16::try_from(status & 0x7fff).unwrap_or(u16::MAX),
        ))),
        _ => Err(CommandFault::Kernel(io::Error::last_os_error())),
    }
}

/// The commands that are used here.
///
/// *Source:* NVM Express Base Specification 2.0, sections 5.3 (format), 5.16 (get log page), 5.17 (identify), 5.22 and
/// 5.23 (namespaces), 5.28 (virtualization).
impl Command {
    /// Identify: the structure `cns`, of a namespace or a controller where it has one.
    #[must_use]
    pub const fn identify(cns: u8, nsid: u32, cntid: u16) -> Self {
        Self {
            opcode: 0x06,
            nsid,
            cdw10: (cntid as u32) << 16 | cns as u32,
            cdw11: 0,
            timeout_ms: 0,
        }
    }

    /// Get Log Page: Commands Supported and Effects.
    #[must_use]
    pub const fn effects_log() -> Self {
        Self {
            opcode: 0x02,
            nsid: u32::MAX,
            // As many words as a page has, less one.
            cdw10: 1023 << 16 | 0x05,
            cdw11: 0,
            timeout_ms: 0,
        }
    }

    /// Virtualization Management: sets a secondary controller offline, which takes its resources, or online.
    #[must_use]
    pub const fn secondary_online(cntlid: u16, is_online: bool) -> Self {
        let act = if is_online { 9 } else { 7 };
        Self {
            opcode: 0x1c,
            nsid: 0,
            cdw10: (cntlid as u32) << 16 | act,
            cdw11: 0,
            timeout_ms: 0,
        }
    }

    /// Virtualization Management: gives a secondary controller `count` queues, or interrupts; all that it has
    /// afterwards, not how many more.
    #[must_use]
    pub const fn secondary_assign(cntlid: u16, is_interrupts: bool, count: u16) -> Self {
        Self {
            opcode: 0x1c,
            nsid: 0,
            cdw10: (cntlid as u32) << 16 | (is_interrupts as u32) << 8 | 8,
            cdw11: count as u32,
            timeout_ms: 0,
        }
    }

    /// Namespace Attachment: the list of controllers is its data.
    #[must_use]
    pub const fn attachment(nsid: u32, is_attached: bool) -> Self {
        Self {
            opcode: 0x15,
            nsid,
            cdw10: if is_attached { 0 } else { 1 },
            cdw11: 0,
            timeout_ms: 0,
        }
    }

    /// Namespace Management: makes one as its data say; its id is the result.
    #[must_use]
    pub const fn create_namespace() -> Self {
        Self {
            opcode: 0x0d,
            nsid: 0,
            cdw10: 0,
            cdw11: 0,
            timeout_ms: 120_000,
        }
    }

    /// Namespace Management: deletes one. Never all: 0xffffffff would be.
    #[must_use]
    pub const fn delete_namespace(nsid: u32) -> Self {
        Self {
            opcode: 0x0d,
            nsid,
            cdw10: 1,
            cdw11: 0,
            timeout_ms: 120_000,
        }
    }

    /// Format NVM: one namespace in the format that it has. `flbas` is that byte of its structure, `dps` its protection.
    #[must_use]
    pub const fn format(nsid: u32, flbas: u8, dps: u8, is_crypto: bool, timeout_ms: u32) -> Self {
        // Erase settings: 1 user data, 2 cryptographic.
        let ses = if is_crypto { 2 } else { 1 };
        let (low, high) = (flbas as u32 & 0xf, flbas as u32 >> 5 & 3);
        let is_extended = flbas as u32 >> 4 & 1;
        let (protection, is_first) = (dps as u32 & 7, dps as u32 >> 3 & 1);
        Self {
            opcode: 0x80,
            nsid,
            cdw10: high << 12 | ses << 9 | is_first << 8 | protection << 5 | is_extended << 4 | low,
            cdw11: 0,
            timeout_ms,
        }
    }
}

#[cfg(test)]
#[path = "nvme_test.rs"]
mod tests;
