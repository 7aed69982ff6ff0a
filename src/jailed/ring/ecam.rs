//! What the guest reads as configuration space of its bus: pages of the ring's file, side by side.

use super::Layout;
use crate::{
    machine::{CONFIG_BYTES, ECAM_BYTES, slot_of},
    sys::memory::Piece,
};

const SLOTS: usize = 32;
const FUNCTIONS_IN_SLOT: usize = 8;
const _: () = assert!(ECAM_BYTES == (SLOTS * FUNCTIONS_IN_SLOT * CONFIG_BYTES) as u64);

/// How many pieces there are: of each slot function 0, and the others.
///
/// Function 0 is apart, because it is the only one that a guest looks at in an empty slot: where a page is touched, the
/// host's kernel enters the rest of its mapping into the page table, too.
pub const ECAM_PIECES: usize = 2 * SLOTS;

impl Layout {
    /// Bytes of all ones behind what V and D share: what functions are read as that do not exist. One slot's functions but
    /// the first, for all slots.
    pub const ONES_BYTES: usize = (FUNCTIONS_IN_SLOT - 1) * CONFIG_BYTES;

    /// Offset of the ones. Neither side maps them writable.
    #[must_use]
    pub const fn ones(&self) -> usize {
        self.size_bytes()
    }

    /// The length of the ring's file.
    #[must_use]
    pub const fn file_bytes(&self) -> usize {
        self.ones() + Self::ONES_BYTES
    }

    /// What ECAM is made of, in the order of its addresses.
    #[must_use]
    pub fn ecam(&self) -> [Piece; ECAM_PIECES] {
        core::array::from_fn(|nth| {
            let (slot, is_first) = (nth / 2, nth.is_multiple_of(2));
            let function = (0_u8..)
                .take(self.functions())
                .find(|index| is_first && usize::from(slot_of(*index)) == slot);
            Piece {
                offset: function.map_or(self.ones(), |index| self.config(usize::from(index))),
                len_bytes: if is_first {
                    CONFIG_BYTES
                } else {
                    Self::ONES_BYTES
                },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::MAX_FUNCTIONS;

    /// The offset in the file of the page that the guest finds at each function.
    fn pages(layout: Layout) -> Vec<usize> {
        let pieces = layout.ecam();
        let pages = pieces.iter().flat_map(|piece| {
            let pages = piece.len_bytes / CONFIG_BYTES;
            (0..pages).map(|page| piece.offset + page * CONFIG_BYTES)
        });
        pages.collect()
    }

    #[test]
    fn every_function_is_where_it_is_told_and_ones_are_everywhere_else() {
        for functions in 0..=MAX_FUNCTIONS {
            let layout = Layout::new(3, functions);
            let pages = pages(layout);
            assert_eq!(pages.len(), 256);
            for (devfn, offset) in pages.into_iter().enumerate() {
                let index = (devfn / 8).wrapping_sub(1);
                if devfn % 8 == 0 && index < functions {
                    assert_eq!(offset, layout.config(index), "{devfn}");
                } else {
                    let ones = layout.ones()..layout.file_bytes();
                    assert!(ones.contains(&offset), "{devfn}: {offset:#x}");
                }
            }
        }
    }

    #[test]
    fn nothing_that_both_sides_write_is_among_the_ones() {
        let layout = Layout::new(64, MAX_FUNCTIONS);
        assert_eq!(layout.ones(), layout.size_bytes());
        assert!(layout.ones().is_multiple_of(CONFIG_BYTES));
        assert!(layout.config(MAX_FUNCTIONS - 1) + CONFIG_BYTES <= layout.ones());
    }
}
