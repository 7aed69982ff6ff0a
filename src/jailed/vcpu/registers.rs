//! The registers the first vCPU starts with; the others wait for the guest's INIT and start-up messages in KVM.

use super::boot::{BOOT_PARAMS, Entry, GDT, PAGE_TABLES, START_INFO};
use crate::sys::kvm_abi::{DescriptorTable, Regs, Segment, Sregs};
use crate::sys::memory::{FillError, GuestRam};

const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TASK_SELECTOR: u16 = 0x20;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME_LMA: u64 = 0x500;

/// MSRs that every vCPU starts with, as firmware would leave them.
pub const MSRS: [(u32, u64); 2] = [
    // IA32_MISC_ENABLE: fast string instructions.
    (0x1A0, 1),
    // IA32_MTRR_DEF_TYPE: enabled, everything write-back.
    (0x2FF, 1 << 11 | 6),
];

/// Writes the descriptor table for `entry`: null, null, code, data, task.
///
/// # Errors
/// [`FillError::NotRam`].
pub fn write_gdt(ram: &mut GuestRam, entry: Entry) -> Result<(), FillError> {
    let code: u64 = match entry {
        Entry::Linux64(_) => 0x00AF_9B00_0000_FFFF,
        Entry::Pvh(_) => 0x00CF_9B00_0000_FFFF,
    };
    let table = [0, 0, code, 0x00CF_9300_0000_FFFF, 0x0000_8B00_0000_0067];
    let mut bytes = [0; GDT_BYTES];
    for (to, descriptor) in bytes.chunks_exact_mut(8).zip(table) {
        to.copy_from_slice(&u64::to_le_bytes(descriptor));
    }
    ram.write(GDT, &bytes)
}

const GDT_BYTES: usize = 40;

/// The general registers for `entry`.
#[must_use]
pub fn regs(entry: Entry) -> Regs {
    // Bit 1 is always set; interrupts are off.
    const RFLAGS: u64 = 2;
    match entry {
        Entry::Linux64(at) => Regs {
            rip: at.raw(),
            rsi: BOOT_PARAMS.raw(),
            rflags: RFLAGS,
            ..Regs::default()
        },
        Entry::Pvh(at) => Regs {
            rip: at.raw(),
            rbx: START_INFO.raw(),
            rflags: RFLAGS,
            ..Regs::default()
        },
    }
}

/// The segment and control registers for `entry`, the APIC's base as KVM has it in `reset`.
#[must_use]
pub fn sregs(entry: Entry, reset: &Sregs) -> Sregs {
    const CODE: u8 = 0xB;
    const DATA: u8 = 3;
    let is_64bit = matches!(entry, Entry::Linux64(_));
    let code = Segment {
        l: u8::from(is_64bit),
        db: u8::from(!is_64bit),
        ..flat(CODE_SELECTOR, CODE)
    };
    let data = flat(DATA_SELECTOR, DATA);
    let tables = Sregs {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        // A busy task segment, as entering the guest demands; nothing uses it.
        tr: Segment {
            limit: 0x67,
            selector: TASK_SELECTOR,
            kind: 0xB,
            present: 1,
            ..Segment::default()
        },
        gdt: DescriptorTable {
            base: GDT.raw(),
            limit: 39,
            ..DescriptorTable::default()
        },
        idt: DescriptorTable::default(),
        ..*reset
    };
    match entry {
        Entry::Linux64(_) => Sregs {
            cr0: CR0_PE | CR0_ET | CR0_PG,
            cr3: PAGE_TABLES.raw(),
            cr4: CR4_PAE,
            efer: EFER_LME_LMA,
            ..tables
        },
        Entry::Pvh(_) => Sregs {
            cr0: CR0_PE | CR0_ET,
            cr3: 0,
            cr4: 0,
            efer: 0,
            ..tables
        },
    }
}

/// A segment of 4 GiB from zero.
fn flat(selector: u16, kind: u8) -> Segment {
    Segment {
        base: 0,
        limit: u32::MAX,
        selector,
        kind,
        present: 1,
        s: 1,
        g: 1,
        db: 1,
        ..Segment::default()
    }
}
