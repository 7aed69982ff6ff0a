//! What lies at a guest-physical address that is not mapped, or not to be written.

use crate::addr::Gpa;
use crate::handoff::Handoff;
use crate::machine;

/// What an access is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Configuration space of an assigned function.
    Config {
        /// Its index.
        function: usize,
        /// Offset in bytes.
        offset: usize,
    },
    /// Configuration space where no function is.
    NoFunction,
    /// A part of a BAR that is not mapped.
    Bar {
        /// The function's index.
        function: usize,
        /// The BAR's index.
        bar: usize,
        /// Offset in bytes.
        offset: u64,
    },
    /// Nothing.
    Nothing,
}

/// What an access of `size_bytes` bytes at `at` is for; what is not naturally aligned is for nothing.
#[must_use]
pub fn target_of(handoff: &Handoff, at: Gpa, size_bytes: usize) -> Target {
    let is_natural =
        matches!(size_bytes, 1 | 2 | 4 | 8) && at.raw().is_multiple_of(size_bytes as u64);
    if !is_natural {
        return Target::Nothing;
    }
    let in_ecam = at
        .offset_from(machine::ECAM_START)
        .filter(|offset| *offset < machine::ECAM_BYTES);
    match in_ecam.and_then(|offset| usize::try_from(offset).ok()) {
        Some(_) if size_bytes == 8 => Target::Nothing,
        Some(offset) => config_target(handoff, offset),
        None => bar_target(handoff, at),
    }
}

/// What an offset in ECAM is for.
fn config_target(handoff: &Handoff, in_ecam: usize) -> Target {
    let (devfn, offset) = (
        in_ecam / machine::CONFIG_BYTES,
        in_ecam % machine::CONFIG_BYTES,
    );
    let (slot, function) = (devfn / 8, devfn % 8);
    let indices = (0_u8..).zip(handoff.functions());
    let index = indices
        .map(|(index, _)| index)
        .find(|index| usize::from(machine::slot_of(*index)) == slot && function == 0);
    match index {
        Some(index) => Target::Config {
            function: usize::from(index),
            offset,
        },
        None => Target::NoFunction,
    }
}

/// The BAR that `at` lies in.
fn bar_target(handoff: &Handoff, at: Gpa) -> Target {
    for (function, facts) in handoff.functions().iter().enumerate() {
        for (bar, place) in facts.bars.iter().enumerate() {
            match at.offset_from(Gpa::new(place.gpa)) {
                Some(offset) if offset < place.len_bytes => {
                    return Target::Bar {
                        function,
                        bar,
                        offset,
                    };
                }
                _ => {}
            }
        }
    }
    Target::Nothing
}

#[cfg(test)]
mod mmio_test {
    use super::*;
    use proptest::prelude::*;

    fn handoff() -> Handoff {
        let mut handoff = Handoff::empty();
        handoff.function_count = 2;
        handoff.functions[1].bars[3].gpa = 0x10_0000_0000;
        handoff.functions[1].bars[3].len_bytes = 0x4000;
        handoff
    }

    #[test]
    fn configuration_space_is_found_by_slot() {
        let at = |devfn: u64, offset| {
            target_of(&handoff(), Gpa::new(0xE000_0000 + devfn * 4096 + offset), 4)
        };
        assert_eq!(at(0, 0), Target::NoFunction);
        assert_eq!(
            at(1 << 3, 0x10),
            Target::Config {
                function: 0,
                offset: 0x10
            }
        );
        assert_eq!(
            at(2 << 3, 0xFFC),
            Target::Config {
                function: 1,
                offset: 0xFFC
            }
        );
        assert_eq!(at(1 << 3 | 1, 0), Target::NoFunction);
        assert_eq!(at(3 << 3, 0), Target::NoFunction);
        assert_eq!(at(255, 0xFFC), Target::NoFunction);
        assert_eq!(at(256, 0), Target::Nothing);
    }

    #[test]
    fn a_bar_is_found_to_its_last_byte() {
        let at = |gpa, size| target_of(&handoff(), Gpa::new(gpa), size);
        let bar = |offset| Target::Bar {
            function: 1,
            bar: 3,
            offset,
        };
        assert_eq!(at(0x10_0000_0000, 8), bar(0));
        assert_eq!(at(0x10_0000_3FF8, 8), bar(0x3FF8));
        assert_eq!(at(0x10_0000_3FFF, 1), bar(0x3FFF));
        assert_eq!(at(0x10_0000_4000, 1), Target::Nothing);
        assert_eq!(at(0xF_FFFF_FFFF, 1), Target::Nothing);
    }

    #[test]
    fn what_is_not_aligned_is_nothing() {
        let at = |gpa, size| target_of(&handoff(), Gpa::new(gpa), size);
        assert_eq!(at(0xE000_8001, 2), Target::Nothing);
        assert_eq!(at(0xE000_8000, 3), Target::Nothing);
        assert_eq!(at(0xE000_8000, 8), Target::Nothing);
        assert_eq!(at(0x10_0000_0004, 8), Target::Nothing);
        assert_eq!(at(0x10_0000_0000, 0), Target::Nothing);
    }

    proptest! {
        #[test]
        fn no_address_and_size_panics(at: u64, size: usize) {
            let target = target_of(&handoff(), Gpa::new(at), size % 10);
            prop_assert!(size % 10 != 0 || target == Target::Nothing);
        }
    }
}
