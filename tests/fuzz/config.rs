//! The rest of configuration space, to the supervisor: what its two lists say of isolation, and nothing of less than all.

use iommu::topology::{
    Acs, Bridge, ConfigFacts, Express, Extended, ExtendedCaps, PortType, parse_config,
};

use crate::{
    input::{Executions, Input, any_bytes},
    reference::is_list,
};

#[test]
fn what_bears_on_isolation_is_read_right_or_not_at_all() {
    let executions = Executions::of("config");
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
    let mut made = Made::new(input);
    made.add_conventional(input);
    made.add_extended(input);
    let Made { mut bytes, facts } = made;
    // What was put into two lists that are such is found, all of it.
    let found = Facts::found(&parse_config(&bytes));
    assert_eq!(found, facts, "{}", shown(&bytes));

    for _ in 0..input.below(4) {
        let end = input.pick(&[0x40, 0x100, 0x180, 4096]);
        let at = input.below(end) as usize;
        bytes[at] = match input.below(3) {
            0 => input.byte(),
            1 => input.pick(&[0, 0xFF, 0x10, 0x40, 0xA0]),
            _ => bytes[at] ^ 1 << input.below(8),
        };
    }
    let len = match input.below(6) {
        0 => input.below(4097) as usize,
        1 => input.pick(&[0, 63, 64, 255, 256, 257]),
        _ => bytes.len(),
    };
    let cut = &bytes[..len];
    let found = Facts::found(&parse_config(cut));
    assert_eq!(found, Facts::expected(cut), "{len}: {}", shown(cut));
    let is_conventional = len == 256 && found.express.is_none();
    assert!(
        len == bytes.len() || is_conventional || found.list.is_none(),
        "a list out of {len} bytes"
    );
}

/// What configuration space tells, without the words for what it does not.
#[derive(Debug, Default, PartialEq)]
struct Facts {
    command: Option<u16>,
    bridge: Option<Bridge>,
    express: Option<Express>,
    list: Option<ExtendedCaps>,
}

impl Facts {
    fn found(found: &ConfigFacts) -> Self {
        Self {
            command: found.command,
            bridge: found.bridge,
            express: found.express,
            list: match &found.extended {
                Extended::Known(list) => Some(list.clone()),
                Extended::Unknown { .. } => None,
            },
        }
    }

    /// A reading of our own: the whole list first, then what is in it.
    fn expected(bytes: &[u8]) -> Self {
        let is_answer = bytes.len() >= 64 && bytes[..64].iter().any(|byte| *byte != 0xFF);
        if !is_answer || bytes[0x0E] & 0x7F > 1 {
            return Self::default();
        }
        let mut facts = Self {
            command: Some(u16::from_le_bytes([bytes[4], bytes[5]])),
            bridge: (bytes[0x0E] & 1 == 1).then_some(Bridge {
                secondary: bytes[0x19],
                subordinate: bytes[0x1A],
            }),
            ..Self::default()
        };
        let Some(conventional) = bytes.first_chunk::<256>().filter(|space| is_list(space)) else {
            return facts;
        };
        let mut places = Vec::new();
        let mut at = conventional[0x34] & 0xFC;
        while conventional[6] & 0x10 != 0 && at != 0 {
            places.push(usize::from(at));
            at = conventional[usize::from(at) + 1] & 0xFC;
        }
        if let Some(at) = places.into_iter().find(|at| conventional[*at] == 0x10) {
            let Some(registers) = conventional.get(at..at + 10) else {
                return facts;
            };
            facts.express = Some(Express {
                port: port(registers[2] >> 4),
                has_flr: registers[7] & 0x10 != 0,
                has_phantom_functions_on: registers[9] & 2 != 0,
            });
        }
        facts.list = match (bytes.len(), facts.express) {
            (256, None) => Some(ExtendedCaps::default()),
            (4096, _) => extended_list(bytes),
            _ => None,
        };
        facts
    }
}

/// The extended list; nothing of one that is broken, or in which a capability has no room.
fn extended_list(bytes: &[u8]) -> Option<ExtendedCaps> {
    let mut places = Vec::new();
    let mut at = 0x100;
    while at != 0 {
        if at < 0x100 || places.contains(&at) {
            return None;
        }
        let header = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        match header {
            0 => break,
            u32::MAX => return None,
            _ => places.push(at),
        }
        at = (header >> 20 & 0xFFC) as usize;
    }
    let mut list = ExtendedCaps::default();
    for at in places {
        let id = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |n: usize| {
            let word = bytes.get(at + n..at + n + 2)?;
            Some(u16::from_le_bytes(word.try_into().unwrap()))
        };
        if id == Kind::Acs as u16 && list.acs.is_some() {
            continue;
        }
        let (control, enable) = match Kind::ALL.into_iter().find(|kind| *kind as u16 == id) {
            Some(Kind::Acs) => (6, 0),
            Some(Kind::Ats) => (6, 0x8000),
            Some(Kind::Pri) => (4, 1),
            Some(Kind::Pasid) => (6, 1),
            Some(Kind::Aer | Kind::Dpc | Kind::Other) | None => (0, 0),
        };
        note(&mut list, id, word(4).unwrap_or(0), word(control)?, enable);
    }
    Some(list)
}

