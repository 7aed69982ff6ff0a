//! Asking, and collecting what the kernel answers.
//!
//! The kernel works a question off within `send`, in the context of whoever asks: the whole answer, or the first part of
//! a dump, is there when `send` returns, and each further part when the one before is taken. So nothing waits, and an
//! answer that is not there is none.
//!
//! *Source:* `net/netlink/af_netlink.c`, `netlink_rcv_skb`, `netlink_ack`, `netlink_dump` (v6.12).

use rustix::{
    io,
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, connect,
        netlink::{self, SocketAddrNetlink},
        recv, send, socket_with,
    },
};

use super::{
    HEADER_LEN, MALFORMED, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_NOOP, NLMSG_OVERRUN, Question, SEQUENCE, u16_at, u32_at,
};
use crate::error::Errno;

/// Four times what the list of VFs can have: an attribute's length has 16 bits.
const LONGEST: usize = 256 << 10;
/// More answers than any host has objects of a kind: a dump that goes on is none.
const MOST: usize = 1 << 20;

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its type, such as `RTM_NEWLINK`.
    pub kind: u16,
    /// What follows the message's header.
    pub body: Vec<u8>,
}

/// How the answers to a question end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// With the only one.
    One,
    /// With the word that it is done: `NLM_F_ACK`.
    Acknowledged,
    /// With the end of the list: `NLM_F_DUMP`.
    Done,
}

impl Until {
    pub(super) const fn of(question: &Question) -> Self {
        if question.has(NLM_F_DUMP) {
            Self::Done
        } else if question.has(NLM_F_ACK) {
            Self::Acknowledged
        } else {
            Self::One
        }
    }
}

/// Asks the kernel by rtnetlink and returns what it answers: one reply; none or more before its word that it is done,
/// where the question has [`NLM_F_ACK`]; all of the list, where it has [`NLM_F_DUMP`].
///
/// # Errors
/// The errno of the kernel, as it stands: of the socket, or of its answer. EMSGSIZE: the question or an answer is too
/// long. ENOBUFS: answers were lost. EINTR: the list changed while it was told; ask again. [`MALFORMED`]: the answer is
/// cut off, of another question, or there is none.
pub fn exchange(question: &Question) -> Result<Vec<Reply>, Errno> {
    // No protocol is number 0: NETLINK_ROUTE.
    exchange_by(None, question)
}

/// As [`exchange`], by generic netlink.
///
/// # Errors
/// As there.
pub fn exchange_generic(question: &Question) -> Result<Vec<Reply>, Errno> {
    exchange_by(Some(netlink::GENERIC), question)
}

fn exchange_by(protocol: Option<Protocol>, question: &Question) -> Result<Vec<Reply>, Errno> {
    let bytes = question.bytes()?;
    let raw = |error: io::Errno| Errno::new(error.raw_os_error());
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol,
    )
    .map_err(raw)?;
    // From here on nobody but the kernel, whose number is 0, can send to this socket.
    connect(&socket, &SocketAddrNetlink::new(0, 0)).map_err(raw)?;
    send(&socket, &bytes, SendFlags::empty()).map_err(raw)?;
    let until = Until::of(question);
    let mut datagram = vec![0; LONGEST];
    let mut replies = Vec::new();
    loop {
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let (_, len) = match recv(&socket, &mut *datagram, flags) {
            // Not to be taken for the EAGAIN of a driver.
            Err(io::Errno::AGAIN) => return Err(MALFORMED),
            received => received.map_err(raw)?,
        };
        let received = datagram.get(..len).ok_or(Errno::new(libc::EMSGSIZE))?;
        if read(received, until, &mut replies)? {
            return Ok(replies);
        }
    }
}

/// Reads what came at once into `replies`; whether it was the end.
pub(super) fn read(
    mut bytes: &[u8],
    until: Until,
    replies: &mut Vec<Reply>,
) -> Result<bool, Errno> {
    let mut is_end = false;
    while !bytes.is_empty() {
        let len = u32_at(bytes, 0)? as usize;
        let message = bytes.get(..len).ok_or(MALFORMED)?;
        let body = message.get(HEADER_LEN..).ok_or(MALFORMED)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        let is_ours = u32_at(message, 8)? == SEQUENCE;
        if !is_ours || is_end || replies.len() >= MOST {
            return Err(MALFORMED);
        }
        let flags = u16_at(message, 6)?;
        if until == Until::Done && flags & NLM_F_DUMP_INTR != 0 {
            return Err(Errno::new(libc::EINTR));
        }
        is_end = match u16_at(message, 4)? {
            NLMSG_NOOP => false,
            NLMSG_OVERRUN => return Err(Errno::new(libc::ENOBUFS)),
            NLMSG_ERROR => {
                status(body)?;
                // Good, and nobody asked whether it is.
                if until != Until::Acknowledged {
                    return Err(MALFORMED);
                }
                true
            }
            NLMSG_DONE => {
                status(body)?;
                if until != Until::Done {
                    return Err(MALFORMED);
                }
                true
            }
            kind => {
                replies.push(Reply {
                    kind,
                    body: body.to_vec(),
                });
                until == Until::One
            }
        };
    }
    Ok(is_end)
}

/// The kernel's word: 0, or an errno below it.
fn status(body: &[u8]) -> Result<(), Errno> {
    match u32_at(body, 0)?.cast_signed() {
        0 => Ok(()),
        negative if negative < 0 => Err(Errno::new(negative.saturating_neg())),
        _ => Err(MALFORMED),
    }
}
