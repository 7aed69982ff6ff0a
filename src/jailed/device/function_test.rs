//! One function as a whole: every write, and random sequences against a simulated device.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows fails"
)]

use proptest::prelude::*;

use super::{
    config::DeviceBytes,
    function::Function,
    outcome::{Answer, Effect, Outcome},
};
use crate::{
    handoff::{self, Bar, InterruptKind, Span},
    ring::{Request, RequestKind, RouteUpdate},
};

const VECTORS: u32 = 5;
const EXPRESS: u8 = 0xA0;
const POWER: u8 = 0x50;
const MSIX: u8 = 0x70;
const MSI: u8 = 0xE0;

/// A network function: everything that real ones have, and more.
fn device(msi_control: u16) -> DeviceBytes {
    let mut bytes = [0xA5; 256];
    let mut put =
        |at: u8, with: &[u8]| bytes[usize::from(at)..][..with.len()].copy_from_slice(with);
    put(0x00, &[0x86, 0x80, 0xED, 0x10]);
    put(0x08, &[0x01, 0x00, 0x00, 0x02]);
    put(0x2C, &[0x34, 0x12, 0x78, 0x56]);
    put(0x34, &[0x40]);
    put(0x06, &[0x10, 0]);
    // Vendor-specific, vital product data: hidden.
    put(0x40, &[0x09, 0x48]);
    put(0x48, &[0x03, POWER]);
    put(POWER, &[0x01, MSIX]);
    put(
        MSIX,
        &[0x11, EXPRESS, 7, 0x80, 0x03, 0, 0, 0, 0x03, 0x20, 0, 0],
    );
    put(EXPRESS, &[0x10, MSI]);
    put(
        MSI,
        &[
            0x05,
            0,
            msi_control.to_le_bytes()[0],
            msi_control.to_le_bytes()[1],
        ],
    );
    bytes
}

fn facts(kind: InterruptKind) -> handoff::Function {
    let mut facts = handoff::Function {
        interrupt_kind: kind as u32,
        vectors: match kind {
            InterruptKind::None => 0,
            InterruptKind::Msi => 4,
            InterruptKind::Msix => VECTORS,
        },
        can_reset: 1,
        config_bytes: 4096,
        ..handoff::Function::default()
    };
    if kind == InterruptKind::Msix {
        (
            facts.msix_table_bar,
            facts.msix_pba_bar,
            facts.msix_pba_offset,
        ) = (3, 3, 0x2000);
    }
    let no_span = Span::default();
    facts.bars[0] = Bar {
        gpa: 0x12_3456_0000,
        len_bytes: 0x1_0000,
        is_64bit: 1,
        is_prefetchable: 1,
        span_count: 1,
        spans: [
            Span {
                offset: 0,
                len_bytes: 0x1_0000,
            },
            no_span,
            no_span,
            no_span,
        ],
        ..Bar::default()
    };
    facts.bars[3] = Bar {
        gpa: 0xC000_4000,
        len_bytes: 0x4000,
        region_offset: 3 << 40,
        span_count: 1,
        spans: [
            Span {
                offset: 0x3000,
                len_bytes: 0x1000,
            },
            no_span,
            no_span,
            no_span,
        ],
        ..Bar::default()
    };
    facts
}

fn function(kind: InterruptKind, msi_control: u16) -> Function {
    Function::new(&device(msi_control), &facts(kind)).unwrap()
}

/// All shapes of function: no interrupt, MSI-X, MSI in four forms.
fn shapes() -> Vec<(InterruptKind, u16)> {
    use InterruptKind::{Msi as M, Msix as X, None as N};
    vec![(N, 0), (X, 0), (M, 0x04), (M, 0x84), (M, 0x104), (M, 0x184)]
}

fn bytes_of(function: &Function) -> Vec<u8> {
    function
        .config()
        .dwords()
        .iter()
        .flat_map(|d| d.to_le_bytes())
        .collect()
}

fn config_write(offset: u64, size_bytes: usize, value: u64) -> Request {
    Request {
        kind: RequestKind::ConfigWrite,
        function: 0,
        bar: 0,
        size_bytes,
        offset,
        value,
    }
}

fn bar_access(kind: RequestKind, offset: u64, size_bytes: usize, value: u64) -> Request {
    Request {
        kind,
        function: 0,
        bar: 3,
        size_bytes,
        offset,
        value,
    }
}

fn effects(outcome: &Outcome) -> Vec<Effect> {
    outcome.effects.into_iter().flatten().collect()
}

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

