//! What the IOMMU's driver says of DMA that it stopped: lines of the kernel log, read as hostile text.
//!
//! Nothing else tells on every kernel: the tracepoint `iommu:io_page_fault` is never hit by the driver of VT-d, and by
//! that of AMD-Vi in some kernels only; the event queues of iommufd carry page requests, not these faults.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod amd;
mod log;
mod record;
mod vtd;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bdf::Bdf;

pub use self::{
    log::{KernelLog, Next},
    record::Record,
};

/// Who made a request that was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester {
    bdf: Bdf,
    has_domain: bool,
}

impl Requester {
    /// Whether it is `function`. Where the line has no PCI domain (VT-d's driver before kernels like v7.2, see
    /// `vtd.rs`), any domain will do, as a fault that is put down to one function too many is better than one that is
    /// put down to none.
    #[must_use]
    pub fn is(self, function: Bdf) -> bool {
        let same_domain = !self.has_domain || self.bdf.domain() == function.domain();
        same_domain
            && (self.bdf.bus(), self.bdf.device(), self.bdf.function())
                == (function.bus(), function.device(), function.function())
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// A read from memory.
    Read,
    /// A write to memory.
    Write,
    /// An interrupt.
    Interrupt,
    /// A request of which the log does not say more.
    Request,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Interrupt => "interrupt",
            Self::Request => "request",
        })
    }
}

/// A request that the IOMMU stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmaFault {
    /// Whose.
    pub requester: Requester,
    /// What it was.
    pub access: Access,
    /// Where to: an address, or the index of an interrupt.
    pub address: u64,
    /// Why it was stopped, in the kernel's words.
    pub reason: String,
}

/// Longest reason that is kept.
const REASON_LIMIT: usize = 80;

impl DmaFault {
    /// Reads a line of the kernel log; `None` where it is about something else.
    ///
    /// The line is matched from its first character to its last field, so that text which somebody else brought into
    /// the kernel's log (the name of a process or a file) is not taken for a fault.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        vtd::parse(line).or_else(|| amd::parse(line))
    }
}

/// The words of a reason, as long as they are printable and not too many.
fn reason(text: &str) -> String {
    text.trim()
        .chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .take(REASON_LIMIT)
        .collect()
}

/// A hexadecimal number with or without `0x`.
fn hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let is_plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_plain.then(|| u64::from_str_radix(digits, 16).ok())?
}

/// `04:00.0`, `0000:04:00.0`, and with `0x` before bus and device, as some kernels have it.
fn requester(text: &str) -> Option<Requester> {
    let plain = text.replace("0x", "");
    let colons = plain.bytes().filter(|b| *b == b':').count();
    Some(Requester {
        bdf: plain.parse().ok()?,
        has_domain: colons == 2,
    })
}

/// Splits `text` at the first `end`.
fn until<'a>(text: &'a str, end: &str) -> Option<(&'a str, &'a str)> {
    text.split_once(end)
}

#[cfg(test)]
#[path = "events_test.rs"]
mod tests;
