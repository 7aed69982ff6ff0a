use proptest::prelude::*;

use super::*;

/// Configuration space with a capability list of the given (place, bytes).
fn config(len: usize, first: u8, capabilities: &[(usize, &[u8])]) -> Vec<u8> {
    let mut config = vec![0; 256];
    config[0x06] = 0x10;
    config[0x34] = first;
    for (at, bytes) in capabilities {
        config[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    config.truncate(len);
    config
}

const MSIX: &[u8] = &[0x11, 0, 0x09, 0x80, 0x03, 0, 0, 0, 0x04, 0x20, 0, 0];
const MSI: &[u8] = &[0x05, 0x70, 0x86, 0];

#[test]
fn msix_is_read_whole_and_preferred() {
    let config = config(256, 0x50, &[(0x50, MSI), (0x70, MSIX)]);
    let wanted = Interrupts::Msix {
        vectors: 10,
        table_bar: 3,
        table_offset: 0,
        pba_bar: 4,
        pba_offset: 0x2000,
    };
    assert_eq!(parse_interrupts(&config), wanted);
}

#[test]
fn msi_alone_is_read() {
    let config = config(256, 0x50, &[(0x50, &[0x05, 0, 0x86, 0])]);
    assert_eq!(parse_interrupts(&config), Interrupts::Msi { vectors: 8 });
}

#[test]
fn malformed_lists_are_unknown_with_a_reason() {
    let loop_of_one: &[u8] = &[0x01, 0x50];
    let table: &[(&str, Vec<u8>)] = &[
        ("nothing", vec![]),
        ("short header", config(0x20, 0, &[])),
        ("no answer", vec![0xff; 256]),
        ("loop", config(256, 0x50, &[(0x50, loop_of_one)])),
        (
            "loop of two",
            config(256, 0x50, &[(0x50, &[1, 0x60]), (0x60, &[1, 0x50])]),
        ),
        ("into the header", config(256, 0x50, &[(0x50, &[1, 0x10])])),
        (
            "loop behind what is looked for",
            config(256, 0x70, &[(0x70, MSIX), (0x71, &[0x70])]),
        ),
        (
            "no answer from a capability",
            config(
                256,
                0x70,
                &[(0x70, MSIX), (0x71, &[0x80]), (0x80, &[0xff, 0])],
            ),
        ),
        ("beyond 64 bytes", config(64, 0x50, &[])),
        (
            "cut in the middle",
            config(0x76, 0x70, &[(0x70, &MSIX[..6])]),
        ),
        (
            "reserved count",
            config(256, 0x50, &[(0x50, &[5, 0, 0x0c, 0])]),
        ),
        (
            "BAR 6",
            config(
                256,
                0x70,
                &[(0x70, &[0x11, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0])],
            ),
        ),
    ];
    for (name, config) in table {
        let found = parse_interrupts(config);
        assert!(
            matches!(found, Interrupts::Unknown { .. }),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn no_capabilities_is_none() {
    assert_eq!(parse_interrupts(&[0; 64]), Interrupts::None);
}

proptest! {
    #[test]
    fn any_bytes_get_an_answer_within_its_bounds(
        mut config in proptest::collection::vec(any::<u8>(), 0..300),
        has_list in any::<bool>(),
    ) {
        if has_list && config.len() >= 64 {
            config[0x06] |= 0x10;
            config[0x0e] &= 0x81;
        }
        match parse_interrupts(&config) {
            Interrupts::Msix { vectors, table_bar, table_offset, pba_bar, pba_offset } => {
                prop_assert!((1..=2048).contains(&vectors));
                prop_assert!(table_bar < 6 && pba_bar < 6);
                prop_assert!(table_offset % 8 == 0 && pba_offset % 8 == 0);
            }
            Interrupts::Msi { vectors } => prop_assert!(vectors.is_power_of_two() && vectors <= 32),
            Interrupts::None | Interrupts::Unknown { .. } => {}
        }
    }

    /// Lists that stay within the space: most random bytes never get as far as a second capability.
    #[test]
    fn any_list_ends(links in proptest::collection::vec((0_u8..4, 0x40_u8..=0xff), 256)) {
        let mut config = config(256, 0x40, &[]);
        for (at, (id, next)) in links.iter().enumerate().skip(0x40) {
            config[at] = if at % 4 == 0 { *id } else { *next };
        }
        let found = parse_interrupts(&config);
        prop_assert!(matches!(found, Interrupts::None | Interrupts::Unknown { .. }), "{:?}", found);
    }

    #[test]
    fn less_of_the_space_never_shows_more(
        config in proptest::collection::vec(any::<u8>(), 256),
        len in 0_usize..256,
    ) {
        let (whole, part) = (parse_interrupts(&config), parse_interrupts(&config[..len]));
        if !matches!(part, Interrupts::Unknown { .. }) {
            prop_assert_eq!(whole, part);
        }
    }
}
