//! Every write to configuration space, and what a guest reads there.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows fails"
)]

use super::{
    function_test::{bytes_of, effects, function},
    outcome::Effect,
    simulated::{EXPRESS, MSI, MSIX, POWER, config_write, shapes},
};
use crate::handoff::InterruptKind;

/// The bits a guest may change, written down a second time and by byte.
fn writable(kind: InterruptKind, msi_control: u16) -> [u8; 256] {
    let mut writable = [0; 256];
    let mut put =
        |at: u8, with: &[u8]| writable[usize::from(at)..][..with.len()].copy_from_slice(with);
    put(0x04, &[0x06, 0x04]);
    put(0x0C, &[0xFF, 0xFF]);
    put(0x12, &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
    put(0x1C, &[0x00, 0xC0, 0xFF, 0xFF]);
    put(0x3C, &[0xFF]);
    put(POWER + 4, &[0x03]);
    put(EXPRESS + 8, &[0xFF, 0x78]);
    match kind {
        InterruptKind::None => {}
        InterruptKind::Msix => put(MSIX + 3, &[0xC0]),
        InterruptKind::Msi => {
            put(MSI + 2, &[0x71, 0, 0xFC, 0xFF, 0xFF, 0xFF]);
            let is_long = msi_control & 0x80 != 0;
            let behind = if is_long { 4 } else { 0 };
            if is_long {
                put(MSI + 8, &[0xFF; 4]);
            }
            put(MSI + 8 + behind, &[0xFF; 2]);
            if msi_control & 0x100 != 0 {
                put(MSI + 0x0C + behind, &[0xFF; 4]);
            }
        }
    }
    writable
}

#[test]
fn every_write_changes_the_bits_of_the_table_and_no_other() {
    let values = || {
        [0, u64::from(u32::MAX)]
            .into_iter()
            .chain((0..32).map(|bit| 1_u64 << bit))
    };
    for (kind, msi_control) in shapes() {
        let writable = writable(kind, msi_control);
        let power_on = bytes_of(&function(kind, msi_control));
        let mut function = function(kind, msi_control);
        for (offset, size_bytes) in (0..4096_u64).flat_map(|o| [(o, 1), (o, 2), (o, 4)]) {
            for value in values() {
                if offset >= 256 {
                    let before = *function.config().dwords();
                    let outcome = function.access(&config_write(offset, size_bytes, value));
                    assert_eq!(function.config().dwords(), &before);
                    assert_eq!((effects(&outcome), outcome.route), (vec![], None));
                    continue;
                }
                let before = bytes_of(&function);
                let outcome = function.access(&config_write(offset, size_bytes, value));
                let after = bytes_of(&function);
                assert!(outcome.is_config_changed || before == after);
                for effect in effects(&outcome) {
                    if let Effect::HardwareCommand(command) = effect {
                        assert_eq!(u16::from(after[4]) & 6, command);
                    }
                }
                if effects(&outcome).contains(&Effect::Reset) {
                    assert!(offset.abs_diff(u64::from(EXPRESS) + 8) <= 1);
                    assert_eq!(after, power_on);
                    continue;
                }
                let mut expected = before.clone();
                if offset.is_multiple_of(size_bytes as u64) {
                    for (lane, byte) in value.to_le_bytes().into_iter().take(size_bytes).enumerate()
                    {
                        let at = usize::try_from(offset).unwrap() + lane;
                        if at < 256 {
                            expected[at] = before[at] & !writable[at] | byte & writable[at];
                        }
                    }
                }
                let power = usize::from(POWER) + 4;
                if matches!(expected[power] & 3, 1 | 2) {
                    expected[power] = before[power];
                }
                // The count of vectors stays while MSI is enabled.
                let msi = usize::from(MSI) + 2;
                if kind == InterruptKind::Msi && before[msi] & expected[msi] & 1 == 1 {
                    expected[msi] = expected[msi] & !0x70 | before[msi] & 0x70;
                }
                assert_eq!(
                    after, expected,
                    "{kind:?} {offset:#x} {size_bytes} {value:#x}"
                );
            }
        }
    }
}

#[test]
fn guest_sees_only_what_the_table_shows() {
    let function = function(InterruptKind::Msix, 0);
    let bytes = bytes_of(&function);
    assert_eq!(
        &bytes[..0x10],
        [
            0x86, 0x80, 0xED, 0x10, 0, 0, 0x10, 0, 1, 0, 0, 2, 0, 0, 0, 0
        ]
    );
    assert_eq!(&bytes[0x10..0x18], [0x0C, 0, 0x56, 0x34, 0x12, 0, 0, 0]);
    assert_eq!(&bytes[0x1C..0x20], [0, 0x40, 0, 0xC0]);
    assert_eq!(
        &bytes[0x28..0x40],
        [
            0, 0, 0, 0, 0x34, 0x12, 0x78, 0x56, 0, 0, 0, 0, POWER, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
        ]
    );
    assert_eq!(&bytes[0x40..0x50], [0; 16]);
    assert_eq!(&bytes[0x50..0x58], [1, EXPRESS, 3, 0, 8, 0, 0, 0]);
    assert_eq!(
        &bytes[0xA0..0xAC],
        [0x10, MSIX, 0x92, 0, 0, 0x80, 0, 0x10, 0x10, 0x28, 0, 0]
    );
    assert_eq!(
        &bytes[0x70..0x7C],
        [0x11, 0, 4, 0, 3, 0, 0, 0, 3, 0x20, 0, 0]
    );
    let shown = [0..0x40, 0x50..0x58, 0x70..0x7C, 0xA0..0xAC];
    for (at, byte) in bytes.iter().enumerate() {
        assert!(
            *byte == 0 || shown.iter().any(|s| s.contains(&at)),
            "{at:#x}"
        );
    }
}

#[test]
fn sizing_a_bar_by_ones_gives_its_size() {
    let mut function = function(InterruptKind::Msix, 0);
    for dword in 4..10 {
        function.access(&config_write(dword * 4, 4, u64::MAX));
    }
    let read = |dword: usize| function.config().dwords()[dword];
    assert_eq!(
        [4, 5, 6, 7, 8, 9].map(read),
        [0xFFFF_000C, 0xFFFF_FFFF, 0, 0xFFFF_C000, 0, 0]
    );
}
