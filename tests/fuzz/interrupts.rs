//! The supervisor's readings of configuration space: whatever the bytes, an answer, and the one the bytes give.

use iommu::topology::{Interrupts, parse_interrupts};

use crate::{
    input::{Executions, Input, any_bytes},
    made_up::MadeUp,
    reference::is_list,
};

#[test]
fn configuration_space_is_read_right_or_not_at_all() {
    let executions = Executions::of("interrupts");
    bolero::check!()
        .with_generator(any_bytes())
        .with_iterations(usize::MAX)
        .with_test_time(executions.time())
        .for_each(|bytes| {
            executions.one();
            one(&mut Input::new(bytes));
        });
    executions.say();
}

fn one(input: &mut Input<'_>) {
    let mut bytes = if input.below(4) == 0 {
        input.bytes::<256>()
    } else {
        MadeUp::of(input).device
    };
    bytes[0x0E] &= if input.below(4) == 0 { 0xFF } else { 0x80 };
    let len = if input.below(4) == 0 {
        input.below(257) as usize
    } else {
        256
    };
    let found = parse_interrupts(&bytes[..len]);
    if len < 256 {
        // Less of the space never shows more.
        let is_unknown = matches!(found, Interrupts::Unknown { .. });
        assert!(is_unknown || found == parse_interrupts(&bytes));
        return;
    }
    assert_eq!(without_reason(found), expected(&bytes), "{bytes:x?}");
}

fn without_reason(found: Interrupts) -> Option<Interrupts> {
    match found {
        Interrupts::Unknown { .. } => None,
        known @ (Interrupts::None | Interrupts::Msi { .. } | Interrupts::Msix { .. }) => {
            Some(known)
        }
    }
}

/// The first MSI-X of a whole list, else the first MSI; nothing of a list that is broken.
fn expected(bytes: &[u8; 256]) -> Option<Interrupts> {
    if bytes[0x0E] & 0x7F > 1 || bytes.iter().all(|byte| *byte == 0xFF) || !is_list(bytes) {
        return None;
    }
    let mut list = Vec::new();
    let mut at = if bytes[6] & 0x10 == 0 {
        0
    } else {
        usize::from(bytes[0x34] & !3)
    };
    while at != 0 {
        list.push(at);
        at = usize::from(bytes[at + 1] & !3);
    }
    let first = |kind| list.iter().copied().find(|at| bytes[*at] == kind);
    let word = |at: usize| {
        Some(u32::from_le_bytes(
            bytes.get(at..at + 4)?.try_into().unwrap(),
        ))
    };
    let msi = match first(0x05) {
        Some(at) => match bytes[at + 2] >> 1 & 7 {
            log @ 0..=5 => Interrupts::Msi { vectors: 1 << log },
            _ => return None,
        },
        None => Interrupts::None,
    };
    let Some(at) = first(0x11) else {
        return Some(msi);
    };
    let (table, pending) = (word(at + 4)?, word(at + 8)?);
    let bar = |place: u32| u8::try_from(place & 7).ok().filter(|bar| *bar < 6);
    Some(Interrupts::Msix {
        vectors: (word(at)? >> 16 & 0x7FF) + 1,
        table_bar: bar(table)?,
        table_offset: table & !7,
        pba_bar: bar(pending)?,
        pba_offset: pending & !7,
    })
}
