use proptest::prelude::*;

use super::*;

/// A `PCIe` function's whole space: header type, device/port type, and extended capabilities at the given places.
fn space(header: u8, port: u8, extended: &[(usize, u32, &[u8])]) -> Vec<u8> {
    let mut config = vec![0; WHOLE];
    config[0x04] = 0x06;
    config[0x06] = 0x10;
    config[0x0e] = header;
    config[0x34] = 0xa0;
    config[0xa0..0xa4].copy_from_slice(&[0x10, 0, 2 | port << 4, 0]);
    for (at, header, body) in extended {
        config[*at..*at + 4].copy_from_slice(&header.to_le_bytes());
        config[*at + 4..*at + 4 + body.len()].copy_from_slice(body);
    }
    config
}

/// The header of an extended capability: identifier, and where the next one is.
fn link(id: u32, next: u32) -> u32 {
    id | 1 << 16 | next << 20
}

fn known(config: &[u8]) -> ExtendedCaps {
    match parse_config(config).extended {
        Extended::Known(caps) => caps,
        Extended::Unknown { reason } => panic!("{reason}"),
    }
}

fn reason(config: &[u8]) -> &'static str {
    match parse_config(config).extended {
        Extended::Known(caps) => panic!("{caps:?}"),
        Extended::Unknown { reason } => reason,
    }
}

// PCIe r6.0 §7.5.1.3 (bus numbers), §7.7.11 (ACS), §7.8.4 (AER), §7.9.14 (DPC).
#[test]
fn a_root_port_is_read_whole() {
    let mut config = space(
        0x81,
        4,
        &[
            (0x100, link(0x0001, 0x148), &[]),
            (0x148, link(0x000d, 0x160), &[0x5f, 0, 0x1d, 0]),
            (0x160, link(0x001d, 0), &[]),
        ],
    );
    config[0x18..0x1b].copy_from_slice(&[0, 1, 3]);
    let wanted = ConfigFacts {
        command: Some(6),
        bridge: Some(Bridge {
            secondary: 1,
            subordinate: 3,
        }),
        express: Some(Express {
            port: PortType::RootPort,
            has_flr: false,
            has_phantom_functions_on: false,
        }),
        extended: Extended::Known(ExtendedCaps {
            acs: Some(Acs {
                capability: 0x5f,
                control: 0x1d,
            }),
            has_aer: true,
            has_dpc: true,
            ..ExtendedCaps::default()
        }),
    };
    assert_eq!(parse_config(&config), wanted);
}

// PCIe r6.0 §10.5.1.3 (ATS control), §10.5.2.2 (PRI control), §7.8.9.3 (PASID control).
#[test]
fn switches_are_on_or_off_by_their_enable_bits_alone() {
    let caps = |ats: &[u8], pri: &[u8], pasid: &[u8]| {
        known(&space(
            0,
            0,
            &[
                (0x100, link(0x000f, 0x140), ats),
                (0x140, link(0x0013, 0x180), pri),
                (0x180, link(0x001b, 0), pasid),
            ],
        ))
    };
    let on = caps(&[0, 0, 0, 0x80], &[1, 0], &[0, 0, 1, 0]);
    assert_eq!(
        (on.ats, on.pri, on.pasid),
        (Some(true), Some(true), Some(true))
    );
    let off = caps(
        &[0xff, 0xff, 0xff, 0x7f],
        &[0xfe, 0xff],
        &[0xff, 0xff, 0xfe, 0xff],
    );
    assert_eq!(
        (off.ats, off.pri, off.pasid),
        (Some(false), Some(false), Some(false))
    );
    assert_eq!(known(&space(0, 0, &[])), ExtendedCaps::default());
}

