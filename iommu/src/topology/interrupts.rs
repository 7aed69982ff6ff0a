//! The message interrupts of a function, from its capability list. The bytes are the device's, hence hostile.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::Interrupts;

/// Reads the interrupts out of the first bytes of configuration space: 64 without privilege, 256 with it.
///
/// Total: whatever the bytes, it ends, within 48 capabilities, with an answer.
///
/// *Source:* `PCIe` r6.0 §7.5.1.1.11 (capabilities pointer), §7.7.1 (MSI), §7.7.2 (MSI-X).
#[must_use]
pub fn parse_interrupts(config: &[u8]) -> Interrupts {
    match parse(config) {
        Ok(interrupts) => interrupts,
        Err(reason) => Interrupts::Unknown { reason },
    }
}

fn parse(config: &[u8]) -> Result<Interrupts, &'static str> {
    const SHORT: &str = "configuration space ends within its header";
    let status = u16_at(config, STATUS).ok_or(SHORT)?;
    let header = byte_at(config, HEADER_TYPE).ok_or(SHORT)?;
    let first = byte_at(config, FIRST_CAPABILITY).ok_or(SHORT)?;
    if config.iter().all(|byte| *byte == 0xff) {
        return Err("the device does not answer");
    }
    if header & 0x7f > 1 {
        return Err("the header is neither a device's nor a bridge's");
    }
    if status & STATUS_HAS_CAPABILITIES == 0 {
        return Ok(Interrupts::None);
    }
    let mut msi = Interrupts::None;
    let mut at = usize::from(first & !3);
    // 48 capabilities of four bytes fill the space behind the header; a longer list has a loop.
    for _ in 0..48 {
        if at == 0 {
            return Ok(msi);
        }
        if at < 0x40 {
            return Err("a capability lies within the header");
        }
        let id = byte_at(config, at).ok_or(BEYOND)?;
        let next = field(config, at, 1).ok_or(BEYOND)?;
        match id {
            CAP_MSIX => return parse_msix(config, at),
            CAP_MSI if msi == Interrupts::None => msi = parse_msi(config, at)?,
            _ => {}
        }
        at = usize::from(next & !3);
    }
    Err("the capability list has a loop")
}

fn parse_msi(config: &[u8], at: usize) -> Result<Interrupts, &'static str> {
    let control = field(config, at, 2).ok_or(BEYOND)?;
    match control >> 1 & 7 {
        log @ 0..=5 => Ok(Interrupts::Msi { vectors: 1 << log }),
        _ => Err("MSI has a reserved number of vectors"),
    }
}

fn parse_msix(config: &[u8], at: usize) -> Result<Interrupts, &'static str> {
    let control = at
        .checked_add(2)
        .and_then(|at| u16_at(config, at))
        .ok_or(BEYOND)?;
    let dword = |offset| {
        let at = at.checked_add(offset)?;
        let high = u16_at(config, at.checked_add(2)?)?;
        Some(u32::from(u16_at(config, at)?) | u32::from(high) << 16)
    };
    let table = dword(4).ok_or(BEYOND)?;
    let pba = dword(8).ok_or(BEYOND)?;
    let bar = |dword: u32| match dword & 7 {
        bar @ 0..=5 => u8::try_from(bar).map_err(|_never| BAD_BAR),
        _ => Err(BAD_BAR),
    };
    Ok(Interrupts::Msix {
        vectors: u32::from(control & 0x7ff).saturating_add(1),
        table_bar: bar(table)?,
        table_offset: table & !7,
        pba_bar: bar(pba)?,
        pba_offset: pba & !7,
    })
}

const STATUS: usize = 0x06;
const STATUS_HAS_CAPABILITIES: u16 = 1 << 4;
const HEADER_TYPE: usize = 0x0e;
const FIRST_CAPABILITY: usize = 0x34;
const CAP_MSI: u8 = 0x05;
const CAP_MSIX: u8 = 0x11;

const BEYOND: &str =
    "a capability lies beyond what can be read (only root may read more than 64 bytes)";
const BAD_BAR: &str = "the MSI-X table or its pending bits are in a BAR that does not exist";

fn byte_at(config: &[u8], at: usize) -> Option<u8> {
    config.get(at).copied()
}

fn field(config: &[u8], at: usize, offset: usize) -> Option<u8> {
    byte_at(config, at.checked_add(offset)?)
}

fn u16_at(config: &[u8], at: usize) -> Option<u16> {
    config
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_le_bytes)
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows panics, and so fails"
)]
#[path = "interrupts_test.rs"]
mod tests;
