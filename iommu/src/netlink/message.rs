//! Messages and attributes in bytes. Numbers are in the host's order, lengths count their own header, and each attribute
//! begins at a multiple of four.
//!
//! *Source:* `include/uapi/linux/netlink.h`, `struct nlmsghdr` and `struct nlattr` (v6.12).

use super::{HEADER_LEN, MALFORMED, NLM_F_REQUEST, SEQUENCE};
use crate::error::Errno;

/// Nested, and in network order: not part of the type.
const TYPE_FLAGS: u16 = 0xc000;
const NLA_F_NESTED: u16 = 0x8000;
/// `nlattr`: length and type, 16 bits each.
const ATTRIBUTE_LEN: usize = 4;

/// A message to the kernel that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    kind: u16,
    flags: u16,
    /// What follows the message's header.
    body: Vec<u8>,
    /// An attribute does not fit into the 16 bits of its length.
    is_too_long: bool,
}

impl Question {
    /// A message of the type `kind` that begins with `body`, such as an `ifinfomsg`. `flags` come on top of
    /// `NLM_F_REQUEST`.
    #[must_use]
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        Self {
            kind,
            flags: flags | NLM_F_REQUEST,
            body: body.to_vec(),
            is_too_long: false,
        }
    }

    /// The same with one attribute more.
    #[must_use]
    pub fn put(self, kind: u16, value: &[u8]) -> Self {
        self.attribute(kind, |mut question| {
            question.body.extend(value);
            question
        })
    }

    /// The same with an attribute that holds those that `fill` puts.
    #[must_use]
    pub fn nest(self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        self.attribute(kind | NLA_F_NESTED, fill)
    }

    fn attribute(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let begin = self.body.len();
        // The length is known afterwards.
        self.body.extend([0; 2]);
        self.body.extend(kind.to_ne_bytes());
        let mut filled = fill(self);
        let len = u16::try_from(filled.body.len() - begin);
        filled.is_too_long |= len.is_err();
        let len = len.unwrap_or(u16::MAX).to_ne_bytes();
        for (place, byte) in filled.body.iter_mut().skip(begin).zip(len) {
            *place = byte;
        }
        let padded = filled.body.len().next_multiple_of(4);
        filled.body.resize(padded, 0);
        filled
    }

    pub(super) const fn has(&self, flag: u16) -> bool {
        self.flags & flag == flag
    }

    /// The message as it is sent.
    ///
    /// # Errors
    /// EMSGSIZE: an attribute is longer than its length can say.
    pub fn bytes(&self) -> Result<Vec<u8>, Errno> {
        let too_long = Errno::new(libc::EMSGSIZE);
        let len = u32::try_from(HEADER_LEN + self.body.len())
            .ok()
            .ok_or(too_long)?;
        if self.is_too_long {
            return Err(too_long);
        }
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.body.len());
        bytes.extend(len.to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(SEQUENCE.to_ne_bytes());
        // Who asks: the kernel knows.
        bytes.extend([0; 4]);
        bytes.extend(&self.body);
        Ok(bytes)
    }
}

/// The attributes of a message or of a nest, in their order; types without flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Attributes<'a> {
    /// Reads what stands in `bytes`.
    ///
    /// # Errors
    /// [`MALFORMED`]: a length is shorter than its header, or reaches beyond the end.
    pub fn parse(mut bytes: &'a [u8]) -> Result<Self, Errno> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let len = usize::from(u16_at(bytes, 0)?);
            let kind = u16_at(bytes, 2)? & !TYPE_FLAGS;
            found.push((kind, bytes.get(ATTRIBUTE_LEN..len).ok_or(MALFORMED)?));
            // The last one need not be padded.
            bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(Self(found))
    }

    /// All of a type, which may be there many times.
    pub fn all(&self, kind: u16) -> impl Iterator<Item = &'a [u8]> {
        let of_kind = self.0.iter().filter(move |(other, _)| *other == kind);
        of_kind.map(|(_, value)| *value)
    }

    /// The one of a type; `None` where there is none.
    ///
    /// # Errors
    /// [`MALFORMED`]: there is more than one. An old kernel lets the length of a long list wrap, so that the rest of the
    /// list reads as more attributes of the message: what is there twice is no answer.
    pub fn only(&self, kind: u16) -> Result<Option<&'a [u8]>, Errno> {
        let mut of_kind = self.all(kind);
        let first = of_kind.next();
        match of_kind.next() {
            None => Ok(first),
            Some(_) => Err(MALFORMED),
        }
    }
}

/// The number at `at`, in the host's order.
///
/// # Errors
/// [`MALFORMED`]: `bytes` end before.
pub fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Errno> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().map(u16::from_ne_bytes).ok_or(MALFORMED)
}

/// The number at `at`, in the host's order.
///
/// # Errors
/// [`MALFORMED`]: `bytes` end before.
pub fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Errno> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().map(u32::from_ne_bytes).ok_or(MALFORMED)
}