// PCIe r6.0 §7.5.3.2 (table of device/port types), §7.5.3.3 bit 28, §7.5.3.4 bit 9.
#[test]
fn the_express_capability_is_read() {
    let table = [
        (0, PortType::Endpoint),
        (1, PortType::LegacyEndpoint),
        (2, PortType::Reserved(2)),
        (4, PortType::RootPort),
        (5, PortType::SwitchUpstream),
        (6, PortType::SwitchDownstream),
        (7, PortType::ToPciBridge),
        (8, PortType::FromPciBridge),
        (9, PortType::IntegratedEndpoint),
        (10, PortType::EventCollector),
        (15, PortType::Reserved(15)),
    ];
    for (number, port) in table {
        let express = parse_config(&space(0, number, &[])).express.unwrap();
        assert_eq!(express.port, port, "{number}");
        assert!(!express.has_flr && !express.has_phantom_functions_on);
    }
    let mut config = space(0, 0, &[]);
    config[0xa7] = 0x10;
    assert!(parse_config(&config).express.unwrap().has_flr);
    config[0xa9] = 0x02;
    assert!(
        parse_config(&config)
            .express
            .unwrap()
            .has_phantom_functions_on
    );
}

#[test]
fn without_privilege_nothing_behind_the_header_is_known() {
    let config = space(1, 4, &[(0x100, link(0x000d, 0), &[0x5f, 0, 0x1d, 0])]);
    let facts = parse_config(&config[..64]);
    assert_eq!(facts.command, Some(6));
    assert!(facts.bridge.is_some());
    assert_eq!(facts.express, None);
    assert_eq!(
        reason(&config[..64]),
        "only root may read more than 64 bytes"
    );
    // Not even of a device that says that it has no capabilities.
    assert_eq!(reason(&[0; 64]), "only root may read more than 64 bytes");
}

#[test]
fn a_space_cut_short_never_shows_a_list_without_acs() {
    let config = space(1, 4, &[(0x100, link(0x0001, 0x148), &[])]);
    for len in [256, 257, 0x104, 0x148, 0xfff] {
        let words = "the kernel gives only the first part of configuration space";
        assert_eq!(reason(&config[..len]), words, "{len}");
    }
}

// A conventional device has 256 bytes (PCI r3.0 §6.1), where all that it has can be seen.
#[test]
fn a_conventional_device_has_no_extended_capabilities() {
    let mut config = vec![0; 256];
    assert_eq!(known(&config), ExtendedCaps::default());
    config[0x06] = 0x10;
    config[0x34] = 0x40;
    config[0x40..0x42].copy_from_slice(&[0x01, 0]);
    assert_eq!(known(&config), ExtendedCaps::default());
    assert_eq!(parse_config(&config).express, None);
}

#[test]
fn malformed_lists_are_unknown_with_a_reason() {
    let mut conventional_loop = space(1, 4, &[]);
    conventional_loop[0xa1] = 0xa0;
    let mut into_header = space(1, 4, &[]);
    into_header[0xa1] = 0x10;
    let mut cut_express = space(1, 4, &[]);
    cut_express[0x34] = 0xf8;
    cut_express[0xf8] = 0x10;
    let mut cardbus = space(2, 0, &[]);
    cardbus[0x14] = 0xa0;
    let table = [
        ("nothing", vec![], "ends within its header"),
        ("short", vec![0; 63], "ends within its header"),
        ("no answer", vec![0xff; WHOLE], "does not answer"),
        ("cardbus", cardbus, "neither a device's nor a bridge's"),
        ("loop", conventional_loop, "has a loop"),
        ("into the header", into_header, "within the header"),
        (
            "PCIe across the end",
            cut_express,
            "beyond what can be read",
        ),
        (
            "loop of one",
            space(1, 4, &[(0x100, link(1, 0x100), &[])]),
            "extended capabilities has a loop",
        ),
        (
            "loop of two",
            space(
                1,
                4,
                &[(0x100, link(1, 0x200), &[]), (0x200, link(1, 0x100), &[])],
            ),
            "extended capabilities has a loop",
        ),
        (
            "out of the extended space",
            space(1, 4, &[(0x100, link(1, 0x0a0), &[])]),
            "within the conventional space",
        ),
        (
            "ones",
            space(1, 4, &[(0x100, u32::MAX, &[])]),
            "not answer in its extended space",
        ),
        (
            "ones behind a capability",
            space(
                1,
                4,
                &[(0x100, link(1, 0x200), &[]), (0x200, u32::MAX, &[])],
            ),
            "not answer in its extended space",
        ),
        (
            "ACS across the end",
            space(
                1,
                4,
                &[(0x100, link(1, 0xffc), &[]), (0xffc, link(0x0d, 0), &[])],
            ),
            "beyond what can be read",
        ),
    ];
    for (name, config, words) in table {
        assert!(
            reason(&config).contains(words),
            "{name}: {}",
            reason(&config)
        );
    }
    assert_eq!(parse_config(&[0xff; WHOLE]).command, None);
}

