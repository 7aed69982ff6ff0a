//! The list of commands. Each is one line, and is answered by one line that begins with `GUEST`.
//!
//! One function has a fixed name, by which the entry calls it; the compiler takes such a name for unsafe.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the first function has a fixed name")]

use guests::{
    command::{Words, answer, done},
    console,
    edu::{Edu, Way},
    nvme::Nvme,
    pci, residue, storm,
    sys::{memory, port, processor},
};

/// What lasts from one command to the next.
#[derive(Debug, Default)]
struct Attacker {
    nvme: Option<Nvme>,
}

/// Runs on the stack of the entry; never returns.
#[unsafe(no_mangle)]
extern "C" fn guest_main() -> ! {
    processor::start_apic();
    console::say(format_args!("GUEST init=yes"));
    let mut attacker = Attacker::default();
    let mut buffer = [0; 256];
    loop {
        let mut words = Words::of(console::read_line(&mut buffer));
        if attacker.obey(&mut words).is_none() {
            console::say(format_args!("GUEST error=not-done"));
        }
    }
}

impl Attacker {
    /// Does what a line says; `None` where it could not.
    fn obey(&mut self, words: &mut Words<'_>) -> Option<()> {
        match words.word()? {
            "off" => console::power_off(),
            "last-words" => last_words(words),
            "crash" => processor::crash(),
            "read" => read(words),
            "write" => write(words),
            "fill" => fill(words),
            "fill-words" => residue::fill(words),
            "fill-registers" => residue::fill_registers(words),
            "count-words" => residue::count(words),
            "keep" => residue::keep(words),
            "kept" => residue::kept(words),
            "show" => show(words),
            "in" => in_port(words),
            "out" => out_port(words),
            "odd" => odd(words),
            "slots" => slots(),
            "bar" => answer(pci::bar(words.number()?, words.number()?)?),
            "command" => pci::set_command(words.number()?, words.number()?).and_then(|()| done()),
            "config-sweep" => config_sweep(words),
            "config-sum" => answer(pci::checksum(words.number()?)?),
            "config-echo" => answer(pci::echo(
                words.number()?,
                words.number()?,
                words.number()?,
            )?),
            "alternate" => alternate(words),
            "wait" => {
                processor::wait_ms(words.number()?);
                done()
            }
            "counts" => counts(),
            "apic-storm" => apic_storm(words),
            "work" => storm::work(),
            "storm" => storm::storm(words),
            "edu-in" => edu(words, Way::In),
            "edu-out" => edu(words, Way::Out),
            "edu-start-out" => edu_start(words),
            "edu-walk-in" => edu_walk(words, Way::In),
            "edu-walk-out" => edu_walk(words, Way::Out),
            "edu-fire" => edu_fire(words),
            "edu-storm" => edu_storm(),
            "nvme-start" => self.nvme_start(words),
            "nvme-identify" => self.nvme_identify(words),
            "nvme-format" => self.nvme_format(words),
            "nvme-walk-out" => self.nvme_walk_out(words),
            "nvme-in" => self.nvme_in(words),
            "nvme-storm" => self.nvme_storm(words),
            _ => None,
        }
    }

    /// `nvme-start RAM VECTOR`: the controller with queues in four pages at RAM, completions of data on VECTOR.
    fn nvme_start(&mut self, words: &mut Words<'_>) -> Option<()> {
        let mut nvme = Nvme::start(words.number()?)?;
        let status = nvme.make_io_queues(words.number()?)?;
        self.nvme = Some(nvme);
        answer(status)
    }

    /// `nvme-identify IOVA`: the device writes a page to IOVA; answers the command's status.
    fn nvme_identify(&mut self, words: &mut Words<'_>) -> Option<()> {
        answer(self.nvme.as_mut()?.identify(words.number()?)?)
    }

    /// `nvme-format NAMESPACE LBAF`: the namespace in the format of that number; answers the command's status.
    fn nvme_format(&mut self, words: &mut Words<'_>) -> Option<()> {
        let (namespace, format) = (words.number()?, words.number()?);
        answer(self.nvme.as_mut()?.format(namespace, format)?)
    }

