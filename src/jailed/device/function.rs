//! One assigned function: a request in, an answer and what to do to the hardware out.

use super::{
    bar::{self, Place},
    config::{Config, Contradiction, DeviceBytes, Places},
    msi::Msi,
    msix::Table,
    outcome::{Answer, Effect, Outcome},
    policy::{COMMAND_HARDWARE, EXPRESS_CONTROL, INITIATE_RESET, POWER_CONTROL},
    vectors::VectorSet,
};
use crate::{
    handoff::{self, InterruptKind},
    ring::{Request, RequestKind, RouteUpdate},
};

/// The command register's offset.
const COMMAND: u8 = 4;

/// One function.
#[derive(Debug)]
pub struct Function {
    facts: handoff::Function,
    config: Config,
    places: Places,
    /// Entries of the device's own table, 0 without MSI-X.
    table_entries: u32,
    table: Table,
}

impl Function {
    /// The function as after power-on.
    ///
    /// # Errors
    /// [`Contradiction`] where the device's bytes contradict the handoff or themselves.
    pub fn new(device: &DeviceBytes, facts: &handoff::Function) -> Result<Self, Contradiction> {
        let (config, places) = Config::build(device, facts)?;
        let control = places.msix.and_then(|at| {
            let at = usize::from(at.checked_add(2)?);
            Some(u16::from_le_bytes([
                *device.get(at)?,
                *device.get(at.checked_add(1)?)?,
            ]))
        });
        Ok(Self {
            facts: *facts,
            config,
            places,
            table_entries: control.map_or(0, |c| u32::from(c & 0x7FF).saturating_add(1)),
            table: Table::new(facts.vectors),
        })
    }

    /// What the guest reads of its configuration space; behind it, zeros.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Answers a request.
    pub fn access(&mut self, request: &Request) -> Outcome {
        match request.kind {
            RequestKind::ConfigWrite => self.write_config(request),
            RequestKind::BarRead => self.read_bar(request),
            RequestKind::BarWrite => self.write_bar(request),
        }
    }

    /// How many vectors are armed.
    #[must_use]
    pub fn armed(&self) -> u32 {
        match (self.msi(), self.places.msix) {
            (Some(msi), _) => msi.armed(&self.config),
            (None, Some(_)) if self.msix_control() & 0x8000 != 0 => self.facts.vectors,
            _ => 0,
        }
    }

    /// The vectors that go to the guest: armed and not masked.
    #[must_use]
    pub fn delivered(&self) -> VectorSet {
        let armed = self.armed();
        let unmasked = match self.msi() {
            Some(msi) => msi.unmasked(&self.config),
            None if self.msix_control() & 0x4000 != 0 => VectorSet::default(),
            None => self.table.unmasked(),
        };
        VectorSet::of(armed, |vector| unmasked.has(vector))
    }

    fn write_config(&mut self, request: &Request) -> Outcome {
        if self.asks_for_reset(request) {
            return self.reset();
        }
        let (before, armed, delivered) = (self.config, self.armed(), self.delivered());
        let route_before = self.msi().map(|msi| msi.route(&before));
        self.config
            .write(request.offset, request.size_bytes, request.value);
        self.settle(&before);

        let hardware = |config: &Config| {
            u16::try_from(config.read(COMMAND) & 0xFFFF).unwrap_or(0) & COMMAND_HARDWARE
        };
        let command = hardware(&self.config);
        let [enable, retarget] = self.interrupt_effects(armed, delivered);
        let route = self
            .msi()
            .map(|msi| msi.route(&self.config))
            .filter(|route| {
                // Enabling alone changes nothing of where the vectors go.
                route_before.is_none_or(|b| {
                    RouteUpdate {
                        is_live: route.is_live,
                        ..b
                    } != *route
                })
            });
        Outcome {
            answer: Answer::Value(0),
            route,
            effects: [
                (command != hardware(&before)).then_some(Effect::HardwareCommand(command)),
                enable,
                retarget,
            ],
            is_config_changed: before.dwords() != self.config.dwords(),
        }
    }

    /// What follows from more, fewer, or differently masked vectors than before.
    fn interrupt_effects(&self, armed: u32, delivered: VectorSet) -> [Option<Effect>; 2] {
        let (now_armed, after) = (self.armed(), self.delivered());
        match (armed, now_armed) {
            (0, 0) => [None, None],
            (_, 0) => [Some(Effect::DisableVectors), None],
            (0, count) => {
                let before = VectorSet::default();
                [Some(Effect::EnableVectors(count)), retarget(before, after)]
            }
            (_, _) => [None, retarget(delivered, after)],
        }
    }

