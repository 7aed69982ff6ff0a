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

/// Walks the list in `config`, the first 256 bytes or fewer; `None` for a list that is none.
///
/// That is one which leaves its place, meets a byte that does not answer, or has a loop: the walk ends after as many
/// steps as capabilities can exist. Nothing of such a list is believed.
#[must_use]
pub fn walk(config: &[u8]) -> Option<Caps> {
    let mut found = Caps::default();
    let byte = |offset: usize| config.get(offset).copied();
    if byte(STATUS)? & 0x10 == 0 {
        return Some(found);
    }
    let mut next = byte(POINTER)? & !3;
    for _ in 0..MOST {
        if next == 0 {
            return Some(found);
        }
        if next < FIRST {
            return None;
        }
        let at = next;
        let place = match byte(usize::from(at))? {
            0x01 => &mut found.power,
            0x05 => &mut found.msi,
            0x10 => &mut found.express,
            0x11 => &mut found.msix,
            0xFF => return None,
            _ => &mut None,
        };
        place.get_or_insert(at);
        next = byte(usize::from(at | 1))? & !3;
    }
    (next == 0).then_some(found)
}
