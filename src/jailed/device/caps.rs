//! The capabilities of a device, found in configuration bytes that may say anything.

/// Where the capabilities lie that the guest may see in some form; the first of each kind counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Power management.
    pub power: Option<u8>,
    /// MSI.
    pub msi: Option<u8>,
    /// PCI Express.
    pub express: Option<u8>,
    /// MSI-X.
    pub msix: Option<u8>,
}

/// Offset of the status register, whose bit 4 says that there is a list.
const STATUS: usize = 6;
/// Offset of the pointer to the first capability.
const POINTER: usize = 0x34;
/// Where capabilities may begin.
const FIRST: u8 = 0x40;
/// More than fit between [`FIRST`] and the end: a longer list is a loop.
const MOST: usize = 48;

/// Walks the list in `config`, the first 256 bytes or fewer.
///
/// The walk ends at the first pointer that leads out of range and after as many steps as capabilities can exist. What
/// was found before that counts; what lies behind it is hidden.
#[must_use]
pub fn walk(config: &[u8]) -> Caps {
    let mut found = Caps::default();
    let byte = |offset: usize| config.get(offset).copied();
    if byte(STATUS).is_none_or(|status| status & 0x10 == 0) {
        return found;
    }
    let mut next = byte(POINTER);
    for _ in 0..MOST {
        let Some(at) = next.map(|n| n & !3).filter(|n| *n >= FIRST) else {
            break;
        };
        let kind = byte(usize::from(at));
        let place = match kind {
            Some(0x01) => &mut found.power,
            Some(0x05) => &mut found.msi,
            Some(0x10) => &mut found.express,
            Some(0x11) => &mut found.msix,
            Some(0xFF) | None => break,
            Some(_) => &mut None,
        };
        place.get_or_insert(at);
        next = byte(usize::from(at | 1));
    }
    found
}