    /// Corrects what the masks of the table cannot say.
    fn settle(&mut self, before: &Config) {
        if let Some(msi) = self.msi() {
            msi.settle(before, &mut self.config);
        }
        // A state that the function has not, D1 or D2, is not entered.
        if let Some(control) = self
            .places
            .power
            .and_then(|at| at.checked_add(POWER_CONTROL))
            && matches!(self.config.read(control) & 3, 1 | 2)
        {
            self.config.set(control, 3, before.read(control));
        }
    }

    /// Whether a write sets the bit that starts a reset.
    fn asks_for_reset(&self, request: &Request) -> bool {
        let control = self
            .places
            .express
            .and_then(|at| at.checked_add(EXPRESS_CONTROL));
        let (Some(control), 1) = (control, self.facts.can_reset) else {
            return false;
        };
        let lanes = super::config::lanes(request.offset, request.size_bytes, request.value);
        // The capability is aligned to a dword, and so is the control register in it.
        lanes.is_some_and(|(index, _, value)| {
            index == usize::from(control / 4) && value & INITIATE_RESET != 0
        })
    }

    /// Interrupts off, bus master off, reset: and the model as after power-on.
    fn reset(&mut self) -> Outcome {
        let is_armed = self.armed() > 0;
        self.config.reset();
        self.table.reset();
        let vectors = self.facts.vectors;
        Outcome {
            answer: Answer::Value(0),
            route: (vectors > 0).then_some(RouteUpdate {
                first_vector: 0,
                count: vectors,
                address: 0,
                data: 0,
                is_live: false,
            }),
            effects: [
                Some(Effect::HardwareCommand(0)),
                is_armed.then_some(Effect::DisableVectors),
                Some(Effect::Reset),
            ],
            is_config_changed: true,
        }
    }

    fn read_bar(&self, request: &Request) -> Outcome {
        match bar::place(&self.facts, self.table_entries, request) {
            Place::Table(offset) => Outcome::value(self.table.read(offset, request.size_bytes)),
            Place::Pending(offset) => self.read_pending(offset, request.size_bytes),
            Place::Register(offset) => Outcome {
                answer: Answer::Region(offset),
                ..Outcome::value(0)
            },
            Place::Nothing => Outcome::value(u64::MAX),
        }
    }

    /// Pending bits: 4 or 8 bytes, as for the table.
    fn read_pending(&self, offset: u64, size_bytes: usize) -> Outcome {
        if !matches!(size_bytes, 4 | 8) {
            return Outcome::value(u64::MAX);
        }
        let bits = |bytes: u64| u32::try_from(bytes.saturating_mul(8)).unwrap_or(u32::MAX);
        let first_vector = bits(offset);
        let left = self.armed().saturating_sub(first_vector);
        let count = left.min(if size_bytes == 8 { 64 } else { 32 });
        if count == 0 {
            return Outcome::value(0);
        }
        Outcome {
            answer: Answer::Pending {
                first_vector,
                count,
            },
            ..Outcome::value(0)
        }
    }

    fn write_bar(&mut self, request: &Request) -> Outcome {
        let (size_bytes, value) = (request.size_bytes, request.value);
        match bar::place(&self.facts, self.table_entries, request) {
            Place::Table(offset) => self.write_table(offset, size_bytes, value),
            Place::Register(offset) => {
                let write = Effect::RegionWrite {
                    offset,
                    size_bytes,
                    value,
                };
                Outcome {
                    effects: [Some(write), None, None],
                    ..Outcome::value(0)
                }
            }
            Place::Pending(_) | Place::Nothing => Outcome::value(0),
        }
    }

    fn write_table(&mut self, offset: u64, size_bytes: usize, value: u64) -> Outcome {
        let before = self.delivered();
        let route = self.table.write(offset, size_bytes, value);
        let after = self.delivered();
        Outcome {
            route: route.map(|route| RouteUpdate {
                is_live: after.has(route.first_vector),
                ..route
            }),
            effects: [retarget(before, after), None, None],
            ..Outcome::value(0)
        }
    }

    fn msi(&self) -> Option<Msi> {
        self.places.msi.map(|base| Msi {
            base,
            vectors: self.facts.vectors,
        })
    }

    fn msix_control(&self) -> u32 {
        let control = self.places.msix.and_then(|at| at.checked_add(2));
        control.map_or(0, |at| self.config.read(at) & 0xFFFF)
    }

    /// Whether vectors are MSI-X, for the calls that arm them.
    #[must_use]
    pub fn is_msix(&self) -> bool {
        self.facts.interrupt_kind == InterruptKind::Msix as u32
    }
}

/// The effect, if the sets differ.
fn retarget(before: VectorSet, after: VectorSet) -> Option<Effect> {
    (before != after).then_some(Effect::Retarget { before, after })
}
