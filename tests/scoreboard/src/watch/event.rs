//! Events of the kernel's trace, out of its lines.
//!
//! *Source:* `Documentation/trace/ftrace.rst`; `arch/x86/kvm/trace.h`, `include/trace/events/kvm.h (v6.12)`.

use std::io;

use crate::mark;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since the host's start.
    pub at_ns: u64,
    /// The thread in which it was.
    pub tid: u32,
    /// What it was.
    pub what: What,
}

/// What an event tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The guest runs.
    Entry,
    /// It does not any more, by this reason.
    Exit(String),
    /// The VMM must do something, by this reason.
    UserExit(String),
    /// A mark of ours.
    Mark(u32),
    /// An interrupt was given to the guest.
    Interrupt,
    /// Bytes written to a port.
    PortWrite {
        /// The port.
        port: u32,
        /// How often.
        count: u64,
    },
    /// A call begins.
    Call {
        /// Its number.
        number: u32,
        /// Its first argument.
        first: u64,
        /// Its second argument.
        second: u64,
    },
    /// It ends.
    Return,
    /// A program begins.
    Exec {
        /// Its path.
        program: String,
    },
    /// Another thread runs now; 0 is nobody.
    Switch {
        /// Its id.
        next: u32,
    },
    /// KVM is given a memory slot, or told to forget it where it has no bytes.
    Slot {
        /// Its number.
        number: u64,
        /// Its size.
        bytes: u64,
    },
}

/// An event from a line such as ` narrows-vcpu-182  [000] .....  12.824997: kvm_userspace_exit: reason KVM_EXIT_IO (2)`;
/// `None` for one that is of no interest.
pub(super) fn parse(line: &str) -> io::Result<Option<Event>> {
    let bad = || {
        io::Error::other(format!(
            "the trace has a line that cannot be read: {line:?}"
        ))
    };
    // A task's name may hold anything, also what looks like the rest; the processor's number in brackets comes after it.
    let (task, rest) = line
        .match_indices(" [")
        .find_map(|(at, _)| {
            let (processor, rest) = line.get(at + 2..)?.split_once("] ")?;
            let is_number =
                processor.len() >= 3 && processor.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then_some((line.get(..at)?, rest))
        })
        .ok_or_else(bad)?;
    let tid = task
        .trim_end()
        .rsplit_once('-')
        .and_then(|(_, tid)| tid.parse().ok())
        .ok_or_else(bad)?;
    let (head, rest) = rest.split_once(": ").ok_or_else(bad)?;
    let at = head.split_ascii_whitespace().last().ok_or_else(bad)?;
    let at_ns = nanoseconds(at).ok_or_else(bad)?;
    // The names of calls have no colon behind a blank of their own.
    let (name, detail) = rest
        .split_once(": ")
        .or_else(|| rest.split_once(":"))
        .unwrap_or((rest, ""));
    let what = what(name, detail).ok_or_else(bad)?;
    Ok(what.map(|what| Event { at_ns, tid, what }))
}

/// Seconds with six digits behind the point, as nanoseconds.
fn nanoseconds(text: &str) -> Option<u64> {
    let (seconds, parts) = text.split_once('.')?;
    let micros: u64 = parts.parse().ok().filter(|_| parts.len() == 6)?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000_000 + micros * 1000)
}

/// `None` for what is broken, `Some(None)` for what is of no interest.
fn what(name: &str, detail: &str) -> Option<Option<What>> {
    let mut words = detail.split_ascii_whitespace();
    let behind = |key: &str| {
        let mut words = detail
            .split_ascii_whitespace()
            .skip_while(move |word| *word != key);
        words.next()?;
        words.next()
    };
    Some(Some(match name {
        "kvm_entry" => What::Entry,
        "kvm_exit" => What::Exit(behind("reason")?.to_owned()),
        "kvm_userspace_exit" => {
            What::UserExit(behind("reason")?.trim_start_matches("KVM_EXIT_").to_owned())
        }
        "kvm_inj_virq" => What::Interrupt,
        "kvm_cpuid" => {
            let function = u32::from_str_radix(behind("func")?, 16).ok()?;
            let index = u32::from_str_radix(behind("idx")?, 16).ok()?;
            if function != mark::LEAF {
                return Some(None);
            }
            What::Mark(index)
        }
        "kvm_pio" if words.next() == Some("pio_write") => {
            let port = behind("at")?.trim_start_matches("0x");
            What::PortWrite {
                port: u32::from_str_radix(port, 16).ok()?,
                count: behind("count")?.parse().ok()?,
            }
        }
        "sys_enter" => {
            let number = behind("NR")?.parse::<i64>().ok()?;
            let arguments = detail.split_once('(')?.1.trim_end_matches(')');
            let mut arguments = arguments
                .split(", ")
                .map(|word| u64::from_str_radix(word, 16).ok());
            What::Call {
                // A call that the kernel does not know is -1.
                number: u32::try_from(number).unwrap_or(u32::MAX),
                first: arguments.next()??,
                second: arguments.next()??,
            }
        }
        "sys_exit" => What::Return,
        "slot" => {
            let value = |key: &str| {
                detail
                    .split_once(key)?
                    .1
                    .split_ascii_whitespace()
                    .next()?
                    .parse()
                    .ok()
            };
            What::Slot {
                number: value(" id=")?,
                bytes: value(" bytes=")?,
            }
        }
        "sched_process_exec" => {
            let program = detail.split_once("filename=")?.1;
            let program = program
                .rsplit_once(" pid=")
                .map_or(program, |(program, _)| program);
            What::Exec {
                program: program.to_owned(),
            }
        }
        "sched_switch" => {
            let next = detail.rsplit_once("next_pid=")?.1;
            What::Switch {
                next: next.split_ascii_whitespace().next()?.parse().ok()?,
            }
        }
        _ => return Some(None),
    }))
}

#[cfg(test)]
#[path = "event_test.rs"]
mod event_test;
