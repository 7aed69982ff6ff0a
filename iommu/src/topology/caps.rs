//! The two lists of capabilities in configuration space, walked. The bytes are the device's, hence hostile.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Where the extended space begins; all before it is the conventional space.
pub(super) const EXTENDED: usize = 0x100;
/// A whole configuration space.
pub(super) const WHOLE: usize = 0x1000;

/// Why a space or a list cannot be read.
pub(super) type Reason = &'static str;

pub(super) const SHORT: Reason = "configuration space ends within its header";
pub(super) const NO_ANSWER: Reason = "the device does not answer";
pub(super) const BEYOND: Reason =
    "a capability lies beyond what can be read (only root may read more than 64 bytes)";
pub(super) const ROOT_ONLY: Reason = "only root may read more than 64 bytes";
pub(super) const NOT_GIVEN: Reason = "the kernel gives only the first part of configuration space";
const NO_HEADER: Reason = "the header is neither a device's nor a bridge's";
const IN_HEADER: Reason = "a capability lies within the header";
const CAPABILITY_NO_ANSWER: Reason = "a capability does not answer";
const LOOP: Reason = "the capability list has a loop";
const IN_CONVENTIONAL: Reason = "an extended capability lies within the conventional space";
const EXTENDED_LOOP: Reason = "the list of extended capabilities has a loop";
const EXTENDED_NO_ANSWER: Reason = "the device does not answer in its extended space";

/// The header of a function that answers.
///
/// *Source:* `PCIe` r6.0 §7.5.1.1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// The command register.
    pub(super) command: u16,
    /// Header type 1.
    pub(super) is_bridge: bool,
    has_list: bool,
    first: u8,
}

impl Header {
    /// Reads the 64 bytes that everybody may read.
    ///
    /// VFs answer all ones for vendor and device, and zero for much else, so only a header of nothing but ones is none.
    pub(super) fn parse(config: &[u8]) -> Result<Self, Reason> {
        let header = config.get(..HEADER_LEN).ok_or(SHORT)?;
        if header.iter().all(|byte| *byte == 0xff) {
            return Err(NO_ANSWER);
        }
        let kind = byte_at(header, HEADER_TYPE).ok_or(SHORT)? & 0x7f;
        if kind > 1 {
            return Err(NO_HEADER);
        }
        let status = u16_at(header, STATUS).ok_or(SHORT)?;
        Ok(Self {
            command: u16_at(header, COMMAND).ok_or(SHORT)?,
            is_bridge: kind == 1,
            has_list: status & STATUS_HAS_CAPABILITIES != 0,
            first: byte_at(header, FIRST_CAPABILITY).ok_or(SHORT)?,
        })
    }

    /// Walks the conventional list: identifier and place of each capability.
    pub(super) fn capabilities<'a>(&self, config: &'a [u8]) -> Capabilities<'a> {
        Capabilities {
            config: conventional(config),
            next: if self.has_list { self.first } else { 0 },
            left: MOST,
        }
    }
}

/// The conventional space: what lies behind it is no field of a capability of this list.
pub(super) fn conventional(config: &[u8]) -> &[u8] {
    config.get(..EXTENDED).unwrap_or(config)
}

/// A walk along the conventional list; it ends after an error.
#[derive(Debug)]
pub(super) struct Capabilities<'a> {
    config: &'a [u8],
    next: u8,
    left: u32,
}

impl Iterator for Capabilities<'_> {
    type Item = Result<(u8, usize), Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = usize::from(self.next & !3);
        self.next = 0;
        if at == 0 {
            return None;
        }
        Some(self.step(at))
    }
}

impl Capabilities<'_> {
    fn step(&mut self, at: usize) -> Result<(u8, usize), Reason> {
        self.left = self.left.checked_sub(1).ok_or(LOOP)?;
        if at < HEADER_LEN {
            return Err(IN_HEADER);
        }
        let id = byte_at(self.config, at).ok_or(BEYOND)?;
        if id == u8::MAX {
            return Err(CAPABILITY_NO_ANSWER);
        }
        self.next = field(self.config, at, 1).ok_or(BEYOND)?;
        Ok((id, at))
    }
}

/// A walk along the extended list; it ends after an error.
///
/// *Source:* `PCIe` r6.0 §7.6.3: header with identifier, version and the next one's place; none at all is a zero dword.
#[derive(Debug)]
pub(super) struct ExtendedCapabilities<'a> {
    config: &'a [u8],
    next: usize,
    left: u32,
}

/// Begins at the start of the extended space, where the first capability is if there is any.
pub(super) const fn extended(config: &[u8]) -> ExtendedCapabilities<'_> {
    ExtendedCapabilities {
        config,
        next: EXTENDED,
        left: MOST_EXTENDED,
    }
}

impl Iterator for ExtendedCapabilities<'_> {
    type Item = Result<(u16, usize), Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.next;
        self.next = 0;
        if at == 0 {
            return None;
        }
        self.step(at).transpose()
    }
}

impl ExtendedCapabilities<'_> {
    fn step(&mut self, at: usize) -> Result<Option<(u16, usize)>, Reason> {
        self.left = self.left.checked_sub(1).ok_or(EXTENDED_LOOP)?;
        if at < EXTENDED {
            return Err(IN_CONVENTIONAL);
        }
        match u32_at(self.config, at).ok_or(NOT_GIVEN)? {
            0 => Ok(None),
            // A header of ones would point to 0xffc, with an identifier that nobody has. The kernel shows no extended
            // space where it reads so at first; here it answered then, and does not now.
            u32::MAX => Err(EXTENDED_NO_ANSWER),
            header => {
                let [low, high, ..] = header.to_le_bytes();
                self.next = usize::try_from(header >> 20 & !3).unwrap_or(0);
                Ok(Some((u16::from_le_bytes([low, high]), at)))
            }
        }
    }
}

pub(super) fn byte_at(config: &[u8], at: usize) -> Option<u8> {
    config.get(at).copied()
}

pub(super) fn field(config: &[u8], at: usize, offset: usize) -> Option<u8> {
    byte_at(config, at.checked_add(offset)?)
}

pub(super) fn u16_at(config: &[u8], at: usize) -> Option<u16> {
    config
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_le_bytes)
}

pub(super) fn u16_field(config: &[u8], at: usize, offset: usize) -> Option<u16> {
    u16_at(config, at.checked_add(offset)?)
}

pub(super) fn u32_at(config: &[u8], at: usize) -> Option<u32> {
    config
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_le_bytes)
}

pub(super) fn u32_field(config: &[u8], at: usize, offset: usize) -> Option<u32> {
    u32_at(config, at.checked_add(offset)?)
}

const HEADER_LEN: usize = 0x40;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const STATUS_HAS_CAPABILITIES: u16 = 1 << 4;
const HEADER_TYPE: usize = 0x0e;
const FIRST_CAPABILITY: usize = 0x34;
/// Capabilities of four bytes fill the space behind the header; a longer list has a loop.
const MOST: u32 = 48;
/// The same for the extended space.
const MOST_EXTENDED: u32 = 960;
