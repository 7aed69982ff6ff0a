//! What configuration space tells of a function beside its interrupts. The bytes are the device's, hence hostile.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use serde::Serialize;

use super::caps::{
    BEYOND, EXTENDED, Header, NOT_GIVEN, ROOT_ONLY, Reason, WHOLE, byte_at, conventional, extended,
    u16_field, u32_field,
};

/// Facts from configuration space; what could not be read is unknown, and never taken for harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigFacts {
    /// The command register; `None` where it could not be read or the device does not answer.
    pub command: Option<u16>,
    /// Bus numbers, for a bridge (header type 1).
    pub bridge: Option<Bridge>,
    /// The PCI Express capability; `None` for a conventional device, and where only 64 bytes could be read.
    pub express: Option<Express>,
    /// The extended capabilities.
    pub extended: Extended,
}

/// The buses below a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bridge {
    /// The bus right below.
    pub secondary: u8,
    /// The highest bus below.
    pub subordinate: u8,
}

/// The PCI Express capability.
///
/// *Source:* `PCIe` r6.0 §7.5.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Express {
    /// What kind of port it is.
    pub port: PortType,
    /// Device Capabilities bit 28: it can be reset alone.
    pub has_flr: bool,
    /// Device Control bit 9: it may send with the function numbers of others.
    pub has_phantom_functions_on: bool,
}

/// Device/port type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortType {
    /// 0: `PCIe` endpoint.
    Endpoint,
    /// 1: legacy endpoint.
    LegacyEndpoint,
    /// 4: root port.
    RootPort,
    /// 5: upstream port of a switch.
    SwitchUpstream,
    /// 6: downstream port of a switch.
    SwitchDownstream,
    /// 7: bridge to conventional PCI.
    ToPciBridge,
    /// 8: bridge from conventional PCI.
    FromPciBridge,
    /// 9: endpoint within the root complex.
    IntegratedEndpoint,
    /// 10: event collector of the root complex.
    EventCollector,
    /// A number that the specification reserves.
    Reserved(u8),
}

/// The list of extended capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Extended {
    /// Read to its end.
    Known(ExtendedCaps),
    /// Not read: only root may, the device has no extended space, or the list is malformed.
    Unknown {
        /// Why.
        reason: &'static str,
    },
}

/// The extended capabilities that bear on isolation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExtendedCaps {
    /// Access Control Services.
    pub acs: Option<Acs>,
    /// Address Translation Services: whether it is switched on.
    pub ats: Option<bool>,
    /// Page Request Interface: whether it is switched on.
    pub pri: Option<bool>,
    /// Process address spaces: whether they are switched on.
    pub pasid: Option<bool>,
    /// Whether there is Advanced Error Reporting.
    pub has_aer: bool,
    /// Whether there is Downstream Port Containment.
    pub has_dpc: bool,
}

/// Access Control Services.
///
/// *Source:* `PCIe` r6.0 §7.7.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Acs {
    /// The capability register.
    pub capability: u16,
    /// The control register.
    pub control: u16,
}

impl Acs {
    /// Source validation.
    pub const SOURCE_VALIDATION: u16 = 1 << 0;
    /// Translation blocking.
    pub const TRANSLATION_BLOCKING: u16 = 1 << 1;
    /// Peer-to-peer request redirect.
    pub const REQUEST_REDIRECT: u16 = 1 << 2;
    /// Peer-to-peer completion redirect.
    pub const COMPLETION_REDIRECT: u16 = 1 << 3;
    /// Upstream forwarding.
    pub const UPSTREAM_FORWARDING: u16 = 1 << 4;
    /// Direct translated peer-to-peer.
    pub const DIRECT_TRANSLATED: u16 = 1 << 6;
}

/// Reads the facts out of configuration space: 64 bytes without privilege, 256 or 4096 with it.
///
/// Total: whatever the bytes, it ends with an answer, within 48 capabilities and 960 extended ones. A conventional
/// device, all of whose 256 bytes were read, is known to have no extended capability; with less, nothing is known.
#[must_use]
pub fn parse_config(config: &[u8]) -> ConfigFacts {
    let header = match Header::parse(config) {
        Ok(header) => header,
        Err(reason) => {
            return ConfigFacts {
                command: None,
                bridge: None,
                express: None,
                extended: Extended::Unknown { reason },
            };
        }
    };
    let express = parse_express(&header, config);
    let extended = match express {
        Ok(found) => parse_extended(config, found.is_some()),
        Err(reason) => Err(reason),
    };
    ConfigFacts {
        command: Some(header.command),
        bridge: header.is_bridge.then(|| parse_bridge(config)).flatten(),
        express: express.ok().flatten(),
        extended: match extended {
            Ok(found) => Extended::Known(found),
            Err(reason) => Extended::Unknown { reason },
        },
    }
}

