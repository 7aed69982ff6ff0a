//! Questions to the kernel by netlink, in bytes: what rtnetlink is asked about interfaces and told to do with their VFs.
//!
//! A [`Question`] is built attribute by attribute, [`exchange()`] sends it and collects the answers, [`Attributes`] reads
//! them. Which numbers there are is in `link`. Nothing here knows what they mean, or changes anything by itself.
//!
//! *Source:* `include/uapi/linux/netlink.h`, `net/netlink/af_netlink.c` (v6.12).

mod exchange;
pub(crate) mod link;
mod message;

pub use self::{
    exchange::{Reply, exchange, exchange_generic},
    message::{Attributes, Question, u16_at, u32_at},
};
use crate::error::Errno;

/// What is said of an answer that is none: cut off, of another question, contradicting itself, or absent.
pub const MALFORMED: Errno = Errno::new(libc::EBADMSG);

/// `nlmsghdr`: length, type, flags, sequence, port; all but type and flags have 32 bits.
const HEADER_LEN: usize = 16;
/// The number of every question: each has a socket of its own.
const SEQUENCE: u32 = 1;

const NLM_F_REQUEST: u16 = 1;
/// The kernel says when it is done, also where it has nothing to tell.
pub const NLM_F_ACK: u16 = 4;
/// All objects of a kind, in many answers.
pub const NLM_F_DUMP: u16 = 0x300;
/// In an answer of a dump: objects have come or gone meanwhile, so the list is not one that ever was.
const NLM_F_DUMP_INTR: u16 = 0x10;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;

#[cfg(test)]
#[path = "netlink_test.rs"]
mod tests;