    /// `nvme-walk-out START STEP COUNT`: as `nvme-identify` at each of COUNT addresses.
    fn nvme_walk_out(&mut self, words: &mut Words<'_>) -> Option<()> {
        let (start, step, count) = (words.number()?, words.number()?, words.number()?);
        let nvme = self.nvme.as_mut()?;
        for nth in 0..count {
            nvme.identify(start.wrapping_add(step.wrapping_mul(nth)))?;
        }
        done()
    }

    /// `nvme-in IOVA NAMESPACE BLOCK RAM`: the device reads a page at IOVA into its namespace, and from there into RAM.
    fn nvme_in(&mut self, words: &mut Words<'_>) -> Option<()> {
        let (iova, namespace, block, ram) = (
            words.number()?,
            words.number()?,
            words.number()?,
            words.number()?,
        );
        let nvme = self.nvme.as_mut()?;
        let read = nvme.write(iova, namespace, block)?;
        let written = nvme.read(ram, namespace, block)?;
        console::say(format_args!("GUEST read={read:#x} written={written:#x}"));
        Some(())
    }

    /// `nvme-storm IOVA`: `nvme-identify` until the next line is typed; answers how often.
    fn nvme_storm(&mut self, words: &mut Words<'_>) -> Option<()> {
        let iova = words.number()?;
        let nvme = self.nvme.as_mut()?;
        let mut count = 0;
        while count % 16 != 0 || !console::has_input() {
            nvme.identify(iova)?;
            count += 1;
        }
        answer(count)
    }
}

/// `read WIDTH ADDRESS`
fn read(words: &mut Words<'_>) -> Option<()> {
    let width = words.number()?;
    answer(memory::read(words.number()?, width)?)
}

/// `write WIDTH ADDRESS VALUE`
fn write(words: &mut Words<'_>) -> Option<()> {
    let (width, at) = (words.number()?, words.number()?);
    memory::write(at, width, words.number()?)?;
    done()
}

/// `fill ADDRESS LENGTH BYTE`
fn fill(words: &mut Words<'_>) -> Option<()> {
    let (at, len) = (words.number()?, words.number()?);
    memory::fill(at, len, u8::try_from(words.number()?).ok()?)?;
    done()
}

/// `show ADDRESS LENGTH`: answers the first 16 bytes, and whether all of them have the same value.
fn show(words: &mut Words<'_>) -> Option<()> {
    let (at, len) = (words.number()?, words.number()?);
    let first = memory::read(at, 1)?;
    let mut is_uniform = true;
    for offset in 0..len {
        is_uniform &= memory::read(at + offset, 1)? == first;
    }
    console::print(format_args!(
        "GUEST same={} bytes=",
        if is_uniform { "yes" } else { "no" }
    ));
    for offset in 0..len.min(16) {
        console::print(format_args!("{:02x}", memory::read(at + offset, 1)?));
    }
    console::say(format_args!(""));
    Some(())
}

/// `in WIDTH PORT`
fn in_port(words: &mut Words<'_>) -> Option<()> {
    let (width, at) = (words.number()?, u16::try_from(words.number()?).ok()?);
    answer(u64::from(port::read(at, width)?))
}

/// `out WIDTH PORT VALUE`
fn out_port(words: &mut Words<'_>) -> Option<()> {
    let (width, at) = (words.number()?, u16::try_from(words.number()?).ok()?);
    port::write(at, width, u32::try_from(words.number()?).ok()?)?;
    done()
}

/// `odd KIND ADDRESS RAM`: an instruction that emulators find hard.
fn odd(words: &mut Words<'_>) -> Option<()> {
    let kind = words.word()?;
    memory::odd_access(kind, words.number()?, words.number()?)?;
    done()
}

/// `slots`: the functions that answer.
fn slots() -> Option<()> {
    console::print(format_args!("GUEST slots=yes"));
    for slot in 0..32 {
        if let Some(id) = pci::id(slot) {
            console::print(format_args!(" {slot}={id:#x}"));
        }
    }
    console::say(format_args!(""));
    Some(())
}

