//! The first instructions, and those of every interrupt.
//!
//! On entry, by PVH: 32-bit protected mode without paging. On exit: 64-bit mode, one gigabyte a page, the first 512 of
//! them mapped to themselves; a stack; an interrupt table whose handlers count; `guest_main` runs and never returns.
//!
//! *Source:* `Documentation of the PVH boot ABI (Xen, docs/misc/pvh); Intel SDM volume 3, sections 4.5 and 6.14`.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::console;

core::arch::global_asm!(
    r#"
.section .note.Xen, "a", @note
    .long 4, 4, 18
    .asciz "Xen"
    .long pvh_entry

.section .text.entry, "ax", @progbits
.code32
.globl pvh_entry
pvh_entry:
    cld
    # What the registers hold at the first instruction, for who looks for traces of another guest.
    movl %eax, first_registers
    movl %ecx, first_registers + 8
    movl %edx, first_registers + 16
    movl %ebp, first_registers + 24
    movl %esi, first_registers + 32
    movl %edi, first_registers + 40
    movl %esp, first_registers + 48
    movl $stack_end, %esp
    # Pages of 1 GiB; from 3 GiB on is no RAM of a small guest, but registers: not cached.
    xorl %ecx, %ecx
1:  movl %ecx, %eax
    shll $30, %eax
    orl $0x83, %eax
    cmpl $3, %ecx
    jb 2f
    orl $0x18, %eax
2:  movl %ecx, %edx
    shrl $2, %edx
    movl %eax, page_pointers(, %ecx, 8)
    movl %edx, page_pointers + 4(, %ecx, 8)
    incl %ecx
    cmpl $512, %ecx
    jb 1b
    movl $page_pointers + 3, page_root
    movl $page_root, %eax
    movl %eax, %cr3
    # Physical address extension, and SSE, which compiled code uses.
    movl %cr4, %eax
    orl $0x620, %eax
    movl %eax, %cr4
    movl $0xC0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl $task, %eax
    movw %ax, task_descriptor + 2
    shrl $16, %eax
    movb %al, task_descriptor + 4
    movb %ah, task_descriptor + 7
    lgdt descriptors_pointer
    movl %cr0, %eax
    andl $~4, %eax
    orl $0x80000003, %eax
    movl %eax, %cr0
    ljmp $8, $long_mode

.code64
long_mode:
    movq %r8, first_registers + 56
    movq %r9, first_registers + 64
    movq %r10, first_registers + 72
    movq %r11, first_registers + 80
    movq %r12, first_registers + 88
    movq %r13, first_registers + 96
    movq %r14, first_registers + 104
    movq %r15, first_registers + 112
    fxsave64 first_state
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $stack_end, %esp
    # A stack for interrupts and one for NMIs, so that neither overwrites what lies below the stack of compiled code.
    movq $interrupt_stack_end, task + 0x24
    movq $nmi_stack_end, task + 0x2C
    movl $24, %eax
    ltr %ax
    movl $handlers, %eax
    movl $interrupt_table, %edi
    movl $256, %ecx
1:  movw %ax, (%rdi)
    movw $8, 2(%rdi)
    movw $0x8E01, 4(%rdi)
    movl %eax, %edx
    shrl $16, %edx
    movw %dx, 6(%rdi)
    movq $0, 8(%rdi)
    addl $16, %eax
    addl $16, %edi
    decl %ecx
    jnz 1b
    movb $2, interrupt_table + 2 * 16 + 4
    lidt interrupt_table_pointer
    call guest_main
    ud2

# Every vector calls the same code, which knows the vector by where it was called from.
.balign 16
handlers:
.rept 256
    .balign 16
    call handle
.endr
handle:
    pushq %rax
    pushq %rcx
    pushq %rdx
    movq 24(%rsp), %rax
    subq $handlers, %rax
    shrq $4, %rax
    cmpq $2, %rax
    je 2f
    cmpq $32, %rax
    jb 4f
    # The end of the interrupt, for the local APIC; an NMI has none. Where KVM has set the bit, clearing it is enough.
    lock incq interrupt_counts(, %rax, 8)
    lock btrl $0, end_of_interrupt
    jc 3f
    movl $0x80B, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    wrmsr
    jmp 3f
2:  lock incq interrupt_counts(, %rax, 8)
3:  popq %rdx
    popq %rcx
    popq %rax
    addq $8, %rsp
    iretq
4:  movq %rax, %rdi
    movq 32(%rsp), %rsi
    movq 40(%rsp), %rdx
    andq $-16, %rsp
    call exception

.section .data.tables, "aw", @progbits
.balign 8
descriptors:
    .quad 0
    .quad 0x00AF9B000000FFFF
    .quad 0x00CF93000000FFFF
task_descriptor:
    .quad 0x0000890000000067
    .quad 0
descriptors_pointer:
    .word 39
    .quad descriptors
interrupt_table_pointer:
    .word 4095
    .quad interrupt_table

.section .bss.tables, "aw", @nobits
.balign 4096
page_root: .skip 4096
page_pointers: .skip 4096
interrupt_table: .skip 4096
.globl interrupt_counts
interrupt_counts: .skip 2048
.globl end_of_interrupt
end_of_interrupt: .skip 8
.globl first_registers
first_registers: .skip 120
.balign 16
.globl first_state
first_state: .skip 512
task: .skip 104
.balign 16
.skip 65536
stack_end:
.skip 8192
interrupt_stack_end:
.skip 8192
nmi_stack_end:
"#,
    options(att_syntax)
);

unsafe extern "C" {
    /// How often each vector has come.
    safe static interrupt_counts: [AtomicU64; 256];
    /// The word in which KVM says that an interrupt ends without the register being written.
    safe static end_of_interrupt: AtomicU64;
    /// General registers at the first instruction: of seven the lower half, of eight all.
    safe static first_registers: [AtomicU64; 15];
    /// The floating-point and vector registers before anything used them.
    safe static first_state: [AtomicU64; 64];
}

/// What the registers held before this guest used them: general ones, then those of floating point and vectors.
pub(super) fn first_words() -> impl Iterator<Item = u64> {
    let words = first_registers.iter().chain(&first_state);
    words.map(|word| word.load(Ordering::Relaxed))
}

/// The address of the word for KVM.
pub(super) fn end_of_interrupt_word() -> usize {
    core::ptr::from_ref(&end_of_interrupt).addr()
}

/// How often `vector` has come.
#[must_use]
pub fn interrupts(vector: u8) -> u64 {
    interrupt_counts
        .get(usize::from(vector))
        .map_or(0, |count| count.load(Ordering::Relaxed))
}

/// A fault of the guest itself ends it: which, and the first two words of what the processor pushed.
#[unsafe(no_mangle)]
extern "C" fn exception(vector: u64, first: u64, second: u64) -> ! {
    console::say(format_args!(
        "GUEST exception={vector} stack={first:#x},{second:#x}"
    ));
    console::panic_report()
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    console::say(format_args!("GUEST panic={}", info.message()));
    console::panic_report()
}

/// The unwinder's hook, which precompiled code names and nothing calls: panics abort.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