/// Bytes that contradict the handoff.
#[test]
fn contradictions_are_refused() {
    use InterruptKind::{Msi as M, Msix as X, None as N};
    let refused =
        |bytes: &DeviceBytes, facts: &handoff::Function| Function::new(bytes, facts).is_err();
    assert!(!refused(&device(0), &facts(X)));
    assert!(!refused(&device(4), &facts(M)));
    assert!(!refused(&device(0), &facts(N)));

    let x = facts(X);
    for wrong in [
        handoff::Function {
            msix_table_bar: 2,
            ..x
        },
        handoff::Function {
            msix_table_offset: 8,
            ..x
        },
        handoff::Function {
            msix_pba_offset: 0x2008,
            ..x
        },
        handoff::Function {
            msix_pba_bar: 9,
            ..x
        },
        handoff::Function { vectors: 9, ..x },
        handoff::Function { vectors: 0, ..x },
        handoff::Function {
            interrupt_kind: 3,
            ..x
        },
        handoff::Function {
            vectors: 1,
            ..facts(N)
        },
        handoff::Function {
            vectors: 3,
            ..facts(M)
        },
        handoff::Function {
            vectors: 8,
            ..facts(M)
        },
    ] {
        assert!(refused(&device(4), &wrong), "{wrong:?}");
    }
    // No list, so no MSI-X; and without it nothing is needed.
    let mut bytes = device(0);
    bytes[6] = 0;
    assert!(refused(&bytes, &x));
    assert!(!refused(&bytes, &facts(N)));
    // A table that reaches over the end of its BAR.
    let mut bytes = device(0);
    bytes[usize::from(MSIX) + 2..][..2].copy_from_slice(&[0xFF, 0x07]);
    assert!(refused(&bytes, &x));
    // One capability within another, and one over the end.
    let mut bytes = device(0);
    bytes[usize::from(POWER) + 1] = MSIX - 4;
    bytes[usize::from(MSIX) - 4..]
        .copy_from_slice(&[&[0x10, MSIX][..], &device(0)[usize::from(MSIX) - 2..]].concat());
    assert!(refused(&bytes, &x));
    let mut bytes = device(0);
    bytes[usize::from(MSIX) + 1] = 0xD8;
    bytes[0xD8..0xDA].copy_from_slice(&[0x10, 0]);
    assert!(refused(&bytes, &x));
    // BARs that cannot be.
    let good = x.bars[3];
    for wrong in [
        Bar {
            len_bytes: 0x3000,
            ..good
        },
        Bar {
            len_bytes: 0x800,
            ..good
        },
        Bar {
            gpa: 0x1_C000_4000,
            ..good
        },
        Bar {
            gpa: 0xC000_2000,
            ..good
        },
        Bar {
            is_64bit: 2,
            ..good
        },
        Bar {
            region_offset: u64::MAX,
            ..good
        },
    ] {
        let mut function = x;
        function.bars[3] = wrong;
        assert!(refused(&device(0), &function), "{wrong:?}");
    }
    let mut function = x;
    function.bars[1] = good;
    assert!(refused(&device(0), &function));
}

#[test]
fn reset_by_the_guest_stops_the_hardware_first() {
    let mut function = function(InterruptKind::Msix, 0);
    let power_on = bytes_of(&function);
    function.access(&config_write(4, 2, 6));
    function.access(&bar_access(RequestKind::BarWrite, 12, 4, 0));
    function.access(&config_write(u64::from(MSIX) + 2, 2, 0x8000));
    let outcome = function.access(&config_write(u64::from(EXPRESS) + 8, 2, 0xA810));
    assert_eq!(
        effects(&outcome),
        [
            Effect::HardwareCommand(0),
            Effect::DisableVectors,
            Effect::Reset
        ]
    );
    let route = outcome.route.unwrap();
    assert_eq!(
        (route.first_vector, route.count, route.address),
        (0, VECTORS, 0)
    );
    assert_eq!(bytes_of(&function), power_on);
    let control = function.access(&bar_access(RequestKind::BarRead, 12, 4, 0));
    assert_eq!(control.answer, Answer::Value(1));
}

#[test]
fn function_without_reset_is_not_reset() {
    let facts = handoff::Function {
        can_reset: 0,
        ..facts(InterruptKind::Msix)
    };
    let mut function = Function::new(&device(0), &facts).unwrap();
    assert_eq!(function.config().dwords()[0xA4 / 4], 0x8000);
    let outcome = function.access(&config_write(u64::from(EXPRESS) + 8, 2, 0x8000));
    assert_eq!(effects(&outcome), []);
}

