//! Interrupts: what the guest writes to the table, the capability and the masks, and when the device fires, against a
//! model of what has to reach the guest.

use jailed::{
    device::{
        function::Function,
        outcome::{Answer, Outcome},
    },
    handoff::{self, InterruptKind},
    ring::RequestKind,
};

use crate::{
    config_space::bytes_of,
    input::{Executions, Input, any_bytes},
    simulated::{EXPRESS, MSI, MSIX, Simulated, bar_access, config_write, device, facts, shapes},
};

/// Entries of the device's own table, of which the guest has fewer.
const ENTRIES: u64 = 8;
const PENDING: u64 = 0x2000;

#[test]
fn masked_vectors_wait_and_each_is_delivered_once() {
    let executions = Executions::of("msix");
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

/// The guest's view of one vector.
#[derive(Clone, Debug, Default, PartialEq)]
struct Vector {
    address: u32,
    upper_address: u32,
    data: u32,
    control: u32,
    is_pending: bool,
    deliveries: u32,
}

/// What has to be true of all vectors.
#[derive(Debug)]
struct Expected {
    is_msix: bool,
    can_mask: bool,
    is_long: bool,
    vectors: Vec<Vector>,
    /// How many the guest has switched on.
    armed: usize,
    is_all_masked: bool,
}

impl Expected {
    fn new(facts: &handoff::Function, msi_control: u16) -> Self {
        let is_msix = facts.interrupt_kind == InterruptKind::Msix as u32;
        Self {
            is_msix,
            can_mask: is_msix || msi_control & 0x100 != 0,
            is_long: msi_control & 0x80 != 0,
            vectors: vec![
                Vector {
                    control: u32::from(is_msix),
                    ..Vector::default()
                };
                facts.vectors as usize
            ],
            armed: 0,
            is_all_masked: false,
        }
    }

    fn is_masked(&self, at: usize) -> bool {
        self.is_all_masked || self.can_mask && self.vectors[at].control & 1 == 1
    }

    fn fire(&mut self, at: usize) {
        if at >= self.armed {
            return;
        }
        if self.is_masked(at) {
            self.vectors[at].is_pending = true;
        } else {
            self.vectors[at].deliveries += 1;
        }
    }

    /// The guest wrote to its table.
    fn write_table(&mut self, offset: u64, size: usize, value: u64) {
        let Ok(index) = usize::try_from(offset / 16) else {
            return;
        };
        let Some(vector) = self
            .vectors
            .get_mut(index)
            .filter(|_| matches!(size, 4 | 8))
        else {
            return;
        };
        for (n, word) in [value & 0xFFFF_FFFF, value >> 32]
            .into_iter()
            .take(size / 4)
            .enumerate()
        {
            let word = u32::try_from(word).unwrap();
            match offset % 16 / 4 + n as u64 {
                0 => vector.address = word & !3,
                1 => vector.upper_address = word,
                2 => vector.data = word,
                _ => vector.control = word & 1,
            }
        }
    }

    /// The guest wrote to its capability, which now holds this.
    fn read_capability(&mut self, config: &[u8; 256]) {
        let word = |at: u8| u32::from_le_bytes(config[usize::from(at)..][..4].try_into().unwrap());
        let before = self.armed;
        if self.is_msix {
            let control = word(MSIX) >> 16;
            self.is_all_masked = control & 0x4000 != 0;
            self.armed = if control & 0x8000 == 0 {
                0
            } else {
                self.vectors.len()
            };
        } else if !self.vectors.is_empty() {
            let control = word(MSI) >> 16;
            let count = (1_usize << (control >> 4 & 7)).min(self.vectors.len());
            self.armed = if control & 1 == 0 { 0 } else { count };
            let (upper, data, mask) = if self.is_long {
                (word(MSI + 8), word(MSI + 12), word(MSI + 16))
            } else {
                (0, word(MSI + 8), word(MSI + 12))
            };
            let low = u32::try_from(count).unwrap() - 1;
            for (n, vector) in (0_u32..).zip(&mut self.vectors) {
                vector.address = word(MSI + 4);
                vector.upper_address = upper;
                vector.data = data & 0xFFFF & !low | n;
                vector.control = mask >> n & 1;
            }
        }
        if before == 0 || self.armed == 0 {
            self.vectors.iter_mut().for_each(|v| v.is_pending = false);
        }
    }

    /// What is not masked any more arrives.
    fn settle(&mut self) {
        for at in 0..self.armed {
            if !self.is_masked(at) && std::mem::take(&mut self.vectors[at].is_pending) {
                self.vectors[at].deliveries += 1;
            }
        }
    }

    fn reset(&mut self) {
        let control = u32::from(self.is_msix);
        for vector in &mut self.vectors {
            let deliveries = vector.deliveries;
            *vector = Vector {
                control,
                deliveries,
                ..Vector::default()
            };
        }
        (self.armed, self.is_all_masked) = (0, false);
    }
}

fn one(input: &mut Input<'_>) {
    let (kind, msi_control) = input.pick(&shapes());
    let facts = facts(kind);
    let bytes = device(msi_control);
    let mut function = Function::new(&bytes, &facts).unwrap();
    let mut hardware = Simulated::new(&facts);
    let mut expected = Expected::new(&facts, msi_control);
    while !input.is_over() {
        match input.below(8) {
            0 | 1 => {
                let vector = input.below(10);
                hardware.fire(vector);
                expected.fire(vector as usize);
            }
            2..5 if expected.is_msix => {
                write_table(input, &mut function, &mut hardware, &mut expected)
            }
            5 if expected.is_msix => read_pending(input, &mut function, &hardware, &expected),
            6 if input.once_in(8) => {
                let outcome = function.access(&config_write(u64::from(EXPRESS) + 8, 2, 0x8000));
                hardware.follow(&outcome);
                expected.reset();
            }
            _ => {
                let outcome = write_capability(input, &mut function);
                hardware.follow(&outcome);
                expected.read_capability(&bytes_of(&function));
            }
        }
        expected.settle();
        check(&mut function, &hardware, &expected);
    }
}

fn write_table(
    input: &mut Input<'_>,
    function: &mut Function,
    hardware: &mut Simulated,
    expected: &mut Expected,
) {
    let size = input.pick(&[4_usize, 4, 4, 8, 1, 2]);
    let offset = u64::from(input.below(0xA0)) & !(size as u64 - 1);
    let value = match input.below(4) {
        0 => u64::from(0xFEE0_0000 | input.word() & 0xF_FFFF),
        1 => u64::from(input.below(2)),
        _ => input.long(),
    };
    let outcome = function.access(&bar_access(RequestKind::BarWrite, offset, size, value));
    hardware.follow(&outcome);
    if offset < 16 * ENTRIES {
        expected.write_table(offset, size, value);
    }
}

fn write_capability(input: &mut Input<'_>, function: &mut Function) -> Outcome {
    let (base, value) = (input.pick(&[MSIX, MSI]), input.word());
    let value = input.pick(&[
        value,
        0x8000,
        0xC000,
        0,
        1,
        0x11,
        0x21,
        0xFEE0_1000,
        0x8000_0000,
    ]);
    let size = input.pick(&[1_usize, 2, 2, 4]);
    let offset = u64::from(base) + u64::from(input.below(0x18));
    function.access(&config_write(
        offset & !(size as u64 - 1),
        size,
        value.into(),
    ))
}

fn read_pending(
    input: &mut Input<'_>,
    function: &mut Function,
    hardware: &Simulated,
    expected: &Expected,
) {
    let size = input.pick(&[4_usize, 8]);
    let offset = (PENDING + u64::from(input.below(8))) & !(size as u64 - 1);
    let answer = function
        .access(&bar_access(RequestKind::BarRead, offset, size, 0))
        .answer;
    let found = match answer {
        Answer::Pending {
            first_vector,
            count,
        } => hardware.pending(first_vector, count),
        Answer::Value(value) => value,
        Answer::Region(offset) => panic!("the device's own register at {offset:#x}"),
    };
    let first = usize::try_from(offset - PENDING).unwrap() * 8;
    let bits = expected
        .vectors
        .iter()
        .skip(first)
        .take(size * 8)
        .enumerate();
    let wanted = bits.fold(0, |all, (n, v)| all | u64::from(v.is_pending) << n);
    assert_eq!(found, wanted, "pending bits at {offset:#x}");
}

fn check(function: &mut Function, hardware: &Simulated, expected: &Expected) {
    assert_eq!(hardware.armed as usize, expected.armed, "armed");
    for (at, vector) in expected.vectors.iter().enumerate() {
        assert_eq!(
            hardware.deliveries[at], vector.deliveries,
            "deliveries of {at}"
        );
        let is_interrupt = vector.address >> 20 == 0xFEE && vector.upper_address == 0;
        let (address, data) = hardware.routes[at];
        // Only the vectors of MSI that are switched on have to have a route.
        if expected.is_msix || at < expected.armed {
            assert_eq!(
                address,
                if is_interrupt {
                    vector.address.into()
                } else {
                    0
                },
                "route of {at}"
            );
            assert!(!is_interrupt || data == vector.data, "data of {at}");
        }
        if expected.is_msix {
            let read = |function: &mut Function, dword: u64| {
                let offset = 16 * at as u64 + 4 * dword;
                function
                    .access(&bar_access(RequestKind::BarRead, offset, 4, 0))
                    .answer
            };
            let words = [
                vector.address,
                vector.upper_address,
                vector.data,
                vector.control,
            ];
            for (dword, word) in (0..).zip(words) {
                assert_eq!(
                    read(function, dword),
                    Answer::Value(word.into()),
                    "entry {at}"
                );
            }
        }
    }
    let others = expected.vectors.len()..hardware.deliveries.len();
    assert!(
        hardware.deliveries[others.clone()].iter().all(|n| *n == 0),
        "a vector too many"
    );
    assert!(
        hardware.routes[others].iter().all(|route| route.0 == 0),
        "a route too many"
    );
}
