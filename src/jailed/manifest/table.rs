//! Tables of rules with symbols in place of what depends on the guest, and how they become rules.

use super::gaps::gaps;
use super::rule::{Check, MAX_CHECKS, Operand, Rule};
use super::rules::Rules;
use super::start_page;
use crate::handoff::{DeviceFds, Handoff, VcpuFds};

/// One row: rules of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// How often it counts.
    pub(super) each: Each,
    /// The call's number.
    pub(super) call: usize,
    /// Argument and what it must be.
    pub(super) checks: [Option<(u8, Symbol)>; MAX_CHECKS],
    /// What needs it.
    pub(super) why: &'static str,
}

impl Row {
    /// One rule of the guest.
    pub(super) const fn new<const CHECKS: usize>(
        call: usize,
        checks: [(u8, Symbol); CHECKS],
        why: &'static str,
    ) -> Self {
        const { assert!(CHECKS <= MAX_CHECKS) };
        let mut padded = [None; MAX_CHECKS];
        let mut at = 0;
        while at < CHECKS {
            padded[at] = Some(checks[at]);
            at += 1;
        }
        Self {
            each: Each::Guest,
            call,
            checks: padded,
            why,
        }
    }

    /// The same for each function or gap.
    pub(super) const fn each(self, each: Each) -> Self {
        Self { each, ..self }
    }
}

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Each {
    /// One rule.
    Guest,
    /// A rule for each function.
    Function,
    /// A rule for each part of a function's BARs that is not mapped into the guest.
    Gap,
}

/// What an argument must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symbol {
    /// Zero, all 64 bits of it.
    Zero,
    /// This number, all 64 bits of it.
    Exactly(usize),
    /// From 0 up to this number, all 64 bits.
    UpTo(u64),
    /// From 1 up to this number, all 64 bits.
    OneTo(u64),
    /// This request or operation: 32 bits.
    Number(usize),
    /// No other bits than these.
    Bits(usize),
    /// An aligned word's address in start page or ring. The kernel refuses what is not aligned.
    Window,
    /// Where the start page is mapped, or the ring.
    WindowStart,
    /// This descriptor.
    Fd(u32),
    /// No descriptor: the mapping is of no file.
    NoFile,
    /// D: where the console's bytes go.
    ConsoleOut,
    /// D: where the console's bytes come from.
    ConsoleIn,
    /// V: the images and devices, whose descriptors lie side by side.
    Mapped,
    /// V: the VM.
    Vm,
    /// V: the KVM-VFIO device.
    KvmVfio,
    /// V: any vCPU.
    Vcpus,
    /// D: any function's device.
    Devices,
    /// D: this function's device.
    Device,
    /// D: any eventfd that KVM turns into an interrupt.
    Vectors,
    /// D: any eventfd that takes a masked vector.
    Latches,
    /// D: offset of this function's configuration space.
    ConfigStart,
    /// D: offset of this function's command register.
    Command,
    /// D: an offset in this gap.
    Gap,
}

/// What a symbol may depend on beside the guest.
#[derive(Clone, Copy, Debug)]
struct Subject {
    function: usize,
    gap: (u64, u64),
}

/// Adds the rules of `rows` to `rules`.
pub(super) fn add(rules: &mut Rules, rows: &[Row], handoff: &Handoff) {
    for row in rows {
        match row.each {
            Each::Guest => {
                let nobody = Subject {
                    function: 0,
                    gap: (0, 0),
                };
                add_row(rules, row, handoff, nobody);
            }
            Each::Function => {
                for function in 0..handoff.functions().len() {
                    add_row(
                        rules,
                        row,
                        handoff,
                        Subject {
                            function,
                            gap: (0, 0),
                        },
                    );
                }
            }
            Each::Gap => {
                for (function, facts) in handoff.functions().iter().enumerate() {
                    for gap in gaps(facts) {
                        add_row(rules, row, handoff, Subject { function, gap });
                    }
                }
            }
        }
    }
}

/// Adds a row's rule; none where it names descriptors of which the guest has none.
fn add_row(rules: &mut Rules, row: &Row, handoff: &Handoff, subject: Subject) {
    let mut checks = [None; MAX_CHECKS];
    for (place, (argument, symbol)) in checks.iter_mut().zip(row.checks.into_iter().flatten()) {
        let Some(operand) = resolve(symbol, handoff, subject) else {
            return;
        };
        *place = Some(Check { argument, operand });
    }
    rules.push(Rule {
        call: narrow(row.call),
        checks,
        why: row.why,
    });
}

/// What `symbol` stands for in this guest; `None` for descriptors that it does not have.
fn resolve(symbol: Symbol, handoff: &Handoff, subject: Subject) -> Option<Operand> {
    let (vcpu, device) = (VcpuFds::of(handoff), DeviceFds::of(handoff));
    let vectors = handoff.vector_count();
    let range = |first, count| (count > 0).then_some(Operand::LowRange { first, count });
    let console = |number| (handoff.has_console != 0).then_some(Operand::Low(number));
    let facts = handoff.functions().get(subject.function);
    let exactly = |value| Operand::Wide {
        first: value,
        last: value,
    };
    Some(match symbol {
        Symbol::Zero => exactly(0),
        Symbol::Exactly(value) => exactly(value as u64),
        Symbol::Bits(bits) => Operand::OnlyBits(bits as u64),
        Symbol::UpTo(last) => Operand::Wide { first: 0, last },
        Symbol::OneTo(last) => Operand::Wide { first: 1, last },
        Symbol::Number(number) => Operand::Low(narrow(number)),
        Symbol::Window => {
            let (first, last) = start_page::words(handoff);
            Operand::Wide { first, last }
        }
        Symbol::WindowStart => Operand::Wide {
            first: start_page::WINDOW,
            last: start_page::RING,
        },
        Symbol::Fd(number) => Operand::Low(number),
        Symbol::NoFile => Operand::Low(u32::MAX),
        Symbol::ConsoleOut => console(DeviceFds::CONSOLE_OUT)?,
        Symbol::ConsoleIn => console(DeviceFds::CONSOLE_IN)?,
        Symbol::Mapped => range(vcpu.image(0), vcpu.vector(0) - vcpu.image(0))?,
        Symbol::Vm => Operand::Low(vcpu.vm()),
        Symbol::KvmVfio => Operand::Low(vcpu.kvm_vfio()?),
        Symbol::Vcpus => range(vcpu.vcpu(0), handoff.vcpu_count)?,
        Symbol::Devices => range(device.device(0), handoff.function_count)?,
        Symbol::Device => Operand::Low(device.device(narrow(subject.function))),
        Symbol::Vectors => range(device.vector(0), vectors)?,
        Symbol::Latches => range(device.latch(0), vectors)?,
        Symbol::ConfigStart => exactly(facts?.config_offset),
        Symbol::Command => exactly(facts?.config_offset.checked_add(4)?),
        Symbol::Gap => Operand::Wide {
            first: subject.gap.0,
            last: subject.gap.1,
        },
    })
}

/// Numbers of calls, requests and functions have 32 bits; one that had more would match nothing.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
