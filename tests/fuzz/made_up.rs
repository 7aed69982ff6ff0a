//! Devices made of arbitrary bytes: an honest one with what the supervisor would say of it, then lies.

use jailed::{
    device::config::DeviceBytes,
    handoff::{Bar, Function, InterruptKind, Span},
};

use crate::input::Input;

/// A device and what D is told of it.
#[derive(Debug)]
pub(crate) struct MadeUp {
    pub(crate) device: DeviceBytes,
    pub(crate) facts: Function,
    /// Nothing contradicts anything.
    pub(crate) is_honest: bool,
}

impl MadeUp {
    pub(crate) fn of(input: &mut Input<'_>) -> Self {
        let mut made_up = Self::honest(input);
        for _ in 0..input.below(4) {
            made_up.lie(input);
        }
        made_up
    }

    fn honest(input: &mut Input<'_>) -> Self {
        let mut device = noise(input.long());
        device[6] |= 0x10;
        // A vendor, so that the device answers.
        (device[0], device[1]) = (0x86, 0x80);
        let kind = input.below(3);
        let mut made_up = Self {
            device,
            facts: Function {
                interrupt_kind: kind,
                can_reset: input.below(2),
                config_bytes: 4096,
                config_offset: 7 << 40,
                ..Function::default()
            },
            is_honest: true,
        };
        made_up.add_capabilities(input);
        made_up.add_bars(input);
        made_up
    }

    /// A list of the known capabilities and some others, in any order, without overlaps.
    fn add_capabilities(&mut self, input: &mut Input<'_>) {
        let mut kinds = vec![(0x01, 8), (0x10, 0x2C), (0x09, 8), (0x03, 8)];
        kinds.retain(|_| input.below(3) > 0);
        match self.facts.interrupt_kind {
            1 => kinds.push((0x05, 0x18)),
            2 => kinds.push((0x11, 12)),
            _ => {}
        }
        if input.once_in(4) {
            // One that is not the function's interrupt is hidden.
            kinds.push(if self.facts.interrupt_kind == 2 {
                (0x05, 0x18)
            } else {
                (0x11, 12)
            });
        }
        let mut order = Vec::new();
        while !kinds.is_empty() {
            order
                .push(kinds.swap_remove(input.below(u32::try_from(kinds.len()).unwrap()) as usize));
        }
        let (mut at, mut link) = (0x40 + 4 * usize::try_from(input.below(4)).unwrap(), 0x34);
        for (kind, bytes) in order {
            self.device[link] = u8::try_from(at).unwrap();
            self.device[at] = kind;
            link = at + 1;
            self.fill(input, kind, at);
            at += bytes + 4 * usize::try_from(input.below(3)).unwrap();
        }
        self.device[link] = 0;
        if link == 0x34 && input.below(2) == 1 {
            self.device[6] &= !0x10;
        }
    }

    /// The registers of the interrupt capabilities.
    fn fill(&mut self, input: &mut Input<'_>, kind: u8, at: usize) {
        let facts = &mut self.facts;
        if kind == 0x05 {
            let log = input.below(6);
            let form = input.pick(&[0_u16, 0x80, 0x100, 0x180]);
            let control = form | u16::try_from(log).unwrap() << 1;
            self.device[at + 2..at + 4].copy_from_slice(&control.to_le_bytes());
            if facts.interrupt_kind == InterruptKind::Msi as u32 {
                facts.vectors = 1 << input.below(log + 1);
            }
        }
        if kind == 0x11 {
            let entries = input.pick(&[1_u32, 2, 3, 5, 63, 64, 65, 129, 256, 257, 2048]);
            let table = 8 * input.below(0x800);
            let pending = table + 16 * entries + 8 * input.below(0x400);
            let bar = input.pick(&[0, 2, 3]);
            let pending_bar = if input.below(2) == 1 { bar } else { 4 };
            let control = u16::try_from(entries - 1).unwrap() | 0x8000;
            self.device[at + 2..at + 4].copy_from_slice(&control.to_le_bytes());
            self.device[at + 4..at + 8].copy_from_slice(&(table | bar).to_le_bytes());
            self.device[at + 8..at + 12].copy_from_slice(&(pending | pending_bar).to_le_bytes());
            if facts.interrupt_kind == InterruptKind::Msix as u32 {
                facts.vectors = entries.min(input.pick(&[1, 2, 8, 256]));
                facts.msix_entries = entries;
                facts.msix_table_bar = bar;
                facts.msix_table_offset = table;
                facts.msix_pba_bar = pending_bar;
                facts.msix_pba_offset = pending;
            }
        }
    }

