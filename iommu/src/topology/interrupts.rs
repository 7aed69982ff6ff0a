//! The message interrupts of a function, from its capability list. The bytes are the device's, hence hostile.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{
    Interrupts,
    caps::{BEYOND, Header, Reason, conventional, field, u16_field, u32_field},
};

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

fn parse(config: &[u8]) -> Result<Interrupts, Reason> {
    let space = conventional(config);
    let (mut msi, mut msix) = (Interrupts::None, None);
    // To the list's end, even where what is looked for is found: a list that is broken anywhere is not believed.
    for capability in Header::parse(config)?.capabilities(config) {
        match capability? {
            (CAP_MSIX, at) if msix.is_none() => msix = Some(parse_msix(space, at)?),
            (CAP_MSI, at) if msi == Interrupts::None => msi = parse_msi(space, at)?,
            _ => {}
        }
    }
    Ok(msix.unwrap_or(msi))
}

fn parse_msi(config: &[u8], at: usize) -> Result<Interrupts, Reason> {
    let control = field(config, at, 2).ok_or(BEYOND)?;
    match control >> 1 & 7 {
        log @ 0..=5 => Ok(Interrupts::Msi { vectors: 1 << log }),
        _ => Err("MSI has a reserved number of vectors"),
    }
}

fn parse_msix(config: &[u8], at: usize) -> Result<Interrupts, Reason> {
    let control = u16_field(config, at, 2).ok_or(BEYOND)?;
    let table = u32_field(config, at, 4).ok_or(BEYOND)?;
    let pba = u32_field(config, at, 8).ok_or(BEYOND)?;
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

const CAP_MSI: u8 = 0x05;
const CAP_MSIX: u8 = 0x11;

const BAD_BAR: &str = "the MSI-X table or its pending bits are in a BAR that does not exist";

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows panics, and so fails"
)]
#[path = "interrupts_test.rs"]
mod tests;