#[test]
fn vectors_are_armed_at_once_and_then_sent_where_the_guest_wants() {
    let mut function = function(InterruptKind::Msix, 0);
    let control = u64::from(MSIX) + 2;
    for vector in [0, 1, 3] {
        let outcome = function.access(&bar_access(RequestKind::BarWrite, vector * 16 + 12, 4, 0));
        assert_eq!(effects(&outcome), []);
    }
    let outcome = function.access(&config_write(control, 2, 0xC000));
    assert_eq!(effects(&outcome), [Effect::EnableVectors(VECTORS)]);
    let outcome = function.access(&config_write(control, 2, 0x8000));
    let [Effect::Retarget { before, after }] = effects(&outcome)[..] else {
        panic!("{outcome:?}");
    };
    let runs: Vec<_> = before
        .changes(after)
        .map(|r| (r.first, r.count, r.is_delivered))
        .collect();
    assert_eq!(runs, [(0, 2, true), (3, 1, true)]);
    let pending = function.access(&bar_access(RequestKind::BarRead, 0x2000, 8, 0));
    assert_eq!(
        pending.answer,
        Answer::Pending {
            first_vector: 0,
            count: VECTORS
        }
    );
    let outcome = function.access(&config_write(control, 2, 0));
    assert_eq!(effects(&outcome), [Effect::DisableVectors]);
    let pending = function.access(&bar_access(RequestKind::BarRead, 0x2000, 8, 0));
    assert_eq!(pending.answer, Answer::Value(0));
}

/// The device as the effects leave it.
#[derive(Default)]
struct Simulated {
    command: u16,
    armed: u32,
    is_delivered: [bool; 8],
    routes: [(u64, u32); 8],
}

impl Simulated {
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::HardwareCommand(command) => {
                assert_eq!(command & !6, 0);
                self.command = command;
            }
            Effect::EnableVectors(count) => {
                assert_eq!(self.armed, 0);
                assert!(count > 0);
                self.armed = count;
            }
            Effect::Retarget { before, after } => {
                for run in before.changes(after) {
                    assert!(run.first + run.count <= self.armed);
                    for vector in run.first..run.first + run.count {
                        let place = &mut self.is_delivered[vector as usize];
                        assert_ne!(*place, run.is_delivered);
                        *place = run.is_delivered;
                    }
                }
            }
            Effect::DisableVectors => {
                assert!(self.armed > 0);
                (self.armed, self.is_delivered) = (0, [false; 8]);
            }
            Effect::Reset => assert_eq!((self.command, self.armed), (0, 0)),
            Effect::RegionWrite {
                offset, size_bytes, ..
            } => {
                let end = offset + size_bytes as u64 - (3 << 40);
                assert!(end <= 0x3000 && offset >= (3 << 40));
            }
        }
    }

    fn route(&mut self, route: RouteUpdate) {
        for vector in 0..route.count {
            self.routes[(route.first_vector + vector) as usize] =
                (route.address, route.data | vector);
        }
    }
}

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
        let mut hardware = Simulated::default();
        for request in requests {
            let outcome = function.access(&request);
            effects(&outcome).into_iter().for_each(|effect| hardware.perform(effect));
            if let Some(route) = outcome.route {
                prop_assert!(route.address == 0 || route.address >> 20 == 0xFEE);
                prop_assert!(route.count > 0);
                hardware.route(route);
            }
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

#[test]
fn several_messages_share_the_upper_bits_of_their_data() {
    for (msi_control, data_at) in [(0x04, 8), (0x184, 12)] {
        let mut function = function(InterruptKind::Msi, msi_control);
        let base = u64::from(MSI);
        // Two vectors of the four.
        let chosen = function.access(&config_write(base + 2, 2, 0x10));
        assert_eq!(effects(&chosen), []);
        function.access(&config_write(base + 4, 4, 0xFEE0_2000));
        let route = function
            .access(&config_write(base + data_at, 2, 0x4047))
            .route;
        let expected = RouteUpdate {
            first_vector: 0,
            count: 2,
            address: 0xFEE0_2000,
            data: 0x4046,
            is_live: false,
        };
        assert_eq!(route, Some(expected));
        let enabled = function.access(&config_write(base + 2, 2, 0x11));
        assert_eq!(enabled.route, None);
        let [Effect::EnableVectors(2), Effect::Retarget { after, .. }] = effects(&enabled)[..]
        else {
            panic!("{enabled:?}");
        };
        assert!(after.has(0) && after.has(1) && !after.has(2));
        let moved = function
            .access(&config_write(base + data_at, 2, 0x4050))
            .route;
        assert_eq!(
            moved,
            Some(RouteUpdate {
                data: 0x4050,
                is_live: true,
                ..expected
            })
        );
        if msi_control & 0x100 != 0 {
            let masked = function.access(&config_write(base + 0x10, 4, 2));
            let [Effect::Retarget { before, after }] = effects(&masked)[..] else {
                panic!("{masked:?}");
            };
            let runs: Vec<_> = before
                .changes(after)
                .map(|r| (r.first, r.count, r.is_delivered))
                .collect();
            assert_eq!(runs, [(1, 1, false)]);
        }
    }
}
