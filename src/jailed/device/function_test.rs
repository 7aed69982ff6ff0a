//! What a function does on single writes: resets, arming and masking, messages of MSI.

use super::{
    function::Function,
    outcome::{Answer, Effect, Outcome},
    simulated::{EXPRESS, MSI, MSIX, VECTORS, bar_access, config_write, device, facts},
};
use crate::{
    handoff::{self, InterruptKind},
    ring::{RequestKind, RouteUpdate},
};

pub(super) fn function(kind: InterruptKind, msi_control: u16) -> Function {
    Function::new(&device(msi_control), &facts(kind)).unwrap()
}

pub(super) fn bytes_of(function: &Function) -> Vec<u8> {
    function
        .config()
        .dwords()
        .iter()
        .flat_map(|d| d.to_le_bytes())
        .collect()
}

pub(super) fn effects(outcome: &Outcome) -> Vec<Effect> {
    outcome.effects.into_iter().flatten().collect()
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
