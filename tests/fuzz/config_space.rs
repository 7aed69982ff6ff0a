//! D's model of a function, made of hostile bytes and then used by a hostile guest.

use jailed::{
    device::{
        function::Function,
        outcome::{Answer, Effect},
    },
    handoff::{self, InterruptKind},
    ring::{Request, RequestKind},
};

use crate::{
    input::{Executions, Input, any_bytes},
    made_up::MadeUp,
    reference::{Allowed, is_list},
    simulated::Simulated,
};

#[test]
fn hidden_stays_hidden_and_hardware_gets_only_what_the_table_allows() {
    let executions = Executions::of("config_space");
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
    let MadeUp {
        device,
        facts,
        is_honest,
    } = MadeUp::of(input);
    // What is never handed over: `Handoff::check` refuses it.
    if facts.vectors > 256 || facts.bars.iter().any(|bar| bar.span_count > 4) {
        return;
    }
    let Ok(mut function) = Function::new(&device, &facts) else {
        assert!(!is_honest, "an honest device is refused");
        return;
    };
    assert!(is_list(&device), "a broken list is taken");
    assert!(
        device.iter().any(|byte| *byte != 0xFF),
        "a device that does not answer is taken"
    );
    let power_on = bytes_of(&function);
    let allowed = Allowed::of(&power_on, &device, &facts);
    if let Some(at) = allowed.place(0x11) {
        check_table(&device[at..at + 12], &facts);
    }
    if let Some(at) = allowed.place(0x05) {
        assert!(
            device[at + 2] >> 1 & 7 <= 5,
            "a reserved count of vectors is taken"
        );
    }
    check_bars(&facts, &allowed);
    let mut hardware = Simulated::new(&facts);
    while !input.is_over() {
        let request = request(input, &facts);
        if !request.is_sane() {
            // The ring takes none of these.
            continue;
        }
        let before = bytes_of(&function);
        let outcome = function.access(&request);
        let after = bytes_of(&function);
        hardware.follow(&outcome);
        assert!(
            outcome.is_config_changed || before == after,
            "not published"
        );
        if let Answer::Region(offset) = outcome.answer {
            hardware.check_register(offset, request.size_bytes as u64);
        }
        let (offset, size, value) = (request.offset, request.size_bytes, request.value);
        let expected = if request.kind != RequestKind::ConfigWrite {
            before
        } else if allowed.is_reset(facts.can_reset == 1, offset, size, value) {
            assert!(outcome.effects.contains(&Some(Effect::Reset)));
            power_on
        } else {
            assert!(!outcome.effects.contains(&Some(Effect::Reset)));
            allowed.write(&before, offset, size, value)
        };
        assert_eq!(after, expected, "{request:x?}");
        assert_eq!(hardware.command, u16::from(after[4]) & 6);
    }
}

/// Every page of the device's own table and pending bits lies in a BAR and is not mapped; the two are apart.
fn check_table(capability: &[u8], facts: &handoff::Function) {
    let word = |at: usize| u32::from_le_bytes(capability[at..at + 4].try_into().unwrap());
    let entries = u64::from(word(0) >> 16 & 0x7FF) + 1;
    assert!(u64::from(facts.vectors) <= entries);
    let places =
        [(word(4), 16 * entries), (word(8), 8 * entries.div_ceil(64))].map(|(place, len)| {
            (
                place & 7,
                u64::from(place & !7),
                u64::from(place & !7) + len,
            )
        });
    for (bar, start, end) in places {
        let bar = &facts.bars[bar as usize];
        assert!(end <= bar.len_bytes, "outside of its BAR");
        for span in &bar.spans[..usize::try_from(bar.span_count).unwrap()] {
            let (first, last) = (start & !0xFFF, end.next_multiple_of(0x1000));
            assert!(
                span.len_bytes == 0 || span.offset + span.len_bytes <= first || last <= span.offset,
                "a page of the interrupt table is mapped"
            );
        }
    }
    let [
        (table_bar, table, table_end),
        (pending_bar, pending, pending_end),
    ] = places;
    assert!(
        table_bar != pending_bar || table_end <= pending || pending_end <= table,
        "table and pending bits overlap"
    );
}

/// Sizes are powers of two of whole pages; no address or region wraps.
fn check_bars(facts: &handoff::Function, allowed: &Allowed) {
    for (index, bar) in facts
        .bars
        .iter()
        .enumerate()
        .filter(|(_, bar)| bar.len_bytes > 0)
    {
        assert!(bar.len_bytes.is_power_of_two() && bar.len_bytes >= 0x1000);
        assert!(bar.gpa.is_multiple_of(bar.len_bytes));
        let bits = if bar.is_64bit == 1 { 52 } else { 32 };
        assert!(bar.gpa.checked_add(bar.len_bytes).unwrap() <= 1 << bits);
        bar.region_offset.checked_add(bar.len_bytes).unwrap();
        if bar.is_64bit == 1 {
            assert_eq!(
                facts.bars[index + 1].len_bytes,
                0,
                "two BARs in one register"
            );
        }
        assert!(
            allowed.mask[0x10 + 4 * index] == 0,
            "kind bits can be written"
        );
    }
}

fn request(input: &mut Input<'_>, facts: &handoff::Function) -> Request {
    let kind = input.pick(&[
        RequestKind::ConfigWrite,
        RequestKind::ConfigWrite,
        RequestKind::BarRead,
        RequestKind::BarWrite,
    ]);
    let size_bytes = input.pick(&[1_usize, 2, 4, 4, 8, 3]);
    let near = if facts.interrupt_kind == InterruptKind::Msix as u32 {
        [facts.msix_table_offset, facts.msix_pba_offset]
    } else {
        [0; 2]
    };
    let bars = [facts.msix_table_bar, facts.msix_pba_bar, input.below(7)];
    let offset = match (kind, input.below(4)) {
        (RequestKind::ConfigWrite, 0..3) => u64::from(input.byte()),
        (_, 0) => input.number(),
        _ => u64::from(input.pick(&near)) + u64::from(input.below(0x2000)),
    };
    // Mostly aligned: all others are refused alike.
    let is_aligned = input.below(8) > 0 && size_bytes != 3;
    Request {
        kind,
        function: 0,
        bar: input.pick(&bars) as usize,
        size_bytes,
        offset: if is_aligned {
            offset & !(size_bytes as u64 - 1)
        } else {
            offset
        },
        value: input.long(),
    }
}

pub(crate) fn bytes_of(function: &Function) -> [u8; 256] {
    let mut bytes = [0; 256];
    for (to, from) in bytes.chunks_mut(4).zip(function.config().dwords()) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    bytes
}
