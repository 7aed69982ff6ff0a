use proptest::prelude::*;

use super::*;

/// A function with MSI at 0x50, Express at 0x60, MSI-X at 0xa0 and AER at 0x100.
fn function() -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    for (at, value) in [
        (0x06, 0x10),
        (0x34, 0x50),
        (0x50, 0x05),
        (0x51, 0x60),
        (0x60, 0x10),
        (0x61, 0xa0),
        (0xa0, 0x11),
        (0x100, 0x01),
        (0x102, 0x02),
    ] {
        bytes[at] = value;
    }
    bytes
}

fn with(changes: &[(usize, u8)]) -> ConfigSnapshot {
    let mut bytes = function();
    for (at, value) in changes {
        bytes[*at] = *value;
    }
    ConfigSnapshot::of(bytes)
}

#[test]
fn a_silent_function_makes_no_noise() {
    assert_eq!(with(&[]).noise(), Vec::<String>::new());
    // Decoding and error bits are no noise.
    assert_eq!(with(&[(4, 3), (7, 0xf9)]).noise(), Vec::<String>::new());
}

#[test]
fn each_way_to_make_noise_is_told() {
    for (at, value, word) in [
        (0x04, 0x04, "bus master"),
        (0x52, 0x01, "MSI control"),
        (0xa3, 0x80, "MSI-X control"),
        (0x6a, 0x20, "transactions are pending"),
    ] {
        let noise = with(&[(at, value)]).noise();
        assert_eq!(noise.len(), 1);
        assert!(noise[0].contains(word), "{noise:?}");
    }
    let gone = ConfigSnapshot::of(vec![0xff; 4096]).noise();
    assert!(gone[0].contains("does not answer"), "{gone:?}");
    assert_eq!(ConfigSnapshot::of(Vec::new()).noise().len(), 1);
}

#[test]
fn only_what_the_table_lists_may_differ() {
    let before = with(&[]);
    for (at, value) in [
        (0x04, 0x03),
        (0x05, 0x04),
        (0x54, 0xff),
        (0x67, 0xff),
        (0x104, 0xff),
        (0x72, 1),
    ] {
        assert_eq!(
            before.differences(&with(&[(at, value)])),
            Vec::<String>::new(),
            "{at:#x}"
        );
    }
    for (at, value) in [
        (0x04, 0x08),
        (0x10, 1),
        (0x34, 0),
        (0x52, 1),
        (0x69, 0x10),
        (0xa2, 1),
        (0x108, 1),
        (0xfff, 1),
    ] {
        let told = before.differences(&with(&[(at, value)]));
        assert_eq!(told.len(), 1, "{at:#x}");
        assert!(told[0].contains(&format!("at {at:#05x}")), "{told:?}");
    }
}

#[test]
fn a_function_that_changed_beyond_recognition_is_told_briefly() {
    let before = with(&[]);
    let told = before.differences(&ConfigSnapshot::of(vec![0xff; 4096]));
    assert_eq!(told.len(), TOLD + 1);
    assert!(told[TOLD].ends_with("more bytes differ"), "{told:?}");
    let short = before.differences(&ConfigSnapshot::of(vec![0; 256]));
    assert!(short[0].contains("256 bytes"), "{short:?}");
}

#[test]
fn every_row_has_its_reason_and_stays_within_its_capability() {
    for row in MAY_DIFFER {
        assert!(row.reason.len() > 10 && row.mask != 0 && row.len > 0);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged(before in proptest::collection::vec(any::<u8>(), 0..4096), after in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let (before, after) = (ConfigSnapshot::of(before), ConfigSnapshot::of(after));
        prop_assert!(before.noise().len() <= 5);
        prop_assert!(before.differences(&after).len() <= TOLD + 1);
        prop_assert_eq!(before.differences(&before), Vec::<String>::new());
    }
}

#[test]
fn a_snapshot_survives_being_written_down() {
    let snapshot = with(&[(0x04, 0xab), (0xfff, 0x5c)]);
    let text = snapshot.to_hex();
    assert_eq!(text.len(), 2 * 4096);
    assert_eq!(ConfigSnapshot::from_hex(&text), Some(snapshot));
    for text in ["", "0", "0g", "+1", "é", "12 4"] {
        assert_eq!(ConfigSnapshot::from_hex(text), None, "{text}");
    }
}
