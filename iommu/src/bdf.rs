//! The address of a PCI function: domain, bus, device, function.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A PCI function's address, written `0000:3b:02.1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Bdf {
    domain: u16,
    bus: u8,
    devfn: u8,
}

impl Bdf {
    /// The function `function` (0..8) of device `device` (0..32); `None` where either is out of range.
    #[must_use]
    pub const fn new(domain: u16, bus: u8, device: u8, function: u8) -> Option<Self> {
        if device >= 32 || function >= 8 {
            return None;
        }
        Some(Self {
            domain,
            bus,
            devfn: device << 3 | function,
        })
    }

    /// The PCI domain (segment).
    #[must_use]
    pub const fn domain(self) -> u16 {
        self.domain
    }

    /// The bus.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// The device, 0..32.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.devfn >> 3
    }

    /// The function, 0..8.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.devfn & 7
    }

    /// `domain << 16 | bus << 8 | device << 3 | function`.
    #[must_use]
    pub fn packed(self) -> u32 {
        u32::from(self.domain) << 16 | u32::from(self.bus) << 8 | u32::from(self.devfn)
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{:x}",
            self.domain,
            self.bus,
            self.device(),
            self.function()
        )
    }
}

impl fmt::Debug for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a PCI address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a PCI address of the form 0000:3b:02.1")]
pub struct BadBdf(pub String);

impl FromStr for Bdf {
    type Err = BadBdf;

    /// Reads `dddd:bb:dd.f`, or `bb:dd.f` for domain 0, with exactly as many hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, BadBdf> {
        let bad = || BadBdf(text.to_owned());
        let hex = |digits: &str, count: usize| {
            (digits.len() == count && digits.bytes().all(|b| b.is_ascii_hexdigit()))
                .then(|| u16::from_str_radix(digits, 16).ok())
                .flatten()
                .ok_or_else(bad)
        };
        let byte = |digits, count| {
            hex(digits, count).and_then(|value| u8::try_from(value).ok().ok_or_else(bad))
        };
        let (front, function) = text.rsplit_once('.').ok_or_else(bad)?;
        let mut parts = front.rsplit(':');
        let device = parts.next().ok_or_else(bad)?;
        let bus = parts.next().ok_or_else(bad)?;
        let domain = parts.next().unwrap_or("0000");
        if parts.next().is_some() {
            return Err(bad());
        }
        Self::new(
            hex(domain, 4)?,
            byte(bus, 2)?,
            byte(device, 2)?,
            byte(function, 1)?,
        )
        .ok_or_else(bad)
    }
}

impl From<Bdf> for String {
    fn from(bdf: Bdf) -> Self {
        bdf.to_string()
    }
}

impl TryFrom<String> for Bdf {
    type Error = BadBdf;

    fn try_from(text: String) -> Result<Self, BadBdf> {
        text.parse()
    }
}
