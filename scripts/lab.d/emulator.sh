# emulator.sh: mends an error of the emulator that hangs guests of nested virtualization. Sourced, never run.
#
# QEMU's helper_vmrun() (target/i386/tcg/system/svm_helper.c, 11.1.3 and before) delivers an interrupt that the hypervisor
# injects, and beside that leaves its vector in `exception_index`, as if it had still to be delivered. Nothing looks there
# until something leaves the translated code without a reason of its own: then the guest gets the same interrupt a second
# time, whether it takes interrupts or not, and waits for ever for the lock that it holds since the first. What makes the
# emulator leave so is another of its threads, a moment late: it happens under load, and with more processors all the time.
#
# The store of the vector is the error; its six bytes become a no-operation of six bytes. The other kinds of events need
# the store and keep it: they go through cpu_loop_exit().
# shellcheck shell=bash

# What surrounds the store in the machine code, and nothing else in the program: error_code was stored just before;
#   mov %esi, exception_index(%rbx); movl $0, exception_is_int(%rbx); movq $-1, exception_next_eip(%rbx);
#   testb $2, qemu_loglevel(%rip); jne ...; mov $1, %edx; mov %rbx, %rdi; call do_interrupt_x86_hardirq
LAB_EMULATOR_ERROR='\x89[\x80-\xbf]....\xc7[\x80-\xbf]....\x00\x00\x00\x00\x48\xc7[\x80-\xbf]....\xff\xff\xff\xff'
LAB_EMULATOR_ERROR+='\xf6\x05....\x02\x0f\x85....\xba\x01\x00\x00\x00\x48\x89.\xe8'

# mend_emulator PROGRAM: takes the error out of it, or says that it is not found there.
mend_emulator() {
    local places
    places=$(LC_ALL=C grep -obUaP "$LAB_EMULATOR_ERROR" "$1" | cut -d: -f1 --only-delimited) || true
    if [[ ! $places =~ ^[0-9]+$ ]]; then
        progress "warning[emulator-unmended]: $(basename "$1") is not built as scripts/lab.d/emulator.sh knows it; guests may hang under load"
        return
    fi
    printf '\x66\x0f\x1f\x44\x00\x00' | dd of="$1" bs=1 seek="$places" conv=notrunc status=none
}
