# emulator.sh: mends two errors of the emulator that harm guests of nested virtualization. Sourced, never run.
#
# 1. A second delivery.
# QEMU's helper_vmrun() (target/i386/tcg/system/svm_helper.c, 11.1.3 and before) delivers an interrupt that the hypervisor
# injects, and beside that leaves its vector in `exception_index`, as if it had still to be delivered. Nothing looks there
# until something leaves the translated code without a reason of its own: then the guest gets the same interrupt a second
# time, whether it takes interrupts or not, and waits for ever for the lock that it holds since the first. What makes the
# emulator leave so is another of its threads, a moment late: it happens under load, and with more processors all the time.
#
# The store of the vector is the error; its six bytes become a no-operation of six bytes. The other kinds of events need
# the store and keep it: they go through cpu_loop_exit().
#
# 2. Traces of an old event. do_interrupt_all() (target/i386/tcg/seg_helper.c) notes every exception that a guest takes by
# itself in EVENTINJ of its VMCB, and takes away no more than the valid bit behind it; the next exit copies the rest into
# EXITINTINFO. A processor leaves that zero (AMD64 Architecture Programmer's Manual, volume 2, 15.20 and 15.7.2). KVM 7.2
# (svm_check_emulate_instruction) looks at the type there without the valid bit, and ends the guest: a page fault of a
# program, and then a write to configuration space as the first exit behind it, is enough.
#
# The mask that takes the valid bit away becomes one that takes all.
# shellcheck shell=bash

# What surrounds the store in the machine code, and nothing else in the program: error_code was stored just before;
#   mov %esi, exception_index(%rbx); movl $0, exception_is_int(%rbx); movq $-1, exception_next_eip(%rbx);
#   testb $2, qemu_loglevel(%rip); jne ...; mov $1, %edx; mov %rbx, %rdi; call do_interrupt_x86_hardirq
LAB_EMULATOR_ERROR='\x89[\x80-\xbf]....\xc7[\x80-\xbf]....\x00\x00\x00\x00\x48\xc7[\x80-\xbf]....\xff\xff\xff\xff'
LAB_EMULATOR_ERROR+='\xf6\x05....\x02\x0f\x85....\xba\x01\x00\x00\x00\x48\x89.\xe8'

# What surrounds the mask, and nothing else in the program, 16 bytes before it:
#   lea 0xa8(%rax), %rsi; call x86_ldl_phys; mov %r15, %rdi; and $0x7fffffff, %eax; mov %eax, %edx
LAB_EMULATOR_TRACES='\x48\x8d[\x80-\xbf]\xa8\x00\x00\x00\xe8....[\x48\x4c]\x89.\x25\xff\xff\xff\x7f\x89'

# mend_emulator PROGRAM: takes the errors out of it, or says which is not found there.
mend_emulator() {
    mend_place "$1" "$LAB_EMULATOR_ERROR" 0 '\x66\x0f\x1f\x44\x00\x00' "guests may hang under load"
    mend_place "$1" "$LAB_EMULATOR_TRACES" 16 '\x00\x00\x00\x00' "guests may end at a write to configuration space"
}

# mend_place PROGRAM PATTERN OFFSET BYTES HARM: puts BYTES behind the one place that looks like PATTERN.
mend_place() {
    local places
    places=$(LC_ALL=C grep -obUaP "$2" "$1" | cut -d: -f1 --only-delimited) || true
    if [[ ! $places =~ ^[0-9]+$ ]]; then
        progress "warning[emulator-unmended]: $(basename "$1") is not built as scripts/lab.d/emulator.sh knows it; $5"
        return
    fi
    # shellcheck disable=SC2059 # the bytes are escapes
    printf "$4" | dd of="$1" bs=1 seek=$((places + $3)) conv=notrunc status=none
}
