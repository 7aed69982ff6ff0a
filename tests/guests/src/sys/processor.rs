//! The processor: its local APIC, the time it tells, and waiting.
//!
//! Interrupts are off but where they are asked for, and the timer is only a clock: in the lab, the emulator's processor now
//! and then comes back for ever to the write that ends an interrupt, so none happens without need.
//!
//! *Source:* `Intel SDM volume 3, sections 11.5 and 11.12 (x2APIC)`.

use core::arch::asm;

use super::entry;
pub use super::entry::interrupts;

const APIC_BASE: u32 = 0x1B;
const APIC_ENABLED: u64 = 1 << 11;
const X2APIC: u64 = 1 << 10;
const SPURIOUS: u32 = 0x80F;
/// Where the word for the end of interrupts is, and that it is used. *Source:* `Documentation/virt/kvm/x86/msr.rst (v6.12)`.
const KVM_END_OF_INTERRUPT: u32 = 0x4B56_4D04;
const TIMER: u32 = 0x832;
const PERIODIC: u64 = 1 << 17;
const TIMER_START: u32 = 0x838;
const TIMER_NOW: u32 = 0x839;
const TIMER_DIVIDE: u32 = 0x83E;
const SELF_IPI: u32 = 0x83F;
const COMMAND: u32 = 0x830;
/// All processors, this one too; fixed delivery.
const TO_ALL: u64 = 2 << 18;
const UNDIVIDED: u64 = 0b1011;
const MASKED: u64 = 1 << 16;
/// The timer's counts in a microsecond: KVM runs it at 1 GHz.
const COUNTS_PER_US: u64 = 1000;

pub(super) fn write_msr(msr: u32, value: u64) {
    let (low, high) = (value & 0xFFFF_FFFF, value >> 32);
    // SAFETY: only registers of the local APIC are written, and those that nothing in this guest uses.
    unsafe { asm!("wrmsr", in("ecx") msr, in("rax") low, in("rdx") high, options(nomem, nostack)) };
}

pub(super) fn read_msr(msr: u32) -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: reading a register changes nothing.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("rax") low, out("rdx") high, options(nomem, nostack))
    };
    low | high << 32
}

/// Switches the local APIC on, as x2APIC.
pub fn start_apic() {
    let base = read_msr(APIC_BASE);
    write_msr(APIC_BASE, base | APIC_ENABLED);
    write_msr(APIC_BASE, base | APIC_ENABLED | X2APIC);
    write_msr(SPURIOUS, 0x1FF);
    write_msr(TIMER_DIVIDE, UNDIVIDED);
    write_msr(
        KVM_END_OF_INTERRUPT,
        entry::end_of_interrupt_word() as u64 | 1,
    );
}

/// Lets `ms` milliseconds go by, at most 4000, and takes the interrupts that came.
pub fn wait_ms(ms: u64) {
    let clock = Clock::start();
    while clock.us() < ms.saturating_mul(1000).min(4_000_000) {
        relax();
    }
    take_interrupts();
}

/// Takes the interrupts that wait.
pub fn take_interrupts() {
    // SAFETY: the handlers only count, on a stack of their own.
    unsafe { asm!("sti", "nop", "nop", "cli") };
}

/// Has the timer fire `vector` as often as the machine lets it; no [`Clock`] runs meanwhile.
pub fn start_timer(vector: u8) {
    write_msr(TIMER, PERIODIC | u64::from(vector));
    write_msr(TIMER_START, 1);
}

/// Ends what [`start_timer`] began.
pub fn stop_timer() {
    write_msr(TIMER, MASKED);
    write_msr(TIMER_START, 0);
}

/// Asks what the processor is, which leaves the guest.
pub fn identify() {
    core::hint::black_box(core::arch::x86_64::__cpuid(0));
}

/// Asks for a leaf that no processor has, which leaves the guest: whoever traces the host's KVM sees both numbers.
pub fn mark(leaf: u32, subleaf: u32) {
    core::hint::black_box(core::arch::x86_64::__cpuid_count(leaf, subleaf));
}

/// Halts for ever: no interrupt is taken.
pub fn halt() -> ! {
    loop {
        // SAFETY: the processor waits; an NMI, whose handler only counts, may end that.
        unsafe { asm!("hlt", options(nomem, nostack)) };
    }
}

/// Reads a register of the local APIC, which leaves the guest.
pub fn read_register() {
    core::hint::black_box(read_msr(SPURIOUS));
}

/// Halts until an interrupt comes that was sent before: it leaves the guest at least once.
pub fn halt_once(vector: u8) {
    write_msr(SELF_IPI, vector.into());
    // SAFETY: the handlers only count, on a stack of their own.
    unsafe { asm!("sti", "hlt", "cli") };
}

/// Writes back and empties every cache.
pub fn empty_caches() {
    // SAFETY: what memory holds stays the same.
    unsafe { asm!("wbinvd", options(nostack)) };
}

/// Ends as a processor does that finds no handler for the failure of a handler.
pub fn crash() -> ! {
    let none: [u16; 5] = [0; 5];
    // SAFETY: nothing runs after this.
    unsafe { asm!("lidt [{table}]", "ud2", table = in(reg) &raw const none, options(noreturn)) }
}

/// Sends `vector` to this processor, once by each of two ways.
pub fn send_to_self(vector: u8) {
    write_msr(SELF_IPI, vector.into());
    write_msr(COMMAND, TO_ALL | u64::from(vector));
}

/// A clock that starts at zero and tells microseconds, for 4 seconds; there is only one at a time.
#[derive(Debug)]
pub struct Clock(());

impl Clock {
    /// Starts it.
    #[must_use]
    pub fn start() -> Self {
        write_msr(TIMER, MASKED);
        write_msr(TIMER_START, 0xFFFF_FFFF);
        Self(())
    }

    /// The microseconds since the start.
    #[must_use]
    pub fn us(&self) -> u64 {
        0xFFFF_FFFF_u64.saturating_sub(read_msr(TIMER_NOW)) / COUNTS_PER_US
    }
}

/// Tells the processor that this is a loop that waits.
pub fn relax() {
    core::hint::spin_loop();
}