/// `config-sweep SLOT FIRST END VALUE`: writes VALUE in widths 1, 2, 4 and 8 to every address of the configuration space
/// from FIRST to END, aligned, misaligned, and across the end of the page.
fn config_sweep(words: &mut Words<'_>) -> Option<()> {
    let base = pci::base(words.number()?);
    let (first, end, value) = (words.number()?, words.number()?, words.number()?);
    for offset in first..end {
        for width in [1, 2, 4, 8] {
            memory::write(base + offset, width, value)?;
        }
    }
    done()
}

/// `alternate WIDTH ADDRESS A B COUNT`: writes A and B in turn.
fn alternate(words: &mut Words<'_>) -> Option<()> {
    let (width, at) = (words.number()?, words.number()?);
    let (a, b, count) = (words.number()?, words.number()?, words.number()?);
    for _ in 0..count {
        memory::write(at, width, a)?;
        memory::write(at, width, b)?;
    }
    done()
}

/// `counts`: the vectors that have come, with their numbers.
fn counts() -> Option<()> {
    processor::take_interrupts();
    console::print(format_args!("GUEST counts=yes"));
    for vector in 0..=u8::MAX {
        let count = processor::interrupts(vector);
        if count > 0 {
            console::print(format_args!(" {vector:#x}={count}"));
        }
    }
    console::say(format_args!(""));
    Some(())
}

/// `apic-storm VECTOR TIMER`: the processor sends itself VECTOR, and has its timer fire TIMER, until the next line is typed;
/// answers how often it sent.
fn apic_storm(words: &mut Words<'_>) -> Option<()> {
    let vector = u8::try_from(words.number()?).ok()?;
    processor::start_timer(u8::try_from(words.number()?).ok()?);
    let mut count = 0;
    while count % 64 != 0 || !console::has_input() {
        processor::send_to_self(vector);
        count += 2;
        if count % 16 == 0 {
            processor::take_interrupts();
        }
    }
    processor::stop_timer();
    answer(count)
}

/// `edu-in IOVA OFFSET LENGTH`, `edu-out IOVA OFFSET LENGTH`: a transfer between IOVA and the buffer.
fn edu(words: &mut Words<'_>, way: Way) -> Option<()> {
    let edu = Edu::find()?;
    let (iova, offset, len) = (words.number()?, words.number()?, words.number()?);
    edu.start(way, iova, offset, len)?;
    edu.wait().then(done)?
}

/// `last-words LINES`: so many lines, and off without another word.
fn last_words(words: &mut Words<'_>) -> Option<()> {
    console::count(words.number()?);
    console::power_off()
}

/// `edu-start-out IOVA OFFSET LENGTH`: as `edu-out`, without waiting.
fn edu_start(words: &mut Words<'_>) -> Option<()> {
    let edu = Edu::find()?;
    let (iova, offset, len) = (words.number()?, words.number()?, words.number()?);
    edu.start(Way::Out, iova, offset, len)?;
    done()
}

/// `edu-walk-in START STEP COUNT`, `edu-walk-out …`: 16 bytes for each of COUNT addresses, the nth at 16 times n of the
/// buffer.
fn edu_walk(words: &mut Words<'_>, way: Way) -> Option<()> {
    const PIECE_BYTES: u64 = 16;
    let edu = Edu::find()?;
    let (start, step, count) = (words.number()?, words.number()?, words.number()?);
    for nth in 0..count.min(4096 / PIECE_BYTES) {
        edu.start(
            way,
            start.wrapping_add(step.wrapping_mul(nth)),
            nth * PIECE_BYTES,
            PIECE_BYTES,
        )?;
        if !edu.wait() {
            return None;
        }
    }
    done()
}

/// `edu-fire COUNT`: its interrupt, COUNT times.
fn edu_fire(words: &mut Words<'_>) -> Option<()> {
    let edu = Edu::find()?;
    for _ in 0..words.number()? {
        edu.fire()?;
        processor::take_interrupts();
    }
    done()
}

/// `edu-storm`: its interrupt, until the next line is typed; answers how often.
fn edu_storm() -> Option<()> {
    let edu = Edu::find()?;
    let mut count = 0;
    while count % 64 != 0 || !console::has_input() {
        edu.fire()?;
        count += 1;
        if count % 64 == 0 {
            processor::take_interrupts();
        }
    }
    answer(count)
}