#[test]
fn the_longest_list_is_read_to_its_end() {
    let places = (0x100..WHOLE).step_by(4);
    let mut config = space(1, 4, &[]);
    for at in places {
        let next = u32::try_from(at + 4).unwrap() & 0xfff;
        config[at..at + 4].copy_from_slice(&link(0x0b, next).to_le_bytes());
    }
    assert_eq!(known(&config), ExtendedCaps::default());
}

// The kernel takes the first ACS (pci_find_ext_capability); a second ATS that is on is still on.
#[test]
fn two_capabilities_of_one_kind_cannot_hide_one_another() {
    let config = space(
        1,
        4,
        &[
            (0x100, link(0x000d, 0x140), &[0x5f, 0, 0, 0]),
            (0x140, link(0x000d, 0x180), &[0x5f, 0, 0x1d, 0]),
            (0x180, link(0x000f, 0x1c0), &[0, 0, 0, 0x80]),
            (0x1c0, link(0x000f, 0), &[0, 0, 0, 0]),
        ],
    );
    let caps = known(&config);
    assert_eq!(caps.acs.unwrap().control, 0);
    assert_eq!(caps.ats, Some(true));
}

/// The extended space with these dwords set; whole spaces of random bytes take long to make.
fn with_dwords(dwords: &[(usize, u32)]) -> Vec<u8> {
    let mut config = space(1, 4, &[]);
    for (index, dword) in dwords {
        let at = EXTENDED + 4 * index;
        config[at..at + 4].copy_from_slice(&dword.to_le_bytes());
    }
    config
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_bytes_get_an_answer(
        head in proptest::collection::vec(any::<u8>(), 0..0x300),
        len in prop_oneof![0..0x300_usize, Just(WHOLE)],
        is_plausible in any::<bool>(),
    ) {
        let mut config = head;
        config.resize(len, 0);
        if is_plausible && config.len() >= 64 {
            config[0x06] |= 0x10;
            config[0x0e] &= 0x81;
        }
        let facts = parse_config(&config);
        if config.len() < 256 {
            let is_unknown = matches!(facts.extended, Extended::Unknown { .. });
            prop_assert!(is_unknown);
        }
    }

    /// Lists that stay within the space: most random bytes never get as far as a second capability.
    #[test]
    fn any_list_ends(links in proptest::collection::vec((0_u32..0x20, 0x40_u32..0x400), 960)) {
        let headers = links.iter().map(|(id, next)| link(*id, next * 4));
        let dwords: Vec<(usize, u32)> = headers.enumerate().collect();
        // Every dword is a header that has a next one, so no list has an end.
        let is_unknown = matches!(parse_config(&with_dwords(&dwords)).extended, Extended::Unknown { .. });
        prop_assert!(is_unknown);
    }

    #[test]
    fn less_of_the_space_never_shows_anything(
        dwords in proptest::collection::vec((0_usize..960, any::<u32>()), 0..20),
        len in 0_usize..WHOLE,
    ) {
        let config = with_dwords(&dwords);
        let is_unknown = matches!(parse_config(&config[..len]).extended, Extended::Unknown { .. });
        prop_assert!(is_unknown);
    }
}
