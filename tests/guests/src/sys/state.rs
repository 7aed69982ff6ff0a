//! The processor's registers as a place where something of a guest may be left.
//!
//! *Source:* `Intel SDM volume 1, section 13.4 (the XSAVE area); volume 3, section 2.5 and volume 4 (registers)`.

use core::arch::{asm, x86_64::__cpuid};

use super::{
    entry,
    processor::{Clock, read_msr, relax, write_msr},
};

/// Model-specific registers that take any address.
const ADDRESSES: [u32; 8] = [
    0x175,
    0x176,
    0xC000_0100,
    0xC000_0101,
    0xC000_0102,
    0xC000_0081,
    0xC000_0082,
    0xC000_0083,
];
/// As those, of 32 bits: the mask of system calls, and the processor's number.
const HALVES: [u32; 2] = [0xC000_0084, 0xC000_0103];

/// The legacy area, the header, and the upper halves of the vectors.
const AREA_WORDS: usize = (512 + 64 + 256) / 8;
/// Floating point, vectors, upper halves of vectors.
const ALL_STATE: u32 = 7;
const HEADER: usize = 512 / 8;

/// What `xsave` writes and `xrstor` reads.
#[repr(C, align(64))]
struct Area([u64; AREA_WORDS]);

/// Whether the processor has vectors of 256 bits; switches them on.
fn has_wide_vectors() -> bool {
    const XSAVE_AND_AVX: u32 = 1 << 26 | 1 << 28;
    if __cpuid(1).ecx & XSAVE_AND_AVX != XSAVE_AND_AVX {
        return false;
    }
    // SAFETY: the processor has them; compiled code does not use them.
    unsafe {
        asm!("mov {r}, cr4", "or {r}, 0x40000", "mov cr4, {r}", r = out(reg) _, options(nomem, nostack));
    };
    // SAFETY: as above.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") ALL_STATE, in("edx") 0, options(nomem, nostack))
    };
    true
}

/// Puts `value` into every register that takes it, lets `ms` milliseconds go by, and counts those that hold it then.
pub fn keep(value: u64, ms: u64) -> u64 {
    set_addresses(value);
    let wide = has_wide_vectors();
    let mut area = Area([0; AREA_WORDS]);
    if wide {
        // Eight registers of floating point of ten bytes in sixteen, sixteen vectors, their upper halves.
        for (at, word) in area.0.iter_mut().enumerate() {
            let is_state = (4..52).contains(&at) || at >= HEADER + 8;
            *word = if is_state { value } else { 0 };
        }
        area.0[0] = 0x37F;
        area.0[3] = 0x1F80;
        area.0[HEADER] = u64::from(ALL_STATE);
        // SAFETY: the area is valid; what it overwrites is declared below, or unused by compiled code.
        unsafe {
            asm!("xrstor [{area}]", area = in(reg) &raw const area.0, in("eax") ALL_STATE, in("edx") 0,
                 out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                 out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                 out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _, options(nostack));
        };
    }
    let clock = Clock::start();
    while clock.us() < ms.saturating_mul(1000).min(4_000_000) {
        relax();
    }
    let inverse = !value;
    if wide {
        save(&mut area);
    }
    let vectors = area.0.iter().filter(|word| **word == !inverse).count();
    vectors as u64 + addresses(inverse).0
}

fn save(area: &mut Area) {
    area.0 = [0; AREA_WORDS];
    // SAFETY: the area is as large as what is asked for, and aligned.
    unsafe {
        asm!("xsave [{area}]", area = in(reg) &raw mut area.0, in("eax") ALL_STATE, in("edx") 0, options(nostack));
    };
}

/// How many registers held the complement of `inverse` before this guest used them, of how many.
#[must_use]
pub fn at_start(inverse: u64) -> (u64, u64) {
    let (mut hits, mut of) = addresses(inverse);
    let mut look = |word: u64| {
        of += 1;
        // Of some registers only the lower half is seen.
        let is_half = word != 0 && word == !inverse & 0xFFFF_FFFF;
        hits += u64::from(word == !inverse || is_half);
    };
    entry::first_words().for_each(&mut look);
    if has_wide_vectors() {
        let mut area = Area([0; AREA_WORDS]);
        save(&mut area);
        area.0[HEADER + 8..].iter().copied().for_each(&mut look);
    }
    (hits, of)
}

fn set_addresses(value: u64) {
    for msr in ADDRESSES {
        write_msr(msr, value);
    }
    for msr in halves() {
        write_msr(msr, value & 0xFFFF_FFFF);
    }
    // SAFETY: no breakpoint is switched on, and nothing reads the address of the last page fault.
    unsafe {
        asm!("mov dr0, {v}", "mov dr1, {v}", "mov dr2, {v}", "mov dr3, {v}", "mov cr2, {v}", v = in(reg) value,
             options(nomem, nostack));
    };
}

/// How many of the registers that [`set_addresses`] writes hold the complement of `inverse`, of how many.
fn addresses(inverse: u64) -> (u64, u64) {
    let (mut hits, mut of) = (0, 0);
    let mut look = |value: u64, wanted: u64| {
        of += 1;
        hits += u64::from(value == wanted);
    };
    for msr in ADDRESSES {
        look(read_msr(msr), !inverse);
    }
    for msr in halves() {
        look(read_msr(msr), !inverse & 0xFFFF_FFFF);
    }
    let (a, b, c, d, e): (u64, u64, u64, u64, u64);
    // SAFETY: reading these changes nothing.
    unsafe {
        asm!("mov {a}, dr0", "mov {b}, dr1", "mov {c}, dr2", "mov {d}, dr3", "mov {e}, cr2", a = out(reg) a,
             b = out(reg) b, c = out(reg) c, d = out(reg) d, e = out(reg) e, options(nomem, nostack));
    };
    for value in [a, b, c, d, e] {
        look(value, !inverse);
    }
    (hits, of)
}

/// Those of 32 bits that this processor has.
fn halves() -> impl Iterator<Item = u32> {
    const RDTSCP: u32 = 1 << 27;
    let has_number = __cpuid(0x8000_0001).edx & RDTSCP != 0;
    HALVES.into_iter().take(if has_number { 2 } else { 1 })
}
