//! What a VF's policy is made of, each with its text: the one in captured machines, plans and the state folder.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An Ethernet address, written `52:54:00:12:34:56`. Where one is read of a VF, it is not [zero](Self::is_zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether it is of many stations: no VF can have it. All ones, the address of everybody, is such a one.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it is of zeros: none.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text that is not an Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address of the form 52:54:00:12:34:56")]
pub struct BadMac(pub String);

impl FromStr for Mac {
    type Err = BadMac;

    /// Reads six pairs of hexadecimal digits of either case; which addresses may be used is for the caller to say.
    fn from_str(text: &str) -> Result<Self, BadMac> {
        let byte = |digits: &str| {
            let is_pair = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            is_pair
                .then(|| u8::from_str_radix(digits, 16).ok())
                .flatten()
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| BadMac(text.to_owned()))
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = BadMac;

    fn try_from(text: String) -> Result<Self, BadMac> {
        text.parse()
    }
}

/// What a VF sees of the link, written `auto`, `up` or `down`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkPolicy {
    /// The state of the PF's.
    Auto,
    /// Always up.
    Up,
    /// Always down.
    Down,
}

/// A text that is not what a VF can see of the link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not auto, up or down")]
pub struct BadLinkPolicy(pub String);

impl fmt::Display for LinkPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

impl FromStr for LinkPolicy {
    type Err = BadLinkPolicy;

    fn from_str(text: &str) -> Result<Self, BadLinkPolicy> {
        match text {
            "auto" => Ok(Self::Auto),
            "up" => Ok(Self::Up),
            "down" => Ok(Self::Down),
            other => Err(BadLinkPolicy(other.to_owned())),
        }
    }
}

/// Of what protocol a VLAN's tag is, written `802.1Q` or `802.1ad`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum VlanProto {
    /// The usual one.
    #[default]
    #[serde(rename = "802.1Q")]
    Dot1Q,
    /// The outer tag of two.
    #[serde(rename = "802.1ad")]
    Dot1Ad,
}

/// A text that is not the protocol of a tag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not 802.1Q or 802.1ad")]
pub struct BadVlanProto(pub String);

impl VlanProto {
    /// Its number in a frame.
    ///
    /// *Source:* `include/uapi/linux/if_ether.h`, `ETH_P_8021Q`, `ETH_P_8021AD`.
    #[must_use]
    pub const fn ethertype(self) -> u16 {
        match self {
            Self::Dot1Q => 0x8100,
            Self::Dot1Ad => 0x88a8,
        }
    }
}

impl fmt::Display for VlanProto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dot1Q => "802.1Q",
            Self::Dot1Ad => "802.1ad",
        })
    }
}

impl FromStr for VlanProto {
    type Err = BadVlanProto;

    fn from_str(text: &str) -> Result<Self, BadVlanProto> {
        match text {
            "802.1Q" => Ok(Self::Dot1Q),
            "802.1ad" => Ok(Self::Dot1Ad),
            other => Err(BadVlanProto(other.to_owned())),
        }
    }
}

#[cfg(test)]
#[path = "words_test.rs"]
mod tests;