    /// BARs that hold the interrupt table where there is one, and are mapped but for its pages.
    fn add_bars(&mut self, input: &mut Input<'_>) {
        let facts = &mut self.facts;
        let is_msix = facts.interrupt_kind == InterruptKind::Msix as u32;
        let table = (facts.msix_table_offset, 16 * facts.msix_entries);
        let pending = (facts.msix_pba_offset, 8 * facts.msix_entries.div_ceil(64));
        let mut index = 0;
        while index < 6 {
            let holes: Vec<(u64, u64)> =
                [(facts.msix_table_bar, table), (facts.msix_pba_bar, pending)]
                    .into_iter()
                    .filter(|(bar, _)| is_msix && *bar as usize == index)
                    .map(|(_, (start, len))| (start.into(), u64::from(start) + u64::from(len)))
                    .collect();
            if holes.is_empty() && input.below(2) == 1 {
                index += 1;
                continue;
            }
            let least = holes.iter().map(|(_, end)| *end).max().unwrap_or(1);
            let len_bytes = least.max(0x1000).next_power_of_two() << input.below(3);
            // Its neighbour, which a 64-bit one would swallow, may hold the table.
            let is_64bit =
                index.is_multiple_of(2) && index < 4 && facts.msix_table_bar != 3 || index == 4;
            let gpa = if is_64bit { 1 << 40 } else { 0xC000_0000 };
            facts.bars[index] = Bar {
                gpa: gpa + len_bytes * u64::from(input.below(4)),
                len_bytes,
                region_offset: u64::try_from(index).unwrap() << 40,
                is_64bit: is_64bit.into(),
                is_prefetchable: input.below(2),
                ..Bar::default()
            };
            map(&mut facts.bars[index], &holes);
            index += if is_64bit { 2 } else { 1 };
        }
    }

    fn lie(&mut self, input: &mut Input<'_>) {
        self.is_honest = false;
        let facts = &mut self.facts;
        let at = usize::from(input.byte());
        let bar = &mut facts.bars[input.below(6) as usize];
        match input.below(14) {
            0 => self.device[at] = input.byte(),
            1 => self.device[at & !3 | 1] = input.byte(),
            2 => self.device[0x34] = input.byte(),
            3 => self.device[6] ^= 0x10,
            4 => self.device = [0xFF; 256],
            5 | 6 => {
                let cap = self.device[0x40..]
                    .chunks(4)
                    .position(|c| matches!(c[0], 5 | 0x11));
                let cap = 0x40 + 4 * cap.unwrap_or(0);
                let register = cap + 2 + usize::try_from(input.below(10)).unwrap();
                self.device[register.min(255)] = input.byte();
            }
            7 => bar.len_bytes = input.number(),
            8 => bar.gpa = input.number(),
            9 => (bar.is_64bit, bar.is_prefetchable) = (input.below(4), input.below(4)),
            10 => bar.region_offset = input.number(),
            11 => {
                bar.span_count = input.below(5).into();
                for span in &mut bar.spans {
                    *span = Span {
                        offset: u64::from(input.below(32)) << 12,
                        len_bytes: u64::from(input.below(4)) << 12,
                    };
                }
            }
            12 => facts.vectors = u32::try_from(input.number() & 0xFFFF_FFFF).unwrap(),
            _ => match input.below(6) {
                0 => facts.interrupt_kind = input.below(4),
                1 => facts.msix_table_bar = input.below(8),
                2 => facts.msix_pba_bar = input.below(8),
                3 => facts.msix_table_offset = input.word(),
                4 => facts.msix_pba_offset = input.word(),
                _ => facts.msix_entries = input.below(2050),
            },
        }
    }
}

/// Maps all pages that no hole touches.
fn map(bar: &mut Bar, holes: &[(u64, u64)]) {
    let mut start = 0;
    let is_hole = |page: u64| {
        holes
            .iter()
            .any(|(from, to)| *from < page + 0x1000 && page < *to)
    };
    for page in (0..=bar.len_bytes).step_by(0x1000) {
        if page == bar.len_bytes || is_hole(page) {
            if page > start {
                bar.spans[usize::try_from(bar.span_count).unwrap()] = Span {
                    offset: start,
                    len_bytes: page - start,
                };
                bar.span_count += 1;
            }
            start = page + 0x1000;
        }
    }
}

/// What a device has where nothing else is said: never zero, so that what is shown by mistake is seen.
fn noise(seed: u64) -> DeviceBytes {
    let mut state = seed | 1;
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3] | 1
    })
}