/// The bus numbers of a header of type 1.
///
/// *Source:* `PCIe` r6.0 §7.5.1.3.
fn parse_bridge(config: &[u8]) -> Option<Bridge> {
    Some(Bridge {
        secondary: byte_at(config, SECONDARY_BUS)?,
        subordinate: byte_at(config, SUBORDINATE_BUS)?,
    })
}

fn parse_express(header: &Header, config: &[u8]) -> Result<Option<Express>, Reason> {
    if config.len() < EXTENDED {
        return Err(ROOT_ONLY);
    }
    let space = conventional(config);
    let mut express = None;
    for capability in header.capabilities(config) {
        let (id, at) = capability?;
        // The rest of the list is walked too: a malformed one says nothing that can be relied on.
        if id == CAP_EXPRESS && express.is_none() {
            let flags = u16_field(space, at, EXPRESS_FLAGS).ok_or(BEYOND)?;
            let capability = u32_field(space, at, DEVICE_CAPABILITIES).ok_or(BEYOND)?;
            let control = u16_field(space, at, DEVICE_CONTROL).ok_or(BEYOND)?;
            express = Some(Express {
                port: PortType::of(flags),
                has_flr: capability & HAS_FLR != 0,
                has_phantom_functions_on: control & PHANTOM_FUNCTIONS_ON != 0,
            });
        }
    }
    Ok(express)
}

impl PortType {
    /// Bits 7:4 of the capabilities register.
    ///
    /// *Source:* `PCIe` r6.0 §7.5.3.2.
    const fn of(flags: u16) -> Self {
        let [low, _] = flags.to_le_bytes();
        match low >> 4 {
            0 => Self::Endpoint,
            1 => Self::LegacyEndpoint,
            4 => Self::RootPort,
            5 => Self::SwitchUpstream,
            6 => Self::SwitchDownstream,
            7 => Self::ToPciBridge,
            8 => Self::FromPciBridge,
            9 => Self::IntegratedEndpoint,
            10 => Self::EventCollector,
            other => Self::Reserved(other),
        }
    }
}

fn parse_extended(config: &[u8], is_express: bool) -> Result<ExtendedCaps, Reason> {
    let mut found = ExtendedCaps::default();
    if config.len() == EXTENDED && !is_express {
        return Ok(found);
    }
    if config.len() < WHOLE {
        return Err(NOT_GIVEN);
    }
    for capability in extended(config) {
        let (id, at) = capability?;
        let word = |offset| u16_field(config, at, offset).ok_or(BEYOND);
        match id {
            // Of two, the kernel uses the first.
            EXT_ACS if found.acs.is_none() => {
                found.acs = Some(Acs {
                    capability: word(4)?,
                    control: word(6)?,
                });
            }
            EXT_ATS => switch(&mut found.ats, word(6)? & ATS_ENABLE != 0),
            EXT_PRI => switch(&mut found.pri, word(4)? & PRI_ENABLE != 0),
            EXT_PASID => switch(&mut found.pasid, word(6)? & PASID_ENABLE != 0),
            EXT_AER => found.has_aer = true,
            EXT_DPC => found.has_dpc = true,
            _ => {}
        }
    }
    Ok(found)
}

/// Of two capabilities of one kind, one that is on counts.
fn switch(found: &mut Option<bool>, is_on: bool) {
    *found = Some(found.unwrap_or(false) || is_on);
}

const SECONDARY_BUS: usize = 0x19;
const SUBORDINATE_BUS: usize = 0x1a;

// Source: PCIe r6.0 §7.5.3.2 (flags), §7.5.3.3 (device capabilities), §7.5.3.4 (device control).
const CAP_EXPRESS: u8 = 0x10;
const EXPRESS_FLAGS: usize = 2;
const DEVICE_CAPABILITIES: usize = 4;
const HAS_FLR: u32 = 1 << 28;
const DEVICE_CONTROL: usize = 8;
const PHANTOM_FUNCTIONS_ON: u16 = 1 << 9;

// Source: PCIe r6.0 §7.8.4 (AER), §7.7.11 (ACS), §10.5.1 (ATS), §10.5.2 (PRI), §7.8.9 (PASID), §7.9.14 (DPC);
// include/uapi/linux/pci_regs.h, PCI_EXT_CAP_ID_* (v6.12).
const EXT_AER: u16 = 0x0001;
const EXT_ACS: u16 = 0x000d;
const EXT_ATS: u16 = 0x000f;
const EXT_PRI: u16 = 0x0013;
const EXT_PASID: u16 = 0x001b;
const EXT_DPC: u16 = 0x001d;
const ATS_ENABLE: u16 = 1 << 15;
const PRI_ENABLE: u16 = 1 << 0;
const PASID_ENABLE: u16 = 1 << 0;

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows panics, and so fails"
)]
#[path = "config_test.rs"]
mod tests;
