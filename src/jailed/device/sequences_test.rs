//! Random sequences of requests against a simulated device.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows fails"
)]

use proptest::prelude::*;

use super::{
    config::DeviceBytes,
    function::Function,
    function_test::function,
    outcome::Answer,
    simulated::{EXPRESS, MSI, MSIX, Simulated, VECTORS, bar_access, config_write, facts, shapes},
};
use crate::{
    handoff::{self, InterruptKind},
    ring::{Request, RequestKind},
};

fn request() -> impl Strategy<Value = Request> {
    let size = prop_oneof![Just(1_usize), Just(2), Just(4)];
    let spot = prop_oneof![
        Just(4_u64),
        Just(u64::from(MSIX) + 2),
        Just(u64::from(MSIX)),
        Just(u64::from(EXPRESS) + 8),
        (0..8_u64).prop_map(|o| u64::from(MSI) + o * 2),
        0..256_u64,
    ];
    let value = prop_oneof![
        any::<u32>(),
        Just(0xFEE0_1004),
        Just(0x8000_0000),
        Just(0xC000),
        Just(0x8000),
        0_u32..0x80,
    ];
    let config = (spot, size, value.clone())
        .prop_map(|(o, s, v)| config_write(o & !(s as u64 - 1), s, v.into()));
    let wide = prop_oneof![Just(4_usize), Just(8), Just(1)];
    let place = prop_oneof![0..0x90_u64, 0x2000..0x2010_u64, 0..0x4000_u64];
    let table = (place, wide, value.clone(), value, any::<bool>()).prop_map(
        |(o, s, low, high, is_read)| {
            let kind = if is_read {
                RequestKind::BarRead
            } else {
                RequestKind::BarWrite
            };
            bar_access(
                kind,
                o & !(s as u64 - 1),
                s,
                u64::from(low) | u64::from(high) << 32,
            )
        },
    );
    prop_oneof![config, table]
}

proptest! {
    #[test]
    fn hardware_is_always_as_the_model_says(shape in 0_usize..6, requests in prop::collection::vec(request(), 1..200)) {
        let (kind, msi_control) = shapes()[shape];
        let mut function = function(kind, msi_control);
        let mut hardware = Simulated::new(&facts(kind));
        for request in requests {
            let outcome = function.access(&request);
            hardware.follow(&outcome);
            let dwords = *function.config().dwords();
            prop_assert_eq!(u32::from(hardware.command), dwords[1] & 6);
            prop_assert_eq!(hardware.armed, function.armed());
            for vector in 0..8 {
                let is_delivered = function.delivered().has(vector);
                prop_assert_eq!(hardware.is_delivered[vector as usize], is_delivered);
            }
            if kind == InterruptKind::Msix {
                for vector in 0..u64::from(VECTORS) {
                    let mut read = |at| match function.access(&bar_access(RequestKind::BarRead, vector * 16 + at, 8, 0)).answer {
                        Answer::Value(value) => value,
                        other @ (Answer::Region(_) | Answer::Pending { .. }) => panic!("{other:?}"),
                    };
                    let (address, data) = (read(0), read(8));
                    let expected = if address >> 20 == 0xFEE { address } else { 0 };
                    let (route_address, route_data) = hardware.routes[usize::try_from(vector).unwrap()];
                    prop_assert_eq!(route_address, expected);
                    // Where nothing is delivered, the data mean nothing.
                    prop_assert!(expected == 0 || u64::from(route_data) == data & 0xFFFF_FFFF);
                }
            }
            if kind == InterruptKind::Msi {
                let is_long = msi_control & 0x80 != 0;
                let address = dwords[0xE4 / 4];
                let (upper, data) = if is_long { (dwords[0xE8 / 4], dwords[0xEC / 4]) } else { (0, dwords[0xE8 / 4]) };
                let expected = if address >> 20 == 0xFEE && upper == 0 { address } else { 0 };
                for vector in 0..hardware.armed {
                    let low = hardware.armed - 1;
                    let (route_address, route_data) = hardware.routes[vector as usize];
                    prop_assert_eq!(route_address, u64::from(expected));
                    prop_assert!(expected == 0 || route_data == data & 0xFFFF & !low | vector);
                }
            }
        }
    }

    #[test]
    fn bytes_written_one_by_one_make_the_dword(
        shape in 0_usize..6, dword in 0_u64..64, value in any::<u32>(), order in Just([0_u64, 1, 2, 3]).prop_shuffle()
    ) {
        let (kind, msi_control) = shapes()[shape];
        let value = if dword == u64::from(EXPRESS) / 4 + 2 { value & !0x8000 } else { value };
        let (mut whole, mut parts) = (function(kind, msi_control), function(kind, msi_control));
        whole.access(&config_write(dword * 4, 4, value.into()));
        for lane in order {
            parts.access(&config_write(dword * 4 + lane, 1, u64::from(value.to_le_bytes()[usize::try_from(lane).unwrap()])));
        }
        prop_assert_eq!(whole.config().dwords(), parts.config().dwords());
    }

    #[test]
    fn any_device_is_modelled_or_refused(bytes in prop::collection::vec(any::<u8>(), 256), places in prop::collection::vec((0_usize..64, prop_oneof![Just(1_u8), Just(5), Just(0x10), Just(0x11)], 0_u8..64), 0..12), kind in 0_u32..4, writes in prop::collection::vec(request(), 0..20)) {
        let mut device: DeviceBytes = bytes.try_into().unwrap();
        device[6] |= 0x10;
        for (dword, kind, next) in places {
            device[dword * 4] = kind;
            device[dword * 4 + 1] = next * 4;
        }
        let facts = handoff::Function { interrupt_kind: kind, ..facts(InterruptKind::Msix) };
        if let Ok(mut function) = Function::new(&device, &facts) {
            for request in writes {
                function.access(&request);
            }
        }
    }
}
