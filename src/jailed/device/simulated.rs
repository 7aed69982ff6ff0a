//! A made-up device for tests: its bytes, what the supervisor says of it, and how it behaves under the model's effects.
//!
//! Shared by the unit tests and the fuzz targets, hence the package's own name in the paths.

use jailed::{
    device::{
        config::DeviceBytes,
        outcome::{Effect, Outcome},
    },
    handoff::{self, Bar, InterruptKind, MAX_VECTORS, Span},
    ring::{Request, RequestKind, RouteUpdate},
};

/// Vectors of its MSI-X.
pub const VECTORS: u32 = 5;
/// Where its capabilities are.
pub const EXPRESS: u8 = 0xA0;
/// See [`EXPRESS`].
pub const POWER: u8 = 0x50;
/// See [`EXPRESS`].
pub const MSIX: u8 = 0x70;
/// See [`EXPRESS`].
pub const MSI: u8 = 0xE0;

/// The bytes of a network function: everything that real ones have, and more.
pub fn device(msi_control: u16) -> DeviceBytes {
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

/// What the supervisor says of it: one BAR that is mapped whole, one with the interrupt table.
pub fn facts(kind: InterruptKind) -> handoff::Function {
    let mut facts = handoff::Function {
        interrupt_kind: kind as u32,
        vectors: match kind {
            InterruptKind::None => 0,
            InterruptKind::Msi => 4,
            InterruptKind::Msix => VECTORS,
        },
        can_reset: 1,
        config_bytes: 4096,
        config_offset: 7 << 40,
        ..handoff::Function::default()
    };
    if kind == InterruptKind::Msix {
        (
            facts.msix_table_bar,
            facts.msix_pba_bar,
            facts.msix_pba_offset,
            facts.msix_entries,
        ) = (3, 3, 0x2000, 8);
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

/// All shapes of function: no interrupt, MSI-X, MSI in four forms.
pub fn shapes() -> Vec<(InterruptKind, u16)> {
    use InterruptKind::{Msi as M, Msix as X, None as N};
    vec![(N, 0), (X, 0), (M, 0x04), (M, 0x84), (M, 0x104), (M, 0x184)]
}

/// A write to configuration space.
pub fn config_write(offset: u64, size_bytes: usize, value: u64) -> Request {
    Request {
        kind: RequestKind::ConfigWrite,
        function: 0,
        bar: 0,
        size_bytes,
        offset,
        value,
    }
}

/// An access to the BAR with the interrupt table.
pub fn bar_access(kind: RequestKind, offset: u64, size_bytes: usize, value: u64) -> Request {
    Request {
        kind,
        function: 0,
        bar: 3,
        size_bytes,
        offset,
        value,
    }
}

/// The device and the kernel's part of its interrupts, as the effects leave them.
#[derive(Debug)]
pub struct Simulated {
    facts: handoff::Function,
    /// The command register.
    pub command: u16,
    /// How many vectors are armed.
    pub armed: u32,
    /// Whether a vector goes to the guest, else to its latch.
    pub is_delivered: Vec<bool>,
    /// Whether a vector's latch counted.
    pub is_latched: Vec<bool>,
    /// How often each vector reached the guest.
    pub deliveries: Vec<u32>,
    /// Address and data of each vector.
    pub routes: Vec<(u64, u32)>,
}

impl Simulated {
    /// The device as after power-on.
    #[must_use]
    pub fn new(facts: &handoff::Function) -> Self {
        Self {
            facts: *facts,
            command: 0,
            armed: 0,
            is_delivered: vec![false; MAX_VECTORS],
            is_latched: vec![false; MAX_VECTORS],
            deliveries: vec![0; MAX_VECTORS],
            routes: vec![(0, 0); MAX_VECTORS],
        }
    }

    /// Does all that an outcome asks, in D's order, then V's part.
    pub fn follow(&mut self, outcome: &Outcome) {
        outcome
            .effects
            .into_iter()
            .flatten()
            .for_each(|effect| self.perform(effect));
        if let Some(route) = outcome.route {
            self.route(route);
        }
    }

    /// The device sends the message of a vector: to the guest, to its latch, or nowhere.
    pub fn fire(&mut self, vector: u32) {
        let at = vector as usize;
        if vector >= self.armed {
            return;
        }
        if self.is_delivered[at] {
            self.deliveries[at] += 1;
        } else {
            self.is_latched[at] = true;
        }
    }

    /// What D answers where the model asks for latches.
    #[must_use]
    pub fn pending(&self, first_vector: u32, count: u32) -> u64 {
        let latches = self.is_latched.iter().skip(first_vector as usize);
        latches
            .take(count as usize)
            .enumerate()
            .fold(0, |bits, (n, latch)| bits | u64::from(*latch) << n)
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::HardwareCommand(command) => {
                assert_eq!(command & !6, 0, "only memory enable and bus master");
                self.command = command;
            }
            Effect::EnableVectors(count) => {
                assert_eq!(self.armed, 0, "armed twice");
                assert!(count > 0 && count <= self.facts.vectors);
                self.armed = count;
                self.is_latched.fill(false);
            }
            Effect::Retarget { before, after } => {
                for run in before.changes(after) {
                    assert!(run.first + run.count <= self.armed);
                    (run.first..run.first + run.count)
                        .for_each(|vector| self.turn(vector as usize, run.is_delivered));
                }
            }
            Effect::DisableVectors => {
                assert!(self.armed > 0, "nothing is armed");
                self.armed = 0;
                self.is_delivered.fill(false);
            }
            Effect::Reset => assert_eq!((self.command, self.armed), (0, 0), "not quiet"),
            Effect::RegionWrite {
                offset, size_bytes, ..
            } => self.check_register(offset, size_bytes as u64),
        }
    }

    /// The latch of a vector that is sent to the guest is emptied, and fires it once.
    fn turn(&mut self, at: usize, is_delivered: bool) {
        assert_ne!(self.is_delivered[at], is_delivered, "turned for nothing");
        self.is_delivered[at] = is_delivered;
        if is_delivered && std::mem::take(&mut self.is_latched[at]) {
            self.deliveries[at] += 1;
        }
    }

    /// A register is in one BAR, aligned, not mapped into the guest, and no part of the interrupt table.
    ///
    /// # Panics
    /// Where it is not so.
    pub fn check_register(&self, offset: u64, size_bytes: u64) {
        assert!(matches!(size_bytes, 1 | 2 | 4 | 8) && offset.is_multiple_of(size_bytes));
        let bars = self.facts.bars.iter().enumerate();
        let mut found = bars.filter_map(|(index, bar)| {
            let at = offset.checked_sub(bar.region_offset)?;
            (at < bar.len_bytes && at + size_bytes <= bar.len_bytes).then_some((index, bar, at))
        });
        let (index, bar, at) = found.next().expect("outside of every BAR");
        let meets = |start: u64, len_bytes: u64| at < start + len_bytes && start < at + size_bytes;
        let spans = &bar.spans[..usize::try_from(bar.span_count).unwrap()];
        assert!(
            spans.iter().all(|s| !meets(s.offset, s.len_bytes)),
            "it is mapped"
        );
        if self.facts.interrupt_kind == InterruptKind::Msix as u32 {
            let entries = u64::from(self.facts.msix_entries);
            let places = [
                (
                    self.facts.msix_table_bar,
                    self.facts.msix_table_offset,
                    16 * entries,
                ),
                (
                    self.facts.msix_pba_bar,
                    self.facts.msix_pba_offset,
                    8 * entries.div_ceil(64),
                ),
            ];
            for (table_bar, start, len_bytes) in places {
                let is_there = table_bar as usize == index && meets(start.into(), len_bytes);
                assert!(!is_there, "the interrupt table");
            }
        }
    }

    fn route(&mut self, route: RouteUpdate) {
        assert!(
            route.address == 0 || route.address >> 20 == 0xFEE,
            "{route:x?} is no interrupt"
        );
        assert!(route.count > 0 && route.first_vector + route.count <= self.facts.vectors);
        for vector in 0..route.count {
            self.routes[(route.first_vector + vector) as usize] =
                (route.address, route.data | vector);
        }
    }
}