/// Adds a capability to what is known: the first ACS, and whatever is on.
fn note(list: &mut ExtendedCaps, id: u16, capability: u16, control: u16, enable: u16) {
    let on = |before: Option<bool>| Some(before == Some(true) || control & enable != 0);
    match Kind::ALL.into_iter().find(|kind| *kind as u16 == id) {
        Some(Kind::Acs) => {
            list.acs.get_or_insert(Acs {
                capability,
                control,
            });
        }
        Some(Kind::Ats) => list.ats = on(list.ats),
        Some(Kind::Pri) => list.pri = on(list.pri),
        Some(Kind::Pasid) => list.pasid = on(list.pasid),
        Some(Kind::Aer) => list.has_aer = true,
        Some(Kind::Dpc) => list.has_dpc = true,
        Some(Kind::Other) | None => {}
    }
}

fn port(number: u8) -> PortType {
    match number {
        0 => PortType::Endpoint,
        1 => PortType::LegacyEndpoint,
        4 => PortType::RootPort,
        5 => PortType::SwitchUpstream,
        6 => PortType::SwitchDownstream,
        7 => PortType::ToPciBridge,
        8 => PortType::FromPciBridge,
        9 => PortType::IntegratedEndpoint,
        10 => PortType::EventCollector,
        other => PortType::Reserved(other),
    }
}

/// Extended capabilities, by what PCIe r6.0 and `pci_regs.h` call them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Other = 0x0B,
    Aer = 0x01,
    Acs = 0x0D,
    Ats = 0x0F,
    Pri = 0x13,
    Pasid = 0x1B,
    Dpc = 0x1D,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Other,
        Self::Aer,
        Self::Acs,
        Self::Ats,
        Self::Pri,
        Self::Pasid,
        Self::Dpc,
    ];
}

/// A space whose lists are such, and what was put into them.
struct Made {
    bytes: Vec<u8>,
    facts: Facts,
}

impl Made {
    fn new(input: &mut Input<'_>) -> Self {
        let fill = input.pick(&[0, 0, 0xFF, 0x10, 0xA5]);
        let mut bytes = vec![fill; 4096];
        let command = input.word().to_le_bytes();
        bytes[4..6].copy_from_slice(&command[..2]);
        // VFs answer ones for vendor and device; the header's other bytes need not be ones as well.
        bytes[6] = 0;
        bytes[0x0E] = input.pick(&[0, 1, 0x80, 0x81]);
        (bytes[0x19], bytes[0x1A]) = (input.byte(), input.byte());
        let bridge = (bytes[0x0E] & 1 == 1).then_some(Bridge {
            secondary: bytes[0x19],
            subordinate: bytes[0x1A],
        });
        let facts = Facts {
            command: Some(u16::from_le_bytes([command[0], command[1]])),
            bridge,
            ..Facts::default()
        };
        Self { bytes, facts }
    }

    /// Capabilities in slots of 16 bytes, in any order; the reserved bits of links are anything.
    fn add_conventional(&mut self, input: &mut Input<'_>) {
        let places = slots(input, 0x40, 12, 6);
        if places.is_empty() {
            return;
        }
        let mut link = 0x34;
        self.bytes[6] |= 0x10;
        for at in places {
            self.bytes[link] = u8::try_from(at).unwrap() | input.byte() & 3;
            self.bytes[at] = input.pick(&[0x10, 0x01, 0x05, 0x11, 0]);
            link = at + 1;
            if self.bytes[at] == 0x10 {
                let registers = input.bytes::<8>();
                self.bytes[at + 2..at + 10].copy_from_slice(&registers);
                // Of two, the first.
                self.facts.express.get_or_insert(Express {
                    port: port(registers[0] >> 4),
                    has_flr: registers[5] & 0x10 != 0,
                    has_phantom_functions_on: registers[7] & 2 != 0,
                });
            }
        }
        self.bytes[link] = input.byte() & 3;
    }

    fn add_extended(&mut self, input: &mut Input<'_>) {
        let mut list = ExtendedCaps::default();
        let mut places = slots(input, 0x110, 239, 7);
        places.insert(0, 0x100);
        if input.once_in(8) {
            places.clear();
            self.bytes[0x100..0x104].fill(0);
        }
        for (n, at) in places.iter().copied().enumerate() {
            let kind = input.pick(&Kind::ALL);
            let (first, second) = (input.word(), input.word());
            let next = places
                .get(n + 1)
                .map_or(0, |next| u32::try_from(*next).unwrap());
            let header = kind as u32 | (first & 0xF) << 16 | (next | first >> 4 & 3) << 20;
            self.bytes[at..at + 4].copy_from_slice(&header.to_le_bytes());
            self.bytes[at + 4..at + 8].copy_from_slice(&second.to_le_bytes());
            let word = |half: usize| {
                let bytes = second.to_le_bytes();
                u16::from_le_bytes([bytes[2 * half], bytes[2 * half + 1]])
            };
            let (control, enable) = match kind {
                Kind::Ats => (1, 1 << 15),
                Kind::Pri => (0, 1),
                Kind::Acs | Kind::Pasid | Kind::Aer | Kind::Dpc | Kind::Other => (1, 1),
            };
            note(&mut list, kind as u16, word(0), word(control), enable);
        }
        self.facts.list = Some(list);
    }
}

/// At most `most` of `count` places, each once.
fn slots(input: &mut Input<'_>, start: usize, count: u32, most: u32) -> Vec<usize> {
    let mut places: Vec<usize> = Vec::new();
    for _ in 0..input.below(most + 1) {
        let at = start + 16 * input.below(count) as usize;
        if !places.contains(&at) {
            places.push(at);
        }
    }
    places
}

/// Rows that do not hold one byte only.
fn shown(bytes: &[u8]) -> String {
    let rows = bytes.chunks(16).enumerate();
    rows.filter(|(_, row)| row.iter().any(|byte| *byte != row[0]))
        .map(|(n, row)| format!("\n{:03x}: {row:02x?}", n * 16))
        .collect()
}
