//! Guests for tests.

use crate::handoff::{Bar, Function, Handoff, InterruptKind, MAX_FUNCTIONS, MAX_VCPUS, Span};

/// Two vCPUs, an image, a console, and two functions: one whose MSI-X table leaves a gap, one without interrupts.
pub(crate) fn guest() -> Handoff {
    let mut handoff = Handoff::empty();
    handoff.vcpu_count = 2;
    handoff.has_console = 1;
    handoff.ram_count = 1;
    handoff.image_count = 1;
    handoff.function_count = 2;
    let all = |len_bytes| Span {
        offset: 0,
        len_bytes,
    };
    let mut nic = Function {
        interrupt_kind: InterruptKind::Msix as u32,
        vectors: 3,
        can_reset: 1,
        config_offset: 7 << 40,
        config_bytes: 4096,
        msix_table_bar: 3,
        msix_entries: 3,
        ..Function::default()
    };
    nic.bars[0] = Bar {
        len_bytes: 0x4000,
        span_count: 1,
        spans: [all(0x4000), all(0), all(0), all(0)],
        ..Bar::default()
    };
    nic.bars[3] = Bar {
        len_bytes: 0x4000,
        region_offset: 3 << 40,
        span_count: 1,
        spans: [
            Span {
                offset: 0x1000,
                len_bytes: 0x3000,
            },
            all(0),
            all(0),
            all(0),
        ],
        ..Bar::default()
    };
    handoff.functions[0] = nic;
    handoff.functions[1] = Function {
        config_offset: 7 << 40,
        config_bytes: 256,
        ..Function::default()
    };
    handoff
}

/// As many vCPUs, functions and vectors as there can be, and of each function more gaps than the plan leaves.
pub(crate) fn largest() -> Handoff {
    let mut handoff = Handoff::empty();
    handoff.vcpu_count = u32::try_from(MAX_VCPUS).unwrap();
    handoff.has_console = 1;
    handoff.ram_count = 8;
    handoff.image_count = 4;
    handoff.function_count = u32::try_from(MAX_FUNCTIONS).unwrap();
    for function in &mut handoff.functions {
        function.vectors = 256;
        function.config_offset = 7 << 40;
        for (bar, index) in function.bars.iter_mut().zip(0_u64..) {
            bar.len_bytes = 0x1_0000;
            bar.region_offset = index << 40;
        }
        for bar in &mut function.bars[..2] {
            bar.span_count = 1;
            bar.spans[0] = Span {
                offset: 0x4000,
                len_bytes: 0x4000,
            };
        }
    }
    handoff
}
